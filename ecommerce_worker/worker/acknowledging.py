"""Acknowledging messages only once their report is confirmed for the ledger; no thread waits for that.

::

    run ends ──► told ──► it is acknowledged ──► its fact is safe ──► RabbitMQ is told
                                   │ not yet                               ▲
                                   ▼                                       │ confirmed, some milliseconds later
                           held, and the prefetch window is as much wider ─┘

If the worker is killed meanwhile, another one gets the message, asks the shop, and reports the result.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

from ecommerce_worker import runtime

if TYPE_CHECKING:
    from ecommerce_worker.worker.consumer import Consumer

#: How many messages are held at most, where the window can be made as much wider: RabbitMQ may take no facts for long,
#: being short of memory or disk, and orders must go on.
MOST_HELD: Final = 1000

#: Seconds after which the window is looked at that was made wider: RabbitMQ is not to be asked for each message.
NARROW_SECONDS: Final = 1.0


class Acknowledging:
    """The held messages of one consumer.

    ``room`` is how many may be held before the prefetch window is widened.
    """

    def __init__(self, consumer: Consumer, room: int) -> None:
        self._consumer = consumer
        self._room = room
        self._lock = threading.Lock()
        self._held = 0
        #: By how much the prefetch window must be wider.
        self.wider = 0

    def see_to(self, message: Any, id_: str) -> None:
        """Delay the acknowledgement of the message by Celery for as long as needed."""
        if self._consumer.hub:
            message.ack_log_error = lambda *_: self.acknowledge(message, id_)

    def acknowledge(self, message: Any, id_: str) -> None:
        """Acknowledge the message of that id once what was reported of it is safe; from any thread."""
        def at_last() -> None:
            self._hold(-1)
            self._consumer.settle(message, True)

        # A window that keeps its size has no more room than it began with.
        safety, most = runtime.current().safety, self._room if self._consumer.counts_by_queue else MOST_HELD
        if not safety:
            self._consumer.settle(message, True)
            return
        wanted = self._hold(1)
        if not safety.holds(id_, at_last, most):
            at_last()
        elif wanted > self.wider:
            self._consumer.call_soon(self._look)

    def flush(self) -> None:
        """Wait briefly for the reports of held messages: the connection is about to close."""
        if safety := runtime.current().safety:
            safety.flush()

    def _hold(self, more: int) -> int:
        """Count more held messages; returns by how much to widen the window."""
        with self._lock:
            self._held += more
            return self._wanted()

    def _wanted(self) -> int:
        """By how much to widen the window, in large steps: each is a request to RabbitMQ."""
        return self._held // self._room * self._room

    def _look(self) -> None:
        """Widen the window; on the event loop."""
        if self._wanted() > self.wider:
            if not self.wider:
                self._consumer.hub.call_later(NARROW_SECONDS, self._narrow)
            self._widen()

    def _narrow(self) -> None:
        if self._wanted():
            self._consumer.hub.call_later(NARROW_SECONDS, self._narrow)
        else:
            self._widen()

    def _widen(self) -> None:
        self.wider = self._wanted()
        self._consumer.widen()
