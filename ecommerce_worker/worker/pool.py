"""The thread pool, with twice the threads that one lane may have: see :mod:`ecommerce_worker.worker.lanes`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from celery.concurrency import thread


class TaskPool(thread.TaskPool):
    """Celery's thread pool, with room for others while one site keeps ``WORKER_CONCURRENCY`` threads busy."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.room = 2 * self.limit
        # Threads are created on demand.
        self.executor = ThreadPoolExecutor(self.room)
