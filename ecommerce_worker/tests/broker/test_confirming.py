"""One connection that publishes for many threads: what one message or one queue costs all others."""

from __future__ import annotations

import socket

import pytest
from kombu import Queue

from ecommerce_worker.broker import topology
from ecommerce_worker.broker.confirming import PATIENCE, Confirming
from ecommerce_worker.broker.publishing import Publication
from ecommerce_worker.broker.transport import BrokerConnection
from ecommerce_worker.broker.wire import Raw
from ecommerce_worker.errors import NotPublished
from ecommerce_worker.telemetry.run import RunReport
from ecommerce_worker.tests.support.harness import eventually, standstill


@pytest.fixture
def confirming(broker):
    """One that is ready; ``confirming(urls)`` connects to these."""
    started = []

    def start(*urls, published=lambda *_: None):
        made = Confirming(lambda: BrokerConnection(list(urls) or [broker.url], transport_options={
            'confirm_publish': False, 'connect_timeout': PATIENCE, 'read_timeout': PATIENCE}), published=published)
        made.start()
        started.append(made)
        return made

    yield start
    for made in started:
        made.end()


@pytest.fixture
def queues(broker):
    """Two queues."""
    with broker.connection() as connection:
        for name in ('one', 'other'):
            Queue(name).bind(connection.channel()).declare()
        yield 'one', 'other'
        for name in ('one', 'other'):
            connection.channel().queue_delete(name)


def message(queue, id_='1', **changed):
    return Publication(Raw(b'{}', 'application/json', 'utf-8', {}, {'correlation_id': id_, **changed}), queue)


def test_who_listens_hears_what_was_confirmed_and_after_how_long_and_what_was_not(confirming, queues):
    heard = []
    publisher = confirming(published=lambda *what: heard.append(what))
    eventually(lambda: publisher.ready)
    publisher.publish(message('one'))
    (kind, seconds), = eventually(lambda: heard)
    assert (kind, 0 < seconds < PATIENCE) == ('queued', True)
    with pytest.raises(NotPublished):
        publisher.publish(message('nowhere'))
    eventually(lambda: heard[1:] == [('queued', None)])


def test_a_node_that_says_nothing_keeps_nobody_from_the_next_one(confirming, broker):
    with socket.create_server(('127.0.0.1', 0)) as silent:
        publisher = confirming(f'amqp://guest:guest@127.0.0.1:{silent.getsockname()[1]}//', broker.url)
        eventually(lambda: publisher.ready)


def test_a_queue_that_confirms_nothing_keeps_nobody_from_another(confirming, broker, node, queues):
    stuck, sound = queues
    publisher = confirming()
    eventually(lambda: publisher.ready)
    node.ctl('eval', standstill(stuck, 'suspend'))
    try:
        with pytest.raises(NotPublished, match='did not confirm a message in time'):
            publisher.publish(message(stuck), seconds=PATIENCE + 2)
        # Now it is known, and nobody waits for that queue; the other one is taken as ever.
        with pytest.raises(NotPublished, match='the queue did not confirm in time'):
            publisher.publish(message(stuck))
        publisher.publish(message(sound))
        assert publisher.ready
    finally:
        node.ctl('eval', standstill(stuck, 'resume'))
    eventually(lambda: _takes(publisher, stuck))


def _takes(publisher, queue):
    try:
        publisher.publish(message(queue))
    except NotPublished:
        return False
    return True


def test_what_amqp_cannot_carry_is_not_published_and_nobody_else_notices(confirming, queues, caplog):
    publisher = confirming()
    eventually(lambda: publisher.ready)
    unfit = Publication(Raw(b'{', 'x' * 300, 'utf-8', {}, {'correlation_id': 'unfit'}), queues[0])
    large = Publication(Raw(b'{', '', 'utf-8', {'x': 'x' * 200_000}, {'correlation_id': 'large'}), queues[0])
    for each in (unfit, large):
        with pytest.raises(NotPublished, match='its headers'):
            publisher.publish(each)
        # By the same connection, at once.
        publisher.publish(message(queues[0]), seconds=1)
    assert 'lost' not in caplog.text


def test_facts_are_published_as_soon_as_there_is_where_to(confirming, broker, queues, monkeypatch):
    monkeypatch.setattr('ecommerce_worker.broker.confirming.FACTS_SECONDS', 0.1)
    with broker.connection() as connection:
        connection.channel().exchange_delete(topology.FACTS)
        publisher = confirming()
        eventually(lambda: publisher.ready)
        publisher.publish(message(queues[0]), RunReport('accepted', id='1'))
        topology.declare_facts(connection)

        def reported():
            publisher.publish(message(queues[0]), RunReport('accepted', id='2'))
            found = topology.depth(connection, topology.LEDGER)
            return found and found.messages
        eventually(reported)
