"""An accepted order survives the loss of its worker, of RabbitMQ, and of time."""

from __future__ import annotations

import base64
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

import ecommerce_worker
from ecommerce_worker.broker import topology
from ecommerce_worker.broker.wire import Raw
from ecommerce_worker.fulfillment.names import FULFILL
from ecommerce_worker.testing.shop import Answer
from ecommerce_worker.tests.support.harness import QUEUE, Worker, eventually, worker_environment
from ecommerce_worker.tests.support.messages import MESSAGES

#: The module of the tasks that these tests are about.
TASKS = FULFILL.rpartition('.')[0]


def complete(shop: Any, *numbers: str) -> bool:
    """Whether all these orders are complete."""
    orders = shop.orders
    return all(orders[number].status == 'Complete' for number in numbers)


def test_an_order_survives_the_kill_of_its_worker(shop, publish, start_worker):
    shop.add_order('EDX-1', Answer.until_released())
    worker = start_worker(FULFILLMENT_READ_TIMEOUT=60).ready()
    publish('EDX-1')
    eventually(lambda: shop.orders['EDX-1'].puts == 1)
    worker.kill()
    shop.release()
    shop.repair('EDX-1')
    again = start_worker().ready()
    eventually(lambda: again.settled('EDX-1') in ('done', 'skipped'))
    assert shop.orders['EDX-1'].fulfilments == 1


def test_orders_in_flight_survive_the_kill_of_a_prefork_worker(shop, publish, start_worker):
    numbers = [f'EDX-{number}' for number in range(8)]
    for number in numbers:
        shop.add_order(number, Answer.slow(3))
    worker = start_worker('--pool', 'prefork', '--concurrency', '4', FULFILLMENT_READ_TIMEOUT=10).ready()
    for number in numbers:
        publish(number)
    # One of the children is kept free for other shops.
    eventually(lambda: sum(order.puts for order in shop.orders.values()) >= 3)
    assert len(worker.children) == 4
    worker.kill()
    again = start_worker('--pool', 'prefork', '--concurrency', '4', FULFILLMENT_READ_TIMEOUT=10).ready()
    eventually(lambda: all(again.settled(number) in ('done', 'skipped') for number in numbers))
    assert complete(shop, *numbers)


@pytest.mark.parametrize('options', [[], ['--pool', 'prefork', '--concurrency', '2']],
                         ids=['by two threads', 'by two children'])
def test_an_order_that_was_published_twice_is_called_for_once(shop, publish, start_worker, options):
    shop.add_order('EDX-1', Answer.until_released())
    # Both messages are there before anybody takes one.
    for _ in range(2):
        publish('EDX-1')
    is_called_for_once(shop, start_worker(*options, FULFILLMENT_READ_TIMEOUT=60))


def test_an_order_that_was_published_twice_is_called_for_once_by_two_workers(shop, publish, start_worker):
    shop.add_order('EDX-1', Answer.until_released())
    at_work = [start_worker(FULFILLMENT_READ_TIMEOUT=60) for _ in range(2)]
    at_work[0].ready(2)
    # RabbitMQ gives them to who consumes by turns.
    for _ in range(2):
        publish('EDX-1')
    is_called_for_once(shop, *at_work)


def is_called_for_once(shop, *at_work):
    """The second comes again and again while the first is at it, which is reported once, and asks."""
    eventually(lambda: any(worker.outcomes('EDX-1') == ['retrying'] for worker in at_work))
    shop.release()
    eventually(lambda: sorted(outcome for worker in at_work for outcome in worker.outcomes('EDX-1'))
               == ['done', 'retrying', 'skipped'])
    assert complete(shop, 'EDX-1')
    assert shop.orders['EDX-1'].puts == 1


def test_a_message_that_was_delivered_again_in_mid_run_is_done_with_its_run(shop, broker, publish, start_worker):
    # The run ends in another try, which is published once, whatever the message that was delivered again does.
    shop.add_order('EDX-1', Answer(status=429, held=True))
    worker = start_worker(FULFILLMENT_READ_TIMEOUT=60).ready()
    publish('EDX-1')
    eventually(lambda: shop.orders['EDX-1'].puts == 1)
    broker.node.ctl('close_all_connections', 'test')
    # It is connected again and has taken the message again.
    eventually(lambda: worker.log.count('Connected to') == 2 and broker.depth(QUEUE) == 0)
    shop.release()
    eventually(lambda: 'redelivered after its run had ended' in worker.log)
    eventually(lambda: worker.settled('EDX-1') == 'done')
    eventually(lambda: not broker.waiting())
    assert worker.stop() == 0
    assert broker.depth(QUEUE) == 0
    assert worker.outcomes('EDX-1').count('done') == 1
    assert 'skipped' not in worker.outcomes('EDX-1')


@pytest.mark.restarts_rabbitmq
def test_a_long_delay_survives_a_restart_of_the_worker_and_of_rabbitmq(shop, broker, publish, start_worker):
    shop.add_order('EDX-1', Answer(status=503, headers={'Retry-After': '12'}))
    worker = start_worker().ready()
    publish('EDX-1')
    eventually(lambda: broker.waiting() == 1)
    begun = time.monotonic()
    assert worker.stop() == 0
    broker.node.restart()
    eventually(lambda: broker.waiting() == 1)  # a quorum queue counts again a moment after RabbitMQ answers
    again = start_worker().ready()
    eventually(lambda: again.settled('EDX-1') == 'done')
    assert time.monotonic() - begun > 5  # not at once: what remained of the delay was kept
    assert shop.orders['EDX-1'].puts == 2


def test_waiting_messages_are_not_held_unacknowledged(shop, broker, publish, start_worker):
    shop.add_order('EDX-1', Answer(status=503, headers={'Retry-After': '3600'}))
    start_worker().ready()
    publish('EDX-1')
    eventually(lambda: broker.waiting() == 1)
    unacknowledged = broker.node.ctl('list_queues', '--no-table-headers', 'name', 'messages_unacknowledged')
    assert {line.split()[1] for line in unacknowledged.splitlines() if line.strip()} == {'0'}


@pytest.mark.restarts_rabbitmq
def test_a_worker_goes_on_after_a_restart_of_rabbitmq(shop, broker, publish, start_worker):
    shop.add_order('EDX-1')
    shop.add_order('EDX-2')
    worker = start_worker().ready()
    publish('EDX-1')
    eventually(lambda: worker.settled('EDX-1') == 'done')
    broker.node.kill()
    broker.node.start()
    worker.ready()
    publish('EDX-2')
    eventually(lambda: worker.settled('EDX-2') == 'done')
    # What Celery advises after each lost connection was heeded long ago.
    assert 'Connection to broker lost' in worker.log
    assert 'In Celery 5.1' not in worker.log


@pytest.mark.parametrize('pool', ['threads', 'prefork'])
def test_a_worker_goes_on_after_its_queue_was_deleted(shop, broker, publish, start_worker, pool):
    for number in ('EDX-1', 'EDX-2'):
        shop.add_order(number, Answer(status=503))
    publish('EDX-1')
    worker = start_worker(WORKER_POOL=pool, WORKER_CONCURRENCY=2).ready()
    eventually(lambda: worker.settled('EDX-1') == 'done')
    with broker.connection() as connection:
        connection.channel().queue_delete(QUEUE)
    worker.ready()
    publish('EDX-2')
    eventually(lambda: worker.settled('EDX-2') == 'done')


def test_a_stopping_worker_finishes_what_runs(shop, broker, publish, start_worker):
    # Long enough for RabbitMQ to close a connection without heartbeats, and to deliver the order to another worker.
    shop.add_order('EDX-1', Answer.slow(12))
    worker = start_worker(FULFILLMENT_READ_TIMEOUT=20, BROKER_HEARTBEAT=3).ready()
    publish('EDX-1')
    eventually(lambda: shop.orders['EDX-1'].puts == 1)
    assert worker.stop() == 0
    assert shop.orders['EDX-1'].fulfilments == 1
    assert broker.depth(QUEUE) == 0
    assert 'Traceback' not in worker.log


def test_an_order_with_an_eta_waits_in_the_broker(shop, broker, publish, start_worker):
    shop.add_order('EDX-1')
    worker = start_worker().ready()
    with Celery('ecommerce', broker=broker.url, set_as_current=False) as app:
        app.send_task(FULFILL, ('EDX-1',), queue=QUEUE, countdown=4)
    eventually(lambda: broker.waiting() == 1)
    eventually(lambda: worker.settled('EDX-1') == 'done')


def test_a_task_that_ends_its_process_is_parked_in_the_end(shop, broker, publish, start_worker, tmp_path, environment):
    (tmp_path / 'culprit.py').write_text(
        'import os\n'
        'from ecommerce_worker.execution.task import task\n'
        "@task(policy=lambda site: site.fulfillment_policy, key='order_number')\n"
        'def end_process(self, order_number):\n'
        '    os._exit(9)\n')
    environment['PYTHONPATH'] = str(tmp_path)
    numbers = [f'EDX-{number}' for number in range(5)]
    for number in numbers:
        shop.add_order(number, Answer.slow(0.3))
    publish('EDX-666', task='culprit.end_process', queue=QUEUE)
    for number in numbers:
        publish(number)
    settings = {'CELERY_IMPORTS': f'{TASKS},culprit', 'REDELIVERY_LIMIT': 3, 'REDELIVERY_DELAY': 2}

    def parked() -> Any:
        """The culprit's notes; and a supervisor's work: start the worker that it ended.  A worker that is ended between
        sending a message on and acknowledging it leaves two of it, and both end processes.
        """
        if not workers or workers[-1].process.poll() is not None:
            assert len(workers) < 12
            workers.append(start_worker(**settings))
        return broker.parked_order('EDX-666')

    workers: list[Worker] = []
    notes = eventually(parked, seconds=60)
    assert 'never finished' in notes['reason']
    eventually(lambda: parked() and complete(shop, *numbers), seconds=60)
    assert broker.parked_order('EDX-0') is None


@pytest.mark.parametrize('message', [found for found in MESSAGES if found['task'] == FULFILL],
                         ids=lambda message: f'{message["celery"]}-{message["n"]}')
def test_genuine_fulfilment_messages_run_unchanged(shop, broker, start_worker, message):
    number = eval(message['args_readable'])[0]
    shop.add_order(number)
    broker.publish_message(message)
    worker = start_worker().ready()
    eventually(lambda: worker.settled(number) == 'done')
    wanted = eval(message['kwargs_readable'])
    assert shop.orders[number].email_opt_in is wanted.get('email_opt_in', False)


def test_messages_of_tasks_that_are_not_there_are_parked_unchanged(broker, start_worker):
    strange = [message for message in MESSAGES if message['task'] != FULFILL]
    for message in strange:
        broker.publish_message(message)
    start_worker(CELERY_IMPORTS=TASKS).ready()
    parked = eventually(lambda: len(found := broker.parked()) == len(strange) and found)
    bodies = [base64.b64decode(message['body_base64']) for message in strange]
    assert sorted(Raw.of(message).body for message in parked) == sorted(bodies)
    assert {message.headers['ecommerce']['id'] for message in parked} == {m['correlation_id'] for m in strange}
    for message in parked:
        assert 'ann@example.com' not in str(message.headers)
        assert 'there is no task' in message.headers['ecommerce']['reason']


@pytest.mark.parametrize('serializer', ['json', 'pickle'])
@pytest.mark.parametrize('protocol, exchange', [(1, 'named after the queue'), (2, 'the default one')])
def test_both_ways_of_publishing_arrive(shop, broker, start_worker, serializer, protocol, exchange):
    shop.add_order('EDX-1')
    worker = start_worker().ready()
    with Celery('ecommerce', broker=broker.url, set_as_current=False) as app:
        app.conf.task_protocol = protocol
        where = {'exchange': QUEUE, 'routing_key': QUEUE} if protocol == 1 else {'queue': QUEUE}
        app.send_task(FULFILL, ('EDX-1',), {'email_opt_in': True}, serializer=serializer, **where)
    eventually(lambda: worker.settled('EDX-1') == 'done')


def test_the_default_exchange_of_celery_3_leads_to_the_default_queue(shop, broker, start_worker):
    shop.add_order('EDX-1')
    worker = start_worker().ready()
    with Celery('ecommerce', broker=broker.url, set_as_current=False) as app:
        app.send_task(FULFILL, ('EDX-1',), exchange='ecommerce', routing_key='ecommerce')
    eventually(lambda: worker.settled('EDX-1') == 'done')
    assert broker.parked() == []


def test_a_retry_goes_to_its_own_queue_only(shop, broker, start_worker, publish):
    shop.add_order('EDX-1', Answer(status=503))
    publish('EDX-1')
    worker = start_worker('-Q', QUEUE).ready()
    eventually(lambda: worker.settled('EDX-1') == 'done')
    assert broker.depth('fulfillment') == 0


def test_a_third_partys_settings_package_works_unchanged(shop, broker, publish, tmp_path):
    settings = (
        'from ..base import *\n'
        'from ..logger import get_logger_config\n'
        f'BROKER_URL = {broker.url!r}\n'
        "JWT_SECRET_KEY = 'demo-jwt-secret-of-at-least-32-bytes'\n"
        "JWT_ISSUER = 'ecommerce_worker'\n"
        f'LOGGING = get_logger_config(log_dir={str(tmp_path)!r}, edx_filename="ecommerce_worker.log", dev_env=True, '
        "debug=False, local_loglevel='INFO')\n"
        "LOGGING['handlers'].pop('local')\n"
        "LOGGING['loggers']['']['handlers'] = ['console']\n")
    shop.add_order('EDX-1')
    environment = worker_environment(broker.url, shop)
    for name in ('BROKER_URL', 'BACKEND_SERVICE_EDX_OAUTH2_KEY', 'BACKEND_SERVICE_EDX_OAUTH2_SECRET'):
        del environment[f'ECOMMERCE_WORKER_{name}']
    environment['WORKER_CONFIGURATION_MODULE'] = 'ecommerce_worker.configuration.thirdparty.production'
    copy = tmp_path / 'site'  # where such a package is mounted, without leaving one here
    shutil.copytree(Path(ecommerce_worker.__file__).parent, copy / 'ecommerce_worker',
                    ignore=shutil.ignore_patterns('tests', '__pycache__'))
    mounted = copy / 'ecommerce_worker' / 'configuration' / 'thirdparty'
    mounted.mkdir()
    (mounted / '__init__.py').touch()
    (mounted / 'production.py').write_text(settings)
    environment['PYTHONPATH'] = str(copy)
    worker = Worker(broker, tmp_path / 'log', environment, ())
    try:
        worker.ready()
        publish('EDX-1')
        eventually(lambda: worker.settled('EDX-1') == 'done')
    finally:
        worker.kill()


def test_the_next_broker_of_a_list_is_taken_when_one_is_gone(shop, broker, link, publish, start_worker):
    worker = start_worker(BROKER_URL=f'{link.url};{broker.url}').ready()
    assert link.proxy.connected
    with link.interrupted():
        worker.ready()
        shop.add_order('EDX-1', Answer(503))
        publish('EDX-1')
        eventually(lambda: shop.orders['EDX-1'].status == 'Complete')


def test_a_message_in_hand_for_too_long_costs_the_connection_only(shop, broker, publish, start_worker):
    with broker.connection() as connection:
        if topology.version(connection) >= (4, 3):
            # https://github.com/rabbitmq/rabbitmq-server/issues/16983
            pytest.skip('this RabbitMQ takes nothing back from who consumes a classic queue')

    def limits(consumer_timeout, channel_tick_interval):
        broker.node.ctl('eval', f'application:set_env(rabbit, consumer_timeout, {consumer_timeout}), '
                                f'application:set_env(rabbit, channel_tick_interval, {channel_tick_interval}).')

    limits(2000, 500)
    try:
        # Whatever is in hand for two seconds is delivered again, EDX-2 too on a busy machine.
        worker = start_worker(FULFILLMENT_READ_TIMEOUT=30, REDELIVERY_DELAY=1).ready()
        shop.add_order('EDX-1', Answer.slow(8))
        publish('EDX-1')
        eventually(lambda: 'held for too long' in worker.log)
        eventually(lambda: shop.orders['EDX-1'].status == 'Complete')
        shop.add_order('EDX-2')
        publish('EDX-2')
        eventually(lambda: shop.orders['EDX-2'].status == 'Complete')
        # The run that went on meanwhile is the one that counts.
        assert [call.order for call in shop.calls if call.is_put].count('EDX-1') == 1
        assert worker.stop() == 0
    finally:
        limits(1_800_000, 60_000)
