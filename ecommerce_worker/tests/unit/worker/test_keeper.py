"""What the keeper makes of what its broker says, by a connection that stands in for one."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace
from typing import Any, cast

import pytest
from amqp import spec

from ecommerce_worker.broker.notes import Notes, ParkingNote
from ecommerce_worker.broker.publishing import parked_message, waiting_call
from ecommerce_worker.broker.wire import Call, Raw
from ecommerce_worker.execution.outcomes import Handover
from ecommerce_worker.telemetry.run import RunReport
from ecommerce_worker.tests.support.harness import QUEUE
from ecommerce_worker.worker.consumer import Consumer
from ecommerce_worker.worker.keeper import Keeper, Kept

REPORT = RunReport('parked', task='task', id='id-1', key='1', attempt=1, seconds=0.1)


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

    def send_method(self, method, *args, **options):
        self.said.append(method)


class Bench:
    """A keeper without its thread; ``round`` is one turn of that."""

    def __init__(self):
        self.connection: Any = SimpleNamespace(channels=[], Channel=Channel, frame_max=131072)
        self.events: list[Any] = []
        self.given_back: list[Any] = []
        self.keeper = cast('Any', Keeper(cast('Any', None), given_back=self.given_back.append))
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
        kept = Kept((name,), publications, lambda done: self.how.__setitem__(name, done), REPORT)
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
    return parked_message(Raw(b'{}', 'application/json', 'utf-8', {}), ParkingNote(
        id=f'id-{number}', task='task', key=str(number), reason='why', notes=Notes(queue=queue)))


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


def test_no_answer_is_waited_for_to_use_a_channel(bench):
    bench.keep('one', waits(1), parks(1))
    bench.round()
    assert [channel.said for channel in bench.connection.channels] == [
        [spec.Channel.Open, 'confirm', spec.Basic.Publish]] * 2


def test_what_is_on_its_way_when_an_alarm_ends_has_its_time_to_be_confirmed_again(bench):
    bench.keep('one', waits(1))
    bench.round()
    for way in bench.ways():
        way.sent[1].at -= 1e6
    bench.keeper._on_blocked(True)
    bench.events.append(lambda: bench.keeper._on_blocked(False))
    bench.keeper._next_look = 0.0
    bench.round()
    assert [len(way.sent) for way in bench.ways()] == [1]


def test_after_a_connection_that_was_lost_one_message_goes_by_each_way_until_it_is_confirmed(bench):
    for number in range(3):
        bench.keep(str(number), waits(number))
    bench.round()
    connection = bench.keeper._connection
    bench.keeper._lost(OSError())
    bench.keeper._connection, bench.keeper._not_before = connection, 0.0
    bench.round()
    way, = bench.ways()
    assert (len(way.sent), len(way.waiting)) == (1, 2)
    bench.keeper._on_confirm(way, True, 1, False)
    bench.round()
    assert (len(way.sent), bench.how) == (2, {'0': True})


def test_the_end_of_a_channel_by_both_sides_at_once_is_no_refusal(bench):
    bench.keep('one', waits(1))
    bench.round()
    way, = bench.ways()
    channel, = bench.connection.channels
    bench.keeper._refused(way, 'the queue accepts no messages')
    bench.keeper._on_close(way, channel, 406)
    assert channel.said[-2:] == [spec.Channel.Close, spec.Channel.CloseOk]
    assert way.trouble == 'the queue accepts no messages'


def test_a_message_that_stands_aside_leaves_no_channel_open(bench):
    bench.connection.frame_max = 0
    kept = bench.keep('unfit', parks(1))
    for _ in range(3):
        bench.round()
        for way in bench.ways():
            way.not_before = 0.0
    kept.gone = True
    bench.keeper._next_look = 0.0
    bench.round()
    assert [way.aside for way in bench.ways()] == [False]
    assert [channel.said[-1] for channel in bench.connection.channels] == ['confirm', spec.Channel.Close]


def test_what_is_on_its_way_when_its_time_is_nearly_over_and_is_confirmed_was_not_given_back(bench):
    bench.keep('parked', parks(1))
    bench.round()
    bench.keep('refused', parks(2))
    bench.keep('of no queue', parks(3, queue=''))
    for kept in bench.keeper._all:
        kept.since -= 1180
    way, = bench.ways()
    way.width = 0
    bench.keeper._next_look = 0.0
    bench.round()
    assert [(kept.message[0], kept.last) for kept in bench.keeper._all] == [
        ('parked', False), ('refused', True), ('of no queue', False)]
    bench.keeper._on_confirm(way, True, 1, False)
    assert (bench.how, bench.given_back) == ({'parked': True}, [])


@pytest.mark.parametrize('seconds, since', [(10, 10), (600, 600), (1700, 1080)])
def test_the_time_for_which_a_message_is_in_hand_begins_with_its_delivery(monkeypatch, seconds, since):
    kept: list[Kept] = []
    monkeypatch.setattr('time.monotonic', lambda: 5000.0)
    Consumer.hand_over(cast('Any', SimpleNamespace(keeper=SimpleNamespace(keep=kept.append))),
                       cast('Any', SimpleNamespace(offered=5000.0 - seconds)), Handover((), ('message',), None))
    assert kept[0].since == 5000.0 - since


def test_a_message_whose_run_took_long_is_not_late_at_once(bench):
    bench.keep('one', waits(1)).since -= 60
    bench.round()
    assert bench.keeper.late() == {}
