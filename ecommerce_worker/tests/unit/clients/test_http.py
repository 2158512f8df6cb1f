"""What answers mean, and that nothing but our own errors comes out of a request, whatever the peer does."""

import contextlib
import gzip
import json
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
import urllib3
from hypothesis import given
from hypothesis import strategies as st
from requests.auth import AuthBase

from ecommerce_worker.clients import http
from ecommerce_worker.clients.http import error_for, error_without_answer, seconds_to_wait
from ecommerce_worker.errors import (
    ApiError,
    NotFound,
    PeerFailure,
    Rejected,
    Throttled,
    Unauthorized,
    Unreachable,
)
from ecommerce_worker.testing.peer import Reply, reply

NOON = 'Tue, 02 Mar 2021 12:00:00 GMT'


def response(status, **headers):
    found = requests.Response()
    found.status_code = status
    found.headers.update({name.replace('_', '-'): value for name, value in headers.items()})
    return found


# -- what an answer means ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize('status, kind', [
    (300, Rejected), (301, Rejected), (304, Rejected), (308, Rejected),
    (302, PeerFailure), (303, PeerFailure), (307, PeerFailure),
    (400, Rejected), (401, Unauthorized), (403, Unauthorized), (404, NotFound), (405, Rejected), (406, Rejected),
    (408, Rejected), (409, Rejected), (418, Rejected), (422, Rejected), (429, Throttled),
    (500, PeerFailure), (501, PeerFailure), (502, PeerFailure), (503, PeerFailure), (504, PeerFailure),
    (520, PeerFailure), (599, PeerFailure),
])
def test_a_status_stands_for_one_error(status, kind):
    error = error_for(response(status), 'the shop')
    assert type(error) is kind
    assert error.status == status
    assert str(error).startswith('the shop ')
    assert str(status) in str(error)


@given(st.integers(300, 999))
def test_every_other_status_is_an_error_too(status):
    assert isinstance(error_for(response(status)), ApiError)


@pytest.mark.parametrize('status', [429, 503, 404])
def test_an_answer_may_say_how_long_to_wait(status):
    assert error_for(response(status, Retry_After='7')).retry_after == 7


@pytest.mark.parametrize('value, seconds', [
    ('0', 0), ('120', 120), (' 15 ', 15),
    ('Tue, 02 Mar 2021 12:00:30 GMT', 30),
    ('Tue, 02 Mar 2021 12:00:30 -0000', 30),
    ('Tue, 02 Mar 2021 13:00:30 +0100', 30),
    ('Tuesday, 02-Mar-21 12:00:30 GMT', 30),
    ('Tue Mar  2 12:00:30 2021', 30),
    ('Tue, 02 Mar 2021 11:00:00 GMT', 0),
    ('', None), ('soon', None), ('-5', None), ('1.5', None), ('²', None), ('٣', None), ('1e3', None), ('0x10', None),
    (',', None), ('Tue, 32 Mar 2021 12:00:30 GMT', None), ('Tue, 02 Mar 2021 25:00:30 GMT', None),
    ('Tue, 02 Mar 99999999999999999999 12:00:30 GMT', None),
])
def test_the_wait_is_read_from_seconds_and_from_dates_and_garbage_is_ignored(value, seconds):
    assert seconds_to_wait({'Retry-After': value, 'Date': NOON}) == seconds


def test_an_answer_without_the_header_asks_for_no_wait():
    assert seconds_to_wait({}) is None
    assert error_for(response(503)).retry_after is None


def test_a_date_is_compared_with_the_clock_of_the_peer_whatever_ours_says():
    headers = {'Retry-After': 'Fri, 01 Jan 2100 00:01:00 GMT', 'Date': 'Fri, 01 Jan 2100 00:00:00 GMT'}
    assert seconds_to_wait(headers) == 60


@pytest.mark.parametrize('date', ['', 'today', 'Tue, 02 Mar 99999999999999999999 12:00:30 GMT'])
def test_a_date_is_compared_with_our_clock_where_the_peer_does_not_tell_its_own(date):
    assert seconds_to_wait({'Retry-After': NOON, 'Date': date}) == 0


@given(st.text(), st.text())
def test_no_header_makes_reading_the_wait_fail(value, date):
    wait = seconds_to_wait({'Retry-After': value, 'Date': date})
    assert wait is None or wait >= 0


@pytest.mark.parametrize('location', [
    'https://login.example.com/sign-in?token=s3cret', 'https://user:s3cret@login.example.com/',
    '//login.example.com/s3cret',
])
def test_a_redirect_names_the_host_that_it_leads_to_and_no_more(location):
    text = str(error_for(response(302, Location=location)))
    assert 'login.example.com' in text
    assert 's3cret' not in text


@pytest.mark.parametrize('location', ['', '/elsewhere', 'http://[::1', 'https://', '\x00'])
def test_a_redirect_to_nowhere_is_like_any_other(location):
    assert type(error_for(response(301, Location=location))) is Rejected
    assert type(error_for(response(302, Location=location))) is PeerFailure


@pytest.mark.parametrize('body, kind', [
    (b'', NotFound), (b'{"detail": "Not found."}', NotFound), (b'[]', NotFound), (b'<html>', PeerFailure),
    (b'404 page not found', PeerFailure), (b'\xff\xfe', PeerFailure)])
def test_a_refusal_is_the_services_own_if_it_is_in_json_or_says_nothing(peer, api, body, kind):
    with pytest.raises(ApiError) as caught:
        api(peer(reply(404, body)).url).request('GET', 'orders/')
    assert type(caught.value) is kind
    assert caught.value.status == 404


# -- what no answer means ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize('error, maybe_done', [
    (requests.ConnectTimeout(), False),
    (requests.ReadTimeout(), True),
    (requests.Timeout(), True),
    (requests.exceptions.SSLError(), False),
    (requests.exceptions.ProxyError(), False),
    (requests.ConnectionError(), True),
    (requests.exceptions.ChunkedEncodingError(), True),
    (requests.exceptions.ContentDecodingError(), True),
])
def test_an_error_without_an_answer_tells_whether_the_request_may_have_had_its_effect(error, maybe_done):
    found = error_without_answer(error, 'the shop')
    assert type(found) is Unreachable
    assert (found.status, found.retry_after, found.maybe_done) == (None, None, maybe_done)
    assert str(found).startswith('the shop')


LACKING = """
import resource, sys
from ecommerce_worker.errors import ApiError
from ecommerce_worker.clients.circuit import CircuitBreaker
from ecommerce_worker.clients.http import Api

circuit = CircuitBreaker('shop')
client = Api(sys.argv[1], peer='the shop', circuit=circuit)
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (40, hard))
kept = []
for _ in range(20 if 'files' in sys.argv else 0):
    try:
        while True:
            kept.append(open('/dev/null'))
    except OSError:
        pass
for _ in range(10):
    try:
        client.request('GET', 'orders/')
    except ApiError as error:
        said = f'{type(error).__name__}: {error}'
kept.clear()
print(said)
"""


def lacking(*arguments, **environment):
    ran = subprocess.run([sys.executable, '-c', LACKING, *arguments], capture_output=True, text=True, check=False,
                         env={'PATH': '/usr/bin:/bin', **environment}, cwd=Path(http.__file__).parents[2])
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def test_a_process_without_files_says_so_and_does_not_take_the_host_for_down(peer):
    assert lacking(peer(reply()).url, 'files') == (
        'LocalFailure: the shop was not called: this process has too many open files (ulimit -n) (EMFILE)')


@pytest.mark.parametrize('name', ['REQUESTS_CA_BUNDLE', 'CURL_CA_BUNDLE'])
def test_certificates_that_are_missing_are_a_fault_of_this_machine(tmp_path, name):
    said = lacking('https://127.0.0.1:1/', **{name: str(tmp_path / 'ca.pem')})
    assert said.startswith('LocalFailure: the shop was not called: its certificates cannot be read')


def every_subclass(kind):
    return {kind}.union(*map(every_subclass, kind.__subclasses__()))


ERRORS_OF_REQUESTS = sorted(every_subclass(requests.RequestException), key=lambda kind: kind.__name__)


@pytest.mark.parametrize('kind', ERRORS_OF_REQUESTS)
def test_no_error_of_requests_leaks_nor_the_url_in_its_text(api, kind, monkeypatch):
    text = "HTTPSConnectionPool(host='shop'): /orders/?token=s3cret"
    error = kind(text, '', 0) if issubclass(kind, json.JSONDecodeError) else kind(text)
    client = api('http://shop.test/')

    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(client._adapter, 'send', fail)
    with pytest.raises(Unreachable) as caught:
        client.request('GET', 'orders/')
    assert 's3cret' not in str(caught.value)
    # Nor does a traceback in a log show it.
    assert caught.value.__suppress_context__


def test_a_refused_connection_had_no_effect(api):
    with socket.create_server(('127.0.0.1', 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(Unreachable, match='refused') as caught:
        api(f'http://127.0.0.1:{port}/').request('PUT', 'x')
    assert not caught.value.maybe_done


def test_a_name_that_cannot_be_resolved_is_said_to_be_one(api):
    with pytest.raises(Unreachable, match='host name could not be resolved') as caught:
        api('http://shop.invalid/').request('PUT', 'x')
    assert not caught.value.maybe_done


@pytest.mark.parametrize('root', ['http://shop..test/', f'http://{"a" * 64}.test/'])
def test_a_name_that_cannot_be_one_is_an_error_of_ours(api, root):
    with pytest.raises(ApiError):
        api(root).request('PUT', 'x')


def test_tls_to_a_port_without_it_is_said_to_be_that(api, peer):
    shop = peer(reply())
    with pytest.raises(Unreachable, match='TLS connection failed') as caught:
        api(shop.url.replace('http:', 'https:')).request('PUT', 'x')
    assert not caught.value.maybe_done


def test_a_silent_peer_is_given_up_after_the_read_timeout(api, peer):
    def silence(request):
        shop.closing.wait(60)
        return reply()

    shop = peer(silence)
    with pytest.raises(Unreachable, match='did not answer in time') as caught:
        api(shop.url).request('PUT', 'x', read_timeout=0.1)
    assert caught.value.maybe_done


@pytest.mark.parametrize('answer', [
    reply(body=b'{"number": "EDX-', length=100),
    reply(headers=['Transfer-Encoding: chunked'], body=b'5\r\n{"a":', length=0),
    Reply([b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"a":\r\n'], close=True),
    Reply([b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n'], close=True),
    Reply([b'HTTP/1.1 200 OK\r\nContent-Le'], close=True),
    Reply([b'not HTTP at all\r\n\r\n'], close=True),
    Reply([b''], close=True),
    reply(headers=['Content-Encoding: gzip'], body=b'this is not gzip'),
], ids=['cut', 'cut in a chunk', 'cut between chunks', 'bad chunk', 'cut in the head', 'not HTTP', 'nothing',
        'not gzip'])
def test_a_transfer_that_breaks_off_may_have_had_its_effect(api, peer, answer):
    with pytest.raises(ApiError) as caught:
        api(peer(answer).url).request('PUT', 'x')
    assert caught.value.maybe_done


@pytest.mark.parametrize('head', [
    b'Content-Length: 60\r\n\r\n',
    b'Transfer-Encoding: chunked\r\n\r\n',
], ids=['with its length', 'in chunks'])
@pytest.mark.parametrize('status', [b'200 OK', b'302 Found', b'500 Failed'])
def test_an_answer_that_comes_byte_by_byte_is_given_up_at_the_deadline(api, peer, status, head):
    def dripping(request):
        def parts():
            yield b'HTTP/1.1 ' + status + b'\r\nLocation: /y\r\n' + head
            for _ in range(60):
                if shop.closing.wait(0.05):
                    return
                yield b'1\r\n \r\n' if b'chunked' in head else b' '

        return Reply(parts(), close=True)

    shop = peer(dripping)
    started = time.monotonic()
    with pytest.raises(Unreachable, match='in time') as caught:
        api(shop.url).request('PUT', 'x', read_timeout=0.2)
    assert caught.value.maybe_done
    assert time.monotonic() - started < 1.5


@pytest.mark.parametrize('status', [200, 302, 500])
def test_an_answer_that_is_too_large_is_not_read_to_its_end(api, peer, status, monkeypatch):
    monkeypatch.setattr(http, 'LARGEST_ANSWER', 100_000)
    sent = []

    def endless(request):
        def parts():
            yield f'HTTP/1.1 {status} X\r\nLocation: /y\r\nContent-Length: {200 * 65536}\r\n\r\n'.encode()
            for _ in range(200):
                sent.append(1)
                yield b' ' * 65536

        return Reply(parts(), close=True)

    shop = peer(endless)
    with pytest.raises(PeerFailure, match='more than 100000 bytes'):
        api(shop.url).request('GET', 'x')
    shop.close()
    assert len(sent) < 200


def test_an_answer_that_grows_when_unpacked_is_too_large_all_the_same(api, peer):
    bomb = gzip.compress(b' ' * (http.LARGEST_ANSWER * 4))
    with pytest.raises(PeerFailure, match='more than'):
        api(peer(reply(body=bomb, headers=['Content-Encoding: gzip'])).url).request('GET', 'x')


def test_a_packed_answer_is_unpacked(api, peer):
    shop = peer(reply(body=gzip.compress(b'{"a": 1}'), headers=['Content-Encoding: gzip']))
    assert api(shop.url).request('GET', 'x') == {'a': 1}


# -- answers ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('body, value', [(b'{"status": "Open"}', {'status': 'Open'}), (b'[]', []), (b'null', None),
                                         ('{"a": "é"}'.encode(), {'a': 'é'})])
def test_the_json_of_an_answer_is_its_value(api, peer, body, value):
    assert api(peer(reply(body=body)).url).request('GET', 'x') == value


def test_a_204_has_no_value(api, peer):
    shop = peer(reply(204, b''))
    client = api(shop.url)
    assert client.request('PUT', 'x') is None
    assert client.request('PUT', 'x') is None
    assert shop.connections == 1


@pytest.mark.parametrize('body', [
    b'<html>Please sign in</html>', b'', b'{"number": ', b'\xff\xfe\xfa', b'NaN!', b'9' * 5000, b'[' * 100_000,
], ids=['page', 'nothing', 'half', 'bytes', 'word', 'long number', 'deep'])
def test_a_200_that_is_not_json_is_a_failure_of_the_peer(api, peer, body):
    shop = peer(reply(body=body, headers=['Content-Type: text/html; charset=utf-8']))
    with pytest.raises(PeerFailure) as caught:
        api(shop.url).request('PUT', 'x')
    assert caught.value.maybe_done
    assert caught.value.status == 200
    assert 'text/html instead of JSON' in str(caught.value)


def test_a_redirect_is_not_followed_and_its_host_is_told(api, peer):
    elsewhere = peer(reply())
    shop = peer(reply(302, b'', [f'Location: {elsewhere.url}x?next=s3cret']))
    with pytest.raises(Rejected, match=f'redirects to http://127.0.0.1:{elsewhere.port}') as caught:
        api(shop.url).request('PUT', 'x')
    assert 's3cret' not in str(caught.value)
    assert not elsewhere.requests


@pytest.mark.parametrize('status', [302, 303, 307])
@pytest.mark.parametrize('location', ['/maintenance.html', 'https://status.example.com/?from=s3cret'])
def test_a_redirect_to_a_maintenance_page_is_an_outage(api, peer, status, location):
    shop = peer(reply(status, b'<html>', [f'Location: {location}', 'Retry-After: 60']))
    with pytest.raises(PeerFailure, match='temporarily, as during maintenance') as caught:
        api(shop.url).request('PUT', 'orders/EDX-1/fulfill/')
    assert caught.value.retry_after == 60
    assert 's3cret' not in str(caught.value)


@pytest.mark.parametrize('location', [b'http://[::1', b'http://caf\xe9.test/', b'http://h:99999999/', b'%zz', b'\x01'])
def test_a_redirect_that_cannot_be_read_is_a_refusal_like_any_other(api, peer, location):
    answer = Reply([b'HTTP/1.1 301 Moved\r\nContent-Length: 0\r\nLocation: ' + location + b'\r\n\r\n'])
    with pytest.raises(Rejected):
        api(peer(answer).url).request('PUT', 'x')


def test_the_error_of_an_answer_names_neither_url_nor_query_nor_token(api, peer):
    for status in (400, 401, 403, 404, 406, 429, 500, 503):
        shop = peer(reply(status, b'{"detail": "s3cret"}'))
        with pytest.raises(ApiError) as caught:
            api(shop.url, signer=Keys()).request('GET', 'orders/s3cret/', params={'q': 's3cret'})
        assert 's3cret' not in str(caught.value)
        assert shop.url not in str(caught.value)


# -- requests ---------------------------------------------------------------------------------------------------------

def test_the_request_on_the_wire_is_what_was_asked_for(api, peer):
    shop = peer(reply())
    api(shop.url + 'api/v2').request('PUT', 'orders/EDX-1/fulfill/', params={'email_opt_in': 'True'})
    api(shop.url + 'api/v2/').request('POST', 'mails/', json={'a': 'é'})
    put, post = shop.requests
    assert (put.method, put.target, put.body) == ('PUT', '/api/v2/orders/EDX-1/fulfill/?email_opt_in=True', b'')
    assert put.headers['accept'] == 'application/json'
    assert put.headers['user-agent'].startswith('ecommerce-worker/')
    assert 'authorization' not in put.headers
    assert (post.target, json.loads(post.body)) == ('/api/v2/mails/', {'a': 'é'})
    assert post.headers['content-type'] == 'application/json'


def test_cookies_are_not_kept(api, peer):
    shop = peer(reply(headers=['Set-Cookie: sessionid=1; Path=/']))
    client = api(shop.url)
    client.request('GET', 'x')
    client.request('GET', 'x')
    assert 'cookie' not in shop.requests[1].headers


def test_the_login_of_a_netrc_file_is_not_used(api, peer, environment, tmp_path):
    netrc = tmp_path / 'netrc'
    netrc.write_text('machine 127.0.0.1 login ann password s3cret\n')
    environment.setenv('NETRC', str(netrc))
    shop = peer(reply())
    api(shop.url).request('GET', 'x')
    assert 'authorization' not in shop.requests[0].headers


def test_the_proxy_of_the_environment_is_used(api, peer, environment):
    proxy = peer(reply())
    environment.setenv('http_proxy', proxy.url)
    api('http://shop.test/').request('GET', 'x')
    assert proxy.requests[0].target == 'http://shop.test/x'


def test_many_requests_use_one_connection_whatever_is_answered(api, peer):
    shop = peer(reply(500), reply(406, b''), reply(302, b'', ['Location: /y']), reply(204, b''), reply(404), reply())
    client = api(shop.url)
    for _ in range(10):
        with contextlib.suppress(ApiError):
            client.request('PUT', 'x')
    assert (len(shop.requests), shop.connections) == (10, 1)


def test_threads_use_no_more_connections_than_there_are_threads(api, peer):
    together = threading.Barrier(4)

    def all_at_once(request):
        together.wait(60)
        return reply()

    shop = peer(all_at_once)
    client = api(shop.url, connections=4)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: client.request('GET', 'x'), range(40)))
    assert (len(shop.requests), shop.connections) == (40, 4)


@pytest.mark.parametrize('path, params, line', [
    ('orders/EDX-1/fulfill/', {'email_opt_in': 'True'}, '/v2/orders/EDX-1/fulfill/?email_opt_in=True'),
    ('orders/EDX-1/', {}, '/v2/orders/EDX-1/'),
    ('mails/%C3%A9/../a b/', {'q': 'a b&c', 'e': 'é'}, '/v2/mails/a%20b/?q=a+b%26c&e=%C3%A9'),
    ('x', {'q': ''}, '/v2/x?q='),
])
def test_an_address_is_written_as_requests_writes_it(api, peer, path, params, line):
    shop = peer(reply())
    api(f'{shop.url}v2').request('GET', path, params=params)
    as_requests_has_it = requests.Request('GET', f'{shop.url}v2/{path}', params=params).prepare().path_url
    assert shop.requests[0].target == line == as_requests_has_it


def test_a_connection_that_the_peer_has_closed_meanwhile_is_opened_anew(api, peer):
    shop = peer(Reply(reply().parts, close=True))
    client = api(shop.url)
    for _ in range(3):
        assert client.request('GET', 'x') == {}
        assert closed_by_peer(client)


def closed_by_peer(client):
    """Wait until the end of the kept connection has arrived here."""
    kept = [connection for connection in client._adapter._pool.pool.queue if connection and connection.sock]
    return kept and all(urllib3.util.wait_for_read(connection.sock, 5) for connection in kept)


# -- signing ----------------------------------------------------------------------------------------------------------

class Key(AuthBase):
    def __init__(self, number):
        self.number = number

    def __call__(self, request):
        request.headers['Authorization'] = f'JWT s3cret-{self.number}'
        return request


class Keys:
    """A signer whose keys are numbered."""

    def __init__(self, *, renews=True):
        self.renews = renews
        self.number = 1

    def credentials(self):
        return Key(self.number)

    def refused(self, credentials):
        self.number += 1
        return self.renews


def signatures(shop):
    return [request.headers['authorization'] for request in shop.requests]


def test_a_401_is_asked_once_more_with_new_credentials(api, peer):
    shop = peer(reply(401), reply(body=b'{"a": 1}'))
    assert api(shop.url, signer=Keys()).request('PUT', 'x', params={'q': '1'}) == {'a': 1}
    assert signatures(shop) == ['JWT s3cret-1', 'JWT s3cret-2']
    assert shop.requests[0].target == shop.requests[1].target


def test_a_second_401_is_an_answer(api, peer):
    shop = peer(reply(401))
    with pytest.raises(Unauthorized) as caught:
        api(shop.url, signer=Keys()).request('PUT', 'x')
    assert caught.value.status == 401
    assert signatures(shop) == ['JWT s3cret-1', 'JWT s3cret-2']


def test_a_401_is_not_asked_again_where_signing_again_changes_nothing(api, peer):
    shop = peer(reply(401), reply())
    with pytest.raises(Unauthorized):
        api(shop.url, signer=Keys(renews=False)).request('PUT', 'x')
    assert len(shop.requests) == 1


def test_a_403_is_not_asked_again(api, peer):
    shop = peer(reply(403), reply())
    with pytest.raises(Unauthorized):
        api(shop.url, signer=Keys()).request('PUT', 'x')
    assert len(shop.requests) == 1


def test_without_credentials_nothing_is_sent(api, peer):
    class Locked(Keys):
        def credentials(self):
            raise Unreachable('no token')

    shop = peer(reply())
    with pytest.raises(Unreachable, match='no token'):
        api(shop.url, signer=Locked()).request('PUT', 'x')
    assert not shop.requests
