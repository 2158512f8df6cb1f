"""A look at the broker: how full the queues are, who consumes them, and whether it takes messages."""

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
    """What was seen of the broker; ``problem`` says why nothing was, and then nothing else is known."""

    problem: str = ''
    #: The task queues, and those that shops have published to elsewhere, as far as they exist.
    queues: tuple[Depth, ...] = ()
    #: Messages that wait for their next try, that are parked, and that are parked and too large for the ledger.
    waiting: int = 0
    parked: int = 0
    too_large: int = 0
    #: Facts that no recorder has taken yet, and how many recorders take them; None where the broker does not tell.
    unrecorded: int = 0
    recorders: int | None = None
    #: Queues that a worker declares and that are not there, or not to be had.
    missing: tuple[str, ...] = ()
    #: Whether a worker has ever declared its queues here.
    is_declared: bool = False
    takes_messages: bool = True
    #: How many workers there are, at least: the consumers of the task queue that has the most; None where the broker
    #: does not tell.
    consumers: int | None = None


def look(connection: Connection, settings: Settings) -> Broker:
    """How it is now, as far as this connection tells."""
    takes_messages = queues.takes_messages(connection)
    room = topology.waiting_room(connection)
    names = (*settings.QUEUES, *queues.ELSEWHERE, topology.PARKED, topology.PARKED_LARGE, topology.LEDGER, *room)
    found = {depth.name: depth for depth in topology.depths(connection, names)}

    def messages(*names: str) -> int:
        return sum(depth.messages for name in names if (depth := found.get(name)))

    def consumers(*names: str) -> int | None:
        # On RabbitMQ a queue that does not exist has none; on Redis each is there once it is asked for.
        counts = [depth.consumers for name in names if (depth := found.get(name))]
        return None if None in counts else max((count for count in counts if count is not None), default=0)

    # Where a queue is there once it is asked for, those of others are shown if there is something in them.
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
    """An application whose connections take so many seconds at most for each step."""
    patient = celery_settings(settings)
    options = {**patient['broker_transport_options'], 'connect_timeout': seconds, 'read_timeout': seconds,
               'write_timeout': seconds}
    app = Application('console', set_as_current=False)
    app.config_from_object({**patient, 'broker_transport_options':
                            options if broker_scheme(settings) == 'amqp' else {},
                            'broker_connection_timeout': seconds})
    return app


def ask(settings: Settings, seconds: float) -> Broker:
    """The same by a connection of its own, which takes so many seconds at most for each step; raises nothing."""
    try:
        with preflight.connect(impatient(settings, seconds), settings) as connection:
            try:
                return look(connection, settings)
            except (OSError, *connection.connection_errors, *connection.channel_errors) as error:
                return Broker(problem=f'RabbitMQ does not answer ({type(error).__name__})')
    except preflight.BrokerUnusable as error:
        return Broker(problem=str(error))
