"""Gaps in a sequence of numbers, as ordered pairs of the first and last missing number; pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

#: The maximum number of gaps; beyond that the two oldest are merged, including the numbers between them.
MOST: Final = 200

Gaps = list[list[int]]


def after(highest: int, gaps: Sequence[Sequence[int]], came: Iterable[int]) -> tuple[int, Gaps]:
    """The highest number and the gaps below it, once these numbers came too; idempotent, in any order."""
    found = [list(gap) for gap in gaps]
    for number in sorted(set(came)):
        if number > highest + 1:
            found.append([highest + 1, number - 1])
        if number <= highest:
            found = _without(found, number)
        highest = max(highest, number)
    while len(found) > MOST:
        found[:2] = [[found[0][0], found[1][1]]]
    return highest, found


def count(gaps: Iterable[Sequence[int]]) -> int:
    """The number of missing numbers."""
    return sum(last - first + 1 for first, last in gaps)


def _without(gaps: Gaps, number: int) -> Gaps:
    for place, (first, last) in enumerate(gaps):
        if first <= number <= last:
            rest = [[first, number - 1], [number + 1, last]]
            return [*gaps[:place], *(gap for gap in rest if gap[0] <= gap[1]), *gaps[place + 1:]]
    return gaps
