"""The parked queue as people see it: looked through, sent again or thrown away, message by message."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from kombu import Queue

from ecommerce_worker import topology
from ecommerce_worker.clients.ecommerce import ORDER_NUMBER
from ecommerce_worker.task import Task
from ecommerce_worker.wire import NOTES, Call, Notes, Raw

if TYPE_CHECKING:
    from celery import Celery
    from kombu import Connection


def key_of(app: Celery, call: Call) -> str:
    """What people know the call by: as its task has it; for a task that is not there, an order number given by name."""
    task = app.tasks.get(call.task)
    if isinstance(task, Task):
        return task.key_of(call)
    given = call.kwargs.get('order_number', call.kwargs.get('order'))
    return given if isinstance(given, str) and ORDER_NUMBER.fullmatch(given) else ''


@dataclass(frozen=True)
class ParkedMessage:
    """One parked message; nothing here shows its contents."""

    id: str
    task: str
    key: str
    reason: str
    queue: str
    parked_at: datetime
    notes: Notes
    raw: Raw
    message: Any

    @classmethod
    def of(cls, message: Any) -> ParkedMessage:
        """Read what :func:`ecommerce_worker.topology.park` wrote; what somebody else put there has gaps."""
        found = message.headers.get(NOTES)
        header: Mapping[str, Any] = found if isinstance(found, Mapping) else {}
        notes = Notes.of(message.headers)

        def text(name: str) -> str:
            value = header.get(name)
            return value if isinstance(value, str) else ''

        parked_at = header.get('parked_at')
        return cls(
            id=text('id') or str(message.delivery_tag), task=text('task'), key=text('key'),
            reason=text('reason') or 'put here by other hands', queue=notes.queue, notes=notes,
            parked_at=datetime.fromtimestamp(parked_at if isinstance(parked_at, int | float) else 0, UTC),
            raw=Raw.of(message), message=message)

    @property
    def short_task(self) -> str:
        """The task's name, without the package if it is ours."""
        ours = self.task.startswith('ecommerce_worker.')
        return self.task.rpartition('.')[2] if ours else self.task

    def matches(self, *, order: str | None = None, task: str | None = None, ids: tuple[str, ...] = ()) -> bool:
        """Whether it is about this order, of this task (its full name or the end of it), and one of these ids."""
        return ((order is None or self.key == order)
                and (task is None or self.task == task or self.task.endswith('.' + task))
                and (not ids or any(self.id.startswith(id_) for id_ in ids)))


@contextmanager
def looked_through(connection: Connection) -> Iterator[Iterator[ParkedMessage]]:
    """The parked messages, oldest first; what is not acknowledged in between goes back to its place afterwards."""
    channel = connection.channel()
    try:
        yield _all(channel)
    finally:
        channel.close()


def _all(channel: Any) -> Iterator[ParkedMessage]:
    queue = Queue(topology.PARKED).bind(channel)
    # As many as there are now: what is parked again meanwhile is not looked at twice.
    for _ in range(queue.declare() and queue.queue_declare(passive=True).message_count):
        message = queue.get(no_ack=False)
        if message is None:
            return
        yield ParkedMessage.of(message)


def resend(app: Celery, parked: ParkedMessage) -> None:
    """Send it to the queue that it came from, and only then take it out of the parked ones.

    Raises :class:`~ecommerce_worker.errors.NotPublished`.
    """
    topology.unpark(app, parked.raw)
    parked.message.ack()


def discard(parked: ParkedMessage) -> None:
    """Throw it away."""
    parked.message.ack()
