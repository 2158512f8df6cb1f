"""One shop, one run, one worker that stands still: everybody else goes on."""

from __future__ import annotations

import json
import os
import signal

import pytest

from ecommerce_worker.testing.shop import Answer, ShopProcess
from ecommerce_worker.tests.support.harness import QUEUE, eventually

TASKS = 'ecommerce_worker.fulfillment.v1.tasks'
POOLS = pytest.mark.parametrize('pool', ['threads', 'prefork'])

#: A task that hangs where Python cannot end it, and writes down that it has begun.
HANGS = """
import ctypes, os
from ecommerce_worker.execution.task import task
@task(policy=lambda site: site.fulfillment_policy, key='number')
def hang(self, number, site_code=None):
    with open(os.environ['BEGUN'], 'a') as begun:
        begun.write('x')
    ctypes.CDLL(None).pause()
"""


@pytest.fixture
def other_shop(tmp_path):
    """The shop of another site, on a host of its own."""
    (tmp_path / 'other').mkdir()
    with ShopProcess(tmp_path / 'other') as other:
        yield other


@pytest.fixture
def begun(tmp_path, environment):
    """How many runs of the task that hangs have begun."""
    (tmp_path / 'hangs.py').write_text(HANGS)
    environment |= {'PYTHONPATH': str(tmp_path), 'BEGUN': str(tmp_path / 'begun')}
    return lambda: len((tmp_path / 'begun').read_text()) if (tmp_path / 'begun').exists() else 0


def complete(shop, *numbers):
    return all(shop.orders[number].status == 'Complete' for number in numbers)


def puts(shop, *numbers):
    """How many calls for these orders have begun."""
    return sum(call.is_put and call.order in numbers for call in shop.calls)


def orders(shop, publish, name, number, *answers, **kwargs):
    """So many orders of that name, published."""
    numbers = [f'{name}-{position}' for position in range(number)]
    for each in numbers:
        shop.add_order(each, *answers)
        publish(each, **kwargs)
    return numbers


# -- a shop that is slow ----------------------------------------------------------------------------------------------

@POOLS
def test_a_shop_that_hangs_leaves_threads_to_others_and_its_orders_wait_in_rabbitmq(
        shop, other_shop, broker, publish, start_worker, pool):
    slow = orders(other_shop, publish, 'SLOW', 20, Answer.hanging(), site_code='other')
    worker = start_worker('--pool', pool, '--concurrency', '4', FULFILLMENT_READ_TIMEOUT=120, SITE_OVERRIDES=json.dumps(
        {'other': {'ECOMMERCE_API_ROOT': other_shop.api_root,
                   'BACKEND_SERVICE_EDX_OAUTH2_PROVIDER_URL': other_shop.oauth2_root}})).ready()
    eventually(lambda: puts(other_shop, *slow) >= 3)
    good = orders(shop, publish, 'EDX', 30)
    eventually(lambda: complete(shop, *good))
    # None of the others has ended meanwhile, nor was any tried twice: they wait, and that was reported once.
    assert 3 <= puts(other_shop, *slow) <= 4
    eventually(lambda: broker.waiting() >= 10)
    assert all(worker.outcomes(number) in ([], ['retrying']) for number in slow)
    eventually(lambda: broker.depth(QUEUE) == 0)


def test_a_site_that_is_alone_has_all_the_threads_that_it_was_given(shop, publish, start_worker):
    numbers = orders(shop, publish, 'EDX', 12, Answer.hanging())
    start_worker('--concurrency', '8', FULFILLMENT_READ_TIMEOUT=120).ready()
    eventually(lambda: puts(shop, *numbers) == 8)


def test_a_worker_that_stops_sends_on_what_it_had_not_begun(shop, broker, publish, start_worker):
    numbers = orders(shop, publish, 'EDX', 12, Answer.slow(3))
    worker = start_worker('--concurrency', '4', FULFILLMENT_READ_TIMEOUT=30).ready()
    eventually(lambda: puts(shop, *numbers) >= 4)
    assert worker.stop() == 0
    assert sum(worker.settled(number) == 'done' for number in numbers) >= 4
    again = start_worker('--concurrency', '12', FULFILLMENT_READ_TIMEOUT=30).ready()
    eventually(lambda: complete(shop, *numbers))
    # As new, and not as what was with a worker that died.
    assert 'redelivered' not in again.log
    assert puts(shop, *numbers) == len(numbers)


# -- a worker that is frozen ------------------------------------------------------------------------------------------

def test_orders_in_the_hands_of_a_frozen_worker_cost_its_neighbour_no_thread(shop, publish, start_worker):
    held = orders(shop, publish, 'HELD', 4, Answer.hanging())
    settings = {'FULFILLMENT_READ_TIMEOUT': 60, 'BROKER_HEARTBEAT': 2, 'REDELIVERY_DELAY': 1}
    frozen = start_worker('--concurrency', '4', **settings).ready()
    eventually(lambda: puts(shop, *held) == 4)
    os.killpg(frozen.process.pid, signal.SIGSTOP)
    try:
        worker = start_worker('--concurrency', '1', **settings)
        # RabbitMQ gives them to the other one, who meets the turns that are taken.
        eventually(lambda: all('retrying' in worker.outcomes(number) for number in held), seconds=60)
        good = orders(shop, publish, 'EDX', 10)
        eventually(lambda: complete(shop, *good))
        assert puts(shop, *held) == 4
    finally:
        os.killpg(frozen.process.pid, signal.SIGCONT)


# -- a run that hangs -------------------------------------------------------------------------------------------------

def test_a_run_that_hangs_costs_one_thread_and_is_parked(shop, broker, publish, start_worker, begun):
    worker = start_worker('--concurrency', '4', CELERY_IMPORTS=f'{TASKS},hangs', REDELIVERY_DELAY=1, REDELIVERY_LIMIT=2,
                          LONGEST_RUN=2, SHUTDOWN_SECONDS=1).ready()
    publish('BAD', task='hangs.hang', queue=QUEUE)
    notes = eventually(lambda: broker.parked_order('BAD'), seconds=90)
    assert 'never finished' in notes['reason']
    assert begun() == 1
    good = orders(shop, publish, 'EDX', 10)
    eventually(lambda: complete(shop, *good))
    assert 'a run does not end: task=hangs.hang key=BAD' in worker.log
    assert 'ctypes.CDLL(None).pause()' in worker.log
    assert worker.process.poll() is None
    # Nothing is in hand any more, of it neither.
    eventually(lambda: broker.node.held(QUEUE) == 0)


def test_a_run_that_ends_late_after_all_is_the_one_that_counts(shop, broker, publish, start_worker):
    shop.add_order('EDX-1', Answer(status=429, delay=8))
    worker = start_worker('--concurrency', '4', FULFILLMENT_READ_TIMEOUT=30, REDELIVERY_DELAY=1, LONGEST_RUN=2).ready()
    publish('EDX-1')
    eventually(lambda: 'a run does not end' in worker.log)
    eventually(lambda: worker.settled('EDX-1') == 'done')
    assert shop.orders['EDX-1'].puts == 2
    eventually(lambda: not broker.waiting())
    assert worker.stop() == 0
    assert broker.depth(QUEUE) == 0
    assert 'skipped' not in worker.outcomes('EDX-1')


def test_a_worker_that_has_lost_too_many_threads_ends_for_another(shop, broker, publish, start_worker, begun):
    worker = start_worker('--concurrency', '4', CELERY_IMPORTS=f'{TASKS},hangs', LONGEST_RUN=8, SHUTDOWN_SECONDS=60,
                          FULFILLMENT_READ_TIMEOUT=30).ready()
    publish('BAD-1', task='hangs.hang', queue=QUEUE)
    eventually(lambda: begun() == 1)
    first, = orders(shop, publish, 'EDX-A', 1, Answer.slow(4))
    eventually(lambda: complete(shop, first))
    publish('BAD-2', task='hangs.hang', queue=QUEUE)
    eventually(lambda: 'a run does not end: task=hangs.hang key=BAD-1' in worker.log)
    # This one is under way when the other one is lost, too.
    last, = orders(shop, publish, 'EDX-B', 1, Answer.slow(6))
    assert worker.process.wait(90) == 75
    assert 'too many threads are stuck' in worker.log
    assert worker.settled(last) == 'done'
    eventually(lambda: broker.depth(QUEUE) == 2)


def test_a_child_that_hangs_is_ended_and_its_message_parked(shop, broker, publish, start_worker, begun):
    start_worker('--pool', 'prefork', '--concurrency', '2', CELERY_IMPORTS=f'{TASKS},hangs', LONGEST_RUN=2,
                 REDELIVERY_DELAY=1, REDELIVERY_LIMIT=1).ready()
    publish('BAD', task='hangs.hang', queue=QUEUE)
    notes = eventually(lambda: broker.parked_order('BAD'), seconds=60)
    assert 'never finished' in notes['reason']
    assert begun() == 2
    good = orders(shop, publish, 'EDX', 5)
    eventually(lambda: complete(shop, *good))
