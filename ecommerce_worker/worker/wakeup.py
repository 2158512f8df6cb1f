"""Waking jobs up before they are due, by messages in Redis channels from a shop that has work to do at once.

::

    shop ──► PUBLISH django-SHOP send_queued_mail ──► the one worker that leads ──► published as beat would ──► a worker
                                                            others stand by

Messages that come close together wake once, and once more at the end.  Redis keeps no messages for absent listeners:
whatever is lost while it is unreachable, the schedule goes on.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
import uuid
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, Final

from celery import bootsteps

from ecommerce_worker import logs, runtime
from ecommerce_worker.schedule.entries import Entry, entries, publish
from ecommerce_worker.settings import Settings, mask

if TYPE_CHECKING:
    from celery import Celery

logger = logs.of(__name__)

#: Seconds between two wake-ups of one job, at least.
GAP_SECONDS: Final = 2.0

#: Seconds for which a wake-up may wait for a worker; later, the schedule will do.
EXPIRES: Final = 30.0

#: The lease of the leader, in seconds, and how often it is renewed.
LEASE_SECONDS, RENEW_SECONDS = 10.0, 3.0

#: Seconds to wait for a message before looking at anything else.
LOOK_SECONDS: Final = 0.5

#: The timeout of Redis, and seconds between two tries to reach it: at first, and at most.
PATIENCE: Final = 5.0
SHORTEST, LONGEST = 1.0, 30.0

#: Seconds after which a connection without a message is asked whether it is there.
HEALTH_SECONDS: Final = 15


def wakes(settings: Settings) -> dict[str, list[tuple[str, Entry]]]:
    """By channel, the messages that wake, and the entry that each wakes; '' stands for any message."""
    known = {entry.name: entry for entry in entries(settings)}
    found: dict[str, list[tuple[str, Entry]]] = {}
    for name, wake in settings.WAKE_UP.items():
        if name in known:
            found.setdefault(wake.get('channel', ''), []).append((wake.get('message', ''), known[name]))
    return found


class Pending:
    """Entries woken and not fired yet: the first fires at once, close followers together after a gap."""

    def __init__(self, gap: float = GAP_SECONDS) -> None:
        self._gap = gap
        self._woken: dict[str, Entry] = {}
        self._rests: dict[str, float] = {}

    def wake(self, entry: Entry) -> None:
        """Note that the entry was woken."""
        self._woken[entry.name] = entry

    def take(self, now: float) -> list[Entry]:
        """The entries to fire now."""
        ready = [entry for name, entry in self._woken.items() if self._rests.get(name, now) <= now]
        for entry in ready:
            del self._woken[entry.name]
            self._rests[entry.name] = now + self._gap
        return ready

    def forget(self) -> None:
        """Forget all entries: another worker leads."""
        self._woken.clear()


class Listener:
    """A thread that listens to Redis and calls ``fire`` with each entry that is woken."""

    def __init__(self, url: str, channels: Mapping[str, Collection[tuple[str, Entry]]], fire: Callable[[Entry], None],
                 group: str = '') -> None:
        self._url = url
        self._channels = channels
        self._fire = fire
        # Workers of another broker that use this Redis lead for themselves.
        identity = repr((group, sorted(channels)))
        self._lease_name = f'ecommerce-worker:wake-up:{uuid.uuid5(uuid.NAMESPACE_OID, identity).hex[:12]}'
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        self._away: bool | None = None
        self._lease: Any = None
        self._leads = False
        self._renewal = 0.0

    def start(self) -> None:
        """Start listening."""
        self._thread = threading.Thread(target=self._run, name='wake-up', daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop listening."""
        self._ending.set()
        if self._thread:
            self._thread.join(LOOK_SECONDS + 2 * PATIENCE)

    def _run(self) -> None:
        delay = SHORTEST
        while not self._ending.is_set():
            try:
                self._listen()
            except Exception as error:  # noqa: BLE001 - whatever it is, the worker must not feel it
                if self._away is False:
                    delay = SHORTEST
                self._lost(error)
            # Jittered, since all workers lost it at the same moment.
            self._ending.wait(delay * random.uniform(0.5, 1))  # noqa: S311 - no secret
            delay = min(LONGEST, delay * 2)

    def _listen(self) -> None:
        # Imported here, since only a worker with WAKE_UP needs it.
        from redis import Redis
        from redis.backoff import NoBackoff
        from redis.exceptions import RedisError
        from redis.retry import Retry

        pending = Pending()
        self._leads, self._renewal = False, 0.0
        with (Redis.from_url(self._url, socket_timeout=PATIENCE, socket_connect_timeout=PATIENCE,
                             health_check_interval=HEALTH_SECONDS, retry=Retry(NoBackoff(), 0)) as redis,
              redis.pubsub(ignore_subscribe_messages=True) as messages):
            messages.subscribe(*self._channels)
            self._lease = redis.lock(self._lease_name, timeout=LEASE_SECONDS)
            self._lead()
            self._found()
            try:
                while not self._ending.is_set():
                    if message := messages.get_message(timeout=LOOK_SECONDS):
                        for entry in self._woken_by(message):
                            pending.wake(entry)
                    self._lead()
                    if not self._leads:
                        pending.forget()
                    for entry in pending.take(time.monotonic()):
                        self._fire(entry)
            finally:
                if self._leads:
                    # If the lease cannot be released, it ends soon.
                    with contextlib.suppress(RedisError, OSError):
                        self._lease.release()

    def _lead(self) -> None:
        """Become the one that acts, or go on being it."""
        from redis.exceptions import LockError

        if time.monotonic() < self._renewal:
            return
        self._renewal = time.monotonic() + RENEW_SECONDS
        if self._leads:
            try:
                self._lease.reacquire()
            except LockError:
                self._leads = False
        if not self._leads:
            self._leads = self._lease.acquire(blocking=False)

    def _woken_by(self, message: Mapping[str, Any]) -> list[Entry]:
        channel, data = _text(message.get('channel')), _text(message.get('data'))
        return [entry for wanted, entry in self._channels.get(channel, ()) if wanted in ('', data)]

    def _lost(self, error: Exception) -> None:
        if not self._away:
            self._away = True
            # Not its text, which may show the URL.
            logger.warning('Redis is unreachable: no job is woken up, the schedule continues',
                           error=type(error).__name__)

    def _found(self) -> None:
        if self._away is not False:
            channels = ','.join(self._channels)
            if self._away:
                logger.warning('jobs are woken up through Redis again', channels=channels)
            else:
                logger.info('jobs are woken up through Redis', channels=channels)
            self._away = False


def _text(value: Any) -> str:
    return value.decode(errors='replace') if isinstance(value, bytes) else str(value)


class WakeUp(bootsteps.StartStopStep):
    """The step of a worker that has a :class:`Listener` if ``WAKE_UP`` asks for one."""

    requires = ('celery.worker.components:Pool',)

    def include_if(self, worker: Any) -> bool:  # noqa: ARG002
        """Whether ``WAKE_UP`` is set."""
        settings = runtime.current().settings
        return bool(settings.WAKE_UP_URL and wakes(settings))

    def create(self, worker: Any) -> Listener:
        """The listener, which starts and stops with the worker."""
        settings = runtime.current().settings
        app: Celery = worker.app

        def fire(entry: Entry) -> None:
            try:
                publish(app, entry, id=str(uuid.uuid4()), not_after=time.time() + EXPIRES, origin='wake-up')
            except Exception as error:  # noqa: BLE001 - whatever it is, Redis has nothing to do with it
                logger.warning('a job was not woken up, the schedule continues', entry=entry.name,
                               error=type(error).__name__)
            else:
                logger.info('woken up', entry=entry.name, task=entry.task)

        return Listener(settings.WAKE_UP_URL, wakes(settings), fire, group=mask('BROKER_URL', settings.BROKER_URL))
