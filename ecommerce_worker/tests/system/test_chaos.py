"""No order is lost, or called for again, when things break: the short form of ``make chaos``."""

import pytest
from celery import Celery
from kombu import Exchange, Queue

from ecommerce_worker.fulfillment.names import FULFILL
from ecommerce_worker.testing.shop import Answer
from ecommerce_worker.tests.chaos.faults import FAULTS
from ecommerce_worker.tests.chaos.harness import STOCK, run
from ecommerce_worker.tests.support.harness import QUEUE, eventually


@pytest.mark.parametrize('fault, pool', [
    ('worker-killed-twice', 'threads'), ('rabbitmq-killed-once', 'threads'), ('connections-closed', 'threads'),
    ('worker-killed-twice', 'prefork'),
])
def test_each_accepted_order_is_fulfilled_once_whatever_breaks(broker, tmp_path, fault, pool):
    counted = run(broker, tmp_path, FAULTS[fault], pool, orders=60 if pool == 'threads' else 20, patience=60)
    assert counted.holds(FAULTS[fault]), counted
    assert counted.fulfilled == counted.accepted > 0


def test_an_order_that_a_worker_loses_is_missed(broker, tmp_path):
    counted = run(broker, tmp_path, FAULTS['shop-down'], 'prefork', orders=20, patience=3, kind=STOCK)
    assert counted.missing
    assert counted.fulfilled + len(counted.missing) == counted.accepted == 20 - counted.refused
    assert not counted.holds(FAULTS['shop-down'])


def test_an_order_that_came_by_another_routing_key_comes_back_from_the_waiting_room(shop, broker, start_worker):
    shop.add_order('EDX-1', Answer(status=429))
    worker = start_worker().ready()
    with broker.connection() as connection:
        channel = connection.channel()
        orders = Exchange('orders', 'topic', auto_delete=True).bind(channel)
        orders.declare()
        Queue(QUEUE).bind(channel).bind_to('orders', routing_key='order.#')
        with Celery('ecommerce', broker=broker.url, set_as_current=False) as app:
            app.send_task(FULFILL, ('EDX-1',), exchange='orders', routing_key='order.paid')
        eventually(lambda: worker.settled('EDX-1') == 'done')
        orders.delete()
