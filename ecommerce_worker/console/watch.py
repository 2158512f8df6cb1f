"""Looks that may take their time: a page waits for them for a moment only."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from ecommerce_worker import logs

logger = logs.of(__name__)

#: Seconds for each step of a look.
PATIENCE: Final = 1.0

#: Seconds for which an answer is good enough, and after which it is no answer any more.
FRESH: Final = 5.0
STALE: Final = 30.0

#: Seconds that a page waits for an answer.
MOMENT: Final = 0.3

T = TypeVar('T')


class Watch(Generic[T]):
    """Looks no more often than need be, in a thread of its own, for which a page waits for a moment only.

    ``unknown`` makes of a reason what is shown while there is no answer; ``moment`` is in seconds.
    """

    def __init__(self, ask: Callable[[], T], unknown: Callable[[str], T], moment: float = MOMENT) -> None:
        self._ask, self._unknown, self._moment = ask, unknown, moment
        self._lock = threading.Lock()
        self._found = self._awaited = unknown('it has not answered yet')
        self._at: float | None = None
        self._asking: threading.Thread | None = None

    def look(self) -> T:
        """What was found, less than half a minute ago."""
        with self._lock:
            if self._age() >= FRESH and not self._asking:
                self._asking = threading.Thread(target=self._refresh, name='looks for pages', daemon=True)
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
            logger.exception('a look for the pages failed')
            found = self._unknown(f'asking failed ({type(error).__name__})')
        with self._lock:
            self._found, self._at, self._asking = found, time.monotonic(), None
