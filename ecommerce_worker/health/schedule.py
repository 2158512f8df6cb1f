"""The state of beat and of the jobs in ``SCHEDULE``: whether it runs, and what it should have fired."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ecommerce_worker.broker import preflight
from ecommerce_worker.errors import Misconfigured, WorkerError
from ecommerce_worker.schedule import checks

if TYPE_CHECKING:
    from celery import Celery

    from ecommerce_worker.schedule.claims import Firings
    from ecommerce_worker.schedule.entries import Entry
    from ecommerce_worker.schedule.timing import Timing
    from ecommerce_worker.settings import Settings


@dataclass(frozen=True)
class Schedule:
    """The state of beat; if ``problem`` says why its sign of life cannot be read, the other fields mean nothing.

    ``silent`` is seconds since the last sign of life of any beat (None if there never was one); ``overdue`` has the
    epoch seconds at which an unfired entry was due.
    """

    problem: str = ''
    silent: float | None = None
    #: Whether a beat should run; where none ever did, the default entries of SCHEDULE do not require one.
    is_wanted: bool = False
    #: The valid entries and when each is due; empty if ``mistakes`` keep beat from starting.
    timings: tuple[tuple[Entry, Timing], ...] = ()
    mistakes: tuple[str, ...] = ()
    overdue: tuple[tuple[str, float], ...] = ()
    #: Entries that no beat has loaded; beat loads them when it starts.
    unknown: tuple[str, ...] = ()

    @property
    def is_alive(self) -> bool:
        """Whether a beat is running."""
        return self.silent is not None and self.silent <= checks.ALIVE_SECONDS

    @property
    def is_missed(self) -> bool:
        """Whether a beat should be running and is not."""
        return self.is_wanted and not self.is_alive and not self.problem


def look(app: Celery, settings: Settings, firings_of: Callable[[], Firings], now: float) -> Schedule:
    """The state of beat; ``firings_of`` returns the store that beats share, or raises a ``WorkerError``."""
    asked_for = checks.is_wanted(settings, began=False)
    try:
        firings = firings_of()
        ticked = firings.ticked()
        wanted = checks.is_wanted(settings, began=ticked is not None)
        silent = None if ticked is None else now - ticked
        try:
            # An entry cannot be checked without its task.
            preflight.import_tasks(app, settings)
            timings = tuple(checks.timings(app, settings))
        except Misconfigured as error:
            return Schedule(silent=silent, is_wanted=wanted, mistakes=tuple(error.problems))
        fired = {entry.name: firings.last(entry.key) for entry, _ in timings}
    except Misconfigured as error:  # no file to look into
        return Schedule(problem=str(error) if asked_for else '', is_wanted=asked_for)
    except WorkerError as error:
        return Schedule(problem=str(error), is_wanted=asked_for)
    overdue = ((entry.name, checks.overdue(timing, fired[entry.name], now)) for entry, timing in timings)
    return Schedule(
        silent=silent, is_wanted=wanted, timings=timings,
        overdue=tuple((name, since) for name, since in overdue if since is not None),
        unknown=tuple(entry.name for entry, _ in timings
                      if fired[entry.name] is None and not entry.is_the_recorders))
