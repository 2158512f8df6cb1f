"""One deadline over a whole exchange: whatever a peer does, a thread is free again when the time is over."""

import contextlib
import socket
import ssl
import struct
import threading
import time

import pytest

from ecommerce_worker.clients.exchange import Plain, TooMuch, connected, exchange, resolved, securing
from ecommerce_worker.email.vendors import braze, sendgrid
from ecommerce_worker.errors import ApiError, Transient, Unreachable
from ecommerce_worker.sailthru.client import Sailthru
from ecommerce_worker.testing.peer import Reply, reply
from ecommerce_worker.tests.support.smtp import Certificate


@pytest.fixture(scope='session')
def certificate(tmp_path_factory):
    return Certificate.made(tmp_path_factory.mktemp('tls'))


@contextlib.contextmanager
def raw_peer(serve):
    """The port of a peer that does ``serve(connection, over)`` with one connection; ``over`` is set at the end."""
    def run():
        with contextlib.suppress(OSError):
            connection, _ = listener.accept()
            with connection:
                serve(connection, over)

    over = threading.Event()
    with socket.create_server(('127.0.0.1', 0)) as listener:
        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            over.set()
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def dripping(before, drip):
    """Sends something at once, and something more every little while."""
    def serve(connection, over):
        connection.recv(65536)
        connection.sendall(before)
        while not over.wait(0.02):
            connection.sendall(drip)

    return serve


def flooding(before, flood):
    def serve(connection, over):
        connection.recv(65536)
        connection.sendall(before)
        while not over.is_set():
            connection.sendall(flood)

    return serve


DRIPS = {
    'the status line': dripping(b'', b'H'),
    'a name of a header': dripping(b'HTTP/1.1 200 OK\r\n', b'x'),
    'headers': dripping(b'HTTP/1.1 200 OK\r\n', b'X: y\r\n'),
    'interim answers': dripping(b'', b'HTTP/1.1 100 Continue\r\n\r\n'),
    'early hints': dripping(b'', b'HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n'),
    'the body': dripping(b'HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n', b' '),
    'chunks': dripping(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n', b'1\r\n \r\n'),
    'a length of a chunk': dripping(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n', b'0'),
    'trailers': dripping(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n', b'X: y\r\n'),
    'nothing': dripping(b'', b''),
}

FLOODS = {
    'interim answers': flooding(b'', b'HTTP/1.1 100 Continue\r\n\r\n' * 1000),
    'a header': flooding(b'HTTP/1.1 200 OK\r\nX: ', b'x' * 65536),
    'headers': flooding(b'HTTP/1.1 200 OK\r\n', b'X: y\r\n' * 1000),
    'the body': flooding(b'HTTP/1.1 200 OK\r\n\r\n', b' ' * 65536),
    'chunks': flooding(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n', b'1\r\n \r\n' * 1000),
    'trailers': flooding(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n', b'X: y\r\n' * 10_000),
}


@pytest.mark.parametrize('serve', DRIPS.values(), ids=DRIPS)
def test_a_peer_that_drips_is_an_outage_when_the_time_is_over(api, serve):
    with raw_peer(serve) as port, pytest.raises(Unreachable) as caught:
        # The silence alone would be borne for two seconds, by a peer that is never silent for so long.
        api(f'http://127.0.0.1:{port}/').request('PUT', 'x', read_timeout=0.25)
    assert caught.value.maybe_done
    assert caught.value.status is None


@pytest.mark.parametrize('serve', FLOODS.values(), ids=FLOODS)
def test_a_peer_that_floods_is_an_outage_long_before_the_time_is_over(api, serve):
    with raw_peer(serve) as port, pytest.raises(Transient) as caught:
        api(f'http://127.0.0.1:{port}/').request('PUT', 'x', read_timeout=600)
    assert caught.value.maybe_done


def test_a_peer_that_does_not_read_what_it_is_sent_is_an_outage(api):
    with raw_peer(lambda connection, over: over.wait(30)) as port, pytest.raises(Unreachable, match='in time'):
        api(f'http://127.0.0.1:{port}/').request('POST', 'x', json='x' * 20_000_000, read_timeout=0.2)


def test_a_peer_that_stands_still_in_the_handshake_is_an_outage(api):
    with raw_peer(lambda connection, over: over.wait(30)) as port, pytest.raises(Unreachable, match='in time'):
        api(f'https://127.0.0.1:{port}/', connect_timeout=0.2).request('PUT', 'x', read_timeout=0.2)


@pytest.fixture
def full():
    """The port of a listener that takes no more connections: what connects to it hears nothing."""
    with socket.socket() as listener, contextlib.ExitStack() as stack:
        listener.bind(('127.0.0.1', 0))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def test_a_connection_that_nobody_takes_is_an_outage_without_an_effect(api, full):
    with pytest.raises(Unreachable, match='did not accept the connection in time') as caught:
        api(f'http://127.0.0.1:{full}/', connect_timeout=30).request('PUT', 'x', read_timeout=0.1)
    assert not caught.value.maybe_done


def test_many_addresses_share_the_time(full):
    with exchange(0.3), pytest.raises(TimeoutError):
        # More than a day, if each had a time of its own.
        connected([(socket.AF_INET, ('127.0.0.1', full))] * 10_000, 10)


@pytest.mark.parametrize('serve', [dripping(b'HTTP/1.1 200 OK\r\n', b'X: y\r\n'), DRIPS['the body']],
                         ids=['headers', 'the body'])
def test_a_peer_that_drips_by_tls_is_an_outage(api, certificate, environment, serve):
    def by_tls(connection, over):
        with contextlib.suppress(OSError), certificate.context.wrap_socket(connection, server_side=True) as link:
            serve(link, over)

    environment.setenv('REQUESTS_CA_BUNDLE', str(certificate.file))
    with raw_peer(by_tls) as port, pytest.raises(Unreachable, match='in time') as caught:
        api(f'https://localhost:{port}/').request('PUT', 'x', read_timeout=0.5)
    assert caught.value.maybe_done


def test_a_request_goes_by_tls_with_the_ca_bundle_of_the_environment(api, certificate, environment):
    def by_tls(connection, over):
        with certificate.context.wrap_socket(connection, server_side=True) as link:
            for _ in range(2):
                link.recv(65536)
                link.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}')
            over.wait(30)

    environment.setenv('REQUESTS_CA_BUNDLE', str(certificate.file))
    with raw_peer(by_tls) as port:
        client = api(f'https://localhost:{port}/')
        assert [client.request('GET', 'x') for _ in range(2)] == [{}, {}]


def test_a_proxy_that_drips_is_an_outage(api, environment):
    with raw_peer(dripping(b'HTTP/1.1 200 OK\r\n', b'X: y\r\n')) as port:
        environment.setenv('https_proxy', f'http://127.0.0.1:{port}')
        with pytest.raises(Unreachable):
            api('https://shop.test/').request('PUT', 'x', read_timeout=0.25)


@pytest.mark.parametrize('ask', [
    lambda connect, url: Sailthru('key', 'secret', connect, root=url).post('send', {}),
    lambda connect, url: sendgrid.Vendor({'api_key': 'k', 'from_email': 'a@b.test', 'api_url': url}, connect).bounced(
        'a@b.test'),
    lambda connect, url: braze.Vendor(
        {**dict.fromkeys(braze.REQUIRED, 'x'), 'REST_API_URL': url, 'BRAZE_RETRY_SECONDS': 1,
         'BRAZE_RETRY_ATTEMPTS': 1}, connect).bounced('a@b.test'),
], ids=['Sailthru', 'SendGrid', 'Braze'])
def test_a_vendor_that_drips_is_an_outage(ask, api):
    def connect(root, **given):
        given.pop('peer')
        return api(root, read_timeout=0.25, **given)

    with raw_peer(DRIPS['headers']) as port, pytest.raises(ApiError) as caught:
        ask(connect, f'http://127.0.0.1:{port}/')
    assert isinstance(caught.value, Unreachable)


# -- sockets ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def pair():
    here, there = socket.socketpair()
    with Plain(here.family, here.type, here.proto, fileno=here.detach()) as ours, there:
        yield ours, there


def test_a_socket_outside_of_an_exchange_is_an_ordinary_one(pair):
    ours, there = pair
    ours.settimeout(7)
    there.sendall(b'abc')
    with exchange(1):
        ours.recv(1)
    assert (ours.recv(1), ours.gettimeout()) == (b'b', 7)
    assert struct.unpack('ll', ours.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16))[0] == 7


def test_an_exchange_ends_with_the_one_that_it_is_within(pair):
    ours, _ = pair
    with exchange(0.05) as outer, exchange(60) as inner:
        assert inner.until == outer.until
        with pytest.raises(TimeoutError):
            ours.recv(1)


def test_what_is_over_is_not_begun(pair):
    ours, there = pair
    there.sendall(b'abc')
    with exchange(0), pytest.raises(TimeoutError):
        ours.recv(1)


def test_no_more_is_taken_than_is_allowed_for(pair):
    ours, there = pair
    there.sendall(b'x' * 100)
    with exchange(5, 60):
        ours.recv(60)
        with pytest.raises(TooMuch):
            ours.recv(1)


def test_threads_have_exchanges_of_their_own(pair):
    seen = []

    def other():
        with exchange(60) as bounds:
            seen.append(bounds.until > time.monotonic() + 30)

    with exchange(0.1):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert seen == [True]


def test_a_name_that_cannot_be_one_cannot_be_resolved():
    with pytest.raises(socket.gaierror):
        resolved('a' * 300, 80)


def test_a_context_makes_sockets_that_keep_within_exchanges():
    context = securing(ssl.create_default_context())
    assert context.sslsocket_class.__mro__[1].__name__ == '_Bounded'


# -- clocks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('headers, body, hint', [
    ([], b'{"detail": "Invalid token: The token is not yet valid (iat)"}', 'compare the clocks'),
    (['WWW-Authenticate: JWT error="Signature has expired"'], b'', 'compare the clocks'),
    (['Date: Tue, 02 Mar 2021 12:00:00 GMT'], b'', 'ahead of its clock'),
    (['Date: Fri, 01 Jan 2100 00:00:00 GMT'], b'', 'behind its clock'),
])
def test_a_401_that_is_about_time_hints_at_the_clocks(api, peer, headers, body, hint):
    with pytest.raises(ApiError, match=hint):
        api(peer(reply(401, body, headers)).url).request('GET', 'x')


def test_a_401_that_is_about_something_else_does_not(api, peer):
    with pytest.raises(ApiError, match=r'credentials \(401\)$'):
        api(peer(reply(401, b'{"detail": "Authentication credentials were not provided."}')).url).request('GET', 'x')


@pytest.mark.parametrize('interim', [b'100 Continue\r\n', b'102 Processing\r\n', b'103 Early Hints\r\nLink: </a>\r\n'])
def test_an_interim_answer_is_not_taken_for_the_answer(api, peer, interim):
    shop = peer(*(Reply([b'HTTP/1.1 ' + interim + b'\r\n', *reply(body=b'%d' % number).parts]) for number in range(3)))
    client = api(shop.url)
    assert [client.request('PUT', 'x') for _ in range(3)] == [0, 1, 2]
    assert shop.connections == 1
