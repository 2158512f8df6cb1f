"""Pickles of plain values are read as they were written; what is more than that is refused before it is built."""

import pickle
import tracemalloc
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecommerce_worker.broker import pickles
from ecommerce_worker.broker.pickles import load_pickle
from ecommerce_worker.errors import Undecodable

keys = st.text() | st.integers(-2 ** 63, 2 ** 63 - 1)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-2 ** 500, 2 ** 500) | st.floats(allow_nan=False) | st.text()
    | st.decimals(allow_nan=False, allow_infinity=False, places=2, min_value=-10 ** 9, max_value=10 ** 9),
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(keys, inner), max_leaves=20)


@given(plain, st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_a_plain_value_is_read_as_it_was_written(value, protocol):
    assert load_pickle(pickle.dumps(value, protocol)) == value


@given(st.binary(), st.integers(3, pickle.HIGHEST_PROTOCOL))
def test_bytes_are_read_as_they_were_written(value, protocol):
    assert load_pickle(pickle.dumps([value], protocol)) == [value]


@given(plain)
def test_a_value_that_is_used_twice_is_there_twice(value):
    assert load_pickle(pickle.dumps({'a': value, 'b': [value]})) == {'a': value, 'b': [value]}


@pytest.mark.parametrize('body, expected', [
    (b"S'caf\\xc3\\xa9'\np0\n.", 'café'), (b'U\x05caf\xc3\xa9.', 'café'), (b'T\5\0\0\0caf\xc3\xa9.', 'café'),
    (b'I01\n.', True), (b'I00\n.', False), (b'I7\n.', 7), (b'L7L\n.', 7), (b'F1.5\n.', 1.5), (b'(lp0\nI1\na.', [1]),
    (b'(dp0\nVa\nI1\ns.', {'a': 1}), (b'(I1\nt.', (1,)), (b'(t.', ()), (b')\x85.', ((),)), (b'(I1\nI2\n1N.', None),
    (b'NN0.', None), (b'cdecimal\nDecimal\n(S"1.50"\ntR.', Decimal('1.50')),
], ids=repr)
def test_old_opcodes_are_read(body, expected):
    found = load_pickle(body)
    assert (found, type(found)) == (expected, type(expected))


SHARED = b''.join(b'h%ch%c\x86q%c' % (number, number, number + 1) for number in range(60))

REFUSED = {
    'a key of a tuple 200,000 deep': b'})' + b'\x85' * 200_000 + b'K\x01s.',
    'a tuple 200,000 deep': b')' + b'\x85' * 200_000 + b'.',
    'a key of a tuple shared 60-fold': b'}K\x01q\0' + SHARED + b'K\x01s.',
    'a tuple shared 60-fold': b'K\x01q\0' + SHARED + b'.',
    'a text shared so often that it is too long': b'X\0\0\x10\0' + b'x' * 2 ** 20 + b'q\0' + b'(h\0h\0h\0h\0h\0t.',
    'a text of 100 MB': b'cdjango.utils.safestring\nSafeString\nI100000000\n\x85R.',
    'a text of bytes': b'cdjango.utils.safestring\nSafeString\nC\1a\x85R.',
    'a text with an encoding': b'cdjango.utils.safestring\nSafeString\nVa\nVb\n\x86R.',
    'a text of nothing': b'cdjango.utils.safestring\nSafeString\n)R.',
    'a decimal of a tuple': b'cdecimal\nDecimal\nI0\n(I1\nI2\ntI99999\n\x87\x85R.',
    'a decimal of many digits': b'cdecimal\nDecimal\nV1e999999999\n\x85R.',
    'a decimal that is not one': b'cdecimal\nDecimal\nVx\n\x85R.',
    'a class': b'cdecimal\nDecimal\n.',
    'a class in a list': b']cdecimal\nDecimal\na.',
    'a call of a text': b'Va\n)R.',
    'a list in itself': b']q\0h\0a.',
    'lists in each other': b']q\0]q\1h\0ah\0h\1a.',
    'a mapping in itself': b'}q\0Va\nh\0s.',
    'a list that is changed after it was used': b']q\0(h\0h\0t0h\0K\1a.',
    'a key of none': b'}NNs.',
    'a key of a float': b'}G\0\0\0\0\0\0\0\0Ns.',
    'a key of bytes': b'}C\1aNs.',
    'a key of a decimal': b'}cdecimal\nDecimal\nV1\n\x85RNs.',
    'a key of 65 bits': b'}\x8a\x09\0\0\0\0\0\0\0\0\1Ns.',
    'too many parts': b'(' + b'N' * pickles.MOST_OPCODES + b'l.',
    'a persistent id': b'Px\n.',
    'an extension': b'\x82\1.',
    'a set': b'\x8f(K\1\x90.',
    'an array of bytes': b'\x96\1\0\0\0\0\0\0\0a.',
    'a state': b'}}b.',
    'an append to a tuple': b')K\1a.',
    'a member of a list': b']K\1K\1s.',
    'half a member': b'}(K\1u.',
}


@pytest.mark.parametrize('body', REFUSED.values(), ids=REFUSED)
def test_what_is_more_than_a_plain_value_is_refused(body):
    tracemalloc.start()
    try:
        with pytest.raises((Undecodable, ValueError)):
            load_pickle(body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 ** 24


def test_a_value_may_be_shared_where_it_is_small_as_a_tree():
    assert load_pickle(b'K\x01q\0' + SHARED[:len(SHARED) // 10] + b'.')


def test_ten_thousand_recipients_are_read():
    value: Any = ((), {'emails': [f'user{number}@example.com' for number in range(10_000)]}, {})
    assert load_pickle(pickle.dumps(value)) == value
