"""The direct way from the consumer to a thread of the pool, without features of Celery that our messages never use.

::

    the door ──► Strategy.receive ──► Request ──► lanes ──► a thread: Request.run ──► settled
                      │ somebody listens to Celery (events, signals), a chain follows,
                      ▼ or the pool is another
               Celery's own strategy, request and tracer

Both ways run the same task, with the same ``task.request``, and end in the same acknowledgement.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from celery import signals
from celery.worker import state
from celery.worker.strategy import default

from ecommerce_worker.execution.delivery import Delivery
from ecommerce_worker.worker.request import Request, headers_of

if TYPE_CHECKING:
    from celery import Celery

    from ecommerce_worker.execution.task import Task
    from ecommerce_worker.worker.consumer import Consumer

#: What Celery lets others hear of a task; whoever does is served by Celery.
HEARD: Final = (signals.task_received, signals.task_prerun, signals.task_postrun, signals.task_success,
                signals.task_failure, signals.task_internal_error)


class Strategy:
    """The strategy that starts messages of one task; see ``Task.Strategy``."""

    def __init__(self, task: Task, app: Celery, consumer: Consumer) -> None:
        self._task = task
        self._app = app
        self._consumer = consumer
        self._celerys = default(task, app, consumer)

    def __call__(self, *args: Any) -> Any:
        """Celery's own way."""
        return self._celerys(*args)

    def receive(self, message: Any, delivery: Delivery) -> bool:
        """Start it; False if Celery must."""
        consumer, call = self._consumer, delivery.call
        eventer = consumer.event_dispatcher
        if (not hasattr(consumer.pool, 'put') or not consumer.hub or (eventer and eventer.enabled)
                or any(call.embed.values()) or any(signal.receivers for signal in HEARD)):
            return False
        message.headers = headers = headers_of(delivery)
        request = Request(
            message, on_ack=partial(_acknowledge, consumer, message, call.id),
            on_reject=partial(_return, consumer, message), app=self._app, hostname=consumer.hostname, eventer=None,
            task=self._task, connection_errors=consumer.connection_errors, body=(call.args, call.kwargs, call.embed),
            headers=headers, decoded=True)
        request.begin = consumer.pool.put
        state.task_reserved(request)
        consumer.on_task_request(request)
        return True


def _acknowledge(consumer: Consumer, message: Any, id_: str, *_: Any) -> None:
    consumer.acknowledging.acknowledge(message, id_)


def _return(consumer: Consumer, message: Any, *_: Any) -> None:
    consumer.settle(message, False)
