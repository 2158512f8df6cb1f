"""Browsing a queue: its messages are borrowed from the broker and return to their places."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from kombu import Consumer, Queue

from ecommerce_worker.broker import topology

if TYPE_CHECKING:
    from kombu import Connection

#: Seconds without a message after which a queue may be empty, and how many such silences are borne with if it is not.
SILENCE_SECONDS, MOST_SILENCES = 1.0, 30


@contextmanager
def lent(connection: Connection, name: str) -> Iterator[Iterator[Any]]:
    """The messages in a queue now; all but acknowledged ones return to their places at the end, or if we die.

    Raises :class:`~ecommerce_worker.broker.topology.Unavailable`.

    They are consumed and the channel is closed: measured on RabbitMQ 3.10, a quorum queue then has them back in front
    and in their order, on which the time of those behind them depends.  Those that are rejected one by one go to its
    end, and those that were got one by one come back in any order.
    """
    channel, taken = connection.channel(), set[int]()
    try:
        yield _consumed(connection, channel, name, taken)
    finally:
        channel.close()
        _await_return(connection, name, len(taken))


def _await_return(connection: Connection, name: str, lent_out: int) -> None:
    """Return when so many messages are back, or after a short time: some may be due."""
    deadline = time.monotonic() + SILENCE_SECONDS
    while (found := topology.depth(connection, name)) and found.messages < lent_out and time.monotonic() < deadline:
        time.sleep(0.01)


def _consumed(connection: Connection, channel: Any, name: str, taken: set[int]) -> Iterator[Any]:
    def ready() -> int:
        return int(channel.queue_declare(queue=name, passive=True).message_count)

    def on_message(message: Any) -> None:
        taken.add(message.delivery_tag)
        come.append(message)

    missing, come = ready(), deque[Any]()
    if not missing:
        return
    consumer = Consumer(channel, [Queue(name)], on_message=on_message, auto_declare=False)
    consumer.qos(prefetch_count=missing if missing < 2 ** 16 else 0)
    consumer.consume()
    silences = 0
    while missing > 0:
        try:
            connection.drain_events(timeout=SILENCE_SECONDS)
        except TimeoutError:
            silences += 1
            # The time of some came first; twice, since what was handed out may be on its way.
            if silences > 1 and not ready():
                return
            if silences > MOST_SILENCES:
                raise topology.Unavailable(
                    f'the broker does not deliver the messages of {name}: check it') from None
            continue
        silences = 0
        while come:
            missing -= 1
            message = come.popleft()
            yield message
            if message.acknowledged:
                taken.discard(message.delivery_tag)
