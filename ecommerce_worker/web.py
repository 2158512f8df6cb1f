"""The web server: slow clients do not occupy threads.

::

    accepted ──► read by the one thread that waits for all ──► whole ──► answered by one of some threads ──► written
       │               │ not whole in time                                             by the first again ◄──┘
       │ too many      ▼
       └──────► closed: the connection goes that has waited longest

It is waitress, with bounds: on connections, on the time for a request and for taking its answer, on sizes.
"""

from __future__ import annotations

import contextlib
import logging
import resource
import signal
import socket
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

from waitress.adjustments import Adjustments  # type: ignore[import-untyped]
from waitress.channel import HTTPChannel  # type: ignore[import-untyped]
from waitress.parser import HTTPRequestParser  # type: ignore[import-untyped]
from waitress.server import TcpWSGIServer  # type: ignore[import-untyped]

from ecommerce_worker import correlation
from ecommerce_worker.errors import WorkerError
from ecommerce_worker.process import pulse

#: Connections at once, at most; fewer where the process may not open twice as many files.
CONNECTIONS: Final = 1000

#: How many give way at once when there are more: looking for them takes its time.
GIVE_WAY: Final = 20

#: The seconds that a connection may take for what it is doing; an answer is made in its own time.
SECONDS: Final = {'idle': 60.0, 'reading': 20.0, 'writing': 60.0}

#: The longest head and body of a request, in bytes.
LARGEST_HEAD: Final = 32 * 1024
LARGEST_BODY: Final = 1024 * 1024

#: What is longer waits in a file rather than in memory, in bytes.
IN_MEMORY: Final = 64 * 1024

#: Seconds for answers in progress when the server is stopped.
GRACE: Final = 10

#: The answer to a client that has not sent its whole request in time.
TOO_LATE: Final = b'HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n'

#: Where WSGI has the header.
_VARIABLE: Final = f'HTTP_{correlation.HEADER.upper().replace("-", "_")}'

#: An application, as WSGI has it.
Application = Callable[[dict[str, Any], Any], Iterable[bytes]]


class AddressUnusable(WorkerError):
    """The address cannot be listened on: it is in use, or not of this machine."""


class _Parser(HTTPRequestParser):
    def received(self, data: bytes) -> int:
        """One request at a time: what follows before it is answered is not read, and the connection is closed."""
        size: int = super().received(data)
        if self.completed and not self.empty and data[size:].strip():
            self.headers['CONNECTION'] = 'close'
            return len(data)
        return size


class _Channel(HTTPChannel):
    """A connection, and what it has been doing since when."""

    parser_class = _Parser
    asked = 0.0  # when its last whole request came
    seen: tuple[str, float] = ('idle', 0.0)
    since = 0.0

    @property
    def doing(self) -> str:
        if self.total_outbufs_len:
            return 'writing'
        if self.requests:
            return 'answering'
        return 'reading' if self.request is not None else 'idle'

    def service(self) -> None:
        self.asked = time.time()
        super().service()

    def look(self, now: float) -> float:
        """The seconds for which it has been doing what it does."""
        if (found := (self.doing, self.asked)) != self.seen:
            self.seen, self.since = found, now
        return now - (self.since or self.creation_time)


class Server(TcpWSGIServer):
    """The server; ``run`` serves until ``end`` was called."""

    channel_class = _Channel
    over = False

    def __init__(self, application: Application, listener: socket.socket, *, reading: float = 0.0,
                 **options: Any) -> None:
        self.seconds = {**SECONDS, 'reading': reading or SECONDS['reading']}
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self.most = min(CONNECTIONS, files // 2)
        super().__init__(
            application, _sock=listener, bind_socket=False,
            sockinfo=(listener.family, listener.type, listener.proto, listener.getsockname()),
            adj=Adjustments(**{
                'sockets': [listener], 'ident': None, 'asyncore_use_poll': True, 'cleanup_interval': 1,
                'asyncore_loop_timeout': 1, 'connection_limit': self.most + 2 * GIVE_WAY, 'backlog': 1024,
                'max_request_header_size': LARGEST_HEAD, 'max_request_body_size': LARGEST_BODY + 1,
                'inbuf_overflow': IN_MEMORY, 'outbuf_overflow': IN_MEMORY,
                # No thread waits for a client to take its answer: what it does not take lies in a file.
                'outbuf_high_watermark': 1024 ** 3, 'log_socket_errors': False, **options}))

    def handle_accept(self) -> None:
        """Take all that wait, and make room if need be."""
        for _ in range(GIVE_WAY):
            before = len(self.active_channels)
            super().handle_accept()
            if len(self.active_channels) == before:
                break
        if len(self.active_channels) > self.most:
            self._make_room()

    def maintenance(self, now: float) -> None:
        """Close connections that take too long; called every second."""
        for channel in list(self.active_channels.values()):
            if channel.look(now) > self.seconds.get(channel.doing, float('inf')):
                if channel.doing == 'reading':
                    with contextlib.suppress(OSError):
                        channel.socket.send(TOO_LATE, socket.MSG_DONTWAIT)
                # Not by and by: what is not taken never becomes writable.
                channel.handle_close()

    def _make_room(self) -> None:
        """Close those that have waited longest; a request that is being answered does not wait."""
        # Not by `look`: it learns of a change when it looks, so those that it saw last would seem to be new.
        waiting = [(channel.asked or channel.creation_time, number)
                   for number, channel in self.active_channels.items() if channel.doing != 'answering']
        for _, number in sorted(waiting)[:GIVE_WAY]:
            self.active_channels[number].handle_close()

    def end(self, *_: Any) -> None:
        """Stop the server; a signal handler."""
        self.over = True
        self.pull_trigger()

    def run(self) -> None:
        """Serve; what is under way at the end is finished, for a while."""
        while not self.over:
            pulse.own.beat()
            self.asyncore.loop(timeout=1, map=self._map, use_poll=True, count=1)
        until = time.monotonic() + GRACE
        # Requests that wait for a thread are answered, too: the dispatcher would drop them, and not every sender
        # retries.
        while self.task_dispatcher.queue and time.monotonic() < until:
            time.sleep(0.02)
        self.task_dispatcher.shutdown(timeout=max(0.0, until - time.monotonic()))


def listener_at(address: str, who: str, setting: str, *, shared: bool = False) -> socket.socket:
    """A socket that listens at ``host:port``; raises :class:`AddressUnusable`, which names who and the setting.

    One that is ``shared`` leaves the address to other processes of this user too: each gets its part of the clients.
    """
    host, _, port = address.rpartition(':')
    host = host.strip('[]')
    try:
        return socket.create_server((host, int(port)), backlog=1024, reuse_port=shared,
                                    family=socket.AF_INET6 if ':' in host else socket.AF_INET)
    except (OSError, ValueError) as error:
        why = str(getattr(error, 'strerror', None) or error).partition(' (')[0]
        raise AddressUnusable(f'{who} cannot listen on {address} ({why}); set {setting} to another address') from None


def serve(application: Application, listener: socket.socket, *, threads: int, https: bool, proxy: str = '',
          reading: float = 0.0, begun: Callable[[], None] = lambda: None) -> None:
    """Serve an application until SIGTERM or SIGINT; ``begun`` is called once it listens.

    ``https`` means that clients use TLS, which a proxy in front of us terminates; ``proxy`` is the address of one whose
    ``X-Forwarded-For`` is believed, empty for none; ``reading`` are the seconds for a request to be whole, if
    they are others than those of :data:`SECONDS`.
    """
    # Each request that waits for a thread would be a warning; and disconnecting is a client's right.
    for name, level in (('waitress', logging.WARNING), ('waitress.queue', logging.ERROR)):
        logging.getLogger(name).setLevel(level)
    believed = {'trusted_proxy': proxy, 'trusted_proxy_headers': {'x-forwarded-for'}} if proxy else {}
    server = Server(correlated(application), listener, threads=threads, reading=reading,
                    url_scheme='https' if https else 'http', **believed)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, server.end)
    begun()
    server.run()


def correlated(application: Application) -> Application:
    """The same application; what it does for a request is done for the sake of its ``X-Request-ID``, if it has one."""
    def call(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        id_ = correlation.read(environ.get(_VARIABLE))
        if not id_:
            return application(environ, start_response)

        def start(status: str, headers: list[tuple[str, str]], *given: Any) -> Any:
            return start_response(status, [*headers, (correlation.HEADER, id_)], *given)

        with correlation.of(id_):
            return application(environ, start)

    return call


def logged(application: Application, log: logging.Logger) -> Application:
    """The same application with a line for each request; paths are cut before what may be a secret in them."""
    def call(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        started, said = time.monotonic(), ['-']

        def start(status: str, *given: Any) -> Any:
            said[0] = status.partition(' ')[0]
            return start_response(status, *given)

        try:
            return application(environ, start)
        finally:
            seconds, path = time.monotonic() - started, _plain(environ.get('PATH_INFO', ''))
            client, method = environ.get('REMOTE_ADDR', '-'), environ.get('REQUEST_METHOD', '-')
            log.info('%s "%s %s" %s %.3f', client, method, path, said[0], seconds, extra={
                'sentence': 'request', 'fields': {'client': client, 'method': method, 'path': path, 'seconds': seconds,
                                                  'response': int(said[0]) if said[0].isdigit() else None}})

    return call


def _plain(path: str) -> str:
    """The path, fit for a line of a log: no quotes, no control characters, nothing after /invitation/."""
    before, found, _ = path.partition('/invitation/')
    return (before + (found and f'{found}...')).encode('ascii', 'backslashreplace').decode().translate(
        dict.fromkeys((*range(33), ord('"'), ord('\\'), 127), '?'))[:200]
