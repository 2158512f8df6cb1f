"""The worker's Celery application: where settings, topology and consumer come together.

``celery -A ecommerce_worker.celery_app:app worker`` and ``ecommerce-worker worker`` run the same.
"""

from __future__ import annotations

import logging
import logging.config
from typing import Any

from celery import Celery
from celery.app.defaults import _TO_NEW_KEY  # the only complete table of old names
from celery.signals import setup_logging, worker_init

from ecommerce_worker import runtime, topology
from ecommerce_worker.settings import Settings

logger = logging.getLogger(__name__)

#: Seconds after which a socket of the broker's that neither takes nor gives anything is given up.
SOCKET_SECONDS = 15

#: Celery's loggers that say at INFO what our own line of a run says better; together a sixth of a worker's CPU.
TOO_TALKATIVE = ('celery.app.trace', 'celery.worker.strategy', 'kombu', 'amqp', 'urllib3')


def create_app(settings: Settings) -> Celery:
    """The application of these settings; connects to nothing yet."""
    app = Celery('ecommerce_worker', set_as_current=True)
    app.config_from_object(celery_settings(settings))
    return app


def celery_settings(settings: Settings) -> dict[str, Any]:
    """Celery's settings under their present names: ours, overlaid with what the operator set for Celery itself."""
    return {
        'broker_url': settings.BROKER_URL,
        'broker_pool_limit': settings.BROKER_POOL_LIMIT,
        'broker_connection_timeout': settings.BROKER_CONNECTION_TIMEOUT,
        'broker_heartbeat': settings.BROKER_HEARTBEAT,
        'broker_heartbeat_checkrate': settings.BROKER_HEARTBEAT_CHECKRATE,
        'broker_connection_retry_on_startup': True,
        'broker_connection_max_retries': None,
        'broker_transport_options': {**_transport_options(settings), **settings.BROKER_TRANSPORT_OPTIONS},
        'imports': tuple(settings.CELERY_IMPORTS),
        'accept_content': ['json'],  # what Celery itself may decode; tasks are read by `wire`
        'task_serializer': 'json',
        'result_serializer': 'json',
        'event_serializer': 'json',
        'result_backend': settings.CELERY_RESULT_BACKEND,
        'task_always_eager': settings.CELERY_ALWAYS_EAGER,
        'task_ignore_result': True,
        'task_acks_late': True,
        'task_reject_on_worker_lost': True,
        'task_acks_on_failure_or_timeout': False,
        'task_default_queue': settings.CELERY_DEFAULT_QUEUE,
        'task_default_exchange': settings.CELERY_DEFAULT_EXCHANGE,
        'task_default_routing_key': settings.CELERY_DEFAULT_ROUTING_KEY,
        'task_queues': [topology.task_queue(name, settings.QUEUE_TYPE) for name in settings.QUEUES],
        'worker_consumer': 'ecommerce_worker.worker.consumer:Consumer',
        'worker_pool': settings.WORKER_POOL,
        'worker_concurrency': settings.WORKER_CONCURRENCY,
        'worker_prefetch_multiplier': 1,
        'worker_cancel_long_running_tasks_on_connection_loss': False,
        'worker_hijack_root_logger': settings.CELERYD_HIJACK_ROOT_LOGGER,
        **{_TO_NEW_KEY.get(name, name.lower()): value for name, value in settings.extra.items()},
    }


def _transport_options(settings: Settings) -> dict[str, Any]:
    if not str(settings.BROKER_URL).startswith(('amqp', 'pyamqp', '[')):
        return {}
    return {'confirm_publish': True, 'connect_timeout': settings.BROKER_CONNECTION_TIMEOUT,
            'read_timeout': SOCKET_SECONDS, 'write_timeout': SOCKET_SECONDS}


@setup_logging.connect
def configure_logging(loglevel: int | str | None = None, **_: Any) -> None:
    """Configure logging as ``LOGGING`` and ``LOG_LEVEL`` say; a level given on the command line wins."""
    settings = runtime.current().settings
    if settings.LOGGING:
        logging.config.dictConfig(settings.LOGGING)
    for name in TOO_TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    given = loglevel if loglevel not in (None, logging.WARNING, 'WARNING') else settings.LOG_LEVEL
    logging.getLogger().setLevel(given)


@worker_init.connect
def show_configuration(**_: Any) -> None:
    """Say at start what is in force that is not a default, secrets masked."""
    for name, value, source in runtime.current().settings.rows():
        if source != 'default':
            logger.info('configuration: %s=%s from="%s"', name, value, source)


app = create_app(runtime.current().settings)
