"""Decisions of people about parked messages, each recorded with its author and reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from django.db import transaction
from django.db.models import Count, Q
from django.db.models.functions import Now

from ecommerce_worker.broker.notes import ParkingNote
from ecommerce_worker.broker.wire import Raw
from ecommerce_worker.errors import WorkerError
from ecommerce_worker.execution.parking import refuse_too_often
from ecommerce_worker.intake import again
from ecommerce_worker.ledger import headers
from ecommerce_worker.ledger.models import Audit, Order, ParkedMessage, State
from ecommerce_worker.ledger.queries import InLedger
from ecommerce_worker.ledger.recording import Promise


class AlreadySettled(WorkerError):
    """Another person has already decided: look at the message again."""


#: Sends messages; for each the queue that it went to, or why it was not sent.
Send = Callable[[Sequence[tuple[ParkingNote, Raw]]], Sequence[str | WorkerError]]


def resend(messages: Sequence[InLedger | tuple[ParkingNote, Raw]], send: Send, *, who: str,
           reason: str = '') -> list[str | WorkerError]:
    """Resend parked messages of the ledger or of RabbitMQ, each with an audit entry; the ledger erases its copies.

    For each message the queue that it went to, or why it is parked as before: what ``send`` says,
    :class:`AlreadySettled` or :class:`~ecommerce_worker.execution.parking.TooOften`.
    """
    now, notes = datetime.now(UTC), [it if isinstance(it, InLedger) else it[0] for it in messages]
    outcomes, sending = dict[int, str | WorkerError](), dict[int, tuple[ParkingNote, Raw]]()
    with transaction.atomic():
        rows = _locked([note.number for note in notes if isinstance(note, InLedger)])
        _lock_orders(notes, rows)
        times = _times(notes)
        for place, (note, it) in enumerate(zip(notes, messages, strict=True)):
            try:
                sending[place] = _kept(it, rows) if isinstance(it, InLedger) else it
                refuse_too_often(times[_counted_by(note)])
            except WorkerError as error:
                outcomes[place] = error
                sending.pop(place, None)
                continue
            times[_counted_by(note)] += 1
        # Written before it is published: what cannot be written is not sent.
        entries = {place: write_down(who, 'resent', reason, message_id=notes[place].id, key=notes[place].key,
                                     task=notes[place].task, at=now) for place in sending}
        outcomes.update(zip(sending, send([*sending.values()]), strict=True))
        for place, entry in entries.items():
            if isinstance(outcomes[place], WorkerError):
                entry.delete()
        for state in (State.TRYING, State.FULFILLED):
            # What a delivery leads to has an entry of its own: there is nothing more to come of this one.
            _settle([rows[note.number] for place, note in enumerate(notes)
                     if isinstance(note, InLedger) and not isinstance(outcomes[place], WorkerError)
                     and again.is_delivery(sending[place][1].headers) == (state == State.FULFILLED)],
                    now, 'resent', state, who)
    return [outcomes[place] for place in range(len(messages))]


def discard(number: int, *, who: str, reason: str) -> None:
    """Discard the parked message permanently; raises :class:`AlreadySettled`."""
    with transaction.atomic():
        parked, now = _still_parked(number, _locked([number])), datetime.now(UTC)
        _settle([parked], now, 'discarded', State.DISCARDED, who)
        write_down(who, 'discarded', reason, message_id=parked.message_id, key=parked.key, task=parked.task, at=now)


def raw_of(parked: ParkedMessage) -> Raw:
    """The message as it was in the parked queue."""
    return Raw(bytes(parked.body or b''), parked.content_type or None, parked.content_encoding or None,
               headers.read(parked.headers), {'correlation_id': parked.correlation_id or None})


def raw_of_number(number: int) -> Raw:
    """The message of that number of the ledger; an empty one if it was settled."""
    parked = ParkedMessage.objects.filter(pk=number).first()
    return raw_of(parked) if parked and parked.headers else Raw(b'', None, None)


def no_longer_parked(number: int, settled: ParkedMessage | None = None) -> str:
    """The sentence for a message that has been settled since, or is no longer known."""
    how = f': it was {settled.settled} {settled.settled_at:%Y-%m-%d %H:%M} UTC' if settled else ''
    return f'message {number} is no longer parked{how}'


def write_down(who: str, action: str, reason: str, *, message_id: str = '', key: str = '', task: str = '',
               at: datetime | None = None) -> Audit:
    """Write an entry of the audit log; ``action`` has up to 32 characters."""
    return Audit.objects.create(at=at or datetime.now(UTC), who=who[:255], action=action, reason=reason[:1000],
                                message_id=message_id, key=key, task=task)


def _locked(numbers: Collection[int]) -> dict[int, ParkedMessage]:
    """The parked messages with these numbers, locked: of two people who decide at once, one waits for the other."""
    # Always in the same order, or they could deadlock.
    found = ParkedMessage.objects.select_for_update().filter(pk__in=numbers).order_by('pk')
    return {parked.pk: parked for parked in found}


def _still_parked(number: int, rows: Mapping[int, ParkedMessage]) -> ParkedMessage:
    parked = rows.get(number)
    if parked is None or parked.settled:
        raise AlreadySettled(no_longer_parked(number, parked))
    return parked


def _kept(note: InLedger, rows: Mapping[int, ParkedMessage]) -> tuple[ParkingNote, Raw]:
    """A message of the ledger as it was in the parked queue, with the note on it."""
    raw = raw_of(_still_parked(note.number, rows))
    return ParkingNote.read(raw.headers) or ParkingNote(id=note.id), raw


def _lock_orders(notes: Iterable[ParkingNote], rows: Mapping[int, ParkedMessage]) -> None:
    """Lock the orders of these messages: the next runs may end at once, and the recorder has to wait."""
    numbers = _orders_of(rows.values())
    identities = [Promise.of(note).identity for note in notes if not isinstance(note, InLedger)]
    _ = list(Order.objects.select_for_update().filter(Q(pk__in=numbers) | Q(identity__in=identities)).order_by('pk')
             .values_list('pk'))


def _counted_by(note: ParkingNote) -> tuple[str, str, str]:
    """The identity by which the resends of an order are counted: its key or, without one, the id of the message."""
    return note.task, note.key, '' if note.key else note.id


def _times(notes: Iterable[ParkingNote]) -> Counter[tuple[str, str, str]]:
    """The number of resends of each within an hour."""
    lately = Audit.objects.filter(action='resent', at__gte=datetime.now(UTC) - timedelta(hours=1)).order_by()
    by_key = lately.filter(key__in={note.key for note in notes} - {''}).values_list('task', 'key')
    by_id = lately.filter(key='', message_id__in={note.id for note in notes if not note.key})
    return Counter({**{(task, key, ''): count for task, key, count in by_key.annotate(count=Count('pk'))},
                    **{(task, '', id_): count for task, id_, count in
                       by_id.values_list('task', 'message_id').annotate(count=Count('pk'))}})


def _settle(rows: Sequence[ParkedMessage], now: datetime, action: str, state: State, who: str) -> None:
    ParkedMessage.objects.filter(pk__in=[row.pk for row in rows]).update(
        body=None, headers='', correlation_id='', settled=action, settled_at=now)
    # Discarding one message of an order does not undo that another fulfilled it.
    done = [State.FULFILLED] if state == State.DISCARDED else []
    Order.objects.filter(pk__in=_orders_of(rows)).exclude(state__in=done).update(
        state=state, reason=f'{action} by {who}'[:1000], next_try=None, last_seen=now, heard=Now())


def _orders_of(rows: Iterable[ParkedMessage]) -> list[int]:
    return [row.order_id for row in rows if row.order_id is not None]
