"""Orders that never reached RabbitMQ are made good; orders that did are left alone."""

from __future__ import annotations

import base64
import json
import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from os import EX_TEMPFAIL
from pathlib import Path

import pytest
from celery import Celery
from kombu import Consumer, Queue

from ecommerce_worker.broker import publishing, topology
from ecommerce_worker.broker.lending import lent
from ecommerce_worker.broker.notes import NOTES, Notes
from ecommerce_worker.broker.wire import Call, Raw, read
from ecommerce_worker.fulfillment.names import FULFILL
from ecommerce_worker.resubmit.run import LOCK
from ecommerce_worker.testing.shop import Answer, ShopProcess
from ecommerce_worker.tests.support.harness import QUEUE, eventually
from ecommerce_worker.tests.support.messages import MESSAGES

#: Old enough to be looked for.
OLD = 3600


@pytest.fixture
def resubmit(command):
    """Run `resubmit` as an operator does; where nobody waits for what it publishes, that does not run yet."""
    def run(*options, delay='2m', **settings):
        return command('resubmit', '--delay', delay, *options, **settings)

    return run


def waiting(broker):
    """The messages of the waiting room, left where they are."""
    with broker.connection() as connection:
        found: list[Raw] = []
        for number in reversed(range(topology.BITS)):
            if broker.depth(topology.level(number)):
                with lent(connection, topology.level(number)) as messages:
                    found += map(Raw.of, messages)
        return found


def published(ended):
    """How many orders a command says that it published."""
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return int(ended.stdout.splitlines()[-1].split()[0])


# -- what is made good ------------------------------------------------------------------------------------------------

def test_an_order_that_never_reached_rabbitmq_is_made_good(shop, broker, start_worker, resubmit):
    shop.add_order('EDX-1', age=OLD)
    shop.add_order('EDX-2', age=OLD, status='Fulfillment Error')
    shop.add_order('EDX-3', age=OLD, status='Complete')
    worker = start_worker().ready()
    ended = resubmit(delay='1s')
    assert published(ended) == 2, ended.stdout
    eventually(lambda: worker.settled('EDX-1') == worker.settled('EDX-2') == 'done')
    assert {number: order.fulfilments for number, order in shop.orders.items()} == {'EDX-1': 1, 'EDX-2': 1, 'EDX-3': 0}
    assert 'EDX-3' not in ended.stdout


def test_orders_are_made_good_once_a_worker_comes(shop, broker, start_worker, resubmit):
    for number in range(45):
        shop.add_order(f'EDX-{number}', age=OLD)
    assert published(resubmit(delay='1s')) == 45
    worker = start_worker().ready()
    eventually(lambda: all(worker.settled(f'EDX-{number}') == 'done' for number in range(45)))
    assert {order.fulfilments for order in shop.orders.values()} == {1}


def test_what_is_published_says_so_and_asks_the_shop_first(shop, broker, start_worker, command):
    worker = start_worker().ready()
    shop.add_order('EDX-1', age=OLD)
    assert published(command('resubmit')) == 1
    message, = waiting(broker)
    call, notes = read(message), Notes.of(message.headers)
    assert (call.task, call.args) == (FULFILL, ('EDX-1',))
    assert call.kwargs == {'site_code': None, 'email_opt_in': False}
    assert (notes.queue, notes.resent) == (QUEUE, True)
    assert 'resubmitted' in notes.history[0]['reason']
    shop.add_order('EDX-2', age=OLD)
    assert published(command('resubmit', '--delay', '1')) == 1
    eventually(lambda: worker.settled('EDX-2') == 'done')
    called = [(call.method, call.path) for call in shop.calls if call.order == 'EDX-2']
    assert called[-2:] == [('GET', '/api/v2/orders/EDX-2/'), ('PUT', '/api/v2/orders/EDX-2/fulfill/')]


def test_orders_outside_of_the_window_and_the_grace_are_left_alone(shop, start_worker, resubmit):
    start_worker().ready()
    shop.add_order('EDX-1', age=5 * 60)
    shop.add_order('EDX-2', age=3 * 86_400)
    ended = resubmit()
    assert published(ended) == 0
    assert ended.stderr == 'the shop: 2 orders checked, 0 unfulfilled; 1 younger than 15m, left to the shop\n'
    assert published(resubmit('--grace', '1m')) == 1
    assert published(resubmit('--since', '4d')) == 1


def test_a_dry_run_publishes_nothing_and_declares_nothing(shop, broker, resubmit):
    shop.add_order('EDX-1', age=OLD)
    ended = resubmit('--dry-run')
    assert published(ended) == 1
    assert '1 order would be published' in ended.stdout
    assert broker.waiting() == 0
    with broker.connection() as connection:
        assert topology.depth(connection, topology.PARKED) is None


def test_a_limit_leaves_the_newest_for_the_next_time(shop, start_worker, resubmit):
    start_worker().ready()
    for number in range(5):
        shop.add_order(f'EDX-{number}', age=OLD + number)
    ended = resubmit('--limit', '2')
    assert published(ended) == 2
    assert [line.split()[0] for line in ended.stdout.splitlines() if ' published, ' in line] == ['EDX-4', 'EDX-3']
    assert published(resubmit('--limit', '20')) == 3


def test_one_order_is_published_whatever_its_age(shop, broker, resubmit):
    shop.add_order('EDX-1', age=1)
    shop.add_order('EDX-2', age=OLD)
    shop.add_order('EDX-3', age=OLD, status='Complete')
    ended = resubmit('--order', 'EDX-1', '--order', 'EDX-3')
    assert published(ended) == 1
    assert 'left: it is Complete' in ended.stdout
    assert [read(message).args for message in waiting(broker)] == [('EDX-1',)]
    unknown = resubmit('--order', 'EDX-4')
    assert unknown.returncode == 1
    assert 'trouble: EDX-4: no shop knows it (404)' in unknown.stdout


def test_each_site_is_asked_and_its_orders_carry_its_code(shop, broker, start_worker, resubmit, tmp_path):
    start_worker().ready()
    with ShopProcess(tmp_path) as other:
        sites = {'other': {'ECOMMERCE_API_ROOT': other.api_root,
                           'BACKEND_SERVICE_EDX_OAUTH2_PROVIDER_URL': other.oauth2_root}}
        shop.add_order('EDX-1', age=OLD)
        other.add_order('EDX-1', age=OLD)
        other.add_order('EDX-2', age=OLD)
        assert published(resubmit('--order', 'EDX-2', '--dry-run', SITE_OVERRIDES=sites)) == 1
        assert published(resubmit('--site', '-', SITE_OVERRIDES=sites)) == 1
        assert published(resubmit(SITE_OVERRIDES=sites)) == 2
        assert published(resubmit(SITE_OVERRIDES=sites)) == 0
    found = {(read(message).args[0], read(message).kwargs['site_code']) for message in waiting(broker)}
    assert found == {('EDX-1', None), ('EDX-1', 'other'), ('EDX-2', 'other')}


def test_a_site_that_is_away_does_not_keep_the_others_from_theirs(shop, resubmit, tmp_path):
    shop.add_order('EDX-1', age=OLD)
    sites = {'other': {'ECOMMERCE_API_ROOT': f'{shop.url}/nowhere/'}}
    ended = resubmit(SITE_OVERRIDES=sites)
    assert ended.returncode == 1
    assert 'trouble: site other: the shop does not know it (404): is ECOMMERCE_API_ROOT right?' in ended.stdout
    assert '1 order published' in ended.stdout


def test_a_shop_that_does_not_let_us_look_is_named_with_what_to_do(shop, resubmit):
    ended = resubmit(AUTHENTICATION='jwt', JWT_SECRET_KEY='not the one that the shop has, which is another')
    assert ended.returncode == 1
    assert 'the shop does not accept our credentials (401)' in ended.stdout
    assert 'staff' in ended.stdout


def test_a_shop_without_any_order_is_not_trusted(shop, resubmit):
    ended = resubmit()
    assert ended.returncode == 1
    assert 'lists no orders at all' in ended.stdout


def test_a_task_may_resubmit_too(shop, broker, start_worker, publish, environment, tmp_path):
    (tmp_path / 'hourly.py').write_text(
        'from celery import current_app\n'
        'from ecommerce_worker.execution.task import task\n'
        'from ecommerce_worker.resubmit.names import Wanted; from ecommerce_worker.resubmit.run import resubmit\n'
        '@task(policy=lambda site: site.fulfillment_policy)\n'
        'def reconcile(self):\n'
        '    assert resubmit(current_app, Wanted(delay=1), None).published == 1\n')
    environment['PYTHONPATH'] = f'{tmp_path}:{environment.get("PYTHONPATH", "")}'
    shop.add_order('EDX-1', age=OLD)
    worker = start_worker(CELERY_IMPORTS="['ecommerce_worker.fulfillment.v1.tasks', 'hourly']").ready()
    publish(task='hourly.reconcile', queue=QUEUE)
    eventually(lambda: worker.settled('EDX-1') == 'done')
    assert 'done: task=hourly.reconcile' in worker.log


# -- what is left alone -----------------------------------------------------------------------------------------------

def test_orders_that_wait_or_are_parked_are_left(shop, broker, start_worker, publish, resubmit):
    shop.add_order('EDX-1', Answer(status=503, headers={'Retry-After': '600'}), age=OLD)
    shop.add_order('EDX-2', Answer(status=403).always(), age=OLD)
    shop.add_order('EDX-3', age=OLD)
    worker = start_worker(MAX_FULFILLMENT_RETRIES=0).ready()
    publish('EDX-1')
    publish('EDX-2')
    eventually(lambda: broker.waiting() == 1 and broker.depth(topology.PARKED) == 1)
    ended = resubmit(delay='1s')
    assert published(ended) == 1, ended.stdout
    assert 'it waits here for its next try' in next(line for line in ended.stdout.splitlines() if 'EDX-1' in line)
    assert 'it is parked here' in next(line for line in ended.stdout.splitlines() if 'EDX-2' in line)
    eventually(lambda: worker.settled('EDX-3') == 'done')
    assert (broker.waiting(), broker.depth(topology.PARKED)) == (1, 1)


@pytest.mark.parametrize('message', [found for found in MESSAGES if found['task'] == FULFILL],
                         ids=lambda message: f'{message["celery"]}-{message["n"]}')
def test_orders_that_are_queued_are_known_whatever_their_producer_was(shop, broker, resubmit, message):
    number = eval(message['args_readable'])[0]
    shop.add_order(number, age=OLD)
    broker.publish_message(message)
    assert published(resubmit('--look-into-queues')) == 0
    assert broker.depth(message['routing_key']) == 1


def test_while_messages_are_queued_nothing_is_published(shop, broker, publish, resubmit):
    shop.add_order('EDX-1', age=OLD)
    shop.add_order('EDX-2', age=OLD)
    publish('EDX-1')
    publish('EDX-3')
    ended = resubmit()
    assert ended.returncode == 75
    assert '2 messages are queued (ecommerce.fulfillment): let the workers finish first' in ended.stderr
    assert len([line for line in ended.stderr.splitlines() if 'ecommerce-worker:' in line]) == 1
    assert broker.waiting() == 0
    looked = resubmit('--look-into-queues')
    assert published(looked) == 1
    assert 'it is queued here (ecommerce.fulfillment)' in looked.stdout
    assert arrived(broker) == ['EDX-1', 'EDX-3']


def test_an_order_that_a_worker_has_in_hand_is_left(shop, broker, start_worker, publish, resubmit):
    shop.add_order('EDX-1', Answer.slow(25), age=OLD)
    shop.add_order('EDX-2', age=OLD)
    worker = start_worker(FULFILLMENT_READ_TIMEOUT=60).ready()
    publish('EDX-1')
    eventually(lambda: shop.orders['EDX-1'].puts == 1)
    ended = resubmit(delay='1s')
    assert published(ended) == 1, ended.stdout
    assert 'a worker holds it' in ended.stdout
    eventually(lambda: worker.settled('EDX-2') == 'done')


def test_a_worker_that_does_not_tell_keeps_everything_back(shop, start_worker, resubmit):
    shop.add_order('EDX-1', age=OLD)
    worker = start_worker().ready()
    worker.process.send_signal(signal.SIGSTOP)
    ended = resubmit()
    assert ended.returncode == 75
    assert 'of 1 workers only 0 reported the orders they hold' in ended.stderr
    worker.process.send_signal(signal.SIGCONT)


# -- what the ledger knows ---------------------------------------------------------------------------------------------

CHORE = 'ecommerce_worker.resubmit.tasks.resubmit_orders'


@pytest.fixture
def in_ledger(tmp_path: Path) -> Callable[[str], int]:
    """How many messages of an order are parked in the ledger."""
    def count(number: str) -> int:
        with closing(sqlite3.connect(tmp_path / 'ledger.sqlite3', timeout=60)) as ledger:
            [found] = ledger.execute("SELECT count(*) FROM ledger_parkedmessage WHERE key = ? AND settled = ''",
                                     [number]).fetchone()
        return int(found)

    return count


def test_what_was_published_is_in_the_ledger_before_a_worker_has_it(shop, recorder, resubmit, command):
    shop.add_order('EDX-1', age=OLD)
    assert published(resubmit()) == 1
    asked = lambda: command('orders', 'show', 'EDX-1', '--json')  # noqa: E731
    eventually(lambda: asked().returncode == 0)
    order, = json.loads(asked().stdout)['orders']
    event, = order['events']
    assert (order['state'], order['tries'], event['what'], event['queue']) == ('trying', 0, 'accepted', QUEUE)
    assert event['reason'] == 'resubmitted: the shop had it as Open, and no message of it was in RabbitMQ'
    assert ' UTC, ' in command('orders', 'show', 'EDX-1').stdout.partition('since')[2].partition('ago')[0]


def line_of(ended, number):
    return next(line for line in ended.stdout.splitlines() if line.startswith(f'{number} '))


def test_orders_that_are_parked_in_the_ledger_or_were_discarded_there_are_left(shop, broker, start_worker, publish,
                                                                              command, resubmit, recorder, in_ledger):
    shop.add_order('EDX-1', Answer(status=403).always(), age=OLD)
    start_worker(MAX_FULFILLMENT_RETRIES=0).ready()
    publish('EDX-1')
    eventually(lambda: in_ledger('EDX-1') == 1)
    ended = resubmit()
    assert published(ended) == 0, ended.stdout
    assert 'left: it has been parked here since 20' in line_of(ended, 'EDX-1')
    assert published(resubmit('--order', 'EDX-1')) == 0
    assert command('parked', 'discard', '--all', '--yes', '--reason', 'paid twice').returncode == 0
    ended = resubmit()
    assert published(ended) == 0, ended.stdout
    assert 'left: it was discarded by ' in line_of(ended, 'EDX-1')
    assert 'UTC; `--order EDX-1` publishes it anyway' in line_of(ended, 'EDX-1')
    assert published(resubmit('--order', 'EDX-1')) == 1
    assert broker.waiting() == 1


@pytest.mark.parametrize('numbers, settled, left', [((), 1, 0), (('EDX-1',), 1, 1), (('EDX-7',), 0, 2)])
def test_an_order_whose_report_was_lost_is_overdue_until_the_shop_is_asked(
        shop, command, resubmit, recorder, tmp_path, numbers, settled, left):
    shop.add_order('EDX-1', status='Complete', age=OLD)
    shop.add_order('EDX-2', age=OLD)
    shop.add_order('EDX-7', status='Complete', age=OLD)
    with closing(sqlite3.connect(tmp_path / 'ledger.sqlite3', timeout=20)) as ledger, ledger:
        for number in ('EDX-1', 'EDX-2'):
            ledger.execute('INSERT INTO ledger_order (identity, key, task, site, state, reason, next_try, attempts, '
                           'first_seen, last_seen, heard, cause, order_number, product, course, mode, learner, mask) '
                           'VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)',
                           [uuid.uuid5(uuid.NAMESPACE_OID, json.dumps([number, FULFILL, ''])).hex, number, FULFILL, '',
                            'waiting', 'down', *['2026-01-01 00:00:00', 1], *['2026-01-01 00:00:00'] * 3, *[''] * 7])
    done = command('status')
    assert 'unknown   2 orders overdue; 0 reports of runs lost in the last 7 days' in done.stdout
    assert 'trouble: 2 orders overdue: no report when one was due' in done.stdout
    told = command('status', '--json')
    assert (told.returncode, json.loads(told.stdout)['ledger']['overdue']) == (1, 2)
    listed = json.loads(command('orders', 'list', '--overdue', '--json').stdout)['orders']
    assert {order['order'] for order in listed} == {'EDX-1', 'EDX-2'}
    ended = resubmit(*(f'--order={number}' for number in numbers))
    assert ('1 overdue order complete at the shop' in ended.stdout) is bool(settled)
    # What was published is accepted, and no longer overdue.
    eventually(lambda: json.loads(command('status', '--json').stdout)['ledger']['overdue'] == left)
    if settled:
        assert 'the report of its end was lost' in command('orders', 'show', 'EDX-1').stdout


def test_an_order_that_is_in_the_hands_of_a_recorder_is_left(shop, broker, start_worker, publish, environment, recorder,
                                                            in_ledger):
    shop.add_order('EDX-1', Answer(status=403).always(), age=OLD)
    worker = start_worker(MAX_FULFILLMENT_RETRIES=0).ready()
    recorder.send_signal(signal.SIGSTOP)
    publish('EDX-1')
    eventually(lambda: worker.settled('EDX-1') == 'parked')
    eventually(lambda: broker.depth(topology.PARKED) == 0)
    assert in_ledger('EDX-1') == 0
    with subprocess.Popen([sys.executable, '-m', 'ecommerce_worker', 'resubmit'], env=environment,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as ended:
        eventually(lambda: any(call.path == '/api/v2/orders/' for call in shop.calls))
        time.sleep(1.5)
        recorder.send_signal(signal.SIGCONT)
        out, _ = ended.communicate(timeout=30)
    assert '0 orders published' in out, out
    assert in_ledger('EDX-1') == 1


def test_while_a_recorder_keeps_the_ledger_elsewhere_nothing_is_published(shop, facts, resubmit):
    shop.add_order('EDX-1', age=OLD)
    with facts.connection() as connection, Consumer(connection, [Queue(topology.LEDGER, no_declare=True)]):
        ended = resubmit()
    assert (ended.returncode, ended.stdout) == (75, '')
    assert ended.stderr == ('ecommerce-worker: a recorder takes parked messages into a ledger that is not kept here, '
                            'so it is unknown which orders are parked: run resubmit where DATABASES names that '
                            'ledger\n')


def test_while_nobody_records_what_a_ledger_is_to_know_nothing_is_published(shop, facts, command, resubmit):
    shop.add_order('EDX-1', age=OLD)
    assert command('migrate').returncode == 0
    with facts.connection() as connection:
        publishing.tell(connection, b'a fact', f'done.{FULFILL}')
    eventually(lambda: facts.depth(topology.LEDGER))
    ended = resubmit()
    assert ended.returncode == 75
    assert 'no recorder takes the reports of workers (facts: 1)' in ended.stderr


def test_a_run_by_the_clock_looks_into_the_ledger_too(shop, broker, start_worker, publish, recorder, in_ledger):
    shop.add_order('EDX-1', Answer(status=403).always(), age=OLD)
    shop.add_order('EDX-2', age=OLD)
    worker = start_worker(MAX_FULFILLMENT_RETRIES=0).ready()
    publish('EDX-1')
    eventually(lambda: in_ledger('EDX-1') == 1)
    publish(task=CHORE, queue='ecommerce.default')
    eventually(lambda: f'done: task={CHORE}' in worker.log)
    assert 'resubmitted orders that were lost on their way to RabbitMQ: count=1' in worker.log
    assert [read(message).args[0] for message in waiting(broker)] == ['EDX-2']


# -- never twice ------------------------------------------------------------------------------------------------------

def test_two_runs_in_a_row_publish_nothing_twice(shop, broker, start_worker, resubmit):
    for number in range(30):
        shop.add_order(f'EDX-{number}', age=OLD)
    worker = start_worker().ready()
    assert [published(resubmit(delay='8s')) for _ in range(3)] == [30, 0, 0]
    while not all(worker.settled(f'EDX-{number}') == 'done' for number in range(30)):
        ended = resubmit()
        assert ended.returncode == 75 or published(ended) == 0
    assert {order.fulfilments for order in shop.orders.values()} == {1}


def test_runs_while_a_worker_retries_publish_nothing_twice(shop, broker, start_worker, resubmit):
    numbers = [f'EDX-{number}' for number in range(20)]
    for number in numbers:
        shop.add_order(number, Answer(status=503).always(), age=OLD)
    worker = start_worker().ready()
    assert published(resubmit(delay='1s')) == 20
    eventually(lambda: all(worker.settled(number) == 'retrying' for number in numbers))
    for _ in range(3):
        ended = resubmit()
        assert ended.returncode == 75 or published(ended) == 0, ended.stdout
    for number in numbers:
        shop.repair(number)
    eventually(lambda: all(worker.settled(number) == 'done' for number in numbers))
    assert not [number for number in numbers if worker.log.count(f'done: task={FULFILL} key={number} ') != 1]
    assert 'skipped' not in worker.log


def test_of_two_runs_at_once_one_ends(shop, broker, environment, resubmit):
    shop.add_order('EDX-1', Answer.slow(1), reads=[Answer.slow(5)], age=OLD)
    command = [sys.executable, '-m', 'ecommerce_worker', 'resubmit']
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as first:
        eventually(lambda: any(call.path == '/api/v2/orders/EDX-1/' for call in shop.calls))
        second = resubmit()
        assert second.returncode == 75
        assert 'another resubmit is running' in second.stderr
        assert first.wait(30) == 0
    assert broker.waiting() == 1
    assert published(resubmit()) == 0


def test_the_lock_of_a_run_that_was_killed_is_gone(shop, broker, start_worker, environment, resubmit):
    start_worker().ready()
    shop.add_order('EDX-1', reads=[Answer.slow(5)], age=OLD)
    command = [sys.executable, '-m', 'ecommerce_worker', 'resubmit']
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as first:
        eventually(lambda: any(call.path == '/api/v2/orders/EDX-1/' for call in shop.calls))
        first.kill()
    with broker.connection() as connection:
        eventually(lambda: topology.depth(connection, LOCK) is None)
    assert published(resubmit()) == 1


# -- looking leaves no trace ------------------------------------------------------------------------------------------

@pytest.fixture
def wait(broker):
    """Put calls into the waiting room, in this order."""
    with Celery('test', broker=broker.url, set_as_current=False) as app, broker.connection() as connection:
        app.conf.broker_transport_options = {'confirm_publish': True}
        topology.declare(connection, [topology.task_queue(QUEUE)])

        def put(number, delay):
            publishing.wait(app, Call(FULFILL, f'id-{number}', (f'EDX-{number}',)), Notes(queue=QUEUE), delay)

        yield put


def arrived(broker):
    """The order numbers in the queue, in their order, taken out."""
    with broker.connection() as connection:
        queue = Queue(QUEUE).bind(connection.channel())
        return [read(Raw.of(message)).args[0] for message in iter(lambda: queue.get(no_ack=True), None)]


def test_messages_that_were_looked_at_come_in_time_and_in_order_once(broker, wait):
    for number in range(300):
        wait(number, 8)
    with broker.connection() as connection:
        for _ in range(4):
            with lent(connection, topology.level(3)) as messages:
                assert [read(Raw.of(message)).args[0] for message in messages] == [
                    f'EDX-{number}' for number in range(300)]
        eventually(lambda: broker.depth(QUEUE) == 300)
    assert arrived(broker) == [f'EDX-{number}' for number in range(300)]
    assert broker.waiting() == 0


def test_messages_whose_time_comes_while_they_are_looked_at_come_right_after(broker, wait):
    for number in range(100):
        wait(number, 4)
    wait(100, 8)
    with broker.connection() as connection:
        with lent(connection, topology.level(2)) as messages:
            assert len(list(messages)) == 100
            time.sleep(5)  # beyond their time
            assert broker.depth(QUEUE) == 0
        given_back = time.monotonic()
        eventually(lambda: broker.depth(QUEUE) >= 100)
    assert time.monotonic() - given_back < 4  # not another turn
    eventually(lambda: broker.depth(QUEUE) == 101)
    assert sorted(arrived(broker)) == sorted(f'EDX-{number}' for number in range(101))


def test_messages_that_come_while_others_are_looked_at_stay_behind_them(broker, wait):
    for number in range(40):
        wait(number, 16)
    with broker.connection() as connection:
        with lent(connection, topology.level(4)) as messages:
            assert len(list(messages)) == 40
            for number in range(40, 60):
                wait(number, 16)
        with lent(connection, topology.level(4)) as messages:
            assert [read(Raw.of(message)).args[0] for message in messages] == [f'EDX-{number}' for number in range(60)]


def test_a_look_that_is_killed_leaves_no_trace_either(broker, wait):
    for number in range(50):
        wait(number, 4096)
    script = ('import sys, time\nfrom kombu import Connection\nfrom ecommerce_worker.broker.lending import lent\n'
              'with lent(Connection(sys.argv[1]), sys.argv[2]) as messages:\n'
              '    print(len(list(messages)), flush=True)\n    time.sleep(60)\n')
    with subprocess.Popen([sys.executable, '-c', script, broker.url, topology.level(12)],
                          stdout=subprocess.PIPE, text=True) as looker:
        assert looker.stdout
        assert looker.stdout.readline() == '50\n'
        looker.kill()
    eventually(lambda: broker.depth(topology.level(12)) == 50)
    assert [read(raw).args[0] for raw in waiting(broker)] == [f'EDX-{number}' for number in range(50)]


def test_parked_messages_that_cannot_be_read_are_no_hindrance(shop, broker, start_worker, resubmit):
    shop.add_order('EDX-1', age=OLD)
    broker.publish_raw(base64.b64decode(b'gAJjb3MKc3lzdGVtCg=='), content_type='application/x-python-serialize',
                       content_encoding='binary', headers={'task': FULFILL, 'id': 'id-1'})
    worker = start_worker().ready()
    eventually(broker.parked)
    assert published(resubmit(delay='1s')) == 1
    eventually(lambda: worker.settled('EDX-1') == 'done')
    assert 'reason' in broker.parked()[0].headers[NOTES]


def test_nothing_is_published_while_a_queue_is_not_to_be_had_that_may_hold_the_order(shop, broker, resubmit):
    shop.add_order('EDX-1', age=3600)
    with broker.unavailable(QUEUE):
        ended = resubmit()
    assert ended.returncode == EX_TEMPFAIL
    assert f'{QUEUE} is unavailable: RabbitMQ reports that it is down; it is unknown' in ended.stderr
    assert broker.waiting() == 0
    assert resubmit().returncode == 0
    assert broker.waiting() == 1
