"""Publishing, confirmed by the broker: into the waiting room, to the parked messages and back."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

from amqp import spec
from amqp.exceptions import MessageNacked, NotFound
from amqp.serialization import dumps as amqp_dumps
from kombu import Connection
from kombu.exceptions import KombuError
from kombu.utils.json import dumps

from ecommerce_worker.bounds import LARGEST_BODY
from ecommerce_worker.broker.notes import NOTES, Notes, ParkingNote
from ecommerce_worker.broker.topology import BITS, FACTS, PARKED, entrance, is_rabbitmq, require_facts
from ecommerce_worker.broker.wire import Call, Raw
from ecommerce_worker.correlation import HEADER
from ecommerce_worker.errors import NotPublished, WorkerError, WrongArguments
from ecommerce_worker.telemetry.run import CONTENT_TYPE, one_line

if TYPE_CHECKING:
    from celery import Celery

_T = TypeVar('_T')

#: How long, in seconds, a worker holds a message at once for a broker that cannot delay it, and after how many such a
#: broker takes a worker for dead that has not acknowledged: longer than a wait and a run together.
LONGEST_HELD: Final = 900
VISIBILITY_TIMEOUT: Final = 3600

#: Bytes of the headers of others that a message keeps when it is moved.  All headers must fit into one frame, in
#: RabbitMQ of 128 KiB; ours have up to 70, with a history, a fact and what could not be read.
HEADER_BYTES: Final = 40 * 1024

#: Bytes of a frame that are not the headers'.
FRAME_BYTES: Final = 64

#: How long a publish may take, in seconds, before its original is given back: a broker short of disk takes nothing
#: until it has some again.  Less than the half hour after which RabbitMQ takes the original back itself.
CONFIRM_SECONDS: Final = 600


class UnknownQueue(WorkerError):
    """A parked message names a queue that is not in QUEUES: add it there, or publish the order again."""


#: What RabbitMQ answers for a message that no queue takes.
NO_ROUTE: Final = 312

#: Why a message is not published that the broker returns, or does not accept.
MISSING: Final = 'its queue does not exist'
FULL: Final = 'the queue accepts no messages'

#: Set when a queue or an exchange is missing, so that it is declared again.
missed: Final = threading.Event()


def tell(connection: Connection, fact: bytes, routing_key: str, queue_type: str = 'classic') -> None:
    """Publish one report; raises on failure. Workers publish theirs in batches."""
    require_facts(connection, queue_type)
    with connection.channel() as channel:
        channel.basic_publish(fact_message(channel, fact), exchange=FACTS, routing_key=routing_key)


def fact_message(channel: Any, fact: bytes) -> Any:
    """The message of a report."""
    return channel.prepare_message(fact, content_type=CONTENT_TYPE, content_encoding='utf-8',
                                   properties={'delivery_mode': 2})


def send(channel: Any, message: Any, exchange: str, routing_key: str, *, mandatory: bool) -> None:
    """Write a message to a channel.

    Not by ``basic_publish``, which reads first: what comes may close this very channel.
    """
    channel.send_method(spec.Basic.Publish, 'Bssbb', (0, exchange, routing_key, mandatory, False), message)


@dataclass(frozen=True)
class Publication:
    """A message to publish to the queue after ``delay`` seconds in the waiting room; 0 for none."""

    raw: Raw
    queue: str
    delay: int = 0

    @property
    def kind(self) -> str:
        """``parked``, ``waiting`` (for its next try, or to follow) or ``queued``, at once."""
        return 'parked' if self.queue == PARKED else 'waiting' if self.delay else 'queued'

    def address(self, connection: Connection) -> tuple[str, str]:
        """The exchange and the routing key to publish it with."""
        if self.delay and is_rabbitmq(connection):
            return entrance(self.delay), '.'.join((*f'{self.delay:0{BITS}b}', self.queue))
        return '', self.queue

    def headers(self, connection: Connection) -> dict[str, Any]:
        """Its headers as they are written; on a broker that cannot delay a message, with the time before which it must
        not run.
        """
        headers = dict(self.raw.headers)
        if self.delay and not is_rabbitmq(connection):
            # A worker holds it until then, unacknowledged; a broker such as Redis gives it to another after a while.
            held = min(self.delay, LONGEST_HELD)
            due = time.time() + self.delay if held < self.delay else None
            headers[NOTES] = {**headers.get(NOTES, {}), 'due': due}
            headers['eta'] = (datetime.now(UTC) + timedelta(seconds=held)).isoformat()
        written: dict[str, Any] = _as_amqp(headers)
        return written


class NotTaken(NotPublished):
    """The broker does not take this message, or its queue does not exist or is full; it may take others."""


class Unfit(Exception):
    """A message that RabbitMQ would reject by closing the connection, with all other messages on it."""


def prepared(publication: Publication, connection: Connection, channel: Any, **properties: Any) -> Any:
    """The message as it is written to this channel, with these properties; raises :class:`Unfit`."""
    raw = publication.raw
    try:
        message = channel.prepare_message(
            raw.body, content_type=raw.content_type, content_encoding=raw.content_encoding,
            headers=publication.headers(connection), properties={'delivery_mode': 2, **properties})
        written = message._serialize_properties()  # noqa: SLF001 - it raises what would be raised
    except Exception as error:  # noqa: BLE001 - encoders raise anything
        raise Unfit(f'its headers cannot be written ({type(error).__name__})') from None
    if len(written) > connection.connection.frame_max - FRAME_BYTES:
        raise Unfit(f'its headers have {len(written)} bytes, more than RabbitMQ accepts')
    # Which takes as long as all else together: not once more.
    message._serialize_properties = lambda: written  # noqa: SLF001
    return message


def waiting_call(call: Call, notes: Notes, delay: float) -> Publication:
    """The publication of a call to its queue in ``delay`` seconds, rounded up to whole ones, at least 1.

    Raises :class:`~ecommerce_worker.errors.WrongArguments` for a call that JSON cannot represent.
    """
    return replace(new_call(call, notes), delay=min(max(1, math.ceil(delay)), 2 ** BITS - 1))


def new_call(call: Call, notes: Notes) -> Publication:
    """The publication of a call to its queue without delay.

    Raises :class:`~ecommerce_worker.errors.WrongArguments` for a call that JSON cannot represent.
    """
    try:
        body = dumps([list(call.args), dict(call.kwargs), dict(call.embed)]).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise WrongArguments(f'its arguments cannot be written as JSON ({type(error).__name__})') from None
    if len(body) > LARGEST_BODY:
        raise WrongArguments(f'its arguments have {len(body)} bytes as JSON, more than workers accept')
    headers = {
        'lang': 'py', 'task': call.task, 'id': call.id, 'retries': call.retries,
        'eta': None, 'expires': None, 'group': None, 'timelimit': [None, None],
        'root_id': call.root_id or call.id, 'parent_id': call.parent_id, 'origin': call.origin,
        'argsrepr': '', 'kwargsrepr': '', 'shadow': None,
        NOTES: (notes if notes.due is None else replace(notes, due=None)).as_header(),
        **({HEADER: call.request_id} if call.request_id else {}),
    }
    return Publication(Raw(body, 'application/json', 'utf-8', headers, {'correlation_id': call.id}), notes.queue)


def parked_message(raw: Raw, note: ParkingNote) -> Publication:
    """The publication of a raw message to the parked queue, with its note.

    Of the note, the content type and what is unreadable are those of the message.
    """
    note = replace(note, content_type=_if_text(raw.content_type) or '', unreadable=raw.unreadable)
    kept = replace(raw, headers={**without_traces(raw.headers), NOTES: note.as_header()},
                   content_type=note.content_type or 'application/octet-stream',
                   content_encoding=_if_text(raw.content_encoding) or 'binary',
                   properties={'correlation_id': _if_text(raw.properties.get('correlation_id'))})
    return Publication(kept, PARKED)


def as_new(publication: Publication, now: float) -> Publication | None:
    """The publication of a message to the end of its task queue, instead of waiting or being parked.

    It does not run before its time, and then asks for the current state first. None for an unreadable message,
    or one without a queue.
    """
    raw, notes = publication.raw, replace(Notes.of(publication.raw.headers), ask=True)
    if publication.queue != PARKED:
        again = replace(notes, due=now + publication.delay).as_header()
        return replace(publication, raw=replace(raw, headers={**raw.headers, NOTES: again}), delay=0)
    note = ParkingNote.read(raw.headers)
    if note is None or note.unreadable or not notes.queue:
        return None
    return Publication(replace(raw, headers={**raw.headers, NOTES: notes.as_header()},
                               content_type=note.content_type or raw.content_type), notes.queue)


def wait(app: Celery, call: Call, notes: Notes, delay: float) -> None:
    """Have the broker deliver the call to its queue in ``delay`` seconds; see :func:`waiting_call`.

    Raises :class:`~ecommerce_worker.errors.NotPublished`, or :class:`~ecommerce_worker.errors.WrongArguments`.
    """
    publish(app, waiting_call(call, notes, delay))


def park(app: Celery, raw: Raw, note: ParkingNote) -> None:
    """Park the raw message; see :func:`parked_message`.

    Raises :class:`~ecommerce_worker.errors.NotPublished`.
    """
    publish(app, parked_message(raw, note))


def unparked(raw: Raw, note: ParkingNote, known: Container[str]) -> Publication:
    """The publication of a parked message to its original queue, as new, but with its earlier tries.

    Raises :class:`UnknownQueue` for a queue that is not among the ``known`` ones, since anyone may have written
    a message's headers.
    """
    notes = note.notes
    if not notes.queue:
        raise UnknownQueue('its original queue is unknown: it stays parked; '
                           + ('publish the order again' if note.task else 'have the sender send it again'))
    if notes.queue not in known:
        raise UnknownQueue(f'it names the queue {one_line(notes.queue, 100)}, which is not in QUEUES: it '
                           'stays parked; add that queue to QUEUES if it is yours, otherwise publish the order again')
    # Tries are counted on, by which it is known which of two reports of them is the later one.
    tried = max(notes.attempt + notes.redelivered, note.tries)
    fresh = Notes(queue=notes.queue, resent=True, attempt=tried, history=notes.history).having(
        {'at': time.time(), 'reason': 'resent by a person', 'resent': True})
    headers = {**without_traces(raw.headers), NOTES: fresh.as_header()}
    return Publication(replace(raw, headers=headers, content_type=note.content_type or raw.content_type), notes.queue)


def _if_text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def without_traces(headers: Mapping[str, Any]) -> dict[str, Any]:
    """The headers without those that must not be passed on, and those for which a frame has no room beside ours.

    ``argsrepr`` and ``kwargsrepr`` show addresses and mail texts to anyone who lists a queue;
    the broker takes an old ``x-death`` for a cycle and drops the message.
    """
    gone = {'argsrepr', 'kwargsrepr', 'x-death', NOTES}
    kept, left = {}, HEADER_BYTES
    for name, value in headers.items():
        if name in gone or name.startswith(('x-first-death', 'x-last-death')):
            continue
        size = _size(name, value)
        if size <= left:
            kept[name] = value
            left -= size
    return kept


def _size(name: str, value: Any) -> int:
    """The size of a header in a frame; too large for one that AMQP cannot represent."""
    try:
        return len(amqp_dumps('F', [_as_amqp({name: value})]))
    except Exception:  # noqa: BLE001 - py-amqp raises whatever struct does, and more
        return HEADER_BYTES + 1


def _as_amqp(value: Any) -> Any:
    """The value with the names of fields that are not UTF-8 as the bytes that they came as."""
    if isinstance(value, Mapping):
        return {_field_name(name): _as_amqp(member) for name, member in value.items()}
    return [_as_amqp(member) for member in value] if isinstance(value, list | tuple) else value


def _field_name(name: str) -> str | bytes:
    try:
        name.encode()
    except UnicodeEncodeError:
        return name.encode('utf-8', 'surrogateescape')
    return name


def publish(app: Celery, publication: Publication) -> None:
    """Publish and return when the broker has confirmed that the message is in a queue and on its disk.

    Raises :class:`~ecommerce_worker.errors.NotPublished`, also if the queue does not exist.
    """
    try:
        with app.producer_or_acquire() as producer:
            connection, raw = producer.connection, publication.raw
            exchange, routing_key = publication.address(connection)
            options = {'mandatory': True, 'confirm_timeout': CONFIRM_SECONDS} if is_rabbitmq(connection) else {}
            try:
                producer.publish(
                    raw.body, exchange=exchange, routing_key=routing_key,
                    headers=publication.headers(connection),
                    content_type=raw.content_type, content_encoding=raw.content_encoding, delivery_mode=2,
                    retry=True, retry_policy={'errback': _unless_late, 'max_retries': 3, 'interval_start': 0.2,
                                              'interval_step': 0.5},
                    correlation_id=raw.properties.get('correlation_id'), **options)
            except BaseException:
                # A confirmation may still be on its way on this channel and be taken for the next message's.
                connection.collect()
                raise
    except (KombuError, MessageNacked, OSError, *broker_errors(app)) as error:
        is_missing = isinstance(error, NotFound) or getattr(error, 'reply_code', None) == NO_ROUTE
        if is_missing:
            missed.set()
        kind = NotTaken if is_missing or isinstance(error, MessageNacked) else NotPublished
        raise kind(unconfirmed(error)) from None


def confirmed(sent: dict[int, _T], tag: int, *, multiple: bool) -> Iterator[_T]:
    """Take out of what was sent, by its tags, what a confirmation is about: that tag, or all up to it.

    One after the other: should whoever deals with one fail, the rest is still there to be sent again.
    """
    for each in [each for each in sent if each <= tag] if multiple else [tag]:
        if each in sent:
            yield sent.pop(each)


def unconfirmed(error: BaseException) -> str:
    """Why a message may not have been published."""
    # Not the text of the error: some quote headers.
    return f'the broker did not confirm a message ({type(error).__name__})'


def _unless_late(error: BaseException, interval: float) -> None:  # noqa: ARG001
    """Retry a publish on another connection, but not if the broker is only slow to confirm the first.

    It may still read that one from the socket; each further one would be one more message.
    """
    if isinstance(error, TimeoutError):
        raise NotPublished('the broker did not confirm a message in time')


def broker_errors(app: Celery) -> tuple[type[BaseException], ...]:
    """The exceptions of connections and channels to the broker of this application."""
    connection = app.connection_for_write()
    return (*connection.connection_errors, *connection.channel_errors)
