"""Parked messages in RabbitMQ or in the ledger: listing, resending and discarding them.

::

    resend ──► the shop has it as complete, would refuse it, or does not answer ──► it stays parked
       │
       ├────► sent RESENDS_PER_HOUR times within an hour, as far as is known ─────► it stays parked
       ▼
    on record, where there is a ledger ──► published, confirmed ──► parked no more

The same rules apply whoever asks, and wherever the message is.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any

from kombu import Queue

from ecommerce_worker import runtime
from ecommerce_worker.broker import facts, topology
from ecommerce_worker.broker.notes import ParkingNote
from ecommerce_worker.broker.wire import Raw
from ecommerce_worker.clients.ecommerce import COMPLETE, FULFILLABLE
from ecommerce_worker.errors import ApiError, Transient, WorkerError
from ecommerce_worker.execution.parking import note_of, refuse_too_often
from ecommerce_worker.intake import again
from ecommerce_worker.ledger import database
from ecommerce_worker.ledger.words import ORDER, kind_of
from ecommerce_worker.telemetry.run import RunReport
from ecommerce_worker.words import is_about

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from celery import Celery
    from kombu import Connection

    from ecommerce_worker.ledger.queries import InLedger

#: The seconds to which the limit of resends applies.
HOUR = 3600.0


class NotNow(WorkerError):
    """The message is not resent: the text says why."""


@dataclass(frozen=True, kw_only=True)
class InQueue(ParkingNote):
    """A parked message in RabbitMQ."""

    raw: Raw = field(repr=False)
    message: Any = field(repr=False)

    @classmethod
    def of(cls, message: Any) -> InQueue:
        """A message of the parked queue."""
        return cls(**vars(note_of(message)), raw=Raw.of(message), message=message)

    @property
    def size(self) -> int:
        """The size of its body in bytes."""
        return len(self.raw.body)


@dataclass(frozen=True)
class Chosen:
    """A filter by order, task (or the end of its name) and ids (or their beginnings)."""

    order: str | None = None
    task: str | None = None
    ids: tuple[str, ...] = ()

    def has(self, note: ParkingNote) -> bool:
        """Whether the message matches."""
        return ((self.order is None or is_about(note.key, self.order))
                and (self.task is None or note.task == self.task or note.task.endswith('.' + self.task))
                and (not self.ids or any(note.id.startswith(id_) for id_ in self.ids)))


@contextmanager
def looked_through(connection: Connection) -> Iterator[Iterator[InQueue]]:
    """The parked messages, oldest first; what is not acknowledged in between goes back to its place afterwards."""
    # As many as there are now, so that messages parked again meanwhile are not seen twice.
    found = [topology.depth(connection, name) for name in (topology.PARKED, topology.PARKED_LARGE)]
    channel = connection.channel()
    try:
        yield chain.from_iterable(_first(channel, depth) for depth in found if depth)
    finally:
        channel.close()


def _first(channel: Any, depth: topology.Depth) -> Iterator[InQueue]:
    queue = Queue(depth.name).bind(channel)
    for _ in range(depth.messages):
        message = queue.get(no_ack=False)
        if message is None:
            return
        yield InQueue.of(message)


def in_ledger(chosen: Chosen) -> Iterator[InLedger]:
    """The parked messages in the ledger.

    Raises :class:`~ecommerce_worker.ledger.setup.LedgerUnusable`.
    """
    from ecommerce_worker.ledger import setup

    setup.open_current_ledger()
    from ecommerce_worker.ledger import queries  # not before the ledger is open

    yield from queries.parked(key=chosen.order, task=chosen.task, ids=chosen.ids)


def body_of(parked: InQueue | InLedger) -> bytes:
    """Its raw body, which may contain personal data; empty if it was settled meanwhile."""
    if isinstance(parked, InQueue):
        return parked.raw.body
    from ecommerce_worker.ledger import queries

    return queries.body_of(parked.number) or b''


class Desk:
    """Resends and discards parked messages for a person; ``who`` and ``reason`` go to the audit log, if any."""

    def __init__(self, app: Celery, *, who: str, reason: str = '') -> None:
        self._app = app
        self._who = who
        self._reason = reason
        #: Why shops are unreachable, by site: they are not asked again for each of fifty orders.
        self._unreachable: dict[str, str] = {}

    def resend(self, parked: InQueue | InLedger) -> str:
        """Return it to the queue that it came from, if the shop and the limit allow it; returns that queue.

        A delivery of which an intake could make nothing is mapped again.

        Raises :class:`NotNow`, :class:`~ecommerce_worker.execution.parking.TooOften`,
        :class:`~ecommerce_worker.broker.publishing.UnknownQueue` or :class:`~ecommerce_worker.errors.NotPublished`; of
        one in the ledger ``AlreadySettled`` too.  It stays parked then.
        """
        self._ask_the_shop(parked)
        # Taken before publishing: the run that follows may end before this is reported.
        now = time.time()
        refuse_too_often(parked.notes.resends(now - HOUR))
        if not isinstance(parked, InQueue):
            from ecommerce_worker.ledger import decisions

            return decisions.resend(self._app, parked.number, who=self._who, reason=self._reason)
        with self._on_record(parked, 'resent'):
            queue = again.send(self._app, parked.raw, parked)
        parked.message.ack()
        # What a delivery leads to has an entry of its own in the ledger.
        outcome = 'done' if again.is_delivery(parked.raw.headers) else 'resent'
        facts.tell(self._app, runtime.current().settings, *_taken_out(parked, outcome, now))
        return queue

    def discard(self, parked: InQueue | InLedger) -> None:
        """Discard it permanently; raises ``AlreadySettled`` for one in the ledger."""
        if not isinstance(parked, InQueue):
            from ecommerce_worker.ledger import decisions

            decisions.discard(parked.number, who=self._who, reason=self._reason)
            return
        with self._on_record(parked, 'discarded'):
            pass
        parked.message.ack()
        facts.tell(self._app, runtime.current().settings, *_taken_out(parked, 'discarded', time.time()))

    def _ask_the_shop(self, note: ParkingNote) -> None:
        """Raise the reason not to resend it; the shop is asked about fulfilments only."""
        if kind_of(note.task) != ORDER or not note.key:
            return
        if note.site in self._unreachable:
            raise NotNow(self._unreachable[note.site])
        try:
            status = runtime.site(note.site or None).ecommerce.status(note.key)
        except Transient as error:
            self._unreachable[note.site] = f'not resent: {error}'
            raise NotNow(self._unreachable[note.site]) from None
        except (ApiError, WorkerError) as error:
            raise NotNow(f'not resent: {error}') from None
        if status == COMPLETE:
            raise NotNow('not resent: the shop has already fulfilled it (Complete); you may discard it')
        if status not in FULFILLABLE:
            raise NotNow(f'not resent: the shop would refuse to fulfil it: its status there is {status[:50]}')

    def _on_record(self, note: ParkingNote, action: str) -> AbstractContextManager[None]:
        """Record what is done in the block with one in RabbitMQ; raises ``LedgerUnusable`` if it cannot be recorded."""
        if not database.is_kept(runtime.current().settings):
            return nullcontext()
        from ecommerce_worker.ledger import setup

        setup.open_current_ledger()
        from ecommerce_worker.ledger import decisions

        return decisions.recorded(note, action, who=self._who, reason=self._reason)


def _taken_out(parked: InQueue, outcome: str, at: float) -> tuple[RunReport, ...]:
    """What the ledger is told of a message that a person took out, and of the run before, which the message carried."""
    report = RunReport(outcome, started=at, attempt=parked.tries, task=parked.task, id=parked.id, key=parked.key,
                       site=parked.site, queue=parked.queue,
                       reason='discarded by hand' if outcome == 'discarded' else 'resent by hand')
    return (parked.report, report) if parked.report else (report,)
