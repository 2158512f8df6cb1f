"""The entries of ``SCHEDULE`` as values, and the publishing of one."""

from __future__ import annotations

import inspect
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from typing import TYPE_CHECKING, Any, Final

from celery.schedules import ParseException, crontab

from ecommerce_worker.broker import publishing
from ecommerce_worker.broker.notes import Notes
from ecommerce_worker.broker.wire import Call
from ecommerce_worker.errors import Misconfigured, Skip, WrongArguments
from ecommerce_worker.schedule.timing import Crontab, Every, Timing
from ecommerce_worker.settings import Settings

if TYPE_CHECKING:
    from celery import Celery

#: Tasks that the recorder runs itself, since it has the ledger open; they are not published.
RETENTION: Final = 'ecommerce_worker.ledger.maintenance.retention'
HOUSEKEEPING: Final = 'ecommerce_worker.ledger.maintenance.housekeeping'


@dataclass(frozen=True)
class Entry:
    """A job and when it runs; one of ``crontab`` and ``interval`` (in seconds) is given."""

    name: str
    task: str
    crontab: str = ''
    interval: float | None = None
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    #: Where it is published.
    queue: str = ''
    #: Seconds for which it may wait for a worker; None: until the next one is due.
    expires: float | None = None

    @property
    def key(self) -> str:
        """The key of its firings: with another crontab or interval it starts over."""
        return f'{self.name} ({self.crontab or f"{self.interval or 0:g} s"})'

    @property
    def is_the_recorders(self) -> bool:
        """Whether the recorder runs it, so that beat does not publish it."""
        return self.task in (RETENTION, HOUSEKEEPING)


def entries(settings: Settings) -> list[Entry]:
    """The enabled entries."""
    return [
        Entry(name, task=given.get('task', ''), crontab=given.get('crontab') or '', interval=given.get('interval'),
              args=tuple(given.get('args', ())), kwargs=given.get('kwargs', {}),
              queue=given.get('queue') or settings.DEFAULT_PRIORITY_QUEUE, expires=given.get('expires'))
        for name, given in settings.SCHEDULE.items() if given.get('enabled', True)]


def timing_of(entry: Entry, zone: tzinfo = UTC) -> Timing:
    """When the entry is due, in the clock of that zone; raises ValueError with the reason why it never is."""
    if entry.interval is not None:
        return Every(entry.interval)
    if (fields := len(entry.crontab.split())) != 5:
        raise ValueError(f'it has {fields} fields instead of 5 (minute hour day-of-month month day-of-week)')
    try:
        found = crontab.from_string(entry.crontab)
    except ParseException as error:
        raise ValueError(str(error)) from None
    timing = Crontab(found.minute, found.hour, found.day_of_month, found.month_of_year, found.day_of_week, zone,
                     by_the_clock=any(field.startswith('*') for field in entry.crontab.split()[:2]))
    if timing.coming(0) is None:
        raise ValueError('no date ever matches')
    return timing


def zone_of(app: Celery) -> tzinfo:
    """The time zone of crontabs; raises :class:`~ecommerce_worker.errors.Misconfigured` if it does not exist."""
    try:
        zone: tzinfo = app.timezone
    except Exception:  # noqa: BLE001 - ZoneInfo raises anything for invalid names
        problem = f'CELERY_TIMEZONE names the time zone {app.conf.timezone}, which does not exist'
        raise Misconfigured([problem]) from None
    return zone


def can_expire(task: Any) -> bool:
    """Whether the task can expire: it takes ``not_after``, in epoch seconds."""
    return 'not_after' in inspect.signature(task.run).parameters


def refuse_late(not_after: object) -> None:
    """Raise :class:`~ecommerce_worker.errors.Skip` after that moment, in epoch seconds; None is never."""
    if not_after is None:
        return
    if isinstance(not_after, bool) or not isinstance(not_after, int | float):
        raise WrongArguments('not_after must be a time in epoch seconds')
    if time.time() > not_after:
        raise Skip('too late: the next one is or was due')


def publish(app: Celery, entry: Entry, *, id: str, not_after: float, origin: str) -> Call:  # noqa: A002
    """Publish the job for a worker, until ``not_after`` if its task can expire; ``id`` identifies this firing.

    Returns what was published.

    Raises :class:`~ecommerce_worker.errors.NotPublished`, or :class:`~ecommerce_worker.errors.WrongArguments`.
    """
    limit = {'not_after': not_after} if can_expire(app.tasks[entry.task]) else {}
    call = Call(entry.task, id, args=entry.args, kwargs={**entry.kwargs, **limit}, origin=origin, root_id=id)
    publishing.wait(app, call, Notes(queue=entry.queue, published=time.time()), 0)
    return call
