"""The one log line of a run."""

from __future__ import annotations

import logging
import math

from typing_extensions import override

from ecommerce_worker import logs
from ecommerce_worker.telemetry.listening import Listener
from ecommerce_worker.telemetry.run import RunReport

logger = logs.of(__name__)

_LEVEL = {'parked': logging.ERROR, 'returned': logging.WARNING}

#: Outcomes after which the order is not finished yet, and outcomes that are failures.
_OPEN, _FAILURES = ('retrying', 'accepted', 'resent'), ('parked', 'returned', 'discarded')


class Lines(Listener):
    """The log line of each run, or of a message without a run."""

    @override
    def reported(self, report: RunReport) -> None:
        """Write it."""
        logger.log(
            _LEVEL.get(report.outcome, logging.INFO), report.outcome, task=report.task, key=report.key,
            site=report.site, id=report.id, attempt=report.attempt, seconds=report.seconds,
            next_try=None if report.wait is None else f'{math.ceil(report.wait)}s', reason=report.reason,
            also={'action': report.outcome, 'outcome': _success(report.outcome), 'root_id': report.root_id,
                  'queue': report.queue, 'status': report.status, 'next_try': report.next_try_at})


def _success(outcome: str) -> str:
    """The outcome in the words of ECS."""
    return 'unknown' if outcome in _OPEN else 'failure' if outcome in _FAILURES else 'success'
