"""A private, throw-away RabbitMQ node, for the demonstration and for the tests.

    new ──start──► running ──stop, kill──► down ──start──► running …    the data stays with the directory

All processes of a node form one process group: the Erlang machine, a port mapper (epmd) of its own, and a
guard that ends the group when the owner is gone, even by SIGKILL. So they are ended by number, and no other
node's process is touched.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import weakref
from pathlib import Path
from typing import Self

# Where RabbitMQ and Erlang may be found besides the PATH. Debian's comes first, even before the PATH: what it
# puts on the PATH is a wrapper that changes to the user `rabbitmq`, who could not write to our directory.
DEBIAN = '/usr/lib/rabbitmq/bin'

# A folder in which they are looked for before anywhere else: rabbitmq-server, rabbitmqctl, erl and epmd of a version.
PROGRAMS = 'RABBITMQ_PROGRAMS'
USUAL_PLACES = (
    '/usr/local/sbin',
    '/usr/local/bin',
    '/usr/sbin',
    '/opt/homebrew/sbin',
    '/opt/homebrew/bin',
    '/usr/lib/erlang/bin',
)

# The guard waits for the end of its input, which comes when the owner closes the pipe or dies. `exec` lets
# the Erlang machine lead the group, so that SIGTERM reaches it and not a shell that stands before it.
# RabbitMQ gives up where no port mapper answers, so that comes first, unless it cannot.
LAUNCH = """
exec 3<&0 </dev/null
(cat <&3 >/dev/null; kill -KILL 0) &
"$1" -address 127.0.0.1 3<&- &
while kill -0 $! && ! "$1" -names >/dev/null 2>&1; do sleep 0.05; done
exec "$0" 3<&-
"""

# A small disk must not raise the alarm that blocks publishers. The write-ahead log of quorum queues would
# grow to 512 MB before it is rolled over.
CONFIGURATION = """
listeners.tcp.local = 127.0.0.1:{port}
disk_free_limit.absolute = 50MB
raft.wal_max_size_bytes = 33554432
"""


class PrivateNode:
    """A RabbitMQ node that listens on 127.0.0.1 only and shares nothing with any other on the machine."""

    def __init__(self, directory: Path | None = None, port: int | None = None) -> None:
        self.directory = directory.resolve() if directory else Path(tempfile.mkdtemp(prefix='rabbitmq-'))
        self.port = port or free_port()
        self.url = f'amqp://guest:guest@127.0.0.1:{self.port}//'
        self._process: subprocess.Popen[bytes] | None = None
        self._environment: dict[str, str] = {}
        self._remove_directory = weakref.finalize(self, _remove, None if directory else self.directory)

    @property
    def environment(self) -> dict[str, str]:
        """The environment of its programs, rabbitmqctl for one."""
        return dict(self._environment)

    @property
    def runs(self) -> bool:
        """Whether it was started and is still running."""
        return self._process is not None and self._process.poll() is None

    @staticmethod
    def program() -> str | None:
        """Path of the `rabbitmq-server` to start, or None where RabbitMQ or its Erlang is not installed."""
        return program_named('rabbitmq-server') if program_named('erl') and program_named('epmd') else None

    def start(self, timeout: float = 60) -> None:
        """Return as soon as AMQP answers; RuntimeError with the end of the node's log otherwise."""
        program, mapper = self.program(), program_named('epmd')
        if program is None or mapper is None:
            raise RuntimeError('RabbitMQ is not installed: there is no rabbitmq-server, or no Erlang for it')
        if self._process is not None:
            raise RuntimeError('the node has been started already')
        if self._answers():
            raise RuntimeError(f'port {self.port} is taken by another RabbitMQ')
        self._environment = self._prepared()
        with (self.directory / 'output.log').open('wb') as output:
            self._process = subprocess.Popen(
                ['/bin/sh', '-c', LAUNCH, program, mapper],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                cwd=self.directory,
                env=self._environment,
                start_new_session=True,
            )
        try:
            self._await_answer(time.monotonic() + timeout)
        except BaseException:
            self.kill()
            raise

    def stop(self, timeout: float = 15) -> None:
        """Stop in good order, by force after `timeout` seconds; the data stays."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            pass
        finally:
            # By force if need be, also when Ctrl-C ends the wait; the port mapper and the guard in any case.
            self.kill()

    def kill(self) -> None:
        """End all processes of the node at once, as a power cut would; the data stays."""
        if self._process is None:
            return
        # The guard is a member of the group until now, so the group's number cannot be anyone else's.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        group, self._process = self._process.pid, None
        # Only the first of its processes can be waited for; the one that listens may be dying still.
        deadline = time.monotonic() + 10
        while _exists(group) and not _can_be_listened_on(self.port) and time.monotonic() < deadline:
            time.sleep(0.1)

    def restart(self) -> None:
        """Stop in good order and start again."""
        self.stop()
        self.start()

    def ctl(self, *args: str, timeout: float = 60) -> str:
        """What `rabbitmqctl` with these arguments prints about this node; RuntimeError if it fails."""
        done = subprocess.run(
            [str(Path(self.program() or '').with_name('rabbitmqctl')), '--quiet', *args],
            env=self._environment,
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f'rabbitmqctl {" ".join(args)}: {done.stderr or done.stdout}')
        return done.stdout

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._remove_directory()

    def _prepared(self) -> dict[str, str]:
        """Write the node's configuration and return the environment of its processes."""
        home = self.directory
        home.mkdir(parents=True, exist_ok=True)
        (home / 'rabbitmq.conf').write_text(CONFIGURATION.format(port=self.port))
        (home / 'enabled_plugins').write_text('[].\n')
        ours = {
            # The Erlang cookie is kept in HOME: a private home makes it a private cookie.
            'HOME': str(home),
            'PATH': os.pathsep.join([os.environ.get('PATH', os.defpath), *USUAL_PLACES]),
            # The name is part of the data, so it is the same whatever the ports are. It cannot clash, because
            # each node has a port mapper of its own.
            'RABBITMQ_NODENAME': 'rabbit@localhost',
            'ERL_EPMD_ADDRESS': '127.0.0.1',
            'ERL_EPMD_PORT': str(free_port()),
            'RABBITMQ_DIST_PORT': str(free_port()),
            # For each Erlang machine, the short-lived ones that RabbitMQ starts itself and rabbitmqctl too.
            'ERL_ZFLAGS': '-kernel inet_dist_use_interface {127,0,0,1} -start_epmd false',
            # Without this a shell of rabbitmq-server's would stay between us and the Erlang machine.
            'RABBITMQ_ALLOW_INPUT': 'true',
            'RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS': '-noinput +S 2:2 +A 8',
            'RABBITMQ_CONF_ENV_FILE': str(home / 'rabbitmq-env.conf'),
            'RABBITMQ_CONFIG_FILE': str(home / 'rabbitmq.conf'),
            'RABBITMQ_ADVANCED_CONFIG_FILE': str(home / 'advanced.config'),
            'RABBITMQ_GENERATED_CONFIG_DIR': str(home / 'generated'),
            'RABBITMQ_SCHEMA_DIR': str(home / 'schema'),
            'RABBITMQ_ENABLED_PLUGINS_FILE': str(home / 'enabled_plugins'),
            'RABBITMQ_PLUGINS_EXPAND_DIR': str(home / 'plugins'),
            'RABBITMQ_PID_FILE': str(home / 'node.pid'),
            'RABBITMQ_MNESIA_BASE': str(home / 'data'),
            'RABBITMQ_LOG_BASE': str(home / 'log'),
            'RABBITMQ_LOGS': str(home / 'node.log'),
        }
        foreign = ('RABBITMQ_', 'ERL_', 'NOTIFY_SOCKET')
        return {name: value for name, value in os.environ.items() if not name.startswith(foreign)} | ours

    def _await_answer(self, deadline: float) -> None:
        while not self._answers():
            if self._process is None or self._process.poll() is not None:
                raise RuntimeError(f'RabbitMQ in {self.directory} ended at once:\n{self._last_words()}')
            if time.monotonic() > deadline:
                raise RuntimeError(f'RabbitMQ in {self.directory} does not answer:\n{self._last_words()}')
            time.sleep(0.05)

    def _answers(self) -> bool:
        """Whether the node greets as AMQP 0-9-1 does: with a method frame (type 1) on channel 0."""
        try:
            with socket.create_connection(('127.0.0.1', self.port), timeout=2) as connection:
                connection.sendall(b'AMQP\x00\x00\x09\x01')
                return connection.recv(3) == b'\x01\x00\x00'
        except OSError:
            return False

    def _last_words(self) -> str:
        """The first error of each of its logs, which is the cause of the others, and its end."""
        words = []
        for log in (self.directory / 'node.log', self.directory / 'output.log'):
            lines = log.read_text(errors='replace').splitlines() if log.exists() else []
            cause = [line for line in lines[:-20] if '[error]' in line][:1]
            words += [*cause, *lines[-20:]]
        return '\n'.join(words)


def free_port() -> int:
    """Return a free port of 127.0.0.1, outside the range used for outgoing connections.

    A client that keeps asking for a closed port inside that range may get it as its own end, be connected to
    itself and hold the port against the server that wants to come back.
    """
    while True:
        # Not from `random`: parallel test runs with the same seed would all pick the same ports.
        port = 10_000 + secrets.randbelow(20_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(('127.0.0.1', port))
            return port


def _exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def _can_be_listened_on(port: int) -> bool:
    with socket.socket() as probe, contextlib.suppress(OSError):
        # As RabbitMQ does: closed connections are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(('127.0.0.1', port))
        probe.listen()
        return True
    return False


def program_named(program: str) -> str | None:
    """Path of a program of RabbitMQ's or Erlang's; None if there is none."""
    named = os.environ.get(PROGRAMS)
    places = [*([named] if named else []), DEBIAN, os.environ.get('PATH', os.defpath), *USUAL_PLACES]
    return shutil.which(program, path=os.pathsep.join(places))


def _remove(directory: Path | None) -> None:
    if directory is not None:
        shutil.rmtree(directory, ignore_errors=True)
