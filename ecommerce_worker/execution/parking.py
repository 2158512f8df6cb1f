"""Parking messages that were not run, the notes on parked messages, and the limit of resends."""

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
    """The key of the call as defined by its task; for an unknown task, an ``order_number`` given by name."""
    task = app.tasks.get(call.task)
    if isinstance(task, Task):
        return task.key_of(call)
    given = call.kwargs.get('order_number', call.kwargs.get('order'))
    return given if isinstance(given, str) and ORDER_NUMBER.fullmatch(given) else ''


def site_of(app: Celery, call: Call) -> str:
    """The site of the call as defined by its task; for an unknown task, a ``site_code`` given by name."""
    task = app.tasks.get(call.task)
    return task.site_of(call) if isinstance(task, Task) else site_code(call)


def stray(message: Any) -> str:
    """Why a message that this worker did not park is in the parked queue."""
    if message.delivery_info.get('exchange') == topology.ROOM_END:
        return 'it waited for its next try, and its queue no longer exists'
    return 'put here by another program or person'


def noted(app: Celery, call: Call | None, notes: Notes, reason: str, *, id: str = '') -> ParkingNote:  # noqa: A002
    """The note for a message without a run, with its task and key if its call could be read, else with ``id``.

    Without that it gets one of its own.
    """
    note = ParkingNote(id=id or str(uuid.uuid4()), reason=reason, notes=notes)
    return note if call is None else replace(note, id=call.id, task=within_bytes(call.task, 255),
                                             key=key_of(app, call), site=site_of(app, call))


def call_of(raw: Raw) -> Call | None:
    """The call in a message; None if it cannot be read."""
    try:
        return read(raw)
    except Undecodable:
        return None


def note_of(message: Any) -> ParkingNote:
    """The note on a parked message; if it has none, a note made from its call."""
    raw = Raw.of(message)
    note = ParkingNote.read(raw.headers)
    if note:
        return note
    made = noted(current_app, call_of(raw), Notes.of(raw.headers), stray(message), id=str(message.delivery_tag))
    return replace(made, at=0.0, content_type=raw.content_type if isinstance(raw.content_type, str) else '')


def park_one(app: Celery, message: Any, queue: str, reason: str) -> None:
    """Publish a message to the parked queue, with its task and key if it can be read; it is not acknowledged.

    Raises :class:`~ecommerce_worker.errors.NotPublished`.
    """
    raw = Raw.of(message)
    notes = Notes.of(raw.headers)
    notes = notes.having({'at': time.time(), 'reason': reason}, queue=notes.queue or queue)
    publishing.park(app, raw, noted(app, call_of(raw), notes, reason))


class TooOften(WorkerError):
    """It was resent so often lately that its cause must still be there: fix that first, or wait."""


def refuse_too_often(times: int) -> None:
    """Raise :class:`TooOften` if a message has reached the limit of resends within an hour.

    An order on which the shop fails each time may mail its customer a receipt each time, whoever resends it.
    """
    most = runtime.current().settings.RESENDS_PER_HOUR
    if times >= most:
        raise TooOften(f'not resent: already resent {most} times within an hour, the limit' if most else
                       'not resent: RESENDS_PER_HOUR is 0')
