"""The commands ``parked``: list, show, resend and discard messages."""

from __future__ import annotations

import base64
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import chain
from typing import TYPE_CHECKING, Any

import click

from ecommerce_worker import extras, runtime
from ecommerce_worker.cli.options import JSON
from ecommerce_worker.cli.output import answered, fail, plainly, print_json, say, table
from ecommerce_worker.cli.resources import connected, who
from ecommerce_worker.cli.root import main
from ecommerce_worker.errors import NotPublished
from ecommerce_worker.words import counted

if TYPE_CHECKING:
    from ecommerce_worker.ledger.queries import InLedger
    from ecommerce_worker.operations.parked import Desk, InQueue

    Parked = InQueue | InLedger


@main.group()
def parked() -> None:
    """Look at parked messages, resend or discard them.

    They are in the queue ecommerce.parked or, where a recorder runs, in the ledger; the commands handle both alike.
    """


def chosen(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that select parked messages."""
    for decorator in (
        click.option('--task', help='Only those of this task; the end of its name is enough (fulfill_order).'),
        click.option('--order', help='Only those of this order number.'),
    ):
        command = decorator(command)
    return command


#: Messages after which a command that sends many says how far it is.
STEP = 1000

#: Orders that a summary names.
MOST_NAMED = 20

NONE_LIKE_THAT = 'no parked message matches; `ecommerce-worker parked list` shows all'

REASON = click.option('--reason', default='', help='Why; recorded in the ledger, if there is one.')


@parked.command('list')
@chosen
@click.option('--limit', default=100, show_default=True, help='Maximum number to show; all are counted.')
@JSON
@plainly
def list_(order: str | None, task: str | None, limit: int, as_json: bool) -> None:
    """List them, oldest first."""
    from ecommerce_worker.operations.parked import Chosen, InQueue, count_in_ledger

    rows, listed, count = list[tuple[Any, ...]](), list[dict[str, Any]](), 0
    with _parked(order, task, limit=max(0, limit)) as (messages, _):
        for it in messages:
            count += isinstance(it, InQueue)
            if len(rows) < limit:
                rows.append(_row(it))
                listed.append(_as_json(it))
        count += count_in_ledger(Chosen(order, task))
    if as_json:
        print_json({'parked': listed, 'count': count})
        return
    if rows:
        _parked_table(rows)
    say(counted(count, 'parked message') + (f', showing the first {limit}' if count > limit else ''))


def _as_json(it: Parked) -> dict[str, Any]:
    """A parked message, for JSON."""
    return {'id': it.id, 'order': it.key, 'task': it.task, 'queue': it.queue, 'parked_at': it.parked_at,
            'tries': it.tries, 'reason': it.reason}


def _in_full(it: Parked, *, body: bool) -> dict[str, Any]:
    """The same with its history and, on request, its body in base64."""
    history = [{'at': _moment(entry), 'reason': entry['reason']} for entry in it.history]
    return {**_as_json(it), 'content_type': it.content_type, 'size': it.size, 'history': history,
            **({'body': base64.b64encode(_body(it)).decode()} if body else {})}


def _moment(entry: Mapping[str, Any]) -> datetime | None:
    """The time of an entry in the history; None if it has none."""
    return None if entry['at'] is None else datetime.fromtimestamp(entry['at'], UTC)


def _body(it: Parked) -> bytes:
    from ecommerce_worker.operations.parked import body_of

    return body_of(it)


def _row(it: Parked) -> tuple[Any, ...]:
    """A row about a parked message, without its body, so that none is kept in memory."""
    return it.id, it.key or '-', it.short_task or '-', f'{it.parked_at:%Y-%m-%d %H:%M}', it.tries, it.reason


def _parked_table(rows: list[tuple[Any, ...]], *, err: bool = False) -> None:
    """Print such rows; ids are cut to eight characters, or more where needed to distinguish them."""
    ids, length = {row[0] for row in rows}, 8
    while len({id_[:length] for id_ in ids}) < len(ids):
        length += 1
    table(('ID', 'ORDER', 'TASK', 'PARKED (UTC)', 'TRIES', 'REASON'), [(id_[:length], *row) for id_, *row in rows],
          err=err)


@parked.command()
@click.argument('ids', nargs=-1, metavar='[ID]...')
@chosen
@click.option('--body', is_flag=True, help='Show the raw body as well; it may contain personal data.')
@JSON
@plainly
def show(ids: tuple[str, ...], order: str | None, task: str | None, body: bool, as_json: bool) -> None:
    """Show the history of parked messages.

    The beginning of an ID is enough.
    """
    if not (ids or order or task):
        fail('specify an ID, --order or --task', 2)
    count = 0
    with _parked(order, task, ids) as (messages, _):
        if as_json:
            found = [_in_full(it, body=body) for it in messages]
            print_json({'parked': found})
            sys.exit(0 if found else 1)
        for it in messages:
            if count:
                say()
            count += 1
            _show(it, body=body)
    if not count:
        fail(NONE_LIKE_THAT)


def _show(it: Parked, *, body: bool) -> None:
    rows = [('id', it.id), ('order', it.key or '-'), ('task', it.task or '-'), ('queue', it.queue or '-'),
            ('parked', f'{it.parked_at:%Y-%m-%d %H:%M:%S} UTC'), ('reason', it.reason), ('tries', it.tries),
            ('body', f'{it.size} bytes, {it.content_type}')]
    for name, value in rows:
        say(f'{name:8} {value}')
    say('history')
    for entry in it.history:
        at = _moment(entry)
        say(f'  {f"{at:%Y-%m-%d %H:%M:%S}" if at else "?"}  {entry["reason"]}')
    if body:
        for line in _body(it).decode(errors='backslashreplace').splitlines():
            say(line)


@parked.command()
@click.argument('ids', nargs=-1, metavar='[ID]...')
@chosen
@click.option('--all', 'everything', is_flag=True, help='All of them.')
@REASON
@JSON
@plainly
def resend(ids: tuple[str, ...], order: str | None, task: str | None, everything: bool, reason: str,
           as_json: bool) -> None:
    """Return messages to the queue that they came from.

    The shop is asked for the status of each order first: one that is complete, or that the shop would refuse, stays
    parked, and so does one that was resent RESENDS_PER_HOUR times within an hour.  The others start with a fresh retry
    policy.

    A shop that does not answer about an order leaves that one parked; the last lines say which.

    Ctrl-C ends it after those that it is about to send.
    """
    _say_which(ids, order, task, everything)
    from ecommerce_worker.broker.publishing import NotTaken
    from ecommerce_worker.operations.parked import NoAnswer

    sent, stuck, silent = list[dict[str, Any]](), list[dict[str, Any]](), list['Parked']()
    refused = list[NotPublished]()
    try:
        with _parked(order, task, ids, reason) as (messages, desk), _asked_to_stop() as stop:
            chosen = _meant(messages, ids) if ids else messages
            for done in desk.resend(chosen, until=lambda: bool(stop or refused)):
                it = done.parked
                if isinstance(done.error, NotPublished) and not isinstance(done.error, NotTaken):
                    refused.append(done.error)
                    continue
                if isinstance(done.error, NoAnswer):
                    silent.append(it)
                if done.error:
                    stuck.append({'id': it.id, 'order': it.key, 'reason': str(done.error)})
                    if not as_json:
                        say(f'{it.id[:8]} {done.error}', err=True)
                else:
                    sent.append({'id': it.id, 'order': it.key, 'queue': done.queue})
                    if not as_json:
                        say(f'{it.id[:8]} {it.key or "-"} sent to {done.queue}')
                if (count := len(sent) + len(stuck)) % STEP == 0 and count:
                    say(f'{count} so far: {len(sent)} resent, {len(stuck)} not', err=True)
    finally:
        # Also after an error: what was resent is reported.
        if as_json and (sent or stuck):
            print_json({'resent': sent, 'stuck': stuck})
    if refused:
        fail(f'{refused[0]}; {counted(len(sent), "message")} resent, all others are parked as before: see `status`, '
             'then repeat this command')
    if stop:
        fail(f'interrupted: {counted(len(sent), "message")} resent, all others are parked as before', 128 + stop[0])
    if not (sent or stuck):
        fail(NONE_LIKE_THAT)
    if not as_json:
        say(f'{counted(len(sent), "message")} resent')
        for line in _left_of(silent):
            say(line, err=True)
    sys.exit(0 if sent and not stuck else 1)


def _left_of(silent: Iterable[Parked]) -> Iterator[str]:
    """Which messages stay parked since their shop gave no answer, by their sites, and what to do next."""
    by_site: dict[str, list[str]] = {}
    for it in silent:
        by_site.setdefault(it.site, []).append(it.key or it.id[:8])
    for site, names in by_site.items():
        shown = ', '.join(names[:MOST_NAMED]) + (' …' if len(names) > MOST_NAMED else '')
        yield (f'{counted(len(names), "message")} parked as before, because the shop{f" of {site}" if site else ""} '
               f'did not answer: {shown}')
    if by_site:
        yield 'repeat this command when the shop answers again: it resends those that are still parked'


@contextmanager
def _asked_to_stop() -> Iterator[list[int]]:
    """The signals to stop that came in the block, by Ctrl-C or SIGTERM; the second one ends the process at once."""
    came, before = list[int](), dict[int, Any]()

    def take_note(number: int, _: object) -> None:
        came.append(number)
        signal.signal(number, before[number])

    for stopping in (signal.SIGINT, signal.SIGTERM):
        before[stopping] = signal.signal(stopping, take_note)
    try:
        yield came
    finally:
        for caught, handler in before.items():
            signal.signal(caught, handler)


@parked.command()
@click.argument('ids', nargs=-1, metavar='[ID]...')
@chosen
@click.option('--all', 'everything', is_flag=True, help='All of them.')
@click.option('--yes', is_flag=True, help='Do not prompt.')
@REASON
@JSON
@plainly
def discard(ids: tuple[str, ...], order: str | None, task: str | None, everything: bool, yes: bool,
            reason: str, as_json: bool) -> None:
    """Discard messages permanently.

    Their orders are not fulfilled and their mails not sent.
    """
    _say_which(ids, order, task, everything)
    if as_json and not yes:
        fail('--json cannot prompt: add --yes', 2)
    with _parked(order, task, ids, reason) as (messages, desk):
        found = _meant(messages, ids)
        if not found:
            fail(NONE_LIKE_THAT)
        for it in () if as_json else found[:20]:
            say(f'{it.id[:8]} {it.key or "-"} {it.reason}')
        with answered('--yes'):
            if not (yes or click.confirm(f'Discard {counted(len(found), "message")} permanently?')):
                fail('nothing was discarded')
        gone = []
        try:
            for it in found:
                desk.discard(it)
                gone.append({'id': it.id, 'order': it.key})
        finally:
            if as_json:
                print_json({'discarded': gone})
    if not as_json:
        say(f'{counted(len(found), "message")} discarded')


def _say_which(ids: tuple[str, ...], order: str | None, task: str | None, everything: bool) -> None:
    if not (ids or order or task or everything):
        fail('specify an ID, --order, --task or --all', 2)


def _meant(messages: Iterable[Parked], ids: tuple[str, ...]) -> list[Parked]:
    """The messages with these ids, or all if none are given; each id may be cut as long as it is unique."""
    found, meant = list(messages), set[str]()
    for given in ids:
        like = {it.id for it in found if it.id.startswith(given)}
        if given not in like and len(like) > 1:
            _parked_table([_row(it) for it in found if it.id in like], err=True)
            fail(f'{given} matches several ids: give more characters')
        meant |= {given} if given in like else like
    return [it for it in found if it.id in meant or not ids]


@contextmanager
def _parked(order: str | None, task: str | None, ids: tuple[str, ...] = (), reason: str = '', *,
            limit: int | None = None) -> Iterator[tuple[Iterator[Parked], Desk]]:
    """The selected messages, of the ledger ``limit`` at most, and the desk at which they are resent or discarded.

    Messages of the queue stay unacknowledged until the end, so that each is seen once.
    """
    from ecommerce_worker.broker import topology
    from ecommerce_worker.ledger import database
    from ecommerce_worker.operations import parked

    which = parked.Chosen(order, task, ids)
    if is_kept := database.is_kept(runtime.current().settings):
        extras.require_django()
    with connected() as (app, connection):
        try:
            topology.depths(connection, [topology.PARKED], strict=True)
        except topology.Unavailable as error:
            say(f'ecommerce-worker: {error}; messages parked there are left out', err=True)
        with parked.looked_through(connection) as messages:
            found = (it for it in messages if which.has(it))
            kept = parked.in_ledger(which, limit) if is_kept else ()
            yield chain(found, kept), parked.Desk(app, who=who(), reason=reason)
