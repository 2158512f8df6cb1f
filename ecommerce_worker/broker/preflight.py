"""Checks before a start: is the broker reachable, does it accept our login, is it safe for orders?"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from os import EX_CONFIG, EX_NOPERM, EX_UNAVAILABLE
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amqp.exceptions import AccessRefused, InternalError, NotAllowed, PreconditionFailed
from kombu.exceptions import KombuError

from ecommerce_worker.broker import publishing, topology
from ecommerce_worker.errors import Misconfigured, WorkerError
from ecommerce_worker.settings import DEFAULTS, mask
from ecommerce_worker.words import did_you_mean

if TYPE_CHECKING:
    from celery import Celery
    from kombu import Connection

    from ecommerce_worker.settings import Settings

#: The policies that this worker needs on some versions of RabbitMQ.
POLICIES = 'the policies of deploy/rabbitmq/policies.sh'

#: What starts a broker for development, in a checkout.
MAKEFILE = Path(__file__).parents[2] / 'Makefile'

#: Brokers that keep a message until it is acknowledged.
KEEPS_MESSAGES = ('amqp', 'redis')


class BrokerUnusable(WorkerError):
    """The broker cannot be used: the text says why and what to do; ``exit_status`` is what to end with."""

    def __init__(self, message: str, exit_status: int = EX_UNAVAILABLE) -> None:
        super().__init__(message)
        self.exit_status = exit_status


def import_tasks(app: Celery, settings: Settings) -> None:
    """Import the modules that define the tasks; raises ``Misconfigured`` that names each that cannot be imported."""
    problems = []
    for name in sorted(app.loader.default_modules):
        try:
            app.loader.import_task_module(name)
        except Exception as error:  # noqa: BLE001 - third-party code, which may raise anything
            problems.append(_not_imported(name, error, settings))
    if problems:
        raise Misconfigured(problems)


def _not_imported(name: str, error: Exception, settings: Settings) -> str:
    setting = 'CELERY_IMPORTS' if name in settings.CELERY_IMPORTS else 'include'
    source = settings.sources.get(setting, 'default')
    known = set(DEFAULTS['CELERY_IMPORTS']) - {name} if isinstance(error, ModuleNotFoundError) else ()
    return (('' if source == 'default' else f'{source}: ')
            + f'{setting} names {name}, which cannot be imported: {type(error).__name__}: {error}'
            + did_you_mean(name, known, 0.8))


def connect(app: Celery, settings: Settings) -> Connection:
    """An open connection to the broker; raises :class:`BrokerUnusable`."""
    url = mask('BROKER_URL', settings.BROKER_URL)
    try:
        connection = app.connection_for_write()
        transport = connection.transport
    except (KeyError, ImportError):
        raise BrokerUnusable(f'BROKER_URL {url} names an unknown kind of broker; use amqp://',
                             EX_CONFIG) from None
    try:
        connection.ensure_connection(max_retries=1, interval_start=0, timeout=settings.BROKER_CONNECTION_TIMEOUT * 2)
    except (OSError, KombuError, *transport.connection_errors, *transport.channel_errors) as error:
        connection.release()
        raise _unusable(error, url, settings) from None
    return connection


def _unusable(error: BaseException, url: Any, settings: Settings) -> BrokerUnusable:
    cause = error.__cause__ or error
    if isinstance(cause, AccessRefused):
        return BrokerUnusable(f'the broker refuses the login of {url}: check user and password', EX_NOPERM)
    if isinstance(cause, NotAllowed):
        return BrokerUnusable(f'the broker refuses {url}: its virtual host does not exist or '
                              'the user may not access it (rabbitmqctl list_permissions)', EX_NOPERM)
    if isinstance(cause, ssl.SSLError):
        why = getattr(cause, 'verify_message', '') or cause.reason or cause
        return BrokerUnusable(f'no TLS connection to the broker at {url}: {why}; check BROKER_USE_SSL')
    is_checkout = settings.ALLOW_INSECURE_SECRETS and MAKEFILE.exists()
    hint = '  `make rabbitmq` starts one for development' if is_checkout else ''
    return BrokerUnusable(f'the broker at {url} cannot be reached ({cause}): is it running, is BROKER_URL right?{hint}')


@contextmanager
def permitted() -> Iterator[None]:
    """Raise permission errors within this context as :class:`BrokerUnusable`."""
    try:
        yield
    except AccessRefused as error:
        raise BrokerUnusable(f'the broker denies a permission that the worker needs: {error.message} (rabbitmqctl '
                             'list_permissions)', EX_NOPERM) from None


def refuse_unsafe(connection: Connection, settings: Settings) -> None:
    """Raise :class:`BrokerUnusable` for a broker that loses messages, unless the operator allows it."""
    kind = connection.transport.driver_type
    if kind not in KEEPS_MESSAGES and not settings.ALLOW_UNSAFE_BROKER:
        raise BrokerUnusable(
            f'the {kind} transport loses messages when a worker dies; use RabbitMQ (amqp://), or set '
            'ALLOW_UNSAFE_BROKER if losing orders is acceptable', EX_CONFIG)


def wait(app: Celery, settings: Settings, seconds: float, say: Callable[[str], None]) -> None:
    """Wait for a broker that may still be booting; report once that it does not answer.

    Raises :class:`BrokerUnusable` after the time-out, and at once for errors that waiting cannot fix.
    """
    deadline, said = time.monotonic() + seconds, False
    while True:
        try:
            connect(app, settings).release()
        except BrokerUnusable as error:
            if error.exit_status != EX_UNAVAILABLE or time.monotonic() > deadline:
                raise
            if not said:
                say(f'waiting up to {seconds:g} s: {error}')
                said = True
            time.sleep(1)
        else:
            return


def limits(connection: Connection) -> list[str]:
    """What this broker cannot promise, for the log of a worker that starts."""
    if connection.transport.driver_type != 'redis':
        return []
    timeout = connection.transport_options.get('visibility_timeout')
    return [
        ('Redis is the broker: it does not confirm messages, and loses them unless its '
         'persistence is on (appendonly yes)'),
        (f'Redis is the broker: messages that a killed worker held are delivered again after {timeout} s '
         f'(visibility_timeout); workers hold waiting messages, for at most {publishing.LONGEST_HELD} s at a time'),
    ]


def remarks(connection: Connection, declared: topology.Declared, settings: Settings) -> Iterator[str]:
    """Problems of this RabbitMQ, and what to do about them; for the log of a worker."""
    if not topology.is_rabbitmq(connection):
        return
    for name in declared.unavailable:
        yield f'{name} is unavailable since its RabbitMQ node is down; the worker continues without it'
    if topology.PARKED in declared.kept:
        yield (f'{topology.PARKED} does not have the type in QUEUE_TYPE ({settings.QUEUE_TYPE}), and is used as '
               'it is; `ecommerce-worker queues reset` changes its type and keeps its messages')
    version = topology.version(connection)
    if version < topology.LIMITS_DELIVERIES:
        return
    shown = '.'.join(map(str, version))
    if any(name != topology.PARKED for name in declared.kept):
        yield (f'the waiting room was declared by an earlier version, and RabbitMQ {shown} counts each read of it as a '
               f'redelivery: after 20 a message leaves too early; apply {POLICIES}, or run `ecommerce-worker queues '
               'reset`')
    if quorum := [name for name in settings.QUEUES
                  if name not in declared.unavailable and topology.is_quorum(connection, name)]:
        yield (f'RabbitMQ {shown} drops a message of a quorum queue ({", ".join(quorum)}) after 20 redeliveries, '
               f'unless a policy parks it: apply {POLICIES}')


def check(app: Celery, settings: Settings) -> None:
    """Make sure that a worker can start and lose nothing; declares what it needs.

    Raises :class:`BrokerUnusable`.
    """
    with connect(app, settings) as connection:
        refuse_unsafe(connection, settings)
    with topology.asking(app) as connection:
        try:
            with permitted():
                topology.declare(connection, app.amqp.queues.consume_from.values(), settings.QUEUE_TYPE)
        except PreconditionFailed as error:
            raise BrokerUnusable(
                f'a queue exists with other arguments: {error.message}; see QUEUE_TYPE, or remove the arguments and '
                'use a policy', EX_CONFIG) from None
        except InternalError as error:
            raise BrokerUnusable(
                f'RabbitMQ failed to declare our queues: {error}; if its log names rabbit_fifo_dlx_sup, nothing leaves '
                'the waiting room until that node is restarted') from None
        except connection.channel_errors + connection.connection_errors as error:
            raise BrokerUnusable(f'the broker rejects our queues: {error}') from None
