"""How long the pages of the console, commands and chores take with a ledger of a million orders.

    python -m benchmarks.console
    python -m benchmarks.console --orders 200000 --database sqlite --explain

Fills a ledger in SQLite and one in PostgreSQL by statements of the database, and prints for each page and question the
median and the longest of its repetitions in milliseconds, the median of this process's CPU (of SQLite too, but not of
PostgreSQL), and how many queries it takes.  ``--keep`` leaves the ledger in SQLite in that directory for the next run;
``--explain`` shows how the database answers what took longest.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from benchmarks.processes import environment

#: Milliseconds that a page may take.
MOST: Final = 300

#: What differs between databases: a random identity, and a time so many seconds ago.
DIALECTS: Final = {
    'sqlite': {'uuid': 'lower(hex(randomblob(16)))',
               'ago': "strftime('%Y-%m-%d %H:%M:%f', julianday('now') - ({0}) / 86400.0)", 'blob': "x'7b7d'"},
    'postgresql': {'uuid': 'gen_random_uuid()', 'ago': "now() - ({0}) * interval '1 second'",
                   'blob': r"'\x7b7d'::bytea"}}

#: Half a year of orders: 2 % of them are parked as after a long outage, 1 % wait, and some are with workers.  One of
#: seven entries is a mail; one of ten was tried four times; there are 200 sites and 40 reasons.
FILL: Final = (
    """
    CREATE TEMPORARY TABLE seeds AS
    WITH RECURSIVE numbers(n) AS (SELECT CAST(1 AS bigint) UNION ALL SELECT n + 1 FROM numbers WHERE n < {orders})
    SELECT n, n * 7919 % 1009 AS one, n * 104729 % 997 AS two, ({orders} - n) * 15552000.0 / {orders} AS age,
           CASE WHEN n * 7919 % 100 < 2 THEN 'parked' WHEN n * 7919 % 100 = 2 THEN 'waiting'
                WHEN n * 7919 % 100 = 3 THEN 'discarded' WHEN n * 7919 % 1000 = 4 THEN 'trying'
                ELSE 'fulfilled' END AS state,
           CASE WHEN n % 7 = 0 THEN 'ecommerce_worker.email.v1.api.send_offer_assignment_email'
                ELSE 'ecommerce_worker.fulfillment.v1.tasks.fulfill_order' END AS task,
           CASE WHEN n % 10 = 0 THEN 4 ELSE 1 END AS tries
    FROM numbers""",
    """
    INSERT INTO ledger_order (id, identity, key, task, site, state, reason, cause, status, next_try, attempts,
        first_seen, last_seen, heard, order_number, product, course, mode, learner, mask)
    SELECT n, {uuid}, CASE WHEN n % 7 = 0 THEN 'assignment ' ELSE 'EDX-' END || (100000 + n), task,
        'site-' || (one % 200), state,
        CASE WHEN state IN ('parked', 'waiting') THEN 'the shop failed (' || (500 + two % 40) || ')' ELSE '' END,
        CASE WHEN state IN ('parked', 'waiting') THEN 'server error' ELSE '' END, 200,
        CASE WHEN state = 'waiting' THEN {soon} END, tries, {seen}, {seen}, {seen}, '', '', '', '', '', ''
    FROM seeds""",
    """
    INSERT INTO ledger_attempt (fact, order_id, message_id, root_id, outcome, attempt, reason, status, queue, worker,
        started, seconds)
    SELECT {uuid}, n, 'id-' || n, 'id-' || n,
        CASE WHEN part < tries THEN 'retrying' WHEN state = 'fulfilled' THEN 'done'
             WHEN state IN ('waiting', 'trying') THEN 'retrying' ELSE 'parked' END,
        part, '', 200, 'ecommerce.fulfillment', 'worker-' || (two % 4), {seen}, 0.1
    FROM seeds, (SELECT 1 AS part UNION SELECT 2 UNION SELECT 3 UNION SELECT 4) AS parts WHERE part <= tries""",
    """
    INSERT INTO ledger_parkedmessage (identity, order_id, message_id, task, key, site, queue, reason, tries, parked_at,
        history, body, headers, content_type, content_encoding, correlation_id, size, settled_at, settled)
    SELECT {uuid}, n, 'id-' || n, task, CASE WHEN n % 7 = 0 THEN 'assignment ' ELSE 'EDX-' END || (100000 + n),
        'site-' || (one % 200), 'ecommerce.fulfillment', 'the shop failed (' || (500 + two % 40) || ')', tries, {seen},
        '[]', CASE WHEN state = 'parked' THEN {blob} END, CASE WHEN state = 'parked' THEN '{{}}' ELSE '' END,
        'application/json', 'utf-8', '', 2, CASE WHEN state <> 'parked' THEN {seen} END,
        CASE state WHEN 'parked' THEN '' WHEN 'discarded' THEN 'discarded' ELSE 'resent' END
    FROM seeds WHERE state IN ('parked', 'discarded') OR tries > 1 AND n % 20 = 0""",
    """
    INSERT INTO ledger_audit (at, who, action, reason, message_id, key, task)
    SELECT settled_at, 'support', settled, 'the shop is back', message_id, key, task
    FROM ledger_parkedmessage WHERE settled <> ''""",
    """
    INSERT INTO ledger_teller (name, worker, highest, gaps, missing, heard)
    SELECT 'teller-' || n, 'worker-' || (two % 4), 1000, '[]', 0, {seen} FROM seeds WHERE n % 200 = 0""",
    """
    INSERT INTO ledger_intakehour (identity, intake, process, hour, number, kind, url, state, test_orders, counts,
        times, last, heard)
    SELECT {uuid}, 'intake-' || (n % 5), 'process-' || (n % 20), {hour}, 1, 'woocommerce', 'https://shop.example/',
        'live', 'ignore', '{{"accepted": {{"": 7}}}}', '[7,0,0,0,0,0,0,0,0,0,0,0]', {hour}, {hour}
    FROM seeds WHERE n <= 13440""",
    'DROP TABLE seeds')


def fill(orders: int) -> None:
    """Fill the empty ledger that is open."""
    from django.db import connection

    words = DIALECTS[connection.vendor]
    ago = words['ago'].format
    with connection.cursor() as cursor:
        for statement in FILL:
            cursor.execute(statement.format(
                orders=orders, uuid=words['uuid'], blob=words['blob'], seen=ago('age'), soon=ago('-two'),
                hour=ago('(n / 20) * 3600')))
        # As the database does by itself after a while, and housekeeping in SQLite.
        cursor.execute('VACUUM ANALYZE' if connection.vendor == 'postgresql' else 'ANALYZE')


Ask = Callable[[], Any]


def pages() -> Iterator[tuple[str, Ask]]:
    """The pages, as a browser gets them; some number, key and message among them."""
    from django.contrib.auth.models import User
    from django.test import Client

    from ecommerce_worker.console import roles
    from ecommerce_worker.ledger.models import Order, ParkedMessage

    user, _ = User.objects.get_or_create(username='operator')
    user.groups.set([roles.group('operator')])
    client = Client(SERVER_NAME='127.0.0.1')
    client.force_login(user, backend='django.contrib.auth.backends.ModelBackend')
    number = Order.objects.order_by('pk')[Order.objects.count() // 2].pk
    parked = ParkedMessage.objects.filter(settled='')[9]

    def get(path: str) -> Ask:
        def ask() -> None:
            found = client.get(path)
            assert found.status_code in (200, 302), found.status_code
        return ask

    for path in ('/', '/orders/', *(f'/orders/?state={state}' for state in (
            'trying', 'waiting', 'parked', 'overdue', 'fulfilled', 'discarded')),
            '/orders/?page=2', '/orders/?state=fulfilled&page=5000', f'/orders/?q=EDX-{100_000 + number}',
            f'/orders/?q={100_000 + number}', f'/orders/?q=id-{number}', '/orders/?q=nowhere', f'/orders/{number}/',
            '/parked/', '/parked/?page=300', f'/parked/?key={parked.key[4:]}', f'/parked/?site={parked.site}',
            f'/parked/?task={parked.task}', f'/parked/?reason={parked.reason}', '/intakes/', '/ledger/audit/',
            '/ledger/audit/?q=EDX-100010'):
        yield path, get(path)


def questions() -> Iterator[tuple[str, Ask]]:
    """What commands and metrics ask the ledger."""
    from ecommerce_worker import runtime
    from ecommerce_worker.celery_app import app
    from ecommerce_worker.health import ledger
    from ecommerce_worker.ledger import queries
    from ecommerce_worker.ledger.figures import Looking
    from ecommerce_worker.telemetry.metrics import Metrics

    settings = runtime.current().settings
    looking: Any = Looking(app, settings, Metrics(settings, app.tasks))
    yield 'parked list', lambda: (queries.parked(limit=100), queries.count_parked())
    yield 'parked list --task fulfill_order', lambda: (queries.parked(task='fulfill_order', limit=100),
                                                       queries.count_parked(task='fulfill_order'))
    yield 'parked resend ID', lambda: queries.parked(ids=['id-1001'])
    yield 'orders show', lambda: queries.search('EDX-200001')
    yield 'orders show, of a part', lambda: queries.search('200001')
    yield 'orders show, of an unknown one', lambda: queries.search('nowhere')
    for state in ('fulfilled', 'waiting', 'parked', 'trying', 'discarded'):
        yield f'orders list --state {state}', lambda state=state: queries.orders(state=state)  # type: ignore[misc]
    yield 'orders list --site', lambda: queries.orders(site='site-7')
    yield 'orders list --task', lambda: queries.orders(task='fulfill_order')
    yield 'orders list --older-than 1h', lambda: queries.orders(older_than=3600)
    yield 'orders list --overdue', lambda: queries.orders(overdue=True)
    yield 'status', lambda: ledger.read(settings)
    yield 'metrics of the recorder', looking._of_ledger  # noqa: SLF001


def chores() -> Iterator[str]:
    """Delete what is older than the ledger keeps, step by step; how long steps took."""
    from ecommerce_worker.ledger import maintenance

    steps, gone, at, begun = list[float](), 0, time.monotonic(), time.monotonic()
    for count in maintenance.retention(90, 0, 730):
        now = time.monotonic()
        steps.append((now - at) * 1000)
        gone, at = gone + count, now
    steps = steps or [0.0]
    yield (f'retention: {gone} rows in {time.monotonic() - begun:.1f} s, {len(steps)} steps; '
           f'a step {statistics.median(steps):.0f} ms, {max(steps):.0f} ms at most')


def measure(name: str, ask: Ask, repeat: int, *, explain: bool) -> tuple[float, float]:
    """Print the row of one page or question; its median and its longest, in milliseconds."""
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    with CaptureQueriesContext(connection) as captured:
        ask()
    queries = captured.captured_queries
    times, used = [], []
    for _ in range(repeat):
        begun, before = time.monotonic(), time.process_time()
        ask()
        times.append((time.monotonic() - begun) * 1000)
        used.append((time.process_time() - before) * 1000)
    median, longest = statistics.median(times), max(times)
    slow = ' SLOW' if median > MOST else ''
    print(f'  {name:50}{median:10.1f}{longest:10.1f}{statistics.median(used):10.1f}{len(queries):10}{slow}', flush=True)
    if slow and explain:
        for query in sorted(queries, key=lambda it: -float(it['time']))[:2]:
            _explain(query['sql'], float(query['time']) * 1000)
    return median, longest


def _explain(sql: str, milliseconds: float) -> None:
    from django.db import connection

    print(f'    {milliseconds:.0f} ms: {sql[:600]}')
    with connection.cursor() as cursor:
        try:
            cursor.execute(f'EXPLAIN {"QUERY PLAN " if connection.vendor == "sqlite" else ""}{sql}')
            print('\n'.join(f'      {row[-1]}' for row in cursor.fetchall()))
        except Exception as error:  # noqa: BLE001 - it is shown
            print(f'      {error}')


def run(options: argparse.Namespace) -> None:
    """Measure with the database of this process's settings."""
    from ecommerce_worker.console import setup
    from ecommerce_worker.ledger.setup import migrate

    migrate(setup.MODULE)
    setup.open_console()
    from django.db import connection
    from django.test.utils import setup_test_environment

    from ecommerce_worker.ledger.models import Order

    setup_test_environment(debug=False)
    begun = time.monotonic()
    if not Order.objects.exists():
        fill(options.orders)
    print(f'{connection.vendor}, {Order.objects.count()} orders (filled in {time.monotonic() - begun:.0f} s), '
          f'{datetime.now(UTC):%Y-%m-%d %H:%M}, load {os.getloadavg()[0]:.1f}')
    print(f'  {"":50}{"median ms":>10}{"max ms":>10}{"CPU ms":>10}{"queries":>10}')
    for name, ask in (*pages(), *questions()):
        if re.search(options.only, name):
            measure(name, ask, options.repeat, explain=options.explain)
    if options.chores:
        for line in chores():
            print(f'  {line}', flush=True)


@contextmanager
def databases(options: argparse.Namespace) -> Iterator[dict[str, dict[str, Any]]]:
    """The databases to measure with, by name."""
    from ecommerce_worker.tests.support.ledger import PrivatePostgres

    with ExitStack() as stack:
        found = dict[str, dict[str, Any]]()
        if 'sqlite' in options.database:
            directory = options.keep or stack.enter_context(tempfile.TemporaryDirectory())
            found['sqlite'] = {'ENGINE': 'django.db.backends.sqlite3', 'NAME': str(Path(directory) / 'ledger.sqlite3')}
        if 'postgresql' in options.database:
            found['postgresql'] = stack.enter_context(PrivatePostgres()).database
        yield found


def main() -> None:
    """Measure with each database, in a process of its own, for a process has one Django."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--orders', type=int, default=1_000_000)
    parser.add_argument('--database', nargs='*', default=['sqlite', 'postgresql'], choices=list(DIALECTS))
    parser.add_argument('--repeat', type=int, default=5)
    parser.add_argument('--only', default='', help='only pages and questions that match this regular expression')
    parser.add_argument('--keep', default='', help='directory for the ledger in SQLite, which is used again')
    parser.add_argument('--explain', action='store_true')
    parser.add_argument('--chores', action='store_true', help='delete what is old too, and measure its steps')
    parser.add_argument('--here', action='store_true', help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        run(options)
        return
    with databases(options) as found:
        for database in found.values():
            subprocess.run([sys.executable, '-m', 'benchmarks.console', '--here', *sys.argv[1:]], check=True,
                           env=environment('test', BROKER_URL='memory://', DATABASES={'default': database}))


if __name__ == '__main__':
    main()
