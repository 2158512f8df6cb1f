"""Ending in time.

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
from celery.apps import worker as application

from ecommerce_worker import logs, runtime
from ecommerce_worker.process import ending, output, status

logger = logs.of(__name__)


class Ending:
    """What a worker's process does about signals.

    Celery waits for ever in a warm shutdown, and in a cold one too where the pool is of threads, since Python does not
    end before they do.  Nothing is lost by going: all messages that are not acknowledged go back to their queues with
    the connection.
    """

    def __init__(self) -> None:
        self._installed = False
        self._begun = False
        self._signalled: socket.socket | None = None

    def install(self, sender: Any = None, **_: Any) -> None:
        """Put our handlers before Celery's, which are in place by the time that a worker is ready."""
        self._wake(sender.hub)
        if self._installed:
            return  # ready once more, on another connection
        self._installed = True
        application.safe_say = _say
        # Celery would start itself anew on SIGHUP, in a way that does not fit how we were started.
        for number, like in ((signal.SIGHUP, signal.SIGTERM), (signal.SIGINT, signal.SIGINT),
                             (signal.SIGTERM, signal.SIGTERM)):
            celerys = signal.getsignal(like)
            assert callable(celerys)  # noqa: S101 - for the type checker: Celery has put it there
            signal.signal(number, partial(self._end, celerys))
        signal.signal(signal.SIGQUIT, self._hurry)

    def _wake(self, hub: Any) -> None:
        """Have a signal wake the event loop, which would look for it at its next timer only, seconds later."""
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
            # Celery has put another there.
            signal.signal(number, self._hurry)

    def _hurry(self, *_: Any) -> None:
        leave('at once')


def _say(message: str, stream: Any = None) -> None:
    """In place of Celery's, which writes to the pipe itself, and would wait within a handler if nobody reads it."""
    print(message, file=stream or sys.__stderr__)


def in_time(**_: Any) -> None:
    """See to it that the worker ends within ``SHUTDOWN_SECONDS``, from before it has connected to anything."""
    ending.within(runtime.current().settings.SHUTDOWN_SECONDS, leave)


def leave(when: str) -> None:
    """End the process now, whatever runs."""
    logger.warning('stopped; what was still running is delivered again', when=when)
    output.outlet.flush()
    # What runs in a child would go on, and overlap its next try.
    for child in active_children():
        os.kill(child.pid, signal.SIGKILL)
    # Threads cannot be ended.
    status.leave()
