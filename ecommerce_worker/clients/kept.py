"""Kept-alive connections: limited over all services of this process, and closed when idle.

::

    call ──► its service counts as used last ──► too many connections in all, or idle for long? ──► those unused longest
                                                                                                    are closed
"""

from __future__ import annotations

import os
import resource
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol

from ecommerce_worker.errors import lack_behind

#: Seconds for which idle connections are kept; many servers close theirs after as long.
IDLE_SECONDS: Final = 60.0

#: Connections that are kept at most, and the part of this process's files that they may take.
MOST, PART = 512, 4

class Closable(Protocol):
    """A service whose kept connections can be closed at any moment at which none is in use."""

    def close(self) -> None:
        """Close them; the next call opens others."""


@dataclass
class _Use:
    #: Calls in progress, and the most of them at once: so many connections may be open.
    calls: int = 0
    most: int = 0
    ended: float = 0.0


class Kept:
    """The services that have connections open, for as many threads as like; ``limit`` bounds those of all of them."""

    def __init__(self, limit: int | None = None, idle_seconds: float = IDLE_SECONDS, *,
                 clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = limit or max(1, min(MOST, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // PART))
        self._idle_seconds = idle_seconds
        self._clock = clock
        self._uses: OrderedDict[Closable, _Use] = OrderedDict()  # those used longest ago come first
        self._open = 0
        self._lock = threading.Lock()
        self._sweeper: threading.Thread | None = None

    @property
    def open(self) -> int:
        """How many connections may be open."""
        return self._open

    @contextmanager
    def using(self, service: Closable) -> Iterator[None]:
        """Guard one call, which may open a connection to this service and keep it."""
        with self._lock:
            use = self._uses.setdefault(service, _Use())
            self._uses.move_to_end(service)
            use.calls += 1
            if use.calls > use.most:
                use.most = use.calls
                self._open += 1
            self._close(self.limit)
            if self._sweeper is None:
                self._sweeper = threading.Thread(target=self._sweep, name='kept', daemon=True)
                self._sweeper.start()
        try:
            yield
        finally:
            with self._lock:
                use.calls -= 1
                use.ended = self._clock()

    def give_up(self) -> None:
        """Close all connections that are not in use."""
        with self._lock:
            self._close(0)

    def sweep(self) -> None:
        """Close connections that have been idle for long."""
        with self._lock:
            self._close(self.limit)

    def _close(self, limit: int) -> None:
        # Within the lock, so that no thread begins to use a connection that is being closed.
        now = self._clock()
        for service, use in list(self._uses.items()) if self._surplus(now, limit) else ():
            if not use.calls and (self._open > limit or now - use.ended > self._idle_seconds):
                del self._uses[service]
                self._open -= use.most
                service.close()

    def _surplus(self, now: float, limit: int) -> bool:
        oldest = next((use for use in self._uses.values() if not use.calls), None)
        return oldest is not None and (self._open > limit or now - oldest.ended > self._idle_seconds)

    def _sweep(self) -> None:
        while True:
            time.sleep(self._idle_seconds / 2)
            with self._lock:
                self._close(self.limit)
                if not self._uses:
                    self._sweeper = None
                    return


#: One for the process, as its files are.
KEPT: Final = Kept()


def lack_of_files() -> str:
    """Why this process can open no other file, '' if it can: name resolution and TLS do not say what they lacked."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return lack_behind(error)
    return ''
