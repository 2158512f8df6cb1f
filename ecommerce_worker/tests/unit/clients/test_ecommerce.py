"""What the worker says to the shop, byte for byte, and what it makes of the answers."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from requests.auth import AuthBase

from ecommerce_worker.clients.ecommerce import FULFILLABLE, ORDER_NUMBER, Ecommerce
from ecommerce_worker.clients.http import Api
from ecommerce_worker.errors import NotFound, PeerFailure, Rejected, Skip, Transient, Unreachable, WrongArguments
from ecommerce_worker.retry import Policy
from ecommerce_worker.testing.peer import reply

ORDER = b'{"number": "EDX-1", "status": "Complete"}'


class Signed(AuthBase):
    def __call__(self, request):
        request.headers['Authorization'] = 'JWT token'
        return request


class Signer:
    def credentials(self):
        return Signed()

    def refused(self, credentials):
        return False


@pytest.fixture
def shop(api):
    """The shop's client at a peer."""
    return lambda peer, **options: Ecommerce(api(peer.url + 'api/v2/', signer=Signer()), **options)


@pytest.mark.parametrize('opt_in, text', [(True, 'True'), (False, 'False'), (None, 'False'), (1, 'True')])
def test_fulfilling_is_a_put_without_a_body_that_spells_the_opt_in_with_a_capital_letter(peer, shop, opt_in, text):
    server = peer(reply(body=ORDER))
    shop(server).fulfill('EDX-1', email_opt_in=opt_in)
    request, = server.requests
    assert (request.method, request.target) == ('PUT', f'/api/v2/orders/EDX-1/fulfill/?email_opt_in={text}')
    assert request.body == b''
    assert request.headers['content-length'] == '0'
    assert request.headers['authorization'] == 'JWT token'
    assert 'content-type' not in request.headers


def test_the_status_of_an_order_is_asked_for_with_a_get(peer, shop):
    server = peer(reply(body=ORDER))
    assert shop(server).status('EDX-1') == 'Complete'
    request, = server.requests
    assert (request.method, request.target, request.body) == ('GET', '/api/v2/orders/EDX-1/', b'')
    assert request.headers['authorization'] == 'JWT token'


HTML = b'<html><body>Blocked.</body></html>'


def order(status, number='EDX-1'):
    return reply(body=json.dumps({'number': number, 'status': status}).encode())


@pytest.mark.parametrize('status', ['Complete', 'Payment Error', 'Refunded'])
def test_an_answer_of_406_says_that_nothing_is_left_to_do_if_the_order_says_so_too(peer, shop, status):
    server = peer(reply(406, b''), order(status))
    with pytest.raises(Skip, match='nothing left to fulfil') as caught:
        shop(server).fulfill('EDX-1', email_opt_in=False)
    assert [request.method for request in server.requests] == ['PUT', 'GET']
    assert status == 'Complete' or status in caught.value.reason


@pytest.mark.parametrize('page', [reply(406, HTML), reply(406, b''), reply(406, b'{}')],
                         ids=['HTML', 'nothing', 'JSON'])
@pytest.mark.parametrize('status', FULFILLABLE)
def test_an_answer_of_406_to_an_order_that_is_open_is_somebody_elses_and_an_outage(peer, shop, page, status):
    with pytest.raises(PeerFailure, match='answered 406') as caught:
        shop(peer(page, order(status))).fulfill('EDX-1', email_opt_in=False)
    assert not Policy().counts(caught.value)


@pytest.mark.parametrize('answer', [
    reply(406, b''), reply(406, HTML), reply(403, HTML), reply(404), reply(200, HTML), reply(), order(None),
    order('Complete', 'EDX-2'), reply(503, HTML)], ids=repr)
def test_an_answer_of_406_that_the_order_does_not_confirm_settles_nothing(peer, shop, answer):
    with pytest.raises(Transient) as caught:
        shop(peer(reply(406, b''), answer)).fulfill('EDX-1', email_opt_in=False)
    assert not Policy().counts(caught.value)


@pytest.mark.parametrize('body', [
    b'{}', b'{"message": "maintenance"}', b'{"status": "Complete"}', b'{"number": "EDX-1"}',
    b'{"number": "EDX-2", "status": "Complete"}', b'{"number": "EDX-1", "status": "Open"}',
    b'{"number": "EDX-1", "status": null}', b'{"number": "EDX-1", "status": ["Complete"]}',
    b'{"number": ["EDX-1"], "status": "Complete"}', HTML, b''])
def test_an_answer_of_200_without_this_order_as_complete_is_an_outage(peer, shop, body):
    with pytest.raises(PeerFailure) as caught:
        shop(peer(reply(body=body))).fulfill('EDX-1', email_opt_in=False)
    assert caught.value.maybe_done
    assert not Policy().counts(caught.value)


@pytest.mark.parametrize('status', [400, 401, 403, 404, 405, 406, 409, 418])
def test_a_page_of_a_firewall_is_an_outage_whatever_its_status(peer, shop, status):
    client = shop(peer(reply(status, HTML, ['Content-Type: text/html', 'Retry-After: 7'])))
    for ask in (lambda: client.status('EDX-1'), lambda: client.fulfill('EDX-1', email_opt_in=False)):
        with pytest.raises(PeerFailure, match='instead of JSON') as caught:
            ask()
        assert not Policy().counts(caught.value)
        assert caught.value.retry_after == 7


def test_an_uncaught_error_of_the_shop_stays_a_refusal_though_it_comes_with_a_page(peer, shop):
    with pytest.raises(PeerFailure) as caught:
        shop(peer(reply(500, HTML))).fulfill('EDX-1', email_opt_in=False)
    assert Policy().counts(caught.value)  # each further try might mail another receipt


def test_an_answer_of_406_to_a_question_is_a_refusal(peer, shop):
    with pytest.raises(Rejected) as caught:
        shop(peer(reply(406, b''))).status('EDX-1')
    assert caught.value.status == 406


@pytest.mark.parametrize('status, kind', [(404, NotFound), (400, Rejected), (500, PeerFailure), (503, PeerFailure)])
def test_other_answers_are_the_errors_that_they_are(peer, shop, status, kind):
    with pytest.raises(kind) as caught:
        shop(peer(reply(status, b''))).fulfill('EDX-1', email_opt_in=False)
    assert caught.value.status == status


@pytest.mark.parametrize('body', [b'[]', b'null', b'"Complete"', b'7', b'true', b'[{"status": "Complete"}]'])
def test_json_that_is_no_order_is_a_failure_of_the_peer(peer, shop, body):
    client = shop(peer(reply(body=body)))
    with pytest.raises(PeerFailure, match='not this order') as caught:
        client.fulfill('EDX-1', email_opt_in=False)
    assert caught.value.maybe_done
    with pytest.raises(PeerFailure, match='not this order'):
        client.status('EDX-1')


@pytest.mark.parametrize('body', [b'{}', b'{"number": "EDX-1"}', b'{"number": "EDX-1", "status": null}',
                                  b'{"number": "EDX-1", "status": 7}', b'{"number": "EDX-1", "status": ["Complete"]}',
                                  b'{"number": "EDX-2", "status": "Complete"}'])
def test_an_order_without_a_status_or_of_another_number_is_a_failure_of_the_peer(peer, shop, body):
    with pytest.raises(PeerFailure):
        shop(peer(reply(body=body))).status('EDX-1')


def test_only_fulfilling_has_the_long_patience(peer, shop):
    def slow(request):
        server.closing.wait(0.25)
        return reply(body=ORDER)

    server = peer(slow)
    client = shop(server, fulfillment_read_timeout=2)
    client._api._read_timeout = 0.1
    client.fulfill('EDX-1', email_opt_in=False)
    with pytest.raises(Unreachable, match='in time'):
        client.status('EDX-1')


def refused(client, server, number):
    for ask in (lambda: client.fulfill(number, email_opt_in=False), lambda: client.status(number)):
        with pytest.raises(WrongArguments, match='order number') as caught:
            ask()
        assert not isinstance(number, str) or len(number) < 5 or number not in str(caught.value)
    assert not server.requests


@pytest.mark.parametrize('number', [
    '', ' ', 'EDX 1', 'EDX-1/', '../EDX-1', 'EDX-1?a=b', 'EDX-1#a', 'EDX%2F1', 'EDX-1\n', '\nEDX-1', 'EDX.1',
    'EDX-1\x00', 'a' * 129, 'ann@example.com', None, 7, 7.5, True, b'EDX-1', ['EDX-1'], {'number': 'EDX-1'},
], ids=repr)
def test_an_order_number_that_no_shop_gives_out_does_not_get_into_a_url(peer, shop, number):
    server = peer(reply(body=ORDER))
    refused(shop(server), server, number)


class Unasked(Api):
    """An API that must not be asked."""

    def request(self, method, path, **options):
        raise AssertionError(path)


UNASKED = Ecommerce(Unasked('http://shop.test/', peer='the shop'))


@given(st.text().filter(lambda text: not ORDER_NUMBER.fullmatch(text)) | st.integers() | st.binary() | st.none())
def test_nothing_but_letters_digits_hyphens_and_underlines_is_an_order_number(number):
    with pytest.raises(WrongArguments):
        UNASKED.status(number)


@pytest.mark.parametrize('number, path', [
    ('EDX-100001', 'EDX-100001'), ('edx_1-A', 'edx_1-A'), ('7', '7'), ('a' * 128, 'a' * 128), ('Ä-1', '%C3%84-1')])
def test_what_a_shop_may_give_out_gets_into_the_url(peer, shop, number, path):
    server = peer(order('Open', number))
    assert shop(server).status(number) == 'Open'
    assert server.requests[0].target == f'/api/v2/orders/{path}/'
