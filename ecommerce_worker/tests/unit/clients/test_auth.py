"""How the worker proves who it is: a token of the LMS, fetched as seldom as possible, and one that it signs itself."""

import contextlib
import json
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from urllib.parse import parse_qs

import jwt
import pytest
import requests

from ecommerce_worker.clients.auth import ClientCredentials, SelfSigned
from ecommerce_worker.clients.circuit import CircuitBreaker
from ecommerce_worker.clients.http import Api
from ecommerce_worker.errors import ApiError, PeerFailure, Rejected, Throttled, Unauthorized, Unreachable
from ecommerce_worker.testing.peer import Reply, reply
from ecommerce_worker.tests.support.clock import Clock

THREADS = 30


def lms(url, clock=time.monotonic):
    return ClientCredentials(url + 'oauth2', 'worker', 's3cret-of-the-worker', clock=clock)


def token(number, expires_in=3600):
    return reply(body=json.dumps({'access_token': f'token-{number}', 'expires_in': expires_in, 'token_type': 'JWT',
                                  'scope': 'read'}).encode())


def tokens(expires_in=3600):
    """Answers a new token to each request."""
    numbers = iter(range(1, 1000))
    return lambda request: token(next(numbers), expires_in)


def signature(auth):
    return auth(requests.Request('GET', 'http://shop.test/').prepare()).headers['Authorization']


def others_wait():
    """Wait until all threads but one wait for what that one will get."""
    deadline = time.monotonic() + 5
    while sum(map(waits, sys._current_frames().values())) < THREADS - 1:
        assert time.monotonic() < deadline
        time.sleep(0.002)


def waits(frame):
    while frame and frame.f_code is not Future.result.__code__:
        frame = frame.f_back
    return frame is not None


# -- a token of the LMS -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize('path', ['oauth2', 'oauth2/', 'oauth2/access_token', 'oauth2/access_token/'])
def test_the_request_for_a_token_is_the_one_that_the_lms_expects(peer, path):
    server = peer(token(1))
    ClientCredentials(server.url + path, 'worker', 's3cret & more').credentials()
    request, = server.requests
    assert (request.method, request.target) == ('POST', '/oauth2/access_token/')
    assert request.headers['content-type'] == 'application/x-www-form-urlencoded'
    assert parse_qs(request.body.decode()) == {'grant_type': ['client_credentials'], 'client_id': ['worker'],
                                               'client_secret': ['s3cret & more'], 'token_type': ['jwt']}


@pytest.mark.parametrize('answer, cause', [
    (token(1), ''), (reply(401, b'{}'), 'unauthorized'), (reply(500, b'{}'), 'unreachable'),
    (reply(body=b'{}'), 'peer_failure')], ids=str)
def test_each_fetch_is_told_with_the_cause_why_there_is_no_token(peer, answer, cause):
    heard = []
    circuit = CircuitBreaker('lms.test', fetched=lambda *what: heard.append(what))
    client = ClientCredentials(peer(answer).url, 'worker', 's3cret', circuit=circuit)
    for _ in range(2):
        with contextlib.suppress(ApiError):
            client.credentials()
    # A token is kept, a failure is not.
    assert heard == [('lms.test', cause)] * (2 if cause else 1)


def test_requests_are_signed_with_the_token(peer):
    assert signature(lms(peer(token(1)).url).credentials()) == 'JWT token-1'


def test_thirty_threads_that_ask_at_once_share_one_token(peer):
    def slowly(request):
        others_wait()
        return token(1)

    server = peer(slowly)
    signer = lms(server.url)
    with ThreadPoolExecutor(THREADS) as threads:
        found = list(threads.map(lambda _: signature(signer.credentials()), range(THREADS)))
    assert found == ['JWT token-1'] * THREADS
    assert len(server.requests) == 1


def test_thirty_threads_that_ask_at_once_share_one_failure_and_the_next_one_asks_again(peer):
    def failing_once(request):
        if len(server.requests) > 1:
            return token(2)
        others_wait()
        return reply(503, b'')

    def error(_):
        with pytest.raises(Unreachable) as caught:
            signer.credentials()
        return caught.value

    server = peer(failing_once)
    signer = lms(server.url)
    with ThreadPoolExecutor(THREADS) as threads:
        errors = list(threads.map(error, range(THREADS)))
    assert len({str(error) for error in errors}) == 1
    assert len(server.requests) == 1
    assert signature(signer.credentials()) == 'JWT token-2'


@pytest.mark.parametrize('lifetime, still, no_more', [(3600, 3539, 3541), (100, 79, 81), (10, 7.9, 8.1)])
def test_a_token_is_kept_until_shortly_before_it_expires(peer, lifetime, still, no_more):
    clock = Clock()
    signer = lms(peer(tokens(lifetime)).url, clock)
    signer.credentials()
    clock.now = 1000 + still - 0.5
    assert signature(signer.credentials()) == 'JWT token-1'
    clock.now = 1000 + no_more
    assert signature(signer.credentials()) == 'JWT token-2'


def test_a_token_that_has_expired_on_arrival_is_used_once(peer):
    signer = lms(peer(tokens(0)).url)
    assert [signature(signer.credentials()) for _ in range(2)] == ['JWT token-1', 'JWT token-2']


def test_a_token_that_is_refused_is_fetched_anew(peer):
    signer = lms(peer(tokens()).url)
    assert signer.refused(signer.credentials())
    assert signature(signer.credentials()) == 'JWT token-2'


def test_a_token_that_is_refused_late_does_not_make_its_successor_forgotten(peer):
    server = peer(tokens())
    signer = lms(server.url)
    first = signer.credentials()
    for _ in range(5):
        assert signer.refused(first)
        assert signature(signer.credentials()) == 'JWT token-2'
    assert len(server.requests) == 2


def test_a_token_may_be_refused_while_another_is_being_fetched(peer):
    def slowly(request):
        if len(server.requests) == 2:
            signer.refused(first)
        return token(len(server.requests))

    server = peer(slowly)
    signer = lms(server.url)
    first = signer.credentials()
    signer.refused(first)
    assert signature(signer.credentials()) == 'JWT token-2'
    assert signature(signer.credentials()) == 'JWT token-2'


def test_threads_whose_token_is_refused_at_once_renew_it_once(peer):
    together = threading.Barrier(10)

    def shop_of_new_keys(request):
        if request.headers['authorization'] == 'JWT token-1':
            together.wait(60)
            return reply(401)
        return reply()

    server, shop = peer(tokens()), peer(shop_of_new_keys)
    client = Api(shop.url, peer='the shop', signer=lms(server.url), connections=10)
    with ThreadPoolExecutor(10) as threads:
        assert list(threads.map(lambda _: client.request('GET', 'x'), range(10))) == [{}] * 10
    client.close()
    assert len(server.requests) == 2


@pytest.mark.parametrize('status, kind', [(400, Unauthorized), (401, Unauthorized), (403, Throttled), (404, Rejected),
                                          (429, Throttled), (500, Unreachable), (502, Unreachable),
                                          (503, Unreachable), (504, Unreachable)])
def test_a_token_that_is_not_given_is_an_error_of_ours(peer, status, kind):
    with pytest.raises(kind) as caught:
        lms(peer(reply(status, b'{"error": "s3cret"}')).url).credentials()
    assert 'the token endpoint of the LMS' in str(caught.value)
    assert 's3cret' not in str(caught.value)


@pytest.mark.parametrize('status', [403, 429, 503])
def test_the_token_endpoint_may_say_how_long_to_wait(peer, status):
    with pytest.raises(ApiError) as caught:
        lms(peer(reply(status, b'', ['Retry-After: 9'])).url).credentials()
    assert caught.value.retry_after == 9


def test_a_failing_token_endpoint_is_an_outage_and_no_refusal_of_the_order(peer):
    with pytest.raises(Unreachable) as caught:
        lms(peer(reply(500, b'')).url).credentials()
    assert caught.value.status is None
    assert not caught.value.maybe_done


@pytest.mark.parametrize('body', [
    b'', b'<html></html>', b'{"access_token": ', b'\xff', b'[]', b'null', b'"token"', b'7', b'{}', b'[' * 100_000,
    b'{"expires_in": 3600}', b'{"error": "invalid_client"}',
    b'{"access_token": null, "expires_in": 3600}', b'{"access_token": 7, "expires_in": 3600}',
    b'{"access_token": "", "expires_in": 3600}', b'{"access_token": "a\\r\\nX-Injected: 1", "expires_in": 3600}',
    '{"access_token": "\u20ac", "expires_in": 3600}'.encode(),
], ids=lambda body: body[:60].decode(errors='replace'))
def test_an_answer_without_a_usable_token_is_a_failure_of_the_peer(peer, body):
    with pytest.raises(PeerFailure, match='answered without a token'):
        lms(peer(reply(body=body)).url).credentials()


@pytest.mark.parametrize('said, seconds', [
    ('3600', 3600), ('"3600"', 3600), ('3599.5', 3599.5), ('null', 60), ('[1]', 60), ('true', 60), ('"soon"', 60),
    ('-1', 60), ('NaN', 60), ('1e300', 86_400), ('Infinity', 86_400),
])
def test_the_life_of_a_token_is_read_from_numbers_and_texts_and_is_short_if_it_is_neither(peer, said, seconds):
    clock = Clock()
    numbers = iter(range(1, 9))
    signer = lms(peer(lambda request: reply(
        body=b'{"access_token": "%d", "expires_in": %s}' % (next(numbers), said.encode()))).url, clock)
    signer.credentials()
    clock.now = 1000 + seconds - min(60, seconds / 5) - 1
    assert signature(signer.credentials()) == 'JWT 1'
    clock.now += 2
    assert signature(signer.credentials()) == 'JWT 2'


def test_a_token_whose_life_is_not_said_is_kept_for_a_short_time(peer):
    server = peer(reply(body=b'{"access_token": "t"}'))
    signer = lms(server.url)
    assert [signature(signer.credentials()) for _ in range(3)] == ['JWT t'] * 3
    assert len(server.requests) == 1


@pytest.mark.parametrize('status', [301, 302, 303, 307, 308])
def test_a_token_endpoint_that_redirects_gets_our_secret_once_and_nobody_else_does(peer, status):
    elsewhere = peer(token(1))
    server = peer(reply(status, b'', [f'Location: {elsewhere.url}oauth2/access_token/?next=s3cret']))
    with pytest.raises(Rejected, match=f'redirects to http://127.0.0.1:{elsewhere.port}; the configured address is '
                                       'not the right one') as caught:
        lms(server.url).credentials()
    assert 's3cret' not in str(caught.value)
    assert (len(server.requests), elsewhere.connections) == (1, 0)


def test_a_token_is_asked_for_by_the_proxy_of_the_environment(peer, environment):
    proxy = peer(token(1))
    environment.setenv('http_proxy', proxy.url)
    assert signature(lms('http://lms.test/').credentials()) == 'JWT token-1'
    assert proxy.requests[0].target == 'http://lms.test/oauth2/access_token/'


def test_a_token_that_comes_too_slowly_says_nothing_of_the_order(peer):
    def parts():
        yield b'HTTP/1.1 200 OK\r\nX: '
        while not server.closing.wait(0.02):
            yield b'x'

    server = peer(Reply(parts(), close=True))
    with pytest.raises(Unreachable, match='in time') as caught:
        ClientCredentials(server.url, 'worker', 's3cret', read_timeout=0.2).credentials()
    assert not caught.value.maybe_done


def test_a_token_endpoint_that_refuses_connections_is_unreachable(peer):
    gone = peer(reply())
    gone.close()
    with pytest.raises(Unreachable, match='refused the connection'):
        lms(gone.url).credentials()


def test_nothing_of_django_is_imported_by_fetching_a_token(peer):
    program = '''if True:
        import sys
        from ecommerce_worker.clients.auth import ClientCredentials
        auth = ClientCredentials(sys.argv[1], 'worker', 'secret').credentials()
        print(auth.token, 'django' in sys.modules)
    '''  # noqa: Q001 - it is a program, no docstring
    done = subprocess.run([sys.executable, '-c', program, peer(token(1)).url + 'oauth2'], capture_output=True,
                          text=True, timeout=60, check=False)
    assert (done.stdout.split(), done.stderr) == (['token-1', 'False'], '')


# -- a token of our own -----------------------------------------------------------------------------------------------

SECRET = 'a secret of more than thirty-two bytes'


def test_our_own_token_says_what_it_always_said():
    kind, _, encoded = signature(SelfSigned(SECRET, 'ecommerce_worker', 'service').credentials()).partition(' ')
    claims = jwt.decode(encoded, SECRET, algorithms=['HS256'], issuer='ecommerce_worker')
    assert kind == 'JWT'
    assert claims.pop('exp') - claims.pop('iat') == 30
    assert claims == {'username': 'service', 'full_name': None, 'email': None, 'iss': 'ecommerce_worker'}


def test_our_own_token_is_signed_with_the_secret():
    _, _, encoded = signature(SelfSigned(SECRET, 'ecommerce_worker', 'service').credentials()).partition(' ')
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(encoded, SECRET[::-1], algorithms=['HS256'])


def test_a_short_secret_signs_without_a_warning():
    assert signature(SelfSigned('short', 'ecommerce_worker', 'service').credentials()).startswith('JWT ')


def test_signing_again_does_not_help_our_own_token():
    signer = SelfSigned(SECRET, 'ecommerce_worker', 'service')
    assert not signer.refused(signer.credentials())
