"""The figures of the front page, and lists a page at a time."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from django.db.models import Count, Q, QuerySet, Value
from django.db.models.fields import IntegerField

from ecommerce_worker.console.charts import Chart, chart
from ecommerce_worker.fulfillment.names import SHORT_NAME
from ecommerce_worker.intake.counts import NOBODY
from ecommerce_worker.ledger import words
from ecommerce_worker.ledger.intakes import Summary, summaries
from ecommerce_worker.ledger.models import Attempt, Order, ParkedMessage, State
from ecommerce_worker.ledger.queries import Entry, InLedger, are_overdue, containing
from ecommerce_worker.settings import Settings
from ecommerce_worker.words import printable

#: The states of what is not finished.
UNFULFILLED: Final = (State.TRYING, State.WAITING, State.PARKED)

#: Rows per page.
PAGE: Final = 50

#: Entries that are too many to be counted for each page, and the seconds for which their number is known.
MANY: Final = 100_000
KEPT_SECONDS: Final = 10.0


@dataclass(frozen=True)
class Figures:
    """The front page; ``reasons`` are tasks and reasons of parked messages, and how many there are of each.

    ``oldest`` is an order; ``orders``, ``enrolments``, ``mails``, ``jobs`` and ``tasks`` are how many there are in each
    state.
    """

    oldest: Entry | None
    orders: Mapping[str, int]
    enrolments: Mapping[str, int]
    mails: Mapping[str, int]
    jobs: Mapping[str, int]
    tasks: Mapping[str, int]
    parked: int
    reasons: tuple[tuple[str, str, int], ...]
    hour: Chart
    day: Chart


class _Counts:
    """The number of entries by state and task; if there are many, it is cached for some seconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[tuple[str, str], int] = {}
        self._until = -math.inf

    def look(self) -> Mapping[tuple[str, str], int]:
        """The numbers; concurrent callers wait while they are being counted."""
        with self._lock:
            if time.monotonic() >= self._until:
                found = Order.objects.order_by().values_list('state', 'task').annotate(count=Count('*'))
                self._found = {(state, task): count for state, task, count in found}
                self._until = time.monotonic() + (KEPT_SECONDS if sum(self._found.values()) >= MANY else 0.0)
            return self._found


_counts = _Counts()


def figures(now: datetime) -> Figures:
    """The numbers of the front page."""
    parked = ParkedMessage.objects.filter(settled='')
    reasons = parked.order_by().values_list('task', 'reason').annotate(count=Count('*')).order_by('-count')
    kinds: dict[str, dict[str, int]] = {kind: {} for kind in words.KINDS}
    for (state, task), count in _counts.look().items():
        states = kinds[words.kind_of(task)]
        states[state] = states.get(state, 0) + count
    return Figures(
        oldest=_oldest(),
        orders=kinds[words.ORDER], enrolments=kinds[words.ENROLMENT], mails=kinds[words.MAIL], jobs=kinds[words.JOB],
        tasks=kinds[words.TASK],
        parked=parked.count(), reasons=tuple(reasons[:8]),
        hour=_rates(now, timedelta(minutes=5), 12), day=_rates(now, timedelta(hours=1), 24))


def _oldest() -> Entry | None:
    """The order that has waited longest."""
    # One query per state, so that an index has the answer first.
    found = [order for state in UNFULFILLED if (order := Order.objects.filter(
        state=state, task__endswith=f'.{SHORT_NAME}').order_by('first_seen', 'pk').first())]
    return Entry.of(min(found, key=lambda it: (it.first_seen, it.pk))) if found else None


def _rates(now: datetime, step: timedelta, count: int) -> Chart:
    """Runs by outcome in each of so many spans of time, the last of which is still running."""
    seconds = step.total_seconds()
    end = datetime.fromtimestamp((now.timestamp() // seconds + 1) * seconds, UTC)
    begins = [end - step * number for number in range(count, 0, -1)]
    # One query with a range per span, so that the index alone answers it.
    first, *rest = [
        Attempt.objects.filter(started__gte=begin, started__lt=begin + step).order_by()
        .values_list('outcome').annotate(count=Count('*'), at=Value(number, IntegerField()))
        for number, begin in enumerate(begins)]
    counted: list[dict[str, int]] = [{} for _ in begins]
    for outcome, found, number in first.union(*rest, all=True):
        counted[number][outcome] = found
    return chart(list(zip(begins, counted, strict=True)))


#: Listed instead of a state: orders without a report when one was due.
OVERDUE: Final = 'overdue'


def orders(state: str, page: int) -> tuple[list[Entry], int]:
    """A page (the first is 1) of the entries in that state, or of all, and how many there are.

    Unfinished entries are sorted by their last report, the oldest first; finished ones the newest first.
    """
    found = Order.objects.all()
    if state:
        found = found.filter(are_overdue() if state == OVERDUE else Q(state=state))
    is_open = state == OVERDUE or state in UNFULFILLED
    by = ('last_seen', 'pk') if is_open else ('-last_seen', '-pk')
    begin = (page - 1) * PAGE
    # Rows are read of this page only: those of all pages before are skipped in the index.
    numbers = found.order_by(*by).values_list('pk', flat=True)[begin:begin + PAGE]
    rows = [Entry.of(each) for each in Order.objects.filter(pk__in=list(numbers)).order_by(*by)]
    if is_open:
        return rows, found.count()
    return rows, sum(count for (each, _), count in _counts.look().items() if state in ('', each))


def intakes(settings: Settings, now: datetime) -> tuple[int, list[Summary]]:
    """The number of deliveries to unknown intakes, and all intakes: those reported by a process within a
    day, and those of ``INTAKES`` of which none did.
    """
    found = {it.intake: it for it in summaries(now)}
    nobody = found.pop(NOBODY, Summary(NOBODY)).totals['refused']
    for name, given in settings.INTAKES.items():
        found.setdefault(name, Summary(name, kind=clean(str(given.get('kind', '')))))
    return nobody, [found[name] for name in sorted(found)]


@dataclass(frozen=True)
class Wanted:
    """A filter of parked messages; '' stands for all."""

    key: str = ''
    task: str = ''
    site: str = ''
    reason: str = ''

    @classmethod
    def of(cls, given: Mapping[str, str]) -> Wanted:
        """The filter in a form; the key may be part of a key."""
        return cls(*(clean(given.get(name, '')) for name in ('key', 'task', 'site', 'reason')))

    def among(self, found: QuerySet[Any]) -> QuerySet[Any]:
        """The messages that match."""
        if self.key:
            found = containing(found, self.key)
        for name in ('task', 'site', 'reason'):
            if value := getattr(self, name):
                found = found.filter(**{name: value})
        return found


def parked(wanted: Wanted, page: int) -> tuple[list[InLedger], int]:
    """A page (the first is 1) of the parked messages, the oldest first, and their number on all pages."""
    found = wanted.among(ParkedMessage.objects.filter(settled=''))
    begin = (page - 1) * PAGE
    shown = found.order_by('parked_at', 'pk').defer('body', 'headers')[begin:begin + PAGE]
    return [InLedger.of(each) for each in shown], found.count()


def parked_of(order: int) -> list[InLedger]:
    """The parked messages of an order, the oldest first."""
    found = ParkedMessage.objects.filter(order=order, settled='').order_by('parked_at', 'pk')
    return [InLedger.of(each) for each in found.defer('body', 'headers')]


def choices(name: str) -> list[str]:
    """The values of a column among parked messages, the most frequent first."""
    found = ParkedMessage.objects.filter(settled='').exclude(**{name: ''}).order_by()
    return list(found.values_list(name, flat=True).annotate(count=Count('*')).order_by('-count')[:100])


def one_parked(number: int) -> InLedger | None:
    """The parked message with that number; None if it is no longer parked."""
    found = ParkedMessage.objects.filter(pk=number, settled='').defer('body', 'headers').first()
    return InLedger.of(found) if found else None


def order_of(parked_number: int) -> int | None:
    """The number of the order that a message belongs to."""
    found: int | None = ParkedMessage.objects.filter(pk=parked_number).values_list('order', flat=True).first()
    return found


def clean(given: str) -> str:
    """What a person typed, without characters that a database column cannot hold."""
    return printable(given, '').strip()[:1000]
