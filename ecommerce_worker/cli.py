"""The ``ecommerce-worker`` command."""

from __future__ import annotations

import getpass
import os
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import wraps
from importlib.util import find_spec
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any, NoReturn

import click

from ecommerce_worker import __version__, runtime, settings
from ecommerce_worker.errors import Misconfigured, WorkerError

if TYPE_CHECKING:
    from celery import Celery
    from kombu import Connection

    from ecommerce_worker.ledger.rooms import Parked
    from ecommerce_worker.schedule.firing import Firings

LEVELS = ('DEBUG', 'INFO', 'WARNING', 'ERROR', 'CRITICAL')

CONTEXT = {'help_option_names': ['-h', '--help'], 'max_content_width': 110}


def fail(message: str, status: int = 1) -> NoReturn:
    """End with one plain line and this exit status."""
    click.echo(f'ecommerce-worker: {message}', err=True)
    sys.exit(status)


def plainly(command: Callable[..., Any]) -> Callable[..., Any]:
    """Our own errors end a command with their text; a traceback is for what nobody foresaw."""
    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except Misconfigured as error:
            for problem in error.problems:
                click.echo(f'ecommerce-worker: {problem}', err=True)
            fail(f'{_count(len(error.problems), "problem")} in the configuration; '
                 '`ecommerce-worker check` shows all of it')
        except WorkerError as error:
            fail(str(error), getattr(error, 'status', 1))

    return run


def leveled(command: Callable[[str | None], Any]) -> Callable[..., Any]:
    """The command takes what it logs: a level, or None for what is configured."""
    @click.option('--debug', is_flag=True, help='Log everything.')
    @click.option('--loglevel', metavar='LEVEL', type=click.Choice(LEVELS, case_sensitive=False),
                  help=f'Log this and what is worse: {", ".join(LEVELS)}.  LOG_LEVEL if not given.')
    @wraps(command)
    def run(debug: bool, loglevel: str | None) -> Any:
        return command('DEBUG' if debug else loglevel)

    return run


@click.group(context_settings=CONTEXT)
@click.version_option(__version__, prog_name='ecommerce-worker')
def main() -> None:
    """Fulfils the orders that a shop publishes on RabbitMQ, and shows where each of them is.

    The configuration is chosen by WORKER_CONFIGURATION_MODULE (ecommerce_worker.configuration.local if unset), a
    YAML file named by ECOMMERCE_WORKER_CFG, and variables ECOMMERCE_WORKER_<SETTING>.
    """


# -- running it -------------------------------------------------------------------------------------------------------

# Celery's short options take their value without a space (-Qhigh), so none of ours may be short.
@main.command(context_settings={'ignore_unknown_options': True, 'help_option_names': ['--help']})
@click.option('--debug', is_flag=True, help='Log everything.')
@click.option('--wait', default=0.0, metavar='SECONDS', help='Wait so long for a broker that is still booting.')
@click.argument('celery_options', nargs=-1, type=click.UNPROCESSED, metavar='[CELERY OPTIONS]...')
@plainly
def worker(debug: bool, wait: float, celery_options: tuple[str, ...]) -> None:
    """Run a worker until it is told to stop.

    SIGTERM lets it finish what runs, for SHUTDOWN_SECONDS at most; a second one, or SIGQUIT, does not wait.  Nothing
    is lost either way: what has not ended is delivered again.

    Pool, concurrency and queues come from the configuration.  Options that are not listed below go to Celery's own
    worker, such as `--concurrency 64`, `--pool prefork`, `-Q ecommerce.fulfillment` (see `celery worker --help`).

    Exit status: 1 for a wrong configuration, 69 if the broker cannot be reached, 77 if it refuses the login or does
    not permit what the worker needs, 78 if it cannot be trusted with orders.
    """
    from celery.bin.celery import celery

    from ecommerce_worker.worker import preflight

    if '-h' in celery_options:
        click.echo(click.get_current_context().get_help())
        return
    for option in ('--purge', '--discard'):
        if option in celery_options:
            fail(f'{option} would destroy orders; see `ecommerce-worker queues purge`', 2)
    conf = runtime.current().settings
    runtime.current().check()
    app = _app()
    if pool := _said(celery_options, '-P', '--pool'):
        try:
            # Celery takes the word prefork for its own default, which gives way to what is configured.
            app.conf.worker_pool = settings.SETTINGS['WORKER_POOL'].read(pool)
        except ValueError:
            fail(f'--pool must be {settings.SETTINGS["WORKER_POOL"].wants}', 2)
    if wait:
        preflight.wait(app, conf, wait, lambda said: click.echo(f'ecommerce-worker: {said}', err=True))
    preflight.check(app, conf)
    for remark in conf.remarks:
        click.echo(f'ecommerce-worker: note: {remark}', err=True)
    ours = ['worker', f'--loglevel={"DEBUG" if debug else conf.LOG_LEVEL}']
    if _said(celery_options, '-n', '--hostname') is None:
        # Two workers of one name: the second could not start.
        ours.append(f'--hostname=ecommerce-{os.getpid()}@{socket.gethostname()}')
    # Not app.worker_main(), which keeps the exit status to itself.
    sys.exit(celery.main(['-A', 'ecommerce_worker.celery_app:app', *ours, *celery_options], standalone_mode=False))


def _said(options: tuple[str, ...], short: str, long: str) -> str | None:
    """What these options of Celery's say for one of them, in whichever of its spellings; the last word counts."""
    said = None
    for option, following in zip_longest(options, options[1:]):
        if option in (short, long):
            said = following
        elif option.startswith(f'{long}='):
            said = option.removeprefix(f'{long}=')
        elif option.startswith(short):
            said = option.removeprefix(short)
    return said


@main.command()
@click.option('--keep', is_flag=True, help='Leave broker, shop and worker running at the end, until Ctrl-C.')
@click.option('--files', is_flag=True, help='Do without RabbitMQ even where there is one: orders travel in files.')
@plainly
def demo(keep: bool, files: bool) -> None:
    """Show orders fulfilled and mails sent through every kind of trouble, on this machine alone."""
    from ecommerce_worker.demo.story import run

    sys.exit(run(keep, rabbitmq=not files))


# -- looking ----------------------------------------------------------------------------------------------------------

@main.command()
def check() -> None:
    """Print the configuration in force, secrets masked, and everything that is wrong with it."""
    from ecommerce_worker import beat as beats

    try:
        conf = runtime.current().settings
        runtime.current().check()
        beats.check(_app(), conf)
    except Misconfigured as error:
        for problem in error.problems:
            click.echo(f'problem: {problem}')
        click.echo(_count(len(error.problems), 'problem') + ' found; a worker would not start')
        sys.exit(1)
    _table(('SETTING', 'FROM', 'VALUE'), [(name, source, value) for name, value, source in conf.rows()])
    for remark in conf.remarks:
        click.echo(f'note: {remark}')
    click.echo('no problem found')


@main.command()
@click.option('--timeout', default=1.0, show_default=True, help='Seconds to wait for the answers of workers.')
@click.option('--fail-on-parked', is_flag=True, help='Parked messages are trouble too, for a monitor that should tell.')
@plainly
def status(timeout: float, fail_on_parked: bool) -> None:
    """Show workers, queues, and how many orders wait or are parked.

    Exit status: 1 if a queue holds messages that nobody consumes, no worker answers, the broker takes no messages,
    there is a ledger without a recorder, a schedule of yours without a beat, or an entry of it that is overdue; with
    --fail-on-parked, also if messages are parked.
    """
    from ecommerce_worker import topology
    from ecommerce_worker.worker import queues

    conf = runtime.current().settings
    with _connected() as (app, connection):
        sound = queues.takes_messages(connection)
        workers = _workers(app, timeout) if sound else []
        found = queues.depths(connection, (*conf.QUEUES, *queues.ELSEWHERE))
        waiting = topology.waiting(connection)
        parked = depth.messages if (depth := topology.depth(connection, topology.PARKED)) else 0
        facts = topology.depth(connection, topology.LEDGER)
    rows, troubles = [], list[str]()
    kept, of_ledger = _ledger_state(conf)
    parked += kept
    of_beat, beat_troubles = _beat_state(app, conf)
    troubles += beat_troubles
    recorders = facts.consumers if facts else 0
    if facts and not recorders and of_ledger:
        troubles.append('there is a ledger, and no recorder writes into it: ecommerce-worker recorder')
    # On brokers where a queue is there once it is asked for, the others are only looked for.
    for depth in (it for it in found if it.messages or it.name in conf.QUEUES):
        alone = depth.messages > 0 and depth.consumers == 0
        if alone:
            troubles.append(f'{depth.name} holds {_count(depth.messages, "message")} and nobody consumes it: start a '
                            f'worker with it in QUEUES (or -Q {depth.name})')
        rows.append((depth.name, depth.messages, '?' if depth.consumers is None else depth.consumers,
                     '<- nobody consumes it' if alone else ''))
    if not sound:
        troubles.append('the broker takes no messages, so workers cannot be asked: its memory or its disk is short '
                        '(rabbitmq-diagnostics alarms)')
    elif not workers:
        troubles.append(f'no worker answered within {timeout:g} s')
    if parked and fail_on_parked:
        troubles.append(f'{_count(parked, "parked message")} for a person to look at')
    click.echo(f'broker    {settings.mask("BROKER_URL", conf.BROKER_URL)}')
    click.echo('workers   ' + (', '.join(workers) or ('none' if sound else '?')))
    click.echo(f'waiting   {waiting} for their next try')
    click.echo(f'parked    {parked} for a person (ecommerce-worker parked list)')
    if of_ledger:
        click.echo(f'ledger    {of_ledger}; recorders: {recorders}; {facts.messages if facts else 0} facts to record')
    if of_beat:
        click.echo(f'beat      {of_beat}')
    click.echo()
    if rows:
        _table(('QUEUE', 'MESSAGES', 'CONSUMERS', ''), rows)
    else:
        click.echo('There are no queues yet; the first worker declares them.')
    for trouble in troubles:
        click.echo(f'trouble: {trouble}')
    sys.exit(1 if troubles else 0)


def _ledger_state(conf: settings.Settings) -> tuple[int, str]:
    """How many messages are parked in the ledger, and how it is; '' if there is none."""
    from ecommerce_worker.ledger import rooms

    if not rooms.is_kept(conf):
        return 0, ''
    try:
        return _ledger().count_parked(), 'in use'
    except WorkerError as error:
        return 0, str(error)


def _beat_state(app: Celery, conf: settings.Settings) -> tuple[str, list[str]]:
    """When a beat gave the last sign of life, and all that is wrong with that; '' where nobody asked for one."""
    from ecommerce_worker import beat as beats
    from ecommerce_worker.schedule.entries import entries

    wanted = [entry for entry in entries(conf) if not entry.is_the_recorders]
    if not wanted:
        return '', []
    try:
        firings = beats.firings_of(conf)
        ticked = firings.ticked()
        if ticked is None and all(beats.is_shipped(conf, it.name) for it in wanted):
            return '', []
        # Where there never was a beat nothing was fired, and there may be no file to look into.
        troubles = _overdue(app, conf, firings) if ticked else []
    except WorkerError as error:
        return str(error), []
    if ticked is None or time.time() - ticked > beats.ALIVE_SECONDS:
        return 'none', ['there is a SCHEDULE, and no beat publishes its jobs: ecommerce-worker beat', *troubles]
    return f'alive {time.time() - ticked:.0f} s ago', troubles


def _overdue(app: Celery, conf: settings.Settings, firings: Firings) -> list[str]:
    """A line for each entry that should have been fired by now."""
    from ecommerce_worker import beat as beats

    try:
        timings = beats.timings(app, conf)
    except Misconfigured as error:
        return [f'no beat can start: {problem}' for problem in error.problems]
    return [f'SCHEDULE[{entry.name}] is overdue since {datetime.fromtimestamp(since, UTC):%Y-%m-%d %H:%M} UTC: nobody '
            'has fired it' for entry, timing in timings
            if (since := beats.overdue(timing, firings.last(entry.key), time.time())) is not None]


def _workers(app: Celery, timeout: float) -> list[str]:
    """The workers that have tasks of ours; those of other services on the virtual host answer too."""
    ours = {name for name in app.tasks if not name.startswith('celery.')}
    answers = app.control.broadcast('registered', reply=True, timeout=timeout)
    return sorted(name for answer in answers for name, tasks in answer.items()
                  if isinstance(tasks, list) and not ours.isdisjoint(str(task).partition(' ')[0] for task in tasks))


# -- parked messages --------------------------------------------------------------------------------------------------

@main.group()
def parked() -> None:
    """Messages that wait for a person: look at them, send them again, or discard them.

    They are in the queue ecommerce.parked, or, where a recorder runs, in the ledger; here that makes no difference.
    """


def chosen(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that choose among parked messages."""
    for decorator in (
        click.option('--task', help='Only those of this task; the end of its name will do (fulfill_order).'),
        click.option('--order', help='Only those of this order number.'),
    ):
        command = decorator(command)
    return command


NONE_LIKE_THAT = 'no parked message is like that; `ecommerce-worker parked list` shows all'

REASON = click.option('--reason', default='', help='Why; it is written into the ledger, if there is one.')


@parked.command('list')
@chosen
@click.option('--limit', default=100, show_default=True, help='Show so many at most; all are counted.')
@plainly
def list_(order: str | None, task: str | None, limit: int) -> None:
    """List them, oldest first."""
    rows, count = [], 0
    with _parked(order, task) as messages:
        for it in messages:
            count += 1
            if count <= limit:
                rows.append(_row(it))
    if rows:
        _parked_table(rows)
    click.echo(_count(count, 'parked message') + (f', the first {limit} are shown' if count > limit else ''))


def _row(it: Parked) -> tuple[Any, ...]:
    """A parked message in one line, whose body need not be kept for it."""
    return it.id, it.key or '-', it.short_task or '-', f'{it.parked_at:%Y-%m-%d %H:%M}', it.tries, it.reason


def _parked_table(rows: list[tuple[Any, ...]]) -> None:
    """A table of such lines; eight letters of each id, or more where that does not tell them apart."""
    ids, length = {row[0] for row in rows}, 8
    while len({id_[:length] for id_ in ids}) < len(ids):
        length += 1
    _table(('ID', 'ORDER', 'TASK', 'PARKED (UTC)', 'TRIES', 'REASON'), [(id_[:length], *row) for id_, *row in rows])


@parked.command()
@click.argument('ids', nargs=-1, metavar='[ID]...')
@chosen
@click.option('--body', is_flag=True, help='Show the raw body as well; it may hold personal data.')
@plainly
def show(ids: tuple[str, ...], order: str | None, task: str | None, body: bool) -> None:
    """Show what happened to some of them; the beginning of an ID will do."""
    if not (ids or order or task):
        fail('say which: an ID, --order or --task', 2)
    count = 0
    with _parked(order, task, ids) as messages:
        for it in messages:
            if count:
                click.echo()
            count += 1
            _show(it, body=body)
    if not count:
        fail(NONE_LIKE_THAT)


def _show(it: Parked, *, body: bool) -> None:
    from ecommerce_worker.worker.parked import moment

    rows = [('id', it.id), ('order', it.key or '-'), ('task', it.task or '-'), ('queue', it.queue or '-'),
            ('parked', f'{it.parked_at:%Y-%m-%d %H:%M:%S} UTC'), ('reason', it.reason), ('tries', it.tries),
            ('body', f'{it.size} bytes, {it.content_type}')]
    for name, value in rows:
        click.echo(f'{name:8} {value}')
    click.echo('history')
    for entry in it.history:
        at = moment(entry.get('at'))
        click.echo(f'  {f"{at:%Y-%m-%d %H:%M:%S}" if at else "?"}  {entry.get("reason", "")}')
    if body:
        click.echo(it.body().decode(errors='backslashreplace'))


@parked.command()
@click.argument('ids', nargs=-1, metavar='[ID]...')
@chosen
@click.option('--all', 'everything', is_flag=True, help='All of them.')
@REASON
@plainly
def resend(ids: tuple[str, ...], order: str | None, task: str | None, everything: bool, reason: str) -> None:
    """Send them to the queue that they came from, with their patience renewed.

    A worker asks the shop how the order stands before it does anything.
    """
    _say_which(ids, order, task, everything)
    count = stuck = 0
    with _parked(order, task, ids, reason) as messages:
        for it in _meant(messages, ids) if ids else messages:
            if not it.queue:
                stuck += 1
                click.echo(f'{it.id[:8]} does not say which queue it came from; it stays', err=True)
                continue
            it.resend()
            count += 1
            click.echo(f'{it.id[:8]} {it.key or "-"} sent to {it.queue}')
    if not (count or stuck):
        fail(NONE_LIKE_THAT)
    click.echo(f'{_count(count, "message")} sent again')
    sys.exit(0 if count and not stuck else 1)


@parked.command()
@click.argument('ids', nargs=-1, metavar='[ID]...')
@chosen
@click.option('--all', 'everything', is_flag=True, help='All of them.')
@click.option('--yes', is_flag=True, help='Do not ask.')
@REASON
@plainly
def discard(ids: tuple[str, ...], order: str | None, task: str | None, everything: bool, yes: bool,
            reason: str) -> None:
    """Throw them away for good; what they promised is then not done."""
    _say_which(ids, order, task, everything)
    with _parked(order, task, ids, reason) as messages:
        found = _meant(messages, ids)
        if not found:
            fail(NONE_LIKE_THAT)
        for it in found[:20]:
            click.echo(f'{it.id[:8]} {it.key or "-"} {it.reason}')
        with _answered('--yes'):
            if not (yes or click.confirm(f'Throw {_count(len(found), "message")} away for good?')):
                fail('nothing was thrown away')
        for it in found:
            it.discard()
    click.echo(f'{_count(len(found), "message")} thrown away')


def _say_which(ids: tuple[str, ...], order: str | None, task: str | None, everything: bool) -> None:
    if not (ids or order or task or everything):
        fail('say which: an ID, --order, --task or --all', 2)


def _meant(messages: Iterable[Parked], ids: tuple[str, ...]) -> list[Parked]:
    """Those of these messages that are meant by the ids, if any: each is a whole one, or the beginning of one only."""
    found, meant = list(messages), set[str]()
    for given in ids:
        like = {it.id for it in found if it.id.startswith(given)}
        if given not in like and len(like) > 1:
            _parked_table([_row(it) for it in found if it.id in like])
            fail(f'{given} is the beginning of several ids: say more of the one that you mean')
        meant |= {given} if given in like else like
    return [it for it in found if it.id in meant or not ids]


@contextmanager
def _parked(order: str | None, task: str | None, ids: tuple[str, ...] = (), reason: str = '') -> Iterator[
        Iterator[Parked]]:
    """The chosen messages; those in the queue stay in hand until the end, so that each is seen once."""
    from ecommerce_worker.ledger import rooms
    from ecommerce_worker.worker.parked import looked_through

    which = rooms.Chosen(order, task, ids)
    with _connected() as (app, connection), looked_through(connection) as messages:
        ledger = (rooms.in_ledger(app, which, who=_who(), reason=reason)
                  if rooms.is_kept(runtime.current().settings) else iter(()))
        yield chain(rooms.in_queue(app, messages, which), ledger)


def _who() -> str:
    return f'{getpass.getuser()}@{socket.gethostname()}'


# -- the ledger -------------------------------------------------------------------------------------------------------

@main.command()
@click.argument('target', default='')
@plainly
def migrate(target: str) -> None:
    """Make the ledger, or bring it up to date (back to the migration TARGET, for a version to go back to)."""
    from ecommerce_worker.ledger import opening

    runtime.current()
    opening.migrate(target=target)
    click.echo('the ledger is up to date' if not target else f'the ledger is at {target}')


@main.command()
@leveled
@plainly
def recorder(level: str | None) -> None:
    """Write facts and parked messages into the ledger, until told to stop."""
    from ecommerce_worker import celery_app
    from ecommerce_worker.ledger import opening

    app = _app()
    celery_app.configure_logging(level)
    opening.open_ledger()
    from ecommerce_worker.ledger import recorder as recording  # not before the ledger is open

    recording.keep(app, runtime.current().settings)


@main.group()
def orders() -> None:
    """Where an order is, and what happened to it; from the ledger."""


@orders.command('show')
@click.argument('key')
@plainly
def show_order(key: str) -> None:
    """Show all that the ledger knows of an order: its number, or the id of its message."""
    queries = _ledger()
    found = queries.search(key)
    if not found:
        fail(f'the ledger knows no order {key}; `ecommerce-worker resubmit --order {key}` asks the shop')
    if found[0].key != key and len(found) > 1:
        _orders(found)
        return
    for number, entry in enumerate(found):
        if number:
            click.echo()
        story = queries.story(entry.number)
        for name, value in (('order', entry.key), ('task', entry.task), ('site', entry.site or '-'),
                            ('state', entry.state), ('reason', entry.reason or '-'),
                            ('next try', f'{entry.next_try:%Y-%m-%d %H:%M:%S} UTC' if entry.next_try else '-')):
            click.echo(f'{name:8} {value}')
        _table(('STARTED (UTC)', 'TRY', 'OUTCOME', 'SECONDS', 'STATUS', 'REASON'), map(_event, story.events))


def _event(it: Any) -> tuple[Any, ...]:
    """A run of an order, or what a person did, in one line."""
    from ecommerce_worker.ledger.queries import Decision

    if isinstance(it, Decision):
        return (f'{it.at:%Y-%m-%d %H:%M:%S}', '-', it.action, '-', '-',
                f'by {it.who}: {it.reason or "no reason given"}')
    return (f'{it.started:%Y-%m-%d %H:%M:%S}', it.attempt or '-', it.outcome,
            f'{it.seconds:.2f}' if it.attempt else '-', it.status or '-', it.reason)


@orders.command('list')
@click.option('--state', type=click.Choice(['fulfilled', 'waiting', 'parked', 'trying', 'discarded']),
              help='Only those in this state.')
@click.option('--older-than', default='0s', help='Only those of which nothing was heard for so long, such as 1h.')
@click.option('--task', default='', help='Only those of this task; the end of its name will do.')
@click.option('--site', help='Only those of this site.')
@click.option('--limit', default=100, show_default=True, help='Show so many at most.')
@plainly
def list_orders(state: str | None, older_than: str, task: str, site: str | None, limit: int) -> None:
    """List orders, those first of which nothing was heard for longest."""
    from ecommerce_worker.worker.resubmit import seconds

    try:
        age = seconds(older_than) if older_than != '0s' else 0
    except ValueError as error:
        fail(f'--older-than must be {error}', 2)
    _orders(_ledger().orders(state=state or '', older_than=age, task=task, site=site, limit=limit))


def _orders(entries: Iterable[Any]) -> None:
    rows = [(it.key, it.state, it.task.rpartition('.')[2], it.site or '-', it.attempts,
             f'{it.last_seen:%Y-%m-%d %H:%M}', it.reason) for it in entries]
    if rows:
        _table(('ORDER', 'STATE', 'TASK', 'SITE', 'TRIES', 'LAST SEEN (UTC)', 'REASON'), rows)
    click.echo(_count(len(rows), 'order'))


def _ledger() -> Any:
    """What reads the ledger; raises ``LedgerUnusable`` if there is none of this version."""
    from ecommerce_worker.ledger import opening

    runtime.current()
    opening.open_ledger()
    opening.require_schema()
    from ecommerce_worker.ledger import queries

    return queries


# -- the console ------------------------------------------------------------------------------------------------------

@main.command(context_settings={'ignore_unknown_options': True, 'help_option_names': ['--help']})
@click.option('--debug', is_flag=True, help='Log everything.')
@click.argument('options', nargs=-1, type=click.UNPROCESSED, metavar='[GUNICORN OPTIONS]...')
@plainly
def console(debug: bool, options: tuple[str, ...]) -> None:
    """Serve the pages for support staff and operators, until told to stop.

    Options that are not listed below go to gunicorn, the server, and overrule ours, such as `--threads 16` or
    `--access-logfile -` (see `gunicorn --help`).
    """
    from ecommerce_worker.console import serve

    serve.run(lambda line: click.echo(f'ecommerce-worker: {line}', err=True), options, debug=debug)


@main.command('console-user')
@click.argument('name')
@click.option('--role', type=click.Choice(['viewer', 'support', 'operator']),
              help='What the person may do; operator for who is not there yet and gets none.')
@plainly
def console_user(name: str, role: str | None) -> None:
    """Print a link, good once and for a day, by which NAME chooses a password for the console."""
    from ecommerce_worker.console import serve

    click.echo(serve.invite(name, role or ''))


# -- the schedule -----------------------------------------------------------------------------------------------------

@main.command()
@leveled
@plainly
def beat(level: str | None) -> None:
    """Publish the jobs of SCHEDULE when they are due, until told to stop; several may run."""
    from ecommerce_worker import beat as beats
    from ecommerce_worker import celery_app

    app = _app()
    celery_app.configure_logging(level)
    beats.run(app, runtime.current().settings)


# -- all of a small site ----------------------------------------------------------------------------------------------

@main.command()
@click.option('--debug', is_flag=True, help='Log everything.')
@plainly
def up(debug: bool) -> None:
    """Run recorder, worker, console and beat of a small site together, until told to stop.

    Brings the ledger up to date first.  What ends by itself is started again.  SIGTERM ends one after the other, and
    the worker finishes what runs.
    """
    from ecommerce_worker import up as together
    from ecommerce_worker.ledger import opening

    runtime.current().check()
    opening.migrate()
    together.run(runtime.current().settings, click.echo, debug=debug)


@main.command(context_settings={'ignore_unknown_options': True, 'help_option_names': ['--help']})
@click.argument('options', nargs=-1, type=click.UNPROCESSED, metavar='[FLOWER OPTIONS]...')
@plainly
def flower(options: tuple[str, ...]) -> None:
    """Serve Flower, Celery's own monitor of workers, on loopback and read-only, until told to stop.

    Flower is installed apart.  Options go to it and overrule ours: `--address=127.0.0.1`, `--read_only=true`, and
    `--enable_events=false`, for events show what tasks were called with, and that is personal data.
    """
    if find_spec('flower') is None:
        fail("Flower is not installed here; pip install 'flower>=2.2' installs it")
    from celery.bin.celery import celery

    runtime.current()
    ours = ('--address=127.0.0.1', '--read_only=true', '--enable_events=false')
    sys.exit(celery.main(['-A', 'ecommerce_worker.celery_app:app', 'flower', *ours, *options], standalone_mode=False))


# -- reconciling ------------------------------------------------------------------------------------------------------

def _duration(context: click.Context, option: click.Parameter, given: str) -> float:  # noqa: ARG001
    """The seconds of an option such as 15m."""
    from ecommerce_worker.worker.resubmit import seconds

    try:
        return seconds(given)
    except ValueError as error:
        raise click.BadParameter(f'this must be {error}') from None


@main.command()
@click.option('--order', 'numbers', multiple=True, metavar='NUMBER',
              help='Only this order, whatever its age; repeatable.')
@click.option('--site', 'sites', multiple=True, metavar='CODE',
              help='Only the orders of this site, - for the one without a code; repeatable.')
@click.option('--since', default='2d', show_default=True, callback=_duration,
              help='Only orders placed within this time.')
@click.option('--grace', default='15m', show_default=True, callback=_duration,
              help='Leave orders younger than this to the shop.')
@click.option('--delay', default='2m', show_default=True, callback=_duration,
              help='Let what is published wait so long before it runs.')
@click.option('--limit', type=click.IntRange(min=1), help='Publish so many at most, the oldest first.')
@click.option('--look-into-queues', is_flag=True,
              help='Look through queued messages too; each is then taken for delivered again, and waits.')
@click.option('--dry-run', is_flag=True, help='Publish nothing; tell what would be.')
@plainly
def resubmit(numbers: tuple[str, ...], sites: tuple[str, ...], since: float, grace: float, delay: float,
             limit: int | None, look_into_queues: bool, dry_run: bool) -> None:
    """Publish the orders that the shop has as paid and unfulfilled and of which nothing is in RabbitMQ.

    Nothing is published twice, however often and by however many this is run.  Where a ledger is kept, orders that
    are parked in it are left, and so are those that a person has discarded, unless --order names them.

    Exit status: 1 if something could not be asked or published, 75 if it cannot be done at this moment, or not here.
    """
    from ecommerce_worker.ledger.memory import memory_of
    from ecommerce_worker.worker import resubmit as resubmitting

    wanted = resubmitting.Wanted(numbers, sites, since, grace, delay, limit, dry_run, look_into_queues)
    report = resubmitting.resubmit(_app(), wanted, memory_of(runtime.current().settings),
                                   lambda line: click.echo(line, err=True))
    if report.rows:
        _table(resubmitting.HEAD, [row.cells for row in report.rows])
    for trouble in report.troubles:
        click.echo(f'trouble: {trouble}')
    click.echo(f'{_count(report.published, "order")} {"would be " if dry_run else ""}published')
    sys.exit(1 if report.troubles else 0)


# -- queues -----------------------------------------------------------------------------------------------------------

@main.group()
def queues() -> None:
    """Empty the queues, or make them anew, for whoever used to reset RabbitMQ."""


def emptying(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of what empties queues."""
    @wraps(command)
    def run(*args: Any, yes: bool, park: bool, **kwargs: Any) -> Any:
        if yes and park:
            fail('--yes destroys the messages and --park keeps them: say one of both', 2)
        return command(*args, yes=yes, park=park, **kwargs)

    for decorator in (
        click.option('--yes', is_flag=True, help='Do not ask; destroys.'),
        click.option('--park', is_flag=True, help='Do not ask; park the messages instead of destroying them.'),
    ):
        run = decorator(run)
    return run


@queues.command()
@click.argument('names', nargs=-1, metavar='[QUEUE]...')
@emptying
@plainly
def purge(names: tuple[str, ...], yes: bool, park: bool) -> None:
    """Take all messages out of these queues (all task queues and the waiting room if none is named).

    Messages that a worker has in hand are not touched, nor are parked ones unless ecommerce.parked is named.  The
    ledger, if there is one, is told of what is destroyed.
    """
    from ecommerce_worker.worker import queues as queue_room

    with _connected() as (app, connection):
        queue_room.require(connection, names, runtime.current().settings.QUEUES)
        _empty(app, connection, names or _all_queues(connection), yes=yes, park=park)


@queues.command()
@emptying
@click.option('--force', is_flag=True, help='Even if workers are connected.')
@plainly
def reset(yes: bool, park: bool, force: bool) -> None:
    """Delete the task queues and the waiting room and declare them anew; parked messages stay.

    For a queue that was once declared in another shape.  Stop the workers first.  What is published meanwhile is
    treated as what is there.
    """
    from ecommerce_worker import topology
    from ecommerce_worker.worker import queues as queue_room

    with _connected() as (app, connection):
        names = _all_queues(connection)
        consumed = [depth.name for depth in queue_room.depths(connection, names) if depth.consumers]
        if consumed and not force:
            fail(f'workers consume {", ".join(consumed)}: stop them first, or say --force')
        park = _empty(app, connection, names, yes=yes, park=park)
        for name in names:
            while not queue_room.deleted(connection, name):
                _clear(app, connection, [name], park=park)
            if name in app.amqp.queues.consume_from:  # without delay: shops publish to it
                app.amqp.queues[name].bind(connection.default_channel).declare()
        topology.declare(connection, app.amqp.queues.consume_from.values())
    click.echo(f'{_count(len(names), "queue")} declared anew')


def _all_queues(connection: Connection) -> tuple[str, ...]:
    """The waiting room and the task queues, so ordered that no message moves to one that was passed already."""
    from ecommerce_worker.worker import queues as queue_room

    return (*queue_room.waiting_room(connection), *runtime.current().settings.QUEUES)


def _empty(app: Celery, connection: Connection, names: Iterable[str], *, yes: bool, park: bool) -> bool:
    """Empty the queues as the operator wishes, who is asked if need be; whether the wish was to park."""
    from ecommerce_worker.worker import queues as queue_room

    full = [depth for depth in queue_room.depths(connection, names) if depth.messages]
    total = sum(depth.messages for depth in full)
    if not total:
        click.echo('the queues are empty')
        return park or not yes
    _table(('QUEUE', 'MESSAGES'), [(depth.name, depth.messages) for depth in full])
    if not (yes or park):
        click.echo(f'This would destroy {_count(total, "message")}: orders that were paid for and mails that were '
                   'promised.')
        with _answered('--park or --yes'):
            answer = click.prompt('Park them instead, destroy them, or leave them?',
                                  type=click.Choice(['park', 'destroy', 'leave']), default='park')
        if answer == 'leave':
            fail('nothing was changed')
        park = answer == 'park'
    _clear(app, connection, [depth.name for depth in full], park=park)
    return park


def _clear(app: Celery, connection: Connection, names: list[str], *, park: bool) -> None:
    from ecommerce_worker.worker import queues as queue_room

    done = 'parked' if park else 'destroyed'
    count = 0
    for _ in (queue_room.park(app, connection, names, 'taken out of its queue by an operator') if park else
              queue_room.purge(app, connection, names)):
        count += 1
        if count % 1000 == 0:
            click.echo(f'{count} {done} so far', err=True)
    click.echo(f'{_count(count, "message")} {done}')


# -- what commands share ----------------------------------------------------------------------------------------------

def _app() -> Celery:
    """The application with all its tasks; raises ``Misconfigured``."""
    from ecommerce_worker.celery_app import app
    from ecommerce_worker.worker import preflight

    preflight.import_tasks(app, runtime.current().settings)
    return app


@contextmanager
def _connected() -> Iterator[tuple[Celery, Connection]]:
    from ecommerce_worker.worker import preflight

    app = _app()
    with preflight.connect(app, runtime.current().settings) as connection, preflight.permitted():
        yield app, connection


@contextmanager
def _answered(options: str) -> Iterator[None]:
    """Ask something in here; where nobody answers, nothing is done, and these options would have."""
    try:
        yield
    except click.Abort:
        click.echo()
        fail(f'nothing was done, for nobody answered: {options} answers beforehand')


def _count(number: int, noun: str) -> str:
    return f'{number} {noun}{"" if number == 1 else "s"}'


def _table(head: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> None:
    """A table whose columns are as wide as they need to be; the last one may be as long as it likes."""
    lines = [tuple(str(cell) for cell in row) for row in rows]
    widths = [max(len(line[column]) for line in (head, *lines)) for column in range(len(head))]
    for line in (head, *lines):
        click.echo('  '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


if __name__ == '__main__':
    main()
