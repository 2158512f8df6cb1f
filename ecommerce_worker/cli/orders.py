"""The ledger: making it, and asking it where an order is."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import click

from ecommerce_worker import runtime
from ecommerce_worker.cli.options import DURATION, JSON
from ecommerce_worker.cli.output import fail, needs, plainly, print_json, say, table
from ecommerce_worker.cli.resources import opened_ledger
from ecommerce_worker.cli.root import main
from ecommerce_worker.durations import span
from ecommerce_worker.words import short_name


@main.command()
@click.argument('target', default='')
@needs('ledger', 'django')
@plainly
def migrate(target: str) -> None:
    """Make the ledger, or bring it up to date.

    TARGET is the migration to go back to, for an older version.
    """
    from ecommerce_worker.ledger import setup

    runtime.current()
    setup.migrate(target=target)
    say('the ledger is up to date' if not target else f'the ledger is at {target}')


@main.group()
def orders() -> None:
    """Where an order is, and what happened to it; from the ledger."""


@orders.command('show')
@click.argument('key')
@JSON
@needs('ledger', 'django')
@plainly
def show_order(key: str, as_json: bool) -> None:
    """Show all that the ledger knows of an order.

    KEY is its number or a part of it, or the id of its message.
    """
    queries = opened_ledger()
    found = queries.search(key)
    if not found:
        fail(f'the ledger knows no order {key}; `ecommerce-worker resubmit --order {key}` asks the shop')
    if as_json:
        print_json({'orders': [_told(queries.story(entry.number)) for entry in found]})
        return
    if found[0].key != key and len(found) > 1:
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
        table(('STARTED (UTC)', 'TRY', 'OUTCOME', 'SECONDS', 'STATUS', 'REASON'),
              [_event(it, entry.task) for it in story.events])


def _age(moment: datetime) -> str:
    return span((datetime.now(UTC) - moment).total_seconds())


def _event(it: Any, task: str) -> tuple[Any, ...]:
    """A run of an order, or what a person did, in one line."""
    from ecommerce_worker.ledger import words
    from ecommerce_worker.ledger.queries import Decision

    if isinstance(it, Decision):
        return (f'{it.at:%Y-%m-%d %H:%M:%S}', '-', words.outcome_of(it.action, task), '-', '-',
                f'by {it.who}: {it.reason or "no reason given"}')
    return (f'{it.started_at:%Y-%m-%d %H:%M:%S}', it.attempt or '-', words.outcome_of(it.outcome, task),
            f'{it.seconds:.2f}' if it.attempt else '-', it.status or '-', it.reason)


def _order(entry: Any) -> dict[str, Any]:
    """Where an order is, as programs read it."""
    return {'order': entry.key, 'task': entry.task, 'site': entry.site, 'state': entry.state, 'reason': entry.reason,
            'status': entry.status, 'next_try': entry.next_try, 'tries': entry.attempts,
            'first_seen': entry.first_seen, 'last_seen': entry.last_seen}


def _told(story: Any) -> dict[str, Any]:
    """All about an order, as programs read it."""
    from ecommerce_worker.ledger.queries import Decision

    return {**_order(story.order), 'events': [
        {'at': it.at, 'what': it.action, 'by': it.who, 'reason': it.reason, 'message': it.message_id}
        if isinstance(it, Decision) else
        {'at': it.started_at, 'what': it.outcome, 'try': it.attempt or None, 'seconds': it.seconds, 'status': it.status,
         'reason': it.reason, 'next_try': it.next_try_at, 'queue': it.queue, 'worker': it.worker,
         'message': it.id} for it in story.events]}


@orders.command('list')
@click.option('--state', type=click.Choice(['fulfilled', 'waiting', 'parked', 'trying', 'discarded']),
              help='Only those in this state.')
@click.option('--older-than', default='0s', type=DURATION,
              help='Only those of which nothing was heard for so long, such as 1h.')
@click.option('--task', default='', help='Only those of this task; the end of its name will do.')
@click.option('--site', help='Only those of this site.')
@click.option('--overdue', is_flag=True, help='Only those of which nothing was heard when it was time.')
@click.option('--limit', default=100, show_default=True, help='Show so many at most.')
@JSON
@needs('ledger', 'django')
@plainly
def list_orders(state: str | None, older_than: float, task: str, site: str | None, overdue: bool, limit: int,
                as_json: bool) -> None:
    """List orders, those longest unheard of first."""
    found = opened_ledger().orders(state=state or '', older_than=older_than, task=task, site=site, overdue=overdue,
                                   limit=limit)
    if as_json:
        print_json({'orders': [_order(entry) for entry in found]})
    else:
        _orders(found)


def _orders(entries: Iterable[Any]) -> None:
    from ecommerce_worker.ledger import words

    entries = list(entries)
    rows = [(it.key, words.state_of(it.state, it.task), short_name(it.task), it.site or '-', it.attempts,
             f'{it.last_seen:%Y-%m-%d %H:%M}', it.reason) for it in entries]
    if rows:
        table(('ORDER', 'STATE', 'TASK', 'SITE', 'TRIES', 'LAST SEEN (UTC)', 'REASON'), rows)
    say(words.counted(it.task for it in entries))
