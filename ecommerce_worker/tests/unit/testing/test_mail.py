"""What the demonstration relies on in the stand-in for SendGrid: that our vendor takes it for the real one."""

import json
import time

import pytest
import requests

from ecommerce_worker.clients.http import Api
from ecommerce_worker.email.message import Email, Purpose, Receipt
from ecommerce_worker.email.vendors.sendgrid import Vendor
from ecommerce_worker.errors import NotFound, Rejected, Throttled, Unauthorized
from ecommerce_worker.testing.mail import API_KEY, MailService
from ecommerce_worker.testing.shop import read_calls

LIMITED = 'bob@acme.example'


@pytest.fixture
def service(tmp_path):
    with MailService(tmp_path / 'mail.jsonl', {LIMITED: 60}) as service:
        yield service


@pytest.fixture
def vendor(service):
    made = []

    def connect(root, *, peer, signer):
        made.append(Api(root, peer=peer, signer=signer))
        return made[-1]

    def make(api_key=API_KEY):
        return Vendor({'api_key': api_key, 'from_email': 'shop@example.com', 'api_url': service.url}, connect)

    yield make
    for api in made:
        api.close()


def mail(to='ann@acme.example'):
    return Email(Purpose.ASSIGNMENT, (to,), 'Your course awaits', '<p>S3CRET</p>', id='id-1')


def test_a_mail_is_accepted(service, vendor):
    assert vendor().send(mail()) == Receipt('id-1')
    call, = service.calls
    assert (call.mail, call.status) == ('id-1', 202)


def test_an_address_with_two_dots_in_a_row_is_refused_with_a_reason(service, vendor):
    with pytest.raises(Rejected) as raised:
        vendor().send(mail('eve..doe@acme.example'))
    assert str(raised.value) == 'SendGrid refuses it (400): Does not contain a valid address.'
    assert service.calls[0].status == 400


def test_what_is_too_much_is_refused_until_a_time_that_it_names(service, vendor):
    with pytest.raises(Throttled) as raised:
        vendor().send(mail(LIMITED))
    assert 50 < (raised.value.retry_after or 0) <= 61
    with pytest.raises(Throttled):
        vendor().send(mail(LIMITED))
    vendor().send(mail())
    assert [call.status for call in service.calls] == [429, 429, 202]


def test_what_was_too_much_is_accepted_when_that_time_has_come(tmp_path):
    with MailService(tmp_path / 'mail.jsonl', {LIMITED: 0.05}) as service:
        body = {'personalizations': [{'to': [{'email': LIMITED}]}], 'custom_args': {'id': 'id-1'}}

        def send():
            return requests.post(f'{service.url}v3/mail/send', json=body, timeout=60,
                                 headers={'Authorization': f'Bearer {API_KEY}'}).status_code

        assert send() == 429
        time.sleep(0.06)
        assert send() == 202


def test_only_mail_of_whoever_knows_the_key_is_taken(service, vendor):
    with pytest.raises(Unauthorized):
        vendor(api_key='guessed').send(mail())
    with pytest.raises(NotFound):
        vendor().bounced('ann@acme.example')
    assert service.calls == []


def test_the_log_has_nothing_of_what_is_in_a_mail(service, vendor):
    vendor().send(mail())
    text = service.log.read_text()
    assert [content for content in ('@', 'awaits', 'S3CRET', API_KEY) if content in text] == []
    assert read_calls(service.log) == service.calls
    assert json.loads(text)['mail'] == 'id-1'
