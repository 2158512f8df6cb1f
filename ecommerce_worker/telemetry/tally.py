"""The counts of an intake, and their form on the wire: numbers and reasons, never contents."""

from __future__ import annotations

import bisect
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from ecommerce_worker.bounds import bounded_json
from ecommerce_worker.errors import Undecodable
from ecommerce_worker.telemetry.run import LAST_SECOND, VERSION, one_line

#: What may become of a delivery.
STATES: Final = ('accepted', 'repeated', 'ignored', 'parked', 'refused', 'unavailable')

#: The upper bounds, in milliseconds, of the spans into which answers are sorted by how long they took; and one more for
#: all that took longer.
BOUNDS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)

#: How many reasons a tally has for each state at most, and how long each may be; others are counted as *others*.
REASONS, REASON_LETTERS, OTHERS = 30, 100, 'others'

#: Seconds of the span of time that is counted.
HOUR: Final = 3600

#: The most that is counted of anything.
MOST: Final = 2 ** 53

#: The texts of a tally, and how many letters each has at most.
TEXTS: Final[Mapping[str, int]] = {
    'intake': 128, 'process': 32, 'kind': 128, 'url': 500, 'state': 16, 'test_orders': 16}

Counted = Mapping[str, Mapping[str, int]]


@dataclass(frozen=True, kw_only=True)
class Tally:
    """The counts of one process for one intake since the beginning of an hour: a later one replaces an earlier one.

    So a lost one costs a minute, and a repeated one counts once.  ``hour`` is its beginning in epoch
    seconds, ``number`` how many the process has published by then,
    ``counts`` how many deliveries ended in each state for
    each reason, ``times`` how many answers took so long (see :data:`BOUNDS`), ``last`` when a genuine one came last, in
    epoch seconds.  The rest is how the process has the intake configured.
    """

    intake: str
    process: str
    hour: int
    number: int
    kind: str = ''
    url: str = ''
    state: str = ''
    test_orders: str = ''
    counts: Counted = field(default_factory=dict)
    times: Sequence[int] = ()
    last: float | None = None

    @classmethod
    def read(cls, body: bytes) -> Tally:
        """The tally that a body holds; raises :class:`~ecommerce_worker.errors.Undecodable`, whatever it is."""
        try:
            found = json.loads(bounded_json(body))
        except (ValueError, RecursionError):
            raise Undecodable('not JSON') from None
        if not isinstance(found, dict) or found.get('version') != VERSION or not isinstance(found.get('tally'), dict):
            raise Undecodable('not a tally')
        given = found['tally']
        last = given.get('last')
        texts = {name: one_line(given.get(name), most) for name, most in TEXTS.items()}
        if not (texts['intake'] and texts['process']):
            raise Undecodable('it does not name its intake and process')
        return cls(**texts, hour=_number(given.get('hour'), LAST_SECOND) // HOUR * HOUR,
                   number=_number(given.get('number')), counts=_counts(given.get('counts')),
                   times=_times(given.get('times')), last=None if last is None else _number(last, LAST_SECOND))

    def as_body(self) -> bytes:
        """The tally in JSON."""
        return json.dumps({'version': VERSION, 'tally': vars(self)}, separators=(',', ':')).encode()

    @property
    def routing_key(self) -> str:
        """``tally.<intake>``."""
        return f'tally.{self.intake}'

    @property
    def begins(self) -> datetime:
        """When the hour began."""
        return datetime.fromtimestamp(self.hour, UTC)


def span_of(seconds: float) -> int:
    """The index of the span of an answer that took this long."""
    return bisect.bisect_left(BOUNDS, seconds * 1000)


def percentile(times: Sequence[int], share: float) -> int | None:
    """The percentile of the answers in milliseconds; None without answers, or if it is above all
    bounds.
    """
    left = math.ceil(sum(times) * share)
    for count, bound in zip(times, BOUNDS, strict=False):
        left -= count
        if left <= 0:
            return bound if sum(times) else None
    return None


def _number(value: Any, most: float = MOST) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise Undecodable('one of its numbers is out of range')
    return int(value)


def _counts(given: Any) -> Counted:
    if not isinstance(given, dict):
        raise Undecodable('its counts are not a mapping')
    return {state: {one_line(reason, REASON_LETTERS): _number(count)
                    for reason, count in itertools.islice(reasons.items(), REASONS + 1)}
            for state, reasons in given.items() if state in STATES and isinstance(reasons, dict)}


def _times(given: Any) -> tuple[int, ...]:
    if not isinstance(given, list) or len(given) not in (0, len(BOUNDS) + 1):
        raise Undecodable('its times are not a list of the right length')
    return tuple(_number(count) for count in given)
