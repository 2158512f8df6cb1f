"""Stopping a worker: what runs ends, or is delivered again; nothing is lost and nothing overlaps."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from ecommerce_worker.testing.shop import Answer
from ecommerce_worker.tests.support.harness import QUEUE, eventually

POOLS = pytest.mark.parametrize('pool', ['threads', 'prefork'])


def puts(shop, number):
    return [call for call in shop.calls if call.is_put and call.order == number]


def stuck(shop, publish, start_worker, pool, **settings):
    """A worker with an order in hand that the shop does not answer."""
    shop.add_order('EDX-1', Answer.hanging())
    publish('EDX-1')
    worker = start_worker('--pool', pool, '--concurrency', '2', FULFILLMENT_READ_TIMEOUT=60, **settings).ready()
    eventually(lambda: puts(shop, 'EDX-1'))
    return worker


@POOLS
def test_what_runs_ends_before_the_worker_does(shop, publish, start_worker, pool):
    shop.add_order('EDX-1', Answer.slow(2))
    publish('EDX-1')
    worker = start_worker('--pool', pool, '--concurrency', '2', FULFILLMENT_READ_TIMEOUT=10).ready()
    eventually(lambda: puts(shop, 'EDX-1'))
    assert worker.stop() == 0
    assert shop.orders['EDX-1'].status == 'Complete'
    assert worker.settled('EDX-1') == 'done'


@POOLS
def test_what_does_not_end_in_time_is_handed_back(shop, publish, start_worker, broker, pool):
    worker = stuck(shop, publish, start_worker, pool, SHUTDOWN_SECONDS=1)
    assert worker.stop() == 0
    assert 'delivered again' in worker.log
    eventually(lambda: broker.depth(QUEUE) == 1)


@POOLS
@pytest.mark.parametrize('signals', [
    (signal.SIGQUIT,), (signal.SIGTERM, signal.SIGTERM), (signal.SIGTERM, signal.SIGQUIT),
    (signal.SIGINT, signal.SIGINT),
], ids=lambda signals: ' '.join(it.name for it in signals))
def test_a_worker_in_a_hurry_waits_for_nothing_and_loses_nothing(shop, publish, start_worker, broker, pool, signals):
    worker = stuck(shop, publish, start_worker, pool, SHUTDOWN_SECONDS=60)
    for each in signals:
        worker.process.send_signal(each)
        time.sleep(0.5)
    worker.process.wait(60)
    eventually(lambda: broker.depth(QUEUE) == 1)


def test_nothing_is_left_of_a_prefork_worker_that_left_something_running(shop, publish, start_worker):
    worker = stuck(shop, publish, start_worker, 'prefork', SHUTDOWN_SECONDS=1)
    children = worker.children
    assert children
    worker.stop()
    # One that lived on would fulfil the order while another worker does.
    eventually(lambda: not any(Path('/proc', child).exists() for child in children))


def test_a_worker_may_wait_for_a_broker_that_is_still_booting(start_worker, link):
    with link.interrupted():
        worker = start_worker('--wait', '60', BROKER_URL=link.url)
        eventually(lambda: 'waiting up to 60 s' in worker.log)
    eventually(lambda: ' ready.' in worker.log)
    assert worker.stop() == 0


def test_otherwise_it_fails_at_once(start_worker):
    worker = start_worker(BROKER_URL='amqp://127.0.0.1:1//')
    assert worker.process.wait(30) == 69


def test_purging_at_start_is_refused(start_worker):
    worker = start_worker('--purge')
    assert worker.process.wait(30) == 2
    assert 'queues purge' in worker.log
