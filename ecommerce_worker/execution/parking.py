"""Parking a message that nobody ran, and what a parked message says of itself."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from celery import current_app

from ecommerce_worker.broker import publishing, topology
from ecommerce_worker.broker.notes import Notes
from ecommerce_worker.broker.wire import Call, Raw, read
from ecommerce_worker.clients.ecommerce import ORDER_NUMBER
from ecommerce_worker.errors import Undecodable
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


def site_of_message(raw: Raw) -> str:
    """The site that the message is for; '' if it names none or cannot be read."""
    try:
        return site_of(current_app, read(raw))
    except Undecodable:
        return ''


def stray(message: Any) -> str:
    """Why a message is among the parked ones that none of ours has put there."""
    if message.delivery_info.get('exchange') == topology.ROOM_END:
        return 'it waited for its next try, and the queue that it was to come back to does not exist'
    return 'put here by other hands'


def park_one(app: Celery, message: Any, queue: str, reason: str) -> None:
    """Publish a message to the parked ones, known by its task and its key if it can be read; it is not acknowledged.

    Raises :class:`~ecommerce_worker.errors.NotPublished`.
    """
    raw = Raw.of(message)
    notes = Notes.of(raw.headers)
    notes = notes.having({'at': time.time(), 'reason': reason}, queue=notes.queue or queue)
    try:
        call = read(raw)
    except Undecodable:
        publishing.park(app, raw, notes, task='', id='', key='', reason=reason)
        return
    publishing.park(app, raw, notes, task=call.task, id=call.id, key=key_of(app, call), reason=reason)
