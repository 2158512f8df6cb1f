"""Deliveries that never came: what shops tell of them, and what becomes of it."""

import json
import time

import pytest

from ecommerce_worker.broker import facts, publishing
from ecommerce_worker.broker.app import Application
from ecommerce_worker.broker.publishing import Publication
from ecommerce_worker.enrolment import tasks
from ecommerce_worker.intake import intakes
from ecommerce_worker.resubmit.missed import Wish, reconcile
from ecommerce_worker.testing.intake import SECRET as SIGNING
from ecommerce_worker.testing.intake import InMemory
from ecommerce_worker.testing.peer import reply
from ecommerce_worker.testing.shops import KEY, SECRET, Shopify, Stripe, WooCommerce, gmt

KNOWN = {it.name: it for it in (tasks.enroll, tasks.revoke)}
COURSE = {'course': 'course-v1:edX+A+1', 'mode': 'verified'}
HOUR = 3600
URL = 'https://intake.example.com'
DAYS = Wish(since=2 * 86_400, grace=900)


def woo_order(number, age=HOUR, **fields):
    changed = gmt(time.time() - age)
    return {'id': int(number), 'number': number, 'status': 'processing', 'date_paid_gmt': changed,
            'date_modified_gmt': changed, 'refunds': [], 'billing': {'email': 'ann@example.com'},
            'line_items': [{'id': 1, 'sku': 'A', 'quantity': 1}], **fields}


def stripe_event(number, age=HOUR, **fields):
    return {'id': f'evt_{number}', 'type': 'checkout.session.completed', 'livemode': True,
            'created': int(time.time() - age), 'data': {'object': {
                'id': f'cs_{number}', 'client_reference_id': number, 'payment_status': 'paid',
                'metadata': {'sku': 'A'}, 'customer_details': {'email': 'ann@example.com'}}}, **fields}


def shopify_order(number, age=HOUR, **fields):
    return {'id': int(number), 'name': number, 'email': 'ann@example.com', 'financial_status': 'paid', 'test': False,
            'updated_at': gmt(time.time() - age) + 'Z', 'note_attributes': [], 'line_items': [
                {'id': 1, 'sku': 'A', 'quantity': 1, 'properties': [{'name': 'email', 'value': 'bob@example.com'}]}],
            **fields}


@pytest.fixture
def shopify():
    with Shopify() as shop:
        yield shop


@pytest.fixture
def woo():
    with WooCommerce() as shop:
        shop.webhooks = [{'id': 7, 'delivery_url': f'{URL}/in/shop', 'status': 'active'}]
        yield shop


@pytest.fixture
def stripe():
    with Stripe() as shop:
        shop.webhooks = [{'id': 'we_1', 'url': f'{URL}/in/shop', 'status': 'enabled'}]
        yield shop


@pytest.fixture
def published(monkeypatch):
    """What is published."""
    found: list[Publication] = []
    monkeypatch.setattr(publishing, 'publish', lambda app, publication: found.append(publication))
    monkeypatch.setattr(facts, 'tell', lambda app, settings, *reports: None)
    return found


@pytest.fixture
def reading(in_force):
    """Puts an intake of a shop in force, and gives the intakes."""
    def of(shop, **options):
        given = {WooCommerce: {'kind': 'woocommerce', 'source': shop.url, 'api_key': KEY, 'api_secret': SECRET,
                               'spool': True},
                 Shopify: {'kind': 'shopify', 'api_token': SECRET, 'api_url': shop.url},
                 Stripe: {'kind': 'stripe', 'api_key': KEY, 'api_url': shop.url}}[type(shop)]
        made = in_force(PRODUCTS=json.dumps({'A': [COURSE]}),
                        INTAKES=json.dumps({'shop': {'secrets': [SIGNING], **given, **options}}))
        return intakes.read(made.settings, KNOWN)
    return of


@pytest.fixture
def run(published, reading):
    """Reconciles with a shop: ``run(shop, heard={<task>: {'1'}})``."""
    def go(shop, wish=DAYS, heard=None, **options):
        with Application('w', broker='memory://', set_as_current=False) as app:
            app.tasks.update(KNOWN)
            return reconcile(app, reading(shop, **options),
                             lambda numbers, task: set(numbers) & set((heard or {}).get(task, ())), wish, URL)
    return go


def numbers(published):
    return [json.loads(it.raw.body)[1]['order_number'] for it in published]


def test_what_woocommerce_has_and_the_ledger_has_not_is_published(run, woo, published):
    woo.orders = [woo_order('1'), woo_order('2'), woo_order('3', status='on-hold'), woo_order('4', date_paid_gmt=None)]
    report = run(woo, heard={tasks.enroll.name: {'1'}})
    assert numbers(published) == ['2']
    assert json.loads(published[0].raw.body)[1]['lines'] == [
        {'line': '1', 'product': 'A', 'quantity': 1, 'learner': ['ann@example.com']}]
    assert (report.published, report.status, report.looked_at) == (1, 0, 2)


def test_what_stripe_has_is_published_under_the_id_that_its_delivery_would_have(run, reading, stripe, published):
    event = stripe_event('1')
    stripe.events = [event]
    run(stripe)
    body = json.dumps(event).encode()
    intake = InMemory(reading(stripe)['shop'])
    answer = intake.post(body, intake.source.signed(body, SIGNING.encode(), '', time.time()))
    assert published[0].raw.headers['id'] == answer.content['id']
    assert published[0].raw.body == intake.published[0].raw.body


@pytest.mark.parametrize('access', [{}, {'api_token': '', 'api_key': KEY, 'api_secret': SECRET}])
def test_what_shopify_has_is_read_as_its_webhooks_are(run, shopify, published, access):
    shopify.orders = [shopify_order('1'), shopify_order('2'), shopify_order('3', test=True)]
    report = run(shopify, heard={tasks.enroll.name: {'1'}}, **access)
    assert numbers(published) == ['2']
    assert json.loads(published[0].raw.body)[1]['lines'] == [
        {'line': '1', 'product': 'A', 'quantity': 1, 'learner': ['bob@example.com']}]
    assert report.status == 0


def test_what_shopify_gave_back_a_part_of_is_enrolled_and_revoked(run, shopify, published):
    line = shopify_order('1')['line_items'][0]
    shopify.orders = [
        shopify_order('1', financial_status='partially_refunded', line_items=[line, {
            **line, 'id': 2, 'current_quantity': 0}]),
        shopify_order('2', financial_status='refunded')]
    run(shopify)
    assert [it.raw.headers['task'] for it in published] == [tasks.enroll.name, tasks.revoke.name, tasks.revoke.name]
    assert [[line['quantity'] for line in json.loads(it.raw.body)[1]['lines']] for it in published] == [
        [1, 0], [0, 1], [1]]


def told(*codes, **extensions):
    return reply(200, json.dumps({'errors': [{'extensions': {'code': code}} for code in codes],
                                  'extensions': extensions}).encode())


@pytest.mark.parametrize('answer, status, word', [
    (told('THROTTLED', cost={'requestedQueryCost': 500, 'throttleStatus': {
        'currentlyAvailable': 0, 'restoreRate': 50}}), 75, 'slow down'),
    (told('THROTTLED'), 75, 'slow down'), (told('INTERNAL_SERVER_ERROR'), 75, 'failed'),
    (told('ACCESS_DENIED'), 1, 'ACCESS_DENIED'), (reply(200, b'{"errors": "no"}'), 1, 'without a code'),
    (reply(200, b'{"data": null}'), 75, 'unexpected JSON'),
    (reply(200, b'{"data": {"orders": {"nodes": [7]}}}'), 75, 'unexpected JSON'),
    (reply(401, b'{"errors": "Invalid"}'), 1, 'credentials'), (reply(423, b'{}'), 1, '423'),
])
def test_errors_of_shopify_are_looked_for_inside_of_a_200(run, shopify, published, answer, status, word):
    shopify.orders = [shopify_order('1')]
    shopify.answers = [answer]
    report = run(shopify)
    assert (report.status, len(report.troubles)) == (status, 1)
    assert word in report.troubles[0]
    assert not published


def test_young_and_old_orders_are_left(run, woo, stripe, shopify, published):
    ages = {'1': 60, '2': HOUR, '3': 3 * 86_400}
    woo.orders = [woo_order(number, age) for number, age in ages.items()]
    stripe.events = [stripe_event(number, age) for number, age in ages.items()]
    shopify.orders = [shopify_order(number, age) for number, age in ages.items()]
    for shop in (woo, stripe, shopify):
        run(shop)
    assert numbers(published) == ['2'] * 3


def test_a_shop_that_ignores_the_window_is_read_with_care(run, published):
    with WooCommerce(old=True) as woo:
        woo.orders = [woo_order('1', 3 * 86_400), woo_order('2')]
        run(woo)
    assert numbers(published) == ['2']


@pytest.mark.parametrize('kind', [WooCommerce, Stripe, Shopify])
def test_all_pages_are_read(run, kind, published):
    with kind(page=2) as shop:
        made = {WooCommerce: woo_order, Stripe: stripe_event, Shopify: shopify_order}[kind]
        shop.orders = shop.events = [made(str(number)) for number in range(1, 6)]
        run(shop)
    assert numbers(published) == ['1', '2', '3', '4', '5']


def test_an_order_of_more_lines_than_are_told_at_once_is_read_to_its_end(run, shopify, published):
    line = shopify_order('1')['line_items'][0]
    shopify.orders = [shopify_order('1', line_items=[{**line, 'id': number} for number in range(1, 321)])]
    report = run(shopify)
    assert [it['line'] for it in json.loads(published[0].raw.body)[1]['lines']] == [str(it) for it in range(1, 321)]
    assert not report.troubles


def test_a_refund_that_never_came_is_known_apart_from_its_order(run, woo, stripe, published):
    woo.orders = [woo_order('1', status='refunded', refunds=[{'id': 5}])]
    charge = {'refunded': True, 'metadata': {'order_number': '1', 'sku': 'A'}}
    stripe.events = [stripe_event('1'), stripe_event('2', type='charge.refunded', data={'object': charge})]
    enrolled = {tasks.enroll.name: {'1'}}
    run(woo, heard=enrolled)
    run(stripe, heard=enrolled)
    assert [it.raw.headers['task'] for it in published] == [tasks.revoke.name] * 2


def test_an_order_of_which_several_events_tell_is_published_once(run, stripe, published):
    stripe.events = [stripe_event('1'), stripe_event('1', id='evt_9')]
    run(stripe)
    assert numbers(published) == ['1']


def test_a_dry_run_publishes_and_repairs_nothing(run, woo, published):
    woo.orders = [woo_order('1')]
    woo.webhooks[0]['status'] = 'disabled'
    report = run(woo, Wish(2 * 86_400, 900, dry_run=True, repair=True))
    assert not published
    assert [it.result for it in report.missed] == ['would be published']
    assert woo.webhooks[0]['status'] == 'disabled'


@pytest.mark.parametrize('repair, word', [(False, 'reconcile --repair'), (True, 'it is enabled again')])
@pytest.mark.parametrize('kind', ['woo', 'stripe'])
def test_a_webhook_that_was_switched_off_is_told_and_repaired_if_wanted(run, request, kind, repair, word):
    shop = request.getfixturevalue(kind)
    shop.webhooks[0]['status'] = 'disabled'
    report = run(shop, Wish(2 * 86_400, 900, repair=repair))
    assert word in report.troubles[0]
    assert bool(report.webhooks['shop']) is not repair
    assert report.status == 1
    assert (shop.webhooks[0]['status'] != 'disabled') is repair


def test_a_webhook_that_is_gone_is_told(run, woo):
    woo.webhooks[0]['delivery_url'] = 'https://other.example.com/'
    report = run(woo)
    assert 'no webhook to https://intake.example.com/in/shop' in report.troubles[0]
    assert report.webhooks == {'shop': 'has no webhook to https://intake.example.com/in/shop'}


def test_of_several_webhooks_one_that_delivers_will_do(run, woo):
    woo.webhooks.append({**woo.webhooks[0], 'id': 8, 'status': 'disabled'})
    assert run(woo).webhooks == {'shop': ''}


@pytest.mark.parametrize('answer, status', [
    (reply(401), 1), (reply(403), 1), (reply(404), 1), (reply(503), 75), (reply(429), 75), (reply(500), 75),
    (reply(301, b'', ['Location: https://www.example.com/']), 1), (reply(200, b'<html>'), 75),
    (reply(200, b'{}'), 75), (reply(200, b'[7]'), 75), (reply(200, b'null'), 75),
])
@pytest.mark.parametrize('kind', ['woo', 'stripe'])
def test_a_shop_that_cannot_be_asked_is_told_and_nothing_is_published(run, request, kind, answer, status, published):
    shop = request.getfixturevalue(kind)
    shop.orders, shop.events = [woo_order('1')], [stripe_event('1')]
    shop.answers = [answer, answer]
    report = run(shop)
    assert (report.status, len(report.troubles)) == (status, 1 if status == 75 else 2)
    assert not published
    assert KEY not in str(report.troubles)


@pytest.mark.parametrize('kind', ['woo', 'stripe'])
def test_a_key_that_may_not_see_webhooks_is_good_for_orders(run, request, kind, published):
    shop = request.getfixturevalue(kind)
    shop.orders, shop.events = [woo_order('1')], [stripe_event('1')]
    shop.answers = [reply(403)]
    report = run(shop)
    assert numbers(published) == ['1']
    assert 'its webhooks' in report.troubles[0]


def test_an_order_that_cannot_be_read_holds_up_no_other(run, woo, published):
    woo.orders = [woo_order('1', line_items=7), woo_order('2', refunds=[{'id': 1}]), woo_order('3')]
    report = run(woo)
    assert numbers(published) == ['3']
    assert len(report.troubles) == 2


def test_intakes_without_a_key_are_left_and_told_of_if_they_are_named(run, woo):
    assert not run(woo, api_key='').troubles
    assert 'no key' in run(woo, Wish(2 * 86_400, 900, ['shop']), api_key='').troubles[0]


def test_a_key_may_stand_in_a_file(run, stripe, tmp_path, published):
    (tmp_path / 'key').write_text(KEY + '\n')
    stripe.events = [stripe_event('1')]
    run(stripe, api_key=f'file:{tmp_path / "key"}')
    assert numbers(published) == ['1']
    assert 'cannot be read' in run(stripe, api_key='file:/nowhere/at/all').troubles[0]
