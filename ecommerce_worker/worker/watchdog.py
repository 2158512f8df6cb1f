"""Watching runs: one that exceeds its bound has lost its thread, and too many of those end the process.

A thread cannot be killed, so a run that hangs in C keeps it until the process ends.  A supervisor restarts that.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from contextlib import suppress
from os import EX_TEMPFAIL
from typing import TYPE_CHECKING, Final

from ecommerce_worker import logs, runtime
from ecommerce_worker.process import status
from ecommerce_worker.worker import shutdown

if TYPE_CHECKING:
    from ecommerce_worker.worker.consumer import Consumer
    from ecommerce_worker.worker.request import Request

logger = logs.of(__name__)

#: Seconds between two checks of waiting messages, and after how many of them runs are checked.
LOOK_SECONDS: Final = 0.25
RARELY: Final = 4

#: The worker ends when one thread in so many is lost.
SHARE: Final = 4


class Watchdog:
    """A thread that checks the lanes of a consumer for the life of the process."""

    def __init__(self, consumer: Consumer, room: int) -> None:
        self._consumer = consumer
        self._room = room
        self._lost: set[int] = set()
        self._given_up = False

    def start(self) -> None:
        """Start watching."""
        threading.Thread(target=self._run, name='watchdog', daemon=True).start()

    def _run(self) -> None:
        looks = 0
        while True:
            time.sleep(LOOK_SECONDS)
            try:
                self._consumer.lanes.look()
                looks += 1
                if looks % RARELY == 0:
                    self.look()
            except Exception:
                logger.exception('the watchdog failed')

    def look(self) -> None:
        """Handle runs that exceed their bound."""
        running = self._consumer.lanes.running()
        lost = [request for _, request, _ in running if self._is_lost(request)]
        for request in lost:
            if id(request) not in self._lost:
                self._report(request)
        self._lost = {id(request) for request in lost}
        # A child that was killed is replaced; a thread is not.
        lost = [request for request in lost if request.worker_pid == os.getpid()]
        if not lost or len(lost) * SHARE < self._room:
            return
        if not self._given_up:
            self._given_up = True
            logger.critical('too many threads are stuck, the worker exits so that it is restarted', lost=len(lost),
                            of=self._room, status=EX_TEMPFAIL)
            status.ends_with(EX_TEMPFAIL)
            os.kill(os.getpid(), signal.SIGTERM)
        elif len(lost) == len(running) and self._consumer.keeper.end(0) and self._consumer.finish():
            # All that was sound has ended, and is acknowledged.
            shutdown.leave('at once')

    def _is_lost(self, request: Request) -> bool:
        if request.began is None:
            return False
        settings = runtime.current().settings
        bound = settings.LONGEST_RUN + type(request.task).longest(settings)
        return bool(time.monotonic() - request.began > bound)

    def _report(self, request: Request) -> None:
        call = request.delivery.call
        where = ''
        if request.worker_pid == os.getpid():
            # Source lines only: values may be private.
            frame = sys._current_frames().get(request.thread or 0)  # noqa: SLF001 - there is no other way
            where = ''.join(traceback.format_stack(frame)) if frame else ''
        logger.error('a run does not end', task=call.task, key=request.task.key_of(call), id=call.id,
                     pid=request.worker_pid, seconds=round(time.monotonic() - (request.began or 0)), detail=where)
        if request.worker_pid and request.worker_pid != os.getpid():
            # A child can be ended: its message is delivered again, which is counted.
            with suppress(ProcessLookupError):
                os.kill(request.worker_pid, signal.SIGKILL)
        else:
            self._consumer.let_go(request)
