"""The one log line of a run, and how its fields are written."""

from __future__ import annotations

import json
import logging
import math

from ecommerce_worker.telemetry.run import Told

logger = logging.getLogger(__name__)

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
