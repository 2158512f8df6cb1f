"""The way into RabbitMQ's waiting room, and out of it."""

from __future__ import annotations

import time

import pytest
from kombu import Queue

from ecommerce_worker.broker import topology
from ecommerce_worker.broker.topology import BITS, entrance, level, task_queue
from ecommerce_worker.operations.parked import InQueue
from ecommerce_worker.tests.support.harness import QUEUE, eventually


@pytest.fixture
def channel(broker):
    with broker.connection() as connection:
        topology.declare(connection, [task_queue(QUEUE)])
        yield connection.channel()


def enter(channel, exchange, delay):
    """Publish as `topology.wait` does, by the exchange given."""
    message = channel.prepare_message(f'{exchange} {delay}'.encode(), properties={'delivery_mode': 2})
    channel.basic_publish_confirm(message, exchange=exchange, routing_key='.'.join((*f'{delay:0{BITS}b}', QUEUE)))


@pytest.mark.parametrize('delay', [16, 17, 31, 600, 1023, 1024, 86_400, 2 ** BITS - 1])
def test_the_short_way_in_leads_to_the_queue_that_the_long_way_leads_to(broker, channel, delay):
    place = level(delay.bit_length() - 1)
    for exchange in (level(BITS - 1), entrance(delay)):
        enter(channel, exchange, delay)
    eventually(lambda: broker.depth(place) == 2)
    assert broker.waiting() == 2


def test_by_either_way_a_message_comes_to_its_queue_after_its_delay_and_only_once(broker, channel):
    delays = (1, 2, 3, 5, 6)
    began = time.time()
    for delay in delays:
        for exchange in (level(BITS - 1), entrance(delay)):
            enter(channel, exchange, delay)
    queue, arrived = Queue(QUEUE).bind(channel), {}

    def all_came():
        if message := queue.get(no_ack=True):
            body = bytes(message.body)
            assert body not in arrived
            arrived[body] = time.time() - began
        return len(arrived) == 2 * len(delays)

    eventually(all_came)
    # Not before; how long after is the machine's affair, but no more for one way than for the other.
    assert [arrived[f'{entrance(delay)} {delay}'.encode()] >= delay for delay in delays] == [True] * len(delays)
    assert [arrived[f'{level(BITS - 1)} {delay}'.encode()] >= delay for delay in delays] == [True] * len(delays)
    assert broker.waiting() == 0


def test_what_finds_no_queue_when_it_has_waited_is_parked_and_holds_nobody_up(broker, channel):
    # RabbitMQ has 32 on the way out of the waiting room at once.
    for number in range(40):
        message = channel.prepare_message(str(number).encode(), properties={'delivery_mode': 2})
        channel.basic_publish_confirm(message, exchange=entrance(1),
                                      routing_key='.'.join((*f'{1:0{BITS}b}', 'no.such.queue')))
    enter(channel, entrance(1), 1)
    eventually(lambda: broker.depth(QUEUE) == 1)
    eventually(lambda: broker.depth(topology.PARKED) == 40)
    assert broker.waiting() == 0
    assert {InQueue.of(message).reason for message in broker.parked()} == {
        'it waited for its next try, and its queue no longer exists'}
