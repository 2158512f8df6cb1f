"""Bodies are decoded and decompressed within bounds, which are looked at before anything is built."""

import bz2
import importlib
import importlib.util
import json
import lzma
import sys
import tracemalloc
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu import compression
from kombu.utils import json as kombu_json

from ecommerce_worker import bounds
from ecommerce_worker.bounds import bounded_json
from ecommerce_worker.broker import bodies
from ecommerce_worker.broker.bodies import decompressed, load_json
from ecommerce_worker.errors import Undecodable

MANY = bounds.FROM_BYTES


# -- JSON -------------------------------------------------------------------------------------------------------------

TOO_MUCH = {
    'objects': b'[' + b'{},' * MANY + b'1]',
    'objects of eight megabytes': b'[' + b'{},' * (8_000_000 // 3) + b'1]',
    'arrays': b'[' + b'[],' * MANY + b'1]',
    'numbers': b'[' + b'1,' * MANY + b'1]',
    'digits': b'[' + (b'9' * 4000 + b',') * 20 + b'1]',
    'depth': b'[' * 65 + b']' * 65,
    'depth of both kinds': b'[{"a":' * 33 + b'1' + b'}]' * 33,
    'depth that does not end': b'[' * 100_000,
    'depth beside quotes': b'["\\\\", "\\"[", ' + b'[' * 65 + b']' * 65 + b']',
    'quotes': b'[' * 65 + b'"' * (2 * bounds.MOST_MEMBERS + 1),
    'bytes': b'["' + b'a' * bounds.LARGEST_BODY + b'"]',
}


@pytest.mark.parametrize('body', TOO_MUCH.values(), ids=TOO_MUCH)
def test_json_that_may_cost_too_much_is_refused_before_it_is_decoded(body):
    tracemalloc.start()
    try:
        with pytest.raises(Undecodable):
            bounded_json(body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * len(body) + 2 ** 20


ORDINARY = {
    'an order': b'[["EDX-1"], {"site_code": "edx", "email_opt_in": true}, {"callbacks": null}]',
    'a mail of a megabyte': json.dumps(
        [[], {'email_body': 'Dear learner, [this] {is} "a text", \\ and more.\n' * 20_000}, {}]).encode(),
    'two thousand recipients': json.dumps([[{f'user{number}@example.com': number for number in range(2000)}]]).encode(),
    'brackets in a text': b'["' + b'[' * 1000 + b'", "\\"", "{{{{"]',
    'as deep as may be': b'[' * 64 + b']' * 64,
}


@pytest.mark.parametrize('body', ORDINARY.values(), ids=ORDINARY)
def test_ordinary_json_is_read(body):
    assert load_json(body) == json.loads(body)


texts = st.text(alphabet='[]{}"\\a,', max_size=8)
deep = st.recursive(st.none() | texts, lambda inner: st.lists(inner, max_size=3)
                    | st.dictionaries(texts, inner, max_size=3), max_leaves=30)


def depth_of(value):
    members = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 0 if value is None or isinstance(value, str) else 1 + max(map(depth_of, members), default=0)


@given(deep, st.integers(60, 68))
def test_depth_is_what_nests_outside_of_texts(value, deeper):
    for _ in range(deeper):
        value = [value]
    body = json.dumps(value).encode()
    if depth_of(value) > bounds.DEEPEST:
        with pytest.raises(Undecodable):
            bounded_json(body)
    else:
        assert bounded_json(body) == body


# -- Compression ------------------------------------------------------------------------------------------------------

PACK: dict[str, Any] = {'gzip': zlib.compress, 'bzip2': bz2.compress, 'xz': lzma.compress}
BODY = ORDINARY['a mail of a megabyte']


@pytest.mark.parametrize('name', sorted({*compression._aliases, *compression.encoders()}))
def test_whatever_kombu_compresses_is_read(name):
    packed, content_type = compression.compress(b'["EDX-1"]', name)
    assert decompressed(packed, name) == decompressed(packed, content_type) == b'["EDX-1"]'


@pytest.mark.parametrize('how', PACK)
def test_a_large_body_is_read_whole(how, monkeypatch):
    monkeypatch.setattr(bodies, 'UNPACKING_SECONDS', 30)  # on any machine
    body = b'["' + b'Dear learner. ' * 100_000 + b'"]'
    assert decompressed(PACK[how](body), how) == body


@pytest.mark.parametrize('how', PACK)
def test_what_becomes_too_large_is_refused_without_taking_the_memory(how):
    bomb = PACK[how](bytes(30_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(Undecodable, match=r'more than \d+ bytes when decompressed|takes too long'):
            decompressed(bomb, how)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * bodies.LARGEST_UNPACKED + 2 ** 23


def test_a_dictionary_of_much_memory_is_refused():
    with pytest.raises(Undecodable, match='LZMAError'):
        decompressed(lzma.compress(b'a', preset=9), 'xz')


@pytest.mark.parametrize('how', PACK)
@pytest.mark.parametrize('spoil', [lambda packed: packed[:-4], lambda packed: packed[:5], lambda packed: b'',
                                   lambda packed: b'\xff' + packed[1:]], ids=['cut', 'begun', 'nothing', 'spoilt'])
def test_what_is_not_whole_is_refused(how, spoil):
    with pytest.raises(Undecodable):
        decompressed(spoil(PACK[how](BODY)), how)


@pytest.mark.parametrize('how', ['none such', 7, b'gzip', ['gzip'], {'a': 1}], ids=repr)
def test_a_compression_that_is_not_known_is_refused(how):
    with pytest.raises(Undecodable, match='compression'):
        decompressed(b'x', how)


@pytest.mark.parametrize('how', [None, ''])
def test_what_is_not_compressed_is_left_alone(how):
    assert decompressed(b'x', how) == b'x'


@pytest.mark.parametrize('how, module', [
    ('brotli', 'brotli'), ('zstd', 'compression.zstd' if sys.version_info >= (3, 14) else 'backports.zstd')])
def test_what_needs_a_package_is_read_where_it_is_installed(how, module):
    try:
        packer = importlib.import_module(module)
    except ImportError:
        with pytest.raises(Undecodable, match='ModuleNotFoundError'):
            decompressed(b'x', how)
        return
    assert decompressed(packer.compress(b'["EDX-1"]'), how) == b'["EDX-1"]'
    with pytest.raises(Undecodable):
        decompressed(packer.compress(bytes(50_000_000)), how)


@pytest.mark.parametrize('body', [
    b'{"__type__": "decimal", "__value__": "1.50"}', b'[{"\\u005f_type__": "decimal", "__value__": "1.50"}]',
    b'{"a": {"__type__": "uuid", "__value__": {"hex": "00112233445566778899aabbccddeeff", "version": 4}}}',
    b'[["EDX-1"], {"email": "\\u00e9"}, {}]', '[["EDX-1"], {"email": "é"}, {"callbacks": null}]'.encode(), b'1e400'])
def test_a_body_is_read_as_kombu_reads_it(body):
    assert bodies.load_json(body) == kombu_json.loads(body)
