"""Slow checks in a background thread, of which pages wait only for a moment."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from ecommerce_worker import logs

logger = logs.of(__name__)

#: Timeout of each step of a check, in seconds.
PATIENCE: Final = 1.0

#: Seconds after which a result is refreshed, and after which it is no longer shown.
FRESH: Final = 5.0
STALE: Final = 30.0

#: Seconds that a page waits for a result.
MOMENT: Final = 0.3

T = TypeVar('T')


class Watch(Generic[T]):
    """Runs a check in a thread of its own when its result is older than ``FRESH``; a page waits ``moment`` seconds.

    ``unknown`` turns a reason into what is shown while there is no result.
    """

    def __init__(self, ask: Callable[[], T], unknown: Callable[[str], T], moment: float = MOMENT) -> None:
        self._ask, self._unknown, self._moment = ask, unknown, moment
        self._lock = threading.Lock()
        self._found = self._awaited = unknown('no answer yet')
        self._at: float | None = None
        self._asking: threading.Thread | None = None

    def look(self) -> T:
        """The latest result, if it is less than ``STALE`` seconds old."""
        with self._lock:
            if self._age() >= FRESH and not self._asking:
                self._asking = threading.Thread(target=self._refresh, name='console-watch', daemon=True)
                self._asking.start()
            asking = self._asking
        if asking:
            asking.join(self._moment)
        with self._lock:
            return self._found if self._age() < STALE else self._awaited

    def _age(self) -> float:
        return math.inf if self._at is None else time.monotonic() - self._at

    def _refresh(self) -> None:
        try:
            found = self._ask()
        except Exception as error:
            logger.exception('a background check for the pages failed')
            found = self._unknown(f'the check failed ({type(error).__name__})')
        with self._lock:
            self._found, self._at, self._asking = found, time.monotonic(), None
