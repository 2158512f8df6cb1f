"""Bars for a small chart, drawn by the server; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

#: The kinds of bars, from the bottom up, and the outcomes that each stands for.
KINDS: Final[Mapping[str, tuple[str, ...]]] = {
    'done': ('done', 'skipped'), 'retrying': ('retrying', 'returned'), 'parked': ('parked',)}

WIDTH: Final = 480
HEIGHT: Final = 100
_GAP: Final = 2


@dataclass(frozen=True)
class Bar:
    """A part of a column, in the units of the drawing."""

    kind: str
    x: float
    y: float
    width: float
    height: float
    title: str


@dataclass(frozen=True)
class Chart:
    """Columns from left to right, each a stack of bars; ``total`` counts the runs by kind."""

    bars: tuple[Bar, ...]
    most: int
    total: Mapping[str, int]
    width: int = WIDTH
    height: int = HEIGHT


def chart(columns: Sequence[tuple[datetime, Mapping[str, int]]]) -> Chart:
    """The chart of the runs by outcome in each span of time; a span is given by its beginning."""
    counted = [(begin, {kind: sum(found.get(outcome, 0) for outcome in outcomes) for kind, outcomes in KINDS.items()})
               for begin, found in columns]
    most = max((sum(counts.values()) for _, counts in counted), default=0)
    step = WIDTH / max(1, len(counted))
    bars = []
    for position, (begin, counts) in enumerate(counted):
        y = float(HEIGHT)
        for kind, count in counts.items():
            if not count:
                continue
            # At least one unit high, so that even a few runs among many are visible.
            height = max(1.0, HEIGHT * count / most)
            y = max(0.0, y - height)
            bars.append(Bar(kind, round(position * step, 1), round(y, 1), round(step - _GAP, 1), round(height, 1),
                            f'{begin:%H:%M} UTC: {count} {kind}'))
    return Chart(tuple(bars), most, {kind: sum(counts[kind] for _, counts in counted) for kind in KINDS})
