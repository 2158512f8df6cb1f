"""How calls to Sailthru are signed and what its answers mean."""

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecommerce_worker.configuration import base
from ecommerce_worker.errors import (
    ApiError,
    Misconfigured,
    NotFound,
    PeerFailure,
    Rejected,
    Throttled,
    Transient,
    Unauthorized,
    Unreachable,
)
from ecommerce_worker.sailthru.client import ROOT, Sailthru, code_of, error_in, is_unknown, signature, signed
from ecommerce_worker.testing.peer import reply
from ecommerce_worker.tests.support.sailthru import KEY, SECRET, connecting, read, refusal


@pytest.fixture
def sailthru(api):
    """A client at a peer."""
    return lambda server: Sailthru(KEY, SECRET, connecting(api), root=server.url)


# --- Signing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('secret, values, text', [
    ('s', [], 's'),
    ('s', ['b', 'a'], 'sab'),
    ('s', ['b', 'B', '1', '{"é": 1}'], 's1Bb{"é": 1}'),
    ('sécret', ['json', 'key', '{}'], 'sécretjsonkey{}'),
    ('s', ['', 'a', 'a'], 'saa'),
])
def test_a_signature_is_the_md5_of_the_secret_and_the_sorted_values(secret, values, text):
    assert signature(secret, values) == hashlib.md5(text.encode('utf-8')).hexdigest()


def test_a_signature_worked_out_by_hand():
    assert signature('abc', ['def', 'ABC', '012']) == '8b4a3c473cc11d13deb94c4f2df55af3'  # of abc012ABCdef


@given(st.lists(st.text()))
def test_the_order_of_values_does_not_matter_to_a_signature(values):
    assert signature('s', values) == signature('s', reversed(values))


def test_what_is_signed_is_what_is_sent():
    found = signed(KEY, SECRET, {'email': 'Ännchen', 'qty': 1})
    assert found.pop('sig') == signature(SECRET, found.values())
    assert found == {'api_key': KEY, 'format': 'json', 'json': '{"email": "\\u00c4nnchen", "qty": 1}'}


@pytest.mark.parametrize('data', [
    {}, {'email': 'ann@example.com'}, {'vars': {'name': 'Café 101 & more = 1+1%', 'html': '<p>ü</p>\n'}},
    {'items': [{'price': 4900, 'tags': None, 'ok': True}]}])
def test_a_get_is_a_query_and_a_post_a_form(peer, sailthru, data):
    server = peer(reply(body=b'{"title": "T"}'))
    assert sailthru(server).get('content', data) == {'title': 'T'}
    assert sailthru(server).post('send', data) == {'title': 'T'}
    assert [read(request) for request in server.requests] == [('GET', 'content', data), ('POST', 'send', data)]


def test_the_root_is_sailthrus_own_unless_another_is_given(api):
    asked = []

    def connect(root, *, peer):
        asked.append((root, peer))
        return api(root)

    Sailthru(KEY, SECRET, connect)
    Sailthru.of({'SAILTHRU_KEY': KEY, 'SAILTHRU_SECRET': SECRET}, connect)
    Sailthru.of({'SAILTHRU_KEY': KEY, 'SAILTHRU_SECRET': SECRET, 'SAILTHRU_API_URL': 'https://other.test'}, connect)
    assert asked == [(ROOT, 'Sailthru'), (ROOT, 'Sailthru'), ('https://other.test', 'Sailthru')]
    assert base.SAILTHRU['SAILTHRU_API_URL'] == ROOT == 'https://api.sailthru.com'


@pytest.mark.parametrize('given, missing', [
    ({}, ['SAILTHRU_KEY', 'SAILTHRU_SECRET']), ({'SAILTHRU_KEY': 'k', 'SAILTHRU_SECRET': ''}, ['SAILTHRU_SECRET']),
    ({'SAILTHRU_KEY': None, 'SAILTHRU_SECRET': 's'}, ['SAILTHRU_KEY'])])
def test_an_account_without_credentials_is_a_misconfiguration_that_names_them(given, missing):
    with pytest.raises(Misconfigured) as caught:
        Sailthru.of(given, connecting(None))
    assert caught.value.problems == tuple(f'SAILTHRU[{name}] is not set' for name in missing)


# --- What answers mean ----------------------------------------------------------------------------------------------

ERRORS = [
    (1, 405, Rejected), (2, 400, Rejected), (3, 401, Unauthorized), (4, 403, Unauthorized), (5, 401, Unauthorized),
    (6, 400, Rejected), (9, 500, PeerFailure), (9, 400, PeerFailure), (11, 400, Rejected), (12, 404, NotFound),
    (14, 400, Rejected), (14, 404, NotFound), (17, 401, Unauthorized), (22, 403, Rejected), (35, 400, Rejected),
    (43, 429, Throttled), (43, 400, Throttled), (99, 400, Rejected), (99, 500, PeerFailure), (7, 429, Throttled),
    (7, 503, PeerFailure), ('9', 400, PeerFailure), ('14', 400, Rejected), ('XX', 400, Rejected),
    ('XX', 500, PeerFailure), (None, 400, Rejected), ([9], 400, Rejected), (3, 500, Unauthorized),
]


@pytest.mark.parametrize('code, status, kind', ERRORS)
def test_an_error_is_what_its_number_says_and_then_what_its_status_says(peer, sailthru, code, status, kind):
    with pytest.raises(ApiError) as caught:
        sailthru(peer(refusal(code, status=status))).post('send', {})
    assert type(caught.value) is kind
    assert caught.value.status == status
    assert 'because' in str(caught.value)


@pytest.mark.parametrize('code, kind', [
    (3, Unauthorized), (4, Unauthorized), (5, Unauthorized), (9, PeerFailure), (11, Rejected), (43, Throttled),
    (99, Rejected), ('XX', Rejected)])
def test_an_error_with_status_200_is_an_error_all_the_same(peer, sailthru, code, kind):
    with pytest.raises(ApiError) as caught:
        sailthru(peer(refusal(code, status=200))).get('user', {})
    assert type(caught.value) is kind


@pytest.mark.parametrize('status, kind', [(429, Throttled), (500, PeerFailure), (503, PeerFailure), (401, Unauthorized),
                                          (404, NotFound), (400, Rejected)])
@pytest.mark.parametrize('body', [b'', b'<html>', b'{}', b'[]', b'{"detail": "no"}'], ids=repr)
def test_a_status_counts_where_nothing_else_is_said(peer, sailthru, status, kind, body):
    with pytest.raises(ApiError) as caught:
        sailthru(peer(reply(status, body))).post('send', {})
    # A page is of a proxy or a firewall, and says nothing of what was asked.
    assert type(caught.value) is (PeerFailure if body == b'<html>' and kind is not Throttled else kind)
    assert caught.value.status == status


def test_how_long_to_wait_is_handed_on(peer, sailthru):
    answer = reply(429, b'{"error": 43, "errormsg": "Too many"}', ['Retry-After: 40'])
    with pytest.raises(Throttled) as caught:
        sailthru(peer(answer)).post('send', {})
    assert caught.value.retry_after == 40


@pytest.mark.parametrize('body', [b'', b'{}', b'[]', b'null', b'""', b'"ok"', b'7', b'<html></html>'], ids=repr)
def test_an_answer_that_is_none_is_a_failure_of_the_peer_after_which_it_may_be_done(peer, sailthru, body):
    with pytest.raises(PeerFailure) as caught:
        sailthru(peer(reply(body=body))).post('purchase', {})
    assert caught.value.maybe_done
    with pytest.raises(PeerFailure):
        sailthru(peer(reply(202, b''))).post('purchase', {})


@pytest.mark.parametrize('body', [b'{"send_id": "x"}', b'{"error": 0, "errormsg": "", "send_id": "x"}',
                                  b'{"vars": {"error": 9}}'])
def test_only_an_answer_of_an_error_alone_is_an_error(peer, sailthru, body):
    assert sailthru(peer(reply(body=body))).post('send', {}) == json.loads(body)


def test_an_error_names_the_number_and_no_address(peer, sailthru):
    said = 'User not found with email: ann@example.com (bob%40example.com)\r\nSet-Cookie: a'
    with pytest.raises(Rejected) as caught:
        sailthru(peer(refusal(99, said))).get('user', {'id': 'ann@example.com'})
    assert str(caught.value) == ('Sailthru refuses it: User not found with email: <address> (<address>) '
                                 'Set-Cookie: a (error 99)')


@pytest.mark.parametrize('answer', [reply(500, b'no'), refusal(5), reply(body=b'no')])
def test_neither_key_nor_secret_nor_contents_are_in_an_error(peer, sailthru, answer):
    with pytest.raises(ApiError) as caught:
        sailthru(peer(answer)).get('user', {'id': 'ann@example.com'})
    assert not [it for it in (KEY, SECRET, 'ann') if it in repr(caught.value)]


def test_a_server_that_is_not_there_is_unreachable(peer, sailthru):
    server = peer(reply())
    client = sailthru(server)
    server.close()
    with pytest.raises(Unreachable):
        client.post('send', {})


def test_a_connection_that_breaks_off_may_have_had_its_effect(peer, sailthru):
    with pytest.raises(Unreachable) as caught:
        sailthru(peer(reply(body=b'{"send_id"', length=100))).post('send', {})
    assert caught.value.maybe_done


@pytest.mark.parametrize('error, code, unknown', [
    (Rejected('no', answer={'error': 99, 'errormsg': ''}), 99, True), (NotFound('no', status=404), None, True),
    (Rejected('no', answer={'error': '99'}), 99, True), (Rejected('no', answer={'error': 11}), 11, False),
    (Rejected('no'), None, False), (Rejected('no', answer=[]), None, False),
    (PeerFailure('no', answer={'error': 99}), 99, False), (Transient('no'), None, False)])
def test_what_sailthru_does_not_know_is_told_from_what_it_refuses(error, code, unknown):
    assert (code_of(error), is_unknown(error)) == (code, unknown)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False),
                    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.just('error'), inner)))
def test_whatever_is_answered_is_an_answer_or_one_of_our_errors(answer):
    error = error_in(answer)
    assert isinstance(error, ApiError) or (error is None and isinstance(answer, dict) and answer)
