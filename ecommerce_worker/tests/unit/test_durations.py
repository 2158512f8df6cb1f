"""Durations as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecommerce_worker.durations import seconds, text


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
