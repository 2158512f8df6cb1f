"""The table of the jobs of ``SCHEDULE``, from the ledger."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, Final

from ecommerce_worker.durations import every
from ecommerce_worker.health.schedule import Schedule
from ecommerce_worker.ledger.queries import Ended, last_ended
from ecommerce_worker.ledger.schedule_store import Last, last_of
from ecommerce_worker.schedule import claims
from ecommerce_worker.schedule.entries import Entry
from ecommerce_worker.schedule.timing import Timing

if TYPE_CHECKING:
    from celery import Celery

#: How long a missed run is shown.
REMEMBERED: Final = timedelta(days=7)


@dataclass(frozen=True)
class Job:
    """An entry: what it runs and when, since when it is overdue, and when it is due next."""

    name: str
    task: str
    when: str
    #: The recorder runs these itself and publishes no report of them.
    is_the_recorders: bool
    overdue: datetime | None
    coming: datetime | None
    #: When the last run was due, and how it ended if known.
    fired: datetime | None
    ended: Ended | None
    #: How many runs were missed lately, and until when.
    missed: int
    missed_at: datetime | None


def jobs(app: Celery, schedule: Schedule, now: datetime) -> list[Job]:
    """The rows of the table."""
    lasts = last_of(entry.key for entry, _ in schedule.timings)
    ids = {entry.name: claims.id_of(entry, last.published) for entry, _ in schedule.timings
           if (last := lasts.get(entry.key)) and last.published is not None}
    ended, overdue = last_ended(ids.values()), dict(schedule.overdue)
    return [_job(entry, timing, app.timezone, lasts.get(entry.key), ended.get(ids.get(entry.name, '')),
                 overdue.get(entry.name), now) for entry, timing in schedule.timings]


def _job(entry: Entry, timing: Timing, zone: tzinfo, last: Last | None, ended: Ended | None,
         overdue: float | None, now: datetime) -> Job:
    when = every(entry.interval) if entry.interval is not None else entry.crontab
    if entry.crontab and str(zone) != 'UTC':
        when += f' ({zone})'
    missed_at = _time(last.missed_at) if last else None
    is_recent = missed_at is not None and now - missed_at < REMEMBERED
    return Job(
        entry.name, entry.task, when, is_the_recorders=entry.is_the_recorders, overdue=_time(overdue),
        coming=_time(timing.coming(now.timestamp())), fired=_time(last.published) if last else None, ended=ended,
        missed=last.missed if last and is_recent else 0, missed_at=missed_at)


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
