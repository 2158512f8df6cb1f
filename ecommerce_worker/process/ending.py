"""Stopping in time, whatever hangs.

::

    SIGTERM, SIGINT, SIGHUP, SIGQUIT ──► the handler of the process ──► it stops cleanly
                  │
                  └──► a thread that only waits for the clock ──► the process exits in any case

Python calls a handler when its main thread comes back from wherever it is; the thread here notices a signal at once.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from ecommerce_worker import logs
from ecommerce_worker.process import output, pulse, status

logger = logs.of(__name__)

#: The variable by which a parent of ours, `up` or one of several workers, tells a child the number of its process.
PARENT: Final = 'ECOMMERCE_PARENT_PID'

#: Linux: a process gets this signal when its parent ends, see prctl(2).
_PR_SET_PDEATHSIG: Final = 1

#: The signals that stop a process.
ENDS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


class Stop:
    """A flag to stop, set by a signal handler; without a lock, which the handler could find held."""

    def __init__(self) -> None:
        self._set = False
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._poll = select.poll()
        self._poll.register(self._reader, select.POLLIN)

    @classmethod
    def on(cls, *numbers: int) -> Stop:
        """A flag that these signals set; call it in the main thread."""
        stop = cls()
        for number in numbers:
            signal.signal(number, stop.set)
        return stop

    def set(self, *_: Any) -> None:
        """Set the flag; a signal handler."""
        self._set = True
        with contextlib.suppress(BlockingIOError):
            os.write(self._writer, b'.')

    def is_set(self) -> bool:
        """Whether the flag is set."""
        return self._set

    def wait(self, seconds: float) -> bool:
        """Wait until the flag is set, with a timeout; returns whether it is."""
        if not self._set:
            self._poll.poll(max(0.0, seconds) * 1000)
        return self._set


def leave(when: str) -> None:
    """Exit now."""
    logger.warning('stopped while something was still running', when=when)
    output.outlet.flush()
    status.leave()


class Guard:
    """The thread that makes sure the process ends; there is one per process."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._leave: Callable[[str], None] = leave
        self._pipe: socket.socket | None = None
        self._told: list[socket.socket] = []

    def begin(self, seconds: float, leave: Callable[[str], None]) -> None:
        """Call ``leave(when)`` so many seconds after the first signal to end; the last call of this counts.

        To be called in the main thread.
        """
        self._seconds, self._leave = seconds, leave
        if self._pipe is None:
            self._pipe, writer = socket.socketpair()
            writer.setblocking(False)
            # What Python does at once, in whichever thread, before any handler.
            signal.set_wakeup_fd(writer.detach(), warn_on_full_buffer=False)
            os.register_at_fork(after_in_child=self.forget)
            threading.Thread(target=self._run, args=(self._pipe,), name='ending', daemon=True).start()

    def hear(self) -> socket.socket:
        """A socket that can be read from after each signal, for an event loop that waits for sockets."""
        heard, told = socket.socketpair()
        for end in (heard, told):
            end.setblocking(False)
        self._told.append(told)
        return heard

    def forget(self) -> None:
        """In a forked process: its parent stops it, and its signals are not those of the parent."""
        if self._pipe is not None:
            self._pipe = None
            signal.set_wakeup_fd(-1)

    def _run(self, pipe: socket.socket) -> None:
        while not set(self._next(pipe)) & set(ENDS):
            pass
        pulse.own.ends(self._seconds)
        time.sleep(self._seconds)
        self._leave(f'after {self._seconds:g} s')

    def _next(self, pipe: socket.socket) -> bytes:
        """The numbers of the next signals, after passing them on to event loops."""
        numbers = pipe.recv(64)
        for told in self._told:
            with contextlib.suppress(OSError):
                told.send(numbers)
        return numbers


def countdown(seconds: float) -> None:
    """Exit in this many seconds; for processes whose event loop handles signals itself."""
    timer = threading.Timer(seconds, leave, (f'after {seconds:g} s',))
    timer.daemon = True
    timer.start()


_guard: Final = Guard()


def within(seconds: float, leave: Callable[[str], None] = leave) -> None:
    """From now on the process exits this long after a signal to stop, whatever hangs; see :meth:`Guard.begin`."""
    _guard.begin(seconds, leave)


def hear() -> socket.socket:
    """A socket that can be read from after each signal, once :func:`within` was called."""
    return _guard.hear()


def at_once() -> None:
    """Until another handler is set, SIGTERM exits at once; the first process of a container would ignore it."""
    signal.signal(signal.SIGTERM, _exit)


def with_parent() -> None:
    """Have a child of :data:`PARENT` stopped by SIGTERM when that ends, even if it is killed.

    Otherwise the next `up` would start a second beat and find the ports of the first in use.  On Linux only.
    """
    parent = os.environ.pop(PARENT, None)
    if parent is None:
        return
    import ctypes  # which no other process needs

    prctl = getattr(ctypes.CDLL(None), 'prctl', None)
    if prctl is None:
        return
    prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):  # it ended before
        os.kill(os.getpid(), signal.SIGTERM)


def _exit(*_: Any) -> None:
    # No exception: one that is raised inside a destructor, which may run anywhere, is printed and forgotten.
    output.outlet.flush()
    status.leave()
