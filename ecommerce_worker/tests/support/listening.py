"""A listener for tests."""

from collections.abc import Callable
from typing import Any

from ecommerce_worker.telemetry.listening import Listener


def Heard(started: Callable[..., Any] | None = None, ended: Callable[..., Any] | None = None,  # noqa: N802 - as a class
          reported: Callable[..., Any] | None = None, circuit: Callable[..., Any] | None = None) -> Listener:
    """A listener that has only the methods that are given, which are called with what it hears."""
    given = {'started': started, 'ended': ended, 'reported': reported, 'circuit': circuit}
    methods = {name: (lambda _, *what, hear=hear: hear(*what)) for name, hear in given.items() if hear}
    return type('Heard', (Listener,), methods)()  # type: ignore[no-any-return]
