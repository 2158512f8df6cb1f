"""What happens when a worker starts, beside Celery's own."""

from __future__ import annotations

import warnings
from typing import Any

from celery.exceptions import CPendingDeprecationWarning
from celery.signals import celeryd_after_setup, worker_ready

from ecommerce_worker import logs, runtime
from ecommerce_worker.telemetry import serving
from ecommerce_worker.worker import figures
from ecommerce_worker.worker.shutdown import Ending, in_time

logger = logs.of(__name__)

#: How Celery's advice begins about a default that it will change, which it gives after each lost connection.
ADVICE = r'\s*In Celery 5\.1 we introduced an optional breaking change'


@celeryd_after_setup.connect
def show_configuration(**_: Any) -> None:
    """Say at start, once there is a log, what is in force that is not a default, secrets masked."""
    for name, value, source in runtime.current().settings.rows():
        if source != 'default':
            fields: dict[str, Any] = {name: value, 'from': source}
            logger.info('configuration', **fields)


@celeryd_after_setup.connect
def show_health(instance: Any, **_: Any) -> None:
    """From now on it can be seen how this worker is; its consumer is made, and tells what it does."""
    current = runtime.current()
    if counted := serving.begin('worker', current.settings, tasks=instance.app.tasks):
        counted.of_children()
        figures.of(instance.consumer, counted)
        current.listeners.add(counted)


@celeryd_after_setup.connect
def silence_advice(**_: Any) -> None:
    """Keep Celery's advice on a setting that was made on purpose out of the log; its own filters came before."""
    warnings.filterwarnings('ignore', ADVICE, CPendingDeprecationWarning)


@celeryd_after_setup.connect
def leave_the_banner_out(instance: Any, **_: Any) -> None:
    """Keep Celery's picture of itself out of logs that machines read."""
    instance.quiet = instance.quiet or runtime.current().settings.LOG_FORMAT == 'json'


celeryd_after_setup.connect(in_time, weak=False)
worker_ready.connect(Ending().install, weak=False)
