"""The recorder: takes reports and parked messages from RabbitMQ and writes them into the ledger.

::

            ┌──────────────────────── the broker is away: wait ───────────────────────┐
            ▼                                                                         │
      consuming ──► a batch ──► written, committed ──► acknowledged ──► the next batch
            ▲                       │ the ledger is away
            └──── it is back ◄──────┘ the connection is given up: RabbitMQ keeps what was not acknowledged

What is delivered twice for that reason is counted once.  Workers continue in any case.
"""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from django.db import DataError, Error, IntegrityError, close_old_connections
from django.db import connection as database
from kombu import Consumer, Queue
from kombu.exceptions import KombuError

from ecommerce_worker import logs
from ecommerce_worker.broker import publishing, topology
from ecommerce_worker.broker.wire import Raw
from ecommerce_worker.errors import NotPublished, Undecodable
from ecommerce_worker.execution import parking
from ecommerce_worker.ledger import recording
from ecommerce_worker.ledger.figures import Looking
from ecommerce_worker.ledger.incoming import Aside, Parcel
from ecommerce_worker.ledger.maintenance import Chores
from ecommerce_worker.ledger.setup import LedgerAway, LedgerUnusable, require_schema, said
from ecommerce_worker.process import pulse
from ecommerce_worker.process.ending import Stop
from ecommerce_worker.schedule.entries import zone_of
from ecommerce_worker.telemetry import serving
from ecommerce_worker.telemetry.run import RunReport
from ecommerce_worker.telemetry.tally import Tally

if TYPE_CHECKING:
    from celery import Celery

    from ecommerce_worker.settings import Settings

logger = logs.of(__name__)

#: Facts, and parked messages, in one batch at most; a parked message may have megabytes.
FACTS, PARKED = 500, 20

#: Seconds for which a batch is gathered: each has its own commit, and its own write to the disk.
GATHER_SECONDS: Final = 0.5

#: Seconds after which a connection without a sign of life is given up; long, for a commit may take its time.
HEARTBEAT: Final = 60

#: Seconds between two tries to reach what is unreachable: at first, and at most.
SHORTEST, LONGEST = 1.0, 15.0

#: How often a batch is written that another recorder gets in the way of, before its members are written one by one.
AT_ONCE: Final = 5


def keep(app: Celery, settings: Settings) -> None:
    """Record until SIGTERM or SIGINT; raises :class:`LedgerUnusable` for a ledger that waiting cannot fix."""
    recorder = Recorder(app, settings)
    if counted := serving.begin('recorder', settings, recorder.standing, tasks=app.tasks):
        Looking(app, settings, counted).start()
    pulse.own.beat(pulse.OUTSIDE_SECONDS)
    with contextlib.suppress(LedgerAway):
        require_schema()
    stopping = Stop.on(signal.SIGTERM, signal.SIGINT)
    logger.info('recording')
    recorder.run(stopping)


class Recorder:
    """One recorder; several may share a ledger."""

    def __init__(self, app: Celery, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        self._troubled: str | None = None
        self._consuming = False
        #: Queues that were found to be of another shape, and those whose node is down; when to look for these again.
        self._said: set[str] = set()
        self._missing: set[str] = set()
        self._look_again = math.inf
        self._chores = Chores(settings, zone_of(app))

    def standing(self) -> tuple[str, str]:
        """See :class:`~ecommerce_worker.process.pulse.Pulse`."""
        if self._consuming:
            return '', f'without {", ".join(sorted(self._missing))}' if self._missing else 'recording'
        return f'{self._troubled or "the broker"} is not reachable yet', ''

    def run(self, stopping: Stop) -> None:
        """Record until stopped; waits for what is unreachable."""
        delay = SHORTEST
        while not stopping.is_set():
            pulse.own.beat(pulse.OUTSIDE_SECONDS)
            try:
                with self._working(), self._app.connection_for_read(heartbeat=HEARTBEAT) as connection:
                    connection.ensure_connection(max_retries=1, interval_start=0)
                    self._consume(connection, stopping)
            except _Trouble as trouble:
                self._consuming = False
                if self._troubled != trouble.what:
                    self._troubled = trouble.what
                    logger.warning('recording is paused while this is unreachable', what=trouble.what,
                                   error=str(trouble))
                    delay = SHORTEST
                pulse.own.beat()
                stopping.wait(delay)
                delay = min(LONGEST, delay * 2)

    @contextmanager
    def _working(self) -> Iterator[None]:
        """Raise errors of the block as trouble with the ledger or with the broker."""
        try:
            require_schema()
            yield
        except (LedgerUnusable, Error) as error:
            with contextlib.suppress(Error):
                database.close()
            raise _Trouble('the ledger', said(error)) from None
        except (OSError, KombuError, NotPublished, *publishing.broker_errors(self._app)) as error:
            raise _Trouble('the broker', type(error.__cause__ or error).__name__) from None

    def _declare(self) -> None:
        """Declare the queues to record, and log what is unusual about them.

        A queue whose node is down is not consumed: the other one is.  Raises :class:`_Trouble` if both are.
        """
        kind = self._settings.QUEUE_TYPE
        with topology.asking(self._app) as connection:
            shapes = {topology.PARKED: topology.declare_parked(connection, kind),
                      topology.LEDGER: topology.declare_facts(connection, kind)}
        for name, shape in shapes.items():
            if shape is topology.Shape.ANOTHER and name not in self._said:
                self._said.add(name)
                logger.warning('a queue does not have the type in QUEUE_TYPE and is used as it '
                               'is; `ecommerce-worker queues reset` changes its type and keeps its messages',
                               queue=name, wanted=kind)
        missing = {name for name, shape in shapes.items() if shape is topology.Shape.UNAVAILABLE}
        if missing == set(shapes):
            raise _Trouble('the node of RabbitMQ that keeps the queues of the ledger', ', '.join(sorted(missing)))
        if missing - self._missing:
            logger.warning('queues are unavailable since their RabbitMQ node is down; recording continues without them',
                           queues=','.join(sorted(missing)))
        if self._missing and not missing:
            logger.warning('queues are available again', queues=','.join(sorted(self._missing)))
        self._missing = missing
        self._look_again = time.monotonic() + LONGEST if missing else math.inf

    def _consume(self, connection: Any, stopping: Stop) -> None:
        self._declare()
        facts, parked = (_Inbox(connection, topology.LEDGER, FACTS, self._missing),
                        _Inbox(connection, topology.PARKED, PARKED, self._missing))
        if read := recording.read_set_aside():
            logger.info('reports that were set aside have been recorded', count=read)
        with facts.consumer, parked.consumer:
            if self._troubled:
                logger.warning('recording continues', what=self._troubled)
                self._troubled = None
            self._consuming = True
            while not stopping.is_set() and time.monotonic() < self._look_again:
                pulse.own.beat()
                self._gather(connection, facts, parked, stopping)
                # A database hangs up on those who were silent for long; the next question opens another connection.
                close_old_connections()
                self._write(facts, parked)
                self._chores.step()

    def _gather(self, connection: Any, facts: _Inbox, parked: _Inbox, stopping: Stop) -> None:
        """Return when a batch is complete, or after a while without messages."""
        until = time.monotonic() + GATHER_SECONDS
        while not (stopping.is_set() or facts.full or parked.full) and (rest := until - time.monotonic()) > 0:
            with contextlib.suppress(TimeoutError):
                connection.drain_events(timeout=rest)
        connection.heartbeat_check()

    def _write(self, facts: _Inbox, parked: _Inbox) -> None:
        """Write the batch, then acknowledge it."""
        if not (facts.messages or parked.messages):
            return
        pulse.own.beat(pulse.OUTSIDE_SECONDS)
        read = [_fact(message) for message in facts.messages]
        self._keep_apart(parked)
        parcels = [Parcel.of(Raw.of(message)) for message in parked.messages]
        _record([each for each in read if isinstance(each, RunReport)], [each for each in parcels if each],
                [each for each in read if isinstance(each, Aside)], [each for each in read if isinstance(each, Tally)])
        for message, parcel in zip(parked.messages, parcels, strict=True):
            if parcel is None:
                # Without an id it cannot be told from an equal one: it gets an id first, and is redelivered.
                parking.park_one(self._app, message, '', parking.stray(message))
            message.ack()
        if facts.messages:
            facts.messages[-1].ack(multiple=True)
        facts.messages.clear()
        parked.messages.clear()


    def _keep_apart(self, parked: _Inbox) -> None:
        """Move messages that are too large for the database to a separate queue of RabbitMQ."""
        largest = recording.largest_body() if parked.messages else None
        large = [message for message in parked.messages if largest is not None and len(Raw.of(message).body) > largest]
        if not large:
            return
        with self._app.connection_for_write() as connection:
            topology.declare_queue(connection, topology.parked_queue(self._settings.QUEUE_TYPE, topology.PARKED_LARGE))
        for message in large:
            raw = Raw.of(message)
            publishing.publish(self._app, publishing.Publication(raw, topology.PARKED_LARGE))
            message.ack()
            parked.messages.remove(message)
            logger.error('a parked message is larger than the database accepts (max_allowed_packet) and stays in '
                         'RabbitMQ', queue=topology.PARKED_LARGE, bytes=len(raw.body), most=largest)


class _Trouble(Exception):
    """Something is unreachable."""

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(reason)
        self.what = what


class _Inbox:
    """Unacknowledged messages of one queue, on a separate channel."""

    def __init__(self, connection: Any, queue: str, size: int, missing: Collection[str] = ()) -> None:
        self.messages: list[Any] = []
        self._size = size
        channel = connection.channel()
        channel.basic_qos(0, size, False)
        queues = [] if queue in missing else [Queue(queue, no_declare=True)]
        self.consumer = Consumer(channel, queues, on_message=self.messages.append,
                                 auto_declare=False)

    @property
    def full(self) -> bool:
        """Whether no more will arrive before these are acknowledged."""
        return len(self.messages) >= self._size


def _fact(message: Any) -> RunReport | Tally | Aside:
    body = Raw.of(message).body
    try:
        return RunReport.read(body)
    except Undecodable as error:
        with contextlib.suppress(Undecodable):
            return Tally.read(body)
        return Aside.of(body, str(error))


def _record(facts: list[RunReport], parcels: list[Parcel], aside: list[Aside], tallies: list[Tally]) -> None:
    """Write all; if one of them cannot be written, the others still are."""
    for _ in range(AT_ONCE):
        try:
            recording.record(facts, parcels, aside, tallies)
            return
        except IntegrityError:
            # Another recorder wrote some of them at the same moment: now they are there, and known.
            continue
        except (DataError, ValueError, OverflowError):
            break
    for fact in facts:
        try:
            recording.record([fact])
        except (DataError, ValueError, OverflowError) as error:
            logger.error('a report cannot be written and is set aside', id=fact.id, error=type(error).__name__)
            recording.record(aside=[Aside.of(fact.as_body(), f'it cannot be written ({type(error).__name__})')])
    for parcel in parcels:
        recording.record(parcels=[parcel])
    recording.record(aside=aside)
    for tally in tallies:
        try:
            recording.record(tallies=[tally])
        except (DataError, ValueError, OverflowError) as error:
            # The next one takes its place.
            logger.error('a tally of an intake cannot be written', intake=tally.intake, error=type(error).__name__)
