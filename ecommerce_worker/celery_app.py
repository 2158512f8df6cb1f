"""The worker's Celery application: where settings, topology and consumer come together.

``celery -A ecommerce_worker.celery_app:app worker`` and ``ecommerce-worker worker`` run the same.
"""

from __future__ import annotations

import logging
import logging.config
import warnings
from typing import Any

from celery import Celery
from celery.app.defaults import _TO_NEW_KEY  # the only complete table of old names
from celery.exceptions import CPendingDeprecationWarning
from celery.signals import (
    celeryd_after_setup,
    setup_logging,
    worker_process_init,
    worker_process_shutdown,
    worker_ready,
    worker_shutdown,
)
from kombu import Connection

from ecommerce_worker import runtime, topology
from ecommerce_worker.observe import word
from ecommerce_worker.settings import Settings
from ecommerce_worker.worker.shutdown import Ending
from ecommerce_worker.worker.telling import Teller
from ecommerce_worker.worker.wakeup import WakeUp

logger = logging.getLogger(__name__)

#: Seconds after which a socket of the broker's that neither takes nor gives anything is given up.
SOCKET_SECONDS = 15

#: Loggers that say what our own line of a run says better, and the level from which they say more; at INFO, together a
#: sixth of a worker's CPU, and a stack for each message that is given back.
TOO_TALKATIVE = {'celery.app.trace': logging.ERROR, 'celery.worker.strategy': logging.WARNING,
                 'kombu': logging.WARNING, 'amqp': logging.WARNING, 'urllib3': logging.WARNING}


#: How Celery's advice begins about a default that it will change, which it gives after each lost connection.
ADVICE = r'\s*In Celery 5\.1 we introduced an optional breaking change'


class Application(Celery):
    """Celery's application, whose broker and result backend are those of the settings.

    Celery would let ``CELERY_BROKER_URL`` and the like of the environment overrule them, without a word.
    """

    def connection_for_read(self, url: Any = None, **options: Any) -> Connection:
        """A connection to consume by, not open yet."""
        return super().connection_for_read(url or self._configured('broker_read_url'), **options)

    def connection_for_write(self, url: Any = None, **options: Any) -> Connection:
        """A connection to publish by, not open yet."""
        return super().connection_for_write(url or self._configured('broker_write_url'), **options)

    def connection(self, hostname: Any = None, **options: Any) -> Connection:
        """A connection for either, not open yet."""
        return super().connection(hostname or self._configured('broker_write_url'), **options)

    def _configured(self, name: str) -> Any:
        # By key: the attributes of these names are what looks into the environment.
        return self.conf.get(name) or self.conf.get('broker_url')


def create_app(settings: Settings) -> Application:
    """The application of these settings; connects to nothing yet."""
    app = Application('ecommerce_worker', set_as_current=True)
    app.config_from_object(celery_settings(settings))
    app.backend_cls = settings.CELERY_RESULT_BACKEND or 'disabled'
    app.steps['worker'].add(WakeUp)
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
        'beat_scheduler': 'ecommerce_worker.beat:Scheduler',
        'worker_consumer': 'ecommerce_worker.worker.consumer:Consumer',
        'worker_pool': settings.WORKER_POOL,
        'worker_concurrency': settings.WORKER_CONCURRENCY,
        'worker_prefetch_multiplier': 1,
        'worker_cancel_long_running_tasks_on_connection_loss': False,
        # It has threads wait for an answer of RabbitMQ on the socket that the event loop reads (decision 0006).
        'worker_enable_prefetch_count_reduction': False,
        'worker_hijack_root_logger': settings.CELERYD_HIJACK_ROOT_LOGGER,
        **{_TO_NEW_KEY.get(name, name.lower()): value for name, value in settings.extra.items()},
    }


def _transport_options(settings: Settings) -> dict[str, Any]:
    if str(settings.BROKER_URL).startswith(('redis', 'sentinel')):
        # Every ten seconds it is looked for what killed workers had in hand.
        return {'visibility_timeout': topology.VISIBILITY_TIMEOUT, 'unacked_restore_throttle': 1}
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
    for name, level in TOO_TALKATIVE.items():
        logging.getLogger(name).setLevel(level)
    # A number is what Celery says where nobody said anything.
    given = loglevel if loglevel not in (None, logging.WARNING) else settings.LOG_LEVEL
    logging.getLogger().setLevel(given)


@celeryd_after_setup.connect
def show_configuration(**_: Any) -> None:
    """Say at start, once there is a log, what is in force that is not a default, secrets masked."""
    for name, value, source in runtime.current().settings.rows():
        if source != 'default':
            logger.info('configuration: %s=%s from=%s', name, word(value), word(source))


@celeryd_after_setup.connect
def silence_advice(**_: Any) -> None:
    """Keep Celery's advice on a setting that was made on purpose out of the log; its own filters came before."""
    warnings.filterwarnings('ignore', ADVICE, CPendingDeprecationWarning)


@celeryd_after_setup.connect
def tell_the_ledger(**_: Any) -> None:
    """Publish a fact of each run, on brokers that let the ledger's queue grow no further than it should."""
    current = runtime.current()
    if current.settings.PUBLISH_FACTS and topology.has_waiting_room(app.connection_for_write()):
        current.listeners.append(Teller(app))


worker_ready.connect(Ending().install, weak=False)


def _tellers() -> list[Teller]:
    return [listener for listener in runtime.current().listeners if isinstance(listener, Teller)]


@worker_process_init.connect
def tell_from_a_child(**_: Any) -> None:
    """In each process of a prefork pool."""
    for teller in _tellers():
        teller.begin()


@worker_shutdown.connect
@worker_process_shutdown.connect
def tell_the_last(**_: Any) -> None:
    """Publish what is left before the process ends."""
    for teller in _tellers():
        teller.end()


app = create_app(runtime.current().settings)
