"""What the unit tests share: an empty environment, no network but loopback, a peer that answers as it is told to."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from http.client import responses
from typing import Any

import hypothesis
import pytest
from celery import Celery
from celery.contrib.testing.app import setup_default_app
from kombu import Queue
from kombu.transport import memory

from ecommerce_worker import runtime, settings
from ecommerce_worker.http import Api
from ecommerce_worker.tests.ledger import PrivateMariadb, PrivatePostgres, PrivateServer, private

hypothesis.settings.register_profile('unit', deadline=None, database=None, print_blob=True)
hypothesis.settings.load_profile('unit')

#: What of the environment of whoever runs the tests could change what they see.
FOREIGN = re.compile(r'ECOMMERCE_WORKER_.*|WORKER_CONFIGURATION_MODULE|IGNORE_YAML_OVERRIDES|DJANGO_SETTINGS_MODULE'
                     r'|(HTTP|HTTPS|ALL|NO)_PROXY|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|NETRC|EDX_REST_API_CLIENT_NAME',
                     re.IGNORECASE)


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Nothing in the environment that the worker, or a library of its, listens to."""
    for name in os.environ:
        if FOREIGN.fullmatch(name):
            monkeypatch.delenv(name)
    return monkeypatch


_loopback_only = threading.Event()


def _refuse_network(event: str, arguments: tuple[Any, ...]) -> None:
    if event == 'socket.connect' and _loopback_only.is_set() and isinstance(arguments[1], tuple):
        with contextlib.suppress(ValueError):
            if ipaddress.ip_address(arguments[1][0]).is_loopback:
                return
        raise AssertionError(f'a unit test wants to connect to {arguments[1][0]}')


# Such a hook cannot be taken away again; it sleeps outside of the tests of this directory.
sys.addaudithook(_refuse_network)


@pytest.fixture(autouse=True)
def loopback_only():
    """Whoever connects to another machine fails."""
    _loopback_only.set()
    yield
    _loopback_only.clear()


@dataclass(frozen=True)
class Request:
    """What a peer was asked; ``connection`` numbers the connections from 1, names of headers are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    connection: int


@dataclass(frozen=True)
class Reply:
    """The bytes to write, part by part, and whether to hang up afterwards."""

    parts: Iterable[bytes]
    close: bool = False


def reply(status: int = 200, body: bytes = b'{}', headers: Iterable[str] = (), *, length: int | None = None,
          close: bool = False) -> Reply:
    """An answer; a ``length`` other than that of the body makes it end too early."""
    size = [] if status == 204 else [f'Content-Length: {len(body) if length is None else length}']
    head = '\r\n'.join((f'HTTP/1.1 {status} {responses[status]}', *size, *headers, '', ''))
    return Reply([head.encode('latin-1') + body], close or length is not None)


@dataclass
class Peer:
    """A server on loopback; each request is answered with the next reply, the last one again and again."""

    replies: list[Reply] | Callable[[Request], Reply]
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    closing: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(('127.0.0.1', 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self.url = f'http://127.0.0.1:{self.port}/'
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        """Cut all connections and wait for the threads; harmless to repeat."""
        if self.closing.is_set():
            return
        self.closing.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._listener.close()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while not self.closing.is_set():
                connection, _ = self._listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.connections += 1
                self._open.append(connection)
                self._threads.append(threading.Thread(target=self._serve, args=(connection, self.connections)))
                self._threads[-1].start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError), connection, connection.makefile('rb') as stream:
            while request := _request(stream, number):
                answer = self._next(request)
                for part in answer.parts:
                    connection.sendall(part)
                if answer.close:
                    return

    def _next(self, request: Request) -> Reply:
        with self._lock:
            self.requests.append(request)
            if isinstance(self.replies, list):
                return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        return self.replies(request)


def _request(stream: Any, number: int) -> Request | None:
    words = stream.readline().decode('latin-1').split()
    if len(words) != 3 or not words[2].startswith('HTTP/'):
        return None
    headers = {}
    while line := stream.readline().strip().decode('latin-1'):
        name, _, value = line.partition(':')
        headers[name.lower()] = value.strip()
    return Request(words[0], words[1], headers, stream.read(int(headers.get('content-length', 0))), number)


@pytest.fixture
def peer() -> Iterator[Callable[..., Peer]]:
    """Starts peers: ``peer(reply(503), reply())`` or ``peer(function of the request)``."""
    with contextlib.ExitStack() as stack:
        def start(*replies: Any) -> Peer:
            started = Peer(list(replies) if isinstance(replies[0], Reply) else replies[0])
            stack.callback(started.close)
            return started

        yield start


@pytest.fixture
def api() -> Iterator[Callable[..., Api]]:
    """Makes clients: ``api(root, read_timeout=0.1)``."""
    with contextlib.ExitStack() as stack:
        def client(root: str, **options: Any) -> Api:
            made = Api(root, peer='the shop', **{'connect_timeout': 0.5, 'read_timeout': 2.0, **options})
            stack.callback(made.close)
            return made

        yield client


@pytest.fixture
def app() -> Iterator[Celery]:
    """A Celery application in force, on kombu's broker within the process."""
    with Celery('worker', broker='memory://', set_as_current=False) as app, setup_default_app(app):
        app.set_current()
        yield app
    memory.Channel.queues.clear()
    memory.Transport.global_state.clear()


@pytest.fixture
def channel(app: Celery) -> Iterator[Any]:
    """A channel to that broker."""
    with app.connection_for_read() as connection, connection.channel() as channel:
        yield channel


def taken(channel: Any, queue: str) -> Any:
    """The next message of a queue, None if there is none."""
    return Queue(queue).bind(channel).get(no_ack=True)


@pytest.fixture(scope='session')
def postgresql() -> Iterator[PrivateServer]:
    """A PostgreSQL for this session."""
    with private(PrivatePostgres) as server:
        yield server


@pytest.fixture(scope='session')
def mysql() -> Iterator[PrivateServer]:
    """A MariaDB for this session."""
    with private(PrivateMariadb) as server:
        yield server


@pytest.fixture
def in_force() -> Iterator[Callable[..., runtime.Runtime]]:
    """Puts settings in force: ``in_force(ECOMMERCE_API_ROOT=url)``; the worker signs its own tokens."""
    with contextlib.ExitStack() as stack:
        def use(**given: object) -> runtime.Runtime:
            environ = {f'ECOMMERCE_WORKER_{name}': str(value) for name, value in given.items()}
            made = runtime.Runtime(settings.load({
                'WORKER_CONFIGURATION_MODULE': 'ecommerce_worker.configuration.test',
                'ECOMMERCE_WORKER_JWT_SECRET_KEY': 'a secret of more than thirty-two bytes', **environ}))
            stack.callback(_close, made)
            return stack.enter_context(runtime.use(made))

        yield use


def _close(made: runtime.Runtime) -> None:
    for site in made._sites.values():
        if 'ecommerce' in vars(site):
            site.ecommerce._api.close()
