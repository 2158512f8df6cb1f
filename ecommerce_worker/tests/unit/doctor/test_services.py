"""The way to shop and LMS, and what they let our user do."""

import time
from email.utils import formatdate

import pytest

from ecommerce_worker import runtime
from ecommerce_worker.clients import looking
from ecommerce_worker.doctor import services
from ecommerce_worker.settings import load
from ecommerce_worker.testing.peer import Peer, reply
from ecommerce_worker.testing.shop import Shop
from ecommerce_worker.tests.support.smtp import Certificate


@pytest.fixture
def peer():
    """A service that answers as it is told to."""
    peers = []

    def answering(replies):
        peers.append(Peer(replies))
        return peers[-1]

    yield answering
    for each in peers:
        each.close()


def states(lines):
    return [(it.subject, it.state.value) for it in lines]


@pytest.mark.parametrize('ahead, expected', [
    (0, 'well'), (8, 'well'), (-14, 'warning'), (14, 'warning'), (120, 'bad'), (-120, 'bad')])
def test_clocks_are_compared(peer, ahead, expected):
    def answer(_):
        return reply(404, headers=[f'Date: {formatdate(time.time() - ahead, usegmt=True)}'])

    assert states(services.way('shop', peer(answer).url, 5)) == [('shop', 'well'), ('clock', expected)]


@pytest.mark.parametrize('headers', [[], ['Date: soon']])
def test_a_service_that_does_not_tell_the_time_is_none_the_worse(peer, headers):
    assert states(services.way('shop', peer([reply(headers=headers)]).url, 5)) == [('shop', 'well')]


@pytest.mark.parametrize('days, expected', [(1, 'warning'), (13, 'warning'), (15, 'well')])
def test_a_certificate_that_ends_soon_is_a_warning(monkeypatch, days, expected):
    monkeypatch.setattr(looking, 'look', lambda *_: looking.Seen(expires=time.time() + days * 86_400 + 60))
    line, = services.way('shop', 'https://shop.example.com/api/v2/', 5)
    assert line.state.value == expected
    assert 'valid until' in line.sentence


def test_behind_a_proxy_nothing_is_seen(peer, monkeypatch):
    monkeypatch.setenv('http_proxy', 'http://127.0.0.1:1')
    assert states(services.way('shop', 'http://shop.example.com/', 5)) == [('shop', 'unknown')]


def permission(peer, *replies):
    shop = peer(list(replies))
    settings = load({
        'WORKER_CONFIGURATION_MODULE': 'ecommerce_worker.configuration.test', 'ECOMMERCE_WORKER_AUTHENTICATION': 'jwt',
        'ECOMMERCE_WORKER_JWT_SECRET_KEY': 'x' * 32, 'ECOMMERCE_WORKER_ECOMMERCE_API_ROOT': shop.url})
    site = runtime.Runtime(settings).site()
    return shop, list(services.permission('shop', site))


ABSENT = reply(404, b'{"detail": "Not found."}')


def test_an_order_that_there_is_not_tells_that_our_user_may_fulfil(peer):
    shop, lines = permission(peer, ABSENT)
    assert states(lines) == [('token', 'well'), ('shop', 'well')]
    read, fulfil = shop.requests
    assert (read.method, fulfil.method) == ('GET', 'PUT')
    number = read.target.split('/')[2]
    assert number.startswith('DOCTOR-')
    assert fulfil.target.startswith(f'/orders/{number}/fulfill/')


@pytest.mark.parametrize('replies, said, remedy', [
    ([reply(403, b'{}')], 'may read orders failed', 'staff'),
    ([ABSENT, reply(403, b'{}')], 'may fulfil orders failed', 'staff'),
    ([reply(401, b'{}')], 'may read orders failed', 'JWT_SECRET_KEY'),
    ([reply(500, b'{}')], 'may read orders failed', 'log'),
    ([reply(404, b'<html>', ['Content-Type: text/html'])], 'may read orders failed', 'log'),
], ids=str)
def test_whatever_keeps_our_user_out_is_bad(peer, replies, said, remedy):
    line = permission(peer, *replies)[1][-1]
    assert line.state.value == 'bad'
    assert said in line.sentence
    assert remedy in line.remedy


def test_a_name_or_a_port_that_nobody_has_is_bad(peer):
    gone = peer([reply()])
    gone.close()
    for url in ('http://shop.invalid/', gone.url):
        assert states(services.way('shop', url, 5)) == [('shop', 'bad')]


@pytest.fixture
def secure(tmp_path):
    """A shop with TLS, and the file of the authority that vouches for it."""
    made = Certificate.made(tmp_path)
    both = tmp_path / 'both.pem'
    both.write_bytes(made.file.read_bytes() + made.key.read_bytes())
    with Shop(certificate=both) as shop:
        yield shop, made.file


def test_a_certificate_is_read_as_our_own_requests_would(secure, monkeypatch):
    shop, authority = secure
    monkeypatch.setenv('REQUESTS_CA_BUNDLE', str(authority))
    found = looking.look(shop.api_root, 5)
    assert found.problem == ''
    assert found.expires is not None
    assert found.expires > time.time()


def test_a_certificate_that_nobody_vouches_for_is_a_problem(secure):
    assert 'is not accepted: self' in looking.look(secure[0].api_root, 5).problem
