"""Telling of outcomes: one call for each run that ended, one log line by default."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field

from ecommerce_worker.facts import Fact, new_id

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
    #: The HTTP status that decided it.
    status: int | None = None
    queue: str = ''
    root_id: str = ''
    #: When it began, in epoch seconds.
    started: float = 0.0
    #: The name of the worker's node.
    worker: str = ''
    #: The id of the fact that it is.
    fact: str = field(default_factory=new_id)

    def as_fact(self) -> Fact:
        """The fact that it is, for the ledger."""
        ended = self.started + self.seconds
        return Fact(
            outcome=self.outcome, started=self.started, seconds=round(self.seconds, 6), attempt=self.attempt,
            task=self.task, id=self.id, key=self.key, site=self.site, queue=self.queue, reason=self.reason[:1000],
            status=self.status, next_try=None if self.next_try is None else ended + self.next_try, worker=self.worker,
            root_id=self.root_id, fact=self.fact)


Listener = Callable[[Told], None]

_LEVEL = {'parked': logging.ERROR, 'returned': logging.WARNING}


def quoted(value: str) -> str:
    """The text in quotes, as JSON has them, and on one line."""
    return json.dumps(value, ensure_ascii=not value.isprintable())


def word(value: str) -> str:
    """The value of a field: in quotes only where it could be mistaken for more than one; ``-`` for none."""
    plain = value.isprintable() and not set(value) & {' ', '"', '\\', '='}
    return (value or '-') if plain else quoted(value)


def log(told: Told) -> None:
    """The one line of a run."""
    level = _LEVEL.get(told.outcome, logging.INFO)
    if not logger.isEnabledFor(level):
        return
    logger.log(
        level, '%s: task=%s key=%s site=%s id=%s attempt=%d seconds=%.3f next_try=%s reason=%s',
        told.outcome, word(told.task), word(told.key), word(told.site), word(told.id), told.attempt, told.seconds,
        '-' if told.next_try is None else f'{math.ceil(told.next_try)}s', quoted(told.reason))
