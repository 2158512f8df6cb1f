"""A look at beat and the jobs of ``SCHEDULE``: whether it lives, and what it should have fired."""

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
    """What was seen; ``problem`` says why beat's sign of life could not be, and then nothing else is known.

    Seconds are those since: of the last sign of life of any beat (None if there never was one), and of the time at
    which an entry was due that nobody has fired, in epoch seconds.
    """

    problem: str = ''
    silent: float | None = None
    #: Whether there should be a beat: where there never was one, the jobs that come with the worker ask for none.
    is_wanted: bool = False
    #: The entries that are kept, and when each is due; none where ``mistakes`` keep every beat from starting.
    timings: tuple[tuple[Entry, Timing], ...] = ()
    mistakes: tuple[str, ...] = ()
    overdue: tuple[tuple[str, float], ...] = ()
    #: Entries that no beat has begun with: each does so when it starts.
    unknown: tuple[str, ...] = ()

    @property
    def is_alive(self) -> bool:
        """Whether there is a beat."""
        return self.silent is not None and self.silent <= checks.ALIVE_SECONDS

    @property
    def is_missed(self) -> bool:
        """Whether there should be a beat, and is none."""
        return self.is_wanted and not self.is_alive and not self.problem


def look(app: Celery, settings: Settings, firings_of: Callable[[], Firings], now: float) -> Schedule:
    """How it stands; ``firings_of`` gives what several beats share, or raises a ``WorkerError``."""
    asked_for = checks.is_wanted(settings, began=False)
    try:
        firings = firings_of()
        ticked = firings.ticked()
        wanted = checks.is_wanted(settings, began=ticked is not None)
        silent = None if ticked is None else now - ticked
        try:
            # What is wrong with an entry cannot be told without its task.
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
