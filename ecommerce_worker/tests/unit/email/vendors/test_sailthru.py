"""Mail through Sailthru: the calls, who is mailed when some are refused, and what is not configured."""

from dataclasses import replace

import pytest

from ecommerce_worker.email.mailer import find
from ecommerce_worker.email.message import Attachment, Email, Purpose, Receipt
from ecommerce_worker.email.vendors.sailthru import OF_AN_ADDRESS, TEMPLATES, Vendor
from ecommerce_worker.errors import Misconfigured, PeerFailure, Rejected, Throttled, Transient, Unauthorized
from ecommerce_worker.retry import Regular
from ecommerce_worker.testing.peer import reply
from ecommerce_worker.tests.support.sailthru import Account, connecting, options, refusal

MAIL = Email(Purpose.ASSIGNMENT, ('ann@example.com',), 'A code', '<p>Hello</p>', sender_alias="O'Reilly, Inc.",
             base_enterprise_url='https://acme.example.com', offer_assignment_id=7, id='task-1')
USAGE = Email(Purpose.USAGE, ('ann@example.com', 'bob@example.com', 'cid@example.com'), 'Usage', '<p>80 %</p>',
              id='task-2')
REFUND = Email(Purpose.REFUND, ('ann@example.com',), 'Refund', '<p>not this</p>', id='task-3', variables={
    'amount': 'US$49.00', 'course_name': 'Café 101', 'order_number': 'EDX-100002',
    'order_url': 'http://shop.example.com/checkout/receipt/?order_number=EDX-100002'})


@pytest.fixture
def account():
    return Account()


@pytest.fixture
def vendor(peer, api, account):
    """The vendor at that account: ``vendor(SAILTHRU_RETRY_ATTEMPTS=3)``."""
    def make(**given):
        return Vendor(options(peer(account), **given), connecting(api))

    return make


def sent(account):
    """The calls of ``send``: to whom."""
    return [data['email'].split(',') for call, data in account.calls if call == 'POST send']


def test_the_vendor_is_found_by_its_name():
    assert find('sailthru') is Vendor


@pytest.mark.parametrize('purpose', [Purpose.ASSIGNMENT, Purpose.UPDATE, Purpose.NUDGE])
def test_a_mail_to_one_is_one_call(vendor, account, purpose):
    assert vendor().send(replace(MAIL, purpose=purpose)) == Receipt('id-of-ann@example.com')
    assert account.calls == [('POST send', {
        'template': 'Enterprise Portal Email', 'email': 'ann@example.com', 'options': {},
        'vars': {'subject': 'A code', 'email_body': '<p>Hello</p>', 'sender_alias': "O'Reilly, Inc.",
                 'base_enterprise_url': 'https://acme.example.com'}})]


def test_a_mail_to_several_is_one_call_with_all_of_them(vendor, account):
    assert vendor().send(USAGE) == Receipt('task-2')
    (call, data), = account.calls
    assert (call, data['email']) == ('POST send', 'ann@example.com,bob@example.com,cid@example.com')
    assert data['template'] == 'Offer Assignment Email'
    assert data['vars'] == {'subject': 'Usage', 'email_body': '<p>80 %</p>', 'sender_alias': 'EdX Support Team',
                            'base_enterprise_url': ''}


def test_a_usage_mail_with_variables_is_sent_as_the_body_that_was_made_of_them(vendor, account):
    vendor().send(replace(USAGE, variables={'offer': '{{ofr}}'}))
    assert account.calls[0][1]['vars']['email_body'] == '<p>80 %</p>'
    assert 'offer' not in account.calls[0][1]['vars']


def test_a_refund_has_its_own_template_and_variables(vendor, account):
    vendor().send(REFUND)
    (_, data), = account.calls
    assert data == {'template': 'Course Refund', 'email': 'ann@example.com', 'vars': REFUND.variables, 'options': {}}


@pytest.mark.parametrize('alias, shown', [
    ('', 'EdX Support Team'), ('  ', 'EdX Support Team'), ('Acme Inc.', 'Acme Inc.'),
    ('A\r\nBcc: eve@example.com', 'A Bcc: eve@example.com'), ('Ä & Ö\x00', 'Ä & Ö')])
def test_a_sender_and_a_subject_are_one_line(vendor, account, alias, shown):
    vendor().send(replace(MAIL, sender_alias=alias, subject=alias))
    assert account.calls[0][1]['vars']['sender_alias'] == shown
    assert account.calls[0][1]['vars']['subject'] == ' '.join(alias.replace('\x00', '').split())


def test_replies_go_where_the_shop_says(vendor, account):
    vendor().send(replace(MAIL, reply_to='help@acme.example.com'))
    vendor().send(replace(USAGE, reply_to='help@acme.example.com\r\nBcc: eve@example.com'))
    assert [data['options'] for _, data in account.calls] == [
        {'replyto': 'help@acme.example.com'}, {'replyto': 'help@acme.example.com Bcc: eve@example.com'}]


def test_attachments_are_links_below_the_body(vendor, account):
    vendor().send(replace(MAIL, attachments=(
        Attachment('<b>terms</b>.pdf', 'https://files.test/a?b=1&c="2"'), Attachment('', 'https://files.test/d'))))
    assert account.calls[0][1]['vars']['email_body'] == (
        '<p>Hello</p><p><a href="https://files.test/a?b=1&amp;c=&quot;2&quot;">&lt;b&gt;terms&lt;/b&gt;.pdf</a></p>'
        '<p><a href="https://files.test/d">https://files.test/d</a></p>')


# --- Who is mailed when some are refused ----------------------------------------------------------------------------


@pytest.mark.parametrize('to, left', [
    (('gone@example.com', 'ann@example.com', 'bob@example.com'), ('gone@example.com',)),
    (('ann@example.com', 'gone@example.com', 'bob@example.com'), ('gone@example.com',)),
    (('ann@example.com', 'gone@a.test', 'gone@b.test'), ('gone@a.test', 'gone@b.test')),
])
def test_one_bad_address_does_not_sink_the_others(vendor, account, to, left):
    receipt = vendor().send(replace(USAGE, to=to))
    assert receipt.left == left
    assert receipt.id == f'id-of-{next(address for address in to if address not in left)}'
    assert sent(account) == [list(to), *([address] for address in to)]


@pytest.mark.parametrize('code', sorted(OF_AN_ADDRESS))
def test_refusals_of_an_address_are_told_from_those_of_a_mail(vendor, account, code):
    account.refuse['POST send'] = lambda data: refusal(code) if 'bob' in data['email'] else None
    assert vendor().send(USAGE).left == ('bob@example.com',)


@pytest.mark.parametrize('code, kind', [(14, Rejected), (3, Unauthorized), (9, PeerFailure), (43, Throttled)])
def test_a_mail_that_is_refused_as_a_whole_is_not_tried_one_by_one(vendor, account, code, kind):
    account.refuse['POST send'] = refusal(code)
    with pytest.raises(kind):
        vendor().send(USAGE)
    assert sent(account) == [list(USAGE.to)]


def test_a_mail_to_one_who_is_refused_is_refused_after_one_call(vendor, account):
    with pytest.raises(Rejected, match='<address>') as caught:
        vendor().send(replace(MAIL, to=('gone@example.com',)))
    assert 'gone' not in str(caught.value)
    assert len(sent(account)) == 1


def test_a_mail_to_several_of_whom_all_are_refused_is_refused(vendor, account):
    with pytest.raises(Rejected, match='error 11'):
        vendor().send(replace(USAGE, to=('gone@a.test', 'gone@b.test')))


@pytest.mark.parametrize('code', [9, 43, 14])
def test_who_was_not_reached_any_more_is_left_and_nobody_is_mailed_twice(vendor, account, code):
    calls = []

    def third_call_fails(data):
        calls.append(data)
        return refusal(code) if len(calls) == 3 else None

    account.refuse['POST send'] = third_call_fails
    to = ('ann@example.com', 'bob@example.com', 'gone@example.com')
    receipt = vendor().send(replace(USAGE, to=to))
    assert receipt == Receipt('id-of-ann@example.com', ('bob@example.com', 'gone@example.com'))
    assert sent(account) == [list(to), ['ann@example.com'], ['bob@example.com']]


def test_an_outage_before_anybody_was_reached_is_one(vendor, account):
    account.refuse['POST send'] = lambda data: None if ',' in data['email'] or 'gone' in data['email'] else refusal(9)
    with pytest.raises(Transient):
        vendor().send(replace(USAGE, to=('gone@example.com', 'bob@example.com', 'cid@example.com')))
    assert sent(account)[1:] == [['gone@example.com'], ['bob@example.com']]


def test_a_mail_of_which_no_answer_came_may_have_been_sent(peer, api):
    server = peer(reply(body=b'{"send_id"', length=100))
    with pytest.raises(Transient) as caught:
        Vendor(options(server), connecting(api)).send(USAGE)
    assert caught.value.maybe_done
    assert len(server.requests) == 1


@pytest.mark.parametrize('answer', [b'{"send_id": ""}', b'{"send_id": null}', b'{"send_id": {"a": "b"}}', b'{"ok": 1}'])
def test_a_mail_without_a_name_of_sailthrus_has_that_of_its_task(vendor, account, answer):
    account.refuse['POST send'] = reply(body=answer)
    assert vendor().send(MAIL) == Receipt('task-1')


# --- What else it tells ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize('engagement, bounced', [('hardbounce', True), ('Hardbounce', True), ('new', False),
                                                 ('optout', False), (None, False)])
def test_an_address_that_does_not_exist_is_one_of_which_sailthru_says_so(vendor, account, engagement, bounced):
    account.users['ann@example.com'] = {'engagement': engagement}
    assert vendor().bounced('ann@example.com') is bounced
    assert account.calls == [('GET user', {'id': 'ann@example.com', 'key': 'email', 'fields': {'engagement': 1}})]


def test_mail_to_an_address_that_sailthru_does_not_know_has_not_come_back(vendor):
    assert vendor().bounced('ann@example.com') is False


@pytest.mark.parametrize('code, kind', [(3, Unauthorized), (11, Rejected), (9, PeerFailure)])
def test_whoever_asks_of_bounces_hears_of_errors(vendor, account, code, kind):
    account.refuse['GET user'] = refusal(code)
    with pytest.raises(kind):
        vendor().bounced('ann@example.com')


def test_patience_is_that_of_the_setting(vendor):
    assert vendor(SAILTHRU_RETRY_SECONDS=60, SAILTHRU_RETRY_ATTEMPTS=3).policy == Regular(60, 3)
    assert vendor().policy == Regular(3600, 6)


@pytest.mark.parametrize('purpose', list(Purpose))
@pytest.mark.parametrize('value', [None, '', ...], ids=['none', 'empty', 'missing'])
def test_a_kind_of_mail_without_a_template_is_a_misconfiguration_that_names_it(vendor, account, purpose, value):
    templates = {name: 'T' for name in TEMPLATES.values() if name != TEMPLATES[purpose]}
    if value is not ...:
        templates[TEMPLATES[purpose]] = value
    with pytest.raises(Misconfigured) as caught:
        vendor(templates=templates).send(replace(MAIL, purpose=purpose))
    assert f'SAILTHRU[templates][{TEMPLATES[purpose]}] is not set' in caught.value.problems[0]
    assert not account.calls


@pytest.mark.parametrize('value', [None, ''])
def test_credentials_that_are_missing_are_a_misconfiguration_from_the_start(vendor, value):
    with pytest.raises(Misconfigured) as caught:
        vendor(SAILTHRU_KEY=value, SAILTHRU_SECRET=value)
    assert caught.value.problems == ('SAILTHRU[SAILTHRU_KEY] is not set', 'SAILTHRU[SAILTHRU_SECRET] is not set')
