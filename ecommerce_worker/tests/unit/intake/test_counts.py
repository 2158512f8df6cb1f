"""What came in, counted: for the log, and for the ledger."""

import logging

import pytest

from ecommerce_worker.intake.counts import NOBODY, SLOW_SECONDS, Counts
from ecommerce_worker.telemetry.tally import OTHERS, REASONS
from ecommerce_worker.tests.support.clock import Clock

HOUR = 1_795_262_400.0


@pytest.fixture
def clock(monkeypatch):
    found = Clock(HOUR + 60)
    monkeypatch.setattr('time.time', found)
    return found


@pytest.fixture
def told():
    return []


@pytest.fixture
def counts(clock, told):
    return Counts(told.append, {'shop': {'kind': 'shopify', 'url': 'https://x/in/shop', 'state': 'live'}})


def latest(told, intake='shop'):
    return [it for it in told if it.intake == intake][-1]


def test_a_tally_has_all_since_the_hour_began_and_the_next_one_takes_its_place(counts, told):
    counts.add('shop', 'accepted')
    counts.report()
    counts.add('shop', 'accepted')
    counts.add('shop', 'refused', 'signature')
    counts.answered('shop', 0.004)
    counts.report()
    first, second = (it for it in told if it.intake == 'shop')
    assert (first.counts, second.counts) == (
        {'accepted': {'': 1}}, {'accepted': {'': 2}, 'refused': {'signature': 1}})
    assert (first.hour, first.process) == (second.hour, second.process) == (int(HOUR), first.process)
    assert first.number < second.number
    assert (second.kind, second.url, sum(second.times), second.last) == ('shopify', 'https://x/in/shop', 1, HOUR + 60)


def test_an_intake_to_which_nothing_came_tells_so(counts, told):
    counts.report()
    assert (latest(told).counts, latest(told).last) == ({}, None)
    assert latest(told, NOBODY).counts == {}


def test_another_hour_begins_at_nothing_and_the_one_before_is_told_once_more(counts, told, clock):
    counts.add('shop', 'accepted')
    clock.now = HOUR + 3601
    counts.report()
    assert [(it.hour, it.counts) for it in told if it.intake == 'shop'] == [
        (HOUR, {'accepted': {'': 1}}), (HOUR + 3600, {})]
    told.clear()
    counts.report()
    assert [it.hour for it in told if it.intake == 'shop'] == [HOUR + 3600]


def test_reasons_that_somebody_makes_up_are_counted_together(counts, told):
    for number in range(3 * REASONS):
        counts.add('shop', 'ignored', f'order {number}')
    counts.report()
    found = latest(told).counts['ignored']
    assert (len(found), found[OTHERS]) == (REASONS + 1, 2 * REASONS)


def test_a_slow_function_is_named_once_a_minute(counts, caplog):
    for seconds in (SLOW_SECONDS / 2, SLOW_SECONDS * 2, SLOW_SECONDS * 8):
        counts.mapped('shop', seconds)
    with caplog.at_level(logging.WARNING):
        counts.report()
        counts.report()
    assert [record.getMessage() for record in caplog.records] == [
        'the function of an intake is slow and blocks other deliveries: intake=shop count=2 longest=0.040']
