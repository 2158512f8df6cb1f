"""Everything this worker has in RabbitMQ, as one table, and the two ways of moving a message in it.

::

    shop ──► (queue's own exchange, or the default one) ──► ecommerce.fulfillment ──► worker
                                                                  ▲                     │ not now
                        ecommerce.delivery ───────────────────────┘                     ▼
                            │      ▲                                        ecommerce_celery_delayed_N
                            │      └──────── … one queue for each bit of the delay … ───┘
                            │             entered at the delay's highest bit            │ not like this
                            └─ its queue is gone ─► ecommerce.undeliverable ─► ecommerce.parked ◄

    worker ──► ecommerce.facts ──► ecommerce.ledger ──► recorder, who takes the parked messages too

A message is moved by publishing it where it goes, confirmed by the broker, before the original is acknowledged.

A queue of ours that exists in another shape is used as it is, since RabbitMQ changes no queue.  Only a task queue must
have the shape that shops declare it in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from amqp.exceptions import NotFound, PreconditionFailed
from kombu import Connection, Exchange, Queue

from ecommerce_worker.errors import NotPublished, WorkerError

if TYPE_CHECKING:
    from celery import Celery

#: The queue of messages that wait for a person.
PARKED: Final = 'ecommerce.parked'

#: The queue of those that a ledger's database does not take; made when there is one.
PARKED_LARGE: Final = 'ecommerce.parked.large'

#: The exchange of facts, and the queue in which they wait for the ledger.
FACTS: Final = 'ecommerce.facts'
LEDGER: Final = 'ecommerce.ledger'

#: Reports are history, not orders: without a recorder they may pile up, but not forever.
_BOUNDED: Final[Mapping[str, Any]] = {
    'x-overflow': 'drop-head', 'x-max-length': 500_000, 'x-message-ttl': 14 * 24 * 60 * 60 * 1000}

#: On disk, for a broker whose memory is full takes no orders; versions to come know no other classic queues.
_LAZY: Final[Mapping[str, Any]] = {'x-queue-mode': 'lazy'}

#: How often RabbitMQ delivers a message of our own queues at most.  Since 4.0 it drops one that came back 20 times, and
#: each look into a queue counts.  There -1 means without limit, but 3.10 drops at the second time then; this is taken
#: by all alike.
DELIVERY_LIMIT: Final = 1_000_000_000

_QUORUM: Final[Mapping[str, Any]] = {'x-queue-type': 'quorum', 'x-delivery-limit': DELIVERY_LIMIT}

#: Keeps the waiting room apart from that of another service on the same virtual host.
PREFIX: Final = 'ecommerce'

#: The waiting room holds delays of whole seconds up to 2**28 - 1, more than eight years, a bit for each queue.
BITS: Final = 28

#: Where the waiting room ends, in kombu's words, and the exchange behind it, which knows the way to each task queue.
#: What has none is parked: left in the waiting room, 32 of them would stand before all that come after them.
ROOM_END: Final = f'{PREFIX}_celery_delayed_delivery'
DELIVERY: Final = 'ecommerce.delivery'
UNDELIVERABLE: Final = 'ecommerce.undeliverable'

#: The queue of the messages without a route, and the exchange and key under which Celery 3.1 publishes them.
_DEFAULT_QUEUE, _DEFAULT_EXCHANGE = 'ecommerce.default', 'ecommerce'

#: The version of RabbitMQ from which on a message of a quorum queue comes back a limited number of times.
LIMITS_DELIVERIES: Final = (4, 0)

#: Seconds in which a broker answers that has all its nodes; the others it may not answer for at all.
ANSWER_SECONDS: Final = 5


def level(number: int) -> str:
    """The queue (and exchange) of the waiting room that delays by ``2**number`` seconds."""
    return f'{PREFIX}_celery_delayed_{number}'


def entrance(seconds: int) -> str:
    """The exchange by which a message enters the waiting room: the level of the delay's highest bit.

    The levels above would only hand it down, one topic exchange after the other, to this same one; publishing takes
    seven times as long by that way.
    """
    return level(max(1, seconds).bit_length() - 1)


def task_queue(name: str, queue_type: str = 'classic') -> Queue:
    """A task queue, declared exactly as the shop declares it, else RabbitMQ refuses whoever comes second.

    Celery 3.1 publishes to a direct exchange of the queue's name; later ones through the default exchange.
    """
    return Queue(name, Exchange(name), routing_key=name,
                 queue_arguments={'x-queue-type': 'quorum'} if queue_type == 'quorum' else None)


def parked_queue(queue_type: str = 'classic', name: str = PARKED) -> Queue:
    """The queue of parked messages on a new installation, or that of large ones."""
    return Queue(name, queue_arguments=dict(_QUORUM) if queue_type == 'quorum' else None)


def ledger_queue(queue_type: str = 'classic') -> Queue:
    """The queue of facts on a new installation."""
    kind = _QUORUM if queue_type == 'quorum' else {'x-queue-type': 'classic', **_LAZY}
    return Queue(LEDGER, queue_arguments={**kind, **_BOUNDED})


def queue_of(exchange: str, routing_key: str) -> str:
    """The queue to which a producer published; a delayed message has it in its notes instead."""
    if (exchange, routing_key) == (_DEFAULT_EXCHANGE, _DEFAULT_EXCHANGE):
        return _DEFAULT_QUEUE
    return routing_key


def is_rabbitmq(connection: Connection) -> bool:
    """Whether this is RabbitMQ, which can delay messages itself; with others the worker holds waiting messages."""
    return bool(connection.transport.driver_type == 'amqp')


class Shape(Enum):
    """The result of declaring a queue."""

    AS_DECLARED = 'as it was declared'
    ANOTHER = 'of another type or with other arguments, from an earlier day'
    UNAVAILABLE = 'on a node that is down'


def version(connection: Connection) -> tuple[int, ...]:
    """The version of the RabbitMQ at the other end; empty if unknown."""
    given = connection.connection.server_properties.get('version', '')
    found = given.decode() if isinstance(given, bytes) else str(given)
    return tuple(int(part) for part in found.partition('-')[0].split('.') if part.isdigit())


def is_quorum(connection: Connection, name: str) -> bool:
    """Whether an existing task queue is a quorum queue, by a type of its own or by that of its virtual host.

    It has no other arguments: of several that differ, RabbitMQ names but one.
    """
    channel = connection.channel()
    try:
        channel.queue_declare(queue=name, durable=True, auto_delete=False, arguments={'x-queue-type': 'classic'})
    except PreconditionFailed as error:
        return "'quorum'" in str(error)
    channel.close()
    return False


def asking(app: Celery, **options: Any) -> Connection:
    """A connection for declarations, which waits only :data:`ANSWER_SECONDS` for queues of a node that is down.

    ``options`` are those of :meth:`celery.Celery.connection_for_write`.
    """
    connection = app.connection_for_write(**options)
    if not is_rabbitmq(connection):
        return connection
    connection.release()
    return app.connection_for_write(**options, transport_options={'read_timeout': ANSWER_SECONDS})


def declare_queue(connection: Connection, queue: Queue) -> Shape:
    """Declare a queue that may have other arguments; idempotent.

    RabbitMQ before 4.3 reports that the only node of a classic queue is down; since 4.3 it does not answer, and
    the connection's ``read_timeout`` passes.  The connection is then closed, and opens again when it is next used.
    """
    shapes = [queue]
    if 'x-queue-mode' in (queue.queue_arguments or {}):
        without = {name: value for name, value in queue.queue_arguments.items() if name not in _LAZY}
        shapes.append(Queue(queue.name, queue_arguments=without))
    for shape in shapes:
        channel = connection.channel()
        try:
            shape.bind(channel).declare()
        except NotFound:
            return Shape.UNAVAILABLE
        except TimeoutError:
            connection.collect(socket_timeout=0.1)
            return Shape.UNAVAILABLE
        except PreconditionFailed as error:
            if 'inequivalent' in str(error):
                return Shape.ANOTHER
            if shape is shapes[-1]:
                raise
        else:
            channel.close()
            return Shape.AS_DECLARED
    raise AssertionError('not reached')


def declare_parked(connection: Connection, queue_type: str = 'classic') -> Shape:
    """Declare the queue of parked messages; idempotent."""
    return declare_queue(connection, parked_queue(queue_type))


def declare_facts(connection: Connection, queue_type: str = 'classic') -> Shape:
    """Declare the exchange of reports and their queue for the ledger; idempotent."""
    found = declare_queue(connection, ledger_queue(queue_type))
    if found is not Shape.UNAVAILABLE:
        with connection.channel() as channel:
            Exchange(FACTS, 'topic').bind(channel).declare()
            Queue(LEDGER).bind(channel).bind_to(FACTS, routing_key='#')
    return found


def require_facts(connection: Connection, queue_type: str = 'classic') -> None:
    """The same for publishers: raises ``NotPublished`` if RabbitMQ would confirm a report and drop it."""
    if declare_facts(connection, queue_type) is Shape.UNAVAILABLE:
        raise NotPublished(f'the node of {LEDGER} is down')


def declare_waiting_room(connection: Connection) -> list[str]:
    """Declare the waiting room, as kombu does but for the delivery limit, and the way out of it; returns the queues
    with other arguments.

    Each level keeps the messages whose delay has its bit, and passes all of them on to the next.
    """
    channel, kept = connection.channel(), []
    for number in reversed(range(BITS)):
        name, following = level(number), level(number - 1) if number else ROOM_END
        for exchange in (name, following):
            Exchange(exchange, 'topic').bind(channel).declare()
        queue = Queue(name, queue_arguments={
            **_QUORUM, 'x-overflow': 'reject-publish', 'x-message-ttl': 2 ** number * 1000,
            'x-dead-letter-exchange': following, 'x-dead-letter-strategy': 'at-least-once'})
        try:
            queue.bind(channel).declare()
        except PreconditionFailed:
            kept.append(name)
            channel = connection.channel()
        before = '*.' * (BITS - 1 - number)
        queue.bind(channel).bind_to(name, routing_key=f'{before}1.#')
        Exchange(following).bind(channel).bind_to(name, routing_key=f'{before}0.#')
    Exchange(UNDELIVERABLE, 'fanout').bind(channel).declare()
    delivery = Exchange(DELIVERY, 'topic', arguments={'alternate-exchange': UNDELIVERABLE}).bind(channel)
    delivery.declare()
    delivery.bind_to(ROOM_END, routing_key='#')
    channel.close()
    return kept


@dataclass(frozen=True)
class Declared:
    """Queues that differ from their declaration, but can be used."""

    #: Queues whose only node is down: nothing can be put there or taken from there until it is back.
    unavailable: tuple[str, ...] = ()
    #: Queues of ours that exist in another shape, and are used as they are.
    kept: tuple[str, ...] = ()


def declare(connection: Connection, queues: Iterable[Queue], queue_type: str = 'classic') -> Declared:
    """Declare the task queues, the parked queue, the waiting room and their bindings; idempotent.

    Raises ``PreconditionFailed`` for a task queue with other arguments.
    """
    queues = list(queues)
    shapes = {PARKED: declare_parked(connection, queue_type)}
    for queue in queues:
        shapes[queue.name] = declare_task_queue(connection, queue)
    unavailable = tuple(name for name, shape in shapes.items() if shape is Shape.UNAVAILABLE)
    kept = [name for name, shape in shapes.items() if shape is Shape.ANOTHER]
    if is_rabbitmq(connection):
        kept += declare_waiting_room(connection)
        with connection.channel() as channel:
            if PARKED not in unavailable:
                Queue(PARKED).bind(channel).bind_to(UNDELIVERABLE)
            for queue in queues:
                if queue.name not in unavailable:
                    queue.bind(channel).bind_to(DELIVERY, routing_key=delivery_key(queue.name))
    return Declared(unavailable, tuple(kept))


def delivery_key(name: str) -> str:
    """The key with which ``DELIVERY`` routes messages from the waiting room to the queue of that name."""
    # Exactly as many words as there are bits: '#.fulfillment' would catch 'ecommerce.fulfillment' too.
    return '.'.join(('*',) * BITS + (name,))


def declare_task_queue(connection: Connection, queue: Queue) -> Shape:
    """Declare a task queue and the exchanges of shops.

    Raises ``PreconditionFailed`` if it exists with other arguments, with which its shop would be refused.
    """
    channel = connection.channel()
    try:
        queue.bind(channel).declare()
        if queue.name == _DEFAULT_QUEUE:
            Exchange(_DEFAULT_EXCHANGE).bind(channel).declare()
            queue.bind(channel).bind_to(_DEFAULT_EXCHANGE, routing_key=_DEFAULT_EXCHANGE)
    except NotFound:
        return Shape.UNAVAILABLE
    except TimeoutError:
        connection.collect(socket_timeout=0.1)
        return Shape.UNAVAILABLE
    channel.close()
    return Shape.AS_DECLARED


def waiting_room(connection: Connection) -> list[str]:
    """The queues of the waiting room, in the order in which messages pass through them."""
    return [level(number) for number in reversed(range(BITS))] if is_rabbitmq(connection) else []


def missing(connection: Connection, task_queues: Iterable[str]) -> list[str]:
    """The queues of a worker with these task queues that do not exist or are unavailable."""
    if not is_rabbitmq(connection):
        return []
    names = (*task_queues, PARKED, *waiting_room(connection))
    there = {found.name for found in depths(connection, names)}
    return [name for name in names if name not in there]


@dataclass(frozen=True)
class Depth:
    """The depth of a queue; ``consumers`` is None if the broker does not report it."""

    name: str
    messages: int
    consumers: int | None


class Unavailable(WorkerError):
    """A queue is unavailable: its messages and consumers are unknown. Check its RabbitMQ node."""


#: How RabbitMQ says that a queue does not exist; of one that is down, or whose node is, it says something else.
_ABSENT: Final = 'NOT_FOUND - no queue'


def depths(connection: Connection, names: Iterable[str], *, strict: bool = False) -> list[Depth]:
    """The depths of those of these queues that exist and are available; see :func:`declare_queue`.

    With ``strict``, raises :class:`Unavailable` for one that exists but is unavailable.
    """
    is_counted, channel, found = is_rabbitmq(connection), None, []
    try:
        for name in dict.fromkeys(names):
            channel = channel or connection.channel()
            try:
                # Redis knows no empty queue: what is not there has no messages.
                said = channel.queue_declare(queue=name, passive=is_counted)
            except TimeoutError:
                connection.collect(socket_timeout=0.1)
                channel = None
                if strict:
                    raise Unavailable(f'{name} is unavailable: RabbitMQ does not answer for it') from None
            except connection.channel_errors as error:
                channel.close()
                channel = None
                if strict and is_counted and _ABSENT not in str(error):
                    raise Unavailable(f'{name} is unavailable: RabbitMQ reports that it is down') from None
            else:
                found.append(Depth(name, said.message_count, said.consumer_count if is_counted else None))
    finally:
        if channel and connection.connected:
            channel.close()
    return found


def depth(connection: Connection, name: str) -> Depth | None:
    """The depth of the queue, or None if it does not exist or is unavailable."""
    return next(iter(depths(connection, (name,))), None)


def waiting(connection: Connection) -> int:
    """The number of messages in the waiting room."""
    return sum(found.messages for found in depths(connection, waiting_room(connection)))
