"""A message of our own through the waiting room, as each next try goes; it touches no other."""

from __future__ import annotations

import secrets
import time
import uuid
from typing import TYPE_CHECKING, Final

from kombu import Queue

from ecommerce_worker.broker import publishing, topology
from ecommerce_worker.broker.notes import Notes
from ecommerce_worker.broker.wire import Call
from ecommerce_worker.errors import WorkerError

if TYPE_CHECKING:
    from celery import Celery
    from kombu import Connection

#: What it calls itself, should anybody find it.
TASK: Final = 'ecommerce_worker.trial'

#: Seconds for which it waits there.
DELAY: Final = 1

#: Seconds after which it counts as lost.
PATIENCE: Final = 15.0


class NotDelivered(WorkerError):
    """The waiting room did not bring a message back: next tries do not come either."""


def through_the_room(app: Celery, connection: Connection) -> float:
    """The seconds that a message took that was to wait for :data:`DELAY`.

    By a queue that only this connection has, and that is gone with it.  Raises :class:`NotDelivered`, or
    :class:`~ecommerce_worker.errors.NotPublished`.
    """
    name = f'ecommerce.trial.{secrets.token_hex(6)}'
    with connection.channel() as channel:
        queue = Queue(name, exclusive=True, auto_delete=True, durable=False).bind(channel)
        queue.declare()
        queue.bind_to(topology.DELIVERY, routing_key=topology.delivery_key(name))
        began = time.monotonic()
        publishing.publish(app, publishing.waiting_call(Call(TASK, str(uuid.uuid4())), Notes(queue=name), DELAY))
        while time.monotonic() - began < PATIENCE:
            if queue.get(no_ack=True):
                return time.monotonic() - began
            time.sleep(0.05)
    raise NotDelivered(f'a message that was to wait for {DELAY} s has not come within {PATIENCE:g} s: next tries do '
                       f'not come either; if it comes yet, it is parked as {TASK}, and may be discarded')
