"""What SendGrid is asked, and what its answers mean."""

import json
import time

import pytest

from ecommerce_worker.email.message import Attachment, Email, Purpose, Receipt
from ecommerce_worker.email.vendors.sendgrid import Vendor, message, reason
from ecommerce_worker.errors import Misconfigured, PeerFailure, Rejected, Throttled, Unauthorized
from ecommerce_worker.testing.peer import reply


def mail(**given):
    return Email(**{'purpose': Purpose.UPDATE, 'to': ('ann@example.com',), 'subject': 'Hello', 'body': '<p>Hi</p>',
                    'id': 'id-1', **given})


@pytest.fixture
def vendor(api):
    def make(there):
        return Vendor({'api_key': 'SG.key', 'from_email': '<shop@example.com>', 'api_url': there.url},
                      lambda root, *, peer, signer: api(root, signer=signer))

    return make


def test_a_mail_is_one_request(vendor, peer):
    there = peer(reply(202, b''))
    assert vendor(there).send(mail()) == Receipt('id-1')
    request, = there.requests
    assert (request.method, request.target) == ('POST', '/v3/mail/send')
    assert request.headers['authorization'] == 'Bearer SG.key'
    assert json.loads(request.body) == {
        'personalizations': [{'to': [{'email': 'ann@example.com'}]}],
        'from': {'email': 'shop@example.com', 'name': 'EdX Support Team'}, 'subject': 'Hello',
        'content': [{'type': 'text/plain', 'value': 'Hi\n'}, {'type': 'text/html', 'value': '<p>Hi</p>'}],
        'categories': ['update'], 'custom_args': {'id': 'id-1'}}


def test_each_recipient_gets_a_mail_of_their_own():
    asked = message(mail(to=('ann@example.com', 'bob@example.com')), 'shop@example.com')
    assert asked['personalizations'] == [{'to': [{'email': 'ann@example.com'}]}, {'to': [{'email': 'bob@example.com'}]}]


def test_recipients_beyond_what_a_request_may_have_are_left(vendor, peer):
    there = peer(reply(202, b''))
    to = tuple(f'{number}@example.com' for number in range(1001))
    assert vendor(there).send(mail(to=to)).left == ('1000@example.com',)
    assert len(json.loads(there.requests[0].body)['personalizations']) == 1000


def test_sender_answers_and_files_are_as_the_shop_has_them():
    asked = message(mail(sender_alias="O'Reilly,\r\nInc.", reply_to='help@example.com', subject='a\r\nb',
                         attachments=(Attachment('a.pdf', 'https://files.example.com/a'),)), 'shop@example.com')
    assert asked['from']['name'] == "O'Reilly, Inc."
    assert asked['reply_to'] == {'email': 'help@example.com'}
    assert asked['subject'] == 'a b'
    assert '<a href="https://files.example.com/a">a.pdf</a>' in asked['content'][1]['value']
    assert 'a.pdf (https://files.example.com/a)' in asked['content'][0]['value']


def test_an_address_for_answers_that_is_none_is_left_out():
    assert 'reply_to' not in message(mail(reply_to='nobody'), 'shop@example.com')


@pytest.mark.parametrize('status, kind', [(400, Rejected), (413, Rejected), (401, Unauthorized), (403, Unauthorized)])
def test_a_refusal_tells_what_sendgrid_says_without_addresses(vendor, peer, status, kind):
    body = b'{"errors": [{"message": "no such domain: ann@example.com"}, {"message": "bad", "field": "from"}]}'
    with pytest.raises(kind) as caught:
        vendor(peer(reply(status, body))).send(mail())
    assert str(caught.value).endswith(f'({status}): no such domain: <address>; bad')
    assert caught.value.status == status


@pytest.mark.parametrize('answer', [
    None, {}, [], {'errors': None}, {'errors': 5}, {'errors': [5, {}, {'message': None}]}])
def test_an_answer_of_another_form_says_nothing(answer):
    assert not reason(answer)


def test_a_limit_tells_when_it_is_lifted(vendor, peer):
    there = peer(reply(429, b'{"errors": [{"message": "too many"}]}', [f'X-RateLimit-Reset: {int(time.time()) + 60}']))
    with pytest.raises(Throttled) as caught:
        vendor(there).send(mail())
    assert caught.value.retry_after is not None
    assert 30 < caught.value.retry_after <= 61


def test_a_failure_is_an_outage(vendor, peer):
    with pytest.raises(PeerFailure):
        vendor(peer(reply(503, b'busy'))).send(mail())


@pytest.mark.parametrize('body, bounced', [(b'[]', False), (b'[{"email": "x", "reason": "550"}]', True)])
def test_an_address_that_is_listed_has_bounced(vendor, peer, body, bounced):
    there = peer(reply(200, body))
    assert vendor(there).bounced('a/../b?c#d+e%@example.com') is bounced
    assert there.requests[0].target == '/v3/suppression/bounces/a%2F..%2Fb%3Fc%23d%2Be%25@example.com'


def test_options_that_are_missing_are_told(api):
    with pytest.raises(Misconfigured) as caught:
        Vendor({'from_email': 'shop'}, api)
    assert caught.value.problems == (
        'EMAIL_OPTIONS[from_email] must be a mail address such as shop@example.com',
        'EMAIL_OPTIONS[api_key] is not set')
