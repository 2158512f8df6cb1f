"""The lock of a job: one run at a time, one more may wait, any further run is not needed.

Among the threads of a process, and on RabbitMQ among all workers: an exclusive queue belongs to one connection, and is
gone with it, however that ends.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Self

from amqp.exceptions import AccessRefused, ResourceLocked

from ecommerce_worker import logs
from ecommerce_worker.broker import topology
from ecommerce_worker.errors import Held, Misconfigured, Skip

if TYPE_CHECKING:
    from celery import Celery

logger = logs.of(__name__)

#: Seconds for which one that waits for its turn keeps a thread: with a run, less than RabbitMQ bears (30 minutes).
LONGEST_WAIT: Final = 240.0

#: Seconds between two attempts to take the lock.
LOOK_SECONDS: Final = 0.5

#: Seconds without a sign of life after which a worker loses the lock.
HEARTBEAT: Final = 10

#: Seconds after which a run tries again that could not ask, or has waited long enough.
ASK_AGAIN: Final = 30.0

_taken: set[str] = set()
_lock = threading.Lock()


@contextmanager
def turn(app: Celery, job: str, not_after: float | None = None) -> Iterator[Callable[[], None]]:
    """Hold the lock of the job; yields a function to be called every few seconds meanwhile.

    ``not_after``, in epoch seconds, is when the run is not wanted any more; one without has all the time.  Raises
    :class:`~ecommerce_worker.errors.Skip` if the run is not needed, and :class:`~ecommerce_worker.errors.Held` if it
    is to come again later.
    """
    running, following = f'ecommerce.job.{job}', f'ecommerce.job.{job}.next'
    patience = time.monotonic() + LONGEST_WAIT
    with _Claims(app) as claims:
        if not claims.take(running):
            if not claims.take(following):
                raise Skip('already running, and another run is waiting')
            while not claims.take(running):
                if not_after is not None and time.time() > not_after:
                    raise Skip('the previous run was still running when this one was due')
                if time.monotonic() > patience:
                    raise Held('still running', retry_after=ASK_AGAIN)
                time.sleep(LOOK_SECONDS)
                claims.beat()
            claims.leave(following)
        yield claims.beat


class _Claims:
    """What one run has taken: names in this process, and exclusive queues on a connection of its own."""

    def __init__(self, app: Celery) -> None:
        self._mine: set[str] = set()
        self._lost = False
        connection = app.connection_for_write(heartbeat=HEARTBEAT)
        self._connection: Any = connection if topology.is_rabbitmq(connection) else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._connection:
            # Not closed gracefully, which could take long: RabbitMQ notices anyway.
            self._connection.collect(socket_timeout=0.1)
        with _lock:
            _taken.difference_update(self._mine)

    def take(self, name: str) -> bool:
        """Try to take the name; returns whether it was free.

        Raises :class:`~ecommerce_worker.errors.Held` if the broker cannot be asked.
        """
        with _lock:
            if name in _taken:
                return False
            _taken.add(name)
        self._mine.add(name)
        if self._declared(name):
            return True
        self._forget(name)
        return False

    def leave(self, name: str) -> None:
        """Release the name."""
        with self._asking() as channel:
            if channel:
                channel.queue_delete(name)
        self._forget(name)

    def beat(self) -> None:
        """Give a sign of life; a connection lost during the run is tolerated."""
        if self._connection is None or self._lost:
            return
        try:
            with contextlib.suppress(TimeoutError):
                self._connection.drain_events(timeout=0.01)
            self._connection.heartbeat_check(2)
        except (OSError, *self._connection.connection_errors) as error:
            self._lost = True
            logger.warning('lost the lock of a job, another worker may start it',
                           error=type(error).__name__)

    def _forget(self, name: str) -> None:
        self._mine.discard(name)
        with _lock:
            _taken.discard(name)

    def _declared(self, name: str) -> bool:
        with self._asking() as channel:
            if channel is None:
                return True
            try:
                channel.queue_declare(queue=name, exclusive=True, durable=False, auto_delete=False,
                                      arguments={'x-queue-type': 'classic'})
            except ResourceLocked:
                return False
            except AccessRefused:
                problem = f'the broker does not let the worker declare {name} (rabbitmqctl list_permissions)'
                raise Misconfigured([problem]) from None
        return True

    @contextmanager
    def _asking(self) -> Iterator[Any]:
        """A channel for one declaration; None if the broker has no exclusive queues."""
        if self._connection is None:
            yield None
            return
        try:
            channel = self._connection.channel()
            try:
                yield channel
            finally:
                with contextlib.suppress(*self._connection.channel_errors):
                    channel.close()
        except (OSError, *self._connection.connection_errors) as error:
            raise Held(f'the lock of the job cannot be acquired from the broker ({type(error).__name__})',
                       retry_after=ASK_AGAIN) from None
