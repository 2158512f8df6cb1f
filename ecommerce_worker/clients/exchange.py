"""One deadline, and one limit of bytes, for a whole exchange with another service.

A time-out of a socket bounds one silence: a peer that sends a byte now and then never meets it.  Sockets made here look
at the :func:`exchange` in which they are used each time before they wait, whichever library uses them: from connecting
and shaking hands to the last byte of the answer.  Outside of an exchange they are ordinary sockets.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import Any

from typing_extensions import override

#: What a socket connects to: the family and the address, as ``socket.getaddrinfo`` has them.
Place = tuple[int, Any]


#: An answer may come in so many pieces: those of one byte each cost the more, the more there are.
PIECES = 16_384

#: The shortest wait, in seconds, that the kernel is asked for; 0 is any to it.
SHORTEST = 0.001


class TooMuch(OSError):
    """The peer sends more than the exchange allows."""


class Exchange:
    """The limits of one exchange; they may be changed while it runs."""

    __slots__ = ('left', 'until')

    def __init__(self, until: float, left: int | None) -> None:
        #: When it must be over, on the clock of ``time.monotonic``.
        self.until = until
        #: How many bytes may still come; None for any number.
        self.left = left

    def seconds(self) -> float:
        """The remaining seconds; raises ``TimeoutError`` if there are none."""
        left = self.until - time.monotonic()
        if left <= 0:
            raise TimeoutError('the exchange timed out')
        return left

    def take(self, size: int) -> None:
        """Count received bytes; raises :class:`TooMuch`."""
        if self.left is not None:
            self.left -= size
            if self.left < 0:
                raise TooMuch('the peer sends more than we accept')


_current: ContextVar[Exchange | None] = ContextVar('exchange', default=None)


@contextlib.contextmanager
def exchange(seconds: float, most: int | None = None) -> Iterator[Exchange]:
    """Limit what this thread sends and receives in this context, on our sockets, to so many seconds and bytes.

    An exchange within another ends with that at the latest.  What is over time raises ``TimeoutError``, what is too
    much :class:`TooMuch`; both are ``OSError``.
    """
    until, outer = time.monotonic() + seconds, _current.get()
    made = Exchange(until if outer is None else min(until, outer.until), most)
    token = _current.set(made)
    try:
        yield made
    finally:
        _current.reset(token)


def _shorter(silence: float | None, left: float | None) -> float | None:
    """The shorter of two waits; None is any."""
    if silence is None or left is None:
        return left if silence is None else silence
    return min(silence, left)


class _Bounded:
    """Base class of both kinds of sockets; comes before the socket's own class."""

    #: The longest single wait, in seconds, as whoever uses the socket has set it; None for any.
    _silence: float | None = None

    def settimeout(self, value: float | None) -> None:
        self._silence = value

    def gettimeout(self) -> float | None:
        return self._silence

    def _begin(self, what: int) -> Exchange | None:
        """Make sure that the next wait ends with the exchange; the exchange, if there is one.

        What is waited for is that something comes, ``SO_RCVTIMEO``, or that something is taken, ``SO_SNDTIMEO``.
        """
        bounds = _current.get()
        self._wait(what, self._silence if bounds is None else _shorter(self._silence, bounds.seconds()))
        return bounds

    def _wait(self, what: int, seconds: float | None) -> None:  # noqa: ARG002 - Python has one time-out for both
        """Bound the next wait."""
        if super().gettimeout() != seconds:  # type: ignore[misc]
            super().settimeout(seconds)  # type: ignore[misc]

    def connect(self, *given: Any) -> None:
        self._begin(socket.SO_SNDTIMEO)
        super().connect(*given)  # type: ignore[misc]

    def send(self, *given: Any) -> int:
        self._begin(socket.SO_SNDTIMEO)
        with _in_time:
            return super().send(*given)  # type: ignore[misc,no-any-return]

    def sendall(self, *given: Any) -> None:
        self._begin(socket.SO_SNDTIMEO)
        super().sendall(*given)  # type: ignore[misc]

    def recv(self, *given: Any) -> bytes:
        bounds = self._begin(socket.SO_RCVTIMEO)
        with _in_time:
            found: bytes = super().recv(*given)  # type: ignore[misc]
        if bounds is not None:
            bounds.take(len(found))
        return found

    def recv_into(self, *given: Any) -> int:
        bounds = self._begin(socket.SO_RCVTIMEO)
        with _in_time:
            size: int = super().recv_into(*given)  # type: ignore[misc]
        if bounds is not None:
            bounds.take(size)
        return size


class _InTime:
    """Says as Python does that a wait was too long, where the kernel said it."""

    def __enter__(self) -> None:
        """Wait."""

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Raise TimeoutError in place of the kernel's error."""
        if kind is BlockingIOError:
            raise TimeoutError('timed out') from None


_in_time = _InTime()


class Plain(_Bounded, socket.socket):
    """A TCP socket, each wait of which is bounded by the kernel.

    A time-out of Python's costs a second call of the system before each, which asks whether the socket is ready, and a
    third where it changes; in each a thread gives up Python's lock and has to get it again.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        #: The time-out set in the kernel, in seconds; None for no limit.
        self._told: dict[int, float | None] = {socket.SO_RCVTIMEO: None, socket.SO_SNDTIMEO: None}

    @override
    def connect(self, *given: Any) -> None:
        # The kernel has no such bound for this.
        bounds = _current.get()
        socket.socket.settimeout(self, _shorter(self._silence, bounds.seconds() if bounds else None))
        socket.socket.connect(self, *given)
        socket.socket.settimeout(self, None)

    @override
    def sendall(self, data: Any, *flags: Any) -> None:
        # Each piece has its bound: who takes a byte now and then would not meet that of all.
        left = memoryview(data).cast('B')
        while left:
            left = left[self.send(left, *flags):]

    @override
    def _wait(self, what: int, seconds: float | None) -> None:
        if self._told[what] != seconds:
            self._told[what] = seconds
            whole, rest = divmod(0.0 if seconds is None else max(SHORTEST, seconds), 1)
            self.setsockopt(socket.SOL_SOCKET, what, struct.pack('ll', int(whole), int(rest * 1e6)))


class Secure(_Bounded, ssl.SSLSocket):
    """The same with TLS; encrypted bytes are counted."""

    @override
    def do_handshake(self, block: bool = False) -> None:
        """Perform the TLS handshake within the limits of the exchange."""
        self._begin(socket.SO_RCVTIMEO)
        super().do_handshake(block)


def securing(context: ssl.SSLContext) -> ssl.SSLContext:
    """The same context, with sockets that respect the limits of exchanges."""
    context.sslsocket_class = Secure
    return context


def resolved(host: str, port: int) -> list[Place]:
    """The addresses of that name; raises ``socket.gaierror`` if there are none.

    How long this takes is up to the system's resolver (``/etc/resolv.conf``), which cannot be interrupted.
    """
    try:
        found = socket.getaddrinfo(host.strip('[]'), port, type=socket.SOCK_STREAM)
    except UnicodeError:
        raise socket.gaierror(socket.EAI_NONAME, 'the host name is not valid') from None
    return [(family, address) for family, *_, address in found]


def connected(places: Iterable[Place], timeout: float | None, options: Iterable[tuple[Any, ...]] = ()) -> Plain:
    """A connection to the first address that accepts one; ``timeout`` applies to each.

    Raises the ``OSError`` of the last one.
    """
    failure = OSError('the host name has no address')
    for family, address in places:
        link = Plain(family, socket.SOCK_STREAM)
        try:
            link.settimeout(timeout)
            for option in options:
                link.setsockopt(*option)
            link.connect(address)
        except OSError as error:
            link.close()
            failure = error
        except BaseException:
            link.close()
            raise
        else:
            return link
    raise failure


class Response(http.client.HTTPResponse):
    """An answer of HTTP/1.1, without the interim ones that may come before it (RFC 9110, 15.2).

    The standard library knows 100 only; it takes 103 for the answer, and the true answer for that to the next request.
    """

    def _read_status(self) -> tuple[str, int, str]:
        while True:
            found: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]
            if not 101 < found[1] < 200:
                return found
            while self.fp.readline(65_537).strip():
                pass


def whole(read1: Callable[[int], bytes], most: int) -> bytes:
    """The whole body, read piece by piece; raises :class:`TooMuch` for more than ``most`` bytes."""
    pieces, size = [], 0
    while piece := read1(65_536):
        pieces.append(piece)
        size += len(piece)
        if size > most or len(pieces) > PIECES:
            raise TooMuch('the peer sends more than we accept')
    return b''.join(pieces)
