"""Messages as they are on the wire, read safely: protocols 1 and 2, JSON and pickle, any producer since 2015.

The only place that touches pickle.  Celery 3.1, 4 and 5 shops still send it, and whoever may publish to the broker
could run code through it; so it is read with an unpickler that admits three harmless names and nothing else.
"""

from __future__ import annotations

import io
import pickle
import uuid
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, ClassVar, Final

from kombu.utils.json import loads as load_json

from ecommerce_worker.errors import Undecodable

#: The largest body that is read, in bytes.  The largest genuine ones, mails with their text, have some hundred kB.
LARGEST_BODY: Final = 8 * 1024 * 1024

#: What pickles of the shop name (counted in genuine messages of Django 2.2 to 4.2), and what it is read as.
ADMITTED: Final[Mapping[tuple[str, str], Any]] = {
    ('decimal', 'Decimal'): Decimal,
    ('django.utils.safestring', 'SafeString'): str,
    ('django.utils.safestring', 'SafeText'): str,
}


@dataclass(frozen=True)
class Raw:
    """A message as the broker delivered it, so that it can be moved elsewhere unchanged."""

    body: bytes
    content_type: str | None
    content_encoding: str | None
    headers: Mapping[str, Any] = field(default_factory=dict)
    properties: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, message: Any) -> Raw:
        """What a kombu message was made of; of its properties, those that are worth keeping."""
        body = message.body
        return cls(
            body.encode() if isinstance(body, str) else bytes(body or b''),
            message.content_type, message.content_encoding,
            message.headers if isinstance(message.headers, dict) else {},
            {'correlation_id': message.properties.get('correlation_id')})


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


class _Unpickler(pickle._Unpickler):  # noqa: SLF001
    """The standard library's unpickler in Python: a few lines of hostile pickle make the one in C fill the memory
    (its memo is an array, as long as the largest index that is named), and the difference is 20 µs a message.
    """

    # Without arrays of bytes: one is made as long as is announced, before it is seen how much there is.
    dispatch: ClassVar[dict[int, Any]] = {
        code: load for code, load in pickle._Unpickler.dispatch.items() if code != pickle.BYTEARRAY8[0]}  # noqa: SLF001

    def find_class(self, module: str, name: str) -> Any:
        try:
            return ADMITTED[module, name]
        except KeyError:
            raise Undecodable(
                f'the pickle names {module[:80]}.{name[:80]}, which is never loaded from a message') from None


def load_pickle(body: bytes) -> Any:
    """The value of a pickle of plain values; raises :class:`~ecommerce_worker.errors.Undecodable`."""
    # Text of a Python 2 producer comes as bytes, in UTF-8.
    return _Unpickler(io.BytesIO(body), encoding='utf-8').load()


_JSON, _PICKLE = 'application/json', 'application/x-python-serialize'

_DECODERS: Final[Mapping[str, Callable[[bytes], Any]]] = {_JSON: load_json, _PICKLE: load_pickle}

#: The content types behind the names of ``CELERY_ACCEPT_CONTENT``.
CONTENT_TYPES: Final[Mapping[str, str]] = {'json': _JSON, 'pickle': _PICKLE}


def decode(raw: Raw, accept: Container[str] = _DECODERS) -> Any:
    """The value of the body; raises :class:`~ecommerce_worker.errors.Undecodable`, whatever is wrong with it."""
    decoder = _DECODERS.get(raw.content_type or '')
    if decoder is None or raw.content_type not in accept:
        raise Undecodable(f'content type {str(raw.content_type)[:80]!r} is not accepted (see CELERY_ACCEPT_CONTENT)')
    if len(raw.body) > LARGEST_BODY:
        raise Undecodable(f'the body has {len(raw.body)} bytes, more than {LARGEST_BODY}')
    try:
        return decoder(raw.body)
    except Undecodable:
        raise
    except (Exception, RecursionError, MemoryError) as error:  # noqa: BLE001 - decoders raise anything
        # Not its text: decoders quote what they choke on, and that may be a customer's address.
        raise Undecodable(f'the body is no {raw.content_type} ({type(error).__name__})') from None


def read(raw: Raw, accept: Container[str] = _DECODERS) -> Call:
    """The call that a message makes; raises :class:`~ecommerce_worker.errors.Undecodable`.

    ``accept`` are the content types that are read at all.
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
        raise Undecodable('the name of the task is no text')
    if not isinstance(args, list | tuple):
        raise Undecodable('the positional arguments are no list')
    if not isinstance(kwargs, Mapping) or not all(isinstance(name, str) for name in kwargs):
        raise Undecodable('the keyword arguments are no mapping of names')
    retries = fields.get('retries')
    return Call(
        task=task, id=_id(fields, raw), args=tuple(args), kwargs=kwargs,
        embed=embed if isinstance(embed, Mapping) else {},
        retries=retries if isinstance(retries, int) and 0 < retries < 10_000 else 0,
        eta=_eta(fields.get('eta')),
        origin=_text(fields.get('origin')) or '',
        root_id=_text(fields.get('root_id')), parent_id=_text(fields.get('parent_id')))


def _text(value: Any) -> str | None:
    return value[:255] if isinstance(value, str) and value else None


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
        raise Undecodable('its eta is no ISO 8601 time') from None
