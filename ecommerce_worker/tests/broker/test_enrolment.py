"""From the webhook to the enrolment, with a real intake, a real RabbitMQ, real workers and a stand-in LMS."""

import json
import random
from dataclasses import dataclass

import pytest

from ecommerce_worker.testing.intake import SECRET
from ecommerce_worker.testing.lms import CLIENT_ID, CLIENT_SECRET, Course, Lms, Step
from ecommerce_worker.testing.rabbitmq import free_port
from ecommerce_worker.testing.shops import KEY, WooCommerce
from ecommerce_worker.testing.shops import SECRET as API_SECRET
from ecommerce_worker.tests.support.harness import QUEUE, eventually
from ecommerce_worker.tests.support.intake import Intake, order, signed

COURSES = [f'course-v1:edX+C{number}+1' for number in range(4)]
VERIFIED = ('verified', True)
ENROLL = 'ecommerce_worker.enrolment.tasks.enroll'
REVOKE = 'ecommerce_worker.enrolment.tasks.revoke'


@pytest.fixture
def lms():
    with Lms() as lms:
        lms.courses = {course: Course() for course in COURSES}
        yield lms


@pytest.fixture
def settings(environment, lms):
    """Those of an LMS, and of what is sold there; the environment of programs is with them."""
    given = {
        'LMS_ROOT_URL': lms.url, 'BACKEND_SERVICE_EDX_OAUTH2_PROVIDER_URL': lms.oauth2_root,
        'BACKEND_SERVICE_EDX_OAUTH2_KEY': CLIENT_ID, 'BACKEND_SERVICE_EDX_OAUTH2_SECRET': CLIENT_SECRET,
        'COVERED_BY': 'nothing', 'HTTP_READ_TIMEOUT': 5,
        'PRODUCTS': json.dumps({f'C{number}': [{'course': course, 'mode': 'verified'}]
                                for number, course in enumerate(COURSES)})}
    environment.update({f'ECOMMERCE_WORKER_{name}': str(value) for name, value in given.items()})
    return given


def bought(who, *products):
    return [{'line': str(number), 'product': product, 'learner': who} for number, product in enumerate(products, 1)]


def test_a_paid_order_is_enrolled_and_refunded(settings, environment, start_worker, tmp_path, lms):
    environment['ECOMMERCE_WORKER_INTAKES'] = json.dumps({'shop': {'kind': 'shopify', 'secrets': [SECRET]}})
    environment['ECOMMERCE_WORKER_INTAKE_ADDRESS'] = f'127.0.0.1:{(port := free_port())}'
    lms.register('learner@example.com', 'ann')
    start_worker().ready()
    intake = Intake(port, tmp_path / 'intake.log', environment)
    lines = [{'id': 1, 'sku': 'C0', 'quantity': 1}, {'id': 2, 'sku': 'C1', 'quantity': 1}]
    try:
        intake.ready()
        paid = order('#1001', line_items=lines)
        states = [intake.post('shop', paid, signed('shopify', paid)).state for _ in range(2)]
        eventually(lambda: [lms.standing('learner@example.com', it) for it in COURSES[:2]] == [VERIFIED] * 2)
        back = order('#1001', financial_status='partially_refunded', refunds=[{'id': 7}],
                     line_items=[lines[0], {**lines[1], 'current_quantity': 0}])
        intake.post('shop', back, signed('shopify', back, 'orders/updated'))
        eventually(lambda: lms.standing('learner@example.com', COURSES[1]) == ('verified', False))
    finally:
        intake.kill()
    assert states == ['accepted', 'accepted']  # each delivery is an action of its own, and the second finds it done
    assert lms.standing('learner@example.com', COURSES[0]) == VERIFIED
    assert len(lms.changes) == 3
    assert 'learner@example.com' not in intake.log


def test_while_the_lms_is_away_orders_wait_and_then_all_are_enrolled_once(settings, broker, start_worker, publish, lms):
    people = [f'p{number}@example.com' for number in range(12)]
    for who in people:
        lms.register(who, who.partition('@')[0])
    lms.stop()
    worker = start_worker().ready()
    for who in people:
        publish(f'#{who}', lines=bought(who, 'C0', 'C1'), task=ENROLL, queue=QUEUE, serializer='json')
    eventually(lambda: 'circuit breaker open' in worker.log and broker.waiting() >= 2)
    assert not broker.parked()
    lms.start()
    eventually(lambda: all(lms.standing(who, it) == VERIFIED for who in people for it in COURSES[:2]))
    assert len(lms.changes) == 24
    assert not broker.parked()


def test_a_worker_that_is_killed_between_lines_enrols_all_of_them_once(settings, broker, start_worker, publish, lms):
    lms.register('ann@example.com', 'ann')
    lms.script['POST enrollment'] = [Step.status(503)]
    worker = start_worker(WORKER_CONCURRENCY=1).ready()
    publish('#1', lines=bought('ann@example.com', 'C0', 'C1', 'C2', 'C3'), task=ENROLL, queue=QUEUE, serializer='json')
    eventually(lambda: lms.changes)
    worker.kill()
    for _ in range(2):  # the shop tells of it again meanwhile
        publish('#1', lines=bought('ann@example.com', 'C0', 'C1', 'C2', 'C3'), task=ENROLL, queue=QUEUE,
                serializer='json')
    start_worker().ready()
    eventually(lambda: all(lms.standing('ann@example.com', it) == VERIFIED for it in COURSES))
    eventually(lambda: not broker.depth(QUEUE) and not broker.waiting())
    assert sorted(lms.changes) == [('ann', it, *VERIFIED) for it in COURSES]
    assert not broker.parked()


def test_a_line_that_cannot_be_is_parked_alone_under_the_number_of_its_order(settings, broker, start_worker, publish,
                                                                             command, lms):
    lms.register('ann@example.com', 'ann')
    lms.courses[COURSES[1]].expired = frozenset({'verified'})
    start_worker().ready()
    publish('#1', lines=bought('ann@example.com', 'C0', 'C1'), task=ENROLL, queue=QUEUE, serializer='json')
    note = eventually(lambda: broker.parked_order('#1 2'))
    assert 'its enrolment period is over' in str(note)
    eventually(lambda: lms.standing('ann@example.com', COURSES[0]) == VERIFIED)
    lms.courses[COURSES[1]].expired = frozenset()
    sent = command('parked', 'resend', '--order', '#1')
    assert sent.returncode == 0, sent.stdout + sent.stderr
    eventually(lambda: lms.standing('ann@example.com', COURSES[1]) == VERIFIED)
    assert not broker.parked()


@dataclass
class Bought:
    """An order of a shop: for whom, of which products, and whether the money was given back in the end."""

    number: str
    who: str
    products: tuple[str, ...]
    refunded: bool = False


def test_whatever_breaks_who_paid_is_enrolled_and_who_was_refunded_is_not_and_who_is_covered_stays(
        settings, environment, broker, recorder, start_worker, publish, command, lms):
    chance = random.Random(15)
    people = [f'p{number}' for number in range(6)]
    orders = [Bought(str(place), who, ('C0', 'C1'), refunded=place in (2, 5)) for place, who in enumerate(people, 1)]
    # Two of them have bought one of the courses twice, and are to get the one or the other order's money back.
    twice = [Bought('11', 'p0', ('C0',), refunded=True), Bought('12', 'p2', ('C0',))]
    for who in people:
        lms.register(f'{who}@example.com', who)
    with WooCommerce() as shop:
        shop.orders = [{'id': int(it.number), 'number': it.number, 'status': 'processing', 'refunds': [],
                        'date_paid_gmt': '2026-01-01T00:00:00'} for it in (*orders, *twice)]
        environment |= {
            'ECOMMERCE_WORKER_INTAKES': json.dumps({'blog': {
                'kind': 'woocommerce', 'secrets': [SECRET], 'source': shop.url, 'spool': True, 'api_key': KEY,
                'api_secret': API_SECRET}}),
            'ECOMMERCE_WORKER_COVERED_BY': 'ledger', 'ECOMMERCE_WORKER_LEARNER_KEY': 'a key of the learners ' * 2}

        def tell(it, task):
            if task == REVOKE:
                next(each for each in shop.orders if each['number'] == it.number)['status'] = 'refunded'
            publish(it.number, lines=bought(f'{it.who}@example.com', *it.products), task=task, queue=QUEUE,
                    serializer='json', shop={'intake': 'blog', 'order': it.number})

        def through(worker):
            """Return when nothing is left to do, with the worker that is left."""
            while True:
                eventually(lambda: not broker.depth(QUEUE) and not broker.waiting())
                worker.stop()  # what it has in hand it does, or gives back
                if not (broker.depth(QUEUE) or broker.waiting()):
                    return
                worker = start_worker().ready()

        # The LMS is down; orders are told of once, twice or three times, and some of them are refunded meanwhile.
        lms.stop()
        worker = start_worker(WORKER_CONCURRENCY=4).ready()
        events = [(it, ENROLL) for it in (*orders, *twice) for _ in range(chance.randint(1, 3))]
        chance.shuffle(events)
        for it, task in [*events, *((it, REVOKE) for it in orders if it.refunded for _ in range(2))]:
            tell(it, task)
        eventually(lambda: broker.waiting() > 10)
        lms.start()
        eventually(lambda: len(lms.changes) > 2)
        worker.kill()
        through(start_worker().ready())
        assert all(lms.standing('p0@example.com', course) == VERIFIED for course in COURSES[:2])

        # One of two orders for a course is refunded; and all orders are told of once more, much too late.
        before = len(lms.changes)
        twice[1:] = []
        orders[2].refunded = True
        for it in (twice[0], orders[2]):
            tell(it, REVOKE)
        for it in (*orders, *twice):
            tell(it, ENROLL)
        through(start_worker().ready())

    paid = {(it.who, course) for it in orders if not it.refunded for course in COURSES[:2]} | {('p2', COURSES[0])}
    for who in people:
        for course in COURSES[:2]:
            standing = lms.standing(f'{who}@example.com', course)
            assert (standing == VERIFIED) is ((who, course) in paid), (who, course, standing)
    assert [it for it in lms.changes[before:] if it[:2] in paid] == []  # nobody who is covered was put out for a moment
    assert {mode for _, _, mode, _ in lms.changes} == {'verified'}
    assert not broker.parked()
    found = command('orders', 'covering', '--order', '3', '--course', COURSES[0], '--learner', 'p2@example.com')
    assert found.returncode == 0, found.stderr
    assert found.stdout == f'12\n1 other order of this learner for {COURSES[0]}; the refund of 3 is done\n'
    found = command('orders', 'bought', '--order', '3', '--json')
    assert json.loads(found.stdout) == {'lines': [
        {'product': f'C{number}', 'course': COURSES[number], 'mode': 'verified'} for number in range(2)]}
    shown = command('orders', 'show', '1')
    assert [word for word in ('1 1', 'C0', COURSES[0], 'p…@e….com', 'done') if word not in shown.stdout] == []
    assert 'example.com' not in shown.stdout
    assert '11 1' in command('orders', 'show', '-', answer='p0@example.com\n').stdout
