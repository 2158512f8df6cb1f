"""Shared by both kinds of test: how steps are reported, and how a missing step fails the test."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeVar

from ecommerce_worker.errors import WorkerError

Found = TypeVar('Found')

#: Hears of each step: when it was over, in seconds since the beginning, and what it was.
Tell = Callable[[float, str], None]

#: Seconds between two looks.
LOOK_SECONDS: Final = 0.05


class NotPassed(WorkerError):
    """A step failed or timed out: the text says which one, and what to do."""


class Steps:
    """The steps of one test; all of them together may take so many seconds."""

    def __init__(self, tell: Tell, seconds: float) -> None:
        self._tell, self._seconds, self._began = tell, seconds, time.monotonic()

    def done(self, what: str) -> None:
        """Report that a step is complete."""
        self._tell(time.monotonic() - self._began, what)

    @property
    def is_over(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() - self._began > self._seconds

    def until(self, look: Callable[[], Found | None], otherwise: Callable[[], str]) -> Found:
        """What ``look`` finds, once that is true; raises :class:`NotPassed` with what ``otherwise`` says."""
        while not (found := look()):
            if self.is_over:
                raise NotPassed(otherwise())
            time.sleep(LOOK_SECONDS)
        return found
