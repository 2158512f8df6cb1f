"""When something is due: the last time until now, and the next; pure functions of the time in epoch seconds.

The answer is the same in every process, so several agree without communicating.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, tzinfo
from typing import Final, Protocol

#: Days to look for one that matches: 29 February may be eight years away.
DAYS: Final = 8 * 366


class Timing(Protocol):
    """When something is due."""

    def latest(self, now: float) -> float | None:
        """The last time that it was due, now included; None if there is none."""

    def coming(self, now: float) -> float | None:
        """The next time that it will be due, after now; None if there is none."""

    def between(self, first: float, last: float) -> int:
        """How many times it was due after the first of two times that it was due, and before the last."""


@dataclass(frozen=True)
class Every:
    """Due every so many seconds, counted from 1970-01-01 UTC."""

    seconds: float

    def latest(self, now: float) -> float:
        """See :class:`Timing`."""
        return now // self.seconds * self.seconds

    def coming(self, now: float) -> float:
        """See :class:`Timing`."""
        return (now // self.seconds + 1) * self.seconds

    def between(self, first: float, last: float) -> int:
        """See :class:`Timing`."""
        # Whole intervals are between them, but not in floating point.
        return max(0, round((last - first) / self.seconds) - 1)


@dataclass(frozen=True)
class Crontab:
    """Due at these minutes of these hours of the days that match all the rest; Sunday is 0.

    Where the clock is changed it is as in cron.  What is due at a certain time of the day comes once: in autumn the
    first time that the clock shows it, in spring an hour later where the clock leaves it out.  What is due every so
    often (``by_the_clock``: its minute or its hour is ``*`` or ``*/n``) goes on at its pace: in autumn in both of the
    hours, in spring not in the skipped one.
    """

    minutes: AbstractSet[int]
    hours: AbstractSet[int]
    days: AbstractSet[int]
    months: AbstractSet[int]
    weekdays: AbstractSet[int]
    zone: tzinfo
    by_the_clock: bool = False

    def latest(self, now: float) -> float | None:
        """See :class:`Timing`."""
        return max(self._near(now, -1, lambda due: due <= now), default=None)

    def coming(self, now: float) -> float | None:
        """See :class:`Timing`."""
        return min(self._near(now, 1, lambda due: due > now), default=None)

    def between(self, first: float, last: float) -> int:
        """See :class:`Timing`."""
        begin, end = (datetime.fromtimestamp(moment, self.zone).date() for moment in (first, last))
        days = (begin + timedelta(number) for number in range((end - begin).days + 1))
        # A set: a time that the clock leaves out may be one that is due anyway.
        return sum(first < due < last for day in days if self._matches(day) for due in set(self._times(day)))

    def _near(self, now: float, step: int, wanted: Callable[[float], bool]) -> list[float]:
        """The first match on the nearest day that has any."""
        first = datetime.fromtimestamp(now, self.zone).date()
        for distance in range(DAYS):
            day = first + timedelta(step * distance)
            if self._matches(day) and (found := [due for due in self._times(day) if wanted(due)]):
                return found
        return []

    def _matches(self, day: date) -> bool:
        return day.day in self.days and day.month in self.months and day.isoweekday() % 7 in self.weekdays

    def _is_changed(self, day: date) -> bool:
        """Whether the clock is changed on that day."""
        midnights = (datetime.combine(day + timedelta(number), time(), self.zone) for number in (0, 1))
        return len({midnight.utcoffset() for midnight in midnights}) > 1

    def _times(self, day: date) -> list[float]:
        shown = [datetime.combine(day, time(hour, minute), self.zone) for hour in self.hours for minute in self.minutes]
        if not (self.by_the_clock and self._is_changed(day)):
            return [moment.timestamp() for moment in shown]
        both = ((moment, moment.replace(fold=fold).timestamp()) for moment in shown for fold in (0, 1))
        # A set: most are the same twice.  What the clock leaves out stands for another time than it says.
        return [*{due for moment, due in both if datetime.fromtimestamp(due, self.zone).replace(fold=0) == moment}]
