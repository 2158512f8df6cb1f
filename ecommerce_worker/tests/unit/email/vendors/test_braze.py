"""Mail through Braze, against a stand-in that keeps profiles and the documented limits: who is mailed, what is said."""

import json
import logging
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from ecommerce_worker.clients.http import Api
from ecommerce_worker.configuration import base
from ecommerce_worker.email.message import Attachment, Email, Purpose
from ecommerce_worker.email.vendors.braze import REQUIRED, Recipient, Vendor, parts
from ecommerce_worker.errors import (
    Misconfigured,
    NotFound,
    PeerFailure,
    Rejected,
    Throttled,
    Unauthorized,
    Unreachable,
)
from ecommerce_worker.retry import Regular
from ecommerce_worker.testing.peer import Reply, reply

EXPORT, ALIAS, TRACK, SEND = '/users/export/ids', '/users/alias/new', '/users/track', '/messages/send'
IDENTIFY, TRIGGER, BOUNCES = '/users/identify', '/campaigns/trigger/send', '/email/hard_bounces'

ANN, BOB, CEM = 'ann@learn.example', 'bob@learn.example', 'cem@learn.example'
CROWD = tuple(f'n{number}@learn.example' for number in range(60))

NUDGE = Email(Purpose.NUDGE, (ANN,), 'Your code waits', '<p>It waits.</p>', sender_alias="O'Reilly, Inc.", id='task-1')
USAGE = Email(Purpose.USAGE, (ANN, BOB, CEM), 'Codes used', '<p>Six of ten.</p>', id='task-2')
CAMPAIGN = Email(Purpose.USAGE, (ANN, BOB), 'Codes used', '<p>rendered</p>', variables={'used': 6},
                 campaign_id='cid-1', lms_user_ids={ANN: 11}, id='task-3')


def ours(address):
    return {'alias_label': 'Enterprise', 'alias_name': address}


def older(address):
    return {'alias_label': address, 'alias_name': 'Enterprise'}


def profile(email='', external_id='', *aliases):
    return {'external_id': external_id, 'email': email, 'user_aliases': list(aliases)}


class Refused(Exception):
    pass


@dataclass
class Braze:
    """A workspace: answers the REST API, remembers who was mailed."""

    profiles: list[dict[str, Any]] = field(default_factory=list)
    #: Addresses that its own validation does not take, and such that spoil a request that mails them.
    invalid: tuple[str, ...] = ()
    spoiling: tuple[str, ...] = ()
    bounced: tuple[str, ...] = ()
    #: Answers to give instead, by path.
    instead: dict[str, Reply] = field(default_factory=dict)
    mailed: Counter[str] = field(default_factory=Counter)
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def __call__(self, request):
        path = urlsplit(request.target).path
        given = json.loads(request.body) if request.body else parse_qs(urlsplit(request.target).query)
        self.asked.append((path, given))
        if request.headers.get('authorization') != 'Bearer rest-key':
            return self.answer(401, 'Invalid API Key')
        if request.method == 'POST' and request.headers['content-type'] != 'application/json':
            return self.answer(415, 'Bad media type')
        if path in self.instead:
            return self.instead[path]
        try:
            return self.answer(200 if path in (EXPORT, BOUNCES) else 201, **self.of(path, given))
        except Refused as error:
            return self.answer(400, str(error))

    def answer(self, status, message='success', **more):
        return reply(status, json.dumps({'message': message, **more}).encode())

    def of(self, path, given):
        return {EXPORT: self.export, ALIAS: self.new, TRACK: self.track, IDENTIFY: self.identify,
                SEND: self.send, TRIGGER: self.trigger, BOUNCES: self.bounces}[path](given)

    def paths(self):
        return [path for path, _ in self.asked]

    def said(self, path):
        """What was said in the only request to a path."""
        given, = (given for to, given in self.asked if to == path)
        return given

    def by_alias(self, alias):
        return next((it for it in self.profiles if alias in it['user_aliases']), None)

    def by_id(self, external_id):
        return next((it for it in self.profiles if it['external_id'] == external_id), None)

    def export(self, given):
        limit(given.get('user_aliases', ['one address']), 50)
        assert set(given['fields_to_export']) <= {'external_id', 'email', 'user_aliases'}
        asked = given.get('user_aliases', [])
        found = [it for it in self.profiles if any(alias in it['user_aliases'] for alias in asked)
                 or it['email'] == given.get('email_address', 'nobody')]
        # It leaves out what is empty.
        return {'users': [{key: value for key, value in it.items() if value} for it in found]}

    def new(self, given):
        limit(given['user_aliases'], 50)
        for alias in given['user_aliases']:
            if not self.by_alias(alias):
                self.profiles.append(profile('', '', alias))
        return {'aliases_processed': len(given['user_aliases'])}

    def track(self, given):
        limit(given['attributes'], 75)
        errors = []
        for index, one in enumerate(given['attributes']):
            if one['email'] in self.invalid:
                reason = f"'email' {one['email']} is not valid"
                errors.append({'type': reason, 'input_array': 'attributes', 'index': index})
            else:
                self.by_alias(one['user_alias'])['email'] = one['email']
        return {'errors': errors} if errors else {}

    def identify(self, given):
        limit(given['aliases_to_identify'], 50)
        for one in given['aliases_to_identify']:
            if found := self.by_alias(one['user_alias']):
                found['external_id'] = one['external_id']
        return {}

    def send(self, given):
        assert given['recipient_subscription_state'] == 'all'
        limit(given['external_user_ids'] + given['user_aliases'], 50)
        return self.mail([*map(self.by_id, given['external_user_ids']), *map(self.by_alias, given['user_aliases'])])

    def trigger(self, given):
        assert given['broadcast'] is False
        limit(given['recipients'], 50)
        found = []
        for one in given['recipients']:
            if 'external_user_id' in one:
                assert 'user_alias' not in one
                if not one.get('send_to_existing_only', True) and not self.by_id(one['external_user_id']):
                    self.profiles.append(profile('', one['external_user_id']))
                found.append(self.by_id(one['external_user_id']))
            else:
                assert 'send_to_existing_only' not in one
                found.append(self.by_alias(one['user_alias']))
            if found[-1]:
                found[-1]['email'] = one.get('attributes', {}).get('email', found[-1]['email'])
        return self.mail(found)

    def mail(self, found):
        addresses = {it['email'] for it in found if it and it['email']}
        if addresses & set(self.spoiling):
            raise Refused('No Recipients')
        self.mailed.update(addresses)
        return {'dispatch_id': 'dispatch-1'}

    def bounces(self, given):
        return {'emails': [{'email': it} for it in given['email'] if it in self.bounced]}


def limit(given, most):
    if not 0 < len(given) <= most:
        raise Refused('The max number of ids per request was exceeded')


def options(**given):
    return {**base.BRAZE, 'BRAZE_REST_API_KEY': 'rest-key', 'BRAZE_WEBAPP_API_KEY': 'app-1', **given}


@pytest.fixture
def vendor(peer, api):
    """The vendor at a stand-in, or at a peer."""
    def make(braze, **given):
        def connect(root, *, peer, signer):
            made = api(root, signer=signer)
            made.peer = peer
            return made

        root = braze if isinstance(braze, str) else peer(braze).url
        return Vendor(options(REST_API_URL=root, **given), connect)

    return make


# --- Mail with a body -----------------------------------------------------------------------------------------------


def test_somebody_unknown_gets_a_profile_and_the_mail(vendor):
    braze = Braze()
    receipt = vendor(braze).send(NUDGE)
    assert (receipt.id, receipt.left) == ('dispatch-1', ())
    assert braze.asked == [
        (EXPORT, {'email_address': ANN, 'fields_to_export': ['external_id', 'email', 'user_aliases']}),
        (ALIAS, {'user_aliases': [{'alias_label': 'Enterprise', 'alias_name': ANN}]}),
        (TRACK, {'attributes': [{'user_alias': {'alias_label': 'Enterprise', 'alias_name': ANN}, 'email': ANN,
                                 'is_enterprise_learner': 'true', '_update_existing_only': False}]}),
        (SEND, {'user_aliases': [{'alias_label': 'Enterprise', 'alias_name': ANN}], 'external_user_ids': [],
                'recipient_subscription_state': 'all',
                'messages': {'email': {
                    'app_id': 'app-1', 'subject': 'Your code waits', 'body': '<p>It waits.</p>',
                    'from': '"O\'Reilly, Inc." <edx-for-business-no-reply@info.edx.org>'}}}),
    ]
    assert braze.mailed == {ANN: 1}


def test_a_learner_is_mailed_by_the_external_id_whatever_other_profiles_have_the_address(vendor):
    braze = Braze([profile(ANN, '', ours(ANN)), profile(ANN, '42'), profile(BOB, '43')])
    vendor(braze).send(NUDGE)
    assert braze.paths() == [EXPORT, SEND]
    assert (braze.said(SEND)['external_user_ids'], braze.said(SEND)['user_aliases']) == (['42'], [])
    assert braze.mailed == {ANN: 1}


@pytest.mark.parametrize('alias, how_many', [
    (ours(ANN), 1), (older(ANN), 1), ({'alias_label': 'crm', 'alias_name': '7'}, 1), (ours(ANN), 3), (older(ANN), 3)])
def test_a_profile_with_an_alias_is_mailed_under_that_and_gets_no_sibling(vendor, alias, how_many):
    braze = Braze([profile(ANN, '', alias), profile(BOB, '', ours(BOB)), profile(CEM, '', ours(CEM))])
    vendor(braze).send(Email(Purpose.USAGE, USAGE.to[:how_many], 'Codes used', '<p>Six.</p>'))
    assert braze.paths() == [EXPORT, SEND]
    assert alias in braze.said(SEND)['user_aliases']
    assert braze.mailed == dict.fromkeys(USAGE.to[:how_many], 1)


def test_several_are_looked_up_in_one_request_and_only_the_unknown_get_profiles(vendor):
    braze = Braze([profile(ANN, '42', ours(ANN)), profile(BOB, '', ours(BOB))])
    assert vendor(braze).send(USAGE).left == ()
    assert braze.paths() == [EXPORT, ALIAS, TRACK, SEND]
    assert braze.said(EXPORT)['user_aliases'] == [*map(ours, USAGE.to), *map(older, USAGE.to)]
    assert braze.said(ALIAS) == {'user_aliases': [ours(CEM)]}
    assert [one['email'] for one in braze.said(TRACK)['attributes']] == [CEM]
    assert braze.said(SEND)['external_user_ids'] == ['42']
    assert braze.said(SEND)['user_aliases'] == [ours(BOB), ours(CEM)]
    assert braze.mailed == dict.fromkeys(USAGE.to, 1)


def test_one_look_up_serves_as_many_as_a_message_may_have(vendor):
    braze = Braze([profile(address, '', older(address)) for address in CROWD[:25]])
    vendor(braze).send(Email(Purpose.USAGE, CROWD[:25], 'Codes used', '<p>Six.</p>'))
    assert braze.paths() == [EXPORT, SEND]
    braze = Braze([profile(address, '', ours(address)) for address in CROWD[:50]])
    vendor(braze).send(Email(Purpose.USAGE, CROWD[:50], 'Codes used', '<p>Six.</p>'))
    assert braze.paths() == [EXPORT, SEND]


def test_more_than_fifty_are_left_for_another_message(vendor):
    braze = Braze()
    receipt = vendor(braze).send(Email(Purpose.USAGE, CROWD, 'Codes used', '<p>Six.</p>'))
    assert receipt.left == CROWD[50:]
    assert braze.paths() == [EXPORT, ALIAS, TRACK, SEND]
    assert braze.mailed == dict.fromkeys(CROWD[:50], 1)


@pytest.mark.parametrize('to', [(ANN,), (ANN, BOB)])
def test_a_profile_that_never_got_its_address_is_completed(vendor, to):
    braze = Braze([profile('', '', ours(ANN)), profile(BOB, '', ours(BOB))])
    vendor(braze).send(Email(Purpose.USAGE, to, 'Codes used', '<p>Six.</p>'))
    assert [one['email'] for one in braze.said(TRACK)['attributes']] == [ANN]
    assert len(braze.profiles) == 2
    assert braze.mailed == dict.fromkeys(to, 1)


def test_a_mail_that_is_sent_again_finds_the_profile_of_the_first_time(vendor):
    braze = Braze()
    mailer = vendor(braze)
    mailer.send(NUDGE)
    mailer.send(NUDGE)
    assert braze.paths() == [EXPORT, ALIAS, TRACK, SEND, EXPORT, SEND]
    assert len(braze.profiles) == 1


def test_addresses_are_compared_as_braze_does_in_lower_case(vendor):
    braze = Braze([profile(ANN, '', ours('Ann@learn.example')), profile(BOB, '', ours(BOB))])
    vendor(braze).send(Email(Purpose.USAGE, ('Ann@learn.example', BOB), 'Codes used', '<p>Six.</p>'))
    assert braze.paths() == [EXPORT, SEND]


def test_reply_to_attachments_campaign_and_variation_are_said_if_there_are_any(vendor):
    braze = Braze([profile(ANN, '42')])
    vendor(braze, ENTERPRISE_CODE_NUDGE_CAMPAIGN_ID='nudges', ENTERPRISE_CODE_NUDGE_MESSAGE_VARIATION_ID='variation',
           ENTERPRISE_CAMPAIGN_ID='any').send(
        Email(Purpose.NUDGE, (ANN,), 'Subject', '<p>Text</p>', reply_to='desk@shop.example',
              attachments=(Attachment('a.pdf', 'https://files.example/a.pdf'),)))
    said = braze.said(SEND)
    assert (said['campaign_id'], said['override_frequency_capping']) == ('nudges', True)
    content = said['messages']['email']
    assert content['message_variation_id'] == 'variation'
    assert content['reply_to'] == 'desk@shop.example'
    assert content['attachments'] == [{'file_name': 'a.pdf', 'url': 'https://files.example/a.pdf'}]
    assert content['from'] == 'EdX Support Team <edx-for-business-no-reply@info.edx.org>'


@pytest.mark.parametrize('purpose', list(Purpose))
def test_a_purpose_without_a_campaign_of_its_own_counts_under_the_general_one(vendor, purpose):
    braze = Braze([profile(ANN, '42')])
    vendor(braze, ENTERPRISE_CAMPAIGN_ID='any').send(Email(purpose, (ANN,), 'Subject', '<p>Text</p>'))
    assert (braze.said(SEND)['campaign_id'], braze.said(SEND)['override_frequency_capping']) == ('any', True)


def test_a_refund_is_mailed_with_its_rendered_body(vendor):
    braze = Braze([profile(ANN, '42')])
    vendor(braze).send(Email(Purpose.REFUND, (ANN,), 'Refund', '<p>9 EUR</p>', variables={'amount': '9 EUR'}))
    assert braze.said(SEND)['messages']['email']['body'] == '<p>9 EUR</p>'


def test_all_endpoints_but_one_are_where_the_settings_say(vendor):
    requests = []

    def server(request):
        requests.append((request.method, request.target))
        return reply(body=b'{"message": "success", "users": []}')

    vendor(server, EXPORT_ID_ENDPOINT='/v2/export', NEW_ALIAS_ENDPOINT='v2/alias', USERS_TRACK_ENDPOINT='/v2/track',
           MESSAGES_SEND_ENDPOINT='/v2/send').send(NUDGE)
    assert requests == [('POST', '/v2/export'), ('POST', '/v2/alias'), ('POST', '/v2/track'), ('POST', '/v2/send')]


def test_what_goes_over_the_wire_is_json_signed_with_the_rest_key(peer, vendor):
    server = peer(Braze([profile(ANN, '42')]))
    vendor(server.url).send(NUDGE)
    for request in server.requests:
        assert request.method == 'POST'
        assert request.headers['authorization'] == 'Bearer rest-key'
        assert request.headers['content-type'] == 'application/json'


# --- A campaign of Braze's ------------------------------------------------------------------------------------------


def test_a_campaign_mails_those_with_an_lms_id_and_those_without(vendor):
    braze = Braze()
    receipt = vendor(braze).send(CAMPAIGN)
    assert (receipt.id, receipt.left) == ('dispatch-1', ())
    assert braze.paths() == [EXPORT, ALIAS, TRACK, IDENTIFY, TRIGGER]
    assert braze.said(EXPORT)['email_address'] == BOB
    assert braze.said(ALIAS) == {'user_aliases': [ours(BOB)]}
    assert braze.said(IDENTIFY) == {'aliases_to_identify': [{'external_id': '11', 'user_alias': ours(ANN)}]}
    assert braze.said(TRIGGER) == {
        'campaign_id': 'cid-1', 'broadcast': False, 'trigger_properties': {'subject': 'Codes used', 'used': 6},
        'recipients': [
            {'external_user_id': '11', 'send_to_existing_only': False, 'trigger_properties': {},
             'attributes': {'user_alias': ours(ANN), 'email': ANN, '_update_existing_only': False}},
            {'user_alias': ours(BOB), 'trigger_properties': {}, 'attributes': {'email': BOB}},
        ],
    }
    assert braze.mailed == {ANN: 1, BOB: 1}


def test_a_campaign_looks_nobody_up_if_all_have_lms_ids(vendor):
    braze = Braze([profile(ANN, '', ours(ANN))])
    vendor(braze).send(Email(Purpose.USAGE, (ANN, BOB), variables={'used': 6}, campaign_id='cid-1',
                             lms_user_ids={ANN: 11, BOB: '12'}))
    assert braze.paths() == [IDENTIFY, TRIGGER]
    assert [it['external_id'] for it in braze.profiles] == ['11', '12']
    assert braze.mailed == {ANN: 1, BOB: 1}


def test_a_campaign_finds_learners_of_whom_the_shop_does_not_know_the_id(vendor):
    braze = Braze([profile(BOB, '43')])
    vendor(braze).send(CAMPAIGN)
    assert braze.said(TRIGGER)['recipients'][1] == {'external_user_id': '43', 'trigger_properties': {}}
    assert braze.mailed == {ANN: 1, BOB: 1}


def test_the_configured_campaign_is_for_messages_that_name_none(vendor):
    braze = Braze([profile(ANN, '42')])
    vendor(braze, ENTERPRISE_CODE_USAGE_API_TRIGGERED_CAMPAIGN_ID='configured').send(
        Email(Purpose.USAGE, (ANN,), variables={'used': 6}))
    assert braze.paths() == [EXPORT, TRIGGER]
    assert braze.said(TRIGGER)['campaign_id'] == 'configured'


@pytest.mark.parametrize('unset', ['', None])
def test_without_any_campaign_nothing_is_asked_and_the_setting_is_named(vendor, unset):
    braze = Braze()
    with pytest.raises(Misconfigured, match=r'BRAZE\[ENTERPRISE_CODE_USAGE_API_TRIGGERED_CAMPAIGN_ID\] is not set'):
        vendor(braze, ENTERPRISE_CODE_USAGE_API_TRIGGERED_CAMPAIGN_ID=unset).send(
            Email(Purpose.USAGE, (ANN,), variables={'used': 6}))
    assert braze.asked == []


def test_a_campaign_leaves_more_than_fifty_for_another_message(vendor):
    braze = Braze()
    receipt = vendor(braze).send(Email(Purpose.USAGE, CROWD, variables={'used': 6}, campaign_id='cid-1',
                                       lms_user_ids={address: number for number, address in enumerate(CROWD[:40], 1)}))
    assert receipt.left == CROWD[50:]
    assert braze.paths() == [EXPORT, ALIAS, TRACK, IDENTIFY, TRIGGER]
    assert braze.mailed == dict.fromkeys(CROWD[:50], 1)


# --- One bad address ------------------------------------------------------------------------------------------------


def test_an_address_that_braze_does_not_take_is_left_and_the_others_are_mailed(vendor):
    braze = Braze(invalid=(BOB,))
    assert vendor(braze).send(USAGE).left == (BOB,)
    assert braze.said(SEND)['user_aliases'] == [ours(ANN), ours(CEM)]
    assert braze.mailed == {ANN: 1, CEM: 1}


@pytest.mark.parametrize('email', [NUDGE, Email(Purpose.USAGE, (ANN,), variables={'used': 6}, campaign_id='cid-1')])
def test_an_address_that_braze_does_not_take_alone_is_refused_with_the_reason(vendor, email):
    braze = Braze(invalid=(ANN,))
    with pytest.raises(Rejected, match="'email' <address> is not valid"):
        vendor(braze).send(email)
    assert {SEND, TRIGGER}.isdisjoint(braze.paths())


@pytest.mark.parametrize('bad', range(5))
@pytest.mark.parametrize('with_ids', [False, True])
def test_one_who_spoils_the_whole_is_left_with_some_others_and_nobody_is_mailed_twice(vendor, bad, with_ids):
    to = CROWD[:5]
    braze = Braze(spoiling=(to[bad],))
    ids = dict(zip(to, range(1, 6), strict=True)) if with_ids else {}
    mailer = vendor(braze)
    email = Email(Purpose.USAGE, to, 'Codes used', '<p>Six.</p>', variables={'used': 6} if with_ids else {},
                  campaign_id='cid-1', lms_user_ids=ids)
    left = mailer.send(email).left
    assert to[bad] in left
    assert len(left) < len(to)
    assert braze.mailed == {address: 1 for address in to if address not in left}


def test_a_refusal_that_is_of_no_recipient_costs_seven_tries_at_the_most(vendor):
    braze = Braze([profile(address, '', ours(address)) for address in CROWD],
                  instead={SEND: reply(400, b'{"message": "Invalid Campaign ID"}')})
    with pytest.raises(Rejected, match=r'refuses it \(400\): Invalid Campaign ID'):
        vendor(braze).send(Email(Purpose.USAGE, CROWD, 'Codes used', '<p>Six.</p>'))
    assert braze.paths() == [EXPORT] + 7 * [SEND]


@pytest.mark.parametrize('length, sizes', [(1, [1]), (2, [2, 1, 1]), (3, [3, 2, 1, 1, 1, 1]),
                                           (5, [5, 3, 2, 2, 2, 1]), (50, [50, 25, 25, 13, 13, 13, 11])])
def test_the_parts_that_are_tried_cover_everybody(length, sizes):
    people = [Recipient(address) for address in CROWD[:length]]
    found = list(parts(people))
    assert [len(part) for part in found] == sizes
    assert {one.address for part in found[1:] or found for one in part} == set(CROWD[:length])


# --- Answers --------------------------------------------------------------------------------------------------------


def test_too_many_requests_are_an_outage_until_the_limit_is_lifted(vendor):
    limited = reply(429, b'{"message": "rate limited"}',
                    ['Date: Mon, 01 Mar 2021 12:00:00 GMT', 'X-RateLimit-Reset: 1614600042'])
    with pytest.raises(Throttled, match='rate limited') as caught:
        vendor(Braze(instead={EXPORT: limited})).send(NUDGE)
    assert caught.value.retry_after == 42
    assert Regular(10, 6).next_delay(caught.value, 1, 0) == 42


@pytest.mark.parametrize('status', [500, 502, 503, 504])
@pytest.mark.parametrize('path', [EXPORT, ALIAS, TRACK, SEND])
def test_a_failure_of_braze_is_tried_again_and_then_mails_once(vendor, status, path):
    braze = Braze(instead={path: reply(status, b'<html>')})
    mailer = vendor(braze)
    with pytest.raises(PeerFailure) as caught:
        mailer.send(NUDGE)
    assert mailer.policy.next_delay(caught.value, 1, 0) == 3600
    braze.instead.clear()
    mailer.send(NUDGE)
    assert braze.mailed == {ANN: 1}
    assert len(braze.profiles) == 1


@pytest.mark.parametrize('status, kind', [(400, Rejected), (401, Unauthorized), (403, Unauthorized), (404, NotFound),
                                          (413, Rejected)])
@pytest.mark.parametrize('path', [EXPORT, ALIAS, TRACK, SEND])
def test_a_refusal_carries_the_reason_of_braze_without_addresses(vendor, status, kind, path):
    body = json.dumps({'message': f'No such user {ANN}', 'errors': ['Code A', {'type': f'Code B {BOB}'}, 7]}).encode()
    with pytest.raises(kind) as caught:
        vendor(Braze(instead={path: reply(status, body)})).send(NUDGE)
    assert type(caught.value) is kind
    assert str(caught.value).endswith(f'({status}): No such user <address>; Code A; Code B <address>')
    assert caught.value.status == status


@pytest.mark.parametrize('answer, said', [
    (b'{"message": "Invalid Campaign ID"}', 'Invalid Campaign ID'),
    (b'{"message": "success-ish", "errors": "No Recipients"}', 'success-ish; No Recipients'),
    (b'{}', 'no reason given'),
])
def test_a_success_of_http_that_says_otherwise_is_a_refusal(vendor, answer, said):
    with pytest.raises(Rejected, match=f'does not accept it: {said}$'):
        vendor(Braze([profile(ANN, '42')], instead={SEND: reply(201, answer)})).send(NUDGE)


def test_queued_is_accepted_and_has_the_id_of_the_task(vendor):
    queued = Braze([profile(ANN, '42')], instead={SEND: reply(202, b'{"message": "queued"}')})
    assert vendor(queued).send(NUDGE).id == 'task-1'


def test_minor_errors_beside_a_success_are_one_line_without_contents(vendor, caplog):
    caplog.set_level(logging.DEBUG)
    said = json.dumps({'message': 'success', 'dispatch_id': 'd', 'errors': [f'{ANN} is unsubscribed', NUDGE.body]})
    receipt = vendor(Braze([profile(ANN, '42')], instead={SEND: reply(201, said.encode())})).send(NUDGE)
    assert receipt.id == 'd'
    line, = (it.getMessage() for it in caplog.records if it.name.startswith('ecommerce_worker'))
    assert line == 'Braze accepted a request with minor errors: endpoint=/messages/send'


@pytest.mark.parametrize('answer', [reply(201, b'<html>Sign in</html>'), reply(201, b'["success"]'),
                                    reply(201, b'{}', length=99), Reply([], close=True), reply(204, b'')])
def test_no_answer_to_the_mail_itself_may_mean_that_it_went_and_none_to_a_preparation_does_not(vendor, answer):
    for path, may_have_gone in ((SEND, True), (EXPORT, False), (ALIAS, False), (TRACK, False)):
        with pytest.raises((PeerFailure, Unreachable)) as caught:
            vendor(Braze(instead={path: answer})).send(NUDGE)
        assert caught.value.maybe_done is may_have_gone


def test_neither_errors_nor_logs_nor_reprs_hold_contents(vendor, caplog):
    caplog.set_level(logging.DEBUG)
    braze = Braze(invalid=(BOB,))
    mailer = vendor(braze)
    seen = [repr(mailer), repr(Recipient(ANN, '42')), repr(mailer.send(USAGE).id)]
    for path in (EXPORT, ALIAS, TRACK, SEND):
        for status in (400, 401, 429, 500):
            braze.instead = {path: reply(status, json.dumps({'message': f'bad: {ANN}'}).encode())}
            braze.profiles.clear()
            with pytest.raises((Rejected, Throttled, PeerFailure)) as caught:
                mailer.send(NUDGE)
            seen += [str(caught.value), repr(caught.value)]
    seen += [line.getMessage() for line in caplog.records if line.name.startswith('ecommerce_worker')]
    assert not re.search(r'learn\.example|waits|Six|Codes|rest-key|app-1', '\n'.join(seen))


# --- Bounces and settings -------------------------------------------------------------------------------------------


def test_a_bounce_is_asked_for_by_address(peer, vendor):
    server = peer(Braze(bounced=('a+b@learn.example',)))
    mailer = vendor(server.url)
    assert mailer.bounced('a+b@learn.example') is True
    assert mailer.bounced(ANN) is False
    assert [(it.method, it.target, it.body) for it in server.requests] == [
        ('GET', '/email/hard_bounces?email=a%2Bb%40learn.example', b''),
        ('GET', '/email/hard_bounces?email=ann%40learn.example', b'')]


def test_what_braze_refuses_to_tell_of_bounces_is_an_error(vendor):
    with pytest.raises(Unauthorized, match='no permission'):
        vendor(Braze(instead={BOUNCES: reply(403, b'{"message": "no permission"}')})).bounced(ANN)


def test_patience_is_what_the_settings_say(vendor):
    assert vendor(Braze()).policy == Regular(3600, 6)
    assert vendor(Braze(), BRAZE_RETRY_SECONDS=5, BRAZE_RETRY_ATTEMPTS=2).policy == Regular(5, 2)


@pytest.mark.parametrize('unset', ['', None])
def test_all_settings_that_are_missing_are_reported_at_once(unset):
    with pytest.raises(Misconfigured) as caught:
        Vendor(options(**dict.fromkeys(REQUIRED, unset)), Api)
    assert caught.value.problems == tuple(f'BRAZE[{name}] is not set' for name in REQUIRED)


def test_the_shipped_settings_lack_the_two_keys_only():
    with pytest.raises(Misconfigured) as caught:
        Vendor(base.BRAZE, Api)
    assert caught.value.problems == ('BRAZE[BRAZE_REST_API_KEY] is not set', 'BRAZE[BRAZE_WEBAPP_API_KEY] is not set')
