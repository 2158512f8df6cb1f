"""Messages as they are on the wire, read safely: protocols 1 and 2, JSON and pickle, any producer since 2015."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from ecommerce_worker import correlation
from ecommerce_worker.bounds import LARGEST_BODY
from ecommerce_worker.broker.bodies import decompressed, load_json
from ecommerce_worker.broker.pickles import load_pickle
from ecommerce_worker.errors import Undecodable
from ecommerce_worker.telemetry.run import FIRST_SECOND, LAST_SECOND


@dataclass(frozen=True)
class Raw:
    """A message as the broker delivered it, so that it can be moved elsewhere unchanged.

    ``unreadable`` has the parts of its properties and headers that are not what AMQP has in their places, by name.
    """

    body: bytes
    content_type: str | None
    content_encoding: str | None
    headers: Mapping[str, Any] = field(default_factory=dict)
    properties: Mapping[str, Any] = field(default_factory=dict)
    unreadable: Mapping[str, bytes] = field(default_factory=dict)

    @classmethod
    def of(cls, message: Any) -> Raw:
        """The raw form of a kombu message, with the properties that are kept."""
        body, unreadable = message.body, getattr(message, 'unreadable', None)
        headers = message.headers if isinstance(message.headers, dict) else {}
        if unreadable is None and 'compression' in headers and not message.errors:
            # Not one of our own connection to RabbitMQ: kombu has decompressed it.
            headers = {name: value for name, value in headers.items() if name != 'compression'}
        return cls(
            body.encode() if isinstance(body, str) else bytes(body or b''),
            message.content_type, message.content_encoding, headers,
            {'correlation_id': message.properties.get('correlation_id')}, unreadable or {})


@dataclass(frozen=True)
class Call:
    """A task call, read from a message of either protocol."""

    task: str
    id: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    embed: Mapping[str, Any] = field(default_factory=dict)
    retries: int = 0
    eta: datetime | None = None
    origin: str = ''
    root_id: str | None = None
    parent_id: str | None = None
    request_id: str = ''

    @property
    def correlation(self) -> str:
        """The request id sent to shop and LMS; see :mod:`ecommerce_worker.correlation`."""
        return self.request_id or correlation.read(self.root_id) or correlation.read(self.id)


def published_at(headers: Mapping[str, Any], properties: Mapping[str, Any]) -> float | None:
    """When a message was published, in epoch seconds, as it says itself; None if it does not.

    RabbitMQ writes both where ``message_interceptors.incoming.set_header_timestamp`` is configured
    (https://www.rabbitmq.com/docs/message-interceptors): the header in milliseconds, the property in whole seconds.
    """
    for value, unit in ((headers.get('timestamp_in_ms'), 1000), (properties.get('timestamp'), 1)):
        if isinstance(value, int) and not isinstance(value, bool) and FIRST_SECOND <= value / unit <= LAST_SECOND:
            return value / unit
    return None


def within_bytes(value: str, most: int) -> str:
    """The text cut to at most so many bytes of UTF-8, without lone surrogates."""
    if value.isascii():
        return value[:most]
    return value[:most].encode('utf-8', 'ignore')[:most].decode('utf-8', 'ignore')


_JSON, _PICKLE = 'application/json', 'application/x-python-serialize'

_DECODERS: Final[Mapping[str, Callable[[bytes], Any]]] = {_JSON: load_json, _PICKLE: load_pickle}

#: The content types behind the names of ``CELERY_ACCEPT_CONTENT``.
CONTENT_TYPES: Final[Mapping[str, str]] = {'json': _JSON, 'pickle': _PICKLE}


def decode(raw: Raw, accept: Container[str] = _DECODERS) -> Any:
    """The value of the body; raises :class:`~ecommerce_worker.errors.Undecodable` for any error."""
    decoder = _DECODERS.get(raw.content_type or '')
    if decoder is None or raw.content_type not in accept:
        raise Undecodable(f'content type {str(raw.content_type)[:80]!r} is not accepted (see CELERY_ACCEPT_CONTENT)')
    if len(raw.body) > LARGEST_BODY:
        raise Undecodable(f'the body has {len(raw.body)} bytes, more than {LARGEST_BODY}')
    try:
        return decoder(decompressed(raw.body, raw.headers.get('compression')))
    except Undecodable:
        raise
    except (Exception, RecursionError, MemoryError) as error:  # noqa: BLE001 - decoders raise anything
        # Not its text: decoders quote what they choke on, and that may be a customer's address.
        raise Undecodable(f'the body is not valid {raw.content_type} ({type(error).__name__})') from None


def read(raw: Raw, accept: Container[str] = _DECODERS) -> Call:
    """The call in a message; raises :class:`~ecommerce_worker.errors.Undecodable`.

    ``accept`` are the accepted content types.
    """
    body = decode(raw, accept)
    if 'task' in raw.headers:
        return _call(raw.headers, raw, *_protocol_2(body))
    if isinstance(body, Mapping) and 'task' in body:
        embed = {name: body.get(name) for name in ('callbacks', 'errbacks', 'chord')}
        return _call(body, raw, body.get('args', ()), body.get('kwargs', {}), embed)
    raise Undecodable('the message names no task')


def _protocol_2(body: Any) -> tuple[Any, Any, Any]:
    if not isinstance(body, list | tuple) or len(body) != 3:
        raise Undecodable('the body is not [args, kwargs, embed]')
    return body[0], body[1], body[2]


def _call(fields: Mapping[str, Any], raw: Raw, args: Any, kwargs: Any, embed: Any) -> Call:
    task = fields['task']
    if not isinstance(task, str) or not task:
        raise Undecodable('the task name is not a string')
    if not isinstance(args, list | tuple):
        raise Undecodable('the positional arguments are not a list')
    if not isinstance(kwargs, Mapping) or not all(isinstance(name, str) for name in kwargs):
        raise Undecodable('the keyword arguments are not a mapping with string keys')
    retries = fields.get('retries')
    return Call(
        task=task, id=_id(fields, raw), args=tuple(args), kwargs=kwargs,
        embed=embed if isinstance(embed, Mapping) else {},
        retries=retries if isinstance(retries, int) and 0 < retries < 10_000 else 0,
        eta=_eta(fields.get('eta')),
        origin=_text(fields.get('origin')) or '',
        root_id=_text(fields.get('root_id')), parent_id=_text(fields.get('parent_id')),
        request_id=correlation.of_message(raw.headers))


def _text(value: Any) -> str | None:
    # As a correlation id it must fit into AMQP's short text.
    return within_bytes(value, 255) or None if isinstance(value, str) else None


def _id(fields: Mapping[str, Any], raw: Raw) -> str:
    # A call without an id is still a promise; its republished form carries the one that it is given here.
    return _text(fields.get('id')) or _text(raw.properties.get('correlation_id')) or str(uuid.uuid4())


def _eta(value: Any) -> datetime | None:
    if value is None:
        return None
    try:
        eta = value if isinstance(value, datetime) else datetime.fromisoformat(value)
        return eta.astimezone(UTC) if eta.tzinfo else eta.replace(tzinfo=UTC)  # Celery's times are UTC
    except (TypeError, ValueError, OverflowError):
        raise Undecodable('its eta is not an ISO 8601 time') from None
