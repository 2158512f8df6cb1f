"""Shutting down in time.

::

    SIGTERM, SIGINT, SIGHUP ──► takes no more; what runs ends ────────────────► ends
                                   │ SHUTDOWN_SECONDS are over                    ▲
                                   ▼                                              │
    SIGQUIT, or twice ──► what still runs is left: the broker delivers it again ──┘
    too many threads lost ──► as SIGTERM, and as soon as all others have ended; status 75

The clock is that of :mod:`ecommerce_worker.process.ending`, which needs no thread of ours to come back.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from billiard import active_children

from ecommerce_worker import logs, runtime
from ecommerce_worker.process import ending, output, status

logger = logs.of(__name__)


class Ending:
    """The signal handling of a worker process.

    Celery waits for ever in a warm shutdown, and in a cold one too where the pool is of threads, since Python does not
    end before they do.  Nothing is lost by going: all messages that are not acknowledged go back to their queues with
    the connection.
    """

    def __init__(self) -> None:
        self._installed = False
        self._begun = False
        self._signalled: socket.socket | None = None

    def install(self, sender: Any = None, **_: Any) -> None:
        """Install our handlers in place of Celery's, which are set by the time a worker is ready."""
        self._wake(sender.hub)
        if self._installed:
            return  # ready again, on another connection
        self._installed = True
        from celery.apps import worker as application  # other commands begin without it

        application.safe_say = _say
        # Celery would re-execute itself on SIGHUP, which does not fit how we were started.
        for number, like in ((signal.SIGHUP, signal.SIGTERM), (signal.SIGINT, signal.SIGINT),
                             (signal.SIGTERM, signal.SIGTERM)):
            celerys = signal.getsignal(like)
            assert callable(celerys)  # noqa: S101 - for the type checker: Celery has put it there
            signal.signal(number, partial(self._end, celerys))
        signal.signal(signal.SIGQUIT, self._hurry)

    def _wake(self, hub: Any) -> None:
        """Let a signal wake the event loop, which would otherwise notice it only at its next timer, seconds later."""
        if not hub:
            return  # a pool without an event loop
        if self._signalled is None:
            self._signalled = ending.hear()
        hub.add_reader(self._signalled, self._signalled.recv, 4096)

    def _end(self, celerys: Callable[..., Any], number: int, frame: Any) -> None:
        if self._begun:
            self._hurry()
        self._begun = True
        try:
            celerys(number, frame)
        finally:
            # Celery has installed another.
            signal.signal(number, self._hurry)

    def _hurry(self, *_: Any) -> None:
        leave('at once')


def _say(message: str, stream: Any = None) -> None:
    """Replaces Celery's, which writes to the pipe itself, and would block within a handler if nothing reads it."""
    print(message, file=stream or sys.__stderr__)


def in_time(**_: Any) -> None:
    """Make sure that the worker exits within ``SHUTDOWN_SECONDS``, even before it has connected."""
    ending.within(runtime.current().settings.SHUTDOWN_SECONDS, leave)


def leave(when: str) -> None:
    """Exit now, whatever is running."""
    logger.warning('stopped; unfinished messages are delivered again', when=when)
    output.outlet.flush()
    # A run in a child would continue and overlap its next try.
    for child in active_children():
        os.kill(child.pid, signal.SIGKILL)
    # Threads cannot be killed.
    status.leave()
