"""What an intake counted, on the wire."""

import json

import pytest

from ecommerce_worker.errors import Undecodable
from ecommerce_worker.telemetry.tally import BOUNDS, OTHERS, REASONS, Tally, percentile, span_of

TALLY = Tally(intake='shop', process='a' * 32, hour=3600 * 480_000, number=7, kind='shopify', url='https://x/in/shop',
              state='live', test_orders='ignore', counts={'accepted': {'': 3}, 'refused': {'signature': 2}},
              times=(1, *[0] * len(BOUNDS)), last=1_728_000_100.0)


def changed(**fields):
    return json.dumps({'version': 1, 'tally': {**json.loads(TALLY.as_body())['tally'], **fields}}).encode()


def test_a_tally_is_read_as_it_was_written():
    assert Tally.read(TALLY.as_body()) == TALLY


@pytest.mark.parametrize('body', [
    b'', b'[]', b'{"version": 1}', b'{"version": 2, "tally": {}}', b'{"version": 1, "tally": 7}', changed(intake=''),
    changed(process=None), changed(number=-1), changed(number=True), changed(number=1e400), changed(hour='now'),
    changed(counts=[]), changed(counts={'accepted': {'': -1}}), changed(counts={'accepted': {'': 'x'}}),
    changed(times=[1]), changed(times={}), changed(times=['x'] * (len(BOUNDS) + 1)), changed(last='never'),
    b'[' * 100_000])
def test_what_is_no_tally_is_refused(body):
    with pytest.raises(Undecodable):
        Tally.read(body)


def test_texts_are_one_line_and_short_and_states_are_known():
    read = Tally.read(changed(intake='a\nb' * 200, counts={'sold': {'': 1}, 'ignored': {'x\n' * 200: 1}}))
    assert len(read.intake) <= 128 * 2
    assert '\n' not in read.intake + ''.join(read.counts['ignored'])
    assert set(read.counts) == {'ignored'}


def test_however_many_reasons_there_are_so_many_are_read():
    many = {f'reason {number}': 1 for number in range(10 * REASONS)}
    assert len(Tally.read(changed(counts={'ignored': many})).counts['ignored']) == REASONS + 1
    assert len(OTHERS) < 10


@pytest.mark.parametrize('seconds, bound', [(0, 1), (0.001, 1), (0.0011, 2), (0.05, 50), (4.9, 5000), (9, None)])
def test_an_answer_belongs_to_the_first_span_that_it_is_not_longer_than(seconds, bound):
    assert (*BOUNDS, None)[span_of(seconds)] == bound


@pytest.mark.parametrize('times, found', [
    ({}, None), ({5: 1}, 5), ({1: 99, 500: 1}, 1), ({1: 98, 500: 2}, 500), ({1: 98, None: 2}, None)])
def test_a_percentile_is_the_bound_that_so_many_are_under(times, found):
    assert percentile([times.get(bound, 0) for bound in (*BOUNDS, None)], 0.99) == found
