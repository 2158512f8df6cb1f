"""Acknowledgements that wait for facts, and the window that is wider by them."""

from types import SimpleNamespace
from typing import Any

import pytest

from ecommerce_worker import runtime
from ecommerce_worker.worker.acknowledging import MOST_HELD, Acknowledging


class Safety:
    """Holds what it is told to hold, until it is safe."""

    def __init__(self):
        self.unsafe: set[str] = set()
        self.acts: list[Any] = []
        self.most = 0

    def holds(self, id_, act, most):
        self.most = most
        if id_ in self.unsafe:
            self.acts.append(act)
        return id_ in self.unsafe

    def safe(self):
        for act in self.acts:
            act()
        self.acts.clear()

    def flush(self):
        """Nothing."""


class Consumer:
    """What of the worker's consumer is needed."""

    acknowledging: Any

    def __init__(self):
        self.hub, self.counts_by_queue = self, False
        self.later: list[Any] = []
        self.wider: list[int] = []
        self.settled: list[tuple[Any, bool]] = []

    def settle(self, message, done):
        self.settled.append((message.id, done))

    def call_soon(self, act):
        act()

    def call_later(self, seconds, act):
        self.later.append(act)

    def widen(self):
        self.wider.append(self.acknowledging.wider)


@pytest.fixture
def safety(in_force):
    in_force()
    runtime.current().safety = found = Safety()
    return found


@pytest.fixture
def consumer():
    found = Consumer()
    found.acknowledging = Acknowledging(found, 4)  # type: ignore[arg-type]
    return found


def acknowledge(consumer, id_):
    """As Celery does with a message that the consumer has seen to."""
    message = SimpleNamespace(id=id_)
    consumer.acknowledging.see_to(message, id_)
    message.ack_log_error('logger', 'errors')


def test_what_is_safe_is_acknowledged_at_once_and_the_rest_once_it_is(safety, consumer):
    safety.unsafe.add('id-2')
    acknowledge(consumer, 'id-1')
    acknowledge(consumer, 'id-2')
    assert consumer.settled == [('id-1', True)]
    safety.safe()
    assert consumer.settled == [('id-1', True), ('id-2', True)]


def test_where_nobody_listens_nothing_is_held(in_force, consumer):
    in_force()
    acknowledge(consumer, 'id-1')
    assert len(consumer.settled) == 1


def test_the_window_is_wider_by_what_is_held_in_steps_and_narrow_again_later(safety, consumer):
    ids = [f'id-{number}' for number in range(9)]
    safety.unsafe.update(ids)
    for id_ in ids:
        acknowledge(consumer, id_)
    assert consumer.wider == [4, 8]
    consumer.later.pop()()
    assert consumer.wider == [4, 8]
    safety.safe()
    consumer.later.pop()()
    assert consumer.wider == [4, 8, 0]
    assert (len(consumer.settled), consumer.later) == (9, [])


@pytest.mark.parametrize('counts_by_queue, most', [(False, MOST_HELD), (True, 4)])
def test_no_more_are_held_than_there_is_room_where_a_window_keeps_its_size(safety, consumer, counts_by_queue, most):
    consumer.counts_by_queue = counts_by_queue
    acknowledge(consumer, 'id-1')
    assert safety.most == most
