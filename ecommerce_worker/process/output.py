"""The output of a process: log lines and prints, without ever blocking on a pipe, a disk or a lock.

::

    a log line, a print ──► queue, bounded ──► one thread ──► handlers of LOGGING, standard output, standard error
                              │ full
                              ▼
              dropped and counted; the count is logged when it flows again

A reader of our output may stop reading, a disk may hang: only this thread waits for them.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import logging
import os
import select
import sys
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Final

from typing_extensions import override

from ecommerce_worker import correlation, logs
from ecommerce_worker.process import json_lines, status

#: Maximum number of lines waiting to be written: some megabytes.
BOUND: Final = 10_000

#: Seconds for the last lines when the process ends.
FLUSH_SECONDS: Final = 1.0

#: Seconds for which lines gather before they are written together: a thread that wakes for each takes turns with those
#: who run.
GATHER_SECONDS: Final = 0.01

#: The most bytes of lines that are written by one call of the system: so many come whole through a pipe that other
#: processes write to.
TOGETHER_BYTES: Final = select.PIPE_BUF

_logger = logs.of(__name__)


class Outlet:
    """A thread that does what is put, in order; safe in signal handlers and in processes that are forked."""

    def __init__(self, bound: int = BOUND) -> None:
        self._bound = bound
        self.begin()

    def begin(self) -> None:
        """Start again in a forked process: the parent writes its own lines."""
        # Such a queue may be put to by a signal handler that interrupts another put.
        self._queue: SimpleQueue[tuple[Callable[..., Any], tuple[Any, ...]]] = SimpleQueue()
        self._dropped = 0
        #: What is to be written next, to which descriptor, and how many bytes that is; the thread's own.
        self._pending: list[bytes] = []
        self._pending_for = -1
        self._pending_bytes = 0
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def put(self, act: Callable[..., Any], *given: Any) -> None:
        """Have ``act(*given)`` done soon; it is dropped, and counted, if too much waits already."""
        if self._queue.qsize() >= self._bound:
            self._dropped += 1
            return
        self._queue.put((act, given))
        if self._thread is None:
            self._start()

    def flush(self, seconds: float = FLUSH_SECONDS) -> bool:
        """Wait until everything put so far is done, with a timeout; returns whether it is."""
        if self._thread is None:
            return True
        done = threading.Event()
        self._queue.put((self._write_pending, ()))
        self._queue.put((done.set, ()))
        return done.wait(seconds)

    def write(self, fd: int, data: bytes) -> None:
        """Write it together with everything else that waits, if this is the outlet's thread."""
        if threading.current_thread() is not self._thread:
            _written(fd, data)
            return
        if fd != self._pending_for or self._pending_bytes + len(data) > TOGETHER_BYTES:
            self._write_pending()
            self._pending_for = fd
        self._pending.append(data)
        self._pending_bytes += len(data)

    def _write_pending(self) -> None:
        pending, self._pending, self._pending_bytes = self._pending, [], 0
        if pending:
            _written(self._pending_for, b''.join(pending))

    def _start(self) -> None:
        # Whoever comes second need not wait.
        if not self._starting.acquire(blocking=False):
            return
        try:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name='output', daemon=True)
                # Where the system has no thread for us now, it may have one when the next line is put.
                with contextlib.suppress(RuntimeError):
                    thread.start()
                    self._thread = thread
        finally:
            self._starting.release()

    def _run(self) -> None:
        while True:
            act, given = self._queue.get()
            with contextlib.suppress(Exception):
                act(*given)
                # Not while it is full: that line would take the place of another one, or be dropped like it.
                if self._dropped and self._queue.qsize() <= self._bound // 2:
                    dropped, self._dropped = self._dropped, 0
                    _say_dropped(dropped)
            if not self._queue.qsize():
                self._write_pending()
                time.sleep(GATHER_SECONDS)


def _say_dropped(lines: int) -> None:
    _logger.warning('output was not read, lines were dropped', dropped=lines)


#: The one of this process.
outlet: Final = Outlet()


class _Standard(io.TextIOBase):
    """Standard output or error: complete lines go to the outlet."""

    def __init__(self, stream: Any) -> None:
        super().__init__()
        self._fd: int = stream.fileno()
        self._encoding = stream.encoding or 'utf-8'
        self._isatty: bool = stream.isatty()
        self._begun = threading.local()
        #: Whether each line is written as an object of JSON.
        self.is_json = False

    @property
    @override
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding

    @override
    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError('only str can be written')
        begun = getattr(self._begun, 'text', '') + text
        lines, end, self._begun.text = begun.rpartition('\n')
        if end:
            self._put(lines + end)
        return len(text)

    @override
    def flush(self) -> None:
        if begun := getattr(self._begun, 'text', ''):
            self._begun.text = ''
            self._put(begun)

    def _put(self, text: str) -> None:
        if self.is_json:
            text = ''.join(f'{json_lines.line("info", each, created=time.time(), process=os.getpid())}\n'
                           for each in text.split('\n') if each.strip())
        outlet.put(outlet.write, self._fd, text.encode(self._encoding, 'backslashreplace'))

    @override
    def writable(self) -> bool:
        return True

    @override
    def fileno(self) -> int:
        return self._fd

    @override
    def isatty(self) -> bool:
        return self._isatty


class _Direct(io.TextIOBase):
    """The same within the outlet's thread; it holds no lock while it waits."""

    def __init__(self, standard: _Standard) -> None:
        super().__init__()
        self._standard = standard

    @override
    def write(self, text: str) -> int:
        outlet.write(self._standard.fileno(), text.encode(self._standard.encoding, 'backslashreplace'))
        return len(text)


def _written(fd: int, data: bytes) -> None:
    """Write all of it, however long that takes; a reader that has gone gets nothing."""
    while data:
        try:
            data = data[os.write(fd, data):]
        except BlockingIOError:  # another program set it non-blocking
            select.select([], [fd], [])
        except OSError:
            return


class Queued(logging.Handler):
    """Wraps the handlers of a logger, which are called by the outlet."""

    def __init__(self, targets: list[logging.Handler]) -> None:
        super().__init__()
        self.targets = targets

    @override
    def handle(self, record: logging.LogRecord) -> bool:
        """Queue the record, without the lock of handlers."""
        if self.filter(record):
            self.emit(record)
        return True

    @override
    def emit(self, record: logging.LogRecord) -> None:
        """Format the record now, since its arguments may change, make sure that it is one record, and queue it."""
        if all(record.levelno < target.level for target in self.targets):
            return
        try:
            # As copy.copy does it, in a third of the time.
            fixed = record.__class__.__new__(record.__class__)
            fixed.__dict__.update(record.__dict__)
            fixed.msg, fixed.args = logs.one_record(record.getMessage()), None
            # Of who logs; the formatter is called by another thread.
            fixed.request_id = correlation.current()
            if record.exc_info:
                fixed.error_type = getattr(record.exc_info[0], '__name__', None)
                fixed.exc_text = logs.indented(record.exc_text or logging.Formatter().formatException(record.exc_info))
                fixed.exc_info = None
            if record.stack_info:
                fixed.stack_info = logs.indented(record.stack_info)
        except Exception:  # noqa: BLE001 - as every handler does it
            self.handleError(record)
            return
        outlet.put(_handled, self.targets, fixed)


def _handled(targets: list[logging.Handler], record: logging.LogRecord) -> None:
    for target in targets:
        if record.levelno >= target.level:
            target.handle(record)


_standard: dict[int, _Standard] = {}


def open_standard() -> None:
    """From now on prints never block; idempotent."""
    if _standard:
        return
    for name in ('stdout', 'stderr'):
        stream = getattr(sys, name)
        try:
            made = _Standard(stream)
        except (AttributeError, OSError, ValueError):
            continue  # a process without one, or a test's
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
        _standard[id(stream)] = made
        _originals.append(stream)
        setattr(sys, name, made)
        setattr(sys, f'__{name}__', made)
    os.register_at_fork(after_in_child=outlet.begin)
    # It would wait for handlers' locks, which who is stuck may hold.
    atexit.unregister(logging.shutdown)
    atexit.register(_at_exit)


#: Kept, for who has taken hold of them already.
_originals: list[Any] = []

_says_json = False


def open_log() -> None:
    """From now on log lines never block: the outlet calls the handlers that loggers have now."""
    open_standard()
    loggers = [logging.getLogger(), *logging.getLogger().manager.loggerDict.values()]
    for logger in loggers:
        found = logger.handlers if isinstance(logger, logging.Logger) else []
        targets = [each for each in found if not isinstance(each, Queued | logging.NullHandler)]
        for target in targets:
            if isinstance(target, logging.StreamHandler) and (standard := _of(target.stream)):
                target.setStream(_Direct(standard))
        if targets and isinstance(logger, logging.Logger):
            logger.handlers = [Queued(targets), *(each for each in found if each not in targets)]
    if _says_json:
        say_in_json()


def say_in_json() -> None:
    """From now on each line that is logged or printed is a JSON object.

    Uncaught exceptions are logged in one record, too. To open a log later, call
    :func:`open_log`.
    """
    global _says_json  # noqa: PLW0603 - a process has one output
    _says_json = True
    for logger in (logging.getLogger(), *logging.getLogger().manager.loggerDict.values()):
        for handler in logger.handlers if isinstance(logger, logging.Logger) else ():
            for target in handler.targets if isinstance(handler, Queued) else [handler]:
                target.setFormatter(json_lines.JsonLines())
    for standard in _standard.values():
        standard.is_json = True
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = lambda given: _uncaught(given.exc_type, given.exc_value, given.exc_traceback)


def _uncaught(kind: type[BaseException], error: BaseException | None, _: TracebackType | None) -> None:
    if not issubclass(kind, KeyboardInterrupt | SystemExit):
        _logger.critical('unexpected error', exc_info=error)


def failed(text: str) -> bool:
    """Log a fatal error in one record if output is JSON; returns whether it is."""
    if _says_json:
        pass_on(json_lines.line('error', text, created=time.time(), process=os.getpid()).encode())
    return _says_json


def pass_on(line: bytes) -> None:
    """Write a line of another process to standard output unchanged."""
    outlet.put(outlet.write, sys.stdout.fileno(), line + b'\n')


def _of(stream: Any) -> _Standard | None:
    return stream if isinstance(stream, _Standard) else _standard.get(id(stream))


def _at_exit() -> None:
    if outlet.flush():
        logging.shutdown()
    else:
        # Python would wait for what the stuck thread holds.
        status.leave()
