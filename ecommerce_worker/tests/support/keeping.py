"""What a worker's keeper does, for tests without a worker."""

from __future__ import annotations

from typing import Any

from celery.exceptions import Ignore

from ecommerce_worker import runtime
from ecommerce_worker.broker import publishing
from ecommerce_worker.execution.outcomes import Handover
from ecommerce_worker.execution.task import Task


def settled(task: Task, *args: Any, **kwargs: Any) -> Ignore | None:
    """What Celery hears of a run in the end, all that follows from it being published; None if it was done."""
    try:
        task(*args, **kwargs)
    except Handover as handover:
        for publication in handover.publications:
            publishing.publish(task.app, publication)
        runtime.current().runs.secured(handover.run)
        return None if handover.report and handover.report.outcome == 'done' else Ignore()
    except Ignore as word:
        return word
    return None
