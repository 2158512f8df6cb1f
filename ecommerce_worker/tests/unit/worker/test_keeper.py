"""What the keeper makes of what its broker says, by a connection that stands in for one."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ecommerce_worker.broker.notes import Notes
from ecommerce_worker.broker.publishing import parked_message, waiting_call
from ecommerce_worker.broker.wire import Call, Raw
from ecommerce_worker.tests.support.harness import QUEUE
from ecommerce_worker.worker.keeper import Keeper, Kept


class Channel:
    """Remembers what is said on it."""

    is_closing = False

    def __init__(self, connection):
        self.connection = connection
        self.said: list[Any] = []
        self.events: dict[str, set[Any]] = defaultdict(set)
        self._callbacks: dict[Any, Any] = {}
        connection.channels.append(self)

    def prepare_message(self, body, **properties):
        return SimpleNamespace(_serialize_properties=lambda: b'')

    def confirm_select(self, nowait=False):
        self.said.append('confirm')

    def basic_publish(self, message, **address):
        self.said.append('publish')

    def send_method(self, method, *args, **options):
        self.said.append(method)


class Bench:
    """A keeper without its thread; ``round`` is one turn of that."""

    def __init__(self):
        self.connection: Any = SimpleNamespace(channels=[], Channel=Channel, frame_max=131072)
        self.events: list[Any] = []
        self.keeper: Any = Keeper(cast('Any', None))
        self.keeper._connection = SimpleNamespace(
            connection=self.connection, transport=SimpleNamespace(driver_type='amqp'), drain_events=self.drain,
            channel=lambda: Channel(self.connection), collect=lambda: None)
        self.keeper._thread = object()
        self.how: dict[str, bool] = {}

    def drain(self, timeout):
        if not self.events:
            raise TimeoutError
        self.events.pop(0)()

    def keep(self, name, *publications):
        kept = Kept((name,), publications, lambda done: self.how.__setitem__(name, done))
        self.keeper.keep(kept)
        return kept

    def round(self):
        self.keeper._round()

    def ways(self):
        return self.keeper._ways.values()


@pytest.fixture
def bench():
    return Bench()


def waits(number, delay=600):
    return waiting_call(Call('task', f'id-{number}', (number,)), Notes(queue=QUEUE), delay)


def parks(number, queue=QUEUE):
    return parked_message(Raw(b'{}', 'application/json', 'utf-8', {}), Notes(queue=queue), task='task',
                          id=f'id-{number}', key=str(number), reason='why')


def test_while_the_broker_takes_nothing_the_keeper_rests_and_hears_when_it_does_again(bench):
    bench.keeper._on_blocked(True)
    bench.keep('one', waits(1))
    bench.round()
    assert bench.keeper._rest() > 0
    assert not any(way.sent for way in bench.ways())
    bench.events.append(lambda: bench.keeper._on_blocked(False))
    bench.round()
    bench.round()
    assert [len(way.sent) for way in bench.ways()] == [1]
