"""Parking a message that nobody ran, what a parked one says of itself, and how often it may be sent again."""

from __future__ import annotations

import time
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from celery import current_app

from ecommerce_worker import runtime
from ecommerce_worker.broker import publishing, topology
from ecommerce_worker.broker.notes import Notes, ParkingNote
from ecommerce_worker.broker.wire import Call, Raw, read, within_bytes
from ecommerce_worker.clients.ecommerce import ORDER_NUMBER
from ecommerce_worker.errors import Undecodable, WorkerError
from ecommerce_worker.execution.task import Task, site_code

if TYPE_CHECKING:
    from celery import Celery


def key_of(app: Celery, call: Call) -> str:
    """What people know the call by: as its task has it; for a task that is not there, an order number given by name."""
    task = app.tasks.get(call.task)
    if isinstance(task, Task):
        return task.key_of(call)
    given = call.kwargs.get('order_number', call.kwargs.get('order'))
    return given if isinstance(given, str) and ORDER_NUMBER.fullmatch(given) else ''


def site_of(app: Celery, call: Call) -> str:
    """The site that the call is for: as its task has it; for a task that is not there, a code given by name."""
    task = app.tasks.get(call.task)
    return task.site_of(call) if isinstance(task, Task) else site_code(call)


def stray(message: Any) -> str:
    """Why a message is among the parked ones that none of ours has put there."""
    if message.delivery_info.get('exchange') == topology.ROOM_END:
        return 'it waited for its next try, and the queue that it was to come back to does not exist'
    return 'put here by other hands'


def noted(app: Celery, call: Call | None, notes: Notes, reason: str, *, id: str = '') -> ParkingNote:  # noqa: A002
    """The note for a message that nobody ran: known by its task and its key if its call could be read, else by ``id``.

    Without that it gets one of its own.
    """
    note = ParkingNote(id=id or str(uuid.uuid4()), reason=reason, notes=notes)
    return note if call is None else replace(note, id=call.id, task=within_bytes(call.task, 255),
                                             key=key_of(app, call), site=site_of(app, call))


def call_of(raw: Raw) -> Call | None:
    """The call that a message makes; None if it cannot be read."""
    try:
        return read(raw)
    except Undecodable:
        return None


def note_of(message: Any) -> ParkingNote:
    """The note on a message of the parked queue; of one that somebody else put there, what its call says."""
    raw = Raw.of(message)
    note = ParkingNote.read(raw.headers)
    if note:
        return note
    made = noted(current_app, call_of(raw), Notes.of(raw.headers), stray(message), id=str(message.delivery_tag))
    return replace(made, at=0.0, content_type=raw.content_type if isinstance(raw.content_type, str) else '')


def park_one(app: Celery, message: Any, queue: str, reason: str) -> None:
    """Publish a message to the parked ones, known by its task and its key if it can be read; it is not acknowledged.

    Raises :class:`~ecommerce_worker.errors.NotPublished`.
    """
    raw = Raw.of(message)
    notes = Notes.of(raw.headers)
    notes = notes.having({'at': time.time(), 'reason': reason}, queue=notes.queue or queue)
    publishing.park(app, raw, noted(app, call_of(raw), notes, reason))


class TooOften(WorkerError):
    """It was sent again so often lately that its cause is still there: see to that first, or wait."""


def refuse_too_often(times: int) -> None:
    """Raise :class:`TooOften` if a message is not to be sent again that was so often within an hour.

    An order that the shop fails on each time may cost its customer a receipt each time, whoever sends it again.
    """
    most = runtime.current().settings.RESENDS_PER_HOUR
    if times >= most:
        raise TooOften(f'not sent, for it was sent {most} times within an hour, which is the most' if most else
                       'not sent, for RESENDS_PER_HOUR is 0')
