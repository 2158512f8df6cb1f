"""A shop that answers each call after a fixed time and writes down when it came; it is not what is measured.

    python -m benchmarks.shop --latency 0.1

Prints its port.  ``GET /calls/<n>`` answers with the calls from the n-th on: pairs of order number and epoch seconds.
:mod:`ecommerce_worker.testing.shop` keeps an order book and fails as it is told; this one costs a tenth of that.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import re
import subprocess
import sys
import time
from typing import Self

from typing_extensions import override

_FULFIL = re.compile(rb'PUT /api/v2/orders/([-\w]+)/fulfill/')
_ORDER = re.compile(rb'GET /api/v2/orders/([-\w]+)/ ')
_CALLS = re.compile(rb'GET /calls/(\d+) ')
_LENGTH = re.compile(rb'\r\ncontent-length: *(\d+)', re.IGNORECASE)

_HEAD = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n'

_calls: list[tuple[str, float]] = []


def _answer(head: bytes) -> tuple[bytes, bool]:
    """The JSON that answers a request, and whether it takes the time of a shop."""
    if found := _FULFIL.match(head):
        number = found[1].decode()
        _calls.append((number, time.time()))
        return json.dumps({'number': number, 'status': 'Complete', 'lines': [{'status': 'Complete'}]}).encode(), True
    if found := _ORDER.match(head):
        return json.dumps({'number': found[1].decode(), 'status': 'Open', 'lines': [{'status': 'Open'}]}).encode(), True
    if found := _CALLS.match(head):
        return json.dumps(_calls[int(found[1]):]).encode(), False
    return json.dumps({'access_token': 'a-token', 'expires_in': 86400, 'token_type': 'JWT'}).encode(), False


class _Connection(asyncio.Protocol):
    def __init__(self, latency: float) -> None:
        self._latency = latency
        self._received = b''
        self._transport: asyncio.WriteTransport

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    @override
    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b'\r\n\r\n')) >= 0:
            head = self._received[:end]
            length = _LENGTH.search(head)
            size = end + 4 + (int(length[1]) if length else 0)
            if len(self._received) < size:
                return
            self._received = self._received[size:]
            body, slowly = _answer(head)
            reply = _HEAD % len(body) + body
            asyncio.get_running_loop().call_later(self._latency if slowly else 0, self._transport.write, reply)


async def _serve(latency: float) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(latency), '127.0.0.1', 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


class Shop:
    """The shop as a process of its own."""

    def __init__(self, latency: float) -> None:
        self._process = subprocess.Popen([sys.executable, '-m', 'benchmarks.shop', '--latency', str(latency)],
                                         stdout=subprocess.PIPE, text=True)
        assert self._process.stdout
        self.port = int(self._process.stdout.readline())
        self.url = f'http://127.0.0.1:{self.port}'
        self._asking = http.client.HTTPConnection('127.0.0.1', self.port)
        #: When each order was called for, in epoch seconds, by its number.
        self.called: dict[str, float] = {}
        self._seen = 0

    def look(self) -> int:
        """How many orders have been called for."""
        self._asking.request('GET', f'/calls/{self._seen}')
        found = json.load(self._asking.getresponse())
        self._seen += len(found)
        self.called.update(found)
        return len(self.called)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._asking.close()
        with self._process:
            self._process.terminate()


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--latency', type=float, default=0.1, help='seconds that an order takes')
    asyncio.run(_serve(parser.parse_args().latency))


if __name__ == '__main__':
    main()
