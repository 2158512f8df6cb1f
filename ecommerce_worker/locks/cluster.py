"""The lock of an order across machines: one run at a time, if there is more than one machine.

A lock is a queue in RabbitMQ, named after the order, with a mark of the machine that declares it among its arguments:
RabbitMQ refuses a declaration with another mark, and that run comes back later.  The queue is deleted when the run
ends, or by RabbitMQ when its lease ends: a connection that is lost in the middle releases no lock.  It never holds a
message.

Workers know of each other by what each publishes now and then, and when it comes::

    comes ──► asks RabbitMQ; says so, and consumes once those who consume already ask it too
                │ for ALONE_SECONDS no worker of another machine was seen, and all consumers were seen
                ▼
              asks no more ──── a worker on another machine comes ────► asks again; when the last run that did not has
                                                                        ended, says so
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import re
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from amqp.exceptions import PreconditionFailed
from kombu import Exchange, Queue

from ecommerce_worker import logs
from ecommerce_worker.broker import topology
from ecommerce_worker.errors import Taken
from ecommerce_worker.locks.machine import Turns

if TYPE_CHECKING:
    from celery import Celery
    from kombu import Connection

logger = logs.of(__name__)

#: The queues that are locks, and the exchange through which workers discover each other.
TURN: Final = 'ecommerce.turn.{}'
MACHINES: Final = 'ecommerce.machines'

#: A turn is given up by hand until this many seconds before its lease ends; then RabbitMQ may have ended it already,
#: and it may be another's.
MARGIN_SECONDS: Final = 2.0

#: How RabbitMQ says that a turn has another lease, in milliseconds.
_OTHER_LEASE: Final = re.compile(r"'x-expires'.* current is (?:the value )?'(\d+)'")

#: How often RabbitMQ is asked, should a connection be lost meanwhile; asking twice gives the same answer.
TRIES: Final = 3

#: Seconds between two signs of life, and without one of another machine until a worker counts itself alone.
HERE_SECONDS: Final = 4.0
ALONE_SECONDS: Final = 13.0

#: Seconds to wait for existing consumers: to be discovered, and to lock through RabbitMQ, too.
HEAR_SECONDS: Final = 10.0
JOIN_SECONDS: Final = 120.0

#: Seconds between two tries to reach RabbitMQ, and between two looks at what it brings.
RETRY_SECONDS: Final = 2.0
LOOK_SECONDS: Final = 0.2


def machine() -> str:
    """Identifies this machine, as far as the locks of :mod:`.machine` reach: a network namespace and a user."""
    try:
        boot = Path('/proc/sys/kernel/random/boot_id').read_text()
        namespace = Path('/proc/self/ns/net').stat().st_ino
        return hashlib.sha256(f'{boot} {namespace} {os.geteuid()}'.encode()).hexdigest()[:16]
    except OSError:
        return uuid.uuid4().hex[:16]


class Leases:
    """Locks kept by RabbitMQ.

    ``mark`` is that of a machine on which runs exclude each other anyway: a worker that is started after one was
    killed there need not wait for the lease of that.  Without it, each turn has a mark of its own.
    """

    def __init__(self, app: Celery, mark: str = '') -> None:
        self._app = app
        self._mark = mark

    @contextmanager
    def turn(self, name: str, *, lease: float) -> Iterator[None]:
        """Hold the lock for ``lease`` seconds at most.

        Raises :class:`~ecommerce_worker.errors.Taken` if another run holds it, or if RabbitMQ cannot be asked.
        """
        queue = TURN.format(hashlib.blake2b(name.encode(errors='surrogatepass'), digest_size=12).hexdigest())
        until = time.monotonic() + lease - MARGIN_SECONDS
        try:
            try:
                self._declare(queue, int(lease * 1000))
            except PreconditionFailed as error:
                # A worker that was killed may have had other time-outs, and so another lease; the mark is the same.
                if not self._mark or not (other := _OTHER_LEASE.search(str(error))):
                    raise
                self._declare(queue, int(other[1]))
                until = min(until, time.monotonic() + int(other[1]) / 1000 - MARGIN_SECONDS)
        except PreconditionFailed:
            raise Taken('another run is working on this order') from None
        except Exception as error:  # noqa: BLE001 - whatever it is, the lock's holder is unknown
            logger.debug('the lock cannot be acquired', error=type(error).__name__)
            raise Taken('it is unknown whether another run is working on this order') from None
        try:
            yield
        finally:
            if time.monotonic() < until:
                # If it cannot be released, its lease ends soon.
                with suppress(Exception):
                    self._asked(lambda channel: channel.queue_delete(queue))

    def _declare(self, queue: str, milliseconds: int) -> None:
        arguments = {'x-queue-type': 'classic', 'x-expires': milliseconds,
                     # Only ever compared.
                     'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': self._mark or uuid.uuid4().hex}
        self._asked(lambda channel: channel.queue_declare(queue=queue, durable=True, auto_delete=False,
                                                          arguments=arguments))

    def _asked(self, act: Callable[[Any], Any]) -> None:
        with self._app.pool.acquire(block=True) as connection:
            for left in range(TRIES - 1, -1, -1):
                try:
                    connection.ensure_connection(max_retries=1, interval_start=0)
                    act(_channel(connection))
                except (OSError, *connection.connection_errors):
                    connection.collect()
                    if not left:
                        raise
                else:
                    return


def _channel(connection: Any) -> Any:
    """A channel for locks only: each refusal closes it, and it is reopened without confirmations."""
    found = getattr(connection, 'turns', None)
    if found is None or found.connection is not connection.connection or not found.is_open:
        connection.turns = found = connection.channel()
    return found


class Neighbours:
    """Whether workers of other machines consume what this one does.

    ``in_flight`` tells what runs at present, so that it can be waited for.
    """

    def __init__(self, app: Celery, queues: Callable[[], Collection[str]], in_flight: Callable[[], Collection[Any]], *,
                 machine: str = '', here_seconds: float = HERE_SECONDS, alone_seconds: float = ALONE_SECONDS) -> None:
        self._app = app
        self._queues = queues
        self._in_flight = in_flight
        self._machine = machine or globals()['machine']()
        self._name = uuid.uuid4().hex
        self._here_seconds = here_seconds
        self._alone_seconds = alone_seconds
        # One byte that children of a prefork pool see, too.
        self._shared = mmap.mmap(-1, 1)
        self._set(alone=False)
        #: Known workers: machine, queues, and when last seen.
        self._heard: dict[str, tuple[str, frozenset[str], float]] = {}
        #: Workers to acknowledge; and workers that have acknowledged us, and what they consume.
        self._to_note: list[str] = []
        self._noted: dict[str, frozenset[str]] = {}
        #: Runs that began when one was alone, and did not ask.
        self._without: list[Any] = []
        self._since = time.monotonic()
        self._next = 0.0
        self._joined = threading.Event()
        self._changed = threading.Condition()
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def alone(self) -> bool:
        """Whether no worker of another machine consumes, so that local locks are enough."""
        return self._shared[0] == 1

    def join(self, wait: Callable[[], bool], seconds: float = JOIN_SECONDS) -> None:
        """Announce this worker, and return once existing consumers have acknowledged it, or after so many seconds.

        ``wait`` is called repeatedly; when it returns False, there is nothing left to wait for.
        """
        if self._thread:
            return
        self._thread = threading.Thread(target=self._run, name='neighbours', daemon=True)
        self._thread.start()
        begun = time.monotonic()
        while not self._joined.wait(LOOK_SECONDS):
            if not wait() or time.monotonic() > begun + HEAR_SECONDS:
                return
        heard_by = time.monotonic() + HEAR_SECONDS
        with self._app.connection_for_write(heartbeat=0) as connection:
            while time.monotonic() < begun + seconds and wait():
                silent = self._silent(connection)
                if not silent:
                    return
                with self._changed:
                    if time.monotonic() > heard_by and self._heard.keys() <= self._noted.keys():
                        logger.warning('not all consumers acknowledged this worker; they may be older '
                                       'ones', silent=silent, heard=len(self._noted))
                        return
                    self._changed.wait(LOOK_SECONDS)
        logger.warning('other workers have runs that do not end; no longer waiting for them')

    def end(self) -> None:
        """Stop listening."""
        self._ending.set()

    # -- the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._ending.is_set():
            try:
                self._listen()
            except Exception as error:  # noqa: BLE001 - whatever it is, orders must not feel it
                logger.debug('other workers cannot be listened to', error=type(error).__name__)
            # A worker that receives nothing cannot know that it is alone.
            self._set(alone=False)
            self._since = time.monotonic()
            self._ending.wait(RETRY_SECONDS)

    def _listen(self) -> None:
        with self._app.connection_for_write(heartbeat=0) as connection:
            connection.ensure_connection(max_retries=1, interval_start=0)
            exchange = Exchange(MACHINES, 'fanout')
            queue = Queue(f'{MACHINES}.{self._name}', exchange, exclusive=True, auto_delete=True, durable=False)
            channel = connection.channel()
            self._since, self._next = time.monotonic(), 0.0
            with connection.Consumer([queue], channel=channel, no_ack=True, accept=['json'],
                                     on_message=lambda message: self._hear(message, say)):
                def say(kind: str, whom: str = '') -> None:
                    body = json.dumps({'kind': kind, 'machine': self._machine, 'worker': self._name, 'for': whom,
                                       'queues': sorted(self._queues())})
                    channel.basic_publish(channel.prepare_message(body.encode(), content_encoding='binary'),
                                          exchange=MACHINES, routing_key='')

                say('join')
                self._joined.set()
                while not self._ending.is_set():
                    with suppress(TimeoutError):
                        connection.drain_events(timeout=LOOK_SECONDS)
                    self._note(say)
                    if time.monotonic() >= self._next:
                        self._next = time.monotonic() + self._here_seconds
                        say('here')
                        self._count(connection)

    def _hear(self, message: Any, say: Callable[..., None]) -> None:
        try:
            said = json.loads(message.body)
            kind, worker, where = str(said['kind']), str(said['worker']), str(said['machine'])
            queues = frozenset(map(str, said['queues']))
        except (ValueError, LookupError, TypeError):
            return
        if worker == self._name:
            return
        with self._changed:
            self._heard[worker] = where, queues, time.monotonic()
            if kind == 'noted' and said.get('for') == self._name:
                self._noted[worker] = queues
            self._changed.notify_all()
        if where != self._machine:
            if self.alone:
                logger.info('workers on another machine consume too: orders are locked through RabbitMQ')
            self._set(alone=False)
        if kind == 'join':
            say('here')
            self._to_note.append(worker)

    def _note(self, say: Callable[..., None]) -> None:
        if not self._to_note:
            return
        if self._without:
            # Runs started without asking must end before another machine starts any.
            running = set(map(id, self._in_flight()))
            self._without = [each for each in self._without if id(each) in running]
        if not self._without:
            for worker in self._to_note:
                say('noted', worker)
            self._to_note.clear()

    def _count(self, connection: Connection) -> None:
        """Check whether this machine is alone."""
        now = time.monotonic()
        with self._changed:
            self._heard = {name: found for name, found in self._heard.items() if now - found[2] < self._alone_seconds}
            heard = list(self._heard.values())
        if now - self._since < self._alone_seconds or any(where != self._machine for where, _, _ in heard):
            return
        try:
            found = topology.depths(connection, self._queues(), strict=True)
        except topology.Unavailable:
            # Who consumed it until its node went down may have runs of its messages in hand.
            self._set(alone=False)
            return
        if any((depth.consumers or 0) > 1 + sum(depth.name in queues for _, queues, _ in heard) for depth in found):
            self._set(alone=False)
            return
        if not self.alone:
            logger.info('no other machine consumes: orders are locked on this machine only')
        self._set(alone=True)

    def _silent(self, connection: Connection) -> int:
        """The maximum number of consumers, of any queue of this worker, that have not acknowledged it.

        By queue: who consumes another one may have said so for those who have not yet.
        """
        try:
            found = topology.depths(connection, self._queues(), strict=True)
        except topology.Unavailable:
            return 1  # unknown; it is asked again
        except Exception:  # noqa: BLE001 - it is asked again
            connection.collect()
            return 1
        with self._changed:
            noted = list(self._noted.values())
        return max((max(0, (depth.consumers or 0) - sum(depth.name in queues for queues in noted))
                    for depth in found), default=0)

    def _set(self, *, alone: bool) -> None:
        was, self._shared[0] = self._shared[0], alone
        if was and not alone:
            self._without = list(self._in_flight())


class ClusterTurns:
    """Locks as configured by ``TURNS``: of this machine, and of all machines if there is more than one."""

    def __init__(self, machine: Turns, leases: Leases, needed: Callable[[], bool]) -> None:
        self._machine = machine
        self._leases = leases
        self._needed = needed

    @contextmanager
    def turn(self, name: str, *, lease: float, put_off: float = 0.0) -> Iterator[None]:
        """See :meth:`ecommerce_worker.locks.machine.Turns.turn`."""
        with self._machine.turn(name, lease=lease, put_off=put_off):
            if put_off > lease or not self._needed():
                yield
                return
            with self._leases.turn(name, lease=lease):
                yield
