"""Replies of a worker about itself over Celery's remote control."""

from __future__ import annotations

from typing import Any

from celery.worker import state
from celery.worker.control import inspect_command

from ecommerce_worker.execution.delivery import DELIVERY, Delivery
from ecommerce_worker.execution.parking import key_of, site_of
from ecommerce_worker.fulfillment.names import FULFILL
from ecommerce_worker.operations.workers import QUEUES, STANDING
from ecommerce_worker.resubmit.names import IN_HAND


@inspect_command(name=STANDING)
def standing(panel: Any) -> dict[str, Any]:
    """Reply with the queues that this worker consumes, and how many messages it cannot park or publish at present."""
    consumer = panel.consumer
    return {QUEUES: list(consumer.app.amqp.queues.consume_from), **consumer.keeper.late()}


@inspect_command(name=IN_HAND)
def orders_in_hand(panel: Any) -> list[tuple[str, str]]:
    """Reply with the orders that this worker holds: site and order number of each."""
    # First a list of references, which no other thread can interrupt.
    requests = [reference() for reference in list(state.reserved_requests.data)]
    deliveries = [request.message.headers.get(DELIVERY) for request in requests if request is not None]
    return [(site_of(panel.app, delivery.call), key_of(panel.app, delivery.call)) for delivery in deliveries
            if isinstance(delivery, Delivery) and delivery.call.task == FULFILL]
