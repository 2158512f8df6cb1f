"""Counts of deliveries; refusals and slow functions are logged once a minute, however many there are.

The counts of each hour are published for the ledger every minute (:class:`~ecommerce_worker.telemetry.tally.Tally`).
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from ecommerce_worker import logs
from ecommerce_worker.telemetry import tally
from ecommerce_worker.telemetry.tally import Tally

logger = logs.of(__name__)

#: Seconds between two reports of what was refused.
REPORT_SECONDS: Final = 60.0

#: The name under which requests to unknown intakes are counted: their paths may be anything.
NOBODY: Final = '-'

#: Seconds above which mapping a delivery counts as slow: it blocks a thread, and needs neither network nor disk.
SLOW_SECONDS: Final = 0.005


@dataclass
class _Hour:
    """The counts of an intake since the hour began."""

    counts: dict[str, Counter[str]] = field(default_factory=dict)
    times: list[int] = field(default_factory=lambda: [0] * (len(tally.BOUNDS) + 1))
    last: float | None = None

    def add(self, state: str, reason: str) -> None:
        """Count one delivery; the number of different reasons is bounded."""
        reasons = self.counts.setdefault(state, Counter())
        reason = reason[:tally.REASON_LETTERS]
        reasons[reason if reason in reasons or len(reasons) < tally.REASONS else tally.OTHERS] += 1


class Counts:
    """Counts deliveries by intake, state and reason; thread-safe.

    ``tell`` publishes a tally without blocking; ``intakes`` maps names to the configuration that a tally carries;
    ``counted`` is called with the intake and the state of each delivery.
    """

    def __init__(self, tell: Callable[[Tally], None] | None = None,
                 intakes: Mapping[str, Mapping[str, str]] | None = None,
                 counted: Callable[[str, str], None] = lambda intake, state: None) -> None:  # noqa: ARG005
        self._tell = tell
        self._counted = counted
        self._intakes = {**(intakes or {}), NOBODY: {}}
        self._process = uuid.uuid4().hex
        self._told = 0
        self._lock = threading.Lock()
        self._hours: dict[tuple[int, str], _Hour] = {}
        self._unreported: Counter[tuple[str, str, str]] = Counter()
        #: How many were slow in a minute, and how long the longest took, by intake.
        self._slow: dict[str, tuple[int, float]] = {}
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name='counts', daemon=True)

    def start(self) -> None:
        """Report from now on."""
        self._thread.start()

    def end(self) -> None:
        """Report what is left."""
        self._ending.set()
        self._thread.join()

    def add(self, intake: str, state: str, reason: str = '') -> None:
        """Count one delivery."""
        with self._lock:
            self._hour(intake).add(state, reason)
            if state in ('refused', 'ignored', 'unavailable'):
                self._unreported[state, intake, reason] += 1
        self._counted(intake, state)

    def answered(self, intake: str, seconds: float) -> None:
        """Record the seconds until a genuine delivery was answered."""
        with self._lock:
            hour = self._hour(intake)
            hour.times[tally.span_of(seconds)] += 1
            hour.last = time.time()

    def mapped(self, intake: str, seconds: float) -> None:
        """Record the seconds that mapping a delivery took."""
        if seconds <= SLOW_SECONDS:
            return
        with self._lock:
            count, longest = self._slow.get(intake, (0, 0.0))
            self._slow[intake] = count + 1, max(longest, seconds)

    def tallies(self) -> Iterable[Tally]:
        """The tallies of this hour, and once more those of the hour before."""
        with self._lock:
            for name in self._intakes:
                self._hour(name)
            now, found = self._now(), []
            for (hour, intake), counted in sorted(self._hours.items()):
                self._told += 1
                found.append(Tally(
                    intake=intake, process=self._process, hour=hour, number=self._told, last=counted.last,
                    counts={state: dict(reasons) for state, reasons in counted.counts.items()},
                    times=tuple(counted.times), **self._intakes.get(intake, {})))
            self._hours = {key: counted for key, counted in self._hours.items() if key[0] == now}
        return found

    def report(self) -> None:
        """Log the counts since the last report, and publish them for the ledger."""
        with self._lock:
            found, self._unreported = self._unreported, Counter()
            slow, self._slow = self._slow, {}
        for (state, intake, reason), number in sorted(found.items()):
            level = logging.INFO if state == 'ignored' else logging.WARNING
            logger.log(level, state, intake=intake, reason=reason, count=number)
        for intake, (number, longest) in sorted(slow.items()):
            logger.warning('the function of an intake is slow and blocks other deliveries', intake=intake,
                           count=number, longest=longest)
        if self._tell:
            for each in self.tallies():
                self._tell(each)

    def _hour(self, intake: str) -> _Hour:
        key = self._now(), intake
        return self._hours.get(key) or self._hours.setdefault(key, _Hour())

    @staticmethod
    def _now() -> int:
        return int(time.time() // tally.HOUR * tally.HOUR)

    def _run(self) -> None:
        while not self._ending.wait(REPORT_SECONDS):
            self.report()
        self.report()
