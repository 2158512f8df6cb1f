"""Connections are bounded over all services and closed when idle; that we have no files is not an outage of others."""

import os
import resource
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ecommerce_worker.clients import http
from ecommerce_worker.clients.circuit import PATIENCE, CircuitBreaker
from ecommerce_worker.clients.http import Api
from ecommerce_worker.clients.kept import Kept
from ecommerce_worker.errors import LocalFailure, lack_behind
from ecommerce_worker.tests.support.clock import Clock


class Service:
    """Something with connections."""

    def __init__(self) -> None:
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


def call(kept: Kept, service: Service) -> None:
    with kept.using(service):
        pass


# -- the bound --------------------------------------------------------------------------------------------------------

def test_what_was_unused_for_longest_is_closed_when_there_are_too_many():
    kept = Kept(limit=2)
    first, second, third = Service(), Service(), Service()
    for service in (first, second, first, third):
        call(kept, service)
    assert (first.closed, second.closed, third.closed) == (0, 1, 0)
    assert kept.open == 2


def test_a_service_counts_for_as_many_connections_as_it_had_calls_at_once():
    kept = Kept(limit=3)
    busy, other = Service(), Service()
    with kept.using(busy), kept.using(busy), kept.using(busy):
        pass
    call(kept, busy)
    assert kept.open == 3
    call(kept, other)
    assert (busy.closed, kept.open) == (1, 1)


def test_what_is_in_use_is_never_closed():
    kept = Kept(limit=1)
    busy, other = Service(), Service()
    with kept.using(busy):
        call(kept, other)
        kept.give_up()
        assert busy.closed == 0
    kept.give_up()
    assert busy.closed == 1


def test_what_is_idle_is_closed_though_nothing_else_happens():
    closed = threading.Event()
    kept = Kept(limit=9, idle_seconds=0.05)
    service = Service()
    service.close = closed.set  # type: ignore[method-assign]
    call(kept, service)
    assert closed.wait(60)
    assert kept.open == 0


def test_what_is_used_now_and_then_is_kept():
    clock = Clock()
    kept = Kept(limit=9, clock=clock)
    service, idle = Service(), Service()
    call(kept, idle)
    for _ in range(4):
        clock.now += 20
        call(kept, service)
    assert (service.closed, idle.closed) == (0, 1)


# -- at the wire ------------------------------------------------------------------------------------------------------

class Answering(BaseHTTPRequestHandler):
    """Says {} and keeps the connection."""

    protocol_version = 'HTTP/1.1'

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header('Content-Length', '2')
        self.end_headers()
        self.wfile.write(b'{}')

    def log_message(self, *args: object) -> None:
        """Nobody reads it."""


@pytest.fixture
def port() -> Iterator[int]:
    """A server that answers under every address of loopback."""
    with ThreadingHTTPServer(('0.0.0.0', 0), Answering) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def connected(port: int) -> int:
    """How many connections to that port are established."""
    rows = [line.split() for line in Path('/proc/self/net/tcp').read_text().splitlines()[1:]]
    return sum(row[2].endswith(f':{port:04X}') and row[3] == '01' for row in rows)


def test_a_call_to_each_of_many_hosts_leaves_a_bounded_number_of_connections(port, monkeypatch):
    kept = Kept(limit=10)
    monkeypatch.setattr(http, 'KEPT', kept)
    for number in range(1, 60):
        assert Api(f'http://127.0.1.{number}:{port}/', peer='the shop').request('GET', 'orders/') == {}
        assert kept.open <= 10
    assert connected(port) == 10
    kept.give_up()
    assert connected(port) == 0


def test_that_we_have_no_files_is_said_as_such_and_held_against_no_host(port):
    circuit = CircuitBreaker('the shop')
    api = Api(f'http://127.0.0.1:{port}/', peer='the shop', circuit=circuit)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    # None but the standard streams, whatever others in this process close; poll() takes no more than so many either.
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        # As many as make a host count as down, and one more.
        for _ in range(PATIENCE + 1):
            with pytest.raises(LocalFailure, match='was not called: this process has too many open files') as raised:
                api.request('GET', 'orders/')
            assert raised.value.retry_after
            assert not raised.value.maybe_done
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert api.request('GET', 'orders/') == {}


@pytest.mark.parametrize('number, ours', [(24, True), (23, True), (111, False), (104, False)])
def test_our_lack_is_seen_through_what_wraps_it(number, ours):
    error = ValueError('could not connect')
    error.__context__ = OSError(number, os.strerror(number))
    assert bool(lack_behind(RuntimeError(error))) is ours
