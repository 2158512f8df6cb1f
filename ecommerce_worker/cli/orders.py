"""The commands ``migrate`` and ``orders``."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import click

from ecommerce_worker import runtime
from ecommerce_worker.cli.options import DURATION, JSON
from ecommerce_worker.cli.output import fail, needs, plainly, print_json, say, table
from ecommerce_worker.cli.resources import connected, opened_ledger
from ecommerce_worker.cli.root import main
from ecommerce_worker.durations import span
from ecommerce_worker.words import counted, short_name


@main.command()
@click.argument('target', default='')
@click.option('--check', is_flag=True, help='Change nothing; status 1 if the ledger is not up to date.')
@needs('ledger', 'django')
@plainly
def migrate(target: str, check: bool) -> None:
    """Create the ledger or bring it up to date.

    TARGET is the migration to go back to for an older version.
    """
    from ecommerce_worker.ledger import setup

    if check and target:
        fail('--check takes no TARGET', 2)
    runtime.current()
    if check:
        setup.open_current_ledger()
    else:
        setup.migrate(target=target)
    say('the ledger is up to date' if not target else f'the ledger is at {target}')


@main.group()
def orders() -> None:
    """Look up orders in the ledger."""


@orders.command('show')
@click.argument('key')
@JSON
@needs('ledger', 'django')
@plainly
def show_order(key: str, as_json: bool) -> None:
    """Show everything that the ledger knows about an order.

    KEY is the order number or part of it, the id of its message, or the mail address of a learner; - reads one from
    standard input.
    """
    queries = opened_ledger()
    key = sys.stdin.readline().strip() if key == '-' else key
    learners = _learners(key) if '@' in key else ()
    found = queries.search(key, learners)
    if not found and learners:
        fail('no order in the ledger is for this learner')
    if not found:
        fail(f'no order {key} in the ledger; `ecommerce-worker resubmit --order {key}` asks the shop')
    if as_json:
        print_json({'orders': [_described(queries.story(entry.number)) for entry in found]})
        return
    if learners or (found[0].key != key and len(found) > 1):
        _orders(found)
        return
    from ecommerce_worker.ledger import words

    for number, entry in enumerate(found):
        if number:
            say()
        story = queries.story(entry.number)
        for name, value in ((words.kind_of(entry.task), entry.key), ('task', entry.task), ('site', entry.site or '-'),
                            ('since', f'{entry.first_seen:%Y-%m-%d %H:%M:%S} UTC, {_age(entry.first_seen)} ago'),
                            ('state', words.state_of(entry.state, entry.task)), ('reason', entry.reason or '-'),
                            ('next try', f'{entry.next_try:%Y-%m-%d %H:%M:%S} UTC' if entry.next_try else '-')):
            say(f'{name:8} {value}')
        if story.order.course:
            say(f'{"bought":8} {_bought(story.order)}')
        if story.lines:
            _lines(story.lines)
        table(('STARTED (UTC)', 'TRY', 'OUTCOME', 'SECONDS', 'STATUS', 'REASON'),
              [_event(it, entry.task) for it in story.events])


def _learners(address: str) -> tuple[str, ...]:
    """The pseudonyms of the learner in the ledger, which has no addresses."""
    from ecommerce_worker.enrolment.learner import pseudonyms

    found = pseudonyms(runtime.current().settings, address)
    if not found:
        fail('learners cannot be looked up: the ledger keeps no mail addresses, and LEARNER_KEY is not set')
    return found


def _bought(line: Any) -> str:
    return f'{line.product or "-"}, {line.course or "an unknown course"}, for {line.mask or "no learner"}'


def _lines(lines: Iterable[Any]) -> None:
    """Print the lines of an order and their states."""
    from ecommerce_worker.ledger import words

    table(('LINE', 'PRODUCT', 'COURSE', 'MODE', 'LEARNER', 'TASK', 'STATE', 'REASON'), [
        (it.key, it.product or '-', it.course or '-', it.mode or '-', it.mask or '-', short_name(it.task) or '-',
         words.state_of(it.state, it.task), it.reason) for it in lines])
    say()


@orders.command('covering')
@click.option('--order', 'order_number', required=True, help='Order that was refunded.')
@click.option('--course', required=True, help='Id of the course that it paid for.')
@click.option('--learner', 'learners', multiple=True, required=True,
              help='Pseudonym or mail address of the learner; repeatable.')
@click.option('--site', default='', help='Site of the order.')
@JSON
@needs('ledger', 'django')
@plainly
def covering(order_number: str, course: str, learners: tuple[str, ...], site: str, as_json: bool) -> None:
    """List other orders that pay for a learner's course.

    These are orders in the ledger that were neither refunded nor given up.  With COVERED_BY: ledger, workers run this
    command.

    Exit status: 75 if the ledger cannot be read now, or is behind.
    """
    from ecommerce_worker.resubmit.known import covering as find
    from ecommerce_worker.resubmit.messages import refuse_unrecorded

    known = [name for it in learners for name in (_learners(it) if '@' in it else (it,))]
    with connected() as (_, connection):
        found = find(order_number, course, known, site, lambda memory: refuse_unrecorded(connection, memory))
    if as_json:
        print_json({'covered_by': found.covered_by, 'taken_back': found.taken_back})
        return
    for number in found.covered_by:
        say(number)
    say(f'{counted(len(found.covered_by), "other order")} of this learner for {course}'
        + (f'; the refund of {order_number} is done' if found.taken_back else ''))


@orders.command('bought')
@click.option('--order', 'order_number', required=True, help='Number of the order.')
@click.option('--site', default='', help='Site of the order.')
@JSON
@needs('ledger', 'django')
@plainly
def bought(order_number: str, site: str, as_json: bool) -> None:
    """List the courses that an order bought.

    It is what its products were when it came, whatever PRODUCTS says now.

    With COVERED_BY: ledger, workers run this command before they take back what was refunded.

    Exit status: 75 if the ledger cannot be read now, or is behind.
    """
    from ecommerce_worker.resubmit.known import bought as find
    from ecommerce_worker.resubmit.messages import refuse_unrecorded

    with connected() as (_, connection):
        found = find(order_number, site, lambda memory: refuse_unrecorded(connection, memory))
    if as_json:
        print_json({'lines': found})
        return
    if found:
        table(('PRODUCT', 'COURSE', 'MODE'), [tuple(it.values()) for it in found])
    say(f'{counted(len(found), "course")} in the ledger for {order_number}')


def _age(moment: datetime) -> str:
    return span((datetime.now(UTC) - moment).total_seconds())


def _event(it: Any, task: str) -> tuple[Any, ...]:
    """One line of the history: a run of the order, or the decision of a person."""
    from ecommerce_worker.ledger import words
    from ecommerce_worker.ledger.queries import Decision

    if isinstance(it, Decision):
        return (f'{it.at:%Y-%m-%d %H:%M:%S}', '-', words.outcome_of(it.action, task), '-', '-',
                f'by {it.who}: {it.reason or "no reason given"}')
    return (f'{it.started_at:%Y-%m-%d %H:%M:%S}', it.attempt or '-', words.outcome_of(it.outcome, task),
            f'{it.seconds:.2f}' if it.attempt else '-', it.status or '-', it.reason)


def _order(entry: Any) -> dict[str, Any]:
    """The state of an order, for JSON."""
    return {'order': entry.key, 'task': entry.task, 'site': entry.site, 'state': entry.state, 'reason': entry.reason,
            'status': entry.status, 'next_try': entry.next_try, 'tries': entry.attempts,
            'first_seen': entry.first_seen, 'last_seen': entry.last_seen,
            **({name: getattr(entry, name) for name in ('order_number', 'product', 'course', 'mode', 'mask')}
               if entry.order_number else {})}


def _described(story: Any) -> dict[str, Any]:
    """Everything about an order, for JSON."""
    from ecommerce_worker.ledger.queries import Decision

    lines = {'lines': [_order(line) for line in story.lines]} if story.lines else {}
    return {**_order(story.order), **lines, 'events': [
        {'at': it.at, 'what': it.action, 'by': it.who, 'reason': it.reason, 'message': it.message_id}
        if isinstance(it, Decision) else
        {'at': it.started_at, 'what': it.outcome, 'try': it.attempt or None, 'seconds': it.seconds, 'status': it.status,
         'reason': it.reason, 'next_try': it.next_try_at, 'queue': it.queue, 'worker': it.worker,
         'message': it.id} for it in story.events]}


@orders.command('list')
@click.option('--state', type=click.Choice(['fulfilled', 'waiting', 'parked', 'trying', 'discarded']),
              help='Only those in this state.')
@click.option('--older-than', default='0s', type=DURATION,
              help='Only those without a report for this long, such as 1h.')
@click.option('--task', default='', help='Only those of this task; the end of its name is enough.')
@click.option('--site', help='Only those of this site.')
@click.option('--overdue', is_flag=True, help='Only those without a report when one was due.')
@click.option('--limit', default=100, show_default=True, help='Maximum number to show.')
@JSON
@needs('ledger', 'django')
@plainly
def list_orders(state: str | None, older_than: float, task: str, site: str | None, overdue: bool, limit: int,
                as_json: bool) -> None:
    """List orders, the least recently reported first."""
    found = opened_ledger().orders(state=state or '', older_than=older_than, task=task, site=site, overdue=overdue,
                                   limit=limit)
    if as_json:
        print_json({'orders': [_order(entry) for entry in found]})
    else:
        _orders(found)


def _orders(entries: Iterable[Any]) -> None:
    from ecommerce_worker.ledger import words

    entries = list(entries)
    rows = [(it.key, words.state_of(it.state, it.task), short_name(it.task) or '-', it.site or '-', it.attempts,
             f'{it.last_seen:%Y-%m-%d %H:%M}', it.reason) for it in entries]
    if rows:
        table(('ORDER', 'STATE', 'TASK', 'SITE', 'TRIES', 'LAST SEEN (UTC)', 'REASON'), rows)
    say(words.counted(it.task for it in entries))
