"""The pulse of this process: the beats of its main loop, and where they are reported.

::

    the loop turns ──► beat ──► every 2 s ──► a file in HEALTH_DIR     (`python -m ecommerce_worker.health`)
                                         └──► systemd: READY, WATCHDOG, STATUS
    a thread that is asked over HTTP ──► the same judgement

Nothing else beats, so a loop that is stuck is noticed although other threads are alive.  Before a loop waits for
another service (RabbitMQ, a database) it states for how long: restarting the process would not end their outage.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from ecommerce_worker import __version__, logs
from ecommerce_worker.process.notify import Supervisor
from ecommerce_worker.process.vitals import Vitals, trouble

logger = logs.of(__name__)

#: Seconds between two times that the pulse is shown, at most.
SHOWN_SECONDS: Final = 2.0

#: Seconds that a loop may wait for RabbitMQ or a database: longer than a short outage.
OUTSIDE_SECONDS: Final = 300.0

#: Seconds beyond its time that a process has to end.
LAST_SECONDS: Final = 5.0

#: The reason why a stopping process is not ready.
STOPPING: Final = 'it is stopping'


def _starting() -> tuple[str, str]:
    return 'it is starting', ''


class Pulse:
    """The pulse of one process; any thread may ask, and only the loop beats.

    ``look`` returns why the process is not ready ('' if it is), and what it is doing, in a few words.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.RLock()
        self.look: Callable[[], tuple[str, str]] = _starting
        self.role = ''
        self._seconds = 0.0
        self._file: Vitals | None = None
        self._supervisor: Supervisor | None = None
        self._watchdog: float | None = None
        self._began = 0.0
        self._at = self._due = self._show_at = 0.0
        self._patience = 0.0
        self._reason, self._detail, self._started = '', '', False
        self._ends = False
        self._failed = False

    def begin(self, role: str, *, seconds: float, directory: str = '',
              look: Callable[[], tuple[str, str]] | None = None) -> None:
        """Report this process under a role; its loop turns at least once in this many seconds.

        If ``directory`` cannot be written, that is logged once.
        """
        self.role, self._seconds, self._began = role, seconds, time.time()
        if look:
            self.look = look
        self._supervisor = Supervisor(os.environ)
        self._watchdog = self._supervisor.watchdog
        os.register_at_fork(after_in_child=self._forget)
        if directory:
            try:
                self._file = Vitals(directory, role)
            except OSError as error:
                self._cannot(error)
        self.beat()

    def beat(self, patience: float = 0.0) -> None:
        """The loop has turned, and will turn again soon, or after waiting for another service for ``patience`` seconds
        at most.
        """
        self._at = now = self._clock()
        if not self._ends:
            self._due = now + max(self._seconds, patience)
        if now >= self._show_at or patience != self._patience:
            with self._lock:
                self._patience = patience
                self._show(now)

    def ends(self, seconds: float) -> None:
        """The process has been asked to stop, within this many seconds; its loop may hang until then."""
        with self._lock:
            now = self._clock()
            self._ends, self._at, self._due = True, now, now + seconds + LAST_SECONDS
            if self._supervisor:
                self._supervisor.tell(STOPPING=1, EXTEND_TIMEOUT_USEC=int((seconds + LAST_SECONDS) * 1e6))
            self._show(now)

    def trouble(self, asked: str) -> str:
        """Why this process is not ``live``, ``ready`` or has not ``started``; '' if it is."""
        return trouble(self.vitals, asked, self._clock())

    @property
    def turned(self) -> float:
        """The time of the last turn of the loop, in epoch seconds."""
        return time.time() - (self._clock() - self._at)

    @property
    def vitals(self) -> dict[str, Any]:
        """Its reported state; ``pulse`` and ``due`` are seconds of the monotonic clock, ``began`` epoch seconds."""
        return {'role': self.role, 'pid': os.getpid(), 'version': __version__, 'began': round(self._began, 3),
                'pulse': round(self._at, 3), 'due': round(self._due, 3), 'ready': not self._reason,
                'started': self._started, 'reason': self._reason, 'detail': self._detail}

    def _show(self, now: float) -> None:
        # Whoever looks is to find it young, and systemd wants to hear it twice as often as it looks.
        self._show_at = now + min(SHOWN_SECONDS, self._seconds / 4, (self._watchdog or 2 * SHOWN_SECONDS) / 2)
        try:
            reason, self._detail = self.look()
        except Exception as error:  # noqa: BLE001 - whoever looks costs no order
            reason, self._detail = f'its state is unknown ({type(error).__name__})', ''
        self._reason = STOPPING if self._ends else reason
        self._started |= not self._reason
        if self._file:
            try:
                self._file.write(self.vitals)
                self._failed = False
            except OSError as error:
                self._cannot(error)
        if self._supervisor:
            self._tell(self._supervisor)

    def _tell(self, supervisor: Supervisor) -> None:
        # Again and again: a datagram that systemd had no room for is lost, and the unit would start for ever.
        said: dict[str, str | int] = {'READY': 1} if self._started and not self._ends else {}
        if supervisor.watchdog:
            watchdog = max(supervisor.watchdog, self._due - self._at if self._ends else self._patience)
            if watchdog != self._watchdog:
                # A service that waits for another one is given the time that it asks for.
                said['WATCHDOG_USEC'], self._watchdog = int(watchdog * 1e6), watchdog
            said['WATCHDOG'] = 1
        supervisor.tell(**said, STATUS=self._reason or self._detail or 'ready')

    def _cannot(self, error: OSError) -> None:
        if not self._failed:
            self._failed = True
            logger.warning('HEALTH_DIR cannot be written: the health of this process is not visible there, but it '
                           'continues',
                           error=error.strerror)

    def _forget(self) -> None:
        """In a forked process, which has no main loop of ours: report nothing."""
        self._lock = threading.RLock()
        self._file = self._supervisor = None


#: The pulse of this process.
own: Final = Pulse()
