"""Scheduled jobs of the recorder, which has the ledger open.  They work in small steps, to hold locks only briefly."""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Final

from django.apps import apps
from django.db import Error, connection, models, transaction

from ecommerce_worker import logs
from ecommerce_worker.errors import Misconfigured
from ecommerce_worker.ledger import models as ledger
from ecommerce_worker.ledger.models import Attempt, Audit, Order, ParkedMessage, SetAside, State, Teller
from ecommerce_worker.ledger.schedule_store import LedgerFirings
from ecommerce_worker.ledger.setup import LedgerUnusable, said
from ecommerce_worker.process import pulse
from ecommerce_worker.schedule.claims import Firing, claimed
from ecommerce_worker.schedule.entries import HOUSEKEEPING, RETENTION, Entry, entries, timing_of
from ecommerce_worker.schedule.timing import Timing
from ecommerce_worker.settings import Settings

logger = logs.of(__name__)

#: Rows deleted per step, and looked for at once, at most.
CHUNK: Final = 500
LOOKED_FOR: Final = 20_000

#: Seconds between two checks of what is due.
LOOK_SECONDS: Final = 30.0

#: Seconds for which a job is claimed, extended with each step of it, and until a failed one is retried.
AGAIN_SECONDS: Final = 300.0

#: Days after which an entry that has not been fired is taken to be gone from every schedule; 29 February comes rarely.
FIRING_DAYS: Final = 8 * 366 + 1


def retention(keep_days: int, keep_parked_days: int = 0, keep_lines_days: int = 0, *,
              now: datetime | None = None) -> Iterator[int]:
    """Delete orders that ended so many days ago, and erase messages that have been parked for so many (0: never).

    Lines of orders are kept for ``keep_lines_days``, if that is longer.
    What is parked, waits or is being tried is not over.  Yields the number of rows that went, after each step.
    """
    now = now or datetime.now(UTC)
    end = now - timedelta(days=keep_days)
    for rows in (
            Attempt.objects.filter(started__lt=end),
            ParkedMessage.objects.filter(parked_at__lt=end, settled_at__lt=end).exclude(settled=''),
            Audit.objects.filter(at__lt=end),
            SetAside.objects.filter(received__lt=end),
            Teller.objects.filter(heard__lt=end),
            ledger.IntakeHour.objects.filter(hour__lt=end),
            ledger.Webhook.objects.filter(seen__lt=end),
            _over(end).filter(order_number=''),
            _over(min(end, now - timedelta(days=keep_lines_days)))):
        yield from _delete(rows)
    if keep_parked_days:
        old = ParkedMessage.objects.filter(settled='', parked_at__lt=now - timedelta(days=keep_parked_days))
        yield from _erase(old, f'erased after {keep_parked_days} days without a decision', now)


def housekeeping() -> Iterator[int]:
    """Delete entries that are no longer in any schedule, and maintain the database.

    SQLite's file is checked and compacted; that takes seconds, in which it is locked.
    """
    yield from _delete(ledger.Firing.objects.filter(fired__lt=datetime.now(UTC).timestamp() - FIRING_DAYS * 86_400))
    with connection.cursor() as cursor:
        if connection.vendor == 'sqlite':
            cursor.execute('PRAGMA quick_check(1)')
            if (found := cursor.fetchone()[0]) != 'ok':
                logger.error('the ledger is damaged, restore it from a backup', found=found)
                return
            cursor.execute('VACUUM')
        else:
            tables = ', '.join(connection.ops.quote_name(model._meta.db_table)  # noqa: SLF001 - documented by Django
                               for model in apps.get_app_config('ledger').get_models())
            cursor.execute(f'ANALYZE {"TABLE " if connection.vendor == "mysql" else ""}{tables}')


#: What each task of the recorder's does.
WORK: Final[Mapping[str, Callable[[Settings], Iterator[int]]]] = {
    RETENTION: lambda settings: retention(settings.LEDGER_KEEP_DAYS, settings.LEDGER_KEEP_PARKED_DAYS,
                                            settings.LEDGER_KEEP_LINES_DAYS),
    HOUSEKEEPING: lambda settings: housekeeping(),  # noqa: ARG005
}


class Chores:
    """Runs due jobs, a step after each write of the recorder; of several recorders one runs them.

    Raises :class:`~ecommerce_worker.errors.Misconfigured` for an entry that is never due.
    """

    def __init__(self, settings: Settings, zone: tzinfo, *, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._clock = clock
        self._firings = LedgerFirings(AGAIN_SECONDS)
        self._name = f'recorder {socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}'
        self._timings = [(entry, _timing_of(entry, zone)) for entry in entries(settings) if entry.is_the_recorders]
        self._under_way: Iterator[None] = iter(())
        self._look_at = 0.0
        #: When what has failed is tried again.
        self._again: dict[str, float] = {}

    def step(self) -> None:
        """Run one step; an error is logged, and the job retried after five minutes."""
        try:
            next(self._under_way)
        except StopIteration:
            if (now := self._clock()) >= self._look_at:
                self._look_at = now + LOOK_SECONDS
                self._under_way = self._look()

    def _look(self) -> Iterator[None]:
        for entry, timing in self._timings:
            if self._clock() < self._again.get(entry.key, 0.0):
                continue
            pulse.own.beat(pulse.OUTSIDE_SECONDS)
            try:
                if firing := claimed(self._firings, entry, timing, self._name, self._clock()):
                    yield from self._do(entry, firing)
            except (Error, LedgerUnusable) as error:
                self._again[entry.key] = self._clock() + AGAIN_SECONDS
                logger.error('a job of the recorder failed and will be retried', entry=entry.name, error=said(error))

    def _do(self, entry: Entry, firing: Firing) -> Iterator[None]:
        gone = 0
        for count in WORK[entry.task](self._settings):
            gone += count
            # The claim lasts as long as the work.
            self._firings.claim(entry.key, firing.due, self._name, self._clock())
            yield
            pulse.own.beat(pulse.OUTSIDE_SECONDS)
        self._firings.fired(entry.key, firing.due, self._name, firing.missed)
        logger.info('a job of the recorder is done', entry=entry.name, rows=gone)


def _timing_of(entry: Entry, zone: tzinfo) -> Timing:
    try:
        return timing_of(entry, zone)
    except ValueError as error:
        raise Misconfigured([f'SCHEDULE[{entry.name}] has a crontab {entry.crontab!r} that cannot be read: {error}'
                             ]) from None


def _over(end: datetime) -> models.QuerySet[Any]:
    """The orders that ended before that time, without parked messages."""
    found: models.QuerySet[Any] = Order.objects.filter(state__in=(State.FULFILLED, State.DISCARDED), last_seen__lt=end)
    return found.exclude(pk__in=_undecided())


def _undecided() -> models.QuerySet[Any]:
    """The orders with parked messages."""
    # By their numbers, which are looked up once: joined, SQLite would look through all of them for each order.
    return ParkedMessage.objects.filter(settled='', order__isnull=False).values('order')


def _chunks(rows: models.QuerySet[Any]) -> Iterator[list[int]]:
    """The numbers of these rows, so many at a time, until there are none; each chunk is to be dealt with."""
    # Looked for once for many chunks.  In no order, for which a database would sort all there are; so it stops early.
    while numbers := sorted(rows.order_by().values_list('pk', flat=True)[:LOOKED_FOR]):
        for begin in range(0, len(numbers), CHUNK):
            yield numbers[begin:begin + CHUNK]


def _delete(rows: models.QuerySet[Any]) -> Iterator[int]:
    for chosen in _chunks(rows):
        # Only if they have still ended: another recorder may have had reports of them since.
        rows.filter(pk__in=chosen).delete()
        yield len(chosen)


def _erase(old: models.QuerySet[Any], reason: str, now: datetime) -> Iterator[int]:
    for chosen in _chunks(old):
        # Message before order, as whoever resends one locks them.
        with transaction.atomic():
            count = old.filter(pk__in=chosen).update(
                body=None, headers='', correlation_id='', settled='erased', settled_at=now)
            # If no message of it is left, the order says so.
            Order.objects.filter(state=State.PARKED, parked__in=chosen).exclude(pk__in=_undecided()).update(
                state=State.DISCARDED, reason=reason)
        yield count
