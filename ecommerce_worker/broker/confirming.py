"""One channel on which many threads publish, each of which waits for the confirmation of its own message.

::

    thread ──► waiting ──► the one thread: on its way, with all the others ──confirmed──► the thread goes on
                  ▲                              │           │ returned, refused
                  └──── the connection is lost ──┘           └──► NotPublished
                                         no confirm in time ──► NotPublished, and it may be there anyway

RabbitMQ writes to disk by batches: who waits for each message before publishing the next gets some hundred a second,
while many on their way at once get thousands.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from amqp import spec
from kombu import Connection

from ecommerce_worker import logs
from ecommerce_worker.broker import publishing, topology
from ecommerce_worker.broker.publishing import FULL, MISSING, Publication, Unfit
from ecommerce_worker.broker.transport import corked
from ecommerce_worker.errors import NotPublished
from ecommerce_worker.telemetry.run import Fact, RunReport

logger = logs.of(__name__)

#: Seconds in which a message is confirmed, or is taken not to be: senders wait for five in all.
PATIENCE: Final = 3.0

#: How many may wait or be on their way at once; beyond that it would take too long.
MOST: Final = 2000

#: Seconds between two tries to connect: at first, and at most.
SHORTEST, LONGEST = 0.2, 2.0

#: Seconds between two looks at heartbeats, and at what is late.
LOOK_SECONDS: Final = 1.0

#: Seconds between two looks for a queue that does not exist.
ABSENT_SECONDS: Final = 5.0

#: Seconds after which facts are tried again that could not be published: a recorder may have come.
FACTS_SECONDS: Final = 30.0


@dataclass(eq=False)
class _Sent:
    """A message of a thread that waits for ``done``, until it is ``gone``; ``trouble`` is why it is not published."""

    publication: Publication
    fact: RunReport | None
    done: threading.Event = field(default_factory=threading.Event)
    at: float = field(default_factory=time.monotonic)
    trouble: str = ''
    returned: bool = False
    gone: bool = False

    @property
    def id(self) -> str:
        """The id by which a broker names an unroutable message."""
        return str(self.publication.raw.properties.get('correlation_id') or '')


class Confirming:
    """Publishes for many threads by one connection, which ``connect`` makes, and a thread of its own.

    The report of a message is published once that is confirmed, without waiting. ``queues`` are its targets,
    to know which of them do not exist. ``published`` is called for each message, in the thread; see
    :meth:`~ecommerce_worker.telemetry.listening.Listener.published`.
    """

    def __init__(self, connect: Callable[[], Connection], queues: Iterable[str] = (),
                 published: Callable[[str, float | None], None] = lambda kind, seconds: None) -> None:  # noqa: ARG005
        self._connect = connect
        self._on_published = published
        self._queues = frozenset(queues)
        #: Those of the queues that do not exist, and when to look for them again.
        self.absent: frozenset[str] = frozenset()
        self._absent_at = 0.0
        self._lock = threading.Lock()
        self._waiting: deque[_Sent] = deque()
        self._to_tell: deque[Fact] = deque(maxlen=MOST)
        self._sent: dict[int, _Sent] = {}
        self._connection: Any = None
        self._channel: Any = None
        self._facts: Any = None
        #: When to try them again that could not be published.
        self._facts_at = 0.0
        self._tag = 0
        #: The queues that are late to confirm.
        self._late: frozenset[str] = frozenset()
        self._blocked = False
        self._away_since: float | None = time.monotonic()
        self._ending = threading.Event()
        self._bell, self._ear = socket.socketpair()
        self._bell.setblocking(False)
        self._ear.setblocking(False)
        self._rung = False
        self._thread = threading.Thread(target=self._run, name='confirming', daemon=True)

    def start(self) -> None:
        """Connect, and reconnect when needed."""
        self._thread.start()

    def end(self) -> None:
        """Close the connection."""
        self._ending.set()
        self._ring()
        self._thread.join(PATIENCE)

    @property
    def trouble(self) -> str:
        """Why nothing can be published at present; '' if it can."""
        if self._blocked:
            return 'the broker accepts no messages at present (memory or disk alarm)'
        away = self._away_since
        return 'the broker is unreachable' if away is not None and time.monotonic() - away > PATIENCE else ''

    @property
    def ready(self) -> bool:
        """Whether the broker is connected and accepts messages."""
        return self._away_since is None and not self.trouble

    @property
    def hindrance(self) -> str:
        """Why nothing can be published to any of the queues at present; '' if something can."""
        if not self.ready:
            return self.trouble or 'the broker is not reachable yet'
        nowhere = self._queues and self._queues <= self.absent
        return 'none of its queues exists: is a worker running?' if nowhere else ''

    def publish(self, publication: Publication, fact: RunReport | None = None, seconds: float = PATIENCE) -> None:
        """Publish, and return when the broker has confirmed that the message is in a queue and on its disk.

        Raises :class:`~ecommerce_worker.errors.NotPublished` after so many seconds at most; at once while it is known
        that nothing can be published, or nothing to this queue.
        """
        if trouble := self.trouble:
            raise NotPublished(trouble)
        if publication.queue in self._late:
            # What is on its way to it shows when that is over.
            raise NotPublished('the queue did not confirm in time')
        sent = _Sent(publication, fact)
        with self._lock:
            if len(self._waiting) + len(self._sent) >= MOST:
                raise NotPublished('too many messages are waiting for the broker')
            self._waiting.append(sent)
        self._ring()
        if not sent.done.wait(seconds):
            sent.gone = True
            raise NotPublished('the broker did not confirm a message in time')
        if sent.trouble:
            raise NotPublished(sent.trouble)

    def tell(self, fact: Fact) -> None:
        """Publish a report later, without waiting: it is lost if it cannot be published."""
        self._to_tell.append(fact)
        self._ring()

    def _ring(self) -> None:
        if not self._rung:
            self._rung = True
            with contextlib.suppress(OSError):  # full, or closed
                self._bell.send(b'.')

    # -- the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        pause = SHORTEST
        while not self._ending.is_set():
            try:
                self._open()
                pause = SHORTEST
                self._serve()
            except Exception as error:  # noqa: BLE001 - whatever it is, it is tried again
                self._lost(error)
            if self._ending.wait(pause):
                break
            pause = min(LONGEST, pause * 2)
        self._close()
        self._bell.close()
        self._ear.close()

    def _open(self) -> None:
        self._connection = self._connect()
        # Each node once; for how long is said by the connection.
        self._connection.ensure_connection(max_retries=max(1, len(self._connection.alt) - 1), interval_start=0)
        if not topology.is_rabbitmq(self._connection):
            raise NotPublished('only RabbitMQ confirms messages')
        connection = self._connection.connection
        connection.on_blocked = partial(self._on_blocked, True)
        connection.on_unblocked = partial(self._on_blocked, False)
        self._channel, self._tag, self._facts = self._connection.channel(), 0, None
        self._channel.confirm_select()
        self._channel.events['basic_ack'].add(partial(self._on_confirm, True))
        self._channel.events['basic_nack'].add(partial(self._on_confirm, False))
        self._channel.events['basic_return'].add(self._on_return)
        self._facts = self._open_facts()
        self._look_for_queues()
        if self._away_since is not None and time.monotonic() - self._away_since > PATIENCE:
            logger.info('the broker accepts messages again')
        self._away_since = None

    def _open_facts(self) -> Any:
        channel = self._connection.channel()
        # Without a ledger the exchange may not exist, or there may be no permission to write to it.
        channel._callbacks[spec.Channel.Close] = partial(self._on_facts_closed, channel)  # noqa: SLF001
        return channel

    def _serve(self) -> None:
        connection = self._connection.connection
        poll = select.poll()
        poll.register(connection.sock, select.POLLIN)
        poll.register(self._ear, select.POLLIN)
        next_look = 0.0
        while not self._ending.is_set():
            self._send_all()
            poll.poll(LOOK_SECONDS * 1000)
            with contextlib.suppress(BlockingIOError):
                self._ear.recv(4096)
            # After that: who finds that it was rung is in time for what is sent next.
            self._rung = False
            connection.read_now()
            if (now := time.monotonic()) >= next_look:
                next_look = now + LOOK_SECONDS
                self._look(now)
        # Whoever still waits to publish would hear nothing of it any more.
        self._tell_all()

    def _look_for_queues(self) -> None:
        """Find out which of the queues exist, which needs no permission in RabbitMQ."""
        found = {depth.name for depth in topology.depths(self._connection, self._queues)}
        self._note_absent(self._queues - found)

    def _note_absent(self, absent: frozenset[str]) -> None:
        if absent - self.absent:
            logger.warning('the queues for deliveries do not exist: is a worker running?',
                           queues=','.join(sorted(absent)))
        self.absent, self._absent_at = absent, time.monotonic() + ABSENT_SECONDS

    def _look(self, now: float) -> None:
        self._late = self._not_in_time(now)
        if self.absent and now >= self._absent_at and not self._blocked:
            self._look_for_queues()
        if self._connection.connection.heartbeat:
            self._connection.heartbeat_check()
        if self._facts is None and now >= self._facts_at and not self._blocked:
            self._facts = self._open_facts()

    def _not_in_time(self, now: float) -> frozenset[str]:
        return frozenset(sent.publication.queue for sent in self._sent.values() if now - sent.at > PATIENCE)

    def _send_all(self) -> None:
        if not (self._waiting or self._to_tell):
            return
        with corked(self._channel):
            while self._waiting and not self._blocked:
                with self._lock:
                    sent = self._waiting.popleft()
                if not sent.gone:
                    self._send(sent)
            self._tell_all()

    def _tell_all(self) -> None:
        while self._to_tell and not self._blocked:
            self._report(self._to_tell.popleft())

    def _send(self, sent: _Sent) -> None:
        try:
            message = publishing.prepared(sent.publication, self._connection, self._channel, **{
                name: value for name, value in sent.publication.raw.properties.items() if value})
        except Unfit as error:
            sent.trouble = str(error)
            sent.done.set()
            return
        self._tag += 1
        sent.at, sent.returned, self._sent[self._tag] = time.monotonic(), False, sent
        exchange, routing_key = sent.publication.address(self._connection)
        publishing.send(self._channel, message, exchange, routing_key, mandatory=True)

    def _on_confirm(self, taken: bool, tag: int, multiple: bool) -> None:
        for sent in publishing.confirmed(self._sent, tag, multiple=multiple):
            if sent.returned:
                sent.trouble = MISSING
                self._note_absent(self.absent | (self._queues & {sent.publication.queue}))
            elif not taken:
                sent.trouble = FULL
            elif sent.fact:
                self._to_tell.append(sent.fact)
            sent.done.set()
            self._on_published(sent.publication.kind, None if sent.trouble else time.monotonic() - sent.at)
        if self._late:
            self._late = self._not_in_time(time.monotonic())

    def _report(self, fact: Fact) -> None:
        if self._facts is None:
            return
        publishing.send(self._facts, publishing.fact_message(self._facts, fact.as_body()), topology.FACTS,
                        fact.routing_key, mandatory=False)

    def _on_return(self, error: Exception, exchange: str, routing_key: str, message: Any) -> None:  # noqa: ARG002
        # What is not routed is confirmed as well, after this.
        for sent in self._sent.values():
            if sent.id == message.properties.get('correlation_id'):
                sent.returned = True

    def _on_facts_closed(self, channel: Any, reply_code: int, *_: Any) -> None:
        channel.send_method(spec.Channel.CloseOk)
        channel.collect()
        self._facts, self._facts_at = None, time.monotonic() + FACTS_SECONDS
        logger.warning('reports cannot be published: the ledger will miss accepted deliveries', status=reply_code)

    def _on_blocked(self, blocked: bool, *_: Any) -> None:
        # This is not the fault of the queues, which get as long again.
        now, self._late = time.monotonic(), frozenset()
        for sent in self._sent.values():
            sent.at = now
        self._blocked = blocked
        logger.warning('the broker accepts no messages at present' if blocked else 'the broker accepts messages again')

    def _lost(self, error: Exception) -> None:
        """Start again with another connection, on which waiting messages are published."""
        if self._away_since is None or isinstance(error, NotPublished):
            # Not its text: some quote what they were given.
            logger.warning('the connection to the broker is lost', error=type(error.__cause__ or error).__name__)
        for sent in self._sent.values():
            self._on_published(sent.publication.kind, None)
        with self._lock:
            self._waiting.extendleft(sent for _, sent in sorted(self._sent.items(), reverse=True) if not sent.gone)
            self._sent.clear()
        self._close()

    def _close(self) -> None:
        if self._away_since is None:
            self._away_since = time.monotonic()
        self._blocked, self._late = False, frozenset()
        connection, self._connection, self._channel, self._facts = self._connection, None, None, None
        if connection:
            connection.collect()
