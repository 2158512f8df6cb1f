"""The process's one global: its settings, its sites and who is told of outcomes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ecommerce_worker import observe
from ecommerce_worker.settings import Settings, load
from ecommerce_worker.site import Site


class Runtime:
    """What the tasks of one process share."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.listeners: list[observe.Listener] = [observe.log]
        self._sites: dict[int, Site] = {}
        self._lock = threading.Lock()

    def site(self, code: str | None = None) -> Site:
        """The site of that code; one without overrides of its own shares the default site."""
        settings = self.settings.for_site(code)
        with self._lock:
            # Settings of a site are one object for as long as the process lives, and as many as there are overrides.
            return self._sites.setdefault(id(settings), Site(settings))


_current: Runtime | None = None
_lock = threading.Lock()


def current() -> Runtime:
    """The runtime in force; the first call loads the configuration (raises ``Misconfigured``)."""
    global _current  # noqa: PLW0603 - the one global
    with _lock:
        if _current is None:
            _current = Runtime(load())
        return _current


def site(code: str | None = None) -> Site:
    """The site of that code in the runtime in force."""
    return current().site(code)


@contextmanager
def use(runtime: Runtime) -> Iterator[Runtime]:
    """Put another runtime in force for a while, for tests and commands."""
    global _current  # noqa: PLW0603 - the one global
    with _lock:
        before, _current = _current, runtime
    try:
        yield runtime
    finally:
        with _lock:
            _current = before
