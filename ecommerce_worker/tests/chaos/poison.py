"""A task that kills the process that runs it, each time: for workers of the chaos suite, by way of CELERY_IMPORTS."""

from __future__ import annotations

import os
import signal

from ecommerce_worker.execution.task import Task, task


@task(policy=lambda site: site.fulfillment_policy, key='order_number')
def die(self: Task, order_number: str) -> None:
    """End the process as the kernel does when there is no memory left."""
    os.kill(os.getpid(), signal.SIGKILL)
