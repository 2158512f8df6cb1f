"""What tests and the demonstration rely on in the stand-in for the shop."""

import base64
import hmac
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
import requests

from ecommerce_worker.testing.shop import (
    CLIENT_ID,
    CLIENT_SECRET,
    JWT_ISSUER,
    JWT_SECRET,
    Answer,
    Order,
    Shop,
    ShopProcess,
    read_calls,
)
from ecommerce_worker.tests.support.harness import eventually


class Client:
    """As little of a worker as can talk to the shop."""

    def __init__(self, shop):
        self.shop = shop
        self.session = requests.Session()
        self.session.trust_env = False

    def token(self, secret=CLIENT_SECRET, end='/'):
        form = {'grant_type': 'client_credentials', 'token_type': 'jwt'}
        form |= {'client_id': CLIENT_ID, 'client_secret': secret}
        return self.session.post(f'{self.shop.oauth2_root}/access_token{end}', form, timeout=60)

    def sign_in(self, token=None):
        self.session.headers['Authorization'] = f'JWT {token or self.token().json()["access_token"]}'
        return self

    def fulfil(self, number='EDX-1', opt_in='False', method='PUT', timeout=60):
        url = f'{self.shop.api_root}orders/{number}/fulfill/'
        return self.session.request(method, url, params={'email_opt_in': opt_in}, timeout=timeout)

    def order(self, number='EDX-1'):
        return self.session.get(f'{self.shop.api_root}orders/{number}/', timeout=60)

    def report(self, assignment=7, send_id='d-1', status='success', form=False):
        said = {'offer_assignment_id': assignment, 'send_id': send_id, 'status': status}
        url = f'{self.shop.api_root}assignment-email/status/'
        return self.session.post(url, data=said if form else None, json=None if form else said, timeout=60)

    def close(self):
        self.session.close()


@pytest.fixture
def shop():
    with Shop() as shop:
        yield shop


@pytest.fixture
def client(shop):
    client = Client(shop).sign_in()
    yield client
    client.close()


def statuses(answers):
    return [answer.status_code for answer in answers]


def recorded(calls):
    return [call.status for call in calls]


def hs256(secret=JWT_SECRET, **claims):
    def part(value):
        return base64.urlsafe_b64encode(value).rstrip(b'=')

    claims = {'iss': JWT_ISSUER, 'exp': time.time() + 30, 'username': 'ecommerce_worker'} | claims
    content = part(b'{"alg": "HS256", "typ": "JWT"}') + b'.' + part(json.dumps(claims).encode())
    return (content + b'.' + part(hmac.digest(secret.encode(), content, 'sha256'))).decode()


# -- tokens


@pytest.mark.parametrize('end', ['/', ''])
def test_a_token_is_given_for_the_right_secret_with_or_without_a_slash(shop, client, end):
    answer = client.token(end=end)
    assert answer.status_code == 200
    assert answer.json()['token_type'] == 'JWT'
    assert answer.json()['expires_in'] == 3600
    assert shop.tokens_issued == 2


def test_a_wrong_secret_gets_no_token(client):
    answer = client.token(secret='guessed')
    assert (answer.status_code, answer.json()) == (401, {'error': 'invalid_client'})


def test_two_tokens_differ(client):
    assert client.token().json()['access_token'] != client.token().json()['access_token']


@pytest.mark.parametrize(
    'token',
    ['', 'guessed', 'a.b.c', '....', hs256(secret='wrong'), hs256(iss='x'), hs256(exp=1)],
    ids=['none', 'guessed', 'not a JWT', 'dots', 'wrong secret', 'wrong issuer', 'expired'],
)
def test_an_order_is_not_touched_without_a_valid_token(shop, client, token):
    shop.add_order('EDX-1')
    client.session.headers['Authorization'] = f'JWT {token}'
    assert client.fulfil().status_code == 401
    assert client.order().status_code == 401
    assert shop.orders['EDX-1'].status == 'Open'


def test_a_token_signed_with_the_shared_secret_is_accepted(shop, client):
    shop.add_order('EDX-1')
    assert client.sign_in(hs256()).fulfil().status_code == 200


def test_a_token_ends_with_its_lifetime(shop, client):
    shop.add_order('EDX-1')
    shop.token_lifetime = 0
    assert client.sign_in().fulfil().status_code == 401


def test_a_revoked_token_is_refused_and_the_next_one_accepted(shop, client):
    shop.add_order('EDX-1')
    shop.revoke_tokens()
    assert client.fulfil().status_code == 401
    assert client.sign_in().fulfil().status_code == 200


def test_the_token_endpoint_has_a_script_of_its_own(shop, client):
    shop.fault_tokens(Answer(status=500), Answer(status=403))
    assert statuses(client.token() for _ in range(3)) == [500, 403, 200]


# -- orders


@pytest.mark.parametrize('method', ['PUT', 'PATCH'])
def test_an_open_order_is_fulfilled(shop, client, method):
    shop.add_order('EDX-1', lines=2)
    answer = client.fulfil(method=method)
    assert answer.status_code == 200
    assert answer.json()['number'] == 'EDX-1'
    assert answer.json()['status'] == 'Complete'
    assert len(answer.json()['lines']) == 2
    assert shop.orders['EDX-1'].status == 'Complete'


@pytest.mark.parametrize('said,kept', [('True', True), ('False', False), ('true', False), ('1', False)])
def test_only_true_with_a_capital_letter_opts_in(shop, client, said, kept):
    shop.add_order('EDX-1')
    client.fulfil(opt_in=said)
    assert shop.orders['EDX-1'].email_opt_in is kept


@pytest.mark.parametrize('status,answer', [('Fulfillment Error', 200), ('Complete', 406), ('Refunded', 406)])
def test_the_status_decides_whether_an_order_can_be_fulfilled(shop, client, status, answer):
    shop.add_order('EDX-1', status=status)
    assert client.fulfil().status_code == answer


def test_a_second_fulfilment_is_refused_with_an_empty_body(shop, client):
    shop.add_order('EDX-1')
    client.fulfil()
    answer = client.fulfil()
    assert (answer.status_code, answer.content) == (406, b'')
    assert (shop.orders['EDX-1'].puts, shop.orders['EDX-1'].fulfilments) == (2, 1)


def test_an_order_shows_its_status(shop, client):
    shop.add_order('EDX-1')
    assert client.order().json()['status'] == 'Open'
    client.fulfil()
    assert client.order().json()['status'] == 'Complete'


def test_an_unknown_order_is_not_found(client):
    assert client.order().status_code == 404
    assert client.fulfil().status_code == 404


def test_an_order_that_is_not_yet_committed_is_found_by_a_later_call(shop, client):
    shop.add_order('EDX-1', hidden=2)
    assert statuses([client.fulfil(), client.order(), client.fulfil()]) == [404, 404, 200]


def test_other_methods_are_refused(shop, client):
    shop.add_order('EDX-1')
    assert client.fulfil(method='POST').status_code == 405


# -- reports of mail


@pytest.mark.parametrize('form', [False, True], ids=['JSON', 'form'])
def test_a_mail_that_was_sent_is_noted(shop, client, form):
    answer = client.report(form=form)
    assert answer.status_code == 200
    assert answer.json() == {
        'offer_assignment_id': '7' if form else 7, 'send_id': 'd-1', 'status': 'updated', 'error': ''}
    assert shop.reports == {'d-1': '7'}


def test_a_mail_is_noted_once(shop, client):
    client.report()
    answer = client.report()
    assert (answer.status_code, answer.json()['status']) == (500, 'failed')
    assert client.report(send_id='d-2').status_code == 200
    assert shop.reports == {'d-1': '7', 'd-2': '7'}


def test_a_mail_that_was_not_sent_is_not_noted(shop, client):
    answer = client.report(status='failure')
    assert (answer.status_code, answer.json()['status']) == (400, 'failed')
    assert answer.json()['error']
    assert shop.reports == {}


@pytest.mark.parametrize('body', [b'', b'{', b'[]', b'\xff'])
def test_a_report_that_cannot_be_read_is_not_noted(shop, client, body):
    url = f'{shop.api_root}assignment-email/status/'
    assert client.session.post(url, body, headers={'Content-Type': 'application/json'}, timeout=60).status_code == 400


def test_a_report_needs_a_token_and_post(shop, client):
    assert client.session.get(f'{shop.api_root}assignment-email/status/', timeout=60).status_code == 404
    shop.revoke_tokens()
    assert client.report().status_code == 401
    assert shop.reports == {}


def test_reports_have_a_script_of_their_own(shop, client):
    shop.fault_reports(Answer(status=503), Answer.lost())
    assert client.report().status_code == 503
    with pytest.raises(requests.ConnectionError):
        client.report()
    assert client.report().status_code == 500
    shop.fault_reports(Answer(status=502).always())
    assert client.report(send_id='d-2').status_code == 502
    shop.repair_reports()
    assert client.report(send_id='d-2').status_code == 200


# -- faults


def test_steps_are_used_up_one_per_call_and_then_it_behaves(shop, client):
    shop.add_order('EDX-1', Answer(status=503), Answer(status=429, headers={'Retry-After': '2'}))
    first, second, third = (client.fulfil() for _ in range(3))
    assert statuses([first, second, third]) == [503, 429, 200]
    assert second.headers['Retry-After'] == '2'


def test_a_step_may_last_until_the_order_is_repaired(shop, client):
    shop.add_order('EDX-1', Answer(status=500, body='Oops').always())
    assert {client.fulfil().text for _ in range(4)} == {'Oops'}
    shop.repair('EDX-1')
    assert client.fulfil().status_code == 200


def test_repair_enters_an_order_that_was_unknown(shop, client):
    shop.repair('EDX-1')
    assert client.fulfil().status_code == 200


def test_steps_can_be_added_later(shop, client):
    shop.add_order('EDX-1')
    shop.fault('EDX-1', Answer(status=502))
    assert client.fulfil().status_code == 502


def test_reading_has_a_script_of_its_own(shop, client):
    shop.add_order('EDX-1', reads=[Answer(status=504)])
    assert statuses([client.order(), client.fulfil(), client.order()]) == [504, 200, 200]


def test_a_slow_order_is_fulfilled_in_the_end(shop, client):
    shop.add_order('EDX-1', Answer.slow(0.2))
    began = time.monotonic()
    assert client.fulfil().status_code == 200
    assert time.monotonic() - began >= 0.2


def test_a_client_that_does_not_wait_is_served_all_the_same(shop, client):
    shop.add_order('EDX-1', Answer.slow(0.3))
    with pytest.raises(requests.ReadTimeout):
        client.fulfil(timeout=0.1)
    time.sleep(0.4)
    assert shop.orders['EDX-1'].status == 'Complete'


@pytest.mark.parametrize(
    'step,error',
    [
        (Answer.hanging(), requests.ReadTimeout),
        (Answer.dropped(), requests.ConnectionError),
        (Answer.truncated(), requests.exceptions.ChunkedEncodingError),
    ],
)
def test_a_fault_of_the_line_leaves_the_order_open(shop, client, step, error):
    shop.add_order('EDX-1', step)
    with pytest.raises(error):
        client.fulfil(timeout=0.3)
    assert shop.orders['EDX-1'].status == 'Open'


def test_an_answer_can_get_lost_after_the_order_was_fulfilled(shop, client):
    shop.add_order('EDX-1', Answer.lost())
    with pytest.raises(requests.ConnectionError):
        client.fulfil()
    assert client.fulfil().status_code == 406


def test_a_true_answer_can_be_cut_in_the_middle(shop, client):
    shop.add_order('EDX-1', Answer(cut=True))
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        client.fulfil()
    assert shop.orders['EDX-1'].status == 'Complete'


@pytest.mark.parametrize('step,kind', [(Answer.html(), 'text/html'), (Answer.garbled(), 'application/json')])
def test_a_200_need_not_be_json(shop, client, step, kind):
    shop.add_order('EDX-1', step)
    answer = client.fulfil()
    assert (answer.status_code, answer.headers['Content-Type']) == (200, kind)
    with pytest.raises(ValueError):
        answer.json()
    assert shop.orders['EDX-1'].status == 'Open'


# -- what is recorded


def test_a_call_is_recorded_without_its_token(shop, client):
    shop.add_order('EDX-1')
    client.session.headers.update({'X-Request-ID': 'run-7', 'User-Agent': 'test'})
    client.fulfil(opt_in='True')
    call = shop.calls[-1]
    assert (call.method, call.path) == ('PUT', '/api/v2/orders/EDX-1/fulfill/')
    assert call.query == 'email_opt_in=True'
    assert (call.order, call.status, call.scheme) == ('EDX-1', 200, 'JWT')
    assert (call.request_id, call.user_agent) == ('run-7', 'test')
    assert client.session.headers['Authorization'].removeprefix('JWT ') not in str(call)


def test_a_report_is_recorded_by_the_id_of_its_assignment(shop, client):
    client.report()
    call = shop.calls[-1]
    assert (call.method, call.path, call.order, call.assignment) == (
        'POST', '/api/v2/assignment-email/status/', None, '7')


def test_overlapping_and_repeated_calls_are_told_apart(shop, client):
    shop.add_order('EDX-1', Answer.slow(0.3))
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(client.fulfil)
        time.sleep(0.1)
        assert client.fulfil().status_code == 200
    assert first.result().status_code == 200
    client.fulfil()
    assert [call.overlapping for call in shop.calls[1:]] == [False, True, False]
    assert [call.repeated for call in shop.calls[1:]] == [False, False, True]
    assert shop.orders['EDX-1'].fulfilments == 2


def test_each_line_of_an_order_takes_its_time(shop, client):
    shop.latency = 0.1
    shop.add_order('EDX-1', lines=3)
    client.fulfil()
    assert shop.calls[-1].duration >= 0.3


def test_the_log_tells_a_call_when_it_begins_and_when_it_ends(tmp_path):
    log = tmp_path / 'calls.jsonl'
    with Shop(log=log) as shop:
        shop.add_order('EDX-1', Answer.hanging())
        client = Client(shop).sign_in()
        with pytest.raises(requests.ReadTimeout):
            client.fulfil(timeout=0.2)
        assert recorded(read_calls(log)) == [200, None]
        client.fulfil()
        assert recorded(read_calls(log)) == [200, None, 200]
        client.close()


def test_many_clients_at_once_are_served(shop, client):
    shop.latency = 0.2
    shop.add_orders(Order(f'EDX-{number}') for number in range(100))
    began = time.monotonic()

    def fulfil(number):
        # A connection each.
        url = f'{shop.api_root}orders/EDX-{number}/fulfill/'
        return requests.put(url, headers=client.session.headers, timeout=60).status_code

    with ThreadPoolExecutor(100) as threads:
        assert set(threads.map(fulfil, range(100))) == {200}
    assert time.monotonic() - began < 5


# -- life


def test_a_stopped_shop_refuses_and_knows_its_orders_when_it_is_back(shop, client):
    shop.add_order('EDX-1')
    shop.stop()
    with pytest.raises(requests.ConnectionError):
        client.fulfil()
    shop.start()
    assert client.fulfil().status_code == 200


def test_stopping_cuts_a_call_that_hangs_and_leaves_no_thread():
    before = set(threading.enumerate())
    with Shop() as shop, closing(Client(shop).sign_in()) as client, ThreadPoolExecutor(1) as threads:
        shop.add_order('EDX-1', Answer.hanging())
        hanging = threads.submit(client.fulfil, timeout=30)
        eventually(lambda: any(call.is_put for call in shop.calls))
        shop.stop()
        with pytest.raises(requests.ConnectionError):
            hanging.result(timeout=30)
    eventually(lambda: not set(threading.enumerate()) - before)


def test_nonsense_is_hung_up_on(shop):
    with socket.create_connection(('127.0.0.1', shop.port), timeout=60) as connection:
        connection.sendall(b'what is this\xff, please?\r\n')
        assert connection.recv(100) == b''


def test_a_process_takes_the_same_verbs(tmp_path):
    with ShopProcess(tmp_path) as shop:
        client = Client(shop)
        shop.fault_tokens(Answer(status=503))
        assert client.token().status_code == 503
        client.sign_in()
        shop.add_order('EDX-1', Answer(status=500).always(), lines=2)
        assert client.fulfil().status_code == 500
        shop.repair('EDX-1')
        shop.fault('EDX-1', Answer(status=502))
        assert client.fulfil().status_code == 502
        shop.revoke_tokens()
        assert client.fulfil().status_code == 401
        assert client.sign_in().fulfil(opt_in='True').status_code == 200
        client.close()
        order = shop.orders['EDX-1']
        assert (order.status, order.email_opt_in, order.puts, order.lines) == ('Complete', True, 3, 2)
        assert shop.tokens_issued == 2
    assert recorded(shop.calls) == [503, 200, 500, 502, 401, 200, 200]


def test_an_unknown_verb_or_order_is_an_error(tmp_path):
    with ShopProcess(tmp_path) as shop:
        for nonsense in [
            '{"burn": "EDX-1"}',
            '{"fault": {"order": "EDX-1", "answers": []}}',
            '{"add": [{"size": 1}]}',
            '["add"]',
            '{',
        ]:
            assert requests.post(f'{shop.url}/__control__/', nonsense, timeout=60).status_code == 400


def test_a_killed_process_comes_back_with_its_orders_scripts_tokens_and_calls(tmp_path):
    with ShopProcess(tmp_path) as shop:
        client = Client(shop).sign_in()
        shop.add_order('EDX-1')
        shop.add_order('EDX-2', Answer(status=503), Answer(status=502))
        client.fulfil('EDX-1')
        client.fulfil('EDX-2')
        client.report()
        shop.fault_reports(Answer(status=503))
        shop.kill()
        with pytest.raises(requests.ConnectionError):
            client.fulfil('EDX-2')
        assert len(shop.calls) == 4
        shop.start()
        assert statuses([client.fulfil('EDX-1'), client.fulfil('EDX-2')]) == [406, 502]
        assert statuses([client.report(send_id='d-2'), client.report()]) == [503, 500]
        assert recorded(shop.calls) == [200, 200, 503, 200, 406, 502, 503, 500]
        assert shop.tokens_issued == 1
        assert shop.reports == {'d-1': '7'}
        client.close()


def test_what_is_held_is_done_when_the_shop_is_told_to_release_it(shop, client):
    shop.add_order('EDX-1', Answer.until_released())
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(client.fulfil)
        eventually(lambda: shop.orders['EDX-1'].puts)
        assert not asked.done()
        shop.release()
        assert asked.result(60).status_code == 200
    assert shop.orders['EDX-1'].status == 'Complete'
