"""Turns at an order that RabbitMQ knows of, and who needs to ask it."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from ecommerce_worker.errors import Taken
from ecommerce_worker.locks.cluster import Leases, Neighbours
from ecommerce_worker.tests.support.harness import QUEUE, eventually, shop_app
from ecommerce_worker.tests.support.turns import at_work


@pytest.fixture
def apps(broker):
    """The applications of two machines."""
    with shop_app(broker.url) as first, shop_app(broker.url) as second:
        yield first, second


def is_taken(app, name='shop EDX-1', lease=60.0):
    try:
        with Leases(app).turn(name, lease=lease):
            return False
    except Taken:
        return True


def test_a_turn_is_taken_for_others_until_it_is_over(apps):
    first, second = apps
    with Leases(first).turn('shop EDX-1', lease=60):
        assert is_taken(second)
        assert is_taken(first)
        assert not is_taken(second, 'shop EDX-2')
    assert not is_taken(second)


def test_a_turn_outlives_the_connections_of_whoever_has_it(apps, broker):
    first, second = apps
    with Leases(first).turn('shop EDX-1', lease=60):
        broker.node.ctl('close_all_connections', 'test')
        assert is_taken(second)
    assert not is_taken(second)


def test_a_turn_of_one_that_is_gone_is_over_with_its_lease_however_often_others_ask(apps):
    first, second = apps
    gone = Leases(first).turn('shop EDX-1', lease=3)
    gone.__enter__()
    began = time.monotonic()
    assert is_taken(second)
    eventually(lambda: not is_taken(second))
    assert time.monotonic() - began > 2


def test_one_that_ends_after_its_lease_leaves_the_turn_of_the_next_alone(apps):
    first, second = apps
    late = Leases(first).turn('shop EDX-1', lease=2.1)
    late.__enter__()
    eventually(lambda: not is_taken(second))
    with Leases(second).turn('shop EDX-1', lease=60):
        late.__exit__(None, None, None)
        assert is_taken(first)


def test_a_machine_takes_over_the_turn_of_one_of_its_workers_that_was_killed(apps):
    first, second = apps
    gone = Leases(first, 'a').turn('shop EDX-1', lease=60)
    gone.__enter__()
    assert is_taken(second)
    with Leases(second, 'a').turn('shop EDX-1', lease=60):
        assert is_taken(first)
    assert not is_taken(first)


def test_it_takes_over_such_a_turn_whatever_its_lease_was_and_no_other_machine_does(apps):
    first, second = apps
    gone = Leases(first, 'a').turn('shop EDX-1', lease=60)
    gone.__enter__()
    with pytest.raises(Taken), Leases(second, 'b').turn('shop EDX-1', lease=30):
        pass
    assert is_taken(second)
    with Leases(second, 'a').turn('shop EDX-1', lease=30):
        assert is_taken(first)
    assert not is_taken(first)


def test_of_many_on_two_machines_one_is_under_way(apps):
    assert at_work(lambda number: Leases(apps[number % 2]).turn('shop EDX-1', lease=60), seconds=0.05, again=0.01
                   ) == [1] * 8


def test_where_rabbitmq_cannot_be_asked_it_counts_as_taken():
    with shop_app('amqp://127.0.0.1:1//') as app:
        assert is_taken(app)


# -- who needs to ask -------------------------------------------------------------------------------------------------

class Machine:
    """A worker of a machine, as far as others hear of it."""

    def __init__(self, app, name, broker, queues=(QUEUE,)):
        self.runs: list[object] = []
        self.queues = queues
        self.neighbours = Neighbours(app, lambda: queues, lambda: list(self.runs), machine=name, here_seconds=0.3,
                                     alone_seconds=1.5)
        self.broker = broker

    def join(self):
        self.neighbours.join(lambda: True)
        return self

    def consume(self):
        """What RabbitMQ counts."""
        self.connection = self.broker.connection()
        for queue in self.queues:
            self.connection.channel().basic_consume(queue)
        return self

    @property
    def alone(self):
        return self.neighbours.alone

    def end(self):
        self.neighbours.end()
        if hasattr(self, 'connection'):
            self.connection.close()


@pytest.fixture
def machine(apps, broker):
    started: list[Machine] = []

    def start(name, **given):
        started.append(Machine(apps[len(started) % 2], name, broker, **given))
        return started[-1]

    yield start
    for each in started:
        each.end()


def test_a_worker_is_alone_only_once_it_has_listened_for_a_while(machine):
    first = machine('a').join().consume()
    assert not first.alone
    eventually(lambda: first.alone)


def test_a_worker_of_the_same_machine_changes_nothing(machine):
    first = machine('a').join().consume()
    eventually(lambda: first.alone)
    second = machine('a').join().consume()
    eventually(lambda: second.alone)
    assert first.alone


def test_who_comes_on_another_machine_waits_until_runs_that_did_not_ask_are_over(machine):
    first = machine('a').join().consume()
    eventually(lambda: first.alone)
    first.runs.append(object())
    second = machine('b')
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(second.join)
        eventually(lambda: not first.alone)
        # One that begins now asks, and need not be waited for.
        begun, asking = first.runs[0], object()
        first.runs.append(asking)
        time.sleep(1)
        assert not coming.done()
        first.runs.remove(begun)
        coming.result(30)
    second.consume()
    time.sleep(2)
    assert (first.alone, second.alone) == (False, False)


def test_who_consumes_another_queue_does_not_speak_for_those_whose_runs_did_not_ask(machine, broker):
    with broker.connection() as connection:
        connection.channel().queue_declare('mail', auto_delete=True)
    first = machine('a').join().consume()
    mailer = machine('a', queues=['mail']).join().consume()
    eventually(lambda: first.alone and mailer.alone)
    first.runs.append(object())
    second = machine('b', queues=[QUEUE, 'mail'])
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(second.join)
        eventually(lambda: not first.alone and not mailer.alone)
        time.sleep(1)
        assert not coming.done()
        first.runs.clear()
        coming.result(30)


def test_when_the_other_machine_is_gone_one_is_alone_again(machine):
    first = machine('a').join().consume()
    second = machine('b').join().consume()
    eventually(lambda: not first.alone)
    second.end()
    eventually(lambda: first.alone)


def test_who_consumed_a_queue_that_is_not_to_be_had_is_unknown(machine, broker):
    first = machine('a')
    first.neighbours._since = 0.0  # it has listened for long
    with broker.connection() as connection:
        with broker.unavailable(QUEUE):
            first.neighbours._count(connection)
            assert (first.alone, first.neighbours._silent(connection)) == (False, 1)
        first.neighbours._count(connection)
        assert (first.alone, first.neighbours._silent(connection)) == (True, 0)
        with broker.unavailable(QUEUE):
            first.neighbours._count(connection)
            assert not first.alone


def test_who_consumes_and_is_not_heard_keeps_a_worker_from_being_alone(machine, broker):
    silent = Machine(None, 'old', broker).consume()
    first = machine('a').consume()
    first.neighbours.join(lambda: False)
    time.sleep(3)
    assert not first.alone
    silent.connection.close()
    eventually(lambda: first.alone)
