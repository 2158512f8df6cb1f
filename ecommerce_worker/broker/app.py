"""The Celery application with these settings; not connected yet."""

from __future__ import annotations

import ssl
from typing import Any

from celery import Celery
from celery.app.defaults import _TO_NEW_KEY  # the only complete table of old names
from kombu import Connection

from ecommerce_worker.broker import publishing, topology
from ecommerce_worker.settings import Settings, broker_scheme, broker_urls

#: Seconds after which a socket of the broker's that neither takes nor gives anything is given up.
SOCKET_SECONDS = 15


class Application(Celery):
    """Celery's application, whose broker and result backend are those of the settings, read by a reader of our own.

    Celery would let ``CELERY_BROKER_URL`` and the like in the environment silently override them.
    """

    amqp_cls = 'ecommerce_worker.broker.consuming:AMQP'
    control_cls = 'ecommerce_worker.broker.mailbox:Control'

    def connection_for_read(self, url: Any = None, **options: Any) -> Connection:
        """A connection for consuming, not open yet."""
        return super().connection_for_read(url or self._configured('broker_read_url'), **options)

    def connection_for_write(self, url: Any = None, **options: Any) -> Connection:
        """A connection for publishing, not open yet."""
        return super().connection_for_write(url or self._configured('broker_write_url'), **options)

    def connection(self, hostname: Any = None, **options: Any) -> Connection:
        """A connection for either, not open yet."""
        return super().connection(hostname or self._configured('broker_write_url'), **options)

    def _configured(self, name: str) -> Any:
        # By key: the attributes of these names are what looks into the environment.
        return self.conf.get(name) or self.conf.get('broker_url')


def celery_settings(settings: Settings) -> dict[str, Any]:
    """Celery's settings under their present names: ours, overlaid with what the operator set for Celery itself."""
    return {
        'broker_url': settings.BROKER_URL,
        'broker_use_ssl': _tls(settings),
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
        'beat_scheduler': 'ecommerce_worker.schedule.beat:Scheduler',
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


def _tls(settings: Settings) -> dict[str, Any] | None:
    """``BROKER_USE_SSL`` in the transport's form; None leaves it to the URL."""
    if not settings.BROKER_USE_SSL:
        return None
    options: dict[str, Any] = {} if settings.BROKER_USE_SSL is True else {**settings.BROKER_USE_SSL}
    verifying = options.pop('cert_reqs', 'required')
    checking = options.pop('check_hostname', verifying == 'required')
    mode = ssl.VerifyMode[f'CERT_{verifying.upper()}']
    if broker_scheme(settings) == 'redis':
        return {'ssl_cert_reqs': mode, 'ssl_check_hostname': checking,
                **{f'ssl_{name}': value for name, value in options.items()}}
    if not checking:
        options.pop('server_hostname', None)
    elif len(broker_urls(settings)) == 1:
        # None: kombu takes the host of the URL; of several it would take the first for all.
        options.setdefault('server_hostname', None)
    return {**options, 'cert_reqs': mode}


def _transport_options(settings: Settings) -> dict[str, Any]:
    if broker_scheme(settings) in ('redis', 'sentinel'):
        # Every ten seconds it is looked for what killed workers had in hand.
        return {'visibility_timeout': publishing.VISIBILITY_TIMEOUT, 'unacked_restore_throttle': 1}
    if broker_scheme(settings) != 'amqp':
        return {}
    return {'confirm_publish': True, 'connect_timeout': settings.BROKER_CONNECTION_TIMEOUT,
            'read_timeout': SOCKET_SECONDS, 'write_timeout': SOCKET_SECONDS}
