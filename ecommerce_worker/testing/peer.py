"""A scripted peer: a server on loopback that records requests and writes given bytes."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http.client import responses
from typing import Any


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
