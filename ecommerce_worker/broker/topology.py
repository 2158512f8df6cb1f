"""Everything this worker has in RabbitMQ, as one table, and the two ways of moving a message in it.

::

    shop ──► (queue's own exchange, or the default one) ──► ecommerce.fulfillment ──► worker
                                                                  ▲                     │ not now
                      ecommerce_celery_delayed_delivery ──────────┘                     ▼
                                   ▲                                        ecommerce_celery_delayed_27
                                   └──────── … one queue for each bit of the delay … ───┘
                                                                                        │ not like this
                                                                        ecommerce.parked ◄

    worker ──► ecommerce.facts ──► ecommerce.ledger ──► recorder, who takes the parked messages too

A message is moved by publishing it where it goes, confirmed by the broker, before the original is acknowledged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import kombu
from kombu import Connection, Exchange, Queue

from ecommerce_worker.errors import WorkerError

#: The queue of messages that wait for a person.
PARKED: Final = 'ecommerce.parked'

#: The exchange of facts, and the queue in which they wait for the ledger.
FACTS: Final = 'ecommerce.facts'
LEDGER: Final = 'ecommerce.ledger'

#: Facts are history, not orders: they may pile up for as long as nobody records them, but not for ever.  On disk, for
#: a broker whose memory is full takes no orders.  Never to be changed: RabbitMQ refuses whoever declares it otherwise.
_LEDGER_ARGUMENTS: Final[Mapping[str, Any]] = {
    'x-queue-type': 'classic', 'x-queue-mode': 'lazy', 'x-overflow': 'drop-head',
    'x-max-length': 500_000, 'x-message-ttl': 14 * 24 * 60 * 60 * 1000}

#: Keeps the waiting room apart from that of another service on the same virtual host.
PREFIX: Final = 'ecommerce'

#: The waiting room holds delays of whole seconds up to 2**28 - 1, more than eight years, a bit for each queue.
BITS: Final = 28

_DELIVERY = f'{PREFIX}_celery_delayed_delivery'

#: The queue of the messages without a route, and the exchange and key under which Celery 3.1 publishes them.
_DEFAULT_QUEUE, _DEFAULT_EXCHANGE = 'ecommerce.default', 'ecommerce'


class KombuTooOld(WorkerError):
    """The kombu installed here can publish, as a shop does, but not make the waiting room: install a newer one."""


def level(number: int) -> str:
    """The queue (and exchange) of the waiting room that delays by ``2**number`` seconds."""
    return f'{PREFIX}_celery_delayed_{number}'


def task_queue(name: str, queue_type: str = 'classic') -> Queue:
    """A task queue, declared exactly as the shop declares it, else RabbitMQ refuses whoever comes second.

    Celery 3.1 publishes to a direct exchange of the queue's name; later ones through the default exchange.
    """
    return Queue(name, Exchange(name), routing_key=name,
                 queue_arguments={'x-queue-type': 'quorum'} if queue_type == 'quorum' else None)


def queue_of(exchange: str, routing_key: str) -> str:
    """The queue that a producer meant by where it published; a delayed message says so in its notes instead."""
    if (exchange, routing_key) == (_DEFAULT_EXCHANGE, _DEFAULT_EXCHANGE):
        return _DEFAULT_QUEUE
    return routing_key


def has_waiting_room(connection: Connection) -> bool:
    """Whether this broker can delay messages itself; others get a countdown that the worker holds."""
    return bool(connection.transport.driver_type == 'amqp')


def declare_parked(connection: Connection) -> None:
    """Declare the queue of parked messages; harmless to repeat."""
    channel = connection.channel()
    try:
        Queue(PARKED).bind(channel).declare()
    finally:
        channel.close()


def declare_facts(connection: Connection) -> None:
    """Declare the exchange of facts and the queue in which they wait for the ledger; harmless to repeat."""
    channel = connection.channel()
    try:
        exchange = Exchange(FACTS, 'topic')
        Queue(LEDGER, exchange, routing_key='#', queue_arguments=dict(_LEDGER_ARGUMENTS)).bind(channel).declare()
    finally:
        channel.close()


def declare(connection: Connection, queues: Iterable[Queue]) -> None:
    """Declare the task queues, the parked queue, the waiting room and the ways between them; harmless to repeat."""
    queues = list(queues)
    declare_parked(connection)
    channel = connection.channel()
    try:
        for queue in queues:
            queue.bind(channel).declare()
            if queue.name == _DEFAULT_QUEUE:
                Exchange(_DEFAULT_EXCHANGE).bind(channel).declare()
                queue.bind(channel).bind_to(_DEFAULT_EXCHANGE, routing_key=_DEFAULT_EXCHANGE)
        if not has_waiting_room(connection):
            return
        try:
            from kombu.transport.native_delayed_delivery import (  # since kombu 5.5, which the shop need not have
                declare_native_delayed_delivery_exchanges_and_queues,
            )
        except ImportError:
            raise KombuTooOld(f'the worker needs kombu 5.7 or newer, and {kombu.__version__} is installed here: '
                              "pip install 'edx-ecommerce-worker[worker]'") from None
        declare_native_delayed_delivery_exchanges_and_queues(connection, 'quorum', prefix=PREFIX)
        for queue in queues:
            # Exactly as many words as there are bits: '#.fulfillment' would catch 'ecommerce.fulfillment' too.
            key = '.'.join(('*',) * BITS + (queue.name,))
            queue.bind(channel).bind_to(_DELIVERY, routing_key=key)
    finally:
        channel.close()


@dataclass(frozen=True)
class Depth:
    """How full a queue is; ``consumers`` is None where the broker cannot tell."""

    name: str
    messages: int
    consumers: int | None


def depth(connection: Connection, name: str) -> Depth | None:
    """How full the queue is, or None if there is none of that name."""
    channel = connection.channel()
    try:
        # Redis knows no empty queue: what is not there has no messages.
        found = channel.queue_declare(queue=name, passive=has_waiting_room(connection))
    except connection.channel_errors:
        return None
    finally:
        channel.close()
    return Depth(name, found.message_count, found.consumer_count if has_waiting_room(connection) else None)


def waiting(connection: Connection) -> int:
    """How many messages are in the waiting room."""
    if not has_waiting_room(connection):
        return 0
    return sum(found.messages for found in (depth(connection, level(n)) for n in range(BITS)) if found)
