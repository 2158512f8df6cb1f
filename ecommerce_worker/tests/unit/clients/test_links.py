"""What is fetched of what others name, and what never is."""

import contextlib
import ipaddress
import socket
import threading
from collections.abc import Iterator

import pytest

from ecommerce_worker.clients.links import fetch, fetch_all, is_global
from ecommerce_worker.errors import PeerFailure, Rejected, Unreachable, WrongArguments
from ecommerce_worker.testing.peer import Reply, reply
from ecommerce_worker.tests.support.smtp import Certificate


def here(address):
    """Where the peers are: on this one address and on no other of loopback."""
    return address == ipaddress.ip_address('127.0.0.1')


def got(url, *, limit=1000, timeout=5.0, allowed=here):
    return fetch(url, limit=limit, timeout=timeout, allowed=allowed)


def moved(location, status=302):
    return reply(status, b'', [f'Location: {location}'])


@pytest.mark.parametrize('address', [
    '127.0.0.1', '10.1.2.3', '172.16.0.1', '192.168.1.1', '169.254.169.254', '100.64.0.1', '0.0.0.0', '224.0.0.1',
    '255.255.255.255', '240.0.0.1', '192.0.2.1', '198.18.0.1', '::1', '::', 'fe80::1', 'fe80::1%1', 'fc00::1',
    'fec0::1', 'ff02::1', '::ffff:127.0.0.1', '::ffff:10.0.0.1', '64:ff9b::7f00:1', '64:ff9b::a00:1', '2002:7f00:1::',
    '2001:0:4136:e378:8000:63bf:3fff:fdd2', '2001:db8::1',
])
def test_an_address_within_some_network_is_not_global(address):
    assert not is_global(ipaddress.ip_address(address))


@pytest.mark.parametrize('address', [
    '1.1.1.1', '93.184.216.34', '2606:4700::1111', '::ffff:1.1.1.1', '64:ff9b::101:101'])
def test_an_address_of_the_internet_is_global(address):
    assert is_global(ipaddress.ip_address(address))


def test_a_file_is_fetched(peer):
    there = peer(reply(200, b'content'))
    assert got(there.url + 'a b/ü.pdf?x=%20y&z=[1]') == b'content'
    request = there.requests[0]
    assert (request.method, request.target) == ('GET', '/a%20b/%C3%BC.pdf?x=%20y&z=[1]')
    assert request.headers['host'] == f'127.0.0.1:{there.port}'
    assert request.headers['accept-encoding'] == 'identity'
    assert not {'authorization', 'cookie'} & set(request.headers)


@pytest.mark.parametrize('url', [
    'file:///etc/passwd', 'ftp://example.com/a', 'gopher://example.com/', '//example.com/a', 'a.pdf', '', 'http://',
    'http:///a', 'https://example.com:0/', 'http://example.com:99999/', 'http://[::1/', 'http://user@example.com/',
    'http://user:secret@example.com/', 'http://exa mple.com/', 'http://example.com\\@127.0.0.1/', 'http://a\x00b/',
])
def test_what_is_no_plain_web_address_is_refused(url):
    with pytest.raises(WrongArguments) as caught:
        got(url)
    assert 'secret' not in str(caught.value)


@pytest.mark.parametrize('host', ['127.0.0.1', 'localhost', '2130706433', '0x7f.1', '127.1', '0', '[::1]',
                                  '[::ffff:127.0.0.1]', '169.254.169.254', '10.0.0.1'])
def test_the_local_network_is_never_connected_to(peer, host):
    there = peer(reply())
    with pytest.raises(WrongArguments, match='points into the local network'):
        got(f'http://{host}:{there.port}/secret', allowed=is_global)
    assert there.connections == 0


@pytest.mark.parametrize('status', [301, 302, 303, 307, 308])
def test_a_redirect_is_followed(peer, status):
    there = peer(moved('/b?c', status), reply(200, b'content'))
    assert got(there.url + 'a') == b'content'
    assert [request.target for request in there.requests] == ['/a', '/b?c']


def test_a_redirect_into_the_local_network_is_not_followed(peer):
    inside = peer(reply())
    there = peer(moved(f'http://127.0.0.2:{inside.port}/admin'))
    with pytest.raises(WrongArguments, match='local network'):
        got(there.url)
    assert inside.connections == 0


@pytest.mark.parametrize('location', ['file:///etc/passwd', 'http://user@127.0.0.1/'])
def test_a_redirect_must_be_a_plain_web_address_too(peer, location):
    with pytest.raises(WrongArguments):
        got(peer(moved(location)).url)


def test_a_redirect_that_cannot_be_read_leaves_the_file_out(peer):
    there = peer(moved('//[x]y'))
    with pytest.raises(Rejected, match='redirects to an invalid address'):
        got(there.url)
    assert fetch_all([there.url], limit=1000, timeout=5, allowed=here) == {}


def test_redirects_end(peer):
    there = peer(moved('/again'))
    with pytest.raises(Rejected, match='more than 3 times'):
        got(there.url)
    assert len(there.requests) == 4


def test_a_file_of_the_size_allowed_is_fetched(peer):
    assert got(peer(reply(200, b'x' * 1000)).url) == b'x' * 1000


def chunked(*chunks, end=b'0\r\n\r\n'):
    head = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n'
    return Reply([head, *(b'%x\r\n%s\r\n' % (len(chunk), chunk) for chunk in chunks), end], close=True)


def endless():
    yield b'HTTP/1.1 200 OK\r\n\r\n'
    while True:
        yield b'x' * 1000


@pytest.mark.parametrize('answer', [
    reply(200, b'x' * 1001), reply(200, b'x', length=10**12), chunked(b'x' * 600, b'y' * 600),
    Reply(endless(), close=True),
], ids=['known', 'announced', 'chunked', 'endless'])
def test_what_is_larger_is_not(peer, answer):
    with pytest.raises(Rejected, match='larger than the remaining 1000 bytes'):
        got(peer(answer).url)


@pytest.mark.parametrize('answer', [
    reply(200, b'cont', length=7), chunked(b'cont', end=b'7\r\nent'), Reply([b'HTTP/1.1 2'], close=True),
    Reply([b'nonsense\r\n\r\n'], close=True), Reply([b''], close=True),
    Reply([b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nconte\r\n'], close=True),
    Reply([b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nconte\r\n'], close=True),
], ids=['short', 'chunk', 'head', 'nonsense', 'nothing', 'negative', 'no number'])
def test_an_answer_that_breaks_off_is_no_file(peer, answer):
    with pytest.raises(Unreachable):
        got(peer(answer).url)


def test_a_chunked_file_is_put_together(peer):
    assert got(peer(chunked(b'con', b'tent')).url) == b'content'


@pytest.mark.parametrize('slow', [b'', b'HTTP/1.1 200 OK\r\nX: ', b'HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n'],
                         ids=['silence', 'head', 'body'])
def test_a_peer_that_sends_a_byte_now_and_then_does_not_hold_us_up(peer, slow):
    def parts():
        yield slow
        while not there.closing.wait(0.02):
            yield b'x' if slow else b''

    there = peer(Reply(parts(), close=True))
    with pytest.raises(Unreachable, match='in time'):
        got(there.url, timeout=0.3)


@pytest.mark.parametrize('status, kind', [(404, Rejected), (403, Rejected), (500, PeerFailure), (503, PeerFailure)])
def test_an_answer_other_than_200_is_no_file(peer, status, kind):
    with pytest.raises(kind, match=str(status)) as caught:
        got(peer(reply(status, b'no')).url + '?signature=secret')
    assert 'secret' not in str(caught.value)


def test_an_encoding_that_was_not_asked_for_is_no_file(peer):
    with pytest.raises(Rejected, match='encoding'):
        got(peer(reply(200, b'x', ['Content-Encoding: gzip'])).url)


def test_a_peer_that_is_not_there_is_unreachable(peer):
    there = peer(reply())
    there.close()
    with pytest.raises(Unreachable, match='could not be reached'):
        got(there.url)


def test_a_name_that_cannot_be_one_is_unreachable():
    with pytest.raises(Unreachable):
        got('http://' + 'a' * 300 + '.example/')


def test_the_environment_names_no_proxy(peer, environment):
    proxy, there = peer(reply(200, b'proxy')), peer(reply(200, b'content'))
    environment.setenv('http_proxy', proxy.url)
    assert got(there.url) == b'content'
    assert proxy.connections == 0


@pytest.fixture(scope='session')
def certificate(tmp_path_factory):
    return Certificate.made(tmp_path_factory.mktemp('tls'))


@contextlib.contextmanager
def tls_peer(certificate: Certificate,
             answer: bytes = b'HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\ncontent') -> Iterator[int]:
    """The port of a peer that answers one connection by TLS, then waits until the other side hangs up."""
    def serve():
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError), \
                certificate.context.wrap_socket(connection, server_side=True) as link:
            link.recv(4096)
            link.sendall(answer)
            link.recv(1)

    with socket.create_server(('127.0.0.1', 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            thread.join()


def test_a_certificate_that_nobody_vouches_for_is_refused(certificate):
    with tls_peer(certificate) as port, pytest.raises(Unreachable, match='check its certificate'):
        got(f'https://localhost:{port}/')


def test_a_file_is_fetched_by_tls(certificate, environment):
    environment.setenv('SSL_CERT_FILE', str(certificate.file))
    with tls_peer(certificate) as port:
        assert got(f'https://localhost:{port}/a', allowed=lambda address: address.is_loopback) == b'content'


def test_tls_does_not_hold_us_up(certificate, environment):
    environment.setenv('SSL_CERT_FILE', str(certificate.file))
    with tls_peer(certificate, b'HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n') as port, \
            pytest.raises(Unreachable, match='in time'):
        got(f'https://localhost:{port}/a', timeout=0.5, allowed=lambda address: address.is_loopback)


def test_of_several_files_those_are_fetched_that_fit(peer):
    large, small, gone = peer(reply(200, b'x' * 900)), peer(reply(200, b'y' * 100)), peer(reply(404))
    urls = [large.url, large.url + '2', gone.url, small.url, small.url]
    found = fetch_all(urls, limit=1000, timeout=5, allowed=here)
    assert found == {large.url: b'x' * 900, small.url: b'y' * 100}
    assert len(small.requests) == 1


def test_of_several_files_none_is_fetched_after_the_time_is_up(peer):
    there = peer(reply(200, b'x'))
    assert fetch_all([there.url], limit=1000, timeout=0, allowed=here) == {}
    assert there.connections == 0


def test_one_that_must_not_be_fetched_is_told_of():
    with pytest.raises(WrongArguments):
        fetch_all(['http://127.0.0.1/'], limit=1000, timeout=5)
