"""Frames are put together to methods and messages, whatever a publisher wrote into the content header."""

import random
import struct
from datetime import datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from amqp import spec
from amqp.exceptions import UnexpectedFrame
from amqp.serialization import decode_properties_basic, dumps
from hypothesis import given
from hypothesis import strategies as st

from ecommerce_worker.broker import frames
from ecommerce_worker.broker.frames import BODY, HEADER, HEARTBEAT, METHOD, frame_handler, properties_of
from ecommerce_worker.tests.broker import fuzz
from ecommerce_worker.tests.broker.fuzz import long, nested, properties, short


def read(content_header):
    """Properties, and what of them cannot be read."""
    return properties_of(content_header, 0)


def header(field):
    """The value of one header, and what cannot be read."""
    found, unreadable = read(properties(headers=short(b'x') + field))
    return found['application_headers'].get('x', 'nothing'), unreadable


# -- Every type -------------------------------------------------------------------------------------------------------

FIELDS = {
    'a text': (b'S' + long('ü'.encode()), 'ü'),
    'a text that is not UTF-8': (b'S' + long(b'\xff\xfe'), b'\xff\xfe'),
    'half a surrogate pair': (b'S' + long(b'\xed\xa0\x80'), b'\xed\xa0\x80'),
    'bytes': (b'x' + long(b'a'), b'a'),
    'true': (b't\1', True),
    'a truth of two': (b't\2', True),
    'nothing': (b'V', None),
    'an 8-bit number': (b'b\xff', -1),
    'an unsigned 8-bit number': (b'B\xff', 255),
    'a 16-bit number': (b's\xff\xfe', -2),
    'a 16-bit number of others': (b'U\xff\xfe', -2),
    'an unsigned 16-bit number': (b'u\xff\xfe', 65534),
    'a 32-bit number': (b'I\xff\xff\xff\xfe', -2),
    'an unsigned 32-bit number': (b'i\xff\xff\xff\xfe', 2 ** 32 - 2),
    'a 64-bit number': (b'l' + b'\xff' * 8, -1),
    'a 64-bit number of others': (b'L' + b'\xff' * 8, -1),
    'a float': (b'f' + struct.pack('>f', 1.5), 1.5),
    'a double': (b'd' + struct.pack('>d', -1e300), -1e300),
    'a decimal': (b'D\2' + struct.pack('>i', -150), Decimal('-1.50')),
    'the smallest decimal': (b'D\xff' + struct.pack('>i', 1), Decimal(1).scaleb(-255)),
    'a time': (b'T' + struct.pack('>Q', 1_700_000_000), datetime(2023, 11, 14, 22, 13, 20)),  # noqa: DTZ001
    'a time beyond the calendar': (b'T' + b'\xff' * 8, b'\xff' * 8),
    'a table': (b'F' + long(short(b'a') + b'V' + short(b'\xff') + b't\0'), {'a': None, '\udcff': False}),
    'an array': (b'A' + long(b'V' + b't\1' + b'A' + long(b'')), [None, True, []]),
}


@pytest.mark.parametrize('field, expected', FIELDS.values(), ids=FIELDS)
def test_a_header_of_each_type_is_read(field, expected):
    assert header(field) == (expected, {})


@pytest.mark.parametrize('field, expected', FIELDS.values(), ids=FIELDS)
def test_what_is_read_can_be_written_again(field, expected):
    written = dumps('F', [{'x': header(field)[0]}])
    again, unreadable = read(properties(headers=written[4:]))
    assert not unreadable
    assert again['application_headers'].keys() == {'x'}


TEXTS = ('content_type', 'content_encoding', 'correlation_id', 'reply_to', 'expiration', 'message_id', 'type',
         'user_id', 'app_id', 'cluster_id')


@pytest.mark.parametrize('name', TEXTS)
def test_a_property_that_is_not_utf_8_is_kept_as_bytes_and_reported(name):
    found, unreadable = read(properties(None, **{name: b'\xff\xfe'}))
    assert found == {'delivery_mode': 2, name: b'\xff\xfe'}
    assert unreadable == {name: b'\xff\xfe'}


@pytest.mark.parametrize('name', TEXTS)
def test_a_property_that_is_utf_8_is_a_text(name):
    assert read(properties(None, **{name: 'ü'.encode()})) == ({'delivery_mode': 2, name: 'ü'}, {})


def test_a_name_that_is_not_utf_8_is_a_text_of_which_the_bytes_can_be_made_again():
    found, unreadable = read(properties(headers=short(b'\xff\xfe') + b'V'))
    name, = found['application_headers']
    assert name.encode('utf-8', 'surrogateescape') == b'\xff\xfe'
    assert not unreadable


# -- Out of bounds ----------------------------------------------------------------------------------------------------

UNREADABLE = {
    'an array nested 3000 deep': nested(3000),
    'an array nested too deep by one': nested(frames.DEEPEST),
    'too many fields': b'A' + long(b'V' * (frames.MOST_FIELDS + 1)),
    'a type that is not known': b'?',
    'a text that is longer than all': b'S' + struct.pack('>I', 2 ** 31) + b'a',
    'a number that is cut short': b'l\0',
    'a decimal that is cut short': b'D',
    'a time that is cut short': b'T\0',
    'a table whose field is longer than it': b'F' + long(short(b'a') + b'S' + struct.pack('>I', 99)),
    'nothing where a type should be': b'',
}


@pytest.mark.parametrize('field', UNREADABLE.values(), ids=UNREADABLE)
def test_headers_are_read_up_to_the_first_that_cannot_be_and_the_rest_is_kept_as_bytes(field):
    rest = short(b'x') + field
    found, unreadable = read(properties(b'a/b', short(b'task') + b'S' + long(b'name') + rest, correlation_id=b'id'))
    assert found['application_headers'] == {'task': 'name'}
    assert unreadable == {'headers': rest[:frames.KEPT]}
    assert found['correlation_id'] == 'id'


def test_an_array_may_nest_as_deep_as_is_allowed():
    found, unreadable = header(nested(frames.DEEPEST - 1))
    assert found != 'nothing'
    assert not unreadable


def test_of_an_oversize_table_some_bytes_are_kept():
    _, unreadable = read(properties(headers=short(b'x') + b'?' + bytes(120_000)))
    assert len(unreadable['headers']) == frames.KEPT


def test_properties_that_are_cut_anywhere_are_read_as_far_as_they_go():
    whole = properties(b'a/b', short(b'x') + b'V', correlation_id=b'id')
    for length in range(len(whole)):
        found, unreadable = read(whole[:length])
        assert unreadable
        assert found.get('content_type', 'a/b') in ('a/b', 'a', 'a/', '')


@given(st.binary(max_size=200))
def test_any_bytes_are_properties_of_some_kind(content_header):
    found, unreadable = read(content_header)
    assert isinstance(found, dict)
    assert all(isinstance(part, bytes) for part in unreadable.values())


@given(st.integers(0, 2 ** 32))
def test_whatever_the_fuzzer_sends_is_read(seed):
    rng = random.Random(seed)
    make = rng.choice((fuzz.in_task_queue, fuzz.fact, fuzz.command))
    read(make(rng).properties)


names = st.text(max_size=20)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-2 ** 63, 2 ** 63 - 1) | st.floats(allow_nan=False) | names,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4), max_leaves=10)


@given(st.dictionaries(st.text(max_size=20), plain, max_size=5), st.text(max_size=50))
def test_ordinary_properties_are_read_as_py_amqp_reads_them(headers, correlation_id):
    written = properties(b'application/json', dumps('F', [headers])[4:], correlation_id=correlation_id.encode())
    found, unreadable = read(written)
    assert not unreadable
    assert found == decode_properties_basic(written, 0)[0]


# -- Frames -----------------------------------------------------------------------------------------------------------

DELIVER = struct.pack('>HH', *spec.Basic.Deliver) + short(b'tag') + struct.pack('>Q?', 200, False)


class Reader:
    """What a connection would be handed."""

    def __init__(self):
        self.connection = SimpleNamespace(bytes_recv=0)
        self.called: list[Any] = []
        self.handle = frame_handler(self.connection, lambda *given: self.called.append(given))

    def __call__(self, *frames_):
        return [self.handle(frame) for frame in frames_]


def content(size, header_=b''):
    return struct.pack('>HHQ', 60, 0, size) + (header_ or properties(b'text/plain'))


def test_a_message_is_handed_over_when_its_body_is_complete():
    reader = Reader()
    deliver = DELIVER + short(b'') + short(b'queue')
    assert reader((METHOD, 1, deliver), (HEADER, 1, content(6)), (BODY, 1, b'abc'), (BODY, 1, b'def')) == [
        False, False, False, True]
    (channel, method, arguments, message), = reader.called
    assert (channel, method, arguments) == (1, spec.Basic.Deliver, deliver)
    assert message.body == b'abcdef'
    assert message.properties == {'content_type': 'text/plain', 'delivery_mode': 2}
    assert reader.connection.bytes_recv == 4


def test_a_message_without_a_body_is_complete_with_its_header():
    reader = Reader()
    assert reader((METHOD, 1, DELIVER + short(b'') + short(b'q')), (HEADER, 1, content(0))) == [False, True]
    assert reader.called[0][3].body == ''


def test_messages_of_two_channels_and_heartbeats_may_mix():
    reader = Reader()
    deliver = DELIVER + short(b'') + short(b'q')
    assert reader((METHOD, 1, deliver), (METHOD, 2, deliver), (HEARTBEAT, 0, b''), (HEADER, 2, content(1)),
                  (HEADER, 1, content(1)), (BODY, 1, b'a'), (BODY, 2, b'b'))[-2:] == [True, True]
    assert [(given[0], given[3].body) for given in reader.called] == [(1, b'a'), (2, b'b')]


@pytest.mark.parametrize('frames_', [
    [(BODY, 1, b'a')], [(HEADER, 1, content(1))], [(9, 1, b'')],
    [(METHOD, 1, DELIVER + short(b'') + short(b'q')), (BODY, 1, b'a')],
    [(METHOD, 1, DELIVER + short(b'') + short(b'q')), (METHOD, 1, DELIVER)],
    [(METHOD, 1, DELIVER + short(b'') + short(b'q')), (HEADER, 1, b'\0' * 5)],
], ids=['a body', 'a header', 'another type', 'no header', 'no content', 'a short header'])
def test_frames_out_of_order_end_the_connection(frames_):
    with pytest.raises(UnexpectedFrame):
        Reader()(*frames_)


@pytest.mark.parametrize('method, start, count', [
    (spec.Basic.Deliver, short(b'tag') + struct.pack('>Q?', 2 ** 63 + 200, True), 2),
    (spec.Basic.GetOk, struct.pack('>Q?', 2 ** 63 + 200, False), 2),
    (spec.Basic.Return, struct.pack('>H', 312), 3),
    (spec.Channel.Close, struct.pack('>H', 404), 1),
    (spec.Connection.Close, struct.pack('>H', 320), 1),
])
def test_names_that_are_not_utf_8_are_shown_with_question_marks(method, start, count):
    reader = Reader()
    head = struct.pack('>HH', *method) + start
    end = b'\0\0\xff\xff'
    texts = [b'\xff\xfe', 'ü'.encode(), b'a'][:count]
    reader((METHOD, 1, head + b''.join(map(short, texts)) + end), (HEADER, 1, content(0)))\
        if method[0] == 60 else reader((METHOD, 1, head + b''.join(map(short, texts)) + end))
    readable = [b'??', 'ü'.encode(), b'a'][:count]
    assert reader.called[0][2] == head + b''.join(map(short, readable)) + end
