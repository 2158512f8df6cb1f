"""Processes of ours that begin at once: forked from an interpreter that has imported what they need.

::

    a test: Popen([sys.executable, '-m', 'ecommerce_worker', …])
       │ arguments, environment, directory, standard streams
       ▼
    the warm interpreter ──fork──► the child: runs the module as __main__, and ends as any Python does
       │ its number, and later how it ended
       ▼
    the test

A Python that starts a worker or a command is busy with imports for half a second, and the tests start several hundred.
A program that is started in any other way, from another copy of our package, with other variables for Python itself, or
under ``COLD_PROCESSES=1``, is started as ever.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: What workers, commands, recorders and consoles import; nothing of it looks at the environment as it is imported, or
#: registers tasks.
IMPORTED = (
    'celery.app.amqp', 'celery.app.control', 'celery.app.events', 'celery.app.log', 'celery.app.routes',
    'celery.apps.beat', 'celery.apps.worker', 'celery.backends.base', 'celery.bin.celery', 'celery.bin.worker',
    'celery.concurrency.prefork', 'celery.concurrency.thread', 'celery.events.state', 'celery.fixups.django',
    'celery.worker.autoscale', 'celery.worker.components', 'celery.worker.consumer', 'celery.worker.strategy',
    'django.contrib.auth.tokens', 'django.contrib.sessions.serializers', 'django.core.management.commands.migrate',
    'django.db.backends.postgresql.base', 'django.db.backends.sqlite3.base', 'django.db.models',
    'django.db.models.sql.compiler', 'django.middleware.http', 'django.test', 'django.utils.translation.trans_null',
    'jwt', 'kombu.transport.native_delayed_delivery', 'kombu.transport.pyamqp', 'pymysql', 'requests',
    'waitress.server', 'yaml',
    'ecommerce_worker.broker.app', 'ecommerce_worker.broker.consuming', 'ecommerce_worker.broker.facts',
    'ecommerce_worker.cli', 'ecommerce_worker.clients.lms', 'ecommerce_worker.email.delivery',
    'ecommerce_worker.email.mime', 'ecommerce_worker.email.vendors.outbox', 'ecommerce_worker.enrolment.coverage',
    'ecommerce_worker.enrolment.learner', 'ecommerce_worker.enrolment.origin', 'ecommerce_worker.health.machine',
    'ecommerce_worker.health.standing', 'ecommerce_worker.intake.spool',
    'ecommerce_worker.ledger.migrations.0001_initial', 'ecommerce_worker.locks.broker',
    'ecommerce_worker.operations.queues', 'ecommerce_worker.sailthru.purchase', 'ecommerce_worker.schedule.checks',
    'ecommerce_worker.schedule.commands', 'ecommerce_worker.schedule.file_store', 'ecommerce_worker.site',
    'ecommerce_worker.telemetry.serving', 'ecommerce_worker.telemetry.tally', 'ecommerce_worker.worker.consumer',
    'ecommerce_worker.worker.figures', 'ecommerce_worker.worker.pool', 'ecommerce_worker.worker.wakeup',
)

#: Variables that Python and the C library read as they start; what is buffered can be changed later, and where modules
#: are looked for.
AT_START = ('PYTHON', 'LANG', 'LC_', 'LD_', 'MALLOC_', 'TZ')
LATER = ('PYTHONUNBUFFERED', 'PYTHONPATH')

LENGTH = struct.Struct('!Q')


@dataclass(frozen=True)
class Job:
    """What a child is to run."""

    module: str
    arguments: list[str]
    environment: dict[str, str]
    directory: str
    own_session: bool


def at_start(environment: Mapping[str, str]) -> dict[str, str]:
    """What of an environment cannot be changed once Python runs."""
    return {name: value for name, value in environment.items() if name.startswith(AT_START) and name not in LATER}


def _python_path(environment: Mapping[str, str]) -> list[str]:
    """Where modules are looked for right after the directory of the program."""
    path = environment.get('PYTHONPATH', '')
    return [str(Path(place).absolute()) for place in path.split(os.pathsep)] if path else []


# --- The side of the tests -------------------------------------------------------------------------------------------


class WarmInterpreter:
    """The process that forks for us; begun when it is first needed, gone when we are."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def fork(self, job: Job, streams: list[int]) -> tuple[int, socket.socket]:
        """Have it run: the number of the process, and where its end will be read."""
        told, telling = socket.socketpair()
        with telling, self._lock:
            control = self._control or self._begin()
            text = json.dumps(vars(job)).encode()
            socket.send_fds(control, [LENGTH.pack(len(text))], [*streams, telling.fileno()])
            control.sendall(text)
        return LENGTH.unpack(exactly(told, LENGTH.size))[0], told

    def _begin(self) -> socket.socket:
        control, its = socket.socketpair()
        with its:
            self._process = STANDARD_POPEN([sys.executable, '-m', __name__, str(its.fileno())], pass_fds=[its.fileno()])
        self._control = control
        return control

    def end(self) -> None:
        """End it, if it was begun; what it forked runs on."""
        if self._control and self._process:
            self._control.close()
            self._process.wait()
            self._control = self._process = None


STANDARD_POPEN = subprocess.Popen
INTERPRETER = WarmInterpreter()


class Popen(STANDARD_POPEN):  # type: ignore[type-arg]
    """``subprocess.Popen``, but for what can be forked from the warm interpreter."""

    _told: socket.socket | None = None

    def _execute_child(self, args: Any, executable: Any, preexec_fn: Any, close_fds: Any, pass_fds: Any, cwd: Any,
                       env: Any, startupinfo: Any, creationflags: Any, shell: Any, *rest: Any) -> None:
        p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite, _, gid, gids, uid, umask, *last = rest
        job = _job(args, env, cwd, own_session=last[0])
        if job is None or shell or executable or preexec_fn or pass_fds or (gid, gids, uid, umask) != (
                None, None, None, -1) or last[1:] not in ([], [-1]):
            super()._execute_child(  # type: ignore[misc]
                args, executable, preexec_fn, close_fds, pass_fds, cwd, env, startupinfo, creationflags, shell, *rest)
            return
        streams = [own if given == -1 else given for own, given in enumerate((p2cread, c2pwrite, errwrite))]
        try:
            self.pid, self._told = INTERPRETER.fork(job, streams)
            self._child_created = True
        finally:
            self._close_pipe_fds(  # type: ignore[attr-defined]
                p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        if self._told is None:
            return super()._try_wait(wait_flags)  # type: ignore[misc, no-any-return]
        self._told.setblocking(not wait_flags)
        try:
            status = exactly(self._told, LENGTH.size)
        except BlockingIOError:
            return 0, 0
        self._told.close()
        return self.pid, LENGTH.unpack(status)[0]

    def _internal_poll(self, *args: Any, **kwargs: Any) -> int | None:
        if self._told is None:
            return super()._internal_poll(*args, **kwargs)  # type: ignore[misc, no-any-return]
        if self.returncode is None and self._waitpid_lock.acquire(blocking=False):  # type: ignore[attr-defined]
            try:
                if self.returncode is None and (found := self._try_wait(os.WNOHANG))[0]:
                    self._handle_exitstatus(found[1])  # type: ignore[attr-defined]
            finally:
                self._waitpid_lock.release()  # type: ignore[attr-defined]
        return self.returncode


def _job(args: Any, env: Mapping[str, str] | None, cwd: Any, *, own_session: bool) -> Job | None:
    """What the warm interpreter can run in place of this program, if it can."""
    environment = dict(os.environ if env is None else env)
    if not (isinstance(args, list) and args[:2] == [sys.executable, '-m'] and args[2].startswith('ecommerce_worker')
            and at_start(environment) == at_start(os.environ) and not _has_another_package(environment)):
        return None
    return Job(args[2], [os.fspath(word) for word in args[3:]], environment, os.fspath(cwd or Path.cwd()), own_session)


def _has_another_package(environment: Mapping[str, str]) -> bool:
    """Whether a program with this environment would find another copy of our package."""
    name, *_ = __name__.split('.')
    return any(Path(place, name).is_dir() and place != str(Path(__file__).parents[3])
               for place in _python_path(environment))


@contextlib.contextmanager
def warm_processes() -> Iterator[None]:
    """Have `subprocess` start our processes warm."""
    if os.environ.get('COLD_PROCESSES') or not hasattr(os, 'pidfd_open'):
        yield
        return
    subprocess.Popen = Popen  # type: ignore[misc]
    try:
        yield
    finally:
        subprocess.Popen = STANDARD_POPEN  # type: ignore[misc]
        INTERPRETER.end()


def exactly(source: socket.socket, size: int) -> bytes:
    """So many bytes; EOFError if there are fewer."""
    found = b''
    while len(found) < size:
        if not (more := source.recv(size - len(found))):
            raise EOFError('the warm interpreter is gone')
        found += more
    return found


# --- The side of the warm interpreter --------------------------------------------------------------------------------


def serve(control: socket.socket) -> Job | None:
    """Fork for each request until nobody asks any more; returns in the child too, with what that is to run."""
    with selectors.DefaultSelector() as selector, control:
        selector.register(control, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is not control:
                    selector.unregister(key.fileobj)
                    _tell_end(*key.data)
                    continue
                size, descriptors, *_ = socket.recv_fds(control, LENGTH.size, 4)
                if not size:
                    return None
                job = Job(**json.loads(exactly(control, LENGTH.unpack(size)[0])))
                waiting, become = os.pipe()
                pid = os.fork()
                if not pid:
                    _become(job, descriptors)
                    os.close(become)
                    return job
                # As with any other Popen, it is in a session of its own by the time that it is known.
                os.close(become)
                os.read(waiting, 1)
                os.close(waiting)
                telling = socket.socket(fileno=descriptors.pop())
                for descriptor in descriptors:
                    os.close(descriptor)
                telling.sendall(LENGTH.pack(pid))
                handle = os.pidfd_open(pid)
                selector.register(handle, selectors.EVENT_READ, (handle, pid, telling))


def _tell_end(handle: int, pid: int, telling: socket.socket) -> None:
    _, status = os.waitpid(pid, 0)
    os.close(handle)
    with telling, contextlib.suppress(OSError):  # whoever asked may be gone
        telling.sendall(LENGTH.pack(status))


def _become(job: Job, descriptors: list[int]) -> None:
    """What a new process has of its own."""
    if job.own_session:
        os.setsid()
    for number, descriptor in enumerate(descriptors[:3]):
        os.dup2(descriptor, number)
    os.chdir(job.directory)
    inherited = _python_path(os.environ)
    sys.path[:] = [job.directory, *_python_path(job.environment),
                   *(place for place in sys.path[1:] if place not in inherited)]
    os.environ.clear()
    os.environ.update(job.environment)
    unbuffered = bool(job.environment.get('PYTHONUNBUFFERED'))
    sys.stdout.reconfigure(line_buffering=unbuffered or sys.stdout.isatty())  # type: ignore[union-attr]
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _main() -> None:
    for name in IMPORTED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    job = serve(socket.socket(fileno=int(sys.argv[1])))
    if job is None:
        return
    # All that served for forking is closed by now; what is left belongs to other children.
    os.closerange(3, min(65536, os.sysconf('SC_OPEN_MAX')))
    sys.argv = [job.module, *job.arguments]
    try:
        runpy.run_module(job.module, run_name='__main__', alter_sys=True)
    except SystemExit as end:
        if isinstance(end.code, int):
            _end(end.code)
        raise
    _end(0)


def _end(status: int) -> None:
    """End as Python does, but for taking apart all that was imported, which costs a child most of its time: each page
    that it touches is copied.
    """
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == '__main__':
    _main()
