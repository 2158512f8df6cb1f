"""The commands ``queues``: purge and reset."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from ecommerce_worker import extras, runtime
from ecommerce_worker.cli.output import answered, fail, plainly, say, table
from ecommerce_worker.cli.resources import connected, who
from ecommerce_worker.cli.root import main
from ecommerce_worker.words import counted

if TYPE_CHECKING:
    from celery import Celery
    from kombu import Connection


@main.group()
def queues() -> None:
    """Empty the queues, or delete and redeclare them.

    Use these instead of resetting RabbitMQ.
    """


def emptying(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of commands that empty queues."""
    @wraps(command)
    def run(*args: Any, yes: bool, park: bool, **kwargs: Any) -> Any:
        if yes and park:
            fail('--yes destroys the messages and --park keeps them: use one of the two', 2)
        return command(*args, yes=yes, park=park, **kwargs)

    for decorator in (
        click.option('--yes', is_flag=True, help='Do not prompt; destroy the messages.'),
        click.option('--park', is_flag=True, help='Do not prompt; park the messages instead of destroying them.'),
    ):
        run = decorator(run)
    return run


@queues.command()
@click.argument('names', nargs=-1, metavar='[QUEUE]...')
@emptying
@plainly
def purge(names: tuple[str, ...], yes: bool, park: bool) -> None:
    """Remove all messages from these queues.

    From all task queues and the waiting room if none is named.  Messages that a worker holds are not touched, nor are
    parked ones unless ecommerce.parked is named.  What is destroyed is recorded in the ledger, if there is one.
    """
    from ecommerce_worker.operations import queues as queue_room

    with connected() as (app, connection):
        queue_room.require(connection, names, runtime.current().settings.QUEUES)
        _empty(app, connection, names or _all_queues(connection), yes=yes, park=park)


@queues.command()
@emptying
@click.option('--force', is_flag=True, help='Reset even if workers are connected.')
@plainly
def reset(yes: bool, park: bool, force: bool) -> None:
    """Delete the task queues and declare them again.

    The waiting room too; parked messages stay.  Use it for a queue that was once declared with other arguments.  Stop
    the workers first.  Messages published during the reset are treated like those already there.  The queues of parked
    messages and of reports get the type in QUEUE_TYPE and keep their messages; stop the recorder, too.
    """
    from ecommerce_worker.broker import topology
    from ecommerce_worker.operations import queues as queue_room

    conf = runtime.current().settings
    with connected() as (app, connection):
        names = _all_queues(connection)
        ours = [topology.parked_queue(conf.QUEUE_TYPE), topology.ledger_queue(conf.QUEUE_TYPE)]
        consumed = [depth.name for depth in topology.depths(connection, [*names, *(queue.name for queue in ours)])
                    if depth.consumers]
        if consumed and not force:
            fail(f'workers consume {", ".join(consumed)}: stop them first, or use --force')
        park = _empty(app, connection, names, yes=yes, park=park)
        for name in names:
            while not queue_room.deleted(connection, name):
                _clear(app, connection, [name], park=park)
            if name in app.amqp.queues.consume_from:  # without delay: shops publish to it
                app.amqp.queues[name].bind(connection.default_channel).declare()
        for queue in ours if topology.is_rabbitmq(connection) else ():
            if (moved := queue_room.reshaped(app, connection, queue)) is not None:
                say(f'{queue.name} now has the type {conf.QUEUE_TYPE}; {counted(moved, "message")} kept')
        topology.declare(connection, app.amqp.queues.consume_from.values(), conf.QUEUE_TYPE)
    say(f'{counted(len(names), "queue")} declared again')


def _all_queues(connection: Connection) -> tuple[str, ...]:
    """The waiting room and the task queues, ordered so that no message moves to a queue already emptied."""
    from ecommerce_worker.broker import topology

    return (*topology.waiting_room(connection), *runtime.current().settings.QUEUES)


def _empty(app: Celery, connection: Connection, names: Iterable[str], *, yes: bool, park: bool) -> bool:
    """Empty the queues, prompting the operator if needed; returns whether to park."""
    from ecommerce_worker.broker import topology

    full = [depth for depth in topology.depths(connection, names) if depth.messages]
    total = sum(depth.messages for depth in full)
    if not total:
        say('the queues are empty')
        return park or not yes
    table(('QUEUE', 'MESSAGES'), [(depth.name, depth.messages) for depth in full])
    if not (yes or park):
        say(f'This would destroy {counted(total, "message")}: their orders would not be fulfilled, nor their mails '
            'sent.')
        with answered('--park or --yes'):
            answer = click.prompt('Park them instead, destroy them, or leave them?',
                                  type=click.Choice(['park', 'destroy', 'leave']), default='park')
        if answer == 'leave':
            fail('nothing was changed')
        park = answer == 'park'
    _clear(app, connection, [depth.name for depth in full], park=park)
    return park


def _clear(app: Celery, connection: Connection, names: list[str], *, park: bool) -> None:
    from ecommerce_worker.ledger import database
    from ecommerce_worker.operations import queues as queue_room

    if not park and database.is_kept(runtime.current().settings):
        extras.require_django()
    done = 'parked' if park else 'destroyed'
    count = 0
    for _ in (queue_room.park(app, connection, names, 'taken out of its queue by an operator') if park else
              queue_room.purge(app, connection, names, who())):
        count += 1
        if count % 1000 == 0:
            say(f'{count} {done} so far', err=True)
    say(f'{counted(count, "message")} {done}')
