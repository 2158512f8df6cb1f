"""What every source of deliveries keeps to; its vectors, and the libraries of senders as oracles."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, ClassVar

import pytest
import standardwebhooks
import stripe
from hypothesis import given
from hypothesis import strategies as st

from ecommerce_worker.intake.application import Application
from ecommerce_worker.intake.counts import Counts
from ecommerce_worker.intake.intakes import names
from ecommerce_worker.intake.signatures import code
from ecommerce_worker.intake.source import Delivery, Refused
from ecommerce_worker.testing.intake import SECRET, MemoryIntake, SourceContract
from ecommerce_worker.tests.support.intake import source_of

ANN: Any = {'email': 'ann@example.com', 'name': 'Ann'}


class TestShopify(SourceContract):
    kind, topic = 'shopify', 'orders/paid'
    options: ClassVar = {'source': 'mine.myshopify.com'}
    good: ClassVar = {'id': 820982911946154508, 'name': 'EDX-1', 'financial_status': 'paid', 'test': False,
                      'cancelled_at': None, 'customer': ANN, 'line_items': [{'sku': 'PY101', 'quantity': 1}]}
    ignored: ClassVar = [{**good, 'financial_status': 'pending'}, {**good, 'test': True},
                         {**good, 'cancelled_at': '2026-01-01T00:00:00Z'}]


class TestWooCommerce(SourceContract):
    kind, topic = 'woocommerce', 'order.updated'
    options: ClassVar = {'source': 'https://blog.example.com/'}
    good: ClassVar = {'id': 727, 'number': 'EDX-1', 'status': 'processing', 'date_paid_gmt': '2026-01-01T00:00:00',
                      'date_modified_gmt': '2026-01-01T00:00:01', 'billing': ANN}
    ignored: ClassVar = [{**good, 'status': 'on-hold'}, {**good, 'date_paid_gmt': None}]


class TestStripe(SourceContract):
    kind, topic, signs_time = 'stripe', 'checkout.session.completed', True
    good: ClassVar = {
        'id': 'evt_1', 'object': 'event', 'type': 'checkout.session.completed', 'livemode': True,
        'data': {'object': {'id': 'cs_1', 'client_reference_id': 'EDX-1', 'payment_status': 'paid',
                            'customer_details': ANN}}}
    ignored: ClassVar = [{**good, 'livemode': False}, {**good, 'type': 'customer.created'},
                         {**good, 'data': {'object': {'payment_status': 'unpaid'}}}]


class TestStandard(SourceContract):
    kind, topic, signs_time = 'standard', 'order.paid', True
    good: ClassVar = {'type': 'order.paid', 'timestamp': '2026-01-01T00:00:00Z',
                      'data': {'order_number': 'EDX-1', 'customer': ANN}}
    ignored: ClassVar = [{**good, 'type': 'order.created'}]


class TestHmac(SourceContract):
    kind, topic = 'hmac', 'order_paid'
    options: ClassVar = {'topic': 'X-Event', 'id': 'X-Delivery', 'header': 'X-Acme-Signature', 'prefix': 'v0=',
                         'digest': 'sha512', 'encoding': 'base64'}
    arguments: ClassVar = {'order_number': 'order.number'}
    good: ClassVar = {'order': {'number': 'EDX-1'}, 'customer': ANN}


class TestSubmit(SourceContract):
    kind, topic, signs = 'submit', 'order', False
    good: ClassVar = {'order_number': 'EDX-1', 'learner': ANN}
    called: ClassVar = good


def test_every_source_that_comes_with_the_worker_keeps_the_contract():
    assert {contract.kind for contract in SourceContract.__subclasses__()} >= set(names())


def is_genuine(kind: str, body: bytes, headers: dict[str, str], *secrets: str, now: float = 0.0) -> bool:
    """Whether a delivery verifies with one of these secrets."""
    source = source_of(kind)
    found = Delivery({name.lower(): value for name, value in headers.items()}, body, now or time.time())
    try:
        source.verify(found, [source.key(secret) for secret in secrets])
    except Refused:
        return False
    return True


JOERG = '{"email":"jörg@example.com"}'.encode()
JOERG_ESCAPED = b'{"email":"j\\u00f6rg@example.com"}'
SH_3, SH_4 = '2Imz10wrxdpH60/axW5v/AwI95Vj3p7A4CAbheV3c5M=', 'LjFEWR3er5fXwOWzlQAnHvXPtbiakzxMC2R5hwKQ96o='


@pytest.mark.parametrize('secret, body, code, genuine', [
    # Public: the test of another project's HMAC function.
    ('test-webhook-secret', b'{"id":1234567890,"email":"customer@example.com","total_price":"123.45"}',
     'QNyObTlKbMx2qDlPF/ZOZcBqg5OgPg+2oky3zldc0Gw=', True),
    ('hush', b'{"id":820982911946154508,"name":"#1001","financial_status":"paid","test":false}',
     '4RHZosIy4+HY7asFhllfy4oCPBZJoBxS73tFzCpOL84=', True),
    ('hush', JOERG, SH_3, True), ('hush', JOERG_ESCAPED, SH_4, True), ('hush', JOERG, SH_4, False),
])
def test_vectors_of_shopify(secret, body, code, genuine):
    for name in ('X-Shopify-Hmac-Sha256', 'Shopify-Hmac-Sha256'):
        assert is_genuine('shopify', body, {name: code}, secret) is genuine


WOO = b'{"id":727,"number":"727","status":"processing"}'


@pytest.mark.parametrize('secret, body, code, genuine', [
    ('secret', WOO, 'zDt5v2A9tKQCzxBs0ML0jBq2zbi+BxGcsi257yJA7Xk=', True),
    ('a&b', WOO, 'NLbXm5QmC4hPAT06oES0EWbpDvl/UjHQMHc3D/DZmu0=', True),
    ('a&amp;b', WOO, 'NLbXm5QmC4hPAT06oES0EWbpDvl/UjHQMHc3D/DZmu0=', True),
    ('a&amp;b', WOO, 'Po34wOs77LB+jhBxbeNImQrkOfFJVsQkgSwbzMZ/H6c=', False),
    ('secret', b'', '+eZuF5tnR65UEI+C+K3os8Jddv0wr95sOVgixTAZYWk=', True),
])
def test_vectors_of_woocommerce(secret, body, code, genuine):
    assert is_genuine('woocommerce', body, {'X-WC-Webhook-Signature': code}, secret) is genuine


STRIPE = b"""{
  "id": "evt_test_webhook",
  "object": "event",
  "data": { "object": { "id": "rdr_123", "object": "terminal.reader" } }
}"""
ST_1 = '07b1ede164afb7b5de91267ffa656f568c65d6e0783ce0ac55ee094643578eda'
ST_2 = '3bfab77baf5f7b6991a46c9b53b6547d7afc56148b10468fcad9f35c1992ffbd'
ST_3 = '6b8526f4a44bb7a817ad2cb8b27706b926c9b563164e8c1e15dab9acd8d51d57'
NOW = 1700000000


@pytest.mark.parametrize('header, secret, now, genuine', [
    (f't={NOW},v1={ST_2}', 'whsec_test_secret', NOW, True),
    (f't={NOW},v1={ST_2}', 'whsec_test_secret', NOW + 300, True),
    (f't={NOW},v1={ST_2}', 'whsec_test_secret', NOW + 301, False),
    (f't={NOW},v1={ST_2}', 'whsec_test_secret', NOW - 301, False),
    (f't=12345,v1={ST_1}', 'whsec_test_secret', 12345, True),
    (f't={NOW},v1={ST_3},v1={ST_2}', 'whsec_test_secret', NOW, True),
    (f't={NOW},v1={ST_3},v1={ST_2}', 'whsec_old_secret', NOW, True),
    (f't={NOW},v0={ST_2}', 'whsec_test_secret', NOW, False),
    (f'v1={ST_2}', 'whsec_test_secret', NOW, False), (f't=x,v1={ST_2}', 'whsec_test_secret', NOW, False),
    ('', 'whsec_test_secret', NOW, False), (',,=,=t', 'whsec_test_secret', NOW, False),
])
def test_vectors_of_stripe(header, secret, now, genuine):
    assert is_genuine('stripe', STRIPE, {'Stripe-Signature': header}, secret, now=now) is genuine


@pytest.mark.parametrize('stamp, code', [
    # Public: the signing test of all libraries of the standard.
    (1614265330, 'g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE='),
    (1674087231, 'AQG81rX2n4rTN1fkXoqILSHO9gAOcwya9dP41rhrQDI='),
])
@pytest.mark.parametrize('prefix', ['Webhook', 'Svix'])
def test_vectors_of_standard_webhooks(stamp, code, prefix):
    headers = {f'{prefix}-Id': 'msg_p5jXN8AQM9LWM0D4loKWxJek', f'{prefix}-Timestamp': str(stamp),
               f'{prefix}-Signature': f'v1a,x v1,AAAA v1,{code}'}
    assert is_genuine('standard', b'{"test": 2432232314}', headers, SECRET, now=stamp)
    assert not is_genuine('standard', b'{"test": 2432232315}', headers, SECRET, now=stamp)


def test_vector_of_github():
    # Public: GitHub's own documentation.
    code = '757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17'
    secret = "It's a Secret to Everybody"
    assert is_genuine('hmac', b'Hello, World!', {'X-Hub-Signature-256': f'sha256={code}'}, secret)
    assert is_genuine('hmac', b'Hello, World!', {'X-Hub-Signature-256': f'sha256={code.upper()}'}, secret)
    assert not is_genuine('hmac', b'Hello, World!', {'X-Hub-Signature-256': code}, secret)


OBJECTS = st.dictionaries(st.text(), st.text() | st.integers() | st.none()).map(lambda it: json.dumps(it).encode())


@given(OBJECTS)
def test_what_stripes_own_library_takes_is_taken_and_the_other_way_round(body):
    source, now = source_of('stripe'), time.time()
    header = source.signed(body, source.key(SECRET), '', now)['Stripe-Signature']
    assert stripe.WebhookSignature.verify_header(body.decode(), header, SECRET)
    stamp = int(now)
    theirs = stripe.WebhookSignature._compute_signature(f'{stamp}.{body.decode()}', SECRET)
    assert is_genuine('stripe', body, {'Stripe-Signature': f't={stamp},v1={theirs}'}, SECRET)


@given(OBJECTS)
def test_what_the_library_of_standard_webhooks_takes_is_taken_and_the_other_way_round(body):
    source, theirs = source_of('standard'), standardwebhooks.Webhook(SECRET)
    theirs.verify(body, source.signed(body, source.key(SECRET), '', time.time()))
    now = datetime.now(UTC)
    headers = {'Webhook-Id': 'msg_1', 'Webhook-Timestamp': str(int(now.timestamp())),
               'Webhook-Signature': theirs.sign('msg_1', now, body.decode())}
    assert is_genuine('standard', body, headers, SECRET)


#: Headers whose every letter is signed, or is the signature.
SIGNED = {'shopify': ['X-Shopify-Hmac-Sha256'], 'woocommerce': ['X-WC-Webhook-Signature'],
          'stripe': ['Stripe-Signature'], 'hmac': ['X-Hub-Signature-256'],
          'standard': ['Webhook-Id', 'Webhook-Timestamp', 'Webhook-Signature']}


@pytest.mark.parametrize('kind', sorted(SIGNED))
@given(data=st.data())
def test_any_changed_byte_is_refused(kind: str, data: Any) -> None:
    source, now = source_of(kind), time.time()
    body = data.draw(st.binary(max_size=200))
    headers = source.signed(body, source.key(SECRET), '', now)
    assert is_genuine(kind, body, headers, SECRET, now=now)
    changed = data.draw(st.binary(max_size=200).filter(lambda other: other != body))
    assert not is_genuine(kind, changed, headers, SECRET, now=now)
    name = data.draw(st.sampled_from(SIGNED[kind]))
    value = headers[name]
    place = data.draw(st.integers(0, len(value) - 1))
    letter = data.draw(st.characters(min_codepoint=33, max_codepoint=255).filter(
        lambda it: it.lower() != value[place].lower() and it not in ', ;'))
    spoiled = {**headers, name: value[:place] + letter + value[place + 1:]}
    assert not is_genuine(kind, body, spoiled, SECRET, now=now)


@pytest.mark.parametrize('sent, twice', [
    (lambda number: {'X-Shopify-Event-Id': 'a', 'X-Shopify-Webhook-Id': str(number)}, False),
    (lambda number: {'X-Shopify-Event-Id': str(number)}, True),
])
def test_of_shopify_several_subscriptions_tell_of_one_event(sent: Callable[[int], dict[str, str]], twice: bool) -> None:
    intake, body = MemoryIntake('shopify', 'orders/paid'), json.dumps(TestShopify.good).encode()
    ids = set()
    for number in range(2):
        headers = intake.source.signed(body, intake.source.key(SECRET), 'orders/paid', 0)
        del headers['X-Shopify-Event-Id']
        ids.add(intake.post(body, {**headers, **sent(number)}).content['id'])
    assert len(ids) == 1 + twice


def test_of_shopify_one_action_of_the_merchants_on_two_orders_is_two() -> None:
    intake = MemoryIntake('shopify', 'orders/paid')
    for number in (1, 2):
        body = json.dumps({**TestShopify.good, 'id': number, 'name': f'EDX-{number}'}).encode()
        headers = {**intake.source.signed(body, intake.source.key(SECRET), 'orders/paid', 0), 'X-Shopify-Event-Id': 'a'}
        assert intake.post(body, headers).content['state'] == 'accepted'
    assert [call['order_number'] for call in intake.calls()] == ['EDX-1', 'EDX-2']


def test_of_standard_webhooks_one_without_an_id_is_refused() -> None:
    intake, body, stamp = MemoryIntake('standard', 'order.paid'), json.dumps(TestStandard.good).encode(), time.time()
    made = code(intake.source.key(SECRET), f'.{int(stamp)}.'.encode(), body)
    assert intake.post(body, {'Content-Type': 'application/json', 'Webhook-Timestamp': str(int(stamp)),
                              'Webhook-Signature': f'v1,{made}'}).status == 401


@pytest.mark.parametrize('contract, name', [(TestStripe, 'id'), (TestWooCommerce, 'id')])
def test_an_id_that_no_bytes_stand_for_is_an_id_as_any(contract: Any, name: str) -> None:
    intake, body = MemoryIntake(contract.kind, contract.topic), json.dumps({**contract.good, name: '\ud800'}).encode()
    headers = intake.source.signed(body, intake.source.key(SECRET), contract.topic, time.time())
    assert intake.post(body, headers).content['state'] == 'accepted'


@pytest.mark.parametrize('number', ['EDX-\0', 'EDX-\ud800', 'EDX\n1'], ids=['NUL', 'half a pair', 'a line break'])
def test_an_order_number_that_no_ledger_can_keep_is_not_accepted(number: str) -> None:
    intake, body = MemoryIntake('submit', 'order'), json.dumps({'order_number': number}).encode()
    answer = intake.post(body, intake.source.signed(body, intake.source.key(SECRET), 'order', 0))
    assert (answer.status, answer.content['detail']) == (422, 'its order_number has control characters')
    assert not list(intake.calls())


def test_who_submits_names_no_other_site_than_its_intake_has() -> None:
    intake = MemoryIntake('submit', 'order')
    intake.intake = replace(intake.intake, site='mine')
    application = Application({'shop': intake.intake}, {'shop': intake}, Counts(), lambda: True)
    intake._application = application

    def submitted(**fields: str) -> int:
        body = json.dumps({'order_number': 'EDX-1', **fields}).encode()
        return intake.post(body, intake.source.signed(body, intake.source.key(SECRET), 'order', 0)).status

    assert submitted(site_code='other') == 422
    assert [submitted(), submitted(site_code='mine')] == [202, 202]
    assert {call['site_code'] for call in intake.calls()} == {'mine'}
