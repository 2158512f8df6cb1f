"""Queries of the ledger: orders, parked messages, and figures."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from django.db import connection
from django.db.models import Max, Q, QuerySet, Sum
from django.db.models.functions import Now, Upper

from ecommerce_worker.broker.notes import Notes, ParkingNote
from ecommerce_worker.enrolment import cover
from ecommerce_worker.enrolment.names import ENROLL_LINE, REVOKE_LINE
from ecommerce_worker.ledger import reports
from ecommerce_worker.ledger.models import Attempt, Audit, Order, ParkedMessage, State, Teller
from ecommerce_worker.telemetry.run import ENDS, RunReport, by_intake, standing

#: Maximum number of search results.
MOST: Final = 100

#: Seconds after its next try, or with a worker, after which an order without a report is overdue.
LATE_SECONDS: Final = 600
TRYING_SECONDS: Final = 3600

#: Days for which lost reports are shown.
LOST_DAYS: Final = 7


@dataclass(frozen=True)
class Entry:
    """The state of an order; for a line also what was bought, its order, and the masked address of the learner."""

    number: int
    key: str
    task: str
    site: str
    state: str
    reason: str
    status: int | None
    next_try: datetime | None
    attempts: int
    first_seen: datetime
    last_seen: datetime
    order_number: str = ''
    product: str = ''
    course: str = ''
    mode: str = ''
    mask: str = ''

    @classmethod
    def of(cls, order: Order) -> Entry:
        """Read it from a row of the ledger."""
        return cls(order.pk, order.key, order.task, order.site, str(order.state), order.reason, order.status,
                   order.next_try, order.attempts, order.first_seen, order.last_seen, order.order_number, order.product,
                   order.course, order.mode, order.mask)


@dataclass(frozen=True)
class Ended:
    """The outcome and reason of a run; ``order`` is the number of its order in the ledger."""

    order: int
    outcome: str
    reason: str


@dataclass(frozen=True)
class Decision:
    """A decision of a person, with its reason."""

    at: datetime
    who: str
    action: str
    reason: str
    message_id: str
    key: str

    def is_reported_by(self, report: RunReport) -> bool:
        """Whether the report is about this decision, too, as for a message in RabbitMQ."""
        return ((report.outcome, report.id) == (self.action, self.message_id)
                and abs(report.started_at - self.at) < timedelta(minutes=1))


@dataclass(frozen=True)
class Story:
    """Everything the ledger knows about an order, oldest first."""

    order: Entry
    tries: tuple[RunReport, ...]
    decisions: tuple[Decision, ...]
    #: What became of its lines, if it was parted into some.
    lines: tuple[Entry, ...] = ()

    @property
    def events(self) -> tuple[RunReport | Decision, ...]:
        """Runs and decisions together, oldest first; a decision that was also reported appears once."""
        told = [it for it in self.tries if not any(each.is_reported_by(it) for each in self.decisions)]
        return tuple(sorted((*self.decisions, *told),
                            key=lambda it: it.started_at if isinstance(it, RunReport) else it.at))


@dataclass(frozen=True, kw_only=True)
class InLedger(ParkingNote):
    """A parked message in the ledger; ``size`` is that of its body in bytes."""

    number: int
    size: int

    @classmethod
    def of(cls, parked: ParkedMessage) -> InLedger:
        """Read it from a row of the ledger."""
        return cls(number=parked.pk, size=parked.size, id=parked.message_id, task=parked.task, key=parked.key,
                   site=parked.site, reason=parked.reason, at=parked.parked_at.timestamp(),
                   content_type=parked.content_type,
                   notes=Notes(queue=parked.queue, attempt=parked.tries, history=tuple(json.loads(parked.history))))


def search(text: str, learners: Collection[str] = ()) -> list[Entry]:
    """The orders of that key, and the lines of one of that number; if there is none, those that have it in them, and
    those of a message of that id.

    With pseudonyms of a learner it is the lines that were bought for them, the latest first.
    """
    if learners:
        return [Entry.of(each) for each in
                Order.objects.filter(learner__in=learners).order_by('-first_seen', 'pk')[:MOST]]
    found = list(Order.objects.filter(about(text)).order_by('key', '-last_seen')[:MOST])
    if not found and text:
        found = list(Order.objects.filter(pk__in=Attempt.objects.filter(message_id=text).values('order')))
        found += containing(Order.objects.order_by('key'), text)[:MOST]
    return [Entry.of(order) for order in found]


def about(number: str) -> Q:
    """Filter for that key, or lines of the order with that number; see :func:`ecommerce_worker.words.is_about`."""
    return Q(key=number) | _lines_of(number)


def _lines_of(number: str) -> Q:
    """Filter for lines of that order; see :func:`ecommerce_worker.words.item_of`."""
    if connection.vendor == 'sqlite':
        # Its LIKE looks at each key, since it ignores case; keys are compared by their bytes, and "!" follows " ".
        return Q(key__gte=f'{number} ', key__lt=f'{number}!')
    return Q(key__startswith=f'{number} ')


@dataclass(frozen=True)
class Covering:
    """Which orders of the ledger still pay for a course of a learner, and whether the refund of this one is done: what
    it paid for was taken back, or covered.
    """

    covered_by: tuple[str, ...]
    taken_back: bool


def covering(order_number: str, course: str, learners: Collection[str], site: str) -> Covering:
    """Who pays for a learner's course, as far as the ledger reaches back: orders with a line neither refunded nor given
    up.

    ``learners`` are pseudonyms of the learner.  The order itself is among them if another line of it pays, such as that
    of a bundle.
    """
    found = (Order.objects.filter(learner__in=learners, course=course, site=site).exclude(state=State.DISCARDED)
             .exclude(task=REVOKE_LINE, reason__startswith=cover.STILL_PAID))
    lines = [(number, task == REVOKE_LINE or reason == cover.REFUNDED, mode, _line_of(key))
             for number, task, mode, key, reason in found.values_list('order_number', 'task', 'mode', 'key', 'reason')]
    # Who paid for less than what was refunded does not pay for it; before there is a refund, that is all of the order.
    ours = [(is_refund, mode) for number, is_refund, mode, _ in lines if number == order_number]
    given_back = {mode for is_refund, mode in ours if is_refund}
    modes = given_back or {mode for _, mode in ours}
    paid, refunded = defaultdict[str, set[str]](set), defaultdict[str, set[str]](set)
    for number, is_refund, mode, line in lines:
        if mode in modes or not modes:
            (refunded if is_refund else paid)[number].add(line)
    # A line may be called otherwise by its refund than it was when it was bought, but there are no more of them.
    covering = {number for number, bought in paid.items() if len(bought) > len(refunded[number])}
    if not given_back:
        covering.discard(order_number)
    # Another message of the same refund, just delivered again, makes the line be tried again.
    ended = Q(state=State.FULFILLED) | Q(facts__outcome__in=ENDS)
    done = found.filter(ended, task=REVOKE_LINE, order_number=order_number).values_list('key', flat=True)
    taken_back = bool(done) and len({_line_of(key) for key in done}) >= len(paid[order_number])
    return Covering(tuple(sorted(covering)), taken_back)


def bought(order_number: str, site: str) -> list[dict[str, str]]:
    """Which courses, in which modes, the products of an order were when it came; each once, by its lines."""
    lines = (Order.objects.filter(_lines_of(order_number), order_number=order_number, site=site, task=ENROLL_LINE)
             .exclude(product='').exclude(course='').order_by('key', 'pk').values_list('product', 'course', 'mode'))
    return [{'product': product, 'course': course, 'mode': mode} for product, course, mode in dict.fromkeys(lines)]


def _line_of(key: str) -> str:
    """The line of an order, of whose parts, one for each learner and course, this is the key of one."""
    line, _, part = key.rpartition('.')
    return line if part.isdigit() and line else key


def containing(found: QuerySet[Any], text: str) -> QuerySet[Any]:
    """Orders whose key contains the text, ignoring case, also on MariaDB, where keys are case-sensitive."""
    if connection.vendor == 'sqlite':
        # Its LIKE ignores case by itself, and UPPER takes three times as long.
        return found.filter(key__contains=text)
    having: QuerySet[Any] = found.alias(upper_key=Upper('key')).filter(upper_key__contains=text.upper())
    return having


def story(number: int) -> Story | None:
    """The story of the order with that number in the ledger."""
    order = Order.objects.filter(pk=number).first()
    if order is None:
        return None
    tries = Attempt.objects.filter(order=order).order_by('started', 'pk')
    # Without a key there is its own id.
    decisions = Audit.objects.filter(Q(key=order.key) | Q(message_id=order.key), task=order.task).order_by('at', 'pk')
    lines = Order.objects.filter(_lines_of(order.key), order_number=order.key, site=order.site)
    return Story(
        Entry.of(order),
        tuple(map(reports.read, tries)),
        tuple(Decision(each.at, each.who, each.action, each.reason, each.message_id, each.key)
              for each in decisions),
        tuple(map(Entry.of, lines.order_by('first_seen', 'pk')[:MOST])))


def last_accepted_by(intake: str) -> datetime | None:
    """When the intake last published a message, as far as the ledger reaches back."""
    by = by_intake(intake)
    found: datetime | None = Attempt.objects.filter(
        Q(reason=by) | Q(reason__startswith=f'{by}: '), outcome='accepted').aggregate(last=Max('started'))['last']
    return found


def last_ended(ids: Iterable[str]) -> dict[str, Ended]:
    """The outcome of the last run of each of these messages, for those that were run."""
    found = Attempt.objects.filter(message_id__in=list(ids)).exclude(outcome='accepted').values_list(
        'message_id', 'order', 'outcome', 'reason', 'attempt')
    ordered = sorted(found, key=lambda it: standing(it[2], it[4]))
    return {id_: Ended(order, outcome, reason) for id_, order, outcome, reason, _ in ordered}


@dataclass(frozen=True)
class Unknown:
    """Known gaps of the ledger: overdue orders and lost reports."""

    overdue: int
    lost: int


def unknown() -> Unknown:
    """The numbers; a lost report may belong to any order that its worker had at the time."""
    return Unknown(sum(overdue_by_state().values()), lost_reports())


def lost_reports() -> int:
    """The number of reports lost in the last :data:`LOST_DAYS` days."""
    lately = Teller.objects.filter(missing__gt=0, missed__gt=_ago(LOST_DAYS * 86_400))
    return int(lately.aggregate(lost=Sum('missing'))['lost'] or 0)


def overdue_by_state() -> dict[str, int]:
    """The number of overdue orders by state."""
    # Separately, so that each is answered by a covering index.
    return {state.value: Order.objects.filter(overdue).count() for state, overdue in _overdue().items()}


def are_overdue() -> Q:
    """Orders without a report when one was due: their reports are lost, or their messages."""
    waiting, trying = _overdue().values()
    return waiting | trying


def _overdue() -> dict[State, Q]:
    """The overdue orders of each state."""
    now = datetime.now(UTC)
    late, long = now - timedelta(seconds=LATE_SECONDS), now - timedelta(seconds=TRYING_SECONDS)
    # An earlier version did not store this time.
    return {
        State.WAITING: Q(state=State.WAITING, next_try__lt=late) & (Q(heard__lt=_ago(LATE_SECONDS)) | Q(heard=None)),
        State.TRYING: Q(state=State.TRYING) & (Q(heard__lt=_ago(TRYING_SECONDS)) | Q(heard=None, last_seen__lt=long))}


def _ago(seconds: float) -> datetime:
    """So long ago by the clock of the database, which also stamps reports."""
    # Asked for once: in a condition SQLite would compute it for each row.
    clock = Order.objects.order_by().values_list(Now(), flat=True)[:1]
    return next(iter(clock), datetime.now(UTC)) - timedelta(seconds=seconds)


def heard_lately(keys: Collection[str], task: str, seconds: float) -> set[int]:
    """Those of these orders with a report in the last so many seconds, by their numbers in the ledger."""
    found = Order.objects.filter(task=task, key__in=keys, heard__gt=_ago(seconds))
    return set(found.values_list('pk', flat=True))


def orders(*, state: str = '', older_than: float = 0, task: str = '', site: str | None = None,
           overdue: bool = False, limit: int = MOST) -> list[Entry]:
    """Orders in that state without a report for so many seconds, the oldest first.

    ``task`` may be the end of its name; ``overdue`` asks for those without a report when one was due.
    """
    found = Order.objects.order_by('last_seen')
    if overdue:
        found = found.filter(are_overdue())
    if state:
        found = found.filter(state=State(state))
    if older_than:
        found = found.filter(last_seen__lt=datetime.now(UTC) - timedelta(seconds=older_than))
    if task:
        found = found.filter(_of_task(task))
    if site is not None:
        found = found.filter(site=site)
    return [Entry.of(order) for order in found[:limit]]


def parked(*, key: str | None = None, task: str | None = None, ids: Iterable[str] = (),
           limit: int | None = None) -> list[InLedger]:
    """The parked messages with that key, task (or the end of its name), and ids (or their
    beginnings), the oldest first.
    """
    return [InLedger.of(each) for each in _parked(key, task, ids).defer('body', 'headers')[:limit]]


def parked_of(keys: Collection[str], task: str) -> list[InLedger]:
    """The parked messages with any of these keys and this task."""
    found = ParkedMessage.objects.filter(settled='', task=task, key__in=keys).order_by('parked_at', 'pk')
    return [InLedger.of(each) for each in found.defer('body', 'headers')]


def entries_of(keys: Collection[str], task: str) -> list[Entry]:
    """The entries with any of these keys and this task, of any site."""
    return [Entry.of(each) for each in Order.objects.filter(task=task, key__in=keys).order_by('last_seen')]


def count_parked(*, key: str | None = None, task: str | None = None, ids: Iterable[str] = ()) -> int:
    """The number of parked messages."""
    return int(_parked(key, task, ids).count())


def body_of(number: int) -> bytes | None:
    """The raw body of a parked message, which may contain personal data; None if it was settled."""
    found = ParkedMessage.objects.filter(pk=number).values_list('body', flat=True).first()
    return None if found is None else bytes(found)


def _parked(key: str | None, task: str | None, ids: Iterable[str]) -> QuerySet[Any]:
    found = ParkedMessage.objects.filter(settled='').order_by('parked_at', 'pk')
    if key is not None:
        found = found.filter(about(key))
    if task is not None:
        found = found.filter(_of_task(task))
    chosen = Q()
    for id_ in ids:
        chosen |= Q(message_id__startswith=id_)
    return found.filter(chosen)


def _of_task(task: str) -> Q:
    return Q(task=task) | Q(task__endswith=f'.{task}')
