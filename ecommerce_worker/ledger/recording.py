"""Writing into the ledger: reports and parked messages, each counted once however often delivered."""

from __future__ import annotations

import json
import time
import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from django.db import DataError, connection, transaction
from django.db.models.functions import Now

from ecommerce_worker.broker.notes import ParkingNote
from ecommerce_worker.errors import Undecodable
from ecommerce_worker.ledger import gaps, headers, intakes, reports
from ecommerce_worker.ledger.incoming import Aside, Parcel
from ecommerce_worker.ledger.models import Attempt, Order, ParkedMessage, SetAside, State, Teller
from ecommerce_worker.telemetry.run import IN_LEDGER, SEAT, RunReport, one_line, standing
from ecommerce_worker.telemetry.tally import Tally

#: What an order is after each outcome.
STATES: Final[Mapping[str, State]] = {
    'accepted': State.TRYING, 'done': State.FULFILLED, 'skipped': State.FULFILLED, 'retrying': State.WAITING,
    'parked': State.PARKED, 'returned': State.TRYING, 'resent': State.TRYING, 'discarded': State.DISCARDED}


#: Bytes of the statement that writes a parked message, beside its body.
STATEMENT_BYTES: Final = 512 * 1024


@dataclass(frozen=True)
class Promise:
    """The identity of an order."""

    key: str
    task: str
    site: str

    @classmethod
    def of(cls, found: RunReport | ParkingNote) -> Promise:
        """The identity of a report; a message without a key is identified by its id."""
        return cls(found.key or found.id, found.task, found.site)

    @property
    def identity(self) -> uuid.UUID:
        """A UUID derived from it."""
        return uuid.uuid5(uuid.NAMESPACE_OID, json.dumps([self.key, self.task, self.site]))


def time_of(seconds: float) -> datetime:
    """The time of these epoch seconds."""
    return datetime.fromtimestamp(seconds, UTC)


def record(facts: Sequence[RunReport] = (), parcels: Sequence[Parcel] = (), aside: Sequence[Aside] = (),
           tallies: Sequence[Tally] = ()) -> None:
    """Write all of them or, if anything fails, nothing; idempotent.

    A parked message carries the report of its last run, which a worker that was killed then may not have published.

    Of two facts of one message the one that is later in its life has the say, whichever comes first; of two messages of
    one order, the one reported last. The clocks of workers are shown, but decide nothing.

    Raises Django's ``Error``; an ``IntegrityError`` if another recorder writes the same at this moment.  At most some
    900 of each: a database limits the values of a statement.
    """
    now = time.time()
    numbered = [(fact.teller, fact.number, fact.worker) for fact in facts if fact.teller and fact.number]
    with transaction.atomic():
        facts = [fact.in_time(now) for fact in
                _unknown([*facts, *(parcel.note.report for parcel in parcels if parcel.note.report)])]
        parcels = [parcel.in_time(now) for parcel in _unknown_parcels(parcels)]
        about: list[RunReport | ParkingNote] = [*facts, *(parcel.note for parcel in parcels)]
        orders = _orders(about)
        known = _standings(orders, about)
        for fact in facts:
            _apply(orders[Promise.of(fact).identity], fact, now, known)
        for parcel in parcels:
            _apply_parked(orders[Promise.of(parcel.note).identity], parcel.note, now, known)
        _save(orders)
        _count(numbered)
        Attempt.objects.bulk_create([reports.written(report, orders[Promise.of(report).identity]) for report in facts])
        # One by one: they may have megabytes, and MySQL limits a statement.
        ParkedMessage.objects.bulk_create(
            [_parked(parcel, orders[Promise.of(parcel.note).identity]) for parcel in parcels], batch_size=1)
        SetAside.objects.bulk_create(
            [SetAside(digest=each.digest, body=each.body, reason=each.reason, received=datetime.now(UTC))
             for each in aside], ignore_conflicts=True, batch_size=1)
        intakes.write(tallies, now)


#: How late in its life each message of an order is, as far as is known; see
#: :func:`ecommerce_worker.telemetry.run.standing`.  An order is known by its identity.
Standings = dict[tuple[uuid.UUID, str], tuple[bool, int, int]]

_NOTHING: Final = (False, -1, -1)


def _standings(orders: Mapping[uuid.UUID, Order], found: Sequence[RunReport | ParkingNote]) -> Standings:
    """The known progress of the messages of these reports."""
    known: Standings = {}
    parked: dict[tuple[uuid.UUID, str], int] = {}
    identities, ids = {order.pk: order.identity for order in orders.values() if order.pk}, {each.id for each in found}
    if not identities:
        return known
    tried = Attempt.objects.filter(message_id__in=ids).values_list('order', 'message_id', 'outcome', 'attempt')
    for order, id_, outcome, attempt in tried:
        if order in identities:
            message = identities[order], id_
            known[message] = max(known.get(message, _NOTHING), standing(outcome, attempt))
            if outcome == 'parked':
                parked[message] = max(parked.get(message, 0), attempt)
    for order, id_, tries in ParkedMessage.objects.filter(message_id__in=ids).values_list(
            'order', 'message_id', 'tries'):
        if order in identities:
            message = identities[order], id_
            kept = standing(IN_LEDGER, max(tries, parked.get(message, 0)))
            known[message] = max(known.get(message, _NOTHING), kept)
    return known


def _count(numbered: Sequence[tuple[str, int, str]]) -> None:
    """Note which reports arrived, by the numbers that their processes gave them."""
    came: dict[str, list[int]] = defaultdict(list)
    for name, number, _ in numbered:
        came[name].append(number)
    workers = {name: worker for name, _, worker in numbered}
    known = {teller.name: teller for teller in
             Teller.objects.select_for_update().filter(name__in=list(came)).order_by('pk')} if came else {}
    for name in sorted(came):
        teller = known.get(name) or Teller(name=name, worker=workers[name])
        before = teller.missing
        teller.highest, found = gaps.after(teller.highest, json.loads(teller.gaps), came[name])
        teller.gaps, teller.missing, teller.heard = json.dumps(found), gaps.count(found), Now()
        if teller.missing > before:
            teller.missed = Now()
        teller.save()


def _unknown(facts: Sequence[RunReport]) -> list[RunReport]:
    known = set(Attempt.objects.filter(fact__in=[uuid.UUID(fact.fact) for fact in facts])
                .values_list('fact', flat=True)) if facts else set()
    return list({fact.fact: fact for fact in facts if uuid.UUID(fact.fact) not in known}.values())


def _unknown_parcels(parcels: Sequence[Parcel]) -> list[Parcel]:
    known = set(ParkedMessage.objects.filter(identity__in=[parcel.identity for parcel in parcels])
                .values_list('identity', flat=True)) if parcels else set()
    return list({parcel.identity: parcel for parcel in parcels if parcel.identity not in known}.values())


def _orders(found: Iterable[RunReport | ParkingNote]) -> dict[uuid.UUID, Order]:
    """The orders of these reports, locked, created if missing."""
    promises = {promise.identity: (promise, each) for each in found for promise in (Promise.of(each),)}
    if not promises:
        return {}
    # Always in the same order, or two recorders could deadlock.
    known = Order.objects.select_for_update().filter(identity__in=list(promises)).order_by('pk')
    orders = {order.identity: order for order in known}
    return orders | {identity: _new(*promises[identity]) for identity in sorted(promises.keys() - orders.keys())}


def _save(orders: Mapping[uuid.UUID, Order]) -> None:
    """Write the orders, and give the new ones their numbers."""
    new = [order for order in orders.values() if order.pk is None]
    for order in orders.values():
        order.heard = Now()
    for order in orders.values():
        if order.pk:
            # One by one: `bulk_update` takes four times as long to write its statement.
            order.save(update_fields=(
                'state', 'reason', 'cause', 'status', 'next_try', 'attempts', 'first_seen', 'last_seen', 'heard',
                *SEAT))
    Order.objects.bulk_create(new)
    if not connection.features.can_return_rows_from_bulk_insert:  # MySQL
        numbers = dict(Order.objects.filter(identity__in=[order.identity for order in new])
                       .values_list('identity', 'pk'))
        for order in new:
            order.pk = numbers[order.identity]


def _new(promise: Promise, found: RunReport | ParkingNote) -> Order:
    begun = time_of(found.started if isinstance(found, RunReport) else found.at)
    return Order(identity=promise.identity, key=promise.key, task=promise.task, site=promise.site,
                 first_seen=begun, last_seen=begun)


def _last_seen(order: Order, now: float) -> datetime:
    """The time of the last report; a time that a wrong clock put into the future is dropped."""
    seen: datetime = order.last_seen
    return seen if seen <= time_of(now) else time_of(0)


def _apply(order: Order, fact: RunReport, now: float, known: Standings) -> None:
    """Apply the report to the order, unless something later is known of its message."""
    order.first_seen = min(order.first_seen, time_of(fact.started))
    if fact.order_number:  # what a person does with it does not say so again
        for name in SEAT:
            setattr(order, name, getattr(fact, name))
    if fact.attempt and fact.outcome in ('done', 'skipped', 'retrying', 'parked'):
        order.attempts += 1
    message = order.identity, fact.id
    if fact.standing < known.get(message, fact.standing):
        return
    known[message] = fact.standing
    order.last_seen = max(time_of(fact.ended), _last_seen(order, now))
    order.state, order.reason, order.status = STATES[fact.outcome], fact.reason, fact.status
    order.cause = fact.cause
    order.next_try = None if fact.next_try is None else time_of(fact.next_try)


def _apply_parked(order: Order, note: ParkingNote, now: float, known: Standings) -> None:
    """Mark the order as parked, whatever is known of its tries, unless it has ended."""
    message = order.identity, note.id
    before = known.get(message, _NOTHING)
    if before[0]:
        return
    known[message] = max(before, standing(IN_LEDGER, note.tries))
    order.last_seen = max(time_of(note.at), _last_seen(order, now))
    order.state, order.reason, order.next_try = State.PARKED, note.reason, None
    order.cause = note.report.cause if note.report else ''


def _parked(parcel: Parcel, order: Order) -> ParkedMessage:
    note, raw = parcel.note, parcel.raw
    return ParkedMessage(
        identity=parcel.identity, order=order, message_id=note.id, task=note.task, key=note.key, site=note.site,
        queue=note.queue, reason=note.reason, tries=note.tries, parked_at=time_of(note.at),
        history=json.dumps(note.history), body=raw.body, headers=headers.written(raw.headers),
        content_type=one_line(raw.content_type, 255),
        content_encoding=one_line(raw.content_encoding, 255),
        correlation_id=one_line(str(raw.properties.get('correlation_id') or ''), 255), size=len(raw.body))


def largest_body() -> int | None:
    """The largest body of a parked message that the database accepts, in bytes; None if there is no such limit."""
    if connection.vendor != 'mysql':
        return None
    with connection.cursor() as cursor:
        # A statement must fit into one packet, and as text each byte may take two.
        cursor.execute('SELECT @@max_allowed_packet')
        return max(0, int(cursor.fetchone()[0]) - STATEMENT_BYTES) // 2


def read_set_aside() -> int:
    """Record the reports set aside that can now be read or written; returns their number."""
    count = 0
    for kept in SetAside.objects.order_by('pk').iterator(100):
        try:
            fact = RunReport.read(bytes(kept.body))
        except Undecodable:
            continue
        try:
            with transaction.atomic():
                record([fact])
                kept.delete()
        except (DataError, ValueError, OverflowError):
            continue
        count += 1
    return count
