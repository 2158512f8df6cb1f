"""What is bought, and for whom, as shops tell of it; and the calls that intakes make of that."""

import inspect
import json
import logging
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecommerce_worker.enrolment import tasks
from ecommerce_worker.enrolment.lines import Line, Sold, addresses_in, read
from ecommerce_worker.errors import Misconfigured
from ecommerce_worker.fulfillment.v1.tasks import fulfill_order
from ecommerce_worker.intake import intakes
from ecommerce_worker.testing.intake import SECRET, InMemory, _strange

ANN, BOB = 'ann@example.com', 'bob@example.com'
COURSE = {'course': 'course-v1:edX+A+1', 'mode': 'verified'}
KNOWN = {it.name: it for it in (tasks.enroll, tasks.revoke, fulfill_order)}

SHOPIFY = {
    'created_at': '2026-01-01T01:00:00+01:00',
    'id': 1, 'name': '#1001', 'email': ANN, 'financial_status': 'paid', 'cancelled_at': None, 'test': False,
    'note_attributes': [{'name': 'gift', 'value': BOB}],
    'line_items': [
        {'id': 11, 'sku': 'A', 'variant_id': 7, 'quantity': 2, 'current_quantity': 1,
         'properties': [{'name': 'email', 'value': 'cid@example.com'}, {'name': 'n', 'value': 5}]},
        {'id': 12, 'sku': None, 'variant_id': 8, 'quantity': 1, 'properties': []}]}
WOO = {
    'id': 1, 'number': '1001', 'status': 'processing', 'date_paid_gmt': '2026-01-01T00:00:00', 'refunds': [],
    'billing': {'email': ANN}, 'meta_data': [{'key': 'learner_email', 'value': BOB}],
    'line_items': [{'id': 11, 'sku': 'A', 'product_id': 5, 'variation_id': 0, 'quantity': 1,
                    'meta_data': [{'key': 'email', 'value': 'cid@example.com'}]},
                   {'id': 12, 'sku': '', 'product_id': 5, 'variation_id': 0, 'quantity': 3}]}
SESSION = {'id': 'cs_1', 'client_reference_id': '1001', 'payment_status': 'paid', 'metadata': {'sku': 'A, B'},
           'created': 1767225600,
           'customer_details': {'email': ANN}, 'custom_fields': [
               {'key': 'email', 'type': 'text', 'text': {'value': 'cid@example.com'}}]}
STRIPE = {'id': 'evt_1', 'type': 'checkout.session.completed', 'livemode': True, 'data': {'object': SESSION}}
CHARGE = {'id': 'ch_1', 'created': 1767225600, 'refunded': True, 'metadata': {'order_number': '1001', 'sku': 'A'},
          'billing_details': {'email': ANN}}
REFUND = {'id': 'evt_2', 'type': 'charge.refunded', 'livemode': True, 'data': {'object': CHARGE}}


@pytest.fixture
def intake(in_force):
    """Makes an intake in memory, of a kind with its default events."""
    def made(kind, **options):
        settings = in_force(PRODUCTS=json.dumps({'A': [COURSE]}),
                            INTAKES=json.dumps({'shop': {'kind': kind, 'secrets': [SECRET], **options}})).settings
        return InMemory(intakes.read(settings, KNOWN)['shop'])
    return made


def posted(intake, content, topic=''):
    body = json.dumps(content).encode()
    source = intake.source
    return intake.post(body, source.signed(body, source.key(SECRET), topic, time.time()))


def line(id_, product, quantity, *learners):
    return {'line': id_, 'product': product, 'quantity': quantity, 'learner': list(learners)}


@pytest.mark.parametrize('kind, topic, content, task, lines', [
    ('shopify', 'orders/paid', SHOPIFY, 'enroll', [line('11', 'A', 1, 'cid@example.com'), line('12', '8', 1, ANN)]),
    ('shopify', 'orders/updated', {**SHOPIFY, 'financial_status': 'partially_refunded', 'refunds': [{'id': 5}]},
     'revoke', [line('11', 'A', 1, 'cid@example.com'), line('12', '8', 0, ANN)]),
    ('shopify', 'orders/updated', {**SHOPIFY, 'financial_status': 'refunded', 'refunds': [{'id': 5}]},
     'revoke', [line('11', 'A', 2, 'cid@example.com'), line('12', '8', 1, ANN)]),
    ('woocommerce', 'order.updated', WOO, 'enroll', [line('11', 'A', 1, 'cid@example.com'), line('12', '5', 3, BOB)]),
    ('woocommerce', 'order.created', WOO, 'enroll', [line('11', 'A', 1, 'cid@example.com'), line('12', '5', 3, BOB)]),
    ('woocommerce', 'order.updated', {**WOO, 'status': 'refunded', 'refunds': [{'id': 5}]},
     'revoke', [line('11', 'A', 1, 'cid@example.com'), line('12', '5', 3, BOB)]),
    ('stripe', '', STRIPE, 'enroll', [line('1', 'A', 1, 'cid@example.com'), line('2', 'B', 1, 'cid@example.com')]),
    ('stripe', '', REFUND, 'revoke', [line('1', 'A', 1, ANN)]),
])
def test_a_paid_order_enrols_and_a_refund_revokes_unless_the_intake_says_otherwise(intake, kind, topic, content, task,
                                                                                   lines):
    made = intake(kind, spool=True)
    assert posted(made, content, topic).state == 'accepted'
    call, = made.published
    assert call.raw.headers['task'] == f'ecommerce_worker.enrolment.tasks.{task}'
    number = content.get('id') if kind != 'stripe' else content['data']['object']['id']
    assert made.calls()[0] == {'order_number': made.calls()[0]['order_number'], 'lines': lines,
                               'shop': {'intake': 'shop', 'order': str(number), 'placed': 1767225600}}
    assert made.calls()[0]['order_number'] in ('#1001', '1001')
    assert read(lines)
    inspect.signature(KNOWN[call.raw.headers['task']].run).bind(**made.calls()[0])


def test_a_session_without_a_number_is_known_by_its_id_and_a_refund_by_what_its_payment_says(intake):
    made = intake('stripe')
    unnumbered = {**STRIPE, 'data': {'object': {**SESSION, 'client_reference_id': None}}}
    refund = {**REFUND, 'data': {'object': {**CHARGE, 'metadata': {'order_number': 'cs_1', 'sku': 'A'}}}}
    assert [posted(made, it).state for it in (unnumbered, refund)] == ['accepted'] * 2
    assert [it['order_number'] for it in made.calls()] == ['cs_1', 'cs_1']
    # By the id of the charge it would be the refund of an order that there never was, and the real one would cover it.
    made = intake('stripe')
    assert posted(made, {**REFUND, 'data': {'object': {**CHARGE, 'metadata': {'sku': 'A'}}}}).state == 'parked'
    # No other shop knows an order by that.
    made = intake('stripe', events={'checkout.session.completed': 'fulfill_order'})
    assert posted(made, unnumbered).state == 'parked'


@pytest.mark.parametrize('learner, found', [
    (['buyer'], ANN), (['meta:gift', 'buyer'], BOB), (['property:n', 'meta:none', 'meta:gift'], BOB),
])
def test_where_the_learner_stands_is_said_by_the_intake(intake, learner, found):
    made = intake('shopify', learner=learner)
    posted(made, SHOPIFY, 'orders/paid')
    assert [it['learner'] for it in made.calls()[0]['lines']] == [[found]] * 2


@pytest.mark.parametrize('kind, topic, content', [
    ('woocommerce', 'order.updated', {**WOO, 'refunds': [{'id': 5, 'total': '-1.00'}]}),
    ('stripe', '', {**REFUND, 'data': {'object': {**CHARGE, 'refunded': False}}}),
    ('stripe', '', {**STRIPE, 'data': {'object': {**SESSION, 'metadata': {}}}}),
])
def test_what_cannot_be_known_is_parked_for_a_person(intake, kind, topic, content):
    made = intake(kind, spool=True)
    assert posted(made, content, topic).state == 'parked'
    assert not made.calls()


def test_one_refund_is_one_message_whatever_changes_in_the_order_later(intake):
    made = intake('shopify')
    refunded = {**SHOPIFY, 'financial_status': 'refunded', 'refunds': [{'id': 5}]}
    states = [posted(made, it, 'orders/updated').state
              for it in (refunded, {**refunded, 'note': 'x'}, {**refunded, 'refunds': [{'id': 5}, {'id': 6}]})]
    assert states == ['accepted', 'repeated', 'accepted']


@pytest.mark.parametrize('kind, topic, content', [
    ('shopify', 'orders/paid', SHOPIFY), ('woocommerce', 'order.updated', WOO), ('stripe', '', STRIPE),
    ('stripe', '', REFUND),
    ('shopify', 'orders/updated', {**SHOPIFY, 'financial_status': 'refunded', 'refunds': [{'id': 5}]}),
])
def test_strange_values_are_no_programming_error(intake, kind, topic, content, caplog):
    made = intake(kind, spool=True)
    for strange in _strange(content):
        assert posted(made, strange, topic).status == 200
    assert 'programming error' not in caplog.text
    for call in made.calls():
        read(call['lines'])


def test_no_log_shows_who_learns(intake, caplog):
    caplog.set_level(logging.DEBUG)
    posted(intake('shopify'), SHOPIFY, 'orders/paid')
    assert 'example.com' not in caplog.text


def test_an_intake_that_enrols_needs_products(in_force):
    settings = in_force(INTAKES=json.dumps({'shop': {'kind': 'shopify', 'secrets': [SECRET]}})).settings
    with pytest.raises(Misconfigured, match='PRODUCTS is empty'):
        intakes.read(settings, KNOWN)


@pytest.mark.parametrize('text, found', [
    (ANN, (ANN,)), (f'Ann <{ANN}>; {BOB}, x', (ANN, BOB)), (f'{ANN} {ANN.upper()}', (ANN,)), ('@', ()), ('a@b', ()),
    ('', ()), (None, ()), (7, ()), ([ANN], ()), ('x@y.z' * 100_000, ()),
    (f'Ann ({ANN}).', (ANN,)), (f'mailto:{ANN}', (ANN,)),
    # What a buyer may write into a field: looked at for as long as its length, not as the square of it.
    (f'{"x" * 250_000} {ANN}', (ANN,)), (f'{"x" * 250_000}@ {ANN}', (ANN,)),
])
def test_addresses_in_a_field(text, found):
    assert addresses_in(text) == found


@given(st.text() | st.emails() | st.integers() | st.none() | st.lists(st.emails()))
def test_whatever_a_field_holds_a_line_of_it_can_be_read_again(value):
    made = Sold('1', 'A', 1, {'email': value}, {}, value).line(['property:email', 'buyer'])
    assert read([made.message()]) == [made]


def test_a_line_has_a_number_if_it_has_no_id_and_one_seat_if_it_does_not_say():
    assert read([{'product': ' A ', 'learner': ANN}]) == [Line('1', 'A', 1, (ANN,))]
