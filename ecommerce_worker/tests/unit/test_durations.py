"""Durations as people write them."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecommerce_worker.durations import moment, seconds, text


@pytest.mark.parametrize('written, meant', [
    ('0', 0), ('45', 45), ('45s', 45), ('15m', 900), ('1h30m', 5400), ('3d', 259_200), ('1.5h', 5400), ('0.5', 0.5),
    ('1d2h3m4s', 93_784), (' 2 h 30 m ', 9000), ('90m', 5400), ('0.25s', 0.25),
])
def test_a_duration_is_read_as_seconds(written, meant):
    assert seconds(written) == meant


@pytest.mark.parametrize('written', [
    '', ' ', 's', 'm', '3 days', '-1', '-5m', '1m2', '30m1h', '1h1h', '1:30', '1e3', 'nan', 'inf', '1_000', '٣', '²',
    '5M', '1w', '1,5h', '9999999999999s', 'soon', '15 m s',
])
def test_what_is_no_duration_is_refused_with_what_is_one(written):
    with pytest.raises(ValueError, match='such as 45s, 15m, 1h30m, 3d'):
        seconds(written)


@pytest.mark.parametrize('given, written', [
    (0, '0s'), (45, '45s'), (900, '15m'), (5400, '1h30m'), (259_200, '3d'), (0.5, '0.5s'), (93_784, '1d2h3m4s'),
    (3.05, '3.05s'),
])
def test_a_duration_is_written_in_the_largest_units(given, written):
    assert text(given) == written


@given(st.integers(0, 10 ** 9))
def test_what_is_written_is_read_again(given):
    assert seconds(text(given)) == given


@given(st.text())
def test_no_text_does_anything_but_be_read_or_refused(written):
    try:
        assert seconds(written) >= 0
    except ValueError as error:
        assert 'such as 45s' in str(error)  # noqa: PT017 - either will do


@pytest.mark.parametrize('said, epoch', [
    ('2026-01-02T03:04:05Z', 1767323045), ('2026-01-02T03:04:05', 1767323045), (1767323045, 1767323045),
    ('2026-01-02T05:04:05+02:00', 1767323045), ('2026-01-02T03:04:05.5Z', 1767323045.5),
    ('yesterday', None), ('', None), (None, None), ([], None), (10 ** 400, None), (float('nan'), None)])
def test_a_moment_is_in_utc_unless_it_says_otherwise(said, epoch, monkeypatch):
    monkeypatch.setenv('TZ', 'America/New_York')
    time.tzset()
    try:
        assert moment(said) == epoch
    finally:
        monkeypatch.undo()
        time.tzset()
