"""Connections to RabbitMQ that read through a buffer and survive whatever a message holds.

::

    kombu.Connection ──► Transport ──► Connection (amqp) ──► TCP or TLS socket, read ahead
                                            │ frames
                                            ▼
                                       frames.Content ──► Channel ──► Message, as it came

Of a wake-up of the event loop, one read takes all frames that are there.  If another thread waits for an answer on the
same connection, it may read ahead, too; the event loop is notified of what it leaves in the buffer, since its poller
only sees the socket.

Many frames are written at once by who says so: see :func:`corked`.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from struct import Struct
from typing import Any, Final

import kombu
from amqp import transport as amqp_transport
from amqp.exceptions import RecoverableConnectionError, UnexpectedFrame
from kombu.exceptions import ContentDisallowed, DecodeError
from kombu.transport import base, pyamqp
from typing_extensions import override

from ecommerce_worker.broker import bodies
from ecommerce_worker.broker.frames import Frame, frame_handler
from ecommerce_worker.errors import Undecodable

#: Bytes that are read from a socket at once, unless a frame needs more.
READ_BYTES: Final = 64 * 1024

#: Frames that are written at once, at most.
MOST_CORKED: Final = 100

#: A frame that announces more bytes than this is not from RabbitMQ, which agrees on 128 KiB at most by default.
LARGEST_FRAME: Final = 16 * 1024 * 1024

_HEAD = Struct('>BHI')
_END: Final = 0xCE


class _ReadsAhead:
    """Base class of both kinds of sockets; comes before the class of py-amqp."""

    sock: Any
    connected: bool

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._received = b''
        self._at = 0
        self._missing = 0
        #: What is to be written with all that follows; None if each frame is written separately.
        self._corked: list[bytes] | None = None

    def next_frame(self) -> Frame | None:
        """The next frame that was received; None if none is complete."""
        received, at = self._received, self._at
        if len(received) - at < _HEAD.size:
            self._missing = 0
            return None
        kind, channel, size = _HEAD.unpack_from(received, at)
        if size > LARGEST_FRAME:
            raise UnexpectedFrame(f'a frame of {size} bytes')
        begin = at + _HEAD.size
        end = begin + size
        if len(received) <= end:
            self._missing = end + 1 - len(received)
            return None
        if received[end] != _END:
            raise UnexpectedFrame(f'a frame ends in {received[end]:#04x} instead of 0xce')
        self._at = end + 1
        return kind, channel, received[begin:end]

    def write(self, s: Any) -> None:
        """Write these bytes, or buffer them until everything is written at once."""
        if self._corked is None:
            super().write(s)  # type: ignore[misc]
            return
        # They come in a buffer in which the next frame is made.
        self._corked.append(bytes(s))
        if len(self._corked) >= MOST_CORKED:
            self._flush()

    @contextmanager
    def corked(self) -> Iterator[None]:
        """Write all frames of this block with as few system calls as possible, the last ones at its end."""
        self._corked = []
        try:
            yield
        finally:
            try:
                self._flush()
            finally:
                self._corked = None

    def _flush(self) -> None:
        corked, self._corked = self._corked, []
        if corked:
            super().write(b''.join(corked))  # type: ignore[misc]

    @property
    def reads_ahead(self) -> bool:
        """Whether bytes of further frames have been received."""
        return self._at < len(self._received)

    def read_frame(self, unpack: object = None) -> Frame:  # noqa: ARG002 - as in py-amqp
        """Wait for the next frame; raises TimeoutError if none comes in time, without losing anything."""
        while (frame := self.next_frame()) is None:
            self._receive(self._recv)
        return frame

    def receive(self) -> None:
        """Read what is there now; raises TimeoutError if nothing is."""
        self._receive(self._recv_now)

    def _receive(self, recv: Callable[[int], bytes]) -> None:
        if self.sock is None:
            raise RecoverableConnectionError('the connection was closed')
        try:
            received = recv(max(READ_BYTES, self._missing))
        except TimeoutError:
            raise
        except (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise TimeoutError from None
        except OSError:
            self.connected = False
            raise
        if not received:
            self.connected = False
            raise OSError('Server unexpectedly closed connection')
        self._received = self._received[self._at:] + received if self.reads_ahead else received
        self._at = 0

    def _recv(self, size: int) -> bytes:
        return bytes(self.sock.recv(size))

    def _recv_now(self, size: int) -> bytes:
        raise NotImplementedError


class TCPTransport(_ReadsAhead, amqp_transport.TCPTransport):
    """A plain socket."""

    @override
    def _recv_now(self, size: int) -> bytes:
        # The socket itself stays as it is: a thread may be about to write to it.
        return bytes(self.sock.recv(size, socket.MSG_DONTWAIT))


class SSLTransport(_ReadsAhead, amqp_transport.SSLTransport):
    """A socket with TLS, which hands out a record of at most 16 KiB at a time."""

    @override
    def _recv_now(self, size: int) -> bytes:
        with self.having_timeout(0) as sock:
            received = [sock.recv(size)]
            # No poller would report what is in its own buffer.
            while received[-1] and sock.pending():
                received.append(sock.recv(size))
        return b''.join(received)


class Message(base.Message):
    """A raw message: decompressed and decoded by its reader, within bounds.

    kombu would decompress it at once, to whatever size.  ``unreadable`` is that of
    :class:`~ecommerce_worker.broker.frames.Content`.
    """

    def __init__(self, msg: Any, channel: Any = None, **options: Any) -> None:
        properties = msg.properties
        super().__init__(
            body=msg.body, channel=channel, delivery_tag=msg.delivery_tag, delivery_info=msg.delivery_info,
            content_type=properties.get('content_type'), content_encoding=properties.get('content_encoding'),
            properties=properties, **options)
        self.headers = properties.get('application_headers') or {}
        self.unreadable = msg.unreadable

    def _decode(self) -> Any:
        """What kombu itself reads: commands and answers of remote control, in JSON."""
        if self.content_type not in (self.accept or ()):
            raise ContentDisallowed('a message that is not JSON')
        try:
            return bodies.load_json(bodies.decompressed(self.body, self.headers.get('compression')))
        except Undecodable as error:
            raise DecodeError(str(error)) from None


class Channel(pyamqp.Channel):
    """A channel with raw messages."""

    Message = Message

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.auto_decode = False  # a body is bytes until it is read


class Connection(pyamqp.Connection):
    """A connection whose frames are read ahead."""

    Channel = Channel

    #: Called when another thread has waited for an answer and received more than that.
    on_read_ahead: Callable[[], None] | None = None

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{'frame_handler': frame_handler, **options})

    def Transport(self, host: str, connect_timeout: float | None, ssl: Any = False,  # noqa: N802 - py-amqp's
                  read_timeout: float | None = None, write_timeout: float | None = None, **options: Any) -> Any:
        """The socket, not connected yet."""
        kind = SSLTransport if ssl else TCPTransport
        return kind(host, connect_timeout=connect_timeout, ssl=ssl, read_timeout=read_timeout,
                    write_timeout=write_timeout, **options)

    def drain_events(self, timeout: float | None = None) -> None:
        """Read until a method is complete; raises TimeoutError."""
        try:
            super().drain_events(timeout)
        finally:
            if self.on_read_ahead and self._transport and self._transport.reads_ahead:
                self.on_read_ahead()

    def blocking_read(self, timeout: float | None = None) -> Any:
        """Take one frame, from the buffer if there is one in it."""
        frame = self.transport.next_frame()
        if frame is None:
            with self.transport.having_timeout(timeout):
                frame = self.transport.read_frame()
        return self.on_inbound_frame(frame)

    def read_now(self) -> None:
        """Take all frames that have come, by one read from the socket."""
        with suppress(TimeoutError):
            self.transport.receive()
        # A frame may be the one that ends the connection.
        while self._transport and (frame := self._transport.next_frame()) is not None:
            self.on_inbound_frame(frame)


def corked(channel: Any) -> AbstractContextManager[None]:
    """Write all frames of a block at once, :data:`MOST_CORKED` at most, where the channel's connection is one of ours.

    No other thread may write to that connection meanwhile.
    """
    transport = getattr(getattr(channel, 'connection', None), '_transport', None)
    return transport.corked() if isinstance(transport, _ReadsAhead) else nullcontext()


class _Reading:
    """Reads a connection on the event loop, whenever its socket or its buffer has something."""

    def __init__(self, connection: Connection, loop: Any) -> None:
        self._connection = connection
        self._loop = loop
        self._due = False

    def soon(self) -> None:
        """Look into the buffer, at the next turn of the loop."""
        if not self._due:
            self._due = True
            self._loop.call_soon(self._look)

    def _look(self) -> None:
        self._due = False
        if self._connection.connected:
            self()

    def __call__(self) -> None:
        if not self._connection.connected:
            raise RecoverableConnectionError('Socket was disconnected')
        self._connection.read_now()


class Transport(pyamqp.Transport):
    """kombu's transport for RabbitMQ, with connections of ours."""

    Connection = Connection

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Have the event loop read this connection."""
        reading = _Reading(connection, loop)
        connection.on_read_ahead = reading.soon
        loop.add_reader(connection.sock, reading)


class TLSTransport(Transport, pyamqp.SSLTransport):
    """The same for ``amqps`` URLs."""


class BrokerConnection(kombu.Connection):
    """kombu's connection; to RabbitMQ with :class:`Transport`, to other brokers unchanged."""

    def get_transport_cls(self) -> type:
        """The class of the transport."""
        found: type = super().get_transport_cls()
        return {pyamqp.Transport: Transport, pyamqp.SSLTransport: TLSTransport}.get(found, found)
