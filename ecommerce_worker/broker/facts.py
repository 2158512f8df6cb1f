"""Reporting to the ledger: each outcome is published in the background, without delaying runs.

::

    run ends ──► deque, bounded ──► a thread of its own: batch ──► exchange ecommerce.facts, confirmed ──► next batch
                    │ full                                  ▲                     │ the broker is away
                    ▼                                       └─────── later ───────┘
              the oldest is dropped, and missing in the count

A run is never kept waiting, and none fails for it.  What waits is the acknowledgement of a message whose run is not to
be missed, without a thread: see :meth:`Reporter.holds`.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from kombu.exceptions import KombuError
from typing_extensions import override

from ecommerce_worker import logs
from ecommerce_worker.broker import publishing, topology
from ecommerce_worker.broker.transport import corked
from ecommerce_worker.errors import NotPublished
from ecommerce_worker.telemetry.listening import Listener
from ecommerce_worker.telemetry.run import ENDS, RunReport

if TYPE_CHECKING:
    from celery import Celery

    from ecommerce_worker.settings import Settings

logger = logs.of(__name__)

#: Facts that are kept while the broker is away: some 10 MB.
BOUND: Final = 20_000

#: Facts that are confirmed at once, at most.
BATCH: Final = 500

#: Seconds to let facts gather before they are published together, which costs less than one by one.
GATHER_SECONDS: Final = 0.1

#: Seconds between two looks whether all that is held has been let go.
LOOK_SECONDS: Final = 0.01

#: Seconds to wait for the broker's confirmation.
CONFIRM_SECONDS: Final = 15.0

#: Seconds between two tries to reach a broker that is away: at first, and at most.
SHORTEST, LONGEST = 1.0, 30.0

#: Seconds for the last facts when the process ends.
FLUSH_SECONDS: Final = 5.0

#: Seconds for which a message is held at most until its fact is safe: less than the half hour after which RabbitMQ
#: takes it back.
HOLD_SECONDS: Final = 600.0

#: The kind of reports in metrics of publishing.
KIND: Final = 'fact'


def tell(app: Celery, settings: Settings, *reports: RunReport) -> None:
    """Report to the ledger what no run reports: publications and actions of people; errors are only logged."""
    if not settings.PUBLISH_FACTS:
        return
    with _errors_logged(app, reports), app.producer_or_acquire() as producer:
        if topology.is_rabbitmq(producer.connection):
            for report in reports:
                publishing.tell(producer.connection, report.as_body(), report.routing_key, settings.QUEUE_TYPE)


@contextmanager
def telling(app: Celery, settings: Settings) -> Iterator[Callable[[list[RunReport]], None]]:
    """The same for many, with one connection: a function to call with each batch."""
    publisher = Publisher(app, settings.QUEUE_TYPE)

    def tell_all(reports: list[RunReport]) -> None:
        if not (reports and settings.PUBLISH_FACTS and topology.is_rabbitmq(app.connection_for_write())):
            return
        with _errors_logged(app, reports):
            publisher.publish(reports)

    try:
        yield tell_all
    finally:
        publisher.close()


@contextmanager
def _errors_logged(app: Celery, reports: Sequence[RunReport]) -> Iterator[None]:
    try:
        yield
    except (NotPublished, NotConfirmed, OSError, KombuError, *publishing.broker_errors(app)) as error:
        logger.warning('a report for the ledger could not be published', id=reports[0].id, error=type(error).__name__)


def _nobody(kind: str, seconds: float | None) -> None:
    """The default, which does nothing."""


class NotConfirmed(Exception):
    """The broker did not confirm a batch of reports."""


class Publisher:
    """A separate connection for reports, opened when needed; for one thread."""

    def __init__(self, app: Celery, queue_type: str = 'classic',
                 published: Callable[[str, float | None], None] = _nobody) -> None:
        self._app = app
        self._queue_type = queue_type
        self._on_published = published
        self._connection: Any = None
        self._channel: Any = None
        self._tag = 0
        self._unconfirmed: set[int] = set()

    def publish(self, facts: list[RunReport]) -> None:
        """Publish and return when the broker has confirmed all of them.

        Raises on failure; reports published twice for that reason have the same id.
        """
        began = time.monotonic()
        try:
            channel = self._channel or self._open()
            with corked(channel):
                for fact in facts:
                    publishing.send(channel, publishing.fact_message(channel, fact.as_body()), topology.FACTS,
                                    fact.routing_key, mandatory=False)
                    self._tag += 1
                    self._unconfirmed.add(self._tag)
            until = time.monotonic() + CONFIRM_SECONDS
            while self._unconfirmed:
                self._connection.drain_events(timeout=max(0.01, until - time.monotonic()))
        except BaseException:
            self._on_published(KIND, None)
            self.close()
            raise
        self._on_published(KIND, time.monotonic() - began)

    def close(self) -> None:
        """Close the connection; the next publish opens another."""
        connection, self._connection, self._channel = self._connection, None, None
        if connection:
            connection.collect()

    def _open(self) -> Any:
        # Without heartbeats, which would have to be sent while there is nothing to publish; confirmed
        # by batch rather than one by one.
        self._connection = self._app.connection_for_write(heartbeat=0, transport_options={'confirm_publish': False})
        self._connection.ensure_connection(max_retries=1, interval_start=0, timeout=CONFIRM_SECONDS)
        topology.require_facts(self._connection, self._queue_type)
        self._channel = self._connection.channel()
        self._tag, self._unconfirmed = 0, set()
        self._channel.confirm_select()
        self._channel.events['basic_ack'].add(self._on_ack)
        self._channel.events['basic_nack'].add(self._on_nack)
        return self._channel

    def _on_ack(self, tag: int, multiple: bool) -> None:
        if multiple:
            self._unconfirmed = {each for each in self._unconfirmed if each > tag}
        else:
            self._unconfirmed.discard(tag)

    def _on_nack(self, tag: int, multiple: bool) -> None:  # noqa: ARG002
        raise NotConfirmed('the broker rejected a report')


@dataclass
class _End:
    """A report that is not confirmed yet: its number, since when (monotonic), and what waits for it."""

    number: int = 0
    since: float = field(default_factory=time.monotonic)
    acts: list[Callable[[], None]] = field(default_factory=list)


class Reporter(Listener):
    """A listener that publishes what is reported from a thread of its own, which the first report starts.

    ``repeatable`` are the tasks that may be run again without harm: a message of theirs is not to be acknowledged
    before its report is safe, since a worker that is killed in between would leave no trace of the order.  Those
    of other tasks are not held: a mail that is sent twice is worse than one that the ledger does not know to be sent.
    ``published`` is called for each batch; see :meth:`~ecommerce_worker.telemetry.listening.Listener.published`.
    """

    def __init__(self, app: Celery, *, bound: int = BOUND, queue_type: str = 'classic',
                 repeatable: Collection[str] = (),
                 published: Callable[[str, float | None], None] = _nobody) -> None:
        self._app = app
        self._on_published = published
        self._queue_type = queue_type
        self._bound = bound
        self._repeatable = frozenset(repeatable)
        self.begin()

    def begin(self, *, patience: float = 0.0) -> None:
        """Start again in a forked process: the parent publishes its own reports.

        Such a process runs one message at a time, whose acknowledgement is its parent's business: telling of an end
        that is not to be missed waits until it is safe, which takes some milliseconds; at most ``patience`` seconds.
        """
        self._patience = patience
        #: Distinguishes the reports of this process from all others.
        self.name = uuid.uuid4().hex
        self._numbers = itertools.count(1)
        self._told: deque[tuple[int, RunReport]] = deque()
        self._hand: list[tuple[int, RunReport]] = []
        self._ends: dict[str, _End] = {}
        self._held = 0
        #: The number of waiting callbacks being called just now.
        self._settling = 0
        self._lock = threading.Lock()
        self._dropped = 0
        #: How many there was no room for, since the process began.
        self.dropped = 0
        self._away = False
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._wake = threading.Event()
        self._gathered = threading.Event()
        self._ending = threading.Event()

    @override
    def reported(self, report: RunReport) -> None:
        """Queue the report; takes a few microseconds and never waits."""
        acts: list[Callable[[], None]] = []
        with self._lock:
            if len(self._told) >= self._bound:
                self._dropped += 1
                self.dropped += 1
                acts = self._ended(*self._told.popleft())
            number = next(self._numbers)
            self._told.append((number, report))
            if report.outcome in ENDS and report.task in self._repeatable:
                self._ends.setdefault(report.id, _End()).number = number
        self._settle(acts)
        if not self._wake.is_set():
            self._wake.set()
        if self._thread is None:
            self._start()
        if self._patience and report.outcome in ENDS:
            safe = threading.Event()
            if self.holds(report.id, safe.set, 1):
                safe.wait(self._patience)

    @property
    def pending(self) -> int:
        """The number of unconfirmed reports."""
        return len(self._told) + len(self._hand)

    def holds(self, id_: str, act: Callable[[], None], most: int) -> bool:
        """See :class:`~ecommerce_worker.telemetry.run.Safety`; ``act`` is called from any thread.

        It is also called if that takes very long: an order must not be delayed by the ledger.
        """
        with self._lock:
            end = self._ends.get(id_)
            if end is None:
                return False
            end.acts.append(act)
            self._held += 1
            acts = self._let_go(time.monotonic() - HOLD_SECONDS, most)
            if self._held > most // 2:
                self._gathered.set()
        self._settle(acts)
        return True

    def flush(self, seconds: float = FLUSH_SECONDS) -> None:
        """Return when all reports of ended runs are safe and all callbacks called, or after so many seconds."""
        until = time.monotonic() + seconds
        while self._is_unsettled() and time.monotonic() < until and not self._ending.wait(LOOK_SECONDS):
            pass

    def _is_unsettled(self) -> bool:
        with self._lock:
            return bool(self._ends or self._settling)

    def _ended(self, number: int, report: RunReport) -> list[Callable[[], None]]:
        """The callbacks that waited for this report."""
        end = self._ends.get(report.id)
        if end is None or end.number != number:
            return []
        return self._released(report.id)

    def _let_go(self, before: float, most: float = math.inf) -> list[Callable[[], None]]:
        """The callbacks that have waited for too long, and those beyond the limit."""
        acts: list[Callable[[], None]] = []
        while self._held:
            id_, end = next((id_, end) for id_, end in self._ends.items() if end.acts)
            if self._held <= most and end.since > before:
                break
            acts += self._released(id_)
        return acts

    def _released(self, id_: str) -> list[Callable[[], None]]:
        acts = self._ends.pop(id_).acts
        self._held -= len(acts)
        self._settling += len(acts)
        return acts

    def _settle(self, acts: list[Callable[[], None]]) -> None:
        """Call the waiting callbacks without the lock; until then :meth:`flush` waits."""
        try:
            for act in acts:
                act()
        finally:
            with self._lock:
                self._settling -= len(acts)

    def end(self, seconds: float = FLUSH_SECONDS) -> None:
        """Publish the remaining reports, for up to so many seconds."""
        self._ending.set()
        self._gathered.set()
        self._wake.set()
        if self._thread is None:
            return
        self._thread.join(seconds)
        if left := len(self._told) + len(self._hand):
            logger.warning('some reports were not published before the process ended', dropped=left + self._dropped)

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                # A daemon: a broker that is away must not keep the process from ending.
                self._thread = threading.Thread(target=self._run, name='facts', daemon=True)
                self._thread.start()

    def _run(self) -> None:
        publisher, delay = Publisher(self._app, self._queue_type, self._on_published), SHORTEST
        while True:
            self._wake.wait()
            self._wake.clear()
            if not self._patience:
                self._gathered.wait(GATHER_SECONDS)
            self._gathered.clear()
            try:
                if self._hand or self._told:
                    self._publish(publisher)
            except Exception as error:  # noqa: BLE001 - whatever it is, the runs must not feel it
                self._lost(error)
                if self._ending.wait(delay):
                    return
                self._wake.set()
                delay = min(LONGEST, delay * 2)
                continue
            delay = SHORTEST
            if self._told:
                self._wake.set()
            elif self._ending.is_set():
                publisher.close()
                return

    def _publish(self, publisher: Publisher) -> None:
        """Publish the oldest reports; they are kept if that fails."""
        with self._lock:
            while self._told and len(self._hand) < BATCH:
                self._hand.append(self._told.popleft())
        publisher.publish([replace(report, teller=self.name, number=number) for number, report in self._hand])
        with self._lock:
            acts = [act for number, report in self._hand for act in self._ended(number, report)]
            self._hand = []
        self._settle(acts)
        if self._away or self._dropped:
            logger.warning('reports are published again', dropped=self._dropped)
            self._away, self._dropped = False, 0

    def _lost(self, error: Exception) -> None:
        with self._lock:
            acts = self._let_go(time.monotonic() - HOLD_SECONDS)
        self._settle(acts)
        if not self._away:
            self._away = True
            # Not its text: some quote what they were given.
            logger.warning('reports cannot be published and are kept', most=self._bound,
                           error=type(error.__cause__ or error).__name__)
