"""Send a message of our own through the waiting room, the way of every retry; no other message is touched."""

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

#: The task name of the message, in case it is found parked.
TASK: Final = 'ecommerce_worker.trial'

#: Seconds for which it waits there.
DELAY: Final = 1

#: Seconds after which it counts as lost.
PATIENCE: Final = 15.0


class NotDelivered(WorkerError):
    """A message did not leave the waiting room in time: retries are stuck too."""


def through_the_room(app: Celery, connection: Connection) -> float:
    """Send a message with a delay of :data:`DELAY` and return the seconds until it arrived.

    It goes to an exclusive queue, which is gone with the connection.  Raises :class:`NotDelivered`, or
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
    raise NotDelivered(f'a message with a delay of {DELAY} s has not left the waiting room within {PATIENCE:g} s, so '
                       f'retries do not leave it either; if it arrives later, it is parked as {TASK} and may be '
                       'discarded')
