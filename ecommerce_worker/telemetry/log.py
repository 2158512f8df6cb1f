"""The one log line of a run, and how its fields are written."""

from __future__ import annotations

import json
import logging
import math

from typing_extensions import override

from ecommerce_worker.telemetry.listening import Listener
from ecommerce_worker.telemetry.run import RunReport

logger = logging.getLogger(__name__)

_LEVEL = {'parked': logging.ERROR, 'returned': logging.WARNING}


def quoted(value: str) -> str:
    """The text in quotes, as JSON has them, and on one line."""
    return json.dumps(value, ensure_ascii=not value.isprintable())


def word(value: str) -> str:
    """The value of a field: in quotes only where it could be mistaken for more than one; ``-`` for none."""
    plain = value.isprintable() and not set(value) & {' ', '"', '\\', '='}
    return (value or '-') if plain else quoted(value)


class Lines(Listener):
    """The one line of each run, or of what became of a message without one."""

    @override
    def reported(self, report: RunReport) -> None:
        """Write it."""
        level = _LEVEL.get(report.outcome, logging.INFO)
        if not logger.isEnabledFor(level):
            return
        logger.log(
            level, '%s: task=%s key=%s site=%s id=%s attempt=%d seconds=%.3f next_try=%s reason=%s',
            report.outcome, word(report.task), word(report.key), word(report.site), word(report.id), report.attempt,
            report.seconds, '-' if report.wait is None else f'{math.ceil(report.wait)}s', quoted(report.reason))
