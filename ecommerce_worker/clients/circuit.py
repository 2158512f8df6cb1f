"""The circuit breaker: which calls may be made to a service that is down, and how many at once.

::

             PATIENCE failures in a row
    closed ──────────────────────────────► open ──── the time is over ────► half-open: one call
     ▲                                      ▲                                 │          │
     │ as many at once as there are         │ fails: left alone for longer    │          │ succeeds
     │ threads                              └─────────────────────────────────┘          ▼
     └─────────────────────────────────────────────────────────────────── half-open: 2, 3, 4 … at once

Closed lets calls pass, open is tripped, half-open lets a few calls probe the host.  A message whose call is held back
is not tried: it goes to the waiting room.  One serves all that call the same host in one process; pure but for its
clock.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from ecommerce_worker import logs
from ecommerce_worker.errors import Held, LocalFailure, Transient, Unreachable

logger = logs.of(__name__)

#: Calls in a row that must fail before a host counts as down; some fail at any time.
PATIENCE: Final = 5

#: Seconds that the circuit stays open before one call probes the host: at first, and at most.
SHORTEST, LONGEST = 2.0, 30.0

#: Seconds that a call waits that exceeds the limit while half-open.
TURN: Final = 2.0


#: The states.
CLOSED, OPEN, HALF_OPEN = 'closed', 'open', 'half-open'


def _unheard(host: str, state: str, reason: str) -> None:
    """The default listener, which does nothing."""


def _uncalled(host: str, method: str, status: int | None, seconds: float) -> None:
    """The same."""


def _unfetched(host: str, cause: str) -> None:
    """The same."""


def counts(error: BaseException) -> bool:
    """Whether the error means that the host is down."""
    return isinstance(error, Unreachable) or (isinstance(error, Transient) and error.status in {502, 503, 504})


class CircuitBreaker:
    """The circuit breaker of one host, for any number of threads.

    ``changed`` is called with the host, the new state and what the host failed with last, while no lock is held;
    ``called`` with the host and the arguments of :meth:`answered`, ``fetched`` with those of :meth:`fetched`.
    """

    def __init__(self, host: str, threads: int = 1, *, clock: Callable[[], float] = time.monotonic,
                 jitter: Callable[[], float] = random.random,
                 changed: Callable[[str, str, str], None] = _unheard,
                 called: Callable[[str, str, int | None, float], None] = _uncalled,
                 fetched: Callable[[str, str], None] = _unfetched) -> None:
        self._host = host
        self._threads = threads
        self._clock = clock
        self._jitter = jitter
        self._lock = threading.Lock()
        self._failures = 0
        self._calls = 0
        self._changed = changed
        self._called = called
        self._fetched = fetched
        self._state = CLOSED
        #: Changes that are to be said.
        self._changes: deque[tuple[str, str]] = deque()
        self._saying = threading.Lock()
        #: Calls allowed at once; None while it is closed.
        self._room: int | None = None
        self._until = 0.0
        self._length = SHORTEST
        self._cause = ''

    @property
    def rest(self) -> float:
        """Seconds until the next probe of the host; 0 or less if calls are allowed."""
        return 0.0 if self._room is None else self._until - self._clock()

    @contextmanager
    def call(self) -> Iterator[None]:
        """Guard one call; raises :class:`~ecommerce_worker.errors.Held` while the circuit is open."""
        try:
            self._enter()
        finally:
            self._say()
        error: BaseException | None = None
        try:
            yield
        except BaseException as raised:
            error = raised
            raise
        finally:
            if isinstance(error, Held | LocalFailure):
                self._leave_unasked()
            else:
                self._leave(error if error is not None and counts(error) else None)
            self._say()

    def answered(self, method: str, status: int | None, seconds: float) -> None:
        """Record a request: its status (None without an answer), and its duration."""
        self._called(self._host, method, status, seconds)

    def fetched(self, cause: str) -> None:
        """Record a fetched token, or the cause of the failure."""
        self._fetched(self._host, cause)

    def _enter(self) -> None:
        with self._lock:
            if self._room is not None:
                rest = self._until - self._clock()
                if rest > 0:
                    raise Held(f'{self._cause}; circuit breaker open for {self._host}',
                               retry_after=rest + self._jitter() * TURN)
                if self._calls >= self._room:
                    raise Held(f'circuit breaker half-open for {self._host}; other calls probe it',
                               retry_after=TURN * (1 + self._jitter()))
                self._become(HALF_OPEN)
            self._calls += 1

    def _leave_unasked(self) -> None:
        """Count out a call that failed before it reached the host: it says nothing about the host."""
        with self._lock:
            self._calls -= 1

    def _leave(self, failure: BaseException | None) -> None:
        with self._lock:
            self._calls -= 1
            if failure:
                self._failures += 1
                self._cause = str(failure)
                if self._room is None and self._failures >= PATIENCE:
                    logger.warning('circuit breaker open: the service is down', host=self._host,
                                   reason=str(failure))
                    self._trip(SHORTEST)
                elif self._room is not None and self._until <= self._clock():
                    self._trip(min(LONGEST, self._length * 2))
            else:
                self._failures = 0
                self._reopen()

    def _trip(self, length: float) -> None:
        self._length = length
        self._until = self._clock() + length * (0.75 + self._jitter() / 2)
        self._room = 1
        self._become(OPEN)

    def _reopen(self) -> None:
        if self._room is None or self._until > self._clock():
            return  # a call from before says nothing about now
        self._room += 1
        if self._room > self._threads:
            self._room = None
            self._become(CLOSED)
            logger.warning('circuit breaker closed: the service is back', host=self._host)
        else:
            self._become(HALF_OPEN)

    def _become(self, state: str) -> None:
        if state != self._state:
            self._state = state
            self._changes.append((state, self._cause))

    def _say(self) -> None:
        """Report changes in order, outside the lock; one thread at a time reports for all."""
        while self._changes and self._saying.acquire(blocking=False):
            try:
                if self._changes:
                    self._changed(self._host, *self._changes.popleft())
            finally:
                self._saying.release()
