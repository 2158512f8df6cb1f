"""Decisions of people about parked messages, each recorded with its author and reason."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from django.db import transaction
from django.db.models.functions import Now

from ecommerce_worker.broker.notes import ParkingNote
from ecommerce_worker.broker.wire import Raw
from ecommerce_worker.errors import WorkerError
from ecommerce_worker.execution.parking import refuse_too_often
from ecommerce_worker.intake import again
from ecommerce_worker.ledger import headers
from ecommerce_worker.ledger.models import Audit, Order, ParkedMessage, State

if TYPE_CHECKING:
    from celery import Celery


class AlreadySettled(WorkerError):
    """Somebody else has already decided: look at the message again."""


def resend(app: Celery, number: int, *, who: str, reason: str = '') -> str:
    """Send the parked message to the queue that it came from, and erase it here; returns the queue.

    A delivery is mapped again; see :mod:`ecommerce_worker.intake.again`.

    ``number`` is that of the ledger.  Raises :class:`AlreadySettled`, or
    :class:`~ecommerce_worker.execution.parking.TooOften`, :class:`~ecommerce_worker.broker.publishing.UnknownQueue` or
    :class:`~ecommerce_worker.errors.NotPublished`, after which it is parked as before.
    """
    with transaction.atomic():
        parked = _locked(number)
        # Serializes two people who decide at once.
        _ = Order.objects.select_for_update().filter(pk=parked.order_id).first()  # type: ignore[misc]  # maybe of none
        refuse_too_often(_times(parked.key, parked.task, parked.message_id))
        # Written before it is published: the run that follows may be over at once, and who records that waits for this.
        raw = raw_of(parked)
        # What a delivery leads to has an entry of its own: there is nothing more to come of this one.
        state = State.FULFILLED if again.is_delivery(raw.headers) else State.TRYING
        _settle(parked, datetime.now(UTC), 'resent', state, who, reason)
        return again.send(app, raw, ParkingNote.read(raw.headers) or ParkingNote(id=parked.message_id))


@contextmanager
def recorded(note: ParkingNote, action: str, *, who: str, reason: str) -> Iterator[None]:
    """Record what a person does in the block with a parked message not yet in the ledger, if it succeeds.

    Raises :class:`~ecommerce_worker.execution.parking.TooOften` if the limit of resends is reached.
    """
    with transaction.atomic():
        if action == 'resent':
            _ = list(Order.objects.select_for_update().filter(key=note.key or note.id, task=note.task, site=note.site))
            refuse_too_often(_times(note.key, note.task, note.id))
        write_down(who, action, reason, message_id=note.id, key=note.key, task=note.task)
        yield


def _times(key: str, task: str, message_id: str) -> int:
    """How often within an hour messages of that key or, without one, of that id were resent."""
    lately = Audit.objects.filter(key=key, task=task, action='resent', at__gte=datetime.now(UTC) - timedelta(hours=1))
    return int((lately if key else lately.filter(message_id=message_id)).count())


def discard(number: int, *, who: str, reason: str) -> None:
    """Discard the parked message permanently; raises :class:`AlreadySettled`."""
    with transaction.atomic():
        _settle(_locked(number), datetime.now(UTC), 'discarded', State.DISCARDED, who, reason)


def raw_of(parked: ParkedMessage) -> Raw:
    """The message as it was in the parked queue."""
    return Raw(bytes(parked.body or b''), parked.content_type or None, parked.content_encoding or None,
               headers.read(parked.headers), {'correlation_id': parked.correlation_id or None})


def raw_of_number(number: int) -> Raw:
    """The message of that number of the ledger; an empty one if it was settled."""
    parked = ParkedMessage.objects.filter(pk=number).first()
    return raw_of(parked) if parked and parked.headers else Raw(b'', None, None)


def no_longer_parked(number: int, settled: ParkedMessage | None = None) -> str:
    """The sentence for a message that somebody has settled meanwhile, or of which nothing is known any more."""
    how = f': it was {settled.settled} {settled.settled_at:%Y-%m-%d %H:%M} UTC' if settled else ''
    return f'message {number} is no longer parked{how}'


def _locked(number: int) -> ParkedMessage:
    parked: ParkedMessage | None = ParkedMessage.objects.select_for_update().filter(pk=number).first()
    if parked is None or parked.settled:
        raise AlreadySettled(no_longer_parked(number, parked))
    return parked


def _settle(parked: ParkedMessage, now: datetime, action: str, state: State, who: str, reason: str) -> None:
    ParkedMessage.objects.filter(pk=parked.pk).update(
        body=None, headers='', correlation_id='', settled=action, settled_at=now)
    # Discarding one message of an order does not undo that another fulfilled it.
    done = [State.FULFILLED] if state == State.DISCARDED else []
    Order.objects.filter(pk=parked.order_id).exclude(state__in=done).update(  # type: ignore[misc]  # as above
        state=state, reason=f'{action} by {who}'[:1000], next_try=None, last_seen=now, heard=Now())
    write_down(who, action, reason, message_id=parked.message_id, key=parked.key, task=parked.task, at=now)


def write_down(who: str, action: str, reason: str, *, message_id: str = '', key: str = '', task: str = '',
               at: datetime | None = None) -> None:
    """Write an entry of the audit log; ``action`` has up to 32 characters."""
    Audit.objects.create(at=at or datetime.now(UTC), who=who[:255], action=action, reason=reason[:1000],
                         message_id=message_id, key=key, task=task)
