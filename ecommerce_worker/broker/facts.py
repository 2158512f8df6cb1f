"""Telling the ledger: each outcome becomes a fact, published behind the back of the runs.

::

    run ends ──► deque, bounded ──► a thread of its own: batch ──► exchange ecommerce.facts, confirmed ──► next batch
                    │ full                                  ▲                     │ the broker is away
                    ▼                                       └─────── later ───────┘
              the oldest is dropped and counted

A run is never kept waiting, and none fails for it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from ecommerce_worker.broker import topology
from ecommerce_worker.telemetry.facts import CONTENT_TYPE, Fact
from ecommerce_worker.telemetry.run import Told

if TYPE_CHECKING:
    from celery import Celery

logger = logging.getLogger(__name__)

#: Facts that are kept while the broker is away: some 10 MB.
BOUND: Final = 20_000

#: Facts that are confirmed at once, at most.
BATCH: Final = 500

#: Seconds to let facts gather before they are published together, which costs less than one by one.
GATHER_SECONDS: Final = 0.5

#: Seconds to wait for the broker's confirmation.
CONFIRM_SECONDS: Final = 15.0

#: Seconds between two tries to reach a broker that is away: at first, and at most.
SHORTEST, LONGEST = 1.0, 30.0

#: Seconds for the last facts when the process ends.
FLUSH_SECONDS: Final = 5.0


class NotConfirmed(Exception):
    """The broker did not confirm a batch of facts."""


class Publisher:
    """A connection of its own for facts, opened when it is needed; for one thread."""

    def __init__(self, app: Celery, queue_type: str = 'classic') -> None:
        self._app = app
        self._queue_type = queue_type
        self._connection: Any = None
        self._channel: Any = None
        self._tag = 0
        self._unconfirmed: set[int] = set()

    def publish(self, facts: list[Fact]) -> None:
        """Publish and return when the broker has confirmed all of them.

        Raises whatever is wrong; what was told twice for that reason has the same id.
        """
        try:
            channel = self._channel or self._open()
            for fact in facts:
                message = channel.prepare_message(fact.as_body(), content_type=CONTENT_TYPE, content_encoding='utf-8',
                                                  properties={'delivery_mode': 2})
                channel.basic_publish(message, exchange=topology.FACTS, routing_key=fact.routing_key)
                self._tag += 1
                self._unconfirmed.add(self._tag)
            until = time.monotonic() + CONFIRM_SECONDS
            while self._unconfirmed:
                self._connection.drain_events(timeout=max(0.01, until - time.monotonic()))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give up the connection; the next publish opens another."""
        connection, self._connection, self._channel = self._connection, None, None
        if connection:
            connection.collect()

    def _open(self) -> Any:
        # Without heartbeats, which somebody would have to send while there is nothing to tell; and confirmed by
        # batch, not each one by itself.
        self._connection = self._app.connection_for_write(heartbeat=0, transport_options={'confirm_publish': False})
        self._connection.ensure_connection(max_retries=1, interval_start=0, timeout=CONFIRM_SECONDS)
        topology.require_facts(self._connection, self._queue_type)
        self._channel = self._connection.channel()
        self._tag, self._unconfirmed = 0, set()
        self._channel.confirm_select()
        self._channel.events['basic_ack'].add(self._on_ack)
        self._channel.events['basic_nack'].add(self._on_nack)
        return self._channel

    def _on_ack(self, tag: int, multiple: bool) -> None:
        if multiple:
            self._unconfirmed = {each for each in self._unconfirmed if each > tag}
        else:
            self._unconfirmed.discard(tag)

    def _on_nack(self, tag: int, multiple: bool) -> None:  # noqa: ARG002
        raise NotConfirmed('the broker refused a fact')


class Teller:
    """A listener that publishes what it is told from a thread of its own, which the first telling starts."""

    def __init__(self, app: Celery, *, bound: int = BOUND, queue_type: str = 'classic') -> None:
        self._app = app
        self._queue_type = queue_type
        self._bound = bound
        self.begin()

    def begin(self) -> None:
        """Begin anew, in a process that was forked: what the parent has to tell, the parent tells."""
        self._told: deque[Told] = deque(maxlen=self._bound)
        self._hand: list[Fact] = []
        self._dropped = 0
        self._away = False
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._wake = threading.Event()
        self._ending = threading.Event()

    def __call__(self, told: Told) -> None:
        """Take note of it; costs a few microseconds and never waits."""
        if len(self._told) == self._bound:
            self._dropped += 1
        self._told.append(told)
        if not self._wake.is_set():
            self._wake.set()
        if self._thread is None:
            self._start()

    def end(self, seconds: float = FLUSH_SECONDS) -> None:
        """Publish what is left, for so long at most."""
        self._ending.set()
        self._wake.set()
        if self._thread is None:
            return
        self._thread.join(seconds)
        if left := len(self._told) + len(self._hand):
            logger.warning('facts were not published before the end: dropped=%d', left + self._dropped)

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                # A daemon: a broker that is away must not keep the process from ending.
                self._thread = threading.Thread(target=self._run, name='facts', daemon=True)
                self._thread.start()

    def _run(self) -> None:
        publisher, delay = Publisher(self._app, self._queue_type), SHORTEST
        while True:
            self._wake.wait()
            self._wake.clear()
            self._ending.wait(GATHER_SECONDS)
            try:
                while self._hand or self._told:
                    self._publish(publisher)
            except Exception as error:  # noqa: BLE001 - whatever it is, the runs must not feel it
                self._lost(error)
                if self._ending.wait(delay):
                    return
                self._wake.set()
                delay = min(LONGEST, delay * 2)
                continue
            delay = SHORTEST
            if self._ending.is_set():
                publisher.close()
                return

    def _publish(self, publisher: Publisher) -> None:
        """Publish the oldest; what cannot be published stays in hand."""
        if not self._hand:
            told = (self._told.popleft() for _ in range(min(BATCH, len(self._told))))
            self._hand = [each.as_fact() for each in told]
        publisher.publish(self._hand)
        self._hand = []
        if self._away or self._dropped:
            logger.warning('facts are published again: dropped=%d', self._dropped)
            self._away, self._dropped = False, 0

    def _lost(self, error: Exception) -> None:
        if not self._away:
            self._away = True
            # Not its text: some quote what they were given.
            logger.warning('facts cannot be published, they are kept: most=%d error=%s', self._bound,
                           type(error.__cause__ or error).__name__)
