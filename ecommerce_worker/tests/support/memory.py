"""What is in the queues of kombu's broker within the process."""

from __future__ import annotations

from typing import Any

from kombu import Queue


def taken(channel: Any, queue: str) -> Any:
    """The next message of a queue, None if there is none."""
    return Queue(queue).bind(channel).get(no_ack=True)
