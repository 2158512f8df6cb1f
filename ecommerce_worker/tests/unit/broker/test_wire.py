"""Messages as they are on the wire: the genuine ones are read, the hostile ones are refused and never executed."""

import base64
import builtins
import contextlib
import copyreg
import importlib
import json
import math
import os
import pickle
import struct
import subprocess
import tracemalloc
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from kombu import Message

from ecommerce_worker.bounds import LARGEST_BODY
from ecommerce_worker.broker.notes import NOTES, Notes
from ecommerce_worker.broker.wire import Call, Raw, decode, published_at, read
from ecommerce_worker.errors import Undecodable
from ecommerce_worker.tests.support.messages import MESSAGES

JSON, PICKLE = 'application/json', 'application/x-python-serialize'
FULFILL = 'ecommerce_worker.fulfillment.v1.tasks.fulfill_order'


def body_of(message):
    return base64.b64decode(message['body_base64'])


def raw_of(message):
    return Raw(body_of(message), message['content_type'], message['content_encoding'], message['headers'],
               {'correlation_id': message['correlation_id']})


def protocol_1(**fields):
    body = {'task': FULFILL, 'id': 'id-1', 'args': ['EDX-1'], 'kwargs': {}, **fields}
    return Raw(json.dumps(body).encode(), JSON, 'utf-8')


def protocol_2(body=(('EDX-1',), {}, {}), **headers):
    return Raw(json.dumps(body).encode(), JSON, 'utf-8', {'task': FULFILL, 'id': 'id-1', **headers})


def pickled(body):
    return Raw(body, PICKLE, 'binary', {'task': FULFILL, 'id': 'id-1'})


def in_readable_form(value, *, as_json):
    """Arguments as `args_readable` shows them; JSON knows no Decimal."""
    if isinstance(value, Decimal) and as_json:
        return str(value)
    if isinstance(value, dict):
        return {name: in_readable_form(item, as_json=as_json) for name, item in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(in_readable_form(item, as_json=as_json) for item in value)
    return value


def values_in(value):
    if isinstance(value, dict):
        for name, item in value.items():
            yield from values_in(name)
            yield from values_in(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from values_in(item)
    else:
        yield value


# -- genuine messages -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('message', MESSAGES, ids=lambda message: f'{message["n"]} {message["source"]}')
def test_a_genuine_message_is_read_as_it_was_meant(message):
    call = read(raw_of(message))
    names = {'Decimal': Decimal, '__builtins__': {}}
    as_json = message['content_type'] == JSON
    assert call.task == message['task']
    assert call.id == message['correlation_id']
    assert call.args == in_readable_form(eval(message['args_readable'], names), as_json=as_json)
    assert call.kwargs == in_readable_form(eval(message['kwargs_readable'], names), as_json=as_json)
    # SafeString and SafeText have become plain texts, as have those of Python 2.
    assert {type(value) for value in values_in((call.args, call.kwargs))} <= {str, int, bool, Decimal, type(None)}


def test_a_retry_of_an_older_worker_tells_how_often_and_when():
    call = read(raw_of(next(message for message in MESSAGES if message['n'] == 32)))
    assert call.retries == 3
    assert call.eta == datetime(2021, 3, 1, 12, 0, 8, tzinfo=UTC)


def test_a_retry_of_the_oldest_worker_tells_it_in_the_body():
    call = read(protocol_1(retries=3, eta='2021-03-01T12:00:08+00:00'))
    assert (call.retries, call.eta) == (3, datetime(2021, 3, 1, 12, 0, 8, tzinfo=UTC))


def test_the_callbacks_of_both_protocols_are_kept():
    assert read(protocol_1(callbacks=['a'], errbacks=None, chord=None)).embed['callbacks'] == ['a']
    assert read(protocol_2(body=[[], {}, {'callbacks': ['a']}])).embed['callbacks'] == ['a']


@pytest.mark.parametrize('raw, id_', [
    (protocol_2(), 'id-1'),
    (Raw(b'[[], {}, {}]', JSON, 'utf-8', {'task': 'x'}, {'correlation_id': 'id-2'}), 'id-2'),
    (Raw(b'[[], {}, {}]', JSON, 'utf-8', {'task': 'x', 'id': 7}, {'correlation_id': 'id-2'}), 'id-2'),
])
def test_a_call_has_the_id_that_its_producer_gave_it(raw, id_):
    assert read(raw).id == id_


def test_a_call_without_an_id_is_given_one_of_its_own():
    raw = Raw(b'[[], {}, {}]', JSON, 'utf-8', {'task': 'x'})
    assert len({read(raw).id, read(raw).id, ''}) == 3


@pytest.mark.parametrize('eta, read_as', [
    (None, None),
    ('2021-03-01T12:00:08+00:00', datetime(2021, 3, 1, 12, 0, 8, tzinfo=UTC)),
    ('2021-03-01T12:00:08', datetime(2021, 3, 1, 12, 0, 8, tzinfo=UTC)),
    ('2021-03-01T13:00:08.5+01:00', datetime(2021, 3, 1, 12, 0, 8, 500_000, tzinfo=UTC)),
    (datetime(2021, 3, 1, 12, 0, 8), datetime(2021, 3, 1, 12, 0, 8, tzinfo=UTC)),  # noqa: DTZ001 - an AMQP timestamp
])
def test_an_eta_is_a_time_in_utc(eta, read_as):
    assert read(Raw(b'[[], {}, {}]', JSON, 'utf-8', {'task': 'x', 'eta': eta})).eta == read_as


@pytest.mark.parametrize('retries, read_as', [(2, 2), (0, 0), (-1, 0), ('3', 0), (None, 0), (10 ** 9, 0), (1.5, 0)])
def test_a_count_of_retries_that_cannot_be_one_is_none(retries, read_as):
    assert read(protocol_2(retries=retries)).retries == read_as


@pytest.mark.parametrize('embed', [None, [], 'x', 7])
def test_an_embed_that_is_no_mapping_is_as_if_it_were_not_there(embed):
    assert read(protocol_2(body=[['EDX-1'], {}, embed])).embed == {}


# -- unreadable ones --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('content_type', [None, '', 'application/x-yaml', 'application/x-msgpack', 'text/plain',
                                          'application/data', 'APPLICATION/JSON', 'x' * 10_000])
def test_only_json_and_pickle_are_accepted(content_type):
    with pytest.raises(Undecodable, match='not accepted') as caught:
        decode(Raw(b'[]', content_type, 'utf-8'))
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize('body', [b'', b'{', b'[1,', b'\xff\xfe', b'{"a": "\xe9"}', b'[' * 100_000, b'9' * 5000,
                                  b'\x00'],
                         ids=['nothing', 'open', 'cut', 'bytes', 'latin', 'deep', 'long number', 'zero'])
def test_a_body_that_is_no_json_cannot_be_read(body):
    with pytest.raises(Undecodable, match=r'not valid application/json|too many parts'):
        decode(Raw(body, JSON, 'utf-8'))


@pytest.mark.parametrize('body', [
    b'', b'\x80', b'.', b'(', b'0.', b'hello', b'\x80\x02]q\x01(', b'\x80\x99.', b'Pid\n.', b'\x82\x01.', b'\x97.',
    b'\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.', b'V\\ud800x\n', b'(' * 100_000,
], ids=lambda body: body[:20].hex() or 'nothing')
def test_a_body_that_is_no_pickle_cannot_be_read(body):
    with pytest.raises(Undecodable, match=r'not valid application/x-python-serialize|too many parts'):
        decode(pickled(body))


@pytest.mark.parametrize('message', [message for message in MESSAGES if message['content_type'] == PICKLE],
                         ids=lambda message: message['n'])
def test_a_pickle_cut_anywhere_cannot_be_read(message):
    raw = raw_of(message)
    for length in range(len(raw.body)):
        with pytest.raises(Undecodable):
            read(Raw(raw.body[:length], raw.content_type, raw.content_encoding, raw.headers, raw.properties))


@pytest.mark.parametrize('body', [{}, [], [[], {}], [[], {}, {}, {}], 'abc', 7, None, [['EDX-1'], [], {}],
                                  [{}, {}, {}], ['EDX-1', {}, {}], [None, {}, {}], [[], None, {}]], ids=str)
def test_a_body_in_another_shape_cannot_be_read(body):
    with pytest.raises(Undecodable):
        read(protocol_2(body=body))


@pytest.mark.parametrize('kwargs', [{1: 2}, {None: 1}, {('a',): 1}, {b'a': 1}], ids=str)
def test_keyword_arguments_without_names_cannot_be_read(kwargs):
    with pytest.raises(Undecodable, match=r'keyword arguments|keys are neither'):
        read(pickled(pickle.dumps(([], kwargs, {}))))


@pytest.mark.parametrize('task', [None, '', 7, ['x'], {'a': 1}, True, b'x'], ids=str)
def test_a_task_that_is_no_name_cannot_be_read(task):
    with pytest.raises(Undecodable, match='the task name is not a string'):
        read(Raw(b'[[], {}, {}]', JSON, 'utf-8', {'task': task}))


@pytest.mark.parametrize('body', [{}, {'args': ['EDX-1']}, [['EDX-1'], {}, {}], 7, None, 'task', ['task']], ids=str)
def test_a_message_that_names_no_task_cannot_be_read(body):
    with pytest.raises(Undecodable, match='names no task'):
        read(Raw(json.dumps(body).encode(), JSON, 'utf-8'))


@pytest.mark.parametrize('fields', [{'args': 'EDX-1'}, {'args': None}, {'kwargs': []}, {'kwargs': None}, {'task': 7}],
                         ids=str)
def test_a_call_of_protocol_1_in_another_shape_cannot_be_read(fields):
    with pytest.raises(Undecodable):
        read(protocol_1(**fields))


@pytest.mark.parametrize('eta', ['', 'soon', '2021-13-01T00:00:00', 7, 1.5, True, [], {}, '0001-01-01T00:00:00+14:00',
                                 '2021-03-01T12:00:08+00:00' * 9], ids=str)
def test_an_eta_that_is_no_time_cannot_be_read(eta):
    with pytest.raises(Undecodable, match='eta'):
        read(protocol_2(eta=eta))


@pytest.mark.parametrize('content_type', [JSON, PICKLE])
def test_a_body_that_is_too_large_is_not_even_tried(content_type):
    with pytest.raises(Undecodable, match='bytes, more than'):
        decode(Raw(b'[' * (LARGEST_BODY + 1), content_type, 'utf-8'))


def test_the_reason_does_not_quote_the_message():
    for raw in (Raw(b'{"ann@example.com": ', JSON, 'utf-8'), pickled(b'ann@example.com')):
        with pytest.raises(Undecodable) as caught:
            decode(raw)
        assert 'ann@example.com' not in str(caught.value)
        assert caught.value.__suppress_context__


# -- hostile ones -----------------------------------------------------------------------------------------------------

class Reduced:
    """Pickles as a call of something."""

    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


class Stranger:
    """Any class of ours."""


HOSTILE = {
    'os.system': lambda path: Reduced(os.system, f'touch {path}'),
    'eval': lambda path: Reduced(eval, f'open({str(path)!r}, "w")'),
    'exec': lambda path: Reduced(exec, f'open({str(path)!r}, "w")'),
    'open': lambda path: Reduced(open, str(path), 'w'),
    'Popen': lambda path: Reduced(subprocess.Popen, ['touch', str(path)]),
    'import': lambda path: Reduced(importlib.import_module, 'antigravity'),
    '__import__': lambda path: Reduced(builtins.__import__, 'antigravity'),
    'getattr': lambda path: Reduced(getattr, 'x', 'format'),
    'copyreg': lambda path: Reduced(vars(copyreg)['_reconstructor'], Stranger, object, None),
    'an object': lambda path: Stranger(),
    'a class': lambda path: Stranger,
    'bytes of Python 2': lambda path: Reduced(__import__('_codecs').encode, 'x', 'rot13'),
    'a date': lambda path: datetime(2021, 3, 1, tzinfo=UTC),
    'within': lambda path: [(Decimal(1), {'a': [Reduced(os.system, f'touch {path}')]})],
}


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize('hostile', HOSTILE.values(), ids=HOSTILE)
def test_a_pickle_that_names_anything_else_is_refused_and_never_executed(hostile, protocol, tmp_path):
    sentinel = tmp_path / 'executed'
    body = pickle.dumps((['EDX-1', hostile(sentinel)], {}, {}), protocol)
    with pytest.raises(Undecodable, match='which is never loaded from a message'):
        read(pickled(body))
    assert not sentinel.exists()


@pytest.mark.parametrize('body', [
    b'cos\nsystem\n.',
    b'cposix\nsystem\n(S"touch x"\ntR.',
    b'(S"touch x"\nios\nsystem\n.',
    b'(cos\nsystem\nS"touch x"\no.',
    b'\x80\x04\x8c\x02os\x8c\x06system\x93.',
    b'cdecimal\nDecimal.__init__\n.',
    b'\x80\x04\x8c\x07decimal\x8c\x11Decimal.__class__\x93.',
    b'cdecimal\nContext\n.',
    b'cbuiltins\nstr\n.',
    b'c__builtin__\neval\n.',
    b'cdjango.utils.safestring\nmark_safe\n.',
    b'cdjango.utils.functional\n__proxy__\n.',
], ids=lambda body: body[:40].decode('latin-1'))
def test_what_no_pickler_would_write_is_refused_too(body):
    with pytest.raises(Undecodable, match='which is never loaded from a message'):
        decode(pickled(body))


def test_a_name_that_is_refused_is_quoted_in_part_only():
    with pytest.raises(Undecodable, match='which is never loaded') as caught:
        decode(pickled(b'c' + b'm' * 100_000 + b'\n' + b'n' * 100_000 + b'\n.'))
    # It travels in a header and stands in a log.
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize('body', [
    b'cdecimal\nDecimal\n}S"x"\nI1\nsb.',
    b'cdecimal\nDecimal\nN}S"x"\nI1\ns\x86b.',
    b'cdjango.utils.safestring\nSafeString\nN}S"x"\nI1\ns\x86b.',
])
def test_an_admitted_class_cannot_be_changed(body):
    with pytest.raises(Undecodable):
        decode(pickled(body))
    assert not hasattr(Decimal, 'x')


@pytest.mark.parametrize('name', ['SafeString', 'SafeText'])
def test_a_safe_text_is_a_plain_one(name):
    found = decode(pickled(b'cdjango.utils.safestring\n' + name.encode() + b'\n(Vcaf\\u00e9\ntR.'))
    assert found == 'café'
    assert type(found) is str


LENGTH = 2 ** 28
MEMORY = {
    'a memo of that index': b'\x80\x02]r' + struct.pack('<I', 2 ** 31 - 1) + b'.',
    'a memo of that index in text': b']p2147483647\n.',
    'an array of bytes': b'\x80\x05\x96' + struct.pack('<Q', LENGTH) + b'.',
    'bytes': b'\x80\x04\x8e' + struct.pack('<Q', LENGTH) + b'.',
    'a text': b'\x80\x04\x8d' + struct.pack('<Q', LENGTH) + b'.',
    'a frame': b'\x80\x04\x95' + struct.pack('<Q', LENGTH) + b'.',
    'a number': b'\x80\x02\x8b' + struct.pack('<i', LENGTH) + b'.',
}


@pytest.mark.parametrize('body', MEMORY.values(), ids=MEMORY)
def test_a_few_bytes_that_announce_many_fill_no_memory(body):
    tracemalloc.start()
    try:
        with pytest.raises(Undecodable):
            read(pickled(body))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 ** 24


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.datetimes(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10)
HEADERS = ['task', 'id', 'retries', 'eta', 'origin', 'root_id', 'parent_id', NOTES, 'x']
headers = st.dictionaries(st.sampled_from(HEADERS) | st.text(), anything | st.just(FULFILL))
content_types = st.sampled_from([JSON, PICKLE, None, 'application/x-yaml']) | st.text()
jsons = st.recursive(st.none() | st.booleans() | st.integers() | st.text(),
                     lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10).map(json.dumps)
pickles = st.tuples(st.lists(anything), st.dictionaries(st.text(), anything), anything).map(pickle.dumps)
shuffled_opcodes = st.lists(st.sampled_from([bytes([op]) for op in range(256)] + [
    b'cdecimal\nDecimal\n', b'cdjango.utils.safestring\nSafeText\n', b'(', b't', b'R', b'}', b'b',
    b'\x81', b'V1\n',
])).map(b''.join)


@st.composite
def damaged(draw):
    """A genuine body with some bytes replaced."""
    body = bytearray(body_of(draw(st.sampled_from(MESSAGES))))
    for _ in range(draw(st.integers(1, 4))):
        body[draw(st.integers(0, len(body) - 1))] = draw(st.integers(0, 255))
    return bytes(body)


@given(st.binary() | jsons.map(str.encode) | pickles | shuffled_opcodes | damaged(), content_types, headers)
@example(b'[[], {}, {}]', JSON, {'task': FULFILL})
def test_whatever_comes_is_a_call_or_cannot_be_read(body, content_type, given_headers):
    with contextlib.suppress(Undecodable):
        call = read(Raw(body, content_type, None, given_headers))
        assert call.task
        assert call.id
        assert call.eta is None or call.eta.utcoffset() == timedelta(0)


@pytest.mark.parametrize('body', ['text', b'bytes', bytearray(b'array'), memoryview(b'view'), b'', None])
def test_a_raw_message_is_made_of_what_the_broker_delivered(body):
    message = Message(body=body, content_type=JSON, content_encoding='utf-8', headers={'a': 1},
                      properties={'correlation_id': 'id-1', 'priority': 9})
    raw = Raw.of(message)
    assert type(raw.body) is bytes
    assert raw.body == (body.encode() if isinstance(body, str) else bytes(body or b''))
    assert (raw.content_type, raw.content_encoding, raw.headers) == (JSON, 'utf-8', {'a': 1})
    assert raw.properties == {'correlation_id': 'id-1'}


# -- notes ------------------------------------------------------------------------------------------------------------

counts = st.integers(0, 2 ** 31 - 1)
entries = st.dictionaries(st.text(), st.text() | st.floats(allow_nan=False) | st.none())
notes = st.builds(Notes, queue=st.text(), attempt=counts, refusals=counts, outages=counts, redelivered=counts,
                  since=st.none() | st.floats(0, 1e12), resent=st.booleans(), unsure=st.booleans(),
                  due=st.none() | st.floats(0, 1e12),
                  history=st.lists(entries, max_size=Notes.LONGEST_HISTORY).map(tuple))


@given(notes)
def test_notes_are_read_as_they_were_written(written):
    assert Notes.of({NOTES: written.as_header()}) == written
    assert Notes.of({NOTES: json.loads(json.dumps(written.as_header()))}) == written


@given(st.dictionaries(st.sampled_from([*Notes().as_header(), 'task', 'x']), anything) | anything)
@example({'since': 10 ** 400})
@example({'since': float('nan')})
@example({'since': float('inf')})
@example({'since': True})
def test_notes_that_others_wrote_are_read_as_far_as_they_make_sense(header):
    found = Notes.of({NOTES: header})
    assert found.since is None or math.isfinite(found.since)
    assert all(isinstance(count, int) and count >= 0
               for count in (found.attempt, found.refusals, found.outages, found.redelivered))
    assert type(found.queue) is str
    assert Notes.of({NOTES: found.as_header()}) == found


def test_a_message_without_notes_is_new():
    assert Notes.of({}) == Notes()
    assert Notes().attempt == 0


def test_a_history_keeps_its_first_and_its_newest_entries():
    found = Notes()
    for number in range(1000):
        found = found.having({'number': number}, attempt=number)
    assert len(found.history) == Notes.LONGEST_HISTORY
    assert [entry['number'] for entry in found.history][:2] == [0, 1000 - Notes.LONGEST_HISTORY + 1]
    assert found.history[-1] == {'number': 999}
    assert found.attempt == 999


@given(st.lists(entries, max_size=200))
def test_a_history_that_others_wrote_is_kept_within_bounds_when_an_entry_is_added(history):
    found = Notes.of({NOTES: {'history': history}}).having({'reason': 'last'})
    assert len(found.history) <= Notes.LONGEST_HISTORY
    assert found.history[-1] == {'reason': 'last'}


@pytest.mark.parametrize('headers, properties, at', [
    ({'timestamp_in_ms': 1_700_000_000_123}, {'timestamp': 1_700_000_000}, 1_700_000_000.123),
    ({}, {'timestamp': 1_700_000_000}, 1_700_000_000),
    ({}, {}, None), ({'timestamp_in_ms': 'x'}, {'timestamp': True}, None), ({'timestamp_in_ms': -1}, {}, None),
    ({'timestamp_in_ms': 2 ** 62}, {'timestamp': 0}, None), ({'timestamp_in_ms': None}, {'timestamp': 2 ** 63}, None)])
def test_when_a_message_was_published_is_what_it_says_if_that_can_be(headers, properties, at):
    assert published_at(headers, properties) == at


def test_a_call_cannot_be_changed():
    with pytest.raises(AttributeError):
        Call('task', 'id').task = 'another'  # type: ignore[misc]
