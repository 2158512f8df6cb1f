"""Celery's request for a message, with a lane and a keeper."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from billiard.einfo import ExceptionWithTraceback
from celery._state import _task_stack
from celery.app.task import Context
from celery.exceptions import Ignore
from celery.worker import request
from celery.worker.state import task_ready

from ecommerce_worker import logs
from ecommerce_worker.execution.delivery import DELIVERY, Delivery
from ecommerce_worker.execution.outcomes import Handover

if TYPE_CHECKING:
    from ecommerce_worker.worker.consumer import Consumer


logger = logs.of(__name__)


def headers_of(delivery: Delivery, eta: str | None = None) -> dict[str, Any]:
    """The headers that Celery gets of a delivery.

    Only what it needs is handed on: an order does not expire, time limits and revocations are not the producer's,
    and arguments are never shown.
    """
    call = delivery.call
    return {'lang': 'py', 'task': call.task, 'id': call.id, 'root_id': call.root_id, 'parent_id': call.parent_id,
            'retries': call.retries, 'origin': call.origin, 'argsrepr': '', 'kwargsrepr': '', 'eta': eta,
            DELIVERY: delivery}


class Request(request.Request):
    """A request whose thread is free as soon as the run ends, however its message is settled."""

    #: Whether it is settled.
    acknowledged: bool

    #: Where it came from; None until it is offered a thread.
    consumer: Consumer | None = None

    #: When it was offered a thread (monotonic seconds).
    offered: float = 0.0

    #: The thread that runs it, and since when (monotonic seconds).
    thread: int | None = None
    began: float | None = None

    #: What gives :meth:`run` a thread; None where Celery does it.
    begin: Callable[[Callable[[], None]], None] | None = None

    @property
    def delivery(self) -> Delivery:
        """The delivery of the message."""
        found: Delivery = self.message.headers[DELIVERY]
        return found

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        """The run starts; in a thread pool this is its thread."""
        self.thread, self.began = threading.get_ident(), time.monotonic()
        super().on_accepted(pid, time_accepted)

    def run(self) -> None:
        """Run the task in this thread, and settle the message: what Celery's tracer does, as far as it concerns us."""
        self.on_accepted(os.getpid(), time.monotonic())
        task, handover = self.task, None
        _task_stack.push(task)
        # Headers of others were left behind at the door; Celery would look for some.
        task.request_stack.push(Context(self.request_dict, called_directly=False, headers={}))
        try:
            task(*self.args, **self.kwargs)
        except Handover as found:
            # Its frames hold on to all that was made in the run.
            handover = found.with_traceback(None)
        except Ignore:
            pass
        except BaseException as error:  # noqa: BLE001 - whatever it is, the message is given back
            logger.error('a run was interrupted, its message is returned to its queue', task=self.name, id=self.id,
                         error=type(error).__name__)
            self.settle(False)
            return
        finally:
            task.request_stack.pop()
            _task_stack.pop()
        if handover is None:
            task_ready(self, successful=True)
            self.acknowledge()
        else:
            self._left()
            assert self.consumer  # noqa: S101 - for the type checker: it was offered a thread by one
            self.consumer.hand_over(self, handover)

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:
        """The run ended with an exception."""
        error = exc_info.exception
        if isinstance(error, ExceptionWithTraceback):
            error = error.exc
        try:
            if isinstance(error, Handover) and self.consumer:
                # Before the keeper's thread can: whoever waits for its place is begun from here.
                self._left()
                self.consumer.hand_over(self, error)
            else:
                super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)
        finally:
            self._left()

    def acknowledge(self) -> None:
        """Say that it is settled."""
        super().acknowledge()
        self._left()

    def reject(self, requeue: bool = False) -> None:
        """Say that it is not."""
        super().reject(requeue)
        self._left()

    def settle(self, done: bool) -> None:
        """Acknowledge it, once what follows from it is published, or else requeue it."""
        if self.consumer and not self.acknowledged:
            self.acknowledged = True
            self.consumer.settle(self.message, done)
        self._left()
        task_ready(self)

    def _left(self) -> None:
        if self.consumer:
            self.consumer.lanes.left(self)
