"""Assembles AMQP 0-9-1 frames to methods and messages, whatever publishers wrote into the messages.

::

    frame ──► method ─────────────────────────────────────────────► channel
              method with content ──► content header ──► body … ──► channel
                                           │ what cannot be read
                                           ▼
                                  Content.unreadable, as bytes

RabbitMQ passes on what publishers write without looking at it: texts in any encoding, arrays in arrays, times beyond
the calendar.  py-amqp raises on these, out of whatever reads from the connection; here the message is delivered, and
reports what could not be read.  Fields are counted and depth is limited while they are read, so that a content
header costs a few milliseconds at most.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from struct import Struct
from struct import error as StructError  # noqa: N812 - an exception is called as one
from typing import TYPE_CHECKING, Any, Final

import amqp
from amqp import spec
from amqp.exceptions import UnexpectedFrame

if TYPE_CHECKING:
    from amqp import Connection

#: A frame as the transport hands it over: type, channel, payload.
Frame = tuple[int, int, bytes]

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8

#: The most fields in the headers of one message, those of nested tables and arrays included, and how deep these nest.
#: Genuine headers have some dozen fields, ours up to a hundred, three deep.
MOST_FIELDS: Final = 5_000
DEEPEST: Final = 20

#: Bytes of what cannot be read that are kept, for each part of a message.
KEPT: Final = 16 * 1024

#: The methods that a message follows.
_WITH_CONTENT: Final = frozenset((spec.Basic.Deliver, spec.Basic.GetOk, spec.Basic.Return))

#: Methods with texts that others choose, or that quote them: where the first one begins in the arguments, after a
#: consumer tag (whose length is added) and a delivery tag, or after a reply code; and how many there are.
_TEXTS: Final[Mapping[tuple[int, int], tuple[int, int]]] = {
    spec.Basic.Deliver: (4 + 1 + 8 + 1, 2), spec.Basic.GetOk: (4 + 8 + 1, 2), spec.Basic.Return: (4 + 2, 3),
    spec.Channel.Close: (4 + 2, 1), spec.Connection.Close: (4 + 2, 1)}

_SIGNATURE = Struct('>HH')
_SHORT = Struct('>H')
_LONG = Struct('>I')
_LONG_LONG = Struct('>Q')
_DECIMAL = Struct('>Bi')

#: Types of fields that are numbers; letters as RabbitMQ, py-amqp and their kin write them.
_NUMBERS: Final[Mapping[int, Struct]] = {ord(letter): Struct('>' + form) for letter, form in {
    'b': 'b', 'B': 'B', 'U': 'h', 's': 'h', 'u': 'H', 'I': 'i', 'i': 'I', 'L': 'q', 'l': 'q', 'f': 'f', 'd': 'd',
}.items()}

#: The properties of a message in the order of their flags, with the form of each: a text, a table or a number.
_TEXT, _TABLE = None, 'table'
_PROPERTIES: Final = tuple((0x8000 >> number, name, form) for number, (name, form) in enumerate((
    ('content_type', _TEXT), ('content_encoding', _TEXT), ('application_headers', _TABLE),
    ('delivery_mode', Struct('>B')), ('priority', Struct('>B')), ('correlation_id', _TEXT), ('reply_to', _TEXT),
    ('expiration', _TEXT), ('message_id', _TEXT), ('timestamp', _LONG_LONG), ('type', _TEXT), ('user_id', _TEXT),
    ('app_id', _TEXT), ('cluster_id', _TEXT))))


class _Unreadable(Exception):
    """The following bytes cannot be interpreted."""


class Content(amqp.Message):
    """A message with an arbitrary content header.

    ``unreadable`` has, by name, the properties that are not text in UTF-8 (which are in ``properties`` too, as bytes)
    and, as ``headers`` or ``properties``, what is left from the first field on that makes no sense.
    """

    unreadable: Mapping[str, bytes] = {}

    def inbound_header(self, buf: bytes, offset: int = 0) -> int:
        """Read the content header."""
        try:
            self.body_size, = _LONG_LONG.unpack_from(buf, offset + 4)
        except StructError:
            raise UnexpectedFrame('a content header is truncated') from None
        self.properties, self.unreadable = properties_of(buf, offset + 12)
        self.ready = not self.body_size
        return len(buf)


def frame_handler(connection: Connection, callback: Callable[..., Any]) -> Callable[[Frame], bool]:
    """A handler of a connection's frames; it returns whether a method was complete and passed to ``callback``.

    Takes the place of :func:`amqp.method_framing.frame_handler`.
    """
    begun: dict[int, Content] = {}

    def on_frame(frame: Frame) -> bool:
        kind, channel, payload = frame
        connection.bytes_recv += 1
        if kind == HEARTBEAT:
            return False
        content = begun.get(channel)
        if content is None:
            if kind != METHOD:
                raise UnexpectedFrame(f'a frame of type {kind} instead of a method')
            method = _SIGNATURE.unpack_from(payload)
            if method in _TEXTS:
                payload = _with_readable_texts(method, payload)
            if method in _WITH_CONTENT:
                begun[channel] = Content(frame_method=method, frame_args=payload)
                return False
            callback(channel, method, payload, None)
            return True
        if kind == BODY and content.body_size:
            content.inbound_body(payload)
        elif kind == HEADER and not content.body_size:
            content.inbound_header(payload)
        else:
            raise UnexpectedFrame(f'a frame of type {kind} in the middle of a message')
        if not content.ready:
            return False
        del begun[channel]
        callback(channel, content.frame_method, content.frame_args, content)
        return True

    return on_frame


def _with_readable_texts(method: tuple[int, int], payload: bytes) -> bytes:
    """The method with ``?`` for each byte of an exchange, a routing key or a reply that is not UTF-8."""
    start, count = _TEXTS[method]
    if method == spec.Basic.Deliver:
        start += payload[4]
    if payload[start:].isascii():
        return payload
    at, texts = start, []
    for _ in range(count):
        end = at + 1 + payload[at]
        text = payload[at + 1:end]
        if isinstance(_text(text), bytes):
            text = text.decode('latin-1').encode('ascii', 'replace')
        texts += [payload[at:at + 1], text]
        at = end
    return b''.join([payload[:start], *texts, payload[at:]])


def properties_of(buf: bytes, offset: int) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The properties of a content header, and those that cannot be read (see :class:`Content`)."""
    found: dict[str, Any] = {}
    unreadable: dict[str, bytes] = {}
    try:
        flags, = _SHORT.unpack_from(buf, offset)
        offset += 2
        for flag, name, form in _PROPERTIES:
            if not flags & flag:
                continue
            if form is _TEXT:
                end = offset + 1 + buf[offset]
                found[name] = text = _text(buf[offset + 1:end])
                if isinstance(text, bytes):
                    unreadable[name] = text
            elif isinstance(form, Struct):
                found[name], = form.unpack_from(buf, offset)
                end = offset + form.size
            else:
                end = offset + 4 + _LONG.unpack_from(buf, offset)[0]
                found[name], left = headers_of(buf, offset + 4, min(end, len(buf)))
                if left:
                    unreadable['headers'] = left
            if end > len(buf):
                raise _Unreadable
            offset = end
    except (_Unreadable, StructError, IndexError):
        unreadable['properties'] = buf[offset:offset + KEPT]
    return found, unreadable


def headers_of(buf: bytes, offset: int, end: int) -> tuple[dict[str, Any], bytes]:
    """The fields of a table, and the bytes from the first one on that cannot be read, shortened to :data:`KEPT`."""
    found: dict[str, Any] = {}
    reader = _Fields(buf)
    try:
        while offset < end:
            name, value, following = reader.field(offset, end, 1)
            found[name], offset = value, following
    except (_Unreadable, StructError, IndexError):
        return found, buf[offset:min(end, offset + KEPT)]
    return found, b''


class _Fields:
    """Reads fields of tables and arrays, and counts them."""

    __slots__ = ('_buf', '_left')

    def __init__(self, buf: bytes) -> None:
        self._buf = buf
        self._left = MOST_FIELDS

    def field(self, offset: int, end: int, depth: int) -> tuple[str, Any, int]:
        """Name and value of a field of a table, and where the next one begins."""
        begin = offset + 1
        offset = begin + self._buf[offset]
        name = self._buf[begin:offset]
        value, offset = self._value(offset, end, depth)
        # Names that are not UTF-8 are texts all the same, from which `errors='surrogateescape'` makes the bytes again.
        return name.decode('utf-8', 'surrogateescape'), value, offset

    def _value(self, offset: int, end: int, depth: int) -> tuple[Any, int]:
        buf, kind = self._buf, self._buf[offset]
        offset += 1
        self._left -= 1
        if self._left < 0:
            raise _Unreadable
        value: Any
        if kind in b'SxFA':
            length, = _LONG.unpack_from(buf, offset)
            offset += 4
            following = offset + length
            if following > end:
                raise _Unreadable
            if kind == 0x53:  # S
                value = _text(buf[offset:following])
            elif kind == 0x78:  # x
                value = buf[offset:following]
            elif depth >= DEEPEST:
                raise _Unreadable
            elif kind == 0x46:  # F
                value = {}
                while offset < following:
                    name, member, offset = self.field(offset, following, depth + 1)
                    value[name] = member
            else:
                value = []
                while offset < following:
                    member, offset = self._value(offset, following, depth + 1)
                    value.append(member)
            return value, following
        if form := _NUMBERS.get(kind):
            value, = form.unpack_from(buf, offset)
            offset += form.size
        elif kind == 0x74:  # t
            value, offset = bool(buf[offset]), offset + 1
        elif kind == 0x56:  # V
            value = None
        elif kind == 0x54:  # T
            value, offset = _time(buf[offset:offset + 8]), offset + 8
        elif kind == 0x44:  # D
            scale, digits = _DECIMAL.unpack_from(buf, offset)
            value, offset = Decimal(digits).scaleb(-scale), offset + 5
        else:
            raise _Unreadable
        if offset > end:
            raise _Unreadable
        return value, offset


def _text(given: bytes) -> str | bytes:
    """The text in UTF-8; the bytes if they are not."""
    try:
        return given.decode()
    except UnicodeDecodeError:
        return given


def _time(given: bytes) -> datetime | bytes:
    """The time in UTC, without a zone, as py-amqp has it; the bytes for one that the calendar does not have."""
    seconds, = _LONG_LONG.unpack(given)
    try:
        return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)
    except (ValueError, OverflowError, OSError):
        return given
