"""Celery's part for RabbitMQ: our reader, and consumers that leave out unavailable queues."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from celery.app import amqp
from kombu import Queue

from ecommerce_worker.broker import topology
from ecommerce_worker.broker.transport import BrokerConnection

if TYPE_CHECKING:
    from celery import Celery
    from kombu import Consumer

#: Seconds to wait if there is nothing at all to consume.
PAUSE_SECONDS: Final = 2.0


class AMQP(amqp.AMQP):
    """Celery's part for RabbitMQ: our own reader, and consumers that leave out unavailable queues."""

    Connection = BrokerConnection

    def TaskConsumer(self, channel: Any, queues: Iterable[Queue] | None = None, **options: Any) -> Consumer:  # noqa: N802
        """A consumer of these queues, or of those that a worker consumes.

        Raises ``ConnectionError`` if none is available.
        """
        return super().TaskConsumer(channel, list(queues or consumable(self.app)), **options)


def consumable(app: Celery) -> list[Queue]:
    """The task queues of this worker, except those whose only node is down."""
    queues = list(app.amqp.queues.consume_from.values())
    with topology.asking(app) as connection:
        if not topology.is_rabbitmq(connection):
            return queues
        found = [queue for queue in queues
                 if topology.declare_task_queue(connection, queue) is not topology.Shape.UNAVAILABLE]
    if not found:
        time.sleep(PAUSE_SECONDS)
        raise ConnectionError('the nodes of all queues of this worker are down')
    return found
