"""What cannot be published or parked at present: it is kept, goes as soon as it can, and stands before nobody."""

from __future__ import annotations

import time

import pytest

from ecommerce_worker.broker import publishing, topology
from ecommerce_worker.broker.notes import Notes, ParkingNote
from ecommerce_worker.broker.publishing import Publication, parked_message, waiting_call
from ecommerce_worker.broker.topology import PARKED
from ecommerce_worker.broker.wire import Call, Raw
from ecommerce_worker.telemetry.run import RunReport
from ecommerce_worker.testing.shop import Answer
from ecommerce_worker.tests.support.harness import QUEUE, eventually, shop_app
from ecommerce_worker.worker import keeper as module
from ecommerce_worker.worker.keeper import Keeper, Kept

REPORT = RunReport('parked', task='task', id='id-1', key='1', attempt=1, seconds=0.1)


class Settled:
    """Remembers how messages were settled."""

    def __init__(self):
        self.how: dict[str, bool] = {}

    def __call__(self, name):
        return lambda done: self.how.__setitem__(name, done)


@pytest.fixture
def settled():
    return Settled()


@pytest.fixture
def app(broker):
    """An application that consumes what a worker does."""
    with shop_app(broker.url) as app:
        app.conf.task_queues = [topology.task_queue(QUEUE)]
        app.conf.broker_transport_options = {'read_timeout': 15, 'write_timeout': 15}
        with app.connection_for_write() as connection:
            topology.declare(connection, app.conf.task_queues)
        yield app


def waits(number, delay=600):
    return waiting_call(Call('task', f'id-{number}', (number,)), Notes(queue=QUEUE), delay)


def parks(number, headers=None):
    return parked_message(Raw(b'{}', 'application/json', 'utf-8', headers or {}), ParkingNote(
        id=f'id-{number}', task='task', key=str(number), reason='why', notes=Notes(queue=QUEUE)))


def keep(keeper, settled, name, *publications):
    keeper.keep(Kept((name,), publications, settled(name)))


def refuse(broker, on):
    if on:
        broker.node.ctl('set_policy', 'full', f'^{PARKED}$', '{"max-length":0,"overflow":"reject-publish"}')
    else:
        broker.node.ctl('clear_policy', 'full')


def test_a_message_is_settled_when_all_that_follows_from_it_is_with_the_broker(app, broker, settled):
    keeper = Keeper(app)
    for number in range(200):
        keep(keeper, settled, str(number), waits(number), waits(-number))
    eventually(lambda: len(settled.how) == 200)
    assert set(settled.how.values()) == {True}
    assert broker.waiting() == 400
    assert keeper.end(0)


def test_what_the_parked_queue_refuses_is_kept_and_others_go_on(app, broker, settled):
    keeper = Keeper(app)
    refuse(broker, True)
    try:
        for number in range(20):
            keep(keeper, settled, f'parked {number}', parks(number))
        for number in range(20):
            keep(keeper, settled, f'waits {number}', waits(number))
        eventually(lambda: sum(settled.how.values()) == 20)
        assert all(name.startswith('waits') for name in settled.how)
        assert keeper.count() == 20
        eventually(lambda: keeper.late() == {'parked': 20})
    finally:
        refuse(broker, False)
    eventually(lambda: len(settled.how) == 40)
    assert broker.depth(PARKED) == 20


def test_a_way_that_is_forbidden_keeps_its_own_messages_only(app, broker, settled):
    keeper = Keeper(app)
    forbidden = topology.entrance(600)
    broker.node.ctl('set_permissions', '-p', '/', 'guest', '.*', f'^(?!{forbidden}$).*$', '.*')
    try:
        for number in range(5):
            keep(keeper, settled, f'forbidden {number}', waits(number, 600))
            keep(keeper, settled, f'allowed {number}', waits(number, 30))
        eventually(lambda: len(settled.how) == 5)
        assert all(name.startswith('allowed') for name in settled.how)
    finally:
        broker.node.ctl('set_permissions', '-p', '/', 'guest', '.*', '.*', '.*')
    eventually(lambda: len(settled.how) == 10)
    assert broker.waiting() == 10


def test_a_waiting_room_that_was_deleted_is_missed_and_used_when_it_is_declared_anew(app, broker, settled):
    keeper = Keeper(app)
    keep(keeper, settled, 'before', waits(1))
    eventually(lambda: settled.how == {'before': True})
    with broker.connection() as connection:
        connection.channel().queue_delete(topology.level(9))
        publishing.missed.clear()
        keep(keeper, settled, 'after', waits(2))
        assert publishing.missed.wait(30)
        topology.declare(connection, app.conf.task_queues)
    eventually(lambda: 'after' in settled.how)
    assert broker.waiting() == 1


def test_a_message_that_rabbitmq_cannot_take_stands_before_nobody(app, settled):
    keeper = Keeper(app)
    keep(keeper, settled, 'unfit', Publication(Raw(b'{}', None, None, {'x': 'y' * 200_000}), PARKED))
    for number in range(10):
        keep(keeper, settled, str(number), parks(number))
    eventually(lambda: len(settled.how) == 10)
    assert 'unfit' not in settled.how
    assert keeper.count() == 1


def test_what_cannot_be_parked_goes_to_its_own_queue_as_new_before_it_would_have_to_be_given_back(app, broker, settled):
    told: list[RunReport] = []
    keeper = Keeper(app, keep_seconds=30, last_seconds=28, given_back=told.append)
    refuse(broker, True)
    try:
        keeper.keep(Kept(('parked',), (parks(1),), settled('parked'), REPORT))
        eventually(lambda: settled.how == {'parked': True})
    finally:
        refuse(broker, False)
    assert [each.outcome for each in told] == ['returned']
    assert broker.depth(PARKED) == 0
    message = first_of(broker)
    notes = Notes.of(message.headers)
    assert (message.content_type, notes.queue, notes.ask) == ('application/json', QUEUE, True)


def test_what_cannot_wait_goes_to_its_own_queue_with_the_time_before_which_it_does_not_run(app, broker, settled):
    keeper = Keeper(app, keep_seconds=30, last_seconds=28)
    broker.node.ctl('set_permissions', '-p', '/', 'guest', '.*', '^(?!ecommerce_celery_delayed_[0-9]).*$', '.*')
    try:
        began = time.time()
        keep(keeper, settled, 'waits', waits(1, 600))
        eventually(lambda: settled.how == {'waits': True})
    finally:
        broker.node.ctl('set_permissions', '-p', '/', 'guest', '.*', '.*', '.*')
    message = first_of(broker)
    notes = Notes.of(message.headers)
    assert notes.due
    assert began + 600 < notes.due < time.time() + 600
    assert message.headers['id'] == 'id-1'


def first_of(broker):
    """The first message of the queue, left there."""
    with broker.connection() as connection:
        return topology.task_queue(QUEUE).bind(connection.channel()).get()


def test_what_can_go_nowhere_is_given_back_once(app, broker, settled):
    keeper = Keeper(app, keep_seconds=3, last_seconds=1)
    broker.node.ctl('set_permissions', '-p', '/', 'guest', '.*', '^$', '.*')
    try:
        keep(keeper, settled, 'parked', parks(1))
        keep(keeper, settled, 'waits', waits(1))
        eventually(lambda: settled.how == {'parked': False, 'waits': False})
    finally:
        broker.node.ctl('set_permissions', '-p', '/', 'guest', '.*', '.*', '.*')
    assert keeper.end(0)
    # What was given back is published no more, once it could be.
    keep(keeper, settled, 'after', parks(2))
    eventually(lambda: 'after' in settled.how)
    time.sleep(2 * module.SHORTEST)
    assert (broker.depth(PARKED), broker.depth(QUEUE), broker.waiting()) == (1, 0, 0)


def test_a_message_that_is_delivered_again_is_published_once_and_all_are_acknowledged(app, broker, settled):
    keeper = Keeper(app)
    assert not keeper.adopt(('parked',), settled('again'))
    refuse(broker, True)
    try:
        keep(keeper, settled, 'parked', parks(1))
        assert keeper.adopt(('parked',), settled('again'))
    finally:
        refuse(broker, False)
    eventually(lambda: settled.how == {'parked': True, 'again': True})
    assert keeper.adopt(('parked',), settled('and again'))
    assert settled.how['and again'] is True
    assert broker.depth(PARKED) == 1


def test_of_two_that_cannot_be_told_apart_each_is_published_and_acknowledged(app, broker, settled):
    # A shop published it twice, say, or it was delivered again while its run went on: either may be what matters.
    keeper = Keeper(app)
    refuse(broker, True)
    try:
        keeper.keep(Kept(('message',), (parks(1),), settled('first')))
        keeper.keep(Kept(('message',), (waits(1),), settled('second')))
        eventually(lambda: settled.how == {'second': True})
    finally:
        refuse(broker, False)
    eventually(lambda: settled.how == {'first': True, 'second': True})
    assert (broker.depth(PARKED), broker.waiting()) == (1, 1)
    assert keeper.end(0)


@pytest.fixture
def alarm(broker):
    """Has RabbitMQ take nothing, as if its disk were full: ``alarm(True)``."""
    before = broker.node.ctl('eval', 'rabbit_disk_monitor:get_disk_free_limit().').strip()

    def set_off(on):
        broker.node.ctl('set_disk_free_limit', str(10 ** 15) if on else before)
        eventually(lambda: ('disk' in broker.node.ctl('eval', 'rabbit_alarm:get_alarms().')) is on)

    yield set_off
    set_off(False)


def test_nothing_is_published_twice_for_an_alarm(app, broker, alarm, settled):
    app.conf.broker_transport_options = {'read_timeout': 1, 'write_timeout': 1}
    keeper = Keeper(app)
    alarm(True)
    for number in range(5):
        keep(keeper, settled, f'long {number}', waits(number, 600))
        keep(keeper, settled, f'short {number}', waits(number, 100))
    eventually(lambda: 'blocked' in broker.node.ctl('list_connections', 'state'), seconds=30)
    keep(keeper, settled, 'parked', parks(1))
    time.sleep(5)  # in which it would give up its connection, and the next one
    alarm(False)
    eventually(lambda: len(settled.how) == 11, seconds=30)
    assert (broker.waiting(), broker.depth(PARKED)) == (10, 1)


@pytest.mark.restarts_rabbitmq
def test_a_broker_that_comes_back_gets_what_was_kept(app, broker, settled):
    keeper = Keeper(app)
    keep(keeper, settled, 'before', waits(1))
    eventually(lambda: 'before' in settled.how)
    broker.node.ctl('stop_app')
    for number in range(10):
        keep(keeper, settled, str(number), waits(number))
    broker.node.ctl('start_app', timeout=180)
    eventually(lambda: len(settled.how) == 11, seconds=90)
    assert broker.waiting() >= 11


# -- in a worker ------------------------------------------------------------------------------------------------------

def test_orders_go_on_while_nothing_can_be_parked_and_status_says_so(
        shop, broker, publish, start_worker, command):
    worker = start_worker('--concurrency', '4').ready()
    refuse(broker, True)
    try:
        for number in range(30):
            publish(f'X-{number}', task='no.such.task', queue=QUEUE)
        eventually(lambda: 'cannot be published' in worker.log)
        for number in range(20):
            shop.add_order(f'EDX-{number}')
            publish(f'EDX-{number}')
        eventually(lambda: all(shop.orders[f'EDX-{number}'].status == 'Complete' for number in range(20)))
        eventually(lambda: '30 messages cannot be parked' in command('status', '--timeout', '3').stdout, seconds=60)
    finally:
        refuse(broker, False)
    eventually(lambda: broker.depth(PARKED) == 30, seconds=60)
    assert 'given back' not in worker.log
    assert worker.stop() == 0


@pytest.mark.parametrize('pool', ['threads', 'prefork'])
def test_next_tries_that_cannot_be_published_keep_no_thread(shop, broker, publish, start_worker, pool):
    worker = start_worker('--pool', pool, '--concurrency', '2', RETRY_DELAY_MAX=1).ready()
    broker.node.ctl('set_permissions', '-p', '/', 'guest', '.*', '^(?!ecommerce_celery_delayed_[0-9]).*$', '.*')
    try:
        for number in range(8):
            shop.add_order(f'EDX-{number}', Answer(status=429))
            publish(f'EDX-{number}')
        eventually(lambda: all(worker.outcomes(f'EDX-{number}') for number in range(8)))
        shop.add_order('EDX-GOOD')
        publish('EDX-GOOD')
        eventually(lambda: worker.settled('EDX-GOOD') == 'done')
    finally:
        broker.node.ctl('set_permissions', '-p', '/', 'guest', '.*', '.*', '.*')
    eventually(lambda: all(worker.settled(f'EDX-{number}') == 'done' for number in range(8)), seconds=90)
    assert all(shop.orders[f'EDX-{number}'].puts == 2 for number in range(8))
    assert not any('returned' in worker.outcomes(f'EDX-{number}') for number in range(8))
