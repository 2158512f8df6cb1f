"""Handlers of Celery's signals when a worker starts."""

from __future__ import annotations

import warnings
from typing import Any

from celery.exceptions import CPendingDeprecationWarning
from celery.signals import celeryd_after_setup, worker_ready

from ecommerce_worker import logs, runtime
from ecommerce_worker.health import machine
from ecommerce_worker.telemetry import serving
from ecommerce_worker.worker import figures
from ecommerce_worker.worker.shutdown import Ending, in_time

logger = logs.of(__name__)

#: The start of Celery's warning about a default that will change, given after each lost connection.
ADVICE = r'\s*In Celery 5\.1 we introduced an optional breaking change'


@celeryd_after_setup.connect
def show_configuration(**_: Any) -> None:
    """Log the settings that are not defaults, secrets masked, once logging is set up."""
    for name, value, source in runtime.current().settings.rows():
        if source != 'default':
            fields: dict[str, Any] = {name: value, 'from': source}
            logger.info('configuration', **fields)


@celeryd_after_setup.connect
def show_health(instance: Any, **_: Any) -> None:
    """Report the health of this worker from now on, once its consumer exists."""
    current = runtime.current()
    if counted := serving.begin('worker', current.settings, tasks=instance.app.tasks):
        counted.of_children()
        figures.of(instance.consumer, counted)
        current.listeners.add(counted)


@celeryd_after_setup.connect
def silence_advice(**_: Any) -> None:
    """Suppress Celery's warning about a setting that is deliberate; its own filters came before."""
    warnings.filterwarnings('ignore', ADVICE, CPendingDeprecationWarning)


@celeryd_after_setup.connect
def warn_of_the_machine(**_: Any) -> None:
    """Say at start what is wrong with this machine, as far as it costs nothing to know."""
    for finding in machine.findings(runtime.current().settings):
        logger.warning('a problem with this machine', problem=finding.sentence, remedy=finding.remedy)


@celeryd_after_setup.connect
def leave_the_banner_out(instance: Any, **_: Any) -> None:
    """Keep Celery's picture of itself out of logs that machines read."""
    instance.quiet = instance.quiet or runtime.current().settings.LOG_FORMAT == 'json'


celeryd_after_setup.connect(in_time, weak=False)
worker_ready.connect(Ending().install, weak=False)
