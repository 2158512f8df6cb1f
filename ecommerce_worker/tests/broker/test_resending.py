"""Resending many parked messages at once: what is interrupted, killed or refused in the middle."""

from __future__ import annotations

import json
import signal
import sqlite3
from collections.abc import Callable, Iterator

import pytest

from ecommerce_worker.broker import batches, publishing, topology
from ecommerce_worker.broker.notes import Notes, ParkingNote
from ecommerce_worker.broker.wire import Raw
from ecommerce_worker.clients.circuit import PATIENCE
from ecommerce_worker.fulfillment.names import FULFILL
from ecommerce_worker.operations.parked import BATCH, MOST_ASKED
from ecommerce_worker.testing.rabbitmq import free_port
from ecommerce_worker.testing.shop import Answer
from ecommerce_worker.tests.support.harness import QUEUE, Program, eventually, shop_app, standstill

MAIL = 'ecommerce_worker.sailthru.v1.tasks.send_course_update_email'


@pytest.fixture
def park(broker, shop):
    """Park so many orders, which the shop would fulfil, in this queue; their numbers."""
    def put(count, queue=QUEUE, task=FULFILL):
        numbers = [f'EDX-{number}' for number in range(count)]
        for number in numbers:
            shop.add_order(number)
        with shop_app(broker.url) as app, broker.connection() as connection:
            topology.declare_parked(connection)
            assert not any(batches.publish_all(app, [publishing.parked_message(
                Raw(f'[["{number}"], {{}}, {{}}]'.encode(), 'application/json', 'utf-8',
                    {'task': task, 'id': f'id-{number}'}),
                ParkingNote(id=f'id-{number}', task=task, key=number, reason='why', notes=Notes(queue=queue)))
                for number in numbers]))
        return numbers

    return put


@pytest.fixture
def resend(environment, tmp_path) -> Iterator[Callable[..., Program]]:
    """Begin to resend all; a program that can be interrupted."""
    started: list[Program] = []

    def start() -> Program:
        started.append(Program(tmp_path / f'resend-{len(started)}.log', environment, '-m', 'ecommerce_worker', 'parked',
                               'resend', '--all'))
        return started[-1]

    yield start
    for program in started:
        program.kill()


def test_what_is_interrupted_finishes_what_it_has_begun_and_says_how_far_it_came(park, resend, shop, broker):
    numbers = park(2 * BATCH + 1)
    shop.add_order(numbers[BATCH], reads=[Answer.until_released()])
    program = resend()
    eventually(lambda: numbers[BATCH] in [call.order for call in shop.calls])
    program.process.send_signal(signal.SIGINT)
    shop.release()
    assert program.process.wait(60) == 128 + signal.SIGINT
    assert program.log.splitlines()[-1] == (
        f'ecommerce-worker: interrupted: {2 * BATCH} messages resent, all others are parked as before')
    assert (broker.depth(QUEUE), broker.depth(topology.PARKED)) == (2 * BATCH, 1)


def test_what_is_killed_before_rabbitmq_confirms_loses_no_order_and_has_none_fulfilled_twice(
        park, resend, shop, broker, command, start_worker):
    numbers = park(3)
    broker.node.ctl('eval', standstill(QUEUE, 'suspend'))
    try:
        program = resend()
        # They are on their way: the queue has not taken them yet.
        eventually(lambda: int(broker.node.ctl('eval', _LETTERS)) >= len(numbers))
        program.kill()
    finally:
        broker.node.ctl('eval', standstill(QUEUE, 'resume'))
    eventually(lambda: (broker.depth(QUEUE), broker.depth(topology.PARKED)) == (3, 3))
    assert command('parked', 'resend', '--all').returncode == 0
    assert (broker.depth(QUEUE), broker.depth(topology.PARKED)) == (6, 0)
    start_worker().ready()
    eventually(lambda: broker.depth(QUEUE) == 0 and all(shop.orders[number].status == 'Complete' for number in numbers))
    assert [shop.orders[number].fulfilments for number in numbers] == [1, 1, 1]


#: How many messages of Erlang a queue has not looked at.
_LETTERS = f"""
    {{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"{QUEUE}">>)),
    {{message_queue_len, N}} = erlang:process_info(amqqueue:get_pid(Q), message_queue_len), N."""


def test_of_many_those_stay_parked_and_off_the_record_that_have_no_queue(park, shop, broker, command, tmp_path):
    assert command('migrate').returncode == 0
    park(2)
    with shop_app(broker.url) as app, broker.connection() as connection:
        shop.add_order('EDX-9')
        publishing.park(app, Raw(b'[["EDX-9"], {}, {}]', 'application/json', 'utf-8'), ParkingNote(
            id='id-9', task=FULFILL, key='EDX-9', reason='why', notes=Notes(queue='fulfillment')))
        connection.default_channel.queue_delete('fulfillment')
    ended = command('parked', 'resend', '--all')
    assert (ended.returncode, ended.stderr) == (1, 'id-9 its queue does not exist\n')
    assert ended.stdout == f'id-EDX-0 EDX-0 sent to {QUEUE}\nid-EDX-1 EDX-1 sent to {QUEUE}\n2 messages resent\n'
    assert (broker.depth(QUEUE), broker.depth(topology.PARKED)) == (2, 1)
    with sqlite3.connect(tmp_path / 'ledger.sqlite3') as database:
        assert database.execute('SELECT action, key FROM ledger_audit ORDER BY key').fetchall() == [
            ('resent', 'EDX-0'), ('resent', 'EDX-1')]


def test_an_order_that_a_shop_gives_no_answer_for_is_the_only_one_that_stays_parked(park, shop, broker, command):
    shops = {'SITE_OVERRIDES': json.dumps({'mit': {'ECOMMERCE_API_ROOT': f'http://127.0.0.1:{free_port()}/api/v2/'}})}
    park(4)
    shop.add_order('EDX-0', reads=[Answer.dropped()])
    shop.add_order('EDX-2', reads=[Answer(status=500)])
    with shop_app(broker.url) as app:
        raw = Raw(b'[["MIT-1"], {"site_code": "mit"}, {}]', 'application/json', 'utf-8', {'task': FULFILL})
        publishing.park(app, raw, ParkingNote(id='id-MIT-1', task=FULFILL, key='MIT-1', site='mit', reason='why',
                                              notes=Notes(queue=QUEUE)))
    ended = command('parked', 'resend', '--all', **shops)
    assert ended.returncode == 1
    assert ended.stdout == f'id-EDX-1 EDX-1 sent to {QUEUE}\nid-EDX-3 EDX-3 sent to {QUEUE}\n2 messages resent\n'
    assert ended.stderr.splitlines()[-3:] == [
        '2 messages parked as before, because the shop did not answer: EDX-0, EDX-2',
        '1 message parked as before, because the shop of mit did not answer: MIT-1',
        'repeat this command when the shop answers again: it resends those that are still parked']
    ended = command('parked', 'resend', '--all', **shops)
    assert ended.stdout.splitlines()[-1] == '2 messages resent'
    assert (broker.depth(QUEUE), broker.depth(topology.PARKED)) == (4, 1)


def test_a_shop_that_is_down_is_not_asked_about_all_orders(park, shop, broker, command):
    numbers = park(PATIENCE + MOST_ASKED + 20)  # its circuit breaker is open before the last ones
    for number in numbers:
        shop.add_order(number, reads=[Answer(status=503).always()])
    ended = command('parked', 'resend', '--all')
    assert (ended.returncode, ended.stdout) == (1, '0 messages resent\n')
    assert ended.stderr.splitlines()[-2].startswith(
        f'{len(numbers)} messages parked as before, because the shop did not answer: EDX-0, EDX-1, ')
    assert len([call for call in shop.calls if call.order in numbers]) < PATIENCE + MOST_ASKED
    assert broker.depth(topology.PARKED) == len(numbers)


def test_mails_go_one_by_one_so_that_what_is_killed_has_one_at_most_sent_twice(park, resend, broker):
    park(3, task=MAIL)
    broker.node.ctl('eval', standstill(QUEUE, 'suspend'))
    try:
        program = resend()
        eventually(lambda: int(broker.node.ctl('eval', _LETTERS)) >= 1)
        program.kill()
    finally:
        broker.node.ctl('eval', standstill(QUEUE, 'resume'))
    eventually(lambda: (broker.depth(QUEUE), broker.depth(topology.PARKED)) == (1, 3))
