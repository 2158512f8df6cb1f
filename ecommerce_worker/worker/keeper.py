"""Messages kept unacknowledged until what follows from them is published, without a thread of the pool.

::

    run ends ──► to be published ──► published, many at once ──confirmed──► the message is acknowledged
                      ▲                        │ refused, returned, connection lost
                      └── 1, 2, 4 … 30 s ──────┘
                                               │ in hand for so long that RabbitMQ would soon take it back
                                               ▼
                            published to its own queue, as new ──confirmed──► the message is acknowledged
                                               │ not for LAST_SECONDS
                                               ▼
                                           given back

What cannot be published now does not block what can: each way (an exchange or a queue) is retried by itself, one
message at a time until it accepts one again.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from amqp import spec

from ecommerce_worker import logs
from ecommerce_worker.broker import publishing, topology
from ecommerce_worker.broker.publishing import FULL, MISSING, Publication
from ecommerce_worker.broker.topology import PARKED
from ecommerce_worker.errors import NotPublished
from ecommerce_worker.operations import workers
from ecommerce_worker.telemetry.run import RunReport, new_id

if TYPE_CHECKING:
    from celery import Celery

    from ecommerce_worker.execution.delivery import Message

logger = logs.of(__name__)

#: How long a message is in hand, in seconds, its run included, before it is given back: less than the half hour after
#: which RabbitMQ, from the delivery on, takes back whatever is in hand (``consumer_timeout``), and the connection with
#: it.
KEEP_SECONDS: Final = 1200.0

#: Seconds of these, the last ones, in which it is published to its own queue instead: RabbitMQ from 4.0 on drops what
#: came back to a quorum queue some twenty times, and does not count what is published again.
LAST_SECONDS: Final = 60.0

#: Seconds after which one that is not published counts as one that cannot be, though it was not refused; and between
#: two counts of them.
LATE_SECONDS: Final = 5.0
COUNT_SECONDS: Final = 0.25

#: How many may be in flight on one way, not confirmed yet.
AT_ONCE: Final = 64

#: Seconds to wait for a confirm from a broker that is not blocking publishers.
CONFIRM_SECONDS: Final = 60.0

#: Seconds between two tries of a way that accepts nothing: at first, and at most.
SHORTEST, LONGEST = 1.0, 30.0

#: Seconds between two looks at what has come, while confirmations are waited for.
LOOK_SECONDS: Final = 0.02

NOT_FOUND: Final = 404

#: How many acknowledged messages are remembered, in case one is redelivered.
REMEMBERED: Final = 1000


@dataclass(eq=False)
class Kept:
    """A kept message: what must be published before it is acknowledged (``settle(True)``) or, if that takes
    too long, returned (``settle(False)``).
    """

    message: Message
    publications: tuple[Publication, ...]
    settle: Callable[[bool], None]
    report: RunReport | None = None
    #: Since when it is in hand, and since when it is to be published (monotonic seconds).
    since: float = field(default_factory=time.monotonic)
    at: float = field(default_factory=time.monotonic)
    rest: int = 0
    #: Whether it is to go to its own queue in place of where it should go; and whether it is in hand no more.
    last: bool = False
    gone: bool = False

    def join(self, settle: Callable[[bool], None]) -> None:
        """Settle another delivery together with this one; settling one of a lost connection is harmless."""
        before = self.settle

        def both(done: bool) -> None:
            before(done)
            settle(done)

        self.settle = both


@dataclass(eq=False)
class _Sent:
    """A publication on its way; ``id`` is what a broker that has no route for it names it by."""

    kept: Kept
    publication: Publication
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    at: float = field(default_factory=time.monotonic)
    returned: bool = False


class _Way:
    """A destination of publications: they are refused together."""

    def __init__(self, name: str, *, aside: bool = False) -> None:
        self.name = name
        #: Whether it is that of a single message that cannot go as the others do.
        self.aside = aside
        self.waiting: deque[tuple[Kept, Publication]] = deque()
        self.sent: dict[int, _Sent] = {}
        self.channel: Any = None
        self.tag = 0
        #: How many at once; one after a failure.
        self.width = AT_ONCE
        self.not_before = 0.0
        self.pause = SHORTEST
        self.trouble = ''


def _nobody(*_: Any) -> None:
    """The default for callbacks."""


class Keeper:
    """Publishes from a thread and a connection of its own, which the first message starts.

    ``kept`` is called from that thread with the number of messages that cannot be published, when that changes;
    ``given_back`` with what is reported of a message that is given back; ``published`` with the kind of each message
    that RabbitMQ has confirmed, and after how many seconds, or None if it did not.
    """

    def __init__(self, app: Celery, *, kept: Callable[[int], None] = _nobody,
                 given_back: Callable[[RunReport], None] = _nobody,
                 published: Callable[[str, float | None], None] = _nobody, keep_seconds: float = KEEP_SECONDS,
                 last_seconds: float = LAST_SECONDS) -> None:
        self._app = app
        self._on_kept = kept
        self._on_given_back = given_back
        self._on_published = published
        self._keep_seconds = keep_seconds
        self._last_seconds = last_seconds
        self._incoming: deque[Kept] = deque()
        #: All that is in hand, and of each message the latest: it may be there more than once.
        self._all: dict[Kept, None] = {}
        self._latest: dict[Message, Kept] = {}
        self._published: OrderedDict[Message, None] = OrderedDict()
        self._ways: dict[str, _Way] = {}
        self._connection: Any = None
        self._not_before = 0.0
        self._pause = SHORTEST
        self._blocked = False
        self._late: dict[str, int] = {}
        self._next_look = 0.0
        #: Whether a message is being settled, which is in hand no more.
        self._settling = False
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._empty = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None

    # -- for other threads --------------------------------------------------------------------------------------------

    def keep(self, kept: Kept) -> None:
        """Keep the message; it is settled from the keeper's thread."""
        kept.rest = len(kept.publications)
        with self._lock:
            self._all[kept], self._latest[kept.message] = None, kept
            self._incoming.append(kept)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name='keeper', daemon=True)
                self._thread.start()
        self._wake.set()

    def adopt(self, message: Message, settle: Callable[[bool], None]) -> bool:
        """Whether this redelivered message is already kept or was published; ``settle`` is for this one."""
        with self._lock:
            if message in self._published:
                published = True
            elif kept := self._latest.get(message):
                kept.join(settle)
                kept.since = time.monotonic()
                published = False
            else:
                return False
        if published:
            settle(True)
        return True

    def count(self) -> int:
        """How many messages are kept."""
        with self._lock:
            return len(self._all)

    def late(self) -> dict[str, int]:
        """The number of publications that cannot be published at present, by destination."""
        return dict(self._late)

    def end(self, seconds: float) -> bool:
        """Wait up to so many seconds until everything is settled; returns whether it is."""
        with self._empty:
            return self._empty.wait_for(lambda: not self._all and not self._settling, seconds)

    # -- the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            self._wake.wait(self._rest())
            self._wake.clear()
            try:
                self._round()
            except Exception as error:  # noqa: BLE001 - whatever it is, what is in hand must be published or given back
                self._lost(error)

    def _rest(self) -> float | None:
        """Seconds until there is something to do; None until another message comes."""
        if not self._all:
            return None
        if any(way.sent for way in self._ways.values()):
            return 0.0
        if self._blocked:
            # Only the broker can end that, and announces it on a connection that is read.
            return COUNT_SECONDS
        now = time.monotonic()
        due = [max(way.not_before, self._not_before) - now for way in self._ways.values() if way.waiting]
        return min(1.0, max(0.0, min(due, default=1.0)))

    def _round(self) -> None:
        while self._incoming:
            kept = self._incoming.popleft()
            for publication in kept.publications:
                self._way(publication).waiting.append((kept, publication))
        now = time.monotonic()
        if now >= self._not_before:
            for way in list(self._ways.values()):
                while way.waiting and len(way.sent) < way.width and now >= way.not_before and not self._blocked:
                    self._send(way, *way.waiting.popleft())
        if self._blocked or any(way.sent for way in self._ways.values()):
            self._drain()
        self._look(time.monotonic())

    def _way(self, publication: Publication) -> _Way:
        if publication.delay and topology.is_rabbitmq(self._broker()):
            name = topology.entrance(publication.delay)
        else:
            name = publication.queue
        return self._ways.setdefault(name, _Way(name))

    def _broker(self) -> Any:
        return self._connection or self._app.connection_for_write()

    def _send(self, way: _Way, kept: Kept, publication: Publication) -> None:
        if kept.gone:
            return
        sent = _Sent(kept, publication)
        if not topology.is_rabbitmq(self._broker()):
            self._send_slowly(way, sent)
            return
        try:
            channel = way.channel or self._open(way)
            message = publishing.prepared(publication, self._connection, channel, message_id=sent.id,
                                          correlation_id=publication.raw.properties.get('correlation_id'))
        except publishing.Unfit as error:
            # It would close the connection and fail the others: it is set aside.
            aside = way if way.aside else self._ways.setdefault(f'{way.name} {sent.id}', _Way(way.name, aside=True))
            aside.waiting.append((kept, publication))
            self._refused(aside, str(error))
            return
        except BaseException:
            way.waiting.appendleft((kept, publication))
            raise
        way.tag += 1
        way.sent[way.tag] = sent
        exchange, routing_key = publication.address(self._connection)
        publishing.send(channel, message, exchange, routing_key, mandatory=True)

    def _send_slowly(self, way: _Way, sent: _Sent) -> None:
        """Publish on a broker without confirms, one by one."""
        try:
            publishing.publish(self._app, sent.publication)
        except NotPublished as error:
            way.waiting.appendleft((sent.kept, sent.publication))
            self._on_published(sent.publication.kind, None)
            self._refused(way, str(error))
        else:
            self._confirmed(way, sent)

    def _open(self, way: _Way) -> Any:
        if self._connection is None:
            self._connect()
        # No answer is waited for: while RabbitMQ takes nothing, it reads a connection no more that published something,
        # and that it says so may be under way still.  It does what it reads in the order in which that was said.
        channel = self._connection.connection.Channel(self._connection.connection)
        channel.send_method(spec.Channel.Open, 's', ('',))
        channel.confirm_select(nowait=True)
        channel.events['basic_ack'].add(partial(self._on_confirm, way, True))
        channel.events['basic_nack'].add(partial(self._on_confirm, way, False))
        channel.events['basic_return'].add(partial(self._on_return, way))
        # py-amqp would open it again and raise, without a word on which one it was.
        channel._callbacks[spec.Channel.Close] = partial(self._on_close, way, channel)  # noqa: SLF001
        way.channel, way.tag = channel, 0
        return channel

    def _connect(self) -> None:
        # Without heartbeats, which would have to be sent while there is nothing to publish.
        connection = self._app.connection_for_write(heartbeat=0, transport_options={'confirm_publish': False})
        connection.ensure_connection(max_retries=1, interval_start=0, timeout=CONFIRM_SECONDS)
        connection.connection.on_blocked = partial(self._on_blocked, True)
        connection.connection.on_unblocked = partial(self._on_blocked, False)
        self._connection, self._blocked = connection, False

    def _drain(self) -> None:
        try:
            self._connection.drain_events(timeout=LOOK_SECONDS)
            for _ in range(AT_ONCE):
                self._connection.drain_events(timeout=0)
        except TimeoutError:
            pass

    def _on_blocked(self, blocked: bool, *_: Any) -> None:
        self._blocked = blocked
        if not blocked:
            # Only now is read what is on its way.
            for way in self._ways.values():
                for sent in way.sent.values():
                    sent.at = time.monotonic()

    def _on_confirm(self, way: _Way, taken: bool, tag: int, multiple: bool) -> None:
        for sent in publishing.confirmed(way.sent, tag, multiple=multiple):
            if taken and not sent.returned:
                self._confirmed(way, sent)
            else:
                way.waiting.append((sent.kept, sent.publication))
                self._on_published(sent.publication.kind, None)
                self._refused(way, MISSING if sent.returned else FULL)

    def _on_return(self, way: _Way, error: Exception, exchange: str, routing_key: str, message: Any) -> None:  # noqa: ARG002
        for sent in way.sent.values():
            if sent.id == message.properties.get('message_id'):
                sent.returned = True

    def _on_close(self, way: _Way, channel: Any, reply_code: int, *_: Any) -> None:
        channel.send_method(spec.Channel.CloseOk)
        if channel.is_closing:
            return  # both said so at once, and it is over when the broker has answered
        channel.collect()
        self._refused(way, MISSING if reply_code == NOT_FOUND else f'the broker refuses it ({reply_code})')

    def _confirmed(self, way: _Way, sent: _Sent) -> None:
        way.width = AT_ONCE if way.width == 1 else way.width
        way.pause, way.trouble, way.not_before = SHORTEST, '', 0.0
        self._pause = SHORTEST
        self._on_published(sent.publication.kind, time.monotonic() - sent.at)
        kept = sent.kept
        kept.rest -= 1
        if kept.rest or kept.gone:
            return
        with self._empty:
            self._forget(kept)
            self._published[kept.message] = None
            if len(self._published) > REMEMBERED:
                self._published.popitem(last=False)
            self._settling = True
        if kept.last:
            self._tell_given_back(kept)
        self._settle([kept], True)

    def _refused(self, way: _Way, why: str) -> None:
        """Pause a way for a while; its publications are retried, one at first."""
        if way.sent:
            # Their confirms would be taken for those of the next ones.
            self._close(way)
        self._take_back(way)
        if not way.trouble:
            logger.warning('messages cannot be published and are kept', to=way.name, reason=why)
        if why == MISSING:
            # Deleted, or RabbitMQ restarted without it.
            publishing.missed.set()
        now = time.monotonic()
        if way.not_before <= now:
            way.not_before, way.pause = now + way.pause, min(LONGEST, way.pause * 2)
        way.width, way.trouble = 1, why

    def _take_back(self, way: _Way) -> None:
        """Have what is on its way and not confirmed wait again."""
        for sent in reversed(way.sent.values()):
            self._on_published(sent.publication.kind, None)
            way.waiting.appendleft((sent.kept, sent.publication))
        way.sent.clear()

    def _close(self, way: _Way) -> None:
        channel, way.channel = way.channel, None
        if channel and channel.connection:
            # Closed without waiting, as it was opened; what arrives on it until the reply is ignored.
            channel.is_closing = True
            channel.send_method(spec.Channel.Close, 'BsBB', (0, '', 0, 0))

    def _lost(self, error: Exception) -> None:
        """Start over with another connection."""
        # Not its text: some quote their input.
        logger.warning('messages cannot be published and are kept', error=type(error.__cause__ or error).__name__)
        connection, self._connection = self._connection, None
        for way in self._ways.values():
            way.channel = None
            self._take_back(way)
            # The broker may have what was in flight: do not send all of it again each time.
            way.width = 1
        self._blocked = False
        self._not_before, self._pause = time.monotonic() + self._pause, min(LONGEST, self._pause * 2)
        if connection:
            connection.collect()

    def _look(self, now: float) -> None:
        """Return messages kept for too long, and report how many cannot be published."""
        if now < self._next_look:
            return
        self._next_look = now + COUNT_SECONDS
        oldest = min((sent.at for way in self._ways.values() for sent in way.sent.values()), default=now)
        if now - oldest > CONFIRM_SECONDS and not self._blocked:
            raise TimeoutError
        with self._lock:
            last = {kept for kept in self._all
                    if not kept.last and now - kept.since > self._keep_seconds - self._last_seconds}
            overdue = [kept for kept in self._all if now - kept.since > self._keep_seconds]
            refused = {id(kept) for way in self._ways.values() if way.trouble for kept, _ in way.waiting}
            late = [kept for kept in self._all if id(kept) in refused or now - kept.at > LATE_SECONDS]
            for kept in overdue:
                self._forget(kept)
            self._settling = bool(overdue)
        if last:
            self._send_as_new(last)
        for kept in overdue:
            self._tell_given_back(kept)
        self._settle(overdue, False)
        before, self._late = self._late, Counter(
            workers.PARKED if publication.queue == PARKED else workers.SENT_ON
            for kept in late for publication in kept.publications[-1:])
        for name in [name for name, way in self._ways.items() if way.aside and not way.waiting and not way.sent]:
            self._close(self._ways.pop(name))
        if sum(before.values()) != len(late):
            self._on_kept(len(late))

    def _forget(self, kept: Kept) -> None:
        """Forget the message, which is about to be settled."""
        kept.gone = True
        self._all.pop(kept, None)
        if self._latest.get(kept.message) is kept:
            del self._latest[kept.message]

    def _send_as_new(self, last: Collection[Kept]) -> None:
        """Have these go to their own queues, in place of where they should go; what is on its way may get there yet."""
        now = time.time()
        for way in list(self._ways.values()):
            for kept, publication in [pair for pair in way.waiting if pair[0] in last]:
                if new := publishing.as_new(publication, now):
                    way.waiting.remove((kept, publication))
                    kept.last = True
                    self._way(new).waiting.append((kept, new))

    def _tell_given_back(self, kept: Kept) -> None:
        if kept.report:
            self._on_given_back(replace(kept.report, outcome='returned', fact=new_id(), next_try=None,
                                        cause=NotPublished.cause,
                                        reason='returned to its queue: it could not be published'))

    def _settle(self, kept: Iterable[Kept], done: bool) -> None:
        """Settle messages no longer kept, whatever the callbacks raise."""
        for each in kept:
            try:
                each.settle(done)
            except Exception:
                logger.exception('a message could not be settled', id=each.message[0])
        with self._empty:
            self._settling = False
            self._empty.notify_all()
