"""When an order is tried again: counted for refusals, timed for outages."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecommerce_worker.errors import (
    ApiError,
    Held,
    Misconfigured,
    NotFound,
    PeerFailure,
    Rejected,
    Skip,
    Throttled,
    Unauthorized,
    Unreachable,
    WrongArguments,
)
from ecommerce_worker.retry import LONGEST_WAIT, Policy, Regular

REFUSALS = [NotFound('', status=404), Unauthorized('', status=401), Unauthorized('', status=403),
            Rejected('', status=400), PeerFailure('', status=500)]
OUTAGES = [Unreachable(''), Throttled('', status=429), Throttled('', status=403), PeerFailure('', status=502),
           PeerFailure('', status=503), PeerFailure('', status=504), PeerFailure('', status=200)]


def name(error):
    return f'{type(error).__name__} {error.status}'


refusals = pytest.mark.parametrize('error', REFUSALS, ids=name)
outages = pytest.mark.parametrize('error', OUTAGES, ids=name)


@refusals
def test_a_refusal_is_asked_again_eleven_times_in_34_minutes(error):
    waits = [Policy().next_delay(error, attempt, 0) for attempt in range(1, 13)]
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, None]
    assert sum(filter(None, waits)) == 2047


@refusals
def test_a_refusal_is_counted_however_old_it_is(error):
    assert Policy().counts(error)
    assert Policy(give_up_after=10).next_delay(error, 3, age=1e9) == 4


@outages
def test_an_outage_is_waited_out_however_often_it_was_tried(error):
    policy = Policy()
    assert not policy.counts(error)
    assert policy.next_delay(error, 10_000, age=policy.give_up_after - 1) is not None
    assert policy.next_delay(error, 1, age=policy.give_up_after) is None


@outages
def test_the_waits_of_an_outage_grow_up_to_the_longest(error):
    latest = Policy(jitter=lambda: 1.0)
    assert [latest.next_delay(error, attempt, 0) for attempt in (1, 2, 3, 9, 10, 11, 1000)] == [
        2, 4, 8, 512, 900, 900, 900]
    assert Policy(jitter=lambda: 0.0).next_delay(error, 11, 0) == 1


@pytest.mark.parametrize('error', [ValueError(), Misconfigured([]), WrongArguments(), Skip(''), MemoryError(),
                                   ApiError('of no kind')])
def test_an_error_that_is_no_answer_of_a_service_is_not_tried_again(error):
    assert Policy().next_delay(error, 1, 0) is None


def test_the_last_try_of_an_outage_is_not_put_off_much_beyond_its_time():
    assert Policy(jitter=lambda: 1.0).next_delay(Unreachable(''), 50, age=3 * 24 * 3600 - 100) == 100


def test_a_policy_without_refusals_gives_up_at_the_first():
    assert Policy(refusals=0).next_delay(NotFound('', status=404), 1, 0) is None


seconds = st.floats(0, 1e7)
policies = st.builds(
    lambda refusals, give_up_after, shortest, longer, drawn: Policy(
        refusals=refusals, give_up_after=give_up_after, shortest=shortest, longest=shortest + longer,
        jitter=lambda: drawn),
    st.integers(0, 20), seconds, st.floats(0.01, 3600), st.floats(0, 1e5), st.floats(0, 1, exclude_max=True))
attempts = st.integers(1, 2 ** 31)


@given(policies, st.sampled_from(OUTAGES), attempts, seconds)
def test_a_wait_is_never_shorter_than_the_shortest_nor_longer_than_the_longest(policy, error, attempt, age):
    delay = policy.next_delay(error, attempt, age)
    assert (delay is None) == (age >= policy.give_up_after)
    if delay is not None:
        assert policy.shortest <= delay <= min(policy.longest, LONGEST_WAIT) or delay == LONGEST_WAIT


@given(policies, st.sampled_from(REFUSALS), attempts, seconds)
def test_a_refusal_is_given_up_exactly_when_its_tries_are_used_up(policy, error, attempt, age):
    delay = policy.next_delay(error, attempt, age)
    assert (delay is None) == (attempt > policy.refusals)
    if delay is not None:
        assert delay == min(2 ** (attempt - 1), LONGEST_WAIT)


@given(policies, st.sampled_from([NotFound, Unreachable, Throttled, PeerFailure, Unauthorized]), attempts, seconds,
       st.floats(0) | st.just(float('inf')))
def test_a_peer_is_never_asked_sooner_than_it_said_within_a_day(policy, kind, attempt, age, retry_after):
    delay = policy.next_delay(kind('', retry_after=retry_after), attempt, age)
    if delay is not None:
        assert min(retry_after, LONGEST_WAIT) <= delay <= LONGEST_WAIT


@given(st.integers(), attempts)
def test_jitter_spreads_the_waits_over_the_whole_range(seed, attempt):
    policy = Policy(jitter=random.Random(seed).random)
    delays = [policy.next_delay(Unreachable(''), attempt, 0) or 0 for _ in range(100)]
    ceiling = min(900, 2.0 ** min(attempt, 32))
    assert min(delays) < 1 + (ceiling - 1) / 4
    assert max(delays) > 1 + (ceiling - 1) * 3 / 4


# -- a service that is left alone -------------------------------------------------------------------------------------

PATIENCES = pytest.mark.parametrize(
    'policy', [Policy(jitter=lambda: 1.0), Regular(60, 6, jitter=lambda: 1.0)], ids=repr)


@PATIENCES
def test_what_was_not_asked_is_no_refusal(policy):
    assert not policy.counts(Held('left alone'))


@PATIENCES
def test_what_was_not_asked_comes_back_no_sooner_than_its_turn(policy):
    assert policy.next_delay(Held('left alone', retry_after=7), 1, age=0) >= 7


@PATIENCES
def test_a_longer_outage_is_asked_for_less_often_up_to_a_bound(policy):
    waits = [policy.next_delay(Held('left alone', retry_after=0), 1, age) for age in (0, 10, 60, 100, 400)]
    assert waits == sorted(waits)
    assert waits[-1] <= max(900, 60)


@PATIENCES
def test_what_was_never_asked_is_never_given_up(policy):
    assert 0 <= policy.next_delay(Held('left alone'), 1, age=1e9) <= max(900, 60)


# -- so many tries, at a regular distance -----------------------------------------------------------------------------

@outages
def test_a_vendor_is_asked_again_at_a_regular_distance(error):
    policy = Regular(every=3600, attempts=6)
    assert [policy.next_delay(error, attempt, age=0) for attempt in range(1, 8)] == [3600] * 6 + [None]


def test_a_vendor_may_ask_for_a_longer_wait():
    assert Regular(every=60).next_delay(Throttled('', status=429, retry_after=90), 1, age=0) == 90


@pytest.mark.parametrize('error', [NotFound('', status=404), Unauthorized('', status=401), Rejected('', status=400),
                                   WrongArguments('')], ids=repr)
def test_what_a_vendor_refuses_is_not_asked_again(error):
    assert Regular().next_delay(error, 1, age=0) is None
