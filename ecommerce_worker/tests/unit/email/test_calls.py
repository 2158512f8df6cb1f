"""What each call asks for that a shop has ever published, and what is parked for nobody can tell."""

import base64
import contextlib
import json
from dataclasses import asdict, replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ecommerce_worker.broker.wire import Raw, read
from ecommerce_worker.email.calls import EMAIL, SAILTHRU, SHAPES, Resolved, checked, for_others, resolve
from ecommerce_worker.email.message import Attachment, Email, Purpose
from ecommerce_worker.errors import WrongArguments
from ecommerce_worker.tests.support.messages import MESSAGES

MAILS = [message for message in MESSAGES
            if message['task'] in SHAPES]

SITES = ('edX', 'mitx')
ANN, HELP, URL = 'ann@example.com', 'help@acme.example', 'https://learn.example.com/acme'
FILES = [{'file_name': 'a.pdf', 'url': 'https://files.example.com/a.pdf'}]
FILE = Attachment('a.pdf', 'https://files.example.com/a.pdf')
IDS = {'a@example.com': 11, 'b@example.com': None}
TEMPLATE = {'percent_usage': 80, 'total_limit': 100}

REFUND = 'send_course_refund_email'
ASSIGNMENT, UPDATE = 'send_offer_assignment_email', 'send_offer_update_email'
USAGE, NUDGE = 'send_offer_usage_email', 'send_code_assignment_nudge_email'
TRIGGERED = 'send_api_triggered_offer_usage_email'


def assignment(**fields):
    return Email(Purpose.ASSIGNMENT, (ANN,), 'Your code', '<p>ABC</p>', offer_assignment_id=7, **fields)


def update(**fields):
    return Email(Purpose.UPDATE, (ANN,), 'Your code', '<p>ABC</p>', **fields)


def nudge(**fields):
    return Email(Purpose.NUDGE, (ANN,), 'Your code', '<p>ABC</p>', **fields)


def usage(**fields):
    return Email(Purpose.USAGE, ('a@example.com', 'b@example.com'), 'Usage', '<p>80 %</p>', **fields)


def triggered(**fields):
    return Email(Purpose.USAGE, ('a@example.com', 'b@example.com'), 'Usage', variables=TEMPLATE,
                 lms_user_ids={'a@example.com': 11}, **fields)


def refund(**fields):
    return Email(Purpose.REFUND, (ANN,), variables={
        'refund_id': 12, 'amount': 'US$49.00', 'course_name': 'Café 101', 'order_number': 'EDX-1', 'order_url': URL,
    }, **fields)


#: What every call of a mail begins with.
HEADS = {
    assignment: (ANN, 7, 'Your code', '<p>ABC</p>'),
    update: (ANN, 'Your code', '<p>ABC</p>'),
    nudge: (ANN, 'Your code', '<p>ABC</p>'),
    usage: ('a@example.com,b@example.com', 'Usage', '<p>80 %</p>'),
    triggered: (IDS, 'Usage', TEMPLATE),
    refund: (ANN, 12, 'US$49.00', 'Café 101', 'EDX-1', URL),
}

ACME = {'sender_alias': 'Acme Inc.'}
AT_URL = {'base_enterprise_url': URL}

# -- what the shop sent -----------------------------------------------------------------------------------------------

#: From which day, which task, which mail, what stood after its head, by keyword what, what is asked for beyond it.
CALLS = [
    ('2017-02-02', SAILTHRU + REFUND, refund, (), {'site_code': 'edX'}, {'site_code': 'edX'}),

    ('2018-11-27', SAILTHRU + ASSIGNMENT, assignment, (), {}, {}),
    ('2020-10-06', SAILTHRU + ASSIGNMENT, assignment, (URL,), {}, AT_URL),
    ('2020-10-07', SAILTHRU + ASSIGNMENT, assignment, (), AT_URL, AT_URL),
    ('2020-10-09', SAILTHRU + ASSIGNMENT, assignment, (None, URL), {}, AT_URL),
    ('2021-01-22', SAILTHRU + ASSIGNMENT, assignment, ('Acme Inc.', None, URL), {}, ACME | AT_URL),
    ('2021-05-07', EMAIL + ASSIGNMENT, assignment, ('Acme Inc.',), AT_URL, ACME | AT_URL),
    ('2021-05-27', EMAIL + ASSIGNMENT, assignment, ('Acme Inc.', HELP), AT_URL, ACME | AT_URL | {'reply_to': HELP}),
    ('2021-09-27', EMAIL + ASSIGNMENT, assignment, ('Acme Inc.', HELP), AT_URL | {'attachments': FILES},
     ACME | AT_URL | {'reply_to': HELP, 'attachments': (FILE,)}),

    ('2019-01-03', SAILTHRU + UPDATE, update, (), {}, {}),
    ('2021-01-22', SAILTHRU + UPDATE, update, ('Acme Inc.',), {}, ACME),
    ('2021-03-19', SAILTHRU + UPDATE, update, ('Acme Inc.', URL), {}, ACME | AT_URL),
    ('2021-05-07', EMAIL + UPDATE, update, ('Acme Inc.',), {}, ACME),
    ('2021-05-07', EMAIL + UPDATE, update, ('Acme Inc.',), AT_URL, ACME | AT_URL),
    ('2021-05-27', EMAIL + UPDATE, update, ('Acme Inc.', HELP), {}, ACME | {'reply_to': HELP}),
    ('2021-09-27', EMAIL + UPDATE, update, ('Acme Inc.', HELP), AT_URL | {'attachments': []},
     ACME | AT_URL | {'reply_to': HELP}),

    ('2020-07-13', SAILTHRU + USAGE, usage, (), {}, {}),
    ('2021-05-07', EMAIL + USAGE, usage, (), {}, {}),
    ('2022-06-23', EMAIL + USAGE, triggered, (), {}, {}),
    ('2022-06-24', EMAIL + USAGE, triggered, (), {'campaign_id': 'cid-1'}, {'campaign_id': 'cid-1'}),
    ('2022-06-30', EMAIL + USAGE, usage, (), {}, {}),

    ('2020-10-26', SAILTHRU + NUDGE, nudge, (), {}, {}),
    ('2021-03-04', SAILTHRU + NUDGE, nudge, ('Acme Inc.',), {}, ACME),
    ('2021-03-19', SAILTHRU + NUDGE, nudge, ('Acme Inc.',), AT_URL, ACME | AT_URL),
    ('2021-05-07', EMAIL + NUDGE, nudge, ('Acme Inc.',), AT_URL, ACME | AT_URL),
    ('2021-05-27', EMAIL + NUDGE, nudge, ('Acme Inc.', HELP), AT_URL, ACME | AT_URL | {'reply_to': HELP}),

    ('2022-07-05', EMAIL + TRIGGERED, triggered, (), {'campaign_id': 'cid-1'}, {'campaign_id': 'cid-1'}),
    # The configured campaign.
    ('2022-07-05', EMAIL + TRIGGERED, triggered, (), {'campaign_id': ''}, {}),
]


@pytest.mark.parametrize('day, task, mail, tail, kwargs, fields', CALLS,
                         ids=lambda it: it if isinstance(it, str) else None)
@pytest.mark.parametrize('sites', [(), SITES, ('Acme', URL, HELP)], ids=len)
def test_a_call_of_the_shop_means_what_it_meant(day, task, mail, tail, kwargs, fields, sites):
    assert resolve(task, (*HEADS[mail], *tail), kwargs, sites) == Resolved(mail(**fields))


@pytest.mark.parametrize('task, mail, tail, kwargs', [
    (EMAIL + ASSIGNMENT, assignment, (None, None), {'attachments': None, 'base_enterprise_url': None}),
    (EMAIL + ASSIGNMENT, assignment, ('', ''), {'attachments': [], 'base_enterprise_url': ''}),
    (EMAIL + UPDATE, update, (None, ''), {'attachments': (), 'site_code': None}),
    (EMAIL + UPDATE, update, (), {'attachments': '', 'site_code': ''}),
    (EMAIL + NUDGE, nudge, ('', None, None, None, None), {}),
    (EMAIL + NUDGE, nudge, ('', '', '', '', ''), {}),
    (EMAIL + USAGE, usage, (None, []), {}),
    (EMAIL + TRIGGERED, triggered, (None, None), {}),
    (SAILTHRU + ASSIGNMENT, assignment, (None,), {'sender_alias': ''}),
    (SAILTHRU + UPDATE, update, ('', None, None), {}),
])
def test_what_is_left_blank_is_as_if_it_were_not_there(task, mail, tail, kwargs):
    assert resolve(task, (*HEADS[mail], *tail), kwargs, SITES) == Resolved(mail())


@pytest.mark.parametrize('message', MAILS, ids=lambda message: f'{message["n"]} {message["source"]}')
def test_a_genuine_message_is_a_mail_that_can_be_sent(message):
    call = read(Raw(base64.b64decode(message['body_base64']), message['content_type'], message['content_encoding'],
                    message['headers'], {'correlation_id': message['correlation_id']}))
    found = resolve(call.task, call.args, call.kwargs)
    email, bad = checked(found.email)
    assert (found.remarks, bad) == ((), ())
    assert email.purpose in call.task
    assert email.to in {(ANN,), ('a@example.com', 'b@example.com')}
    in_the_call = [*call.args, *call.kwargs.values()]
    assert (email.base_enterprise_url == URL) == (URL in in_the_call)
    assert email.sender_alias == ('Acme Inc.' if 'Acme Inc.' in in_the_call else '')
    assert email.reply_to == (HELP if HELP in in_the_call else '')
    assert email.site_code == call.kwargs.get('site_code')
    assert email.attachments == ((FILE,) if FILES in in_the_call else ())
    assert email.campaign_id == call.kwargs.get('campaign_id', '')


def test_there_are_genuine_messages_of_most_tasks():
    assert len(SHAPES) == 10
    assert len({message['task'] for message in MAILS}) == 8


# -- what was documented ----------------------------------------------------------------------------------------------

#: The released signatures, as they were written.
SIGNATURES = {
    (SAILTHRU + REFUND, '0.6.0'): 'email, refund_id, amount, course_name, order_number, order_url, site_code',
    (SAILTHRU + ASSIGNMENT, '0.7.1'): 'user_email, offer_assignment_id, subject, email_body, site_code',
    (SAILTHRU + ASSIGNMENT, '0.8.7'):
        'user_email, offer_assignment_id, subject, email_body, site_code, base_enterprise_url',
    (SAILTHRU + ASSIGNMENT, '1.1.5'):
        'user_email, offer_assignment_id, subject, email_body, sender_alias, site_code, base_enterprise_url',
    (SAILTHRU + UPDATE, '0.7.1'): 'user_email, subject, email_body, site_code',
    (SAILTHRU + UPDATE, '1.1.5'): 'user_email, subject, email_body, sender_alias, site_code',
    (SAILTHRU + UPDATE, '1.1.12'): 'user_email, subject, email_body, sender_alias, site_code, base_enterprise_url',
    (SAILTHRU + USAGE, '0.7.3'): 'emails, subject, email_body, site_code',
    (SAILTHRU + USAGE, '1.1.12'): 'emails, subject, email_body, site_code, base_enterprise_url',
    (SAILTHRU + NUDGE, '0.10.0'): 'email, subject, email_body, site_code',
    (SAILTHRU + NUDGE, '1.1.10'): 'email, subject, email_body, sender_alias, site_code',
    (SAILTHRU + NUDGE, '1.1.12'): 'email, subject, email_body, sender_alias, site_code, base_enterprise_url',
    (EMAIL + ASSIGNMENT, '2.0.0'):
        'user_email, offer_assignment_id, subject, email_body, sender_alias, site_code, base_enterprise_url',
    (EMAIL + ASSIGNMENT, '2.1.0'):
        'user_email, offer_assignment_id, subject, email_body, sender_alias, reply_to, site_code, base_enterprise_url',
    (EMAIL + ASSIGNMENT, '2.2.0'):
        'user_email, offer_assignment_id, subject, email_body, sender_alias, reply_to, attachments, site_code, '
        'base_enterprise_url',
    (EMAIL + UPDATE, '2.0.0'): 'user_email, subject, email_body, sender_alias, site_code, base_enterprise_url',
    (EMAIL + UPDATE, '2.1.0'):
        'user_email, subject, email_body, sender_alias, reply_to, site_code, base_enterprise_url',
    (EMAIL + UPDATE, '2.2.0'):
        'user_email, subject, email_body, sender_alias, reply_to, attachments, site_code, base_enterprise_url',
    (EMAIL + NUDGE, '2.0.0'): 'email, subject, email_body, sender_alias, site_code, base_enterprise_url',
    (EMAIL + NUDGE, '2.1.0'): 'email, subject, email_body, sender_alias, reply_to, site_code, base_enterprise_url',
    (EMAIL + NUDGE, '2.2.0'):
        'email, subject, email_body, sender_alias, reply_to, attachments, site_code, base_enterprise_url',
    (EMAIL + USAGE, '2.0.0'): 'emails, subject, email_body, site_code, base_enterprise_url',
    (EMAIL + USAGE, '2.1.0'): 'emails, subject, email_body, reply_to, site_code, base_enterprise_url',
    (EMAIL + USAGE, '2.2.0'): 'emails, subject, email_body, reply_to, attachments, site_code, base_enterprise_url',
    (EMAIL + USAGE, '3.2.0'): 'lms_user_ids_by_email, subject, email_body_variables, site_code, campaign_id',
    (EMAIL + USAGE, '3.3.0'): 'emails, subject, email_body, reply_to, attachments, site_code, base_enterprise_url',
    (EMAIL + TRIGGERED, '3.3.0'): 'lms_user_ids_by_email, subject, email_body_variables, site_code, campaign_id',
}

#: What a caller gives, by name, and what the mail then has.
GIVEN: dict[str, tuple[Any, dict[str, Any]]] = {
    'user_email': (ANN, {'to': (ANN,)}),
    'email': (ANN, {'to': (ANN,)}),
    'emails': ('a@example.com,b@example.com', {'to': ('a@example.com', 'b@example.com')}),
    'lms_user_ids_by_email': (IDS, {'to': ('a@example.com', 'b@example.com'), 'lms_user_ids': {'a@example.com': 11}}),
    'offer_assignment_id': (7, {'offer_assignment_id': 7}),
    'subject': ('Your code', {'subject': 'Your code'}),
    'email_body': ('<p>ABC</p>', {'body': '<p>ABC</p>'}),
    'email_body_variables': (TEMPLATE, {'variables': TEMPLATE}),
    'sender_alias': ('Acme Inc.', ACME),
    'reply_to': (HELP, {'reply_to': HELP}),
    'attachments': (FILES, {'attachments': (FILE,)}),
    'site_code': ('edX', {'site_code': 'edX'}),
    'base_enterprise_url': (URL, AT_URL),
    'campaign_id': ('cid-1', {'campaign_id': 'cid-1'}),
    'refund_id': (12, {}),
    'amount': ('US$49.00', {}),
    'course_name': ('Café 101', {}),
    'order_number': ('EDX-1', {}),
    'order_url': (URL, {'variables': refund().variables}),
}

PURPOSES = {REFUND: Purpose.REFUND, ASSIGNMENT: Purpose.ASSIGNMENT, UPDATE: Purpose.UPDATE, USAGE: Purpose.USAGE,
            NUDGE: Purpose.NUDGE, TRIGGERED: Purpose.USAGE}

signatures = pytest.mark.parametrize('task, names', [
    pytest.param(task, names.split(', '), id=f'{task} {version}') for (task, version), names in SIGNATURES.items()])


@signatures
def test_a_call_by_a_documented_signature_means_what_was_documented(task, names):
    expected = Email(PURPOSES[task.rpartition('.')[2]], **{
        field: value for name in names for field, value in GIVEN[name][1].items()})
    by_keyword = resolve(task, (), {name: GIVEN[name][0] for name in names}, SITES)
    assert by_keyword == Resolved(expected)
    if (task, names[3:]) not in AMBIGUOUS:
        assert resolve(task, [GIVEN[name][0] for name in names], {}, SITES).email == expected


#: Where the shop put the sender for years, the oldest signatures had the site.
AMBIGUOUS = [(SAILTHRU + UPDATE, ['site_code']), (SAILTHRU + NUDGE, ['site_code'])]


@pytest.mark.parametrize('task, mail', [(SAILTHRU + UPDATE, update), (SAILTHRU + NUDGE, nudge)])
def test_a_sender_that_is_also_called_as_a_site_is_one_and_is_remarked_on(task, mail):
    assert resolve(task, (*HEADS[mail], 'edX'), {}, SITES) == Resolved(
        mail(sender_alias='edX'), ('argument 4 is ambiguous: it was taken as sender_alias',))
    assert resolve(task, (*HEADS[mail], 'edX'), {}) == Resolved(mail(sender_alias='edX'))


@pytest.mark.parametrize('task, mail, sender', [
    (EMAIL + ASSIGNMENT, assignment, 'edX'), (EMAIL + UPDATE, update, 'edX'), (EMAIL + NUDGE, nudge, 'Learn@Acme'),
])
def test_a_sender_that_stood_in_one_place_only_is_beyond_doubt(task, mail, sender):
    for tail in [(sender,), (sender, ''), (sender, HELP), (sender, '', FILES)]:
        found = resolve(task, (*HEADS[mail], *tail), {}, SITES)
        assert (found.email.sender_alias, found.remarks) == (sender, ())


@pytest.mark.parametrize('task, mail, tail, fields', [
    # A link where the signature has the site.
    (SAILTHRU + UPDATE, update, (URL,), AT_URL),
    (SAILTHRU + NUDGE, nudge, (URL,), AT_URL),
    (SAILTHRU + NUDGE, nudge, ('Acme Inc.', URL), ACME | AT_URL),
    (SAILTHRU + USAGE, usage, (URL,), AT_URL),
    (SAILTHRU + ASSIGNMENT, assignment, ('edX', URL), {'site_code': 'edX'} | AT_URL),
    (EMAIL + USAGE, usage, (URL,), AT_URL),
    (EMAIL + UPDATE, update, ('Acme Inc.', URL), ACME | AT_URL),
    (EMAIL + UPDATE, update, ('Acme Inc.', HELP, URL), ACME | AT_URL | {'reply_to': HELP}),
    (EMAIL + UPDATE, update, ('Acme Inc.', HELP, FILES, URL),
     ACME | AT_URL | {'reply_to': HELP, 'attachments': (FILE,)}),
    # A site where the newest signature has something else.
    (SAILTHRU + ASSIGNMENT, assignment, ('edX',), {'site_code': 'edX'}),
    (EMAIL + ASSIGNMENT, assignment, ('Acme Inc.', 'edX'), ACME | {'site_code': 'edX'}),
    (EMAIL + ASSIGNMENT, assignment, ('Acme Inc.', HELP, 'edX'), ACME | {'reply_to': HELP, 'site_code': 'edX'}),
    (EMAIL + USAGE, usage, ('edX',), {'site_code': 'edX'}),
    # No site of ours, but nothing else that it could be.
    (EMAIL + NUDGE, nudge, ('Acme Inc.', HELP, 'other'), ACME | {'reply_to': HELP, 'site_code': 'other'}),
    (EMAIL + TRIGGERED, triggered, ('other', 'cid-1'), {'site_code': 'other', 'campaign_id': 'cid-1'}),
    (SAILTHRU + USAGE, usage, ('other', 'acme'), {'site_code': 'other', 'base_enterprise_url': 'acme'}),
    (EMAIL + USAGE, usage, (HELP, tuple(FILES)), {'reply_to': HELP, 'attachments': (FILE,)}),
])
def test_what_nobody_sent_is_told_by_its_look(task, mail, tail, fields):
    assert resolve(task, (*HEADS[mail], *tail), {}, SITES) == Resolved(mail(**fields))


@pytest.mark.parametrize('task, mail, tail, fields, remarks', [
    (SAILTHRU + ASSIGNMENT, assignment, ('Acme Inc.',), ACME,
     ['argument 5 is ambiguous: it was taken as sender_alias']),
    (SAILTHRU + ASSIGNMENT, assignment, ('Acme Inc.', 'edX'), ACME | {'site_code': 'edX'},
     ['argument 5 is ambiguous: it was taken as sender_alias']),
    (EMAIL + UPDATE, update, ('Acme Inc.', 'other'), ACME,
     ['argument 5 is ambiguous: it was taken as reply_to',
      'left out reply_to, which is not a mail address']),
])
def test_what_could_be_anything_follows_the_newest_signature_and_is_remarked_on(task, mail, tail, fields, remarks):
    assert resolve(task, (*HEADS[mail], *tail), {}, SITES) == Resolved(mail(**fields), tuple(remarks))


# -- keywords ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('task, mail, kwargs, fields', [
    (SAILTHRU + ASSIGNMENT, assignment, {'user_email': ANN, 'offer_id': 7, 'subject': 'Your code',
                                         'email_body': '<p>ABC</p>'}, {}),
    (SAILTHRU + USAGE, usage, {'emails': 'a@example.com,b@example.com', 'subject': 'Usage',
                               'email_body': '<p>80 %</p>', 'base_enteprise_url': URL}, AT_URL),
])
def test_arguments_are_known_by_their_former_names_too(task, mail, kwargs, fields):
    assert resolve(task, (), kwargs) == Resolved(mail(**fields))


def test_arguments_of_unknown_names_are_ignored_and_remarked_on():
    found = resolve(EMAIL + UPDATE, HEADS[update], {'email': 'x@example.com', 'priority': 7, 'offer_id': 1,
                                                    'ann@example.com\nx' + 'y' * 99: 1})
    assert found == Resolved(update(), (
        f'ignored unknown arguments: email, priority, offer_id, <address> x{"y" * 29}',))


def test_a_flood_of_unknown_names_is_one_short_remark():
    found = resolve(EMAIL + UPDATE, HEADS[update], {f'{number}{"x" * 100_000}': 1 for number in range(100)})
    assert found.email == update()
    assert len(found.remarks) == 1
    assert len(found.remarks[0]) < 500


@pytest.mark.parametrize('task, args, kwargs, name', [
    (EMAIL + UPDATE, HEADS[update], {'subject': 'Other'}, 'subject'),
    (EMAIL + UPDATE, HEADS[update], {'subject': ''}, 'subject'),
    (EMAIL + UPDATE, (*HEADS[update], 'Acme Inc.'), ACME, 'sender_alias'),
    (SAILTHRU + UPDATE, (*HEADS[update], 'Acme Inc.', URL), AT_URL, 'base_enterprise_url'),
    (EMAIL + UPDATE, HEADS[update], AT_URL | {'base_enteprise_url': URL}, 'base_enterprise_url'),
    (EMAIL + ASSIGNMENT, HEADS[assignment], {'offer_id': 7}, 'offer_assignment_id'),
    (EMAIL + ASSIGNMENT, (*HEADS[assignment], 'Acme Inc.', 'edX', 'mitx'), {}, 'site_code'),
    (EMAIL + USAGE, HEADS[triggered], {'lms_user_ids_by_email': IDS}, 'lms_user_ids_by_email'),
])
def test_a_call_with_two_values_for_one_argument_is_parked(task, args, kwargs, name):
    with pytest.raises(WrongArguments, match=f'^the call has two values for {name}$'):
        resolve(task, args, kwargs, SITES)


@pytest.mark.parametrize('task, args, kwargs, names', [
    (SAILTHRU + REFUND, (ANN, 12), {'order_url': URL}, 'amount, course_name, order_number'),
    (EMAIL + ASSIGNMENT, (ANN,), {'email': ANN}, 'offer_assignment_id, subject, email_body'),
    (EMAIL + ASSIGNMENT, (), {'email': ANN, 'offer_id': 7, 'subject': 'x', 'email_body': 'x'}, 'user_email'),
    (EMAIL + USAGE, (), {}, 'emails, subject, email_body'),
    (EMAIL + USAGE, (IDS,), {}, 'subject, email_body_variables'),
    (EMAIL + TRIGGERED, (), {'emails': ANN}, 'lms_user_ids_by_email, subject, email_body_variables'),
])
def test_a_call_that_lacks_something_is_parked(task, args, kwargs, names):
    with pytest.raises(WrongArguments, match=f'^the call lacks {names}$'):
        resolve(task, args, kwargs)


@pytest.mark.parametrize('task', SHAPES)
def test_a_call_with_more_arguments_than_ever_is_parked(task):
    with pytest.raises(WrongArguments, match='too many arguments'):
        resolve(task, [''] * (max(len(shape.newest) for shape in SHAPES[task]) + 1), {})


def test_a_task_that_sends_no_mail_has_no_shape():
    with pytest.raises(KeyError):
        resolve(SAILTHRU + 'update_course_enrollment', (), {})


# -- values -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('text, to', [
    ('a@example.com', ('a@example.com',)),
    (' a@example.com , b@example.com\n', ('a@example.com', 'b@example.com')),
    (',a@example.com,, ,b@example.com,', ('a@example.com', 'b@example.com')),
    ('b@example.com,a@example.com,b@example.com', ('b@example.com', 'a@example.com')),
    ('a@Example.com,a@example.COM,A@example.com', ('a@Example.com', 'A@example.com')),
    ('', ()),
    (' , ', ()),
])
def test_recipients_come_in_one_text_and_are_mailed_once_each_in_their_order(text, to):
    assert resolve(EMAIL + USAGE, (text, 'Usage', 'x'), {}).email.to == to


@pytest.mark.parametrize('ids, to, lms_user_ids', [
    ({' a@example.com ': 11, 'b@example.com': '12'}, ('a@example.com', 'b@example.com'),
     {'a@example.com': 11, 'b@example.com': '12'}),
    ({'a@example.com': None, 'b@example.com': ''}, ('a@example.com', 'b@example.com'), {}),
    ({'a@example.com': None, 'a@Example.com': 11}, ('a@example.com',), {'a@example.com': 11}),
    ({'a@example.com': 11, 'a@Example.com': None}, ('a@example.com',), {'a@example.com': 11}),
    ({'': 1, 'a@example.com': 2}, ('a@example.com',), {'a@example.com': 2}),
    ({}, (), {}),
])
def test_recipients_come_with_their_ids(ids, to, lms_user_ids):
    email = resolve(EMAIL + TRIGGERED, (ids, 'Usage', TEMPLATE), {}).email
    assert (email.to, email.lms_user_ids) == (to, lms_user_ids)


def test_one_recipient_is_not_several():
    assert resolve(EMAIL + UPDATE, (f' {ANN},b@example.com ', 'x', 'x'), {}).email.to == (f'{ANN},b@example.com',)


def test_variables_are_such_as_json_has():
    variables = {'a': Decimal('49.00'), 'b': [1, (2.5, None)], 'c': {'d': True}, 'e': 'Café'}
    email = resolve(EMAIL + TRIGGERED, (IDS, 'Usage', variables), {}).email
    assert email.variables == {'a': '49.00', 'b': [1, [2.5, None]], 'c': {'d': True}, 'e': 'Café'}


def test_blanks_around_a_link_and_a_number_mean_nothing():
    files = [{'file_name': 'a.pdf', 'url': f' {FILE.url}\n'}]
    email = resolve(EMAIL + ASSIGNMENT, (ANN, ' 7 ', 'Your code', 'x'), {'attachments': files}).email
    assert (email.offer_assignment_id, email.attachments) == ('7', (FILE,))


def test_an_amount_may_be_bare():
    email = resolve(SAILTHRU + REFUND, (ANN, '12', Decimal('49.00'), 'Café 101', 'EDX-1', URL), {}).email
    assert email.variables == {**refund().variables, 'refund_id': '12', 'amount': '49.00'}


@pytest.mark.parametrize('reply_to, kept', [
    (f' {HELP} ', HELP), ('help', ''), (f'Help <{HELP}>', ''), (f'{HELP}\nBcc: {ANN}', ''), (f'{HELP},{ANN}', ''),
])
def test_a_reply_address_that_is_none_does_not_stop_the_mail(reply_to, kept):
    found = resolve(EMAIL + UPDATE, HEADS[update], {'reply_to': reply_to})
    assert found.email == update(reply_to=kept)
    assert found.remarks == (() if kept else ('left out reply_to, which is not a mail address',))


NO_TEXT = [7, 1.5, True, False, b'x', [], ['x'], {}, {'a': 1}, '\ud800']
WRONG: dict[str, list[Any]] = {
    'email': [None, *NO_TEXT], 'user_email': [None, *NO_TEXT], 'emails': [None, *NO_TEXT], 'subject': [None, *NO_TEXT],
    'email_body': [None, *NO_TEXT], 'sender_alias': NO_TEXT, 'reply_to': NO_TEXT, 'site_code': NO_TEXT,
    'base_enterprise_url': NO_TEXT, 'campaign_id': NO_TEXT, 'amount': [None, *NO_TEXT],
    'course_name': [None, *NO_TEXT], 'order_number': [None, *NO_TEXT], 'order_url': [None, *NO_TEXT],
    'refund_id': [None, '', ' ', True, 1.5, b'1', [], 2 ** 63],
    'offer_assignment_id': [None, '', ' ', True, 1.5, b'1', {}, -2 ** 63],
    'lms_user_ids_by_email': [None, ANN, [ANN], {1: 2}, {b'a': 1}, {ANN: True}, {ANN: 1.5}, {ANN: -1}, {ANN: 'x'},
                              {ANN: '²'}, {ANN: []}, {ANN: b'1'}, {'\ud800': 1}, {None: None}],
    'email_body_variables': [None, 'x', [], [('a', 1)], {1: 2}, {'a': b'x'}, {'a': float('nan')}, {'a': {1, 2}},
                             {'a': {1: 2}}, {'a': ['\ud800']}, {'a': 2 ** 63}, {'a': object}, {'\ud800': 1},
                             {'a': [[[[[[[[[[1]]]]]]]]]]}],
    'attachments': ['x', 7, {}, FILES[0], ['x'], [None], [{}], [{'file_name': 'a'}], [{'url': URL}],
                    [{'file_name': 'a', 'url': None}], [{'file_name': 1, 'url': URL}], [*FILES, 7], True, b'x'],
}
WANTED = {name: next((task, names.split(', ')) for (task, _), names in reversed(SIGNATURES.items())
                     if name in names.split(', ')) for name in WRONG}


@pytest.mark.parametrize('name, value', [pytest.param(name, value, id=f'{name} {ascii(value)[:30]}')
                                         for name, values in WRONG.items() for value in values])
def test_a_value_of_the_wrong_kind_is_parked(name, value):
    task, names = WANTED[name]
    kwargs = {name: GIVEN[name][0] for name in names}
    with pytest.raises(WrongArguments, match=f'^{name} is not ') as caught:
        resolve(task, (), kwargs | {name: value})
    assert caught.value.__suppress_context__


# -- whatever comes ---------------------------------------------------------------------------------------------------

words = st.text(st.characters(exclude_categories=['Cs']), min_size=1)
addresses = st.sampled_from([ANN, 'a@example.com', 'a@Example.com', 'b@example.com', 'ünal@bücher.example'])
recipients = addresses | st.sampled_from(['nobody', 'a b@example.com', '@'])
links = st.sampled_from([URL, 'http://learn.example.com', 'ftp://x@y'])
VALUES = {
    'user_email': recipients,
    'email': recipients,
    'emails': st.lists(recipients, min_size=1).map(' ,'.join),
    'lms_user_ids_by_email': st.dictionaries(recipients, st.none() | st.integers(0, 99) | st.just('7'), min_size=1),
    'offer_assignment_id': st.integers(0, 99) | st.just('7'),
    'subject': words,
    'email_body': words,
    'email_body_variables': st.dictionaries(words, words | st.integers(-9, 9) | st.lists(st.floats(0, 1)), min_size=1),
    'sender_alias': words.filter(lambda text: '://' not in text)
    | st.sampled_from(['', 'Acme Inc.', 'Learn@Acme', None]),
    'reply_to': addresses | st.sampled_from(['', None]),
    'attachments': st.lists(st.fixed_dictionaries({'file_name': words, 'url': links})) | st.none(),
    'site_code': st.sampled_from([*SITES, '', None]),
    'base_enterprise_url': links | st.sampled_from(['', None]),
    'campaign_id': words | st.sampled_from(['', None]),
    'refund_id': st.integers(0, 99),
    'amount': words,
    'course_name': words,
    'order_number': words,
    'order_url': links,
}


@st.composite
def calls(draw):
    """A task, the names of one of its signatures in their order, and a value for each."""
    (task, _), names = draw(st.sampled_from(list(SIGNATURES.items())))
    return task, {name: draw(VALUES[name]) for name in names.split(', ')}


@given(calls(), st.data())
def test_a_historic_call_means_the_same_however_it_is_written(call, data):
    task, values = call
    names = list(values)
    by_position = data.draw(st.integers(0, len(names)))
    by_keyword = data.draw(st.permutations(names[by_position:]))
    # Where the shop's calls and a signature cannot be told apart, the shop is right.
    assume((task, names[3:by_position]) not in AMBIGUOUS or not values['site_code'])
    found = resolve(task, [values[name] for name in names[:by_position]],
                    {name: values[name] for name in by_keyword}, SITES)
    assert found.email == resolve(task, (), values, SITES).email


@given(calls(), st.data())
def test_a_mail_for_others_is_the_same_but_for_its_recipients(call, data):
    task, values = call
    email = resolve(task, (), values, SITES).email
    assume(email.body.strip() or email.variables)
    to = tuple(data.draw(st.lists(st.sampled_from(email.to), unique=True, min_size=1)))
    kwargs = for_others(email, task, to)
    again = resolve(task, (), json.loads(json.dumps(kwargs)), SITES)
    ids = {address: id_ for address, id_ in email.lms_user_ids.items() if address in to}
    assert again == Resolved(replace(email, to=to, lms_user_ids=ids))
    assert any(set(kwargs) <= set(shape.newest) for shape in SHAPES[task])


def test_a_call_for_others_has_the_newest_names_and_nothing_that_is_blank():
    email = resolve(SAILTHRU + ASSIGNMENT, (*HEADS[assignment], URL), {}).email
    assert for_others(email, SAILTHRU + ASSIGNMENT, (ANN,)) == {
        'user_email': ANN, 'offer_assignment_id': 7, 'subject': 'Your code', 'email_body': '<p>ABC</p>',
        'base_enterprise_url': URL}
    assert for_others(triggered(), EMAIL + USAGE, ('b@example.com',)) == {
        'lms_user_ids_by_email': {'b@example.com': None}, 'subject': 'Usage', 'email_body_variables': TEMPLATE}


MARK = '§'
marked = st.text(st.characters()).map(lambda text: MARK + text) | st.sampled_from(
    [f'{MARK}@example.com', f'https://{MARK}.example', MARK * 2, f'http://[{MARK}', f'{MARK},{MARK}a@b.example'])
scalars = st.none() | st.booleans() | st.integers() | st.floats() | marked | st.binary() | st.decimals()
anything = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(marked, inner), max_leaves=8)
attachments = st.lists(st.fixed_dictionaries({'file_name': anything, 'url': anything | links}))
arguments = (anything | addresses | attachments | st.dictionaries(addresses, anything)
             | st.sampled_from(['', *SITES, URL, 'x']))
NAMES = sorted({name for names in SIGNATURES.values() for name in names.split(', ')})
keywords = st.dictionaries(st.sampled_from([*NAMES, 'offer_id', 'base_enteprise_url', 'x', '']), arguments)


@given(st.sampled_from(list(SHAPES)), st.lists(arguments, max_size=10), keywords)
def test_whatever_comes_is_a_mail_that_can_be_written_or_is_parked_without_being_quoted(task, args, kwargs):
    said: list[str] = []
    try:
        found = resolve(task, args, kwargs, SITES)
        said += found.remarks
        json.dumps(asdict(found.email), allow_nan=False, ensure_ascii=False).encode()
        email, _ = checked(found.email)
        json.dumps(for_others(email, task, email.to), allow_nan=False)
    except WrongArguments as error:
        said.append(str(error))
    assert MARK not in ''.join(said)
    assert all(len(sentence) < 500 for sentence in said)


@given(calls(), st.data())
def test_a_call_with_one_strange_value_is_a_mail_or_is_parked(call, data):
    task, values = call
    kwargs = values | {data.draw(st.sampled_from(list(values))): data.draw(arguments)}
    with contextlib.suppress(WrongArguments):
        email, bad = checked(resolve(task, (), kwargs, SITES).email)
        assert email.to
        assert not set(email.to) & set(bad)
        assert set(email.lms_user_ids) <= set(email.to)


# -- fit to be sent ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('email', [
    assignment(), update(), nudge(), usage(), triggered(), refund(), refund(subject='Refunded', body='x'),
    update(attachments=(FILE,)), replace(usage(), body='', variables={'a': 1}),
])
def test_a_mail_with_all_that_it_needs_is_sent_as_it_is(email):
    assert checked(email) == (email, ())


@pytest.mark.parametrize('email, reason', [
    (replace(update(), to=()), 'the mail has no recipient'),
    (replace(update(), to=('nobody',)), 'no recipient is a valid mail address'),
    (replace(usage(), to=('a b@example.com', '@')), 'no recipient is a valid mail address'),
    (replace(update(), subject=''), 'the mail has no subject'),
    (replace(update(), subject=' \n'), 'the mail has no subject'),
    (replace(triggered(), subject=''), 'the mail has no subject'),
    (replace(update(), body=''), 'the mail is empty: it has neither a body nor variables'),
    (replace(update(), body=' \n'), 'the mail is empty: it has neither a body nor variables'),
    (replace(triggered(), variables={}), 'the mail is empty: it has neither a body nor variables'),
    (update(attachments=(FILE, Attachment('b', 'file:///etc/passwd'))),
     r'the link of attachment 2 is not an http\(s\) URL'),
])
def test_a_mail_that_nobody_could_be_sent_is_parked(email, reason):
    with pytest.raises(WrongArguments, match=f'^{reason}$'):
        checked(email)


def test_some_bad_addresses_do_not_sink_the_others():
    email = replace(triggered(), to=('nobody', 'a@example.com', 'x@', 'b@example.com'),
                    lms_user_ids={'nobody': 1, 'a@example.com': 11})
    assert checked(email) == (triggered(), ('nobody', 'x@'))


@pytest.mark.parametrize('url', [
    'https://files.example.com/a.pdf', 'http://files.example.com:8080/a%20b.pdf?Signature=x@y&z=1#p',
    'HTTPS://A.B-c.EXAMPLE',
    'https://bucket_name.s3.amazonaws.com/a', 'https://bücher.example/ä.pdf', 'https://xn--bcher-kva.example./a',
    'https://8.8.8.8/a', 'https://[2606:4700:4700::1111]:443/a', 'https://127.0.0.1.example.com/', 'https://local.example',
])
def test_a_link_to_a_public_host_is_fine(url):
    email = update(attachments=(Attachment('a', url),))
    assert checked(email) == (email, ())


NO_URL, NO_HTTP, NOT_PUBLIC = 'not a URL', r'not an http\(s\) URL', 'a host that is not on the Internet'
LINKS = {
    NO_URL: ['http://[::1', 'http://[x]/', 'http://a.example:x/', 'http://a.example:99999/', 'http://a..example/',
             'http://' + 'a' * 64 + '.example/'],
    NO_HTTP: ['', 'a.pdf', '/a.pdf', '//files.example.com/a', 'ftp://files.example.com/a', 'file:///etc/passwd',
              'javascript:alert(1)', 'data:text/html,x', 'http:///a', 'http://:80/', 'http://a.example:0/',
              'https:a.example'],
    'characters that are not allowed in a URL': [
        'http://files.example.com\\@127.0.0.1/', 'http://files.example.com/a b', 'https://files.exa\nmple.com/',
        'https://files.example.com/\x00', ' https://files.example.com/', 'https://files.example.com/\u202efdp'],
    'a user name or a password': ['https://ann@files.example.com/', 'https://ann:pw@files.example.com/a',
                                  'https://files.example.com@127.0.0.1/', 'https://@files.example.com/'],
    NOT_PUBLIC: [
        'http://localhost/', 'http://LOCALHOST:8000/', 'http://localhost./', 'http://a.localhost/', 'http://db/',
        'http://printer.local/', 'http://metadata.google.internal/', 'http://a.localdomain/', 'http://nas.home.arpa/',
        'http://127.0.0.1/', 'http://127.0.0.1./', 'http://127.8.8.8/', 'http://10.0.0.1/', 'http://172.16.0.1/',
        'http://192.168.1.1/', 'http://169.254.169.254/latest/meta-data', 'http://100.64.0.1/', 'http://0.0.0.0/',
        'http://0/', 'http://224.0.0.1/', 'http://240.0.0.1/', 'http://255.255.255.255/', 'http://192.0.2.1/',
        'http://2130706433/', 'http://0x7f000001/', 'http://0x7f.1/', 'http://017700000001/', 'http://0177.0.0.1/',
        'http://127.1/', 'http://127.0.0.0x1/', 'http://0x7f.0x0.0x0.0x1/', 'http://127.0.1/', 'http://256.256.256.256/',
        'http://①②⑦.0.0.1/', 'http://ⓛocalhost/', 'http://a.ⓁOCALHOST/', 'http://a。localhost/', 'http://127。0。0。1/',
        'http://a.b。localhost/', 'http://%31%32%37.0.0.1/', 'http://x.%6cocalhost/',
        'http://[::1]/', 'http://[::]/', 'http://[::ffff:127.0.0.1]/', 'http://[::ffff:7f00:1]/', 'http://[::7f00:1]/',
        'http://[::ffff:8.8.8.8]/', 'http://[fe80::1]/', 'http://[fe80::1%25eth0]/', 'http://[fc00::1]/',
        'http://[fd00:ec2::254]/', 'http://[fec0::1]/', 'http://[ff02::1]/', 'http://[2002:7f00:1::]/',
        'http://[2001::1]/', 'http://[2001:db8::1]/', 'http://[64:ff9b::7f00:1]/', 'http://[5f00::1]/',
    ],
}


@pytest.mark.parametrize('url, reason', [pytest.param(url, reason, id=ascii(url)[:60])
                                         for reason, urls in LINKS.items() for url in urls])
def test_a_link_that_nobody_should_follow_is_parked(url, reason):
    with pytest.raises(WrongArguments, match=f'^the link of attachment 1 .* {reason}$') as caught:
        checked(update(attachments=(Attachment('a', url),)))
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize('url', ['http://files.shop.internal/a', 'http://FILES.shop.internal./a', 'http://10.0.0.7/a'])
def test_a_link_to_a_host_that_the_operator_names_is_fine(url):
    email = update(attachments=(Attachment('a', url),))
    assert checked(email, ('files.shop.internal', '10.0.0.7'))[0] == email
    with pytest.raises(WrongArguments):
        checked(email, ('elsewhere.internal',))


@given(st.text() | st.text().map('http://'.__add__) | st.text('0123456789abcdefx.:[]@/%-').map('https://'.__add__))
def test_a_link_is_fine_or_is_parked(url):
    with contextlib.suppress(WrongArguments):
        checked(update(attachments=(Attachment('a', url),)))
