"""Acknowledging what was run, but not before the ledger is sure to learn of it; no thread waits for that.

::

    run ends ──► told ──► Celery acknowledges ──► its fact is safe ──► acknowledged
                                   │ not yet                               ▲
                                   ▼                                       │ confirmed, some milliseconds later
                           held, and the prefetch window is as much wider ─┘

A worker that is killed meanwhile leaves the message to another one, which asks the shop, and tells how it stands.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ecommerce_worker import runtime
from ecommerce_worker.broker import topology

if TYPE_CHECKING:
    from celery.worker.consumer import Consumer

#: How many messages are held at most, where the window can be made as much wider: RabbitMQ may take no facts for long,
#: being short of memory or disk, and orders must go on.
MOST_HELD: Final = 1000

#: The version of RabbitMQ from which on each queue has a window of its own, which keeps the size that it began with.
SINCE: Final = (4, 0)

#: Seconds after which the window is looked at that was made wider: RabbitMQ is not to be asked for each message.
NARROW_SECONDS: Final = 1.0


class Acknowledging:
    """The messages of one consumer that are held, all on its event loop."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self._room = max(1, consumer.initial_prefetch_count // 2)
        # So much more may be in hand than can be run, which is room for what is held, wherever that has an end soon.
        consumer.initial_prefetch_count += self._room
        self._held = 0
        self._wider = 0
        if consumer.hub:
            consumer.hub.on_close.add(_flush)

    def see_to(self, message: Any, id_: str) -> None:
        """Have the message held, when Celery acknowledges it, for as long as is needed."""
        if self._consumer.hub:
            message.ack_log_error = partial(self._acknowledge, id_, message.ack_log_error)

    def _acknowledge(self, id_: str, acknowledge: Any, *args: Any) -> None:
        def at_last() -> None:
            self._held -= 1
            acknowledge(*args)

        safety, most = runtime.current().safety, MOST_HELD if self._grows() else self._room
        if safety and safety.holds(id_, partial(self._consumer.call_soon, at_last), most):
            self._held += 1
            self._widen()
        else:
            acknowledge(*args)

    def _grows(self) -> bool:
        """Whether the prefetch window can be made wider: it can where RabbitMQ counts for all queues together."""
        return self._consumer.qos_global is not False and topology.version(self._consumer.connection) < SINCE

    def _widen(self) -> None:
        """Have as much more in hand as is held, in large steps; the event loop tells RabbitMQ."""
        wanted = self._held // self._room * self._room
        if wanted > self._wider and self._grows():
            if not self._wider:
                self._consumer.hub.call_later(NARROW_SECONDS, self._narrow)
            self._set(wanted)

    def _narrow(self) -> None:
        if self._held >= self._room:
            self._consumer.hub.call_later(NARROW_SECONDS, self._narrow)
        else:
            self._set(0)

    def _set(self, wider: int) -> None:
        self._wider = wider
        if self._consumer.qos:
            self._consumer.qos.value = self._consumer.initial_prefetch_count + wider


def _flush(*_: Any) -> None:
    """The pool has ended, and the connection is about to: what is held waits for its facts a little longer."""
    if safety := runtime.current().safety:
        safety.flush()
