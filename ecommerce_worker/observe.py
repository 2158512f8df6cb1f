"""Telling of outcomes: one call for each run that ended, one log line by default."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Told:
    """What is told of one run; ids and reasons, never contents."""

    outcome: str
    task: str
    id: str
    key: str
    site: str
    attempt: int
    seconds: float
    reason: str = ''
    next_try: float | None = None


Listener = Callable[[Told], None]

_LEVEL = {'parked': logging.ERROR, 'returned': logging.WARNING}


def log(told: Told) -> None:
    """The one line of a run."""
    level = _LEVEL.get(told.outcome, logging.INFO)
    if not logger.isEnabledFor(level):
        return
    logger.log(
        level, '%s: task=%s key=%s site=%s id=%s attempt=%d seconds=%.3f next_try=%s reason="%s"',
        told.outcome, told.task, told.key or '-', told.site or '-', told.id, told.attempt, told.seconds,
        '-' if told.next_try is None else f'{told.next_try:.0f}s', told.reason)
