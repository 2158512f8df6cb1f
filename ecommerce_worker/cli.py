"""The ``ecommerce-worker`` command."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import wraps
from typing import TYPE_CHECKING, Any, NoReturn

import click

from ecommerce_worker import __version__, runtime, settings
from ecommerce_worker.errors import Misconfigured, WorkerError

if TYPE_CHECKING:
    from celery import Celery
    from kombu import Connection

    from ecommerce_worker.worker.parked import ParkedMessage

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


@click.group(context_settings=CONTEXT)
@click.version_option(__version__, prog_name='ecommerce-worker')
def main() -> None:
    """Fulfils the orders that a shop publishes on RabbitMQ, and shows where each of them is.

    The configuration is chosen by WORKER_CONFIGURATION_MODULE (ecommerce_worker.configuration.local if unset), a
    YAML file named by ECOMMERCE_WORKER_CFG, and variables ECOMMERCE_WORKER_<SETTING>.
    """


# -- running it -------------------------------------------------------------------------------------------------------

@main.command(context_settings={'ignore_unknown_options': True})
@click.option('--debug', is_flag=True, help='Log everything.')
@click.argument('celery_options', nargs=-1, type=click.UNPROCESSED, metavar='[CELERY OPTIONS]...')
@plainly
def worker(debug: bool, celery_options: tuple[str, ...]) -> None:
    """Run a worker until it is told to stop (SIGTERM: finish what runs).

    Pool, concurrency and queues come from the configuration.  Options that are not listed below go to Celery's own
    worker, such as `--concurrency 64`, `--pool prefork`, `-Q ecommerce.fulfillment` (see `celery worker --help`).

    Exit status: 1 for a wrong configuration, 69 if the broker cannot be reached, 77 if it refuses the login, 78 if
    it cannot be trusted with orders.
    """
    from ecommerce_worker.worker import preflight

    conf = runtime.current().settings
    app = _app()
    preflight.check(app, conf)
    for remark in conf.remarks:
        click.echo(f'ecommerce-worker: note: {remark}', err=True)
    ours = ['worker', f'--loglevel={"DEBUG" if debug else conf.LOG_LEVEL}']
    if not any(option in ('-n', '--hostname') or option.startswith(('--hostname=', '-n')) for option in celery_options):
        # Two workers of one name: the second could not start.
        ours.append(f'--hostname=ecommerce-{os.getpid()}@{socket.gethostname()}')
    app.worker_main([*ours, *celery_options])


@main.command()
@click.option('--keep', is_flag=True, help='Leave broker, shop and worker running at the end, until Ctrl-C.')
@plainly
def demo(**options: Any) -> None:
    """Show a dozen orders fulfilled through every kind of trouble, on this machine alone."""
    from ecommerce_worker.demo.story import run

    sys.exit(run(**options))


# -- looking ----------------------------------------------------------------------------------------------------------

@main.command()
def check() -> None:
    """Print the configuration in force, secrets masked, and everything that is wrong with it."""
    try:
        conf = settings.load()
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
@plainly
def status(timeout: float) -> None:
    """Show workers, queues, and how many orders wait or are parked.

    Exit status: 1 if a queue holds messages that nobody consumes, or no worker answers.
    """
    from ecommerce_worker import topology
    from ecommerce_worker.worker import queues

    conf = runtime.current().settings
    with _connected() as (app, connection):
        answers = app.control.ping(timeout=timeout)
        workers = sorted(name for answer in answers for name in answer)
        found = queues.depths(connection, (*conf.QUEUES, *queues.ELSEWHERE))
        waiting, parked = topology.waiting(connection), topology.depth(connection, topology.PARKED)
    rows, troubles = [], []
    for depth in found:
        alone = depth.messages > 0 and depth.consumers == 0
        if alone:
            troubles.append(f'{depth.name} holds {_count(depth.messages, "message")} and nobody consumes it: start a '
                            f'worker with it in QUEUES (or -Q {depth.name})')
        rows.append((depth.name, depth.messages, '?' if depth.consumers is None else depth.consumers,
                     '<- nobody consumes it' if alone else ''))
    if not workers:
        troubles.append(f'no worker answered within {timeout:g} s')
    click.echo(f'broker    {settings.mask("BROKER_URL", conf.BROKER_URL)}')
    click.echo('workers   ' + (', '.join(workers) or 'none'))
    click.echo(f'waiting   {waiting} for their next try')
    click.echo(f'parked    {parked.messages if parked else 0} for a person (ecommerce-worker parked list)')
    click.echo()
    _table(('QUEUE', 'MESSAGES', 'CONSUMERS', ''), rows)
    for trouble in troubles:
        click.echo(f'trouble: {trouble}')
    sys.exit(1 if troubles else 0)


# -- parked messages --------------------------------------------------------------------------------------------------

@main.group()
def parked() -> None:
    """Messages that wait for a person: look at them, send them again, or discard them."""


def chosen(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that choose among parked messages."""
    for decorator in (
        click.option('--task', help='Only those of this task; the end of its name will do (fulfill_order).'),
        click.option('--order', help='Only those of this order number.'),
    ):
        command = decorator(command)
    return command


@parked.command('list')
@chosen
@click.option('--limit', default=100, show_default=True, help='Show so many at most; all are counted.')
@plainly
def list_(order: str | None, task: str | None, limit: int) -> None:
    """List them, oldest first."""
    rows, count = [], 0
    with _connected() as (_, connection), _parked(connection) as messages:
        for message in messages:
            if message.matches(order=order, task=task):
                count += 1
                if count <= limit:
                    rows.append((message.id[:8], message.key or '-', message.short_task or '-',
                                 f'{message.parked_at:%Y-%m-%d %H:%M}', message.notes.attempt, message.reason))
    if rows:
        _table(('ID', 'ORDER', 'TASK', 'PARKED (UTC)', 'TRIES', 'REASON'), rows)
    click.echo(_count(count, 'parked message') + (f', the first {limit} are shown' if count > limit else ''))


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
    with _connected() as (_, connection), _parked(connection) as messages:
        for message in messages:
            if message.matches(order=order, task=task, ids=ids):
                count += 1
                _show(message, body=body)
    if not count:
        fail('no parked message is like that; `ecommerce-worker parked list` shows all')


def _show(message: ParkedMessage, *, body: bool) -> None:
    rows = [('id', message.id), ('order', message.key or '-'), ('task', message.task or '-'),
            ('queue', message.queue or '-'), ('parked', f'{message.parked_at:%Y-%m-%d %H:%M:%S} UTC'),
            ('reason', message.reason), ('tries', message.notes.attempt),
            ('body', f'{len(message.raw.body)} bytes, {message.raw.content_type}')]
    for name, value in rows:
        click.echo(f'{name:8} {value}')
    click.echo('history')
    for entry in message.notes.history:
        at = entry.get('at')
        when = datetime.fromtimestamp(at, UTC).strftime('%Y-%m-%d %H:%M:%S') if isinstance(at, int | float) else '?'
        click.echo(f'  {when}  {entry.get("reason", "")}')
    if body:
        click.echo(message.raw.body.decode(errors='backslashreplace'))
    click.echo()


@parked.command()
@click.argument('ids', nargs=-1, metavar='[ID]...')
@chosen
@click.option('--all', 'everything', is_flag=True, help='All of them.')
@plainly
def resend(ids: tuple[str, ...], order: str | None, task: str | None, everything: bool) -> None:
    """Send them to the queue that they came from, with their patience renewed.

    A worker asks the shop how the order stands before it does anything.
    """
    from ecommerce_worker.worker import parked as parking

    _say_which(ids, order, task, everything)
    count = stuck = 0
    with _connected() as (app, connection), _parked(connection) as messages:
        for message in messages:
            if not message.matches(order=order, task=task, ids=ids):
                continue
            if not message.queue:
                stuck += 1
                click.echo(f'{message.id[:8]} does not say which queue it came from; it stays', err=True)
                continue
            parking.resend(app, message)
            count += 1
            click.echo(f'{message.id[:8]} {message.key or "-"} sent to {message.queue}')
    click.echo(f'{_count(count, "message")} sent again')
    sys.exit(0 if count and not stuck else 1)


@parked.command()
@click.argument('ids', nargs=-1, metavar='[ID]...')
@chosen
@click.option('--all', 'everything', is_flag=True, help='All of them.')
@click.option('--yes', is_flag=True, help='Do not ask.')
@plainly
def discard(ids: tuple[str, ...], order: str | None, task: str | None, everything: bool, yes: bool) -> None:
    """Throw them away for good; what they promised is then not done."""
    from ecommerce_worker.worker import parked as parking

    _say_which(ids, order, task, everything)
    with _connected() as (_, connection), _parked(connection) as messages:
        found = [message for message in messages if message.matches(order=order, task=task, ids=ids)]
        if not found:
            fail('no parked message is like that; `ecommerce-worker parked list` shows all')
        for message in found[:20]:
            click.echo(f'{message.id[:8]} {message.key or "-"} {message.reason}')
        if not yes and not click.confirm(f'Throw {_count(len(found), "message")} away for good?'):
            fail('nothing was thrown away')
        for message in found:
            parking.discard(message)
    click.echo(f'{_count(len(found), "message")} thrown away')


def _say_which(ids: tuple[str, ...], order: str | None, task: str | None, everything: bool) -> None:
    if not (ids or order or task or everything):
        fail('say which: an ID, --order, --task or --all', 2)


# -- queues -----------------------------------------------------------------------------------------------------------

@main.group()
def queues() -> None:
    """Empty the queues, or make them anew, for whoever used to reset RabbitMQ."""


def emptying(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of what empties queues."""
    for decorator in (
        click.option('--yes', is_flag=True, help='Do not ask; destroys.'),
        click.option('--park', is_flag=True, help='Do not ask; park the messages instead of destroying them.'),
    ):
        command = decorator(command)
    return command


@queues.command()
@click.argument('names', nargs=-1, metavar='[QUEUE]...')
@emptying
@plainly
def purge(names: tuple[str, ...], yes: bool, park: bool) -> None:
    """Take all messages out of these queues (all task queues and the waiting room if none is named).

    Messages that a worker has in hand are not touched, nor are parked ones unless ecommerce.parked is named.
    """
    from ecommerce_worker.worker import queues as queue_room

    conf = runtime.current().settings
    with _connected() as (app, connection):
        wanted = names or (*conf.QUEUES, *queue_room.waiting_room(connection))
        _empty(app, connection, wanted, yes=yes, park=park)


@queues.command()
@emptying
@click.option('--force', is_flag=True, help='Even if workers are connected.')
@plainly
def reset(yes: bool, park: bool, force: bool) -> None:
    """Delete the task queues and the waiting room and declare them anew; parked messages stay.

    For a queue that was once declared in another shape.  Stop the workers first.
    """
    from ecommerce_worker import topology
    from ecommerce_worker.worker import queues as queue_room

    conf = runtime.current().settings
    with _connected() as (app, connection):
        names = (*conf.QUEUES, *queue_room.waiting_room(connection))
        consumed = [depth.name for depth in queue_room.depths(connection, names) if depth.consumers]
        if consumed and not force:
            fail(f'workers consume {", ".join(consumed)}: stop them first, or say --force')
        _empty(app, connection, names, yes=yes, park=park)
        queue_room.delete(connection, names)
        topology.declare(connection, app.amqp.queues.consume_from.values())
    click.echo(f'{_count(len(names), "queue")} declared anew')


def _empty(app: Celery, connection: Connection, names: Iterable[str], *, yes: bool, park: bool) -> None:
    from ecommerce_worker.worker import queues as queue_room

    full = [depth for depth in queue_room.depths(connection, names) if depth.messages]
    total = sum(depth.messages for depth in full)
    if not total:
        click.echo('the queues are empty')
        return
    _table(('QUEUE', 'MESSAGES'), [(depth.name, depth.messages) for depth in full])
    if not (yes or park):
        click.echo(f'This would destroy {_count(total, "message")}: orders that were paid for and mails that were '
                   'promised.')
        answer = click.prompt('Park them instead, destroy them, or leave them?',
                              type=click.Choice(['park', 'destroy', 'leave']), default='park')
        if answer == 'leave':
            fail('nothing was changed')
        park = answer == 'park'
    if not park:
        click.echo(f'{_count(queue_room.purge(connection, [depth.name for depth in full]), "message")} destroyed')
        return
    moved = 0
    for _ in queue_room.park(app, connection, [depth.name for depth in full], 'taken out of its queue by an operator'):
        moved += 1
        if moved % 1000 == 0:
            click.echo(f'{moved} of {total} parked', err=True)
    click.echo(f'{_count(moved, "message")} parked')


# -- what commands share ----------------------------------------------------------------------------------------------

def _app() -> Celery:
    from ecommerce_worker.celery_app import app

    app.loader.import_default_modules()
    return app


@contextmanager
def _connected() -> Iterator[tuple[Celery, Connection]]:
    from ecommerce_worker.worker import preflight

    app = _app()
    with preflight.connect(app, runtime.current().settings) as connection:
        yield app, connection


@contextmanager
def _parked(connection: Connection) -> Iterator[Iterator[ParkedMessage]]:
    from ecommerce_worker.worker import parked as parking

    with parking.looked_through(connection) as messages:
        yield messages


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
