"""Tasks that kill or block what runs them, each time: for workers of the chaos suite, by way of CELERY_IMPORTS."""

from __future__ import annotations

import ctypes
import os
import signal

from ecommerce_worker.execution.task import Task, task


@task(policy=lambda site: site.fulfillment_policy, key='order_number')
def die(self: Task, order_number: str) -> None:
    """End the process as the kernel does when there is no memory left."""
    os.kill(os.getpid(), signal.SIGKILL)


@task(policy=lambda site: site.fulfillment_policy, key='order_number')
def hang(self: Task, order_number: str) -> None:
    """Hang where Python cannot end it, as in a driver without a time-out."""
    ctypes.CDLL(None).pause()
