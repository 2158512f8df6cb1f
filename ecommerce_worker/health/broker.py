"""The state of the broker: queue depths, consumers, and whether it accepts messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ecommerce_worker.broker import preflight, topology
from ecommerce_worker.broker.app import Application, celery_settings
from ecommerce_worker.operations import queues
from ecommerce_worker.settings import broker_scheme

if TYPE_CHECKING:
    from celery import Celery
    from kombu import Connection

    from ecommerce_worker.broker.topology import Depth
    from ecommerce_worker.settings import Settings


@dataclass(frozen=True)
class Broker:
    """The state of the broker; if ``problem`` says why it is unknown, the other fields mean nothing."""

    problem: str = ''
    #: The task queues, and other queues that shops publish to, if they exist.
    queues: tuple[Depth, ...] = ()
    #: Messages waiting for their next try, parked messages, and parked messages too large for the ledger.
    waiting: int = 0
    parked: int = 0
    too_large: int = 0
    #: Facts that no recorder has taken yet, and how many recorders take them; None where the broker does not tell.
    unrecorded: int = 0
    recorders: int | None = None
    #: Queues that a worker declares and that are missing or unavailable.
    missing: tuple[str, ...] = ()
    #: Whether a worker has ever declared its queues here.
    is_declared: bool = False
    takes_messages: bool = True
    #: How many workers there are, at least: the consumers of the task queue that has the most; None where the broker
    #: does not tell.
    consumers: int | None = None


def look(connection: Connection, settings: Settings) -> Broker:
    """The state of the broker, as seen through this connection."""
    takes_messages = queues.takes_messages(connection)
    room = topology.waiting_room(connection)
    names = (*settings.QUEUES, *queues.ELSEWHERE, topology.PARKED, topology.PARKED_LARGE, topology.LEDGER, *room)
    found = {depth.name: depth for depth in topology.depths(connection, names)}

    def messages(*names: str) -> int:
        return sum(depth.messages for name in names if (depth := found.get(name)))

    def consumers(*names: str) -> int | None:
        # On RabbitMQ a missing queue has none; on Redis a queue is created by asking for it.
        counts = [depth.consumers for name in names if (depth := found.get(name))]
        return None if None in counts else max((count for count in counts if count is not None), default=0)

    # On a broker that creates queues on demand, the queues of others are shown only if they hold messages.
    shown = [depth for name in dict.fromkeys((*settings.QUEUES, *queues.ELSEWHERE)) if (depth := found.get(name))
             and (depth.messages or depth.consumers is not None or name in settings.QUEUES)]
    return Broker(
        queues=tuple(shown), waiting=messages(*room), parked=messages(topology.PARKED, topology.PARKED_LARGE),
        too_large=messages(topology.PARKED_LARGE), unrecorded=messages(topology.LEDGER),
        recorders=consumers(topology.LEDGER),
        missing=tuple(name for name in (*settings.QUEUES, topology.PARKED, *room) if name not in found),
        is_declared=topology.PARKED in found, takes_messages=takes_messages,
        consumers=consumers(*settings.QUEUES))


def impatient(settings: Settings, seconds: float) -> Celery:
    """A copy of the application whose connections time out after so many seconds per step."""
    patient = celery_settings(settings)
    options = {**patient['broker_transport_options'], 'connect_timeout': seconds, 'read_timeout': seconds,
               'write_timeout': seconds}
    app = Application('console', set_as_current=False)
    app.config_from_object({**patient, 'broker_transport_options':
                            options if broker_scheme(settings) == 'amqp' else {},
                            'broker_connection_timeout': seconds})
    return app


def ask(settings: Settings, seconds: float) -> Broker:
    """Like :func:`look`, through a connection of its own with a timeout in seconds per step; raises nothing."""
    try:
        with preflight.connect(impatient(settings, seconds), settings) as connection:
            try:
                return look(connection, settings)
            except (OSError, *connection.connection_errors, *connection.channel_errors) as error:
                return Broker(problem=f'RabbitMQ does not answer ({type(error).__name__})')
    except preflight.BrokerUnusable as error:
        return Broker(problem=str(error))
