"""The mail tasks: every message that a shop has published is mailed, and nothing of it shows anywhere else."""

import base64
import email
import email.policy
import json
import logging

import pytest
from celery.exceptions import Ignore

from ecommerce_worker import runtime
from ecommerce_worker.braze.v1.client import get_braze_client
from ecommerce_worker.broker import topology
from ecommerce_worker.broker.notes import NOTES, Notes
from ecommerce_worker.broker.wire import Call, Raw, read
from ecommerce_worker.email.v1 import api, utils
from ecommerce_worker.email.v1.tasks import report_assignment_email
from ecommerce_worker.errors import Misconfigured
from ecommerce_worker.execution.delivery import DELIVERY, Delivery
from ecommerce_worker.sailthru.v1 import tasks as sailthru
from ecommerce_worker.testing.peer import reply
from ecommerce_worker.tests.support import keeping
from ecommerce_worker.tests.support.memory import taken
from ecommerce_worker.tests.support.messages import MESSAGES

QUEUE = 'ecommerce.email_marketing'
MAILS = [message for message in MESSAGES
            if '.fulfillment.' not in message['task']]
#: What nobody may read in a log, a header or an error.
CONTENTS = ('ann@example.com', 'bob@example.com', 'a@example.com', 'b@example.com', 'help@acme.example', 'Your code',
            'ABC123', 'S3CRET')


@pytest.fixture
def outbox(app, in_force, tmp_path):
    """The directory that mail is kept in."""
    in_force(EMAIL_OPTIONS=json.dumps({'directory': str(tmp_path)}), EMAIL_GIVE_UP_AFTER=100)
    return tmp_path


def mails(outbox):
    found = [email.message_from_bytes(file.read_bytes(), policy=email.policy.default)
             for file in sorted(outbox.glob('*.eml'))]
    return sorted(found, key=lambda mail: str(mail['To']))


def settled(task, call, raw=None, notes=None, redelivered=False):
    """Run the task as the worker does; what Celery hears of it."""
    delivery = Delivery(call, raw or Raw(b'raw', 'application/json', 'utf-8'), notes or Notes(queue=QUEUE), redelivered)
    task.push_request(**{DELIVERY: delivery, 'id': call.id})
    try:
        return keeping.settled(task, *call.args, **call.kwargs)
    finally:
        task.pop_request()


def called(task, *args, **kwargs):
    return settled(task, Call(task.name, 'id-1', args, kwargs))


def following(channel):
    """What was published: the task and its arguments."""
    found = []
    while (message := taken(channel, QUEUE)) is not None:
        found.append((message.headers['task'].rpartition('.')[2], json.loads(message.body)[1]))
    return found


def parked(channel):
    message = taken(channel, topology.PARKED)
    return message.headers[NOTES]['reason'] if message else None


# -- every message ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('message', MAILS, ids=lambda message: f'{message["n"]}-{message["task"][25:]}')
def test_every_mail_that_a_shop_has_asked_for_is_sent(outbox, channel, app, caplog, message):
    caplog.set_level(logging.DEBUG)
    raw = Raw(base64.b64decode(message['body_base64']), message['content_type'], message['content_encoding'],
              message['headers'] or {})
    call = read(raw)
    assert settled(app.tasks[call.task], call, raw) is None or 'update_course_enrollment' in call.task
    assert parked(channel) is None
    if 'update_course_enrollment' in call.task:
        assert mails(outbox) == []
        return
    sent, = mails(outbox)
    text = sent.get_body(('html',)).get_content()
    if 'refund' in call.task:
        assert 'US$49.00' in text
        assert 'Café 101' in text
    elif 'api_triggered' in call.task:
        assert '80' in text
    else:
        assert 'ABC123' in text
    assert [content for content in CONTENTS if content in caplog.text] == []
    for task, kwargs in following(channel):
        assert task == 'report_assignment_email'
        assert kwargs['offer_assignment_id'] == 7


@pytest.mark.parametrize('call, to, sender', [
    ((api.send_offer_assignment_email, 'ann@example.com', 7, 'Your code', '<p>ABC123</p>', "O'Reilly, Inc."),
     'ann@example.com', "O'Reilly, Inc."),
    ((sailthru.send_offer_assignment_email, 'ann@example.com', 7, 'Your code', '<p>ABC123</p>',
      'https://learn.example.com/acme'), 'ann@example.com', 'EdX Support Team'),
    ((sailthru.send_offer_update_email, 'ann@example.com', 'Your code', '<p>ABC123</p>', 'Acme Inc.',
      'https://learn.example.com/acme'), 'ann@example.com', 'Acme Inc.'),
], ids=['punctuation of a name', 'a URL for a site code', 'a URL for a site code again'])
def test_a_mail_says_who_it_is_from(outbox, call, to, sender):
    task, *args = call
    called(task, *args)
    sent, = mails(outbox)
    assert sent['To'].addresses[0].addr_spec == to
    assert sent['From'].addresses[0].display_name == sender


def test_what_a_newer_shop_says_is_passed_over_with_a_line_in_the_log(outbox, caplog):
    called(api.send_offer_update_email, 'ann@example.com', 'Your code', '<p>ABC123</p>', 'Acme', colour='S3CRET')
    assert len(mails(outbox)) == 1
    assert 'colour' in caplog.text
    assert 'S3CRET' not in caplog.text


# -- what follows -----------------------------------------------------------------------------------------------------

def test_the_shop_is_told_of_an_assignment_by_a_task_of_its_own(outbox, channel):
    called(api.send_offer_assignment_email, 'ann@example.com', 7, 'Your code', '<p>ABC123</p>', 'Acme', site_code='edx')
    file, = outbox.glob('*.eml')
    assert following(channel) == [
        ('report_assignment_email', {'offer_assignment_id': 7, 'send_id': file.name, 'site_code': 'edx'})]


def test_one_address_that_is_none_does_not_sink_the_others(outbox, channel):
    called(api.send_offer_usage_email, 'ann@example.com,nonsense,bob@example.com', 'Usage', '<p>ABC123</p>')
    assert len(mails(outbox)) == 1
    (task, kwargs), = following(channel)
    assert (task, kwargs['emails']) == ('send_offer_usage_email', 'nonsense')
    assert isinstance(called(api.send_offer_usage_email, **kwargs), Ignore)
    assert parked(channel) == 'no recipient is a valid mail address'


@pytest.mark.parametrize('changes, reason', [
    ({'user_email': ''}, 'has no recipient'),
    ({'user_email': 'nonsense'}, 'is a valid mail address'),
    ({'email_body': ' '}, 'is empty'),
    ({'subject': '\n'}, 'has no subject'),
    ({'attachments': [{'file_name': 'a', 'url': 'file:///etc/passwd'}]}, 'attachment 1'),
    ({'attachments': [{'file_name': 'a', 'url': 'http://127.0.0.1/S3CRET'}]}, 'attachment 1'),
], ids=lambda value: str(value)[:40])
def test_a_mail_that_cannot_be_sent_is_parked_with_the_reason(outbox, channel, caplog, changes, reason):
    call = {'user_email': 'ann@example.com', 'subject': 'Your code', 'email_body': 'ABC123', 'sender_alias': '',
            **changes}
    assert isinstance(called(api.send_offer_update_email, **call), Ignore)
    found = parked(channel)
    assert reason in found
    assert [content for content in CONTENTS if content in caplog.text + found] == []
    assert mails(outbox) == []


def test_mail_is_parked_where_nobody_sends_it(app, in_force, channel):
    in_force(EMAIL_WITHOUT_VENDOR='park')
    called(api.send_offer_update_email, 'ann@example.com', 'Your code', 'ABC123', '')
    assert 'set EMAIL_VENDOR' in parked(channel)


def test_a_vendor_that_is_down_is_waited_for(app, in_force, channel):
    in_force(EMAIL_VENDOR='smtp', EMAIL_OPTIONS="{'host': '127.0.0.1', 'port': 1, 'from_email': 'shop@example.com', "
                                                "'security': 'none'}")
    called(api.send_offer_update_email, 'ann@example.com', 'Your code', 'ABC123', '')
    message = taken(channel, QUEUE)
    assert message.headers[NOTES]['outages'] == 1
    assert [content for content in CONTENTS if content in str(message.headers)] == []


def test_called_directly_a_task_does_all_at_once(outbox, peer, in_force, tmp_path):
    shop = peer(reply(body=b'{"status": "updated"}'))
    in_force(ECOMMERCE_API_ROOT=shop.url, EMAIL_OPTIONS=json.dumps({'directory': str(tmp_path)}))
    api.send_offer_assignment_email('ann@example.com', 7, 'Your code', '<p>ABC123</p>', 'Acme')
    assert len(mails(tmp_path)) == 1
    assert shop.requests[0].target.endswith('assignment-email/status/')


# -- the report -------------------------------------------------------------------------------------------------------

UPDATED = b'{"offer_assignment_id": 7, "send_id": "d-1", "status": "updated", "error": ""}'


def test_a_report_says_what_was_accepted(app, in_force, peer):
    shop = peer(reply(body=UPDATED))
    in_force(ECOMMERCE_API_ROOT=shop.url)
    called(report_assignment_email, 7, 'd-1')
    request, = shop.requests
    assert (request.method, request.target) == ('POST', '/assignment-email/status/')
    assert json.loads(request.body) == {'offer_assignment_id': 7, 'send_id': 'd-1', 'status': 'success'}


def test_a_report_goes_to_the_shop_of_its_site(app, in_force, peer):
    shop, other = peer(reply(body=UPDATED)), peer(reply(body=UPDATED))
    in_force(ECOMMERCE_API_ROOT=other.url, SITE_OVERRIDES=json.dumps({'edx': {'ECOMMERCE_API_ROOT': shop.url}}))
    called(report_assignment_email, 7, 'd-1', site_code='edx')
    assert (len(shop.requests), len(other.requests)) == (1, 0)


@pytest.mark.parametrize('notes, redelivered, again', [
    ({}, False, True),
    ({'attempt': 3}, False, True),
    ({'unsure': True}, False, False),
    ({'redelivered': 1}, False, False),
])
def test_a_500_after_a_lost_answer_counts_as_said_already(app, in_force, peer, channel, notes, redelivered, again):
    in_force(ECOMMERCE_API_ROOT=peer(reply(500)).url)
    settled(report_assignment_email, Call(report_assignment_email.name, 'id-1', (7, 'd-1')),
            notes=Notes(queue=QUEUE, **notes), redelivered=redelivered)
    assert (taken(channel, QUEUE) is not None) is again


@pytest.mark.parametrize('body', [b'{"status": "failed"}', b'[]', b'{}', b'"updated"'])
def test_a_shop_that_does_not_say_that_it_noted_the_mail_is_asked_again(app, in_force, peer, channel, body):
    in_force(ECOMMERCE_API_ROOT=peer(reply(body=body)).url)
    called(report_assignment_email, 7, 'd-1')
    assert taken(channel, QUEUE) is not None


# -- the shop's own questions -----------------------------------------------------------------------------------------

def test_a_bounce_is_asked_of_the_vendor(in_force, peer):
    braze = peer(lambda request: reply(body=b'{"emails": [{"email": "x"}], "message": "success"}'
                                       if 'ann' in request.target else b'{"emails": [], "message": "success"}'))
    in_force(BRAZE=json.dumps({'BRAZE_ENABLE': True, 'BRAZE_REST_API_KEY': 'key', 'BRAZE_WEBAPP_API_KEY': 'app',
                               'REST_API_URL': braze.url}))
    assert api.did_email_bounce('ann@example.com') is True
    assert api.did_email_bounce('bob@example.com', site_code='edx') is False
    # As shops asked from February to May 2021.
    assert get_braze_client(site_code='edx', endpoint='/email/hard_bounces').did_email_bounce('ann@example.com') is True
    assert get_braze_client(site_code='edx').did_email_bounce('bob@example.com') is False


@pytest.mark.parametrize('answer, noted', [(b'{"status": "updated"}', True), (b'{"status": "failed"}', False)])
def test_the_historic_function_reports_an_assignment_to_the_shop(in_force, peer, answer, noted):
    in_force(ECOMMERCE_API_ROOT=peer(reply(body=answer)).url)
    assert utils.update_assignment_email_status(7, 'send-1', 'success') is noted
    assert utils.update_assignment_email_status(7, 'send-1', 'failure') is False
    assert utils.remove_special_characters_from_string("O'Reilly, Inc.") == 'OReilly Inc'


def test_a_bounce_cannot_be_known_where_nobody_sends_mail(in_force):
    in_force(EMAIL_WITHOUT_VENDOR='park')
    with pytest.raises(Misconfigured):
        api.did_email_bounce('ann@example.com')


def test_purchases_are_passed_over_where_sailthru_is_off(outbox, channel):
    assert 'SAILTHRU_ENABLE' in str(called(
        sailthru.update_course_enrollment, 'ann@example.com', 'https://lms.example.com/courses/x/', True, 'verified'))
    assert runtime.current().site().purchases is None
