"""The queues as the operator sees them: how full they are, and emptying them without losing orders by mistake."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from kombu import Queue

from ecommerce_worker import topology
from ecommerce_worker.errors import Undecodable
from ecommerce_worker.task import Task
from ecommerce_worker.topology import Depth
from ecommerce_worker.wire import Notes, Raw, read

if TYPE_CHECKING:
    from celery import Celery
    from kombu import Connection

#: Queues that shops have published to and that are not consumed unless asked for: others may share them.
ELSEWHERE = ('celery', 'ecommerce')


def depths(connection: Connection, names: Iterable[str]) -> list[Depth]:
    """How full those of these queues are that exist."""
    return [found for name in dict.fromkeys(names) if (found := topology.depth(connection, name))]


def waiting_room(connection: Connection) -> list[str]:
    """The queues of the waiting room."""
    return [topology.level(n) for n in range(topology.BITS)] if topology.has_waiting_room(connection) else []


def purge(connection: Connection, names: Iterable[str]) -> int:
    """Destroy the messages of these queues; how many there were."""
    channel = connection.channel()
    try:
        return sum(channel.queue_purge(name) or 0 for name in names)
    finally:
        channel.close()


def delete(connection: Connection, names: Iterable[str]) -> None:
    """Delete these queues with all that is in them."""
    channel = connection.channel()
    try:
        for name in names:
            channel.queue_delete(name)
    finally:
        channel.close()


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
    task = app.tasks.get(call.task)
    topology.park(app, raw, notes, task=call.task, id=call.id, reason=reason,
                  key=task.key_of(call) if isinstance(task, Task) else '')
