"""All processes of a small site under one parent: recorder, worker, console, beat, intake, started in this order.

The first one stops last.

    started ──exits──► waits 1, 2, 4 … 60 s ──► started again …
        └─────SIGTERM──────► running tasks finish ──► exits          (the recorder after the others)

Each child is an ordinary command in a session of its own, so that Ctrl-C reaches it only through us.  If `up` is
killed, its children are stopped by the kernel.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from circus.arbiter import Arbiter  # type: ignore[import-untyped]
from circus.exc import ConflictError  # type: ignore[import-untyped]
from circus.process import UNEXISTING  # type: ignore[import-untyped]
from circus.watcher import Watcher  # type: ignore[import-untyped]
from tornado.ioloop import IOLoop

from ecommerce_worker.process import ending, json_lines, output, pulse
from ecommerce_worker.process.ending import ENDS
from ecommerce_worker.process.several import GRACE, next_pause
from ecommerce_worker.settings import Settings

#: The commands in the order in which they start, consumers before producers; the last one only if INTAKES has any.
CHILDREN: Final = ('recorder', 'worker', 'console', 'beat', 'intake')

#: Minimum seconds for the recorder to stop, after the others have.
LAST: Final = 1.0

#: Seconds between two checks of the children.
CHECK_SECONDS: Final = 0.5

#: An address inside this process only, so that nobody else can control the children.
INSIDE: Final = ('inproc://up-commands', 'inproc://up-events')


def run(settings: Settings, say: Callable[[str], None], *, debug: bool = False) -> None:
    """Keep the children running until SIGTERM, SIGINT, SIGHUP or SIGQUIT; ``say`` gets their lines and our own."""
    asyncio.run(_run(settings, say, debug=debug))


class Lines:
    """Prints the output of a child line by line, each with the name of the child in front.

    In JSON our own lines have the name already, and other lines are turned into JSON.
    """

    def __init__(self, name: str, say: Callable[[str], None], *, is_json: bool = False) -> None:
        self._name = name
        self._prefix = f'{name:8} | '
        self._say = say
        self._is_json = is_json
        self._begun: dict[tuple[int, str], bytes] = {}

    def __call__(self, piece: dict[str, Any]) -> None:
        """Handle data read from one of its pipes."""
        pipe = (piece['pid'], piece['name'])
        *lines, rest = (self._begun.pop(pipe, b'') + piece['data']).split(b'\n')
        if rest:
            self._begun[pipe] = rest
        for line in lines:
            self._tell(line)

    def close(self) -> None:
        """Print a last line without a line break."""
        for rest in self._begun.values():
            self._tell(rest)
        self._begun.clear()

    def _tell(self, line: bytes) -> None:
        if not self._is_json:
            self._say(self._prefix + line.decode(errors='replace'))
        elif line.startswith(b'{"@timestamp":'):
            output.pass_on(line)
        elif line.strip():
            said = json_lines.line('info', line.decode(errors='replace'), created=time.time(), by=self._name)
            output.pass_on(said.encode())


class Child(Watcher):
    """One of our commands, restarted when it exits."""

    def __init__(self, name: str, settings: Settings, say: Callable[[str], None], *, debug: bool) -> None:
        lines = Lines(name, say, is_json=settings.LOG_FORMAT == 'json')
        options = ['--debug'] if debug else []
        super().__init__(
            name, shlex.quote(sys.executable), args=['-m', 'ecommerce_worker', name, *options],
            graceful_timeout=settings.SHUTDOWN_SECONDS + GRACE,
            copy_env=True, env={'PYTHONUNBUFFERED': '1', ending.PARENT: str(os.getpid())},
            stdout_stream={'stream': lines}, stderr_stream={'stream': lines},
            hooks={'after_spawn': (self._began, False), 'before_reap': (self._let_go, False),
                   'after_reap': (self._ended, False)})
        self._lines = lines
        self._tell = say if settings.LOG_FORMAT == 'json' else lambda line: say(f'up       | {line}')
        self._pause = 0.0
        self._began_at = 0.0
        self._not_before = 0.0

    async def manage_processes(self) -> None:
        """Start it if it should run and does not.

        Circus's own forgets a process that ended since the arbiter last reaped, and calls no hook for it.
        """
        for pid, process in list(self.processes.items()):
            if process.status == UNEXISTING:  # already reaped, by a check whether it is alive
                self.reap_process(pid)
        if not (self.processes or self.is_stopped() or self.is_stopping()):
            await self.spawn_processes()

    async def spawn_processes(self) -> None:
        """Start it, unless its pause has not passed yet."""
        if time.monotonic() >= self._not_before:
            await super().spawn_processes()

    def _began(self, *_: object, **__: object) -> bool:
        self._began_at = time.monotonic()
        return True

    def _let_go(self, *_: object, process_pid: int, **__: object) -> None:
        # Its pipes are closed next; a reader still registered would keep their descriptors from later ones.
        process = self.processes[process_pid]
        if not process.redirected:
            return
        for name, pipe in self.stream_redirector.get_process_pipes(process):
            os.set_blocking(pipe.fileno(), False)
            self._lines({'pid': process_pid, 'name': name, 'data': pipe.read() or b''})
        self.stream_redirector.remove_redirections(process)

    def _ended(self, *_: object, exit_code: int, **__: object) -> None:
        self._lines.close()
        how = f'was killed by signal {-exit_code}' if exit_code < 0 else f'exited with status {exit_code}'
        if self.is_stopping():
            self._tell(f'{self.name} {how}')
            return
        now = time.monotonic()
        self._pause = next_pause(self._pause, now - self._began_at)
        self._not_before = now + self._pause
        self._tell(f'{self.name} {how}; restarting in {self._pause:g} s')


class Supervisor(Arbiter):
    """Circus's arbiter, which refuses two operations at once; checking children can wait for the other one."""

    def manage_watchers(self) -> Any:
        """Reap and start children, unless another operation is running; this is called again soon."""
        pulse.own.beat()
        try:
            return super().manage_watchers()
        except ConflictError:
            return None


async def _run(settings: Settings, say: Callable[[str], None], *, debug: bool) -> None:
    found: list[Child] = []
    # Before there are children: what systemd says is not for them.
    pulse.own.begin('up', seconds=settings.HEALTH_SECONDS, directory=settings.HEALTH_DIR,
                    look=lambda: _standing(found))
    # Not sooner: each takes the loop that it is made in.
    found += [Child(name, settings, say, debug=debug) for name in CHILDREN
              if name != 'intake' or settings.INTAKES]
    arbiter = Supervisor(_in_order(found), *INSIDE, loop=IOLoop.current(), check_delay=CHECK_SECONDS)
    stopped = asyncio.Event()
    for number in ENDS:
        # Replaces the arbiter's own handlers, which would stop all children at once, and restart all on SIGHUP.
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    await arbiter.start()
    await stopped.wait()
    # Otherwise it would keep trying to start children, and complain.
    arbiter.ctrl.caller.stop()
    seconds = settings.SHUTDOWN_SECONDS + GRACE
    pulse.own.ends(seconds + 2 * LAST)
    ending.countdown(seconds + 2 * LAST)
    over = time.monotonic() + seconds
    recorder, *others = found
    await asyncio.gather(*(child.kill_processes() for child in others))
    recorder.graceful_timeout = max(LAST, over - time.monotonic())
    for child in reversed(found):
        await _in_turn(child.stop)
    await _in_turn(arbiter.stop)


def _standing(found: list[Child]) -> tuple[str, str]:
    """See :class:`~ecommerce_worker.process.pulse.Pulse`: each of them reports its own state."""
    absent = [child.name for child in found if not child.processes]
    return f'{", ".join(absent)} not started yet' if absent else '', f'{len(found)} processes'


def _in_order(found: list[Child]) -> list[Child]:
    """The watchers with priorities: the arbiter starts the highest first."""
    for priority, child in enumerate(reversed(found)):
        child.priority = priority
    return found


async def _in_turn(act: Callable[[], Awaitable[None]]) -> None:
    """Run the operation as soon as the arbiter is idle."""
    while True:
        try:
            await act()
        except ConflictError:
            await asyncio.sleep(0.05)
        else:
            return
