"""How beat and the jobs of ``SCHEDULE`` stand, as far as the ledger knows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import cache
from typing import TYPE_CHECKING, Final

from ecommerce_worker import runtime
from ecommerce_worker.broker import preflight
from ecommerce_worker.console.text import every
from ecommerce_worker.errors import Misconfigured
from ecommerce_worker.ledger.queries import Ended, last_ended
from ecommerce_worker.ledger.schedule_store import Last, LedgerFirings, last_of
from ecommerce_worker.schedule import checks, claims
from ecommerce_worker.schedule.claims import CLAIM_SECONDS
from ecommerce_worker.schedule.entries import Entry
from ecommerce_worker.schedule.timing import Timing

if TYPE_CHECKING:
    from celery import Celery

    from ecommerce_worker.settings import Settings

#: For how long it is shown that something was missed.
REMEMBERED: Final = timedelta(days=7)


@dataclass(frozen=True)
class Job:
    """An entry: what it runs and when; since when it is overdue, when it is due next."""

    name: str
    task: str
    when: str
    #: It does those of the ledger, and tells no fact of them.
    is_the_recorders: bool
    overdue: datetime | None
    coming: datetime | None
    #: Whether a beat has begun with it.
    is_known: bool
    #: When the last run was due, and how it ended, if that is known by now.
    fired: datetime | None
    ended: Ended | None
    #: How many runs were left out lately, and until when.
    missed: int
    missed_at: datetime | None


@dataclass(frozen=True)
class Schedule:
    """The jobs, and the last sign of life of a beat; ``problems`` say why none could start."""

    ticked: datetime | None
    is_alive: bool
    #: For how long a beat has been silent; None if there has never been one.
    silent: timedelta | None
    #: Whether there should be one: where there never was, the jobs that come with the worker ask for none.
    is_missed: bool
    jobs: tuple[Job, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def overdue(self) -> tuple[Job, ...]:
        """What should have been fired by now."""
        return tuple(job for job in self.jobs if job.overdue)

    @property
    def unknown(self) -> tuple[Job, ...]:
        """What no beat has begun with: each does so when it starts."""
        return tuple(job for job in self.jobs if not (job.is_known or job.is_the_recorders))


def schedule(app: Celery, settings: Settings, now: datetime) -> Schedule:
    """How they stand."""
    ticked = _time(LedgerFirings(CLAIM_SECONDS).ticked())
    silent = None if ticked is None else now - ticked
    is_alive = silent is not None and silent <= timedelta(seconds=checks.ALIVE_SECONDS)
    is_missed = not is_alive and checks.is_wanted(settings, began=ticked is not None)
    try:
        _import_tasks(app)
        timings = checks.timings(app, settings)
    except Misconfigured as error:
        return Schedule(ticked, is_alive, silent, is_missed, problems=tuple(error.problems))
    lasts = last_of(entry.key for entry, _ in timings)
    ids = {entry.name: claims.id_of(entry, last.published) for entry, _ in timings
           if (last := lasts.get(entry.key)) and last.published is not None}
    ended = last_ended(ids.values())
    return Schedule(ticked, is_alive, silent, is_missed, tuple(
        _job(entry, timing, app.timezone, lasts.get(entry.key), ended.get(ids.get(entry.name, '')), now)
        for entry, timing in timings))


@cache
def _import_tasks(app: Celery) -> None:
    """Once: what is wrong with an entry cannot be told without its task."""
    preflight.import_tasks(app, runtime.current().settings)


def _job(entry: Entry, timing: Timing, zone: tzinfo, last: Last | None, ended: Ended | None, now: datetime) -> Job:
    when = every(entry.interval) if entry.interval is not None else entry.crontab
    if entry.crontab and str(zone) != 'UTC':
        when += f' ({zone})'
    missed_at = _time(last.missed_at) if last else None
    is_recent = missed_at is not None and now - missed_at < REMEMBERED
    overdue = checks.overdue(timing, last.due if last else None, now.timestamp())
    return Job(
        entry.name, entry.task, when, is_the_recorders=entry.is_the_recorders, overdue=_time(overdue),
        coming=_time(timing.coming(now.timestamp())), is_known=last is not None,
        fired=_time(last.published) if last else None, ended=ended,
        missed=last.missed if last and is_recent else 0, missed_at=missed_at)


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
