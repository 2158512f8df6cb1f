"""Beat: publishes the jobs of ``SCHEDULE`` when they are due.

::

    due? ──► claimed by this beat, for a while ──► published, confirmed ──► remembered as fired
                    │ by another one                      │ not confirmed
                    ▼                                     ▼
              nothing to do                  given back, tried again in a moment

Several beats may run, on several machines if they share a ledger: each firing is claimed by one.  One that dies in
between is followed by another once its claim is over, with a message of the same id.  What was due while no beat ran is
fired once, late, unless it has expired.
"""

from __future__ import annotations

import os
import signal
import socket
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from celery import beat as celery_beat

from ecommerce_worker import logs, runtime
from ecommerce_worker.broker import facts, preflight, topology
from ecommerce_worker.errors import NotPublished
from ecommerce_worker.execution.task import accepted
from ecommerce_worker.process import pulse
from ecommerce_worker.process.ending import Stop
from ecommerce_worker.schedule.checks import LATE_SECONDS, timings
from ecommerce_worker.schedule.claims import CLAIM_SECONDS, Firing, Firings, claimed, id_of
from ecommerce_worker.schedule.entries import Entry, can_expire, publish
from ecommerce_worker.schedule.file_store import FileFirings
from ecommerce_worker.schedule.timing import Timing
from ecommerce_worker.telemetry import serving

if TYPE_CHECKING:
    from celery import Celery

    from ecommerce_worker.settings import Settings

logger = logs.of(__name__)

#: The longest pause between two checks of the schedule, in seconds: how recent the sign of life in `status` is.
LOOK_SECONDS: Final = 30.0

#: Seconds until what could not be published is tried again.
AGAIN_SECONDS: Final = 5.0

#: Seconds between two turns of the loop.
TURN_SECONDS: Final = 1.0


class Scheduler(celery_beat.Scheduler):
    """Celery's scheduler with our schedule; Celery's own entries are not read."""

    def __init__(self, app: Celery, *args: Any, firings: Firings | None = None,
                 clock: Callable[[], float] = time.time, **kwargs: Any) -> None:
        self.firings = firings or FileFirings(runtime.current().settings.SCHEDULE_STATE)
        self._clock = clock
        self._name = f'{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}'
        self.timings: list[tuple[Entry, Timing]] = []
        self._declared = False
        #: Entries that failed, and why; each failure is logged once.
        self._troubles: dict[str, str] = {}
        self._looked = False
        super().__init__(app, *args, **kwargs)

    def setup_schedule(self) -> None:
        """Read the schedule; raises :class:`~ecommerce_worker.errors.Misconfigured` with all its problems."""
        self.timings = [(entry, timing) for entry, timing in timings(self.app, runtime.current().settings)
                        if not entry.is_the_recorders]
        if not self.timings:
            logger.warning('SCHEDULE is empty, beat is idle')

    def tick(self, *_: Any, **__: Any) -> float:
        """Fire what is due; returns the seconds until the next check."""
        for entry, timing in self.timings:
            try:
                self._look_at(entry, timing)
            except NotPublished as error:
                self._declared = False
                self._trouble(entry.name, str(error))
            except Exception as error:  # noqa: BLE001 - whatever it is, the other entries must not feel it
                self._trouble(entry.name, f'{type(error).__name__}: {error}')
            else:
                if self._troubles.pop(entry.name, None):
                    logger.warning('firing a job again', entry=entry.name)
        try:
            self.live()
        except Exception as error:  # noqa: BLE001 - as above
            self._trouble('', f'{type(error).__name__}: {error}')
        else:
            self._troubles.pop('', None)
        self._looked = True
        if self._troubles:
            return AGAIN_SECONDS
        now = self._clock()
        dues = [due for _, timing in self.timings if (due := timing.coming(now)) is not None]
        # A little late rather than early: a clock in floating point may be just before the time.
        return max(0.0, min([now + LOOK_SECONDS, *dues]) - now) + 0.01

    def live(self) -> None:
        """Give a sign of life; raises errors of the store."""
        self.firings.tick(self._name, self._clock())

    def _look_at(self, entry: Entry, timing: Timing) -> None:
        firing = claimed(self.firings, entry, timing, self._name, self._clock())
        if firing is None:
            return
        try:
            is_fired = self._fire(entry, timing, firing)
        except BaseException:
            self.firings.release(entry.key, self._name)
            raise
        remember = self.firings.fired if is_fired else self.firings.expired
        remember(entry.key, firing.due, self._name, firing.missed)

    def _fire(self, entry: Entry, timing: Timing, firing: Firing) -> bool:
        """Publish it unless it has expired; returns whether it was published."""
        now, due = self._clock(), firing.due
        following = timing.coming(due)
        not_after = due + entry.expires if entry.expires is not None else following or now + CLAIM_SECONDS
        expired = not_after < now and can_expire(self.app.tasks[entry.task])
        if now - due > LATE_SECONDS or expired or firing.missed:
            logger.warning('late, and skipped since it expired' if expired else 'late, and fired once',
                           entry=entry.name, due=_utc(due), last=_utc(firing.last), missed=firing.missed)
        if expired:
            return False
        if not self._declared:
            with self.app.connection_for_write() as connection:
                topology.declare(connection, self.app.amqp.queues.consume_from.values(),
                                 runtime.current().settings.QUEUE_TYPE)
            self._declared = True
        id_ = id_of(entry, due)
        began = time.time()
        call = publish(self.app, entry, id=id_, not_after=not_after, origin=f'beat {self._name}')
        facts.tell(self.app, runtime.current().settings, accepted(
            self.app.tasks[entry.task], call, entry.queue, f'by beat, for SCHEDULE[{entry.name}]', began=began))
        logger.info('fired', entry=entry.name, task=entry.task, due=_utc(due), id=id_)
        return True

    def standing(self) -> tuple[str, str]:
        """See :class:`~ecommerce_worker.process.pulse.Pulse`."""
        if self._looked and not self._troubles:
            return '', f'{len(self.timings)} entries'
        names = ', '.join(sorted(filter(None, self._troubles)))
        return ('it has not checked the schedule yet' if not self._looked else f'{names} cannot be fired' if names else
                'it cannot reach the store of its firings'), ''

    def _trouble(self, name: str, what: str) -> None:
        if self._troubles.get(name) != what:
            logger.error('a job cannot be fired, beat will keep trying', entry=name, error=what)
            self._troubles[name] = what


def _utc(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime('%Y-%m-%dT%H:%M:%SZ')


def run(app: Celery, settings: Settings, firings: Firings) -> None:
    """Fire jobs until SIGTERM or SIGINT; a firing in progress is finished.

    Raises :class:`~ecommerce_worker.errors.Misconfigured`,
    :class:`~ecommerce_worker.broker.preflight.BrokerUnusable`, :class:`StateUnusable` or
    :class:`~ecommerce_worker.ledger.setup.LedgerAway` if it cannot start.
    """
    scheduler = Scheduler(app, firings=firings)
    serving.begin('beat', settings, scheduler.standing)
    pulse.own.beat(pulse.OUTSIDE_SECONDS)
    preflight.check(app, settings)
    scheduler.live()
    # What is being fired is fired; it is looked for in between.
    stopping = Stop.on(signal.SIGTERM, signal.SIGINT)
    try:
        logger.info('beat is ready', entries=len(scheduler.timings))
        while not stopping.is_set():
            pulse.own.beat(pulse.OUTSIDE_SECONDS)
            _wait(stopping, scheduler.tick())
        logger.info('beat ends')
    finally:
        scheduler.close()


def _wait(stopping: Stop, seconds: float) -> None:
    """Wait, with regular beats."""
    until = time.monotonic() + seconds
    while not stopping.is_set() and (rest := until - time.monotonic()) > 0:
        pulse.own.beat()
        stopping.wait(min(TURN_SECONDS, rest))
