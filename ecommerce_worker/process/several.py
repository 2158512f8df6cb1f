"""Several processes of one command under one parent.

::

    started ──exits──► waits 1, 2, 4 … 60 s ──► started again …
      │  └──hangs──► killed ──┘
      └──SIGTERM, SIGINT, SIGHUP, SIGQUIT, passed on to all──► the parent ends with the first status that is not 0

The parent does nothing else, except to sum up the files of its processes (:mod:`.vitals`) as its own health.  If it is
killed, they stop as after a signal.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Final

from ecommerce_worker.process import pulse
from ecommerce_worker.process.ending import ENDS, PARENT, Stop
from ecommerce_worker.process.vitals import found, trouble

#: Seconds before a process is begun again: the first pause, and the longest.
SHORTEST: Final = 1.0
LONGEST: Final = 60.0

#: Seconds between two checks of the processes, and while they are stopping.
LOOK_SECONDS: Final = 1.0
ENDING_SECONDS: Final = 0.05

#: Seconds beyond those that a process has to stop after which it is killed; each should end earlier.
GRACE: Final = 3.0

#: Statuses of a process that could not begin, and that no other would fare better than.
HOPELESS: Final = frozenset((1, os.EX_USAGE, os.EX_UNAVAILABLE, os.EX_NOPERM, os.EX_CONFIG, 2))


def next_pause(before: float, lived: float) -> float:
    """Seconds until a process that ran for so long is restarted; ``before`` is the previous pause."""
    return SHORTEST if lived >= LONGEST else min(LONGEST, max(SHORTEST, before * 2))


class _Place:
    """One of the processes and its successors."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.began = 0.0
        self.pause = 0.0
        self.not_before = 0.0


class Several:
    """``count`` processes of a command, of that role; each must call :func:`.ending.with_parent`.

    ``environment`` are variables for them; ``tell`` gets lines of output.
    """

    def __init__(self, command: Sequence[str], count: int, role: str, *,
                 environment: Mapping[str, str], tell: Callable[[str], None]) -> None:
        self._command = command
        self._role = role
        self._environment = dict(environment)
        self._tell = tell
        self._places = [_Place() for _ in range(count)]
        self._vitals: dict[int, Mapping[str, Any]] = {}
        #: Whether any of them has ever been ready.
        self._started = False
        self._signals: list[int] = []
        self._stop = Stop()

    def run(self, *, directory: str, health_seconds: float, shutdown_seconds: float) -> int:
        """Keep them running until a signal comes, or none can start; returns the exit status.

        ``directory`` is where they report their health, '' to report it to the parent only.
        """
        for number in ENDS:
            signal.signal(number, self._on_signal)
        with ExitStack() as stack:
            pulse.own.begin(self._role, seconds=health_seconds, directory=directory, look=self.standing)
            here = directory or stack.enter_context(tempfile.TemporaryDirectory(prefix='ecommerce-worker-'))
            # Not sooner: what systemd said is not for them.
            self._environment = {**os.environ, **self._environment, 'ECOMMERCE_WORKER_HEALTH_DIR': here,
                                 PARENT: str(os.getpid())}
            status = 0
            while not self._signals and not status:
                status = self._turn(here)
                pulse.own.beat()
                self._stop.wait(LOOK_SECONDS)
            pulse.own.ends(shutdown_seconds + GRACE)
            return self._ended(self._signals or [signal.SIGTERM], shutdown_seconds + GRACE) or status

    def standing(self) -> tuple[str, str]:
        """See :class:`~ecommerce_worker.process.pulse.Pulse`: the state of all of them."""
        pids = [place.process.pid for place in self._places if place.process]
        reasons = [self._vitals[pid]['reason'] if pid in self._vitals else 'it is starting' for pid in pids]
        reasons += ['it will be restarted'] * (len(self._places) - len(pids))
        unready = [reason for reason in reasons if reason]
        ready = f'{len(reasons) - len(unready)} of {len(reasons)} processes are ready'
        return f'{ready}: {unready[0]}' if unready else '', f'{ready} ({", ".join(map(str, pids))})'

    def _on_signal(self, number: int, _: Any) -> None:
        self._signals.append(number)
        self._stop.set()

    def _turn(self, directory: str) -> int:
        """Start missing processes, and check the others; returns the status to exit with, 0 to continue."""
        for place in self._places:
            if place.process is not None and (status := place.process.poll()) is not None:
                if status in HOPELESS and not self._started:
                    place.process = None
                    return status
                self._lost(place, status)
            if place.process is None and time.monotonic() >= place.not_before:
                # A session of its own: what is typed at a terminal reaches it only through us.
                place.process = subprocess.Popen(  # noqa: S603 - this program
                    self._command, env=self._environment, start_new_session=True)
                place.began = time.monotonic()
        pids = {place.process.pid for place in self._places if place.process}
        self._vitals = {it['pid']: it for it in found(directory, self._role) if it['pid'] in pids}
        self._started |= any(it['started'] for it in self._vitals.values())
        now = time.monotonic()
        for place in self._places:
            if place.process and (vitals := self._vitals.get(place.process.pid)) and trouble(vitals, 'live', now):
                self._tell(f'{trouble(vitals, "live", now)}; killing it')
                place.process.kill()
        return 0

    def _lost(self, place: _Place, status: int) -> None:
        assert place.process  # noqa: S101 - for the type checker
        how = f'was killed by signal {-status}' if status < 0 else f'ended with status {status}'
        now = time.monotonic()
        place.pause = next_pause(place.pause, now - place.began)
        place.not_before = now + place.pause
        self._tell(f'process {place.process.pid} {how}; restarting in {place.pause:g} s')
        place.process = None

    def _ended(self, signals: list[int], seconds: float) -> int:
        """Pass on these and further signals until all have exited; returns the first status that is not 0."""
        processes = [place.process for place in self._places if place.process]
        until, passed = time.monotonic() + seconds, 0
        while any(each.poll() is None for each in processes):
            for number in signals[passed:]:
                passed += 1
                for each in processes:
                    each.send_signal(number)
            if time.monotonic() > until:
                for each in processes:
                    each.kill()
            time.sleep(ENDING_SECONDS)
        return next((status for each in processes if (status := max(0, each.returncode))), 0)
