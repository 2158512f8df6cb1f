"""Commands in separate processes: their environment, time limit and output.

Management commands are a Django project's, which has a Python, a Celery and secrets of its own.  Commands of ours that
need a database see what the worker sees, which itself touches none.  No shell reads anything.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, Final

from ecommerce_worker.errors import Misconfigured, WrongArguments
from ecommerce_worker.settings import Settings, environment_for_others, mask

#: Seconds between SIGTERM and SIGKILL.
GRACE_SECONDS: Final = 5.0

#: Seconds between two looks at a command that says nothing.
LOOK_SECONDS: Final = 0.5

#: How much of the end of its output is logged: bytes kept, and lines logged.
TAIL_BYTES, TAIL_LINES = 4096, 15

#: What `python -m` does, but for a command that ends with its worker, however that ends (Linux: PR_SET_PDEATHSIG is 1):
#: its message will be delivered again, and two would run.
_PROGRAM: Final = """
import ctypes, runpy
if prctl := getattr(ctypes.CDLL(None), 'prctl', None):
    prctl(1, 15)
runpy.run_module('{}', run_name='__main__', alter_sys=True)
"""

_OPTION = re.compile(r'[A-Za-z][A-Za-z0-9_-]*')

#: Options that would have Django load other code than the project's.
_NEVER: Final = ('settings', 'pythonpath')

_ADDRESS = re.compile(r'[^\s<>"\'(),;:]+@[^\s<>"\'(),;:]+')
_SECRET = re.compile(r'((?:secret|passw|token|credential|api_?key|authorization)\w*["\']?\s*[:=]\s*)\S.*',
                     re.IGNORECASE)


@dataclass(frozen=True)
class Ended:
    """The result of a command: its exit status (None: killed at the time limit), and the end of its output."""

    status: int | None
    seconds: float
    tail: str

    @property
    def how(self) -> str:
        """The end of the command in words."""
        if self.status is None:
            return f'it took longer than {self.seconds:.0f} s and was killed'
        return f'killed by signal {-self.status}' if self.status < 0 else f'exit status {self.status}'


def arguments(name: Any, args: Sequence[Any], options: Mapping[str, Any], allowed: Collection[str]) -> list[str]:
    """The command line: ``rebuild_index --batch-size=9 --noinput`` for ``{'batch-size': 9, 'noinput': True}``.

    Options are spelled as on the command line; those that are false or none are left out.  Raises
    :class:`~ecommerce_worker.errors.WrongArguments` for whatever is not allowed.
    """
    if not isinstance(name, str) or name not in allowed:
        raise WrongArguments(f'the command {str(name)[:80]!r} is not among MANAGEMENT_COMMANDS')
    words = [name]
    for arg in args:
        words.append(_word(arg))
        if words[-1].startswith('-'):
            raise WrongArguments('an argument begins with "-": pass options by name')
    for option, value in options.items():
        if not _OPTION.fullmatch(option):
            raise WrongArguments(f'invalid option {option[:40]!r}')
        # Their beginnings too: commands take them for the whole.
        if any(never.startswith(option.lower()) for never in _NEVER):
            raise WrongArguments(f'the option {option} is not allowed: it would load other code')
        if value is True:
            words.append(f'--{option}')
        elif value is not None and value is not False:
            words.append(f'--{option}={_word(value)}')
    return words


def _word(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float) or '\0' in str(value):
        raise WrongArguments('arguments of a command must be strings or numbers')
    return str(value)


def run(words: Sequence[str], settings: Settings, meanwhile: Callable[[], None] = lambda: None) -> Ended:
    """Run the command in its project and return its result; ``meanwhile`` is called regularly.

    Raises :class:`~ecommerce_worker.errors.Misconfigured` if there is no such project or Python.
    """
    if not settings.DJANGO_PROJECT_SETTINGS:
        raise Misconfigured(['DJANGO_PROJECT_SETTINGS is not set: it names the project whose commands are run'])
    environment = {**environment_for_others(), 'PYTHONUNBUFFERED': '1', **settings.DJANGO_PROJECT_ENVIRONMENT,
                   'DJANGO_SETTINGS_MODULE': settings.DJANGO_PROJECT_SETTINGS}
    program = [settings.DJANGO_PROJECT_PYTHON or sys.executable, '-c', _PROGRAM.format('django'), *words]
    secrets = [value for name, value in settings.DJANGO_PROJECT_ENVIRONMENT.items() if mask(name, value) == '***']
    try:
        return _run(program, settings.MANAGEMENT_COMMAND_TIMEOUT, environment=environment,
                    directory=settings.DJANGO_PROJECT_DIRECTORY or None, secrets=secrets, meanwhile=meanwhile)
    except OSError as error:
        problem = f'DJANGO_PROJECT_PYTHON or DJANGO_PROJECT_DIRECTORY cannot be used: {error.strerror}'
        raise Misconfigured([problem]) from None


def run_ours(words: Sequence[str], timeout: float) -> tuple[Ended, Any]:
    """Run ``ecommerce-worker`` with these words and ``--json``, where and with what this worker runs.

    How it ended, with the end of what it says to people, and what it says to programs; None if it does not.
    ``timeout`` is in seconds.  Raises OSError if this machine cannot start a process now.
    """
    program = [sys.executable, '-c', _PROGRAM.format('ecommerce_worker'), *words, '--json']
    with tempfile.TemporaryFile() as output:
        ended = _run(program, timeout, output=output)
        output.seek(0)
        try:
            return ended, json.load(output)
        except ValueError:
            return ended, None


def _run(program: Sequence[str], timeout: float, *, environment: Mapping[str, str] | None = None,
         directory: str | None = None, secrets: Collection[str] = (),
         meanwhile: Callable[[], None] = lambda: None, output: IO[bytes] | None = None) -> Ended:
    started = time.monotonic()
    process = subprocess.Popen(  # noqa: S603 - words of an allow-listed command, or our own, and no shell
        program, env=environment, cwd=directory, stdin=subprocess.DEVNULL,
        stdout=output or subprocess.PIPE, stderr=subprocess.PIPE if output else subprocess.STDOUT,
        start_new_session=True)
    with process:
        try:
            tail = _watch(process, started + timeout, meanwhile)
            status = process.returncode
        finally:
            _end(process)
    return Ended(status, time.monotonic() - started, masked_tail(tail.decode(errors='replace'), secrets))


def _watch(process: subprocess.Popen[bytes], until: float, meanwhile: Callable[[], None]) -> bytes:
    """Read the output until the process exits or the time limit; returns the end of it."""
    pipe = process.stdout or process.stderr
    assert pipe  # noqa: S101 - one of them is
    output = pipe.fileno()
    os.set_blocking(output, False)
    poll = select.poll()
    poll.register(output, select.POLLIN)
    tail, is_open = b'', True
    while True:
        ended = process.poll() is not None
        # Not for ever: something that it has left behind may go on writing.
        for _ in range(64):
            try:
                read = os.read(output, 65_536)
            except BlockingIOError:
                break
            if not read:
                is_open = False
                break
            tail = (tail + read)[-TAIL_BYTES:]
        if ended or time.monotonic() > until:
            return tail
        meanwhile()
        rest = max(0.0, min(LOOK_SECONDS, until - time.monotonic()))
        if is_open:
            poll.poll(rest * 1000 + 1)
        else:
            time.sleep(min(0.05, rest))


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the process, if it still runs, and everything it has started."""
    if process.poll() is not None:
        return
    # While it is not waited for, the group's number cannot be anyone else's.
    os.killpg(process.pid, signal.SIGTERM)
    until = time.monotonic() + GRACE_SECONDS
    while time.monotonic() < until and not _is_over(process.pid):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _is_over(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def masked_tail(output: str, secrets: Collection[str] = ()) -> str:
    """The last lines of an output, without mail addresses and anything that looks like a secret."""
    for secret in secrets:
        output = output.replace(secret, '***')
    lines = [_SECRET.sub(r'\1***', _ADDRESS.sub('***', mask('', line))) for line in output.splitlines() if line.strip()]
    return '\n'.join(lines[-TAIL_LINES:])
