"""A small HTTP server for stand-ins, which can cut connections."""

from __future__ import annotations

import contextlib
import json
import socket
import socketserver
import ssl
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self

from typing_extensions import override

PHRASES = {status.value: status.phrase for status in HTTPStatus}
JSON = {'Content-Type': 'application/json'}


@dataclass(frozen=True)
class Request:
    """What was read from the connection."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]  # names in lower case
    body: bytes


@dataclass(frozen=True)
class Reply:
    """What is written to the connection."""

    status: int
    body: bytes = b''
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False

    @classmethod
    def of(cls, value: Any, status: int = 200) -> Self:
        """A reply in JSON."""
        return cls(status, json.dumps(value).encode(), JSON)

    def encoded(self) -> bytes:
        """The bytes on the wire."""
        phrase = PHRASES.get(self.status, 'Unknown')
        lines = [f'HTTP/1.1 {self.status} {phrase}', f'Content-Length: {len(self.body) + 1000 * self.cut}']
        lines += [f'{name}: {value}' for name, value in self.headers.items()]
        return '\r\n'.join([*lines, '', '']).encode('latin-1') + self.body


Responder = Callable[[Request], Reply | None]


class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """One thread per connection, and a list of the open ones, so that all can be cut."""

    allow_reuse_address = True
    request_queue_size = 256

    def __init__(self, port: int, respond: Responder, certificate: Path | None) -> None:
        self.respond = respond
        self._open: set[socket.socket] = set()
        self._tls: ssl.SSLContext | None = None
        if certificate is not None:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(certificate)
        super().__init__(('127.0.0.1', port), _Connection)

    @override
    def get_request(self) -> tuple[socket.socket, Any]:
        """A new connection."""
        connection, address = super().get_request()
        if self._tls is not None:
            # Hands are shaken at the first read, in the connection's thread: one client must not hold up all.
            connection = self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    @override
    def process_request(self, request: Any, client_address: Any) -> None:
        """Begin to serve a connection."""
        self._open.add(request)
        super().process_request(request, client_address)

    @override
    def shutdown_request(self, request: Any) -> None:
        """End a connection that was served."""
        self._open.discard(request)
        super().shutdown_request(request)

    @override
    def server_close(self) -> None:
        """Stop listening, cut all connections, and return when all threads have ended."""
        for connection in self._open.copy():
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        super().server_close()

    @override
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Tell of what went wrong with a connection."""
        # A client that goes away is part of the play.
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Connection(socketserver.StreamRequestHandler):
    """As much of HTTP/1.1 as the clients speak; the parser of `http.server` costs more than all the rest."""

    server: Server
    disable_nagle_algorithm = True

    @override
    def handle(self) -> None:
        while request := self._request():
            reply = self.server.respond(request)
            if reply is None:
                return
            self.wfile.write(reply.encoded())
            if reply.cut or request.headers.get('connection', '').lower() == 'close':
                return

    def _request(self) -> Request | None:
        words = self.rfile.readline().decode('latin-1').split()
        if len(words) != 3:
            return None
        headers = {}
        while line := self.rfile.readline().strip():
            name, _, value = line.decode('latin-1').partition(':')
            headers[name.lower()] = value.strip()
        path, _, query = words[1].partition('?')
        return Request(words[0], path, query, headers, self.rfile.read(int(headers.get('content-length', 0))))
