"""What the worker says to the LMS, byte for byte, and what it makes of each answer."""

import json

import pytest

from ecommerce_worker.clients.lms import Account, Enrolment, Lms, NotRegistered
from ecommerce_worker.errors import PeerFailure, Rejected, Throttled, Transient
from ecommerce_worker.testing.peer import reply
from ecommerce_worker.tests.unit.clients.test_ecommerce import Signer

COURSE = 'course-v1:edX+PY101+2027'
ADDRESS = 'ann+1@example.com'
VERIFIED = Enrolment('verified', active=True)
PAGE = b'<html><h1>Page not found</h1></html>'


def enrolment(mode='verified', active=True, course=COURSE, **more):
    return json.dumps({'created': '2026-01-01T00:00:00Z', 'mode': mode, 'is_active': active, 'user': 'ann',
                       'course_details': {'course_id': course}, **more}).encode()


def page(status):
    return reply(status, PAGE, ['Content-Type: text/html'])


def refused(status, answer=b'{"message": "ann may not"}'):
    return reply(status, answer, ['Content-Type: application/json'])


@pytest.fixture
def lms(api):
    """The client at a peer."""
    return lambda peer: Lms(api(peer.url, signer=Signer()))


def test_an_enrolment_is_asked_for_with_its_mode_and_the_number_of_the_order(peer, lms):
    server = peer(reply(body=enrolment()))
    lms(server).put('ann', COURSE, VERIFIED, order_number='#1001')
    request, = server.requests
    assert (request.method, request.target) == ('POST', '/api/enrollment/v1/enrollment')
    assert request.headers['authorization'] == 'JWT token'
    assert json.loads(request.body) == {
        'user': 'ann', 'course_details': {'course_id': COURSE}, 'mode': 'verified', 'is_active': True,
        'enrollment_attributes': [{'namespace': 'order', 'name': 'order_number', 'value': '#1001'}]}


def test_closed_courses_are_opened_only_by_who_says_so(peer, lms):
    server = peer(reply(body=enrolment()))
    lms(server).put('ann', COURSE, VERIFIED, force=True)
    assert json.loads(server.requests[0].body)['force_enrollment'] is True


@pytest.mark.parametrize('answer, kind, sentence', [
    # 200, and another state than was paid for
    (reply(body=enrolment('audit')), Rejected, 'has the learner as audit in .*, and not as verified'),
    (reply(body=enrolment(active=False)), Rejected, 'has the learner as verified, not active in'),
    # 200, and not an enrolment, or not this one
    (reply(body=b'{}'), PeerFailure, 'not this enrolment'), (reply(body=b'[]'), PeerFailure, 'not this enrolment'),
    (reply(body=b'null'), PeerFailure, 'not this enrolment'),
    (reply(body=enrolment(course='course-v1:edX+PY101+2026')), PeerFailure, 'not this enrolment'),
    (reply(body=enrolment(user='bob')), PeerFailure, 'not this enrolment'),
    (reply(body=enrolment(mode=7)), PeerFailure, 'not this enrolment'),
    (reply(body=enrolment(active='yes')), PeerFailure, 'not this enrolment'),
    (page(200), PeerFailure, 'JSON|other|page|answered'),
    (refused(401), PeerFailure, 'credentials'),
    (refused(403), Rejected, 'enrolment is closed.*global staff'),
    (refused(404), Rejected, 'must be global staff'),
    (refused(406), NotRegistered, 'no account yet'),
    (refused(429), Throttled, 'slow down'),
    (refused(500), PeerFailure, 'failed'), (refused(503), PeerFailure, 'failed'), (page(404), PeerFailure, '404'),
    (page(403), PeerFailure, '403'),
])
def test_the_table_of_answers_to_an_enrolment(peer, lms, answer, kind, sentence):
    with pytest.raises(kind, match=sentence) as caught:
        lms(peer(answer)).put('ann', COURSE, VERIFIED)
    assert isinstance(caught.value, Transient) is (kind is not Rejected)
    assert 'ann' not in str(caught.value)


@pytest.mark.parametrize('known, sentence', [
    (reply(body=b'{"id": "x"}'), 'the course does not offer this mode, or its enrolment period is over'),
    (refused(404), 'the course does not exist; correct PRODUCTS'),
    (refused(403), 'the course does not offer this mode'),
])
def test_a_400_is_told_by_whether_there_is_such_a_course(peer, lms, known, sentence):
    server = peer(refused(400), known)
    with pytest.raises(Rejected, match=sentence) as caught:
        lms(server).put('ann', COURSE, VERIFIED)
    assert caught.value.status == 400
    assert server.requests[1].target == f'/api/courses/v1/courses/{COURSE}/'


def test_a_429_says_how_long_to_wait(peer, lms):
    with pytest.raises(Throttled) as caught:
        lms(peer(reply(429, b'{}', ['Retry-After: 60']))).put('ann', COURSE, VERIFIED)
    assert caught.value.retry_after == 60


@pytest.mark.parametrize('answer, found', [
    (reply(body=enrolment('audit', active=False)), Enrolment('audit', active=False)),
    (reply(body=enrolment()), VERIFIED), (reply(200, b''), None), (reply(200, b'null'), None),
])
def test_an_enrolment_is_looked_up_and_an_empty_answer_is_none(peer, lms, answer, found):
    server = peer(answer)
    assert lms(server).enrolment('ann', COURSE) == found
    assert server.requests[0].target == f'/api/enrollment/v1/enrollment/ann,{COURSE}'


@pytest.mark.parametrize('answer', [b'[{"username": "ann", "email": "x"}]', b'{"username": "ann"}'])
def test_an_account_is_looked_up_by_its_address(peer, lms, answer):
    server = peer(reply(body=answer))
    assert lms(server).username(ADDRESS) == 'ann'
    assert server.requests[0].target == '/api/user/v1/accounts?email=ann%2B1%40example.com'


@pytest.mark.parametrize('told, active', [('', True), (', "is_active": true', True), (', "is_active": false', False)])
def test_an_account_is_active_unless_the_lms_says_that_its_address_is_not_confirmed(peer, lms, told, active):
    server = peer(reply(body=f'[{{"username": "ann"{told}}}]'.encode()))
    assert lms(server).account(ADDRESS) == Account('ann', active=active)


@pytest.mark.parametrize('answer, kind', [
    (refused(404), NotRegistered), (reply(body=b'[]'), NotRegistered), (page(404), PeerFailure),
    (reply(body=b'[{"username": "ann"}, {"username": "bob"}]'), PeerFailure), (reply(body=b'{}'), PeerFailure),
    (reply(body=b'[{"username": "../x,y"}]'), PeerFailure), (reply(body=b'"ann"'), PeerFailure),
    (refused(401), PeerFailure), (refused(403), Rejected), (refused(500), PeerFailure),
])
def test_the_table_of_answers_to_an_address(peer, lms, answer, kind):
    with pytest.raises(kind) as caught:
        lms(peer(answer)).username(ADDRESS)
    assert ADDRESS not in str(caught.value)


@pytest.mark.parametrize('answer', [reply(201, b'{}'), refused(409)])
def test_who_has_no_account_is_let_in_and_may_be_already(peer, lms, answer):
    server = peer(answer)
    lms(server).allow(ADDRESS, COURSE)
    request, = server.requests
    assert (request.method, request.target) == ('POST', '/api/enrollment/v1/enrollment_allowed/')
    assert json.loads(request.body) == {'email': ADDRESS, 'course_id': COURSE, 'auto_enroll': True}


@pytest.mark.parametrize('status, advice', [(400, 'does the course exist'), (403, 'must be global staff')])
def test_a_refusal_to_let_them_in_is_for_people(peer, lms, status, advice):
    with pytest.raises(Rejected, match=advice):
        lms(peer(refused(status))).allow(ADDRESS, COURSE)


def test_a_user_who_may_not_look_is_told_what_they_must_be(peer, lms):
    with pytest.raises(Rejected, match='must be global staff'):
        lms(peer(refused(404))).enrolment('ann', COURSE)


def bulk(**result):
    return reply(body=json.dumps({'courses': {COURSE: {'results': [{'identifier': ADDRESS, **result}]}}}).encode())


@pytest.mark.parametrize('missing', [refused(404), page(404)])
@pytest.mark.parametrize('answer, kind', [
    (bulk(after={'enrollment': False, 'allowed': True}), None), (bulk(after={'enrollment': True}), None),
    (bulk(after={'enrollment': False, 'allowed': False}), Rejected), (bulk(invalidIdentifier=True), Rejected),
    (bulk(error=True), Rejected), (bulk(error=True, after={'allowed': True}), Rejected),
    (reply(body=b'{}'), PeerFailure), (bulk(after=None), PeerFailure),
    (reply(body=json.dumps({'courses': {COURSE: {'results': []}}}).encode()), Rejected),
    (refused(400), Rejected), (refused(404), Rejected), (refused(503), PeerFailure),
])
def test_before_quince_it_is_a_bulk_enrolment_whose_200_is_looked_into(peer, lms, missing, answer, kind):
    server = peer(missing, answer)
    if kind is None:
        lms(server).allow(ADDRESS, COURSE)
    else:
        with pytest.raises(kind) as caught:
            lms(server).allow(ADDRESS, COURSE)
        assert ADDRESS not in str(caught.value)
    assert server.requests[1].target == '/api/bulk_enroll/v1/bulk_enroll'
    assert json.loads(server.requests[1].body) == {
        'identifiers': ADDRESS, 'courses': COURSE, 'action': 'enroll', 'auto_enroll': True, 'email_students': False}


@pytest.mark.parametrize('answer, was_there', [(reply(204, b''), True), (refused(404), False)])
def test_letting_them_in_is_taken_back(peer, lms, answer, was_there):
    server = peer(answer)
    assert lms(server).disallow(ADDRESS, COURSE) is was_there
    assert (server.requests[0].method, json.loads(server.requests[0].body)) == (
        'DELETE', {'email': ADDRESS, 'course_id': COURSE})


@pytest.mark.parametrize('before, was_there', [({'before': {'allowed': True}}, True), ({}, True),
                                               ({'before': {'enrollment': False, 'allowed': False}}, False)])
def test_before_quince_it_is_taken_back_by_a_bulk_enrolment(peer, lms, before, was_there):
    server = peer(page(404), bulk(**before, after={'enrollment': False, 'allowed': False}))
    assert lms(server).disallow(ADDRESS, COURSE) is was_there
    assert json.loads(server.requests[1].body)['action'] == 'unenroll'
