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
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from kombu import Queue

from ecommerce_worker import runtime
from ecommerce_worker.broker import facts, topology
from ecommerce_worker.broker.notes import ParkingNote
from ecommerce_worker.broker.wire import Raw
from ecommerce_worker.clients.ecommerce import COMPLETE, FULFILLABLE
from ecommerce_worker.errors import ApiError, Transient, WorkerError
from ecommerce_worker.execution.parking import note_of, refuse_too_often
from ecommerce_worker.fulfillment.names import REPEATABLE
from ecommerce_worker.intake import again
from ecommerce_worker.ledger import database
from ecommerce_worker.ledger.words import ORDER, kind_of
from ecommerce_worker.telemetry.run import RunReport
from ecommerce_worker.words import is_about

if TYPE_CHECKING:
    from celery import Celery
    from kombu import Connection

    from ecommerce_worker.ledger.queries import InLedger

#: The seconds to which the limit of resends applies.
HOUR: Final = 3600.0

#: Messages, and bytes of their bodies, that are resent at once, at most; and how many of them shops are asked about at
#: once, if a worker may do so many.
BATCH: Final = 100
BATCH_BYTES: Final = 4 * 1024 * 1024
MOST_ASKED: Final = 16


class NotNow(WorkerError):
    """The message is not resent: the text says why."""


class NoAnswer(NotNow):
    """The shop does not say how the order stands: resend it when the shop answers again."""


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


if TYPE_CHECKING:
    Parked = InQueue | InLedger

P = TypeVar('P', bound='Parked')


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


def in_ledger(chosen: Chosen, limit: int | None = None) -> Iterator[InLedger]:
    """The parked messages in the ledger, or so many of them.

    Raises :class:`~ecommerce_worker.ledger.setup.LedgerUnusable`.
    """
    from ecommerce_worker.ledger import setup

    setup.open_current_ledger()
    from ecommerce_worker.ledger import queries  # not before the ledger is open

    yield from queries.parked(key=chosen.order, task=chosen.task, ids=chosen.ids, limit=limit)


def count_in_ledger(chosen: Chosen) -> int:
    """How many parked messages are in the ledger, which is open; none where none is kept."""
    if not database.is_kept(runtime.current().settings):
        return 0
    from ecommerce_worker.ledger import queries

    return queries.count_parked(key=chosen.order, task=chosen.task, ids=chosen.ids)


def body_of(parked: Parked) -> bytes:
    """Its raw body, which may contain personal data; empty if it was settled meanwhile."""
    if isinstance(parked, InQueue):
        return parked.raw.body
    from ecommerce_worker.ledger import queries

    return queries.body_of(parked.number) or b''


@dataclass(frozen=True)
class Resent(Generic[P]):
    """A message that was to be resent: the queue that it went to, or else the ``error`` for which it stays parked."""

    parked: P
    queue: str = ''
    error: WorkerError | None = None


class Desk:
    """Resends and discards parked messages for a person; ``who`` and ``reason`` go to the audit log, if any."""

    def __init__(self, app: Celery, *, who: str, reason: str = '') -> None:
        self._app = app
        self._who = who
        self._reason = reason
        self._is_open = False

    def resend(self, messages: Iterable[P], until: Callable[[], bool] = lambda: False) -> Iterator[Resent[P]]:
        """Return each to the queue that it came from, if the shop and the limit allow it, ``until`` that is true.

        A delivery of which an intake could make nothing is mapped again.

        The shop is asked about many orders at once, and they are published at once.  If the process is killed then,
        those of one batch may be published and parked as well: a worker asks the shop about such an order before it
        does anything.  All else goes one by one, for a mail that is published twice is sent twice.

        An ``error`` is :class:`NotNow`, :class:`NoAnswer`, :class:`~ecommerce_worker.execution.parking.TooOften`,
        :class:`~ecommerce_worker.broker.publishing.UnknownQueue`, :class:`~ecommerce_worker.intake.again.NotMapped`,
        :class:`~ecommerce_worker.errors.NotPublished`; of one in the ledger ``AlreadySettled`` too.  Raises
        ``LedgerUnusable`` where it could not be recorded.
        """
        settings = runtime.current().settings
        asking = ThreadPoolExecutor(min(MOST_ASKED, settings.WORKER_CONCURRENCY), 'asking')
        reports = list[RunReport]()
        with asking, facts.telling(self._app, settings) as tell:
            try:
                for batch in _batches(messages):
                    if until():
                        return
                    done, made = self._resend(batch, asking)
                    reports += made
                    if len(reports) >= BATCH:
                        tell(reports)
                        reports = []
                    yield from done
            finally:
                tell(reports)

    def _resend(self, batch: Sequence[P], asking: Executor) -> tuple[list[Resent[P]], list[RunReport]]:
        """Resend these; also return the reports on it for the ledger."""
        objections = self._ask_the_shops(batch, asking)
        # Taken before publishing: the run that follows may end before this is reported.
        now, errors = time.time(), dict[int, WorkerError]()
        for place, parked in enumerate(batch):
            try:
                if objection := objections[place]:
                    raise objection
                refuse_too_often(parked.notes.resends(now - HOUR))
            except WorkerError as error:
                errors[place] = error
        left = [place for place in range(len(batch)) if place not in errors]
        sent = self._send([batch[place] for place in left]) if left else []
        outcomes = errors | dict(zip(left, sent, strict=True))
        done, reports = list[Resent[P]](), list[RunReport]()
        for place, parked in enumerate(batch):
            outcome = outcomes[place]
            if isinstance(outcome, WorkerError):
                done.append(Resent(parked, error=outcome))
                continue
            done.append(Resent(parked, outcome))
            if isinstance(parked, InQueue):
                parked.message.ack()
                # What a delivery leads to has an entry of its own in the ledger.
                reports += _taken_out(parked, 'done' if again.is_delivery(parked.raw.headers) else 'resent', now)
        return done, reports

    def _send(self, batch: Sequence[Parked]) -> Sequence[str | WorkerError]:
        """Publish these, on record; for each the queue that it went to, or why it did not."""
        in_queue = [(it, it.raw) for it in batch if isinstance(it, InQueue)]
        # Whoever has one of the ledger has opened it.
        if len(in_queue) == len(batch) and not self._open_ledger():
            return again.send(self._app, in_queue)
        from ecommerce_worker.ledger import decisions

        return decisions.resend([(it, it.raw) if isinstance(it, InQueue) else it for it in batch],
                                partial(again.send, self._app), who=self._who, reason=self._reason)

    def discard(self, parked: Parked) -> None:
        """Discard it permanently; raises ``AlreadySettled`` for one in the ledger.

        Raises ``LedgerUnusable`` where it could not be recorded.
        """
        if not isinstance(parked, InQueue):
            from ecommerce_worker.ledger import decisions

            decisions.discard(parked.number, who=self._who, reason=self._reason)
            return
        if self._open_ledger():
            from ecommerce_worker.ledger import decisions

            decisions.write_down(self._who, 'discarded', self._reason, message_id=parked.id, key=parked.key,
                                 task=parked.task)
        parked.message.ack()
        facts.tell(self._app, runtime.current().settings, *_taken_out(parked, 'discarded', time.time()))

    def _ask_the_shops(self, batch: Sequence[Parked], asking: Executor) -> list[NotNow | None]:
        """For each of these the reason not to resend it; shops are asked about fulfilments only.

        Each is asked about by itself: it may be the only one that the shop cannot answer for.  A shop that is down is
        not asked about all of them, by its circuit breaker.
        """
        places = [place for place, it in enumerate(batch) if kind_of(it.task) == ORDER and it.key]
        found: list[NotNow | None] = [None] * len(batch)
        answers = asking.map(self._objection, [batch[place] for place in places])
        for place, objection in zip(places, answers, strict=True):
            found[place] = objection
        return found

    def _objection(self, note: ParkingNote) -> NotNow | None:
        """What the shop has against resending it."""
        try:
            status = runtime.site(note.site or None).ecommerce.status(note.key)
        except Transient as error:
            return NoAnswer(f'not resent: {error}')
        except (ApiError, WorkerError) as error:
            return NotNow(f'not resent: {error}')
        if status == COMPLETE:
            return NotNow('not resent: the shop has already fulfilled it (Complete); you may discard it')
        if status not in FULFILLABLE:
            return NotNow(f'not resent: the shop would refuse to fulfil it: its status there is {status[:50]}')
        return None

    def _open_ledger(self) -> bool:
        """Whether a ledger is kept, open now; raises ``LedgerUnusable`` if it cannot be opened."""
        if not self._is_open and database.is_kept(runtime.current().settings):
            from ecommerce_worker.ledger import setup

            setup.open_current_ledger()
            self._is_open = True
        return self._is_open


def _batches(messages: Iterable[P]) -> Iterator[list[P]]:
    """Those that may be run twice without harm, some at once; all others one by one."""
    batch, size = list[P](), 0
    for it in messages:
        if it.task not in REPEATABLE:
            yield [it]
            continue
        batch.append(it)
        size += it.size
        if len(batch) >= BATCH or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _taken_out(parked: InQueue, outcome: str, at: float) -> tuple[RunReport, ...]:
    """The reports for a message that a person took out, and for the run before, which the message carries."""
    report = RunReport(outcome, started=at, attempt=parked.tries, task=parked.task, id=parked.id, key=parked.key,
                       site=parked.site, queue=parked.queue,
                       reason='discarded by hand' if outcome == 'discarded' else 'resent by hand')
    return (parked.report, report) if parked.report else (report,)
