"""Who may keep how many threads busy, and what becomes of those for whom there is none."""

from itertools import pairwise
from typing import Any

import pytest

from ecommerce_worker.tests.support.clock import Clock
from ecommerce_worker.worker import lanes as module
from ecommerce_worker.worker.lanes import Lanes


class Bench:
    """Lanes whose runs begin and end when the test says so."""

    def __init__(self, room=8, weight=1.0):
        self.clock = Clock(1000.0)
        self.begun: list[Any] = []
        self.away: dict[Any, float] = {}
        self.lanes: Lanes[Any] = Lanes(room, self.begun.append, self.away.__setitem__, weight=weight,
                                       clock=self.clock, jitter=lambda: 0.5)

    def offer(self, lane, number, **given):
        items = [f'{lane}{position}' for position in range(number)]
        for item in items:
            self.lanes.offer(lane, item, **given)
        return items

    def end(self, *items, after=0.0):
        self.clock.now += after
        for item in items:
            self.lanes.left(item)

    def running(self, lane):
        return sum(name == lane for name, _, _ in self.lanes.running())


@pytest.fixture
def bench():
    return Bench()


def test_a_lane_that_is_alone_has_half_of_the_threads_and_as_many_wait_for_those(bench):
    bench.offer('a', 20)
    assert bench.running('a') == 4
    assert len(bench.begun) == 4


@pytest.mark.parametrize('greedy, each', [(1, 16), (2, 10), (3, 8), (7, 4)])
def test_greedy_lanes_share_and_leave_room_for_one_more(greedy, each):
    bench = Bench(32)
    for position in range(40):
        for lane in range(greedy):
            bench.lanes.offer(f'lane {lane}', (lane, position))
    assert max(bench.running(f'lane {lane}') for lane in range(greedy)) <= each + 1
    bench.lanes.offer('another', 'x')
    assert 'x' in bench.begun


def test_with_children_a_lane_that_is_alone_leaves_a_few_free():
    bench = Bench(8, weight=3.0)
    bench.offer('a', 20)
    assert bench.running('a') == 6
    assert Bench(1, weight=3.0).offer('a', 1)
    small = Bench(1, weight=3.0)
    small.offer('a', 2)
    assert small.begun == ['a0']


def test_what_waits_is_begun_in_order_as_soon_as_one_of_its_lane_ends(bench):
    bench.offer('a', 8)
    bench.end('a0', 'a2', after=0.1)
    assert bench.begun == ['a0', 'a1', 'a2', 'a3', 'a4', 'a5']
    assert not bench.away


def test_lanes_that_wait_take_turns(bench):
    bench.offer('a', 8)
    bench.offer('b', 8)
    begun = len(bench.begun)
    bench.end(*bench.begun, after=0.01)
    assert {item[0] for item in bench.begun[begun:]} == {'a', 'b'}


def test_where_runs_are_fast_all_wait_in_hand(bench):
    bench.offer('a', 4)
    bench.end('a0', after=0.05)
    for position in range(50):
        bench.lanes.offer('a', position)
    assert not bench.away


def test_where_runs_take_long_what_has_no_thread_is_sent_away(bench):
    bench.offer('a', 4)
    bench.end('a0', after=25)
    bench.lanes.offer('a', 'takes its place')
    bench.lanes.offer('a', 'has none')
    assert bench.begun[-1] == 'takes its place'
    assert list(bench.away) == ['has none']


def test_what_waits_in_hand_is_sent_away_when_its_lane_has_become_slow(bench):
    bench.offer('a', 8)
    bench.lanes.look()
    assert not bench.away
    bench.clock.now += 5
    bench.lanes.look()
    assert list(bench.away) == ['a7', 'a6', 'a5', 'a4']
    assert bench.lanes.waiting() == 0


def test_what_was_sent_away_comes_again_at_twice_the_rate_at_which_runs_end(bench):
    bench.offer('a', 4)
    bench.clock.now += 2  # four of them in two seconds, as far as can be seen
    for position in range(40):
        bench.lanes.offer('a', f'away {position}')
    times = sorted(bench.away.values())
    assert times[0] >= 0.25
    assert {round(later - sooner, 6) for sooner, later in pairwise(times)} == {0.25}


def test_however_many_are_sent_away_none_is_for_longer_than_a_bound(bench):
    bench.offer('a', 4)
    bench.clock.now += 600
    for position in range(5000):
        bench.lanes.offer('a', f'away {position}')
    assert max(bench.away.values()) <= module.LONGEST


def test_what_stays_is_never_sent_away(bench):
    bench.offer('a', 8, stays=True)
    bench.clock.now += 600
    bench.lanes.look()
    bench.offer('a', 1, stays=True)
    assert not bench.away


def test_whoever_ends_twice_or_never_began_frees_one_thread(bench):
    bench.offer('a', 6)
    bench.end('a0', 'a0', 'nobody')
    assert bench.running('a') == 4


def test_when_a_worker_stops_what_was_not_begun_is_sent_away_and_whatever_comes(bench):
    bench.offer('a', 8)
    bench.lanes.close()
    bench.lanes.offer('b', 'late')
    assert sorted(bench.away) == ['a4', 'a5', 'a6', 'a7', 'late']
    bench.end('a0')
    assert bench.running('a') == 3


def test_when_a_worker_stops_what_stays_is_neither_sent_away_nor_begun(bench):
    bench.offer('a', 8, stays=True)
    bench.lanes.offer('a', 'may be sent away')
    begun = list(bench.begun)
    bench.lanes.close()
    bench.lanes.offer('b', 'late', stays=True)
    bench.end(*begun)
    assert bench.begun == begun
    assert list(bench.away) == ['may be sent away']
    assert bench.lanes.waiting() == 0


def test_a_lost_connection_takes_what_was_not_begun_with_it(bench):
    bench.offer('a', 8)
    bench.lanes.forget(lambda item: item != 'a1')
    assert bench.lanes.waiting() == 0
    assert bench.running('a') == 3
    assert not bench.away


def test_of_more_lanes_than_threads_the_last_ones_wait_for_whichever_run_ends():
    bench = Bench(4)
    for number in range(6):
        bench.offer(f'lane {number} ', 1)
    assert bench.begun == [f'lane {number} 0' for number in range(4)]
    bench.end('lane 2 0', 'lane 0 0', after=0.1)
    assert bench.begun[4:] == ['lane 4 0', 'lane 5 0']
    assert not bench.away
