"""The queues as the operator sees them: how full they are, and emptying them without losing orders by mistake."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from amqp.exceptions import AMQPNotImplementedError, PreconditionFailed
from kombu import Producer, Queue

from ecommerce_worker import topology
from ecommerce_worker.errors import Undecodable
from ecommerce_worker.topology import Depth
from ecommerce_worker.wire import Notes, Raw, read
from ecommerce_worker.worker.parked import key_of

if TYPE_CHECKING:
    from celery import Celery
    from kombu import Connection

#: Queues that shops have published to and that are not consumed unless asked for: others may share them.
ELSEWHERE = ('celery', 'ecommerce')


#: Seconds for a broker to confirm a message; a sound one needs milliseconds.
PROBE_SECONDS = 3.0


def takes_messages(connection: Connection) -> bool:
    """Whether the broker takes messages: it makes publishers wait while its memory or its disk is short."""
    if not topology.has_waiting_room(connection):
        return True
    probe = connection.clone()
    try:
        # To a queue that there is not: confirmed as any other, and gone.  Not empty: it is before the body of a message
        # that RabbitMQ stops to read.
        Producer(probe).publish(b'?', exchange='', routing_key='ecommerce.nowhere', confirm_timeout=PROBE_SECONDS)
    except TimeoutError:
        return False
    finally:
        # Not closed in good order: a broker that does not read would not answer.
        probe.collect(socket_timeout=0.1)
    return True


def depths(connection: Connection, names: Iterable[str]) -> list[Depth]:
    """How full those of these queues are that exist."""
    return [found for name in dict.fromkeys(names) if (found := topology.depth(connection, name))]


def waiting_room(connection: Connection) -> list[str]:
    """The queues of the waiting room, in the order in which messages pass through them."""
    return [topology.level(n) for n in reversed(range(topology.BITS))] if topology.has_waiting_room(connection) else []


def purge(connection: Connection, names: Iterable[str]) -> int:
    """Destroy the messages of these queues; how many there were."""
    channel = connection.channel()
    try:
        return sum(channel.queue_purge(name) or 0 for name in names)
    finally:
        channel.close()


def deleted(connection: Connection, name: str) -> bool:
    """Delete the queue unless it holds messages; whether it is gone."""
    # A connection of its own: RabbitMQ closes it on whoever asks this of a quorum queue.
    with connection.clone() as own:
        try:
            own.channel().queue_delete(name, if_empty=True)
        except PreconditionFailed:
            return False
        except AMQPNotImplementedError:
            return _deleted_after_a_look(connection, name)
        found = topology.depth(own, name)
    return found is None or not found.messages


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
    """Move the messages of these queues to the parked ones, one by one; yields the queue of each.

    Raises :class:`~ecommerce_worker.errors.NotPublished`; what was not moved stays where it is.
    """
    topology.declare_parked(connection)
    channel = connection.channel()
    try:
        for name in names:
            queue = Queue(name).bind(channel)
            while (message := queue.get(no_ack=False)) is not None:
                _park(app, message, name, reason)
                message.ack()
                yield name
    finally:
        channel.close()


def _park(app: Celery, message: Any, queue: str, reason: str) -> None:
    raw = Raw.of(message)
    notes = Notes.of(raw.headers)
    notes = notes.having({'at': time.time(), 'reason': reason}, queue=notes.queue or queue)
    try:
        call = read(raw)
    except Undecodable:
        topology.park(app, raw, notes, task='', id='', key='', reason=reason)
        return
    topology.park(app, raw, notes, task=call.task, id=call.id, key=key_of(app, call), reason=reason)
