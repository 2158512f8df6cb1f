"""What the shop says of an order when it is enrolled and taken back; and what is told to it when that is done."""

import importlib
import json
import random
import sys
from types import SimpleNamespace

import pytest

from ecommerce_worker.enrolment.tasks import enroll, report_back, revoke
from ecommerce_worker.errors import Misconfigured
from ecommerce_worker.execution.outcomes import Deferred, Done, Parked, Retrying, Skipped, Then
from ecommerce_worker.intake import intakes
from ecommerce_worker.intake.source import Delivery
from ecommerce_worker.testing.intake import SECRET as SIGNING
from ecommerce_worker.testing.lms import CLIENT_ID, CLIENT_SECRET, LOST, Course, Lms, Step
from ecommerce_worker.testing.peer import Request, reply
from ecommerce_worker.testing.shops import KEY, SECRET, Shopify, Stripe, WooCommerce
from ecommerce_worker.tests.support.enrolment import TASKS, Orders

ANN, BOB = 'ann@example.com', 'bob@example.com'
ONE, TWO = 'course-v1:edX+A+1', 'course-v1:edX+B+1'
VERIFIED, AUDIT, OUT = ('verified', True), ('audit', True), ('verified', False)
PRODUCTS = {'A': [{'course': ONE, 'mode': 'verified'}], 'B': [{'course': TWO, 'mode': 'verified'}]}


@pytest.fixture
def lms():
    with Lms() as lms:
        lms.courses = {ONE: Course(), TWO: Course()}
        lms.register(ANN, 'ann')
        yield lms


def shopify_order(**fields):
    lines = [{'id': 1, 'sku': 'A', 'quantity': 1}, {'id': 2, 'sku': 'B', 'quantity': 1}]
    return {'id': 7, 'name': '#1', 'email': ANN, 'financial_status': 'paid', 'test': False, 'note_attributes': [],
            'updated_at': '2026-01-01T00:00:00Z', 'line_items': lines, **fields}


def woo_order(**fields):
    return {'id': 7, 'number': '1', 'status': 'processing', 'date_paid_gmt': '2026-01-01T00:00:00', 'refunds': [],
            **fields}


@pytest.fixture
def shopify():
    with Shopify() as shop:
        shop.orders = [shopify_order()]
        yield shop


@pytest.fixture
def woo():
    with WooCommerce() as shop:
        shop.orders = [woo_order()]
        yield shop


@pytest.fixture
def stripe():
    with Stripe() as shop:
        shop.charges = {'cs_7': {'id': 'ch_7', 'refunded': False, 'amount_refunded': 0}}
        yield shop


@pytest.fixture
def shop(request):
    """The shop that a test names."""
    return request.getfixturevalue(request.param)


ALL = pytest.mark.parametrize('shop', ['shopify', 'woo', 'stripe'], indirect=True)


@pytest.fixture
def configured(app, in_force, lms):
    """Puts settings in force, with that LMS and an intake of a shop."""
    def use(shop, *, key=KEY, report=False, **settings):
        kind = {Shopify: {'kind': 'shopify', 'api_token': key and SECRET, 'api_url': shop.url},
                WooCommerce: {'kind': 'woocommerce', 'source': shop.url, 'api_key': key, 'api_secret': key and SECRET},
                Stripe: {'kind': 'stripe', 'api_key': key, 'api_url': shop.url}}[type(shop)]
        given = {'PRODUCTS': PRODUCTS, 'COVERED_BY': 'nothing', 'INTAKES': {'shop': {
            'secrets': [SIGNING], **kind, **({'report_back': True} if report else {})}}, **settings}
        return in_force(LMS_ROOT_URL=lms.url, BACKEND_SERVICE_EDX_OAUTH2_PROVIDER_URL=lms.oauth2_root,
                        BACKEND_SERVICE_EDX_OAUTH2_KEY=CLIENT_ID, BACKEND_SERVICE_EDX_OAUTH2_SECRET=CLIENT_SECRET,
                        **{name: json.dumps(value) if isinstance(value, dict | list) else value
                           for name, value in {'RETRY_DELAY_MAX': 2, **given}.items()})
    return use


def bought(product='A', learner=ANN, line='1', quantity=1):
    return {'line': line, 'product': product, 'quantity': quantity, 'learner': learner}


def origin_in(shop):
    return {'intake': 'shop', 'order': 'cs_7' if isinstance(shop, Stripe) else '7'}


def give_back(shop):
    """All of the order's money."""
    if isinstance(shop, Stripe):
        shop.charges['cs_7'].update(refunded=True, amount_refunded=100)
    elif isinstance(shop, WooCommerce):
        shop.orders[0]['status'] = 'refunded'
    else:
        shop.orders[0]['financial_status'] = 'refunded'


def told(run):
    """What a run is about, and how it ended."""
    return f'{run.call.task.rpartition(".")[2]} {type(run.outcome).__name__.lower()}'


# -- how an order stands by now ---------------------------------------------------------------------------------------

@ALL
@pytest.mark.parametrize('refund', ['unenroll', 'audit'])
def test_a_paid_order_that_is_told_of_again_after_its_refund_enrols_nobody(configured, lms, shop, refund):
    configured(shop, REFUND=refund)
    orders, given = Orders(), {'shop': origin_in(shop)}
    orders.come(enroll, bought(), **given)
    assert lms.standing(ANN, ONE) == VERIFIED
    give_back(shop)
    orders.come(revoke, bought(), **given)
    left = lms.standing(ANN, ONE)
    assert left == (OUT if refund == 'unenroll' else AUDIT)
    orders.come(enroll, bought(), **given)
    assert lms.standing(ANN, ONE) == left
    assert orders.runs[-1].outcome == Skipped('it has been refunded since')
    assert not orders.parked


@ALL
def test_nor_does_it_if_the_refund_was_told_of_while_both_waited_for_the_lms(configured, lms, shop):
    configured(shop)
    orders, given = Orders(), {'shop': origin_in(shop)}
    lms.script['GET accounts'] = [Step.status(503)] * 3
    orders.come(enroll, bought(), **given)
    orders.come(enroll, bought(), **given)
    give_back(shop)
    orders.come(revoke, bought(), **given)
    assert len(orders.waiting) == 3
    orders.wait()
    assert lms.standing(ANN, ONE) is None
    assert [told(it) for it in orders.runs[-3:]] == ['enroll_line skipped'] * 2 + ['revoke_line skipped']
    assert not orders.waiting
    assert not orders.parked


@ALL
def test_what_the_shop_has_as_paid_for_is_not_taken_back_before_it_has_it_as_refunded(configured, lms, shop):
    configured(shop)
    orders, given = Orders(), {'shop': origin_in(shop)}
    orders.come(enroll, bought(), **given)
    orders.come(revoke, bought(), **given)
    assert lms.standing(ANN, ONE) == VERIFIED
    assert 'has the order as paid' in orders.waiting[0].outcome.reason
    give_back(shop)
    orders.wait()
    assert lms.standing(ANN, ONE) == OUT


def test_a_refund_that_was_undone_in_the_shop_is_for_a_person_after_three_days(configured, lms, woo):
    configured(woo, FULFILLMENT_GIVE_UP_AFTER=4)
    orders, given = Orders(), {'shop': origin_in(woo)}
    orders.come(enroll, bought(), **given)
    orders.come(revoke, bought(), **given)
    while orders.waiting:
        orders.wait()
    assert lms.standing(ANN, ONE) == VERIFIED
    assert 'which one is right?' in orders.parked[0]
    orders.resend()
    assert lms.standing(ANN, ONE) == OUT


@ALL
def test_a_refund_that_is_told_of_twice_is_done_once_and_parks_nothing(configured, lms, shop):
    configured(shop, REFUND='audit')
    orders, given = Orders(), {'shop': origin_in(shop)}
    orders.come(enroll, bought(), **given)
    give_back(shop)
    orders.come(revoke, bought(), **given)
    orders.come(revoke, bought(), **given)
    assert lms.standing(ANN, ONE) == AUDIT
    assert told(orders.runs[-1]) == 'revoke_line skipped'
    assert len(lms.changes) == 2
    assert not orders.waiting


@ALL
def test_who_has_no_account_is_not_let_in_after_a_refund(configured, lms, shop):
    configured(shop)
    orders, given = Orders(), {'shop': origin_in(shop)}
    orders.come(enroll, bought(learner=BOB), **given)
    assert lms.allowed == {(BOB, ONE)}
    give_back(shop)
    orders.come(revoke, bought(learner=BOB), **given)
    orders.come(enroll, bought(learner=BOB), **given)
    assert not lms.allowed
    lms.register(BOB, 'bob')
    orders.wait()
    assert lms.standing(BOB, ONE) is None
    assert [it for it in orders.ends if 'waiting' in it or 'retrying' in it or 'parked' in it] == []


@pytest.mark.parametrize('how', ['registers', 'registers and audits'])
@pytest.mark.parametrize('kind, paid', [
    ('woo', {'status': 'processing', 'date_paid_gmt': '2026-01-01T00:00:00', 'number': '1'}),
    ('shopify', {'name': '1', 'financial_status': 'paid', 'created_at': '2026-01-01T01:00:00+01:00'}),
    ('stripe', {'client_reference_id': '1', 'payment_status': 'paid', 'created': 1767225600, 'metadata': {'sku': 'A'}}),
])
def test_who_was_refunded_before_they_registered_is_not_enrolled_when_the_order_is_delivered_late(
        configured, lms, request, tmp_path, monkeypatch, kind, paid, how):
    (tmp_path / 'acme_refunds.py').write_text(
        'refunded, asked = set(), []\n\n\ndef covers(*_):\n    return False\n\n\n'
        'def taken_back(order_number, learner, *_):\n    asked.append(learner)\n    return order_number in refunded\n')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, 'acme_refunds', raising=False)
    made = configured(request.getfixturevalue(kind), key='', COVERED_BY='acme_refunds')
    known = importlib.import_module('acme_refunds')
    orders = Orders()

    def told_of(buyer, **changed):
        call = delivered_by(intakes.read(made.settings, TASKS)['shop'], kind, paid, buyer, **changed)
        orders.publish(Then(call.task, call.kwargs))

    told_of(BOB)
    assert lms.allowed == {(BOB, ONE)}
    orders.come(revoke, bought(learner=BOB), number='1')
    known.refunded.add('1')
    lms.register(BOB, 'bob')
    if how == 'registers and audits':
        lms.students[BOB].enrolments[ONE] = AUDIT
    told_of(BOB, note='changed')
    assert lms.standing(BOB, ONE) == (AUDIT if how == 'registers and audits' else None)
    assert orders.runs[-1].outcome == Skipped('it has been refunded since')
    # Nobody is asked about who had an account before they bought: that takes seconds.
    lms.students[ANN].joined = '2025-12-31T23:00:00Z'
    known.asked.clear()
    told_of(ANN)
    assert lms.standing(ANN, ONE) == VERIFIED
    assert not known.asked


def delivered_by(intake, kind, content, buyer, **changed):
    """The call that an intake of this kind makes of a delivery of a paid order with one line."""
    lines = {'line_items': [{'id': 1, 'sku': 'A', 'quantity': 1}]}
    body, topic = {
        'woo': ({'id': 7, 'billing': {'email': buyer}, **lines, **content, **changed}, 'order.updated'),
        'shopify': ({'id': 7, 'email': buyer, 'test': False, **lines, **content, **changed}, 'orders/paid'),
        'stripe': ({'id': 'evt_1', 'type': 'checkout.session.completed', 'livemode': True, 'data': {'object': {
            'id': 'cs_7', 'customer_details': {'email': buyer}, **content, **changed}}}, 'checkout.session.completed'),
    }[kind]
    raw = json.dumps(body).encode()
    headers = intake.source.signed(raw, intake.secrets.keys[0], topic, 0)
    return intake.call(intake.source.event(Delivery({name.lower(): it for name, it in headers.items()}, raw, 0)))


@ALL
def test_who_buys_again_after_a_refund_is_enrolled(configured, lms, shop):
    configured(shop)
    lms.students[ANN].enrolments[ONE] = OUT
    orders = Orders()
    orders.come(enroll, bought(), number='#2', shop=origin_in(shop))
    assert lms.standing(ANN, ONE) == VERIFIED


@ALL
def test_where_nobody_knows_whether_it_was_refunded_a_person_does(configured, lms, shop):
    configured(shop, key='')
    lms.students[ANN].enrolments[ONE] = OUT
    orders = Orders()
    orders.come(enroll, bought(), shop=origin_in(shop))
    assert lms.standing(ANN, ONE) == OUT
    assert 'it is unknown whether this order was refunded' in orders.parked[0]
    orders.resend()
    assert lms.standing(ANN, ONE) == VERIFIED
    assert not orders.parked


@ALL
@pytest.mark.parametrize('answer', [reply(401, b'{}'), reply(403, b'{}'), reply(400, b'{}')])
def test_a_key_that_may_not_read_orders_is_as_good_as_none(configured, lms, shop, answer, caplog):
    configured(shop)
    shop.answers = [answer] * 2
    orders = Orders()
    orders.come(enroll, bought(), shop=origin_in(shop))
    assert lms.standing(ANN, ONE) == VERIFIED
    assert 'a shop does not report whether an order is still paid for' in caplog.text


def test_a_key_that_was_changed_is_read_anew(configured, lms, woo, tmp_path):
    (tmp_path / 'secret').write_text('the one before')
    configured(woo, INTAKES={'shop': {'secrets': [SIGNING], 'kind': 'woocommerce', 'source': woo.url, 'api_key': KEY,
                                      'api_secret': f'file:{tmp_path}/secret'}})
    orders = Orders()
    orders.come(enroll, bought(), shop=origin_in(woo))
    assert lms.standing(ANN, ONE) == VERIFIED  # nobody said otherwise
    give_back(woo)
    (tmp_path / 'secret').write_text(SECRET)
    orders.come(enroll, bought('B', line='2'), shop=origin_in(woo))
    assert lms.standing(ANN, TWO) is None


@ALL
def test_a_shop_that_is_down_is_waited_for(configured, lms, shop):
    configured(shop)
    shop.answers = [reply(503)]
    orders = Orders()
    orders.come(enroll, bought(), shop=origin_in(shop))
    assert lms.standing(ANN, ONE) is None
    assert isinstance(orders.waiting[0].outcome, Retrying)
    orders.wait()
    assert lms.standing(ANN, ONE) == VERIFIED


@pytest.mark.parametrize('seed', range(16))
def test_whatever_comes_when_who_is_in_the_course_in_the_end_is_who_has_paid(configured, lms, woo, monkeypatch, seed):
    chance, orders, woo.orders, lms.quince = random.Random(seed), Orders(), [], seed % 2 == 0
    told: list[str] = []

    def is_covered(number, *_):
        return any(it['status'] == 'processing' for it in woo.orders if it['number'] != number)

    monkeypatch.setitem(sys.modules, 'acme_orders', SimpleNamespace(covers=is_covered))
    configured(woo, COVERED_BY='acme_orders')

    def come(task, order):
        number = order['number']
        orders.come(task, bought(learner=BOB), number=number, shop={'intake': 'shop', 'order': number})

    def buy():
        if len(woo.orders) < 3:
            number = len(woo.orders) + 1
            woo.orders.append(woo_order(id=number, number=str(number)))
            come(enroll, woo.orders[-1])

    def give_one_back():
        if paid := [it for it in woo.orders if it['status'] == 'processing']:
            order = chance.choice(paid)
            order['status'] = 'refunded'
            come(revoke, order)

    def tell_again():
        if woo.orders:
            order = chance.choice(woo.orders)
            come(enroll if order['status'] == 'processing' else chance.choice([enroll, revoke]), order)

    def register():
        if BOB not in lms.students:
            lms.register(BOB, 'bob', active=chance.random() < 0.5)

    def confirm():
        if BOB in lms.students and not lms.students[BOB].active:
            lms.confirm(BOB)

    def fail():
        what = chance.choice(['POST enrollment', 'GET accounts', 'POST enrollment_allowed',
                              'DELETE enrollment_allowed'])
        lms.script[what] = [LOST if what == 'POST enrollment' else Step.status(503)]

    for _ in range(12):
        step = chance.choice([buy, give_one_back, give_one_back, tell_again, tell_again, register, confirm, fail,
                              orders.wait])
        told.append(step.__name__)
        step()
    lms.script.clear()
    register()
    confirm()
    for _ in range(12):
        orders.wait()
    standing = lms.standing(BOB, ONE)
    has_paid = any(it['status'] == 'processing' for it in woo.orders)
    assert (standing == VERIFIED) if has_paid else (standing is None or not standing[1]), told
    assert not orders.parked, told


@ALL
def test_an_order_that_the_shop_does_not_show_is_enrolled_as_it_was_told(configured, lms, shop):
    configured(shop)
    orders = Orders()
    orders.come(enroll, bought(), shop={'intake': 'shop', 'order': 'cs_9' if isinstance(shop, Stripe) else '9'})
    assert lms.standing(ANN, ONE) == VERIFIED


def test_in_shopify_a_line_that_was_taken_out_is_refunded_and_others_are_not(configured, lms, shopify):
    configured(shopify)
    shopify.orders = [shopify_order(financial_status='partially_refunded', line_items=[
        {'id': 1, 'sku': 'A', 'quantity': 1, 'current_quantity': 0}, {'id': 2, 'sku': 'B', 'quantity': 1}])]
    orders = Orders()
    orders.come(enroll, bought(), bought('B', line='2'), shop=origin_in(shopify))
    assert [lms.standing(ANN, course) for course in (ONE, TWO)] == [None, VERIFIED]


@pytest.mark.parametrize('shop, changed', [
    ('shopify', {'financial_status': 'partially_refunded', 'line_items': [
        {'id': 1, 'sku': 'A', 'quantity': 2, 'current_quantity': 1}]}),
    ('shopify', {'line_items': [{'id': 3, 'sku': 'A', 'quantity': 1}]}), ('shopify', {'financial_status': 'pending'}),
    ('woo', {'refunds': [{'id': 1, 'total': '-1.00'}]}), ('woo', {'date_paid_gmt': None}),
    ('stripe', {'amount_refunded': 50}), ('stripe', None),
], indirect=['shop'])
def test_what_a_shop_does_not_tell_is_not_known(configured, lms, shop, changed):
    configured(shop)
    if isinstance(shop, Stripe):
        shop.charges['cs_7'] = None if changed is None else {**shop.charges['cs_7'], **changed}
    else:
        shop.orders[0].update(changed)
    lms.students[ANN].enrolments[ONE] = OUT
    orders = Orders()
    orders.come(enroll, bought(), shop=origin_in(shop))
    assert 'it is unknown whether this order was refunded' in orders.parked[0]
    lms.students[ANN].enrolments.clear()
    orders.come(enroll, bought(), shop=origin_in(shop))
    assert lms.standing(ANN, ONE) == VERIFIED


@pytest.mark.parametrize('given', [7, {}, {'intake': 'shop'}, {'intake': '', 'order': '7'}, {'intake': 7, 'order': '7'},
                                   {'intake': 'shop', 'order': '7', 'line': 7}])
def test_an_order_of_no_shop_is_parked(configured, shopify, given):
    configured(shopify)
    orders = Orders()
    orders.come(enroll, bought(), shop=given)
    assert orders.parked == ['shop is not one that orders can come from']


def test_an_order_of_an_intake_that_is_gone_is_enrolled(configured, lms, shopify):
    configured(shopify, INTAKES={})
    orders = Orders()
    orders.come(enroll, bought(), shop=origin_in(shopify))
    assert lms.standing(ANN, ONE) == VERIFIED


def test_while_the_lms_is_down_for_a_day_orders_wait_and_then_all_are_enrolled_once(configured, lms, woo):
    people = [f'p{number}@example.com' for number in range(5)]
    for who in people:
        lms.register(who, who.partition('@')[0])
    configured(woo, RETRY_DELAY_MAX=900)
    orders, passed = Orders(), 0.0
    lms.stop()
    for number, who in enumerate(people):
        orders.come(enroll, bought(learner=who), bought('B', who, '2'), number=f'#{number}', shop=origin_in(woo))
    while passed < 86_400:
        assert len(orders.waiting) == 10
        passed += max(it.outcome.delay for it in orders.waiting if isinstance(it.outcome, Retrying | Deferred))
        orders.wait()
    lms.start()
    configured(woo)  # a new process, with the circuit closed
    orders.wait()
    assert {lms.standing(who, course) for who in people for course in (ONE, TWO)} == {VERIFIED}
    assert len(lms.changes) == 10
    assert not orders.parked


# -- what the shop is told --------------------------------------------------------------------------------------------

REPORTING = pytest.mark.parametrize('shop', ['shopify', 'woo'], indirect=True)


def done_at(shop):
    """What the shop knows to be done: its lines, or what is said of the order."""
    if isinstance(shop, Shopify):
        return [lines for _, lines in shop.fulfillments]
    return [shop.orders[0]['status'], *shop.notes.get('7', [])]


BOTH = {'shopify': [{'1': 1, '2': 1}],
        'woo': ['completed', 'ecommerce-worker: the learners of 2 lines are enrolled']}
NOTHING = {'shopify': [], 'woo': ['processing']}


def kind_of(shop):
    return 'shopify' if isinstance(shop, Shopify) else 'woo'


@REPORTING
def test_a_shop_is_told_nothing_unless_it_is_wanted(configured, shop):
    configured(shop)
    orders = Orders()
    orders.come(enroll, bought(), bought('B', line='2'), shop=origin_in(shop))
    assert done_at(shop) == NOTHING[kind_of(shop)]
    assert 'report_back' not in str(orders.ends)


@REPORTING
def test_when_all_lines_are_done_the_shop_is_told_once(configured, shop):
    configured(shop, report=True)
    orders = Orders()
    for _ in range(2):
        orders.come(enroll, bought(), bought('B', line='2'), shop=origin_in(shop))
    assert done_at(shop) == BOTH[kind_of(shop)]
    assert [it for it in orders.ends if 'report' in it] == ['report_back done', 'report_back skipped']


@REPORTING
def test_it_is_told_when_the_last_learner_has_registered_and_not_before(configured, lms, shop):
    configured(shop, report=True)
    orders = Orders()
    orders.come(enroll, bought(), bought('B', BOB, '2'), shop=origin_in(shop))
    for _ in range(3):
        orders.wait()
        assert done_at(shop) == NOTHING[kind_of(shop)]
    lms.register(BOB, 'bob')
    orders.wait()
    orders.wait()
    assert lms.standing(BOB, TWO) == VERIFIED
    assert done_at(shop) == BOTH[kind_of(shop)]
    assert not orders.waiting


@REPORTING
def test_a_shop_that_cannot_be_told_changes_no_enrolment_and_is_told_later(configured, lms, shop):
    configured(shop, report=True)
    orders, answered, down = Orders(), shop._answer, [True]

    def away(request):
        tells = request.method != 'GET' and b'order(id: $id) { id' not in request.body
        return reply(503) if tells and down else answered(request)

    shop.peer.replies = away
    orders.come(enroll, bought(), bought('B', line='2'), shop=origin_in(shop))
    orders.wait()
    assert [lms.standing(ANN, course) for course in (ONE, TWO)] == [VERIFIED] * 2
    assert [told(it) for it in orders.waiting] == ['report_back retrying']
    assert done_at(shop) == NOTHING[kind_of(shop)]
    down.clear()
    orders.wait()
    assert done_at(shop) == BOTH[kind_of(shop)]
    assert not orders.waiting


@REPORTING
def test_of_an_answer_that_is_lost_the_shop_is_not_told_twice(configured, shop):
    configured(shop, report=True)
    orders, answered = Orders(), shop._answer
    lost: list[Request] = []

    def losing(request):
        found = answered(request)
        notes = request.method == 'POST' and request.target.endswith('/notes')
        if not lost and (notes or b'fulfillmentCreate' in request.body):
            lost.append(request)
            return reply(504)
        return found

    shop.peer.replies = losing
    orders.come(enroll, bought(), bought('B', line='2'), shop=origin_in(shop))
    while orders.waiting:
        orders.wait()
    assert lost
    assert done_at(shop) == BOTH[kind_of(shop)]


@REPORTING
@pytest.mark.parametrize('other', [bought('SHIRT', line='2'), bought('B', [], '2'), bought('B', line='2', quantity=2)])
def test_of_what_it_does_not_do_itself_the_worker_tells_nothing(configured, shop, other):
    configured(shop, report=True, UNKNOWN_PRODUCT='skip')
    orders = Orders()
    for _ in range(2):
        orders.come(enroll, bought(), other, shop=origin_in(shop))
    assert done_at(shop) == ([{'1': 1}] if isinstance(shop, Shopify) else ['processing', (
        'ecommerce-worker: the learners of 1 line are enrolled; the order is left as it is, for it has other lines')])
    assert orders.ends[-1] == 'report_back skipped'


@REPORTING
def test_an_order_without_a_line_that_can_be_done_is_not_waited_for(configured, shop):
    configured(shop, report=True)
    orders = Orders()
    orders.come(enroll, bought('NEW'), shop=origin_in(shop))
    assert orders.ends == ['enroll done', 'enroll_line parked']


@REPORTING
def test_a_shop_that_gave_the_money_back_is_told_nothing(configured, shop):
    configured(shop, report=True)
    give_back(shop)
    orders = Orders()
    orders.come(enroll, bought(), bought('B', line='2'), shop=origin_in(shop))
    assert orders.ends == ['enroll done', 'enroll_line skipped', 'enroll_line skipped', 'report_back skipped']
    assert done_at(shop) == ([] if isinstance(shop, Shopify) else ['refunded'])


@REPORTING
def test_what_the_shop_refuses_is_tried_some_times_and_then_for_people(configured, lms, shop):
    configured(shop, report=True)
    orders = Orders()
    answered = shop._answer
    shop.peer.replies = lambda request: reply(403, b'{}') if b'fulfillmentCreate' in request.body or (
        request.method in ('PUT', 'POST') and b'query' not in request.body) else answered(request)
    orders.come(enroll, bought(), bought('B', line='2'), shop=origin_in(shop))
    for _ in range(20):
        orders.wait()
    assert lms.standing(ANN, ONE) == VERIFIED
    assert len(orders.parked) == 1
    assert '(403); given up after 12 tries' in orders.parked[0]


def test_in_shopify_each_location_has_a_fulfilment_of_its_own(configured, shopify):
    configured(shopify, report=True)
    for line, location in zip(shopify.orders[0]['line_items'], ('here', 'there'), strict=True):
        line['location'] = location
    Orders().come(enroll, bought(), bought('B', line='2'), shop=origin_in(shopify))
    assert sorted(map(str, done_at(shopify))) == ["{'1': 1}", "{'2': 1}"]


def test_in_shopify_what_is_held_back_is_waited_for_and_what_was_taken_out_is_not(configured, shopify):
    configured(shopify, report=True)
    shopify.states = {'here': 'ON_HOLD'}
    shopify.orders[0].update(financial_status='partially_refunded')
    shopify.orders[0]['line_items'][1]['current_quantity'] = 0
    orders = Orders()
    orders.come(enroll, bought(), bought('B', line='2'), shop=origin_in(shopify))
    assert 'has put the fulfilment of this order on hold' in orders.waiting[0].outcome.reason
    shopify.states = {}
    orders.wait()
    assert done_at(shopify) == [{'1': 1}]
    assert not orders.waiting


def test_in_shopify_a_fulfilment_that_somebody_was_faster_with_is_done(configured, shopify):
    configured(shopify, report=True)
    answered = shopify._answer

    def faster(request):
        if b'fulfillmentCreate' in request.body and not shopify.fulfillments:
            shopify.fulfillments.append(('7', {'1': 1, '2': 1}))
        return answered(request)

    shopify.peer.replies = faster
    orders = Orders()
    orders.come(enroll, bought(), bought('B', line='2'), shop=origin_in(shopify))
    assert orders.ends[-1] == 'report_back done'
    assert done_at(shopify) == [{'1': 1, '2': 1}]


def test_in_woocommerce_what_is_refunded_meanwhile_is_not_completed(configured, woo):
    configured(woo, report=True)
    answered = woo._answer

    def refunding(request):
        found = answered(request)
        if request.method == 'POST':
            give_back(woo)
        return found

    woo.peer.replies = refunding
    orders = Orders()
    orders.come(enroll, bought(), bought('B', line='2'), shop=origin_in(woo))
    assert woo.orders[0]['status'] == 'refunded'
    assert not orders.parked


@pytest.mark.parametrize('changed', [
    {'shop': None}, {'seats': []}, {'seats': 7}, {'seats': [7]}, {'seats': [{'line': 1}]},
    {'seats': [{'line': '1', 'learner': ANN, 'course_id': 'x', 'mode': 'verified'}]},
    {'seats': [{'line': '1', 'learner': 'x', 'course_id': ONE, 'mode': None}]},
])
def test_a_report_that_is_none_is_parked(configured, shopify, changed):
    configured(shopify, report=True)
    orders = Orders()
    orders.publish(Then(report_back.name, {'order_number': '#1', 'shop': origin_in(shopify), 'whole': True, 'seats': [
        {'line': '1', 'learner': ANN, 'course_id': ONE, 'mode': 'verified'}], **changed}))
    assert len(orders.parked) == 1
    assert 'programming error' not in orders.parked[0]


@pytest.mark.parametrize('placed', [10 ** 400, -1, True, '2026', None], ids=range(5))
def test_a_message_may_say_anything_of_when_its_order_was_placed(configured, lms, woo, placed):
    configured(woo, key='')
    Orders().come(enroll, bought(), shop={**origin_in(woo), 'placed': placed})
    assert lms.standing(ANN, ONE) == VERIFIED


def test_an_intake_that_reports_needs_a_key(configured, shopify):
    made = configured(shopify, key='', report=True)
    with pytest.raises(Misconfigured, match=r'INTAKES\[shop\]\[report_back\] needs a key to the API of the shop'):
        intakes.read(made.settings, {it.name: it for it in (enroll, revoke)})


def test_no_reason_and_no_report_of_a_run_names_a_learner(configured, lms, woo, caplog):
    configured(woo, report=True)
    orders = Orders()
    orders.come(enroll, bought(), bought('B', BOB, '2'), shop=origin_in(woo))
    shown = caplog.text + str([it.outcome for it in orders.runs if not isinstance(it.outcome, Done)])
    assert any(isinstance(it.outcome, Retrying | Parked) for it in orders.runs)
    assert 'example.com' not in shown
    assert 'example.com' not in str(woo.notes)
