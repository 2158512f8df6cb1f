"""The parked queue as people see it: looked through, sent again or thrown away, message by message."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from typing import TYPE_CHECKING, Any

from kombu import Queue
from kombu.exceptions import KombuError

from ecommerce_worker import runtime
from ecommerce_worker.broker import publishing, topology
from ecommerce_worker.broker.notes import NOTES, Notes
from ecommerce_worker.broker.wire import Raw
from ecommerce_worker.errors import NotPublished
from ecommerce_worker.execution.parking import site_of_message, stray
from ecommerce_worker.telemetry.facts import Fact
from ecommerce_worker.telemetry.log import word
from ecommerce_worker.words import short_name

if TYPE_CHECKING:
    from celery import Celery
    from kombu import Connection

logger = logging.getLogger(__name__)


def moment(seconds: object) -> datetime | None:
    """The moment of so many epoch seconds; None for what is none, for others may have written it."""
    if not isinstance(seconds, int | float) or not 0 <= seconds < 2 ** 37:
        return None
    return datetime.fromtimestamp(seconds, UTC)


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
        """Read what :func:`ecommerce_worker.broker.publishing.park` wrote; what somebody else put there has gaps."""
        found = message.headers.get(NOTES)
        header: Mapping[str, Any] = found if isinstance(found, Mapping) else {}
        notes = Notes.of(message.headers)

        def text(name: str) -> str:
            value = header.get(name)
            return value if isinstance(value, str) else ''

        return cls(
            id=text('id') or str(message.delivery_tag), task=text('task'), key=text('key'),
            reason=text('reason') or stray(message), queue=notes.queue, notes=notes,
            parked_at=moment(header.get('parked_at')) or datetime.fromtimestamp(0, UTC),
            raw=Raw.of(message), message=message)

    @property
    def short_task(self) -> str:
        """The task's name, without the package if it is ours."""
        return short_name(self.task)

    def matches(self, *, order: str | None = None, task: str | None = None, ids: tuple[str, ...] = ()) -> bool:
        """Whether it is about this order, of this task (its full name or the end of it), and one of these ids."""
        return ((order is None or self.key == order)
                and (task is None or self.task == task or self.task.endswith('.' + task))
                and (not ids or any(self.id.startswith(id_) for id_ in ids)))


@contextmanager
def looked_through(connection: Connection) -> Iterator[Iterator[ParkedMessage]]:
    """The parked messages, oldest first; what is not acknowledged in between goes back to its place afterwards."""
    topology.declare_parked(connection, runtime.current().settings.QUEUE_TYPE)
    # As many as there are now: what is parked again meanwhile is not looked at twice.
    found = [topology.depth(connection, name) for name in (topology.PARKED, topology.PARKED_LARGE)]
    channel = connection.channel()
    try:
        yield chain.from_iterable(_first(channel, depth) for depth in found if depth)
    finally:
        channel.close()


def _first(channel: Any, depth: topology.Depth) -> Iterator[ParkedMessage]:
    queue = Queue(depth.name).bind(channel)
    for _ in range(depth.messages):
        message = queue.get(no_ack=False)
        if message is None:
            return
        yield ParkedMessage.of(message)


def resend(app: Celery, parked: ParkedMessage) -> None:
    """Send it to the queue that it came from, and only then take it out of the parked ones.

    Raises :class:`~ecommerce_worker.errors.NotPublished`.
    """
    # The time from before it is published: the run that follows may be over before this is told.
    now = time.time()
    publishing.unpark(app, parked.raw, runtime.current().settings.known_queues)
    parked.message.ack()
    _tell(parked, 'resent', now)


def discard(parked: ParkedMessage) -> None:
    """Throw it away."""
    parked.message.ack()
    _tell(parked, 'discarded', time.time())


def _tell(parked: ParkedMessage, outcome: str, at: float) -> None:
    """Tell the ledger that a person took it out, and of the run before, which the message carried; what hinders that
    does not undo it.
    """
    before = publishing.fact_of(parked.raw)
    tries = max(parked.notes.attempt, before.attempt if before else 0)
    fact = Fact(outcome, at, attempt=tries, task=parked.task, id=parked.id, key=parked.key,
                site=site_of_message(parked.raw), queue=parked.queue, reason=f'{outcome} by hand')
    connection = parked.message.channel.connection.client
    try:
        if runtime.current().settings.PUBLISH_FACTS and topology.is_rabbitmq(connection):
            for each in filter(None, (before, fact)):
                publishing.tell(connection, each.as_body(), each.routing_key, runtime.current().settings.QUEUE_TYPE)
    except (NotPublished, OSError, KombuError, *connection.connection_errors, *connection.channel_errors) as error:
        logger.warning('the ledger was not told: id=%s error=%s', word(parked.id), type(error).__name__)
