"""Queues for operators: their depths, and emptying them without losing orders by mistake."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from amqp.exceptions import AMQPNotImplementedError, PreconditionFailed
from kombu import Producer, Queue

from ecommerce_worker import runtime
from ecommerce_worker.broker import publishing, topology
from ecommerce_worker.broker.facts import CONFIRM_SECONDS, Reporter
from ecommerce_worker.broker.notes import Notes
from ecommerce_worker.broker.wire import Raw
from ecommerce_worker.errors import WorkerError
from ecommerce_worker.execution.parking import call_of, key_of, park_one, site_of
from ecommerce_worker.operations.parked import Desk, InQueue
from ecommerce_worker.telemetry.run import RunReport
from ecommerce_worker.words import did_you_mean

if TYPE_CHECKING:
    from celery import Celery
    from kombu import Connection

#: Queues that shops have published to and that workers do not consume by default: other services may share them.
ELSEWHERE = ('celery', 'ecommerce')


#: Seconds for a broker to confirm a message; a sound one needs milliseconds.
PROBE_SECONDS = 3.0


class UnknownQueue(WorkerError):
    """No queue of the worker or the broker has this name: check the spelling."""


def takes_messages(connection: Connection) -> bool:
    """Whether the broker accepts messages: it blocks publishers while low on memory or disk space."""
    if not topology.is_rabbitmq(connection):
        return True
    probe = connection.clone()
    try:
        # To a queue that there is not: confirmed as any other, and gone.  Not empty: it is before the body of a message
        # that RabbitMQ stops to read.
        Producer(probe).publish(b'?', exchange='', routing_key='ecommerce.nowhere', confirm_timeout=PROBE_SECONDS)
    except TimeoutError:
        return False
    finally:
        # Not closed gracefully: a broker that does not read would not answer.
        probe.collect(socket_timeout=0.1)
    return True


def require(connection: Connection, names: Iterable[str], declared: Iterable[str]) -> None:
    """Make sure that these queues exist, or would once they are ``declared``; raises :class:`UnknownQueue`.

    Raises :class:`~ecommerce_worker.broker.topology.Unavailable` if that cannot be determined.
    """
    ours = [*declared, topology.PARKED, topology.PARKED_LARGE, topology.LEDGER, *topology.waiting_room(connection)]
    for name in names:
        if name not in ours and not topology.depths(connection, [name], strict=True):
            raise UnknownQueue(f'there is no queue {name}{did_you_mean(name, [*ours, *ELSEWHERE])}')


def purge(app: Celery, connection: Connection, names: Iterable[str], who: str) -> Iterator[str]:
    """Destroy the messages of these queues, one by one, and report them to the ledger; yields the queue of each.

    For parked messages the audit log records who did it.
    """
    desk = Desk(app, who=who, reason='destroyed with its queue')
    reporter = Reporter(app, queue_type=runtime.current().settings.QUEUE_TYPE)
    is_told = runtime.current().settings.PUBLISH_FACTS and topology.is_rabbitmq(connection)
    try:
        for name, message in _messages(connection, names):
            if name in (topology.PARKED, topology.PARKED_LARGE):
                desk.discard(InQueue.of(message))
            else:
                message.ack()
                # Reports look like calls, and reporting each would never end.
                if is_told and name != topology.LEDGER and (report := discarded(app, message, name)):
                    reporter.reported(report)
            yield name
    finally:
        reporter.end(CONFIRM_SECONDS)


def discarded(app: Celery, message: Any, queue: str) -> RunReport | None:
    """The report of a destroyed message; None if it cannot be read."""
    raw = Raw.of(message)
    call = call_of(raw)
    if call is None:
        return None
    notes = Notes.of(raw.headers)
    # By its tries it is known to be later than what was reported of them.
    return RunReport(
        'discarded', task=call.task, id=call.id, key=key_of(app, call), site=site_of(app, call), attempt=notes.attempt,
        reason='discarded by hand, with its queue', queue=notes.queue or queue,
        root_id=call.root_id or call.id)


def deleted(connection: Connection, name: str) -> bool:
    """Delete the queue if it is empty; returns whether it is gone."""
    # On its own connection: RabbitMQ closes it when asked this about a quorum queue.
    with connection.clone() as own:
        try:
            own.channel().queue_delete(name, if_empty=True)
        except PreconditionFailed:
            return False
        except AMQPNotImplementedError:
            return _deleted_after_a_look(connection, name)
        found = topology.depth(own, name)
    return found is None or not found.messages


def reshaped(app: Celery, connection: Connection, queue: Queue) -> int | None:
    """Redeclare one of our queues with its current arguments; returns the number of messages moved, None if unchanged.

    They wait in another queue meanwhile, where an interrupted call finds them the next time.  Raises
    :class:`~ecommerce_worker.errors.NotPublished`,
    and ``PreconditionFailed`` while messages are published to the queue.
    """
    aside = Queue(f'{queue.name}.moving', queue_arguments=queue.queue_arguments)
    interrupted = topology.depth(connection, aside.name) is not None
    if topology.declare_queue(connection, queue) is not topology.Shape.ANOTHER and not interrupted:
        return None
    with connection.channel() as channel:
        aside.bind(channel).declare()
    _move(app, connection, queue.name, aside.name)
    while not deleted(connection, queue.name):
        _move(app, connection, queue.name, aside.name)
    topology.declare_queue(connection, queue)
    if queue.name == topology.LEDGER:
        topology.declare_facts(connection, runtime.current().settings.QUEUE_TYPE)
    count = _move(app, connection, aside.name, queue.name)
    while not deleted(connection, aside.name):
        count += _move(app, connection, aside.name, queue.name)
    return count


def _move(app: Celery, connection: Connection, source: str, target: str) -> int:
    """Move all messages, each confirmed in its new queue before it leaves the old one; returns their number."""
    count = 0
    for _, message in _messages(connection, [source]):
        publishing.publish(app, publishing.Publication(Raw.of(message), target))
        message.ack()
        count += 1
    return count


def _deleted_after_a_look(connection: Connection, name: str) -> bool:
    found = topology.depth(connection, name)
    if found and found.messages:
        return False
    channel = connection.channel()
    try:
        channel.queue_delete(name)
    finally:
        channel.close()
    return True


def park(app: Celery, connection: Connection, names: Iterable[str], reason: str) -> Iterator[str]:
    """Park the messages of these queues, one by one; yields the queue of each.

    Raises :class:`~ecommerce_worker.errors.NotPublished`; what was not moved stays where it is.
    """
    topology.declare_parked(connection, runtime.current().settings.QUEUE_TYPE)
    for name, message in _messages(connection, names):
        park_one(app, message, name, reason)
        message.ack()
        yield name


def _messages(connection: Connection, names: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """The messages of these queues until they are empty; unacknowledged ones return afterwards."""
    channel = connection.channel()
    try:
        for name in names:
            queue = Queue(name).bind(channel)
            while (message := queue.get(no_ack=False)) is not None:
                yield name, message
    finally:
        channel.close()
