"""The log line of a run, as people and log collectors read it."""

import logging
from dataclasses import replace

import pytest

from ecommerce_worker.telemetry.log import Lines
from ecommerce_worker.telemetry.run import RunReport

RUN = {'outcome': 'retrying', 'task': 'fulfill_order', 'id': 'id-1', 'key': 'EDX-1', 'site': 'edx', 'attempt': 2,
       'started': 1_795_000_000.1, 'seconds': 0.25, 'reason': 'the shop failed (503)'}


def line(caplog, wait=None, **fields):
    report = RunReport(**{**RUN, **fields})
    with caplog.at_level(logging.INFO):
        Lines().reported(report if wait is None else replace(report, next_try=report.ended + wait))
    return caplog.messages[-1]


def test_a_run_is_a_line_of_fields(caplog):
    assert line(caplog, wait=8) == (
        'retrying: task=fulfill_order key=EDX-1 site=edx id=id-1 attempt=2 seconds=0.250 next_try=8s '
        'reason="the shop failed (503)"')


def test_what_is_not_known_is_a_dash(caplog):
    assert ' key=- site=- id=id-1 ' in line(caplog, key='', site='')
    assert ' next_try=- reason=""' in line(caplog, reason='')


@pytest.mark.parametrize('delay, shown', [(0.2, '1s'), (1, '1s'), (1.01, '2s'), (899.5, '900s')])
def test_the_next_try_is_in_whole_seconds_as_the_broker_counts_them(caplog, delay, shown):
    assert f' next_try={shown} ' in line(caplog, wait=delay)


@pytest.mark.parametrize('key, shown', [
    ('EDX-1', 'EDX-1'), ('Bestellung-ß', 'Bestellung-ß'), ('EDX 1', '"EDX 1"'), ('a"b', r'"a\"b"'), ('a\\b', r'"a\\b"'),
    ('key=EDX-2', '"key=EDX-2"'), ('EDX\n1', r'"EDX\n1"'), ('EDX\u20281', r'"EDX\u20281"'), ('\ud800', r'"\ud800"'),
])
def test_a_value_that_could_be_mistaken_is_in_quotes(caplog, key, shown):
    assert f' key={shown} ' in line(caplog, key=key)


def test_a_reason_is_in_quotes_and_its_own_quotes_are_marked(caplog):
    assert line(caplog, reason='the shop said "no"').endswith(r'reason="the shop said \"no\""')
