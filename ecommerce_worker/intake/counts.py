"""What came in, counted; refusals are logged once a minute, however many there are."""

from __future__ import annotations

import logging
import threading
from collections import Counter

from ecommerce_worker import logs

logger = logs.of(__name__)

#: Seconds between two reports of what was refused.
REPORT_SECONDS = 60.0

#: What an intake is called that does not exist: what was asked for anybody may have written.
NOBODY = '-'


class Counts:
    """How many deliveries of which intake ended how, and why; for many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._all: Counter[tuple[str, str, str]] = Counter()
        self._unreported: Counter[tuple[str, str, str]] = Counter()
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
        """One more."""
        with self._lock:
            self._all[intake, state, reason] += 1
            if state in ('refused', 'ignored', 'unavailable'):
                self._unreported[state, intake, reason] += 1

    def so_far(self) -> dict[tuple[str, str, str], int]:
        """All of them, by intake, state and reason."""
        with self._lock:
            return dict(self._all)

    def report(self) -> None:
        """Log what has come since the last report."""
        with self._lock:
            found, self._unreported = self._unreported, Counter()
        for (state, intake, reason), number in sorted(found.items()):
            level = logging.INFO if state == 'ignored' else logging.WARNING
            logger.log(level, state, intake=intake, reason=reason, count=number)

    def _run(self) -> None:
        while not self._ending.wait(REPORT_SECONDS):
            self.report()
        self.report()
