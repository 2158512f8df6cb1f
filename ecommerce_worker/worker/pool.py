"""The thread pool, with twice the threads that one lane may have: see :mod:`ecommerce_worker.worker.lanes`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Final

from celery.concurrency import thread

from ecommerce_worker import logs

logger = logs.of(__name__)

Act = Callable[[], None]


class Threads:
    """Threads that are started when none is free, ``room`` at most.

    What a thread puts while it runs something it runs itself, next: where one run's end makes room for another, no
    other thread need be woken.  Unlike the executor of the standard library it makes no future of what is put.
    """

    def __init__(self, room: int) -> None:
        self._room: Final = room
        self._queue: SimpleQueue[Act | None] = SimpleQueue()
        self._lock = threading.Lock()
        #: How many threads wait, less what waits for one.
        self._free = 0
        self._closed = False
        self._own = threading.local()
        #: As Celery's pool has them.
        self._threads: set[threading.Thread] = set()

    def put(self, act: Act) -> None:
        """Have it run soon; raises RuntimeError once closed."""
        if (mine := getattr(self._own, 'next', None)) == [] and not self._closed:
            mine.append(act)
            return
        with self._lock:
            if self._closed:
                raise RuntimeError('the pool is closed')
            if self._free > 0 or len(self._threads) == self._room:
                self._free -= 1
            else:
                started = threading.Thread(target=self._run, name=f'run-{len(self._threads)}', daemon=True)
                self._threads.add(started)
                started.start()
            self._queue.put(act)

    def submit(self, act: Callable[..., Any], *given: Any) -> Future[Any]:
        """As executors have it."""
        future: Future[Any] = Future()
        self.put(partial(_into, future, act, *given))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more, and return when all that runs has ended; what does not run yet is dropped if asked to."""
        with self._lock:
            self._closed = True
            threads = list(self._threads)
            if cancel_futures:
                try:
                    while True:
                        self._queue.get_nowait()
                except Empty:
                    pass
            for _ in threads:
                self._queue.put(None)
        for each in threads if wait else ():
            each.join()

    def _run(self) -> None:
        mine: list[Act] = []
        self._own.next = mine
        while (act := self._queue.get()) is not None:
            mine.append(act)
            while mine:
                try:
                    mine.pop()()
                except BaseException as error:  # noqa: BLE001 - the thread is there for others too
                    logger.error('unexpected error in a thread of the pool', error=type(error).__name__)
            with self._lock:
                self._free += 1


def _into(future: Future[Any], act: Callable[..., Any], *given: Any) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = act(*given)
    except BaseException as error:  # noqa: BLE001 - raised in the waiting thread
        future.set_exception(error)
    else:
        future.set_result(result)


class TaskPool(thread.TaskPool):
    """Celery's thread pool, with room for others while one site keeps ``WORKER_CONCURRENCY`` threads busy."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.room = 2 * self.limit
        self.executor = Threads(self.room)

    def put(self, act: Act) -> None:
        """Run it in a thread, without a result; raises RuntimeError once the pool is closed."""
        self.executor.put(act)
