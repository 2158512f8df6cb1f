"""The worker's Celery application: where settings, topology and consumer come together.

``celery -A ecommerce_worker.celery_app:app worker`` and ``ecommerce-worker worker`` run the same.
"""

from __future__ import annotations

import logging
import logging.config
import sys
from logging.handlers import WatchedFileHandler
from typing import Any

from celery.concurrency import ALIASES
from celery.signals import (
    celeryd_after_setup,
    setup_logging,
    worker_process_init,
    worker_process_shutdown,
    worker_shutdown,
)

from ecommerce_worker import logs, runtime
from ecommerce_worker.broker import topology
from ecommerce_worker.broker.app import Application, celery_settings
from ecommerce_worker.broker.facts import CONFIRM_SECONDS, Reporter
from ecommerce_worker.fulfillment.names import REPEATABLE
from ecommerce_worker.process import output
from ecommerce_worker.settings import Settings, queue_remarks
from ecommerce_worker.worker import (
    command_line,
    signals,  # noqa: F401 - connects them
)
from ecommerce_worker.worker.wakeup import WakeUp

logger = logs.of(__name__)

#: Loggers that say what our own line of a run says better, and the level from which they say more; at INFO, together a
#: sixth of a worker's CPU, and a stack for each message that is given back.
TOO_TALKATIVE = {'celery.app.trace': logging.ERROR, 'celery.worker.strategy': logging.WARNING,
                 'kombu': logging.WARNING, 'amqp': logging.WARNING, 'urllib3': logging.WARNING}

#: Libraries through whose hands messages, requests and rows go: at DEBUG they show what is in them, whatever the level
#: that we are asked for.
SEE_CONTENTS = ('amqp', 'axes', 'billiard', 'celery', 'django', 'http', 'kombu', 'redis', 'requests', 'smtplib',
                'tornado', 'urllib3', 'vine', 'waitress')


def create_app(settings: Settings, cls: type[Application] = Application) -> Application:
    """The application of these settings; connects to nothing yet."""
    app = cls('ecommerce_worker', set_as_current=True)
    app.config_from_object(celery_settings(settings))
    app.backend_cls = settings.CELERY_RESULT_BACKEND or 'disabled'
    app.steps['worker'].add(WakeUp)
    command_line.admit(app)
    command_line.warn(sys.argv[1:])
    if settings.LOG_FORMAT == 'json' and command_line.starts_worker(sys.argv[1:]):
        # Celery has something to say before it has anybody configure logging.
        output.open_standard()
        output.say_in_json()
    # Ours, whether the setting or the command line asks for threads.
    ALIASES['threads'] = 'ecommerce_worker.worker.pool:TaskPool'
    return app


@setup_logging.connect
def configure_logging(loglevel: int | str | None = None, logfile: str | None = None, **_: Any) -> None:
    """Configure logging as ``LOGGING`` and ``LOG_LEVEL`` say; a level or a file given on the command line wins."""
    settings = runtime.current().settings
    if settings.LOGGING:
        logging.config.dictConfig(settings.LOGGING)
    if logfile:
        _log_to(logfile)
    for name in {*SEE_CONTENTS, *logging.getLogger().manager.loggerDict}:
        if name.partition('.')[0] in SEE_CONTENTS and 0 < logging.getLogger(name).level < logging.INFO:
            logging.getLogger(name).setLevel(logging.INFO)
    for name in SEE_CONTENTS:
        if not logging.getLogger(name).level:
            logging.getLogger(name).setLevel(logging.INFO)
    for name, level in TOO_TALKATIVE.items():
        logging.getLogger(name).setLevel(level)
    output.open_log()
    if settings.LOG_FORMAT == 'json':
        output.say_in_json()
    # A number is Celery's default.
    given = loglevel if loglevel not in (None, logging.WARNING) else settings.LOG_LEVEL
    logging.getLogger().setLevel(given)


def _log_to(path: str) -> None:
    """Log to a file instead of the console; if it is moved away, it is opened again."""
    instead = WatchedFileHandler(path, encoding='utf-8')
    loggers = [logging.getLogger(), *(it for it in logging.Logger.manager.loggerDict.values()
                                      if isinstance(it, logging.Logger))]
    for logger_ in loggers:
        for handler in [it for it in logger_.handlers if type(it) is logging.StreamHandler]:
            instead.setLevel(handler.level)
            instead.setFormatter(handler.formatter)
            logger_.removeHandler(handler)
            logger_.addHandler(instead)
    if not logging.getLogger().handlers:
        logging.getLogger().addHandler(instead)


@celeryd_after_setup.connect
def name_strange_queues(instance: Any, **_: Any) -> None:
    """Warn at start about queues without a publisher, and about queues of shops that are not consumed."""
    if instance.app is not app:
        return
    consumed = (queue.name for queue in app.amqp.queues.consume_from.values())
    for remark in queue_remarks(consumed, runtime.current().settings.EXTENSIONS):
        logger.warning('a note on the configuration', note=remark)


@celeryd_after_setup.connect
def tell_the_ledger(instance: Any, **_: Any) -> None:
    """Publish a fact of each run, on brokers that let the ledger's queue grow no further than it should."""
    current = runtime.current()
    if current.settings.PUBLISH_FACTS and topology.is_rabbitmq(instance.app.connection_for_write()):
        reporter = Reporter(instance.app, queue_type=current.settings.QUEUE_TYPE, repeatable=REPEATABLE,
                            published=current.published)
        current.listeners.add(reporter)
        current.safety = reporter


@worker_process_init.connect
def tell_from_a_child(**_: Any) -> None:
    """In each process of a prefork pool."""
    for reporter in runtime.current().listeners.of(Reporter):
        reporter.begin(patience=CONFIRM_SECONDS)


@worker_shutdown.connect
@worker_process_shutdown.connect
def tell_the_last(**_: Any) -> None:
    """Publish what is left before the process ends."""
    for reporter in runtime.current().listeners.of(Reporter):
        reporter.end()


@worker_process_shutdown.connect
def say_the_last(**_: Any) -> None:
    """A child of a prefork pool ends without looking back."""
    output.outlet.flush()


app = create_app(runtime.current().settings)
