"""Whatever comes out of a queue is read or refused, and each run of it has one outcome: input nobody would think of.

``FUZZ_EXAMPLES=5000`` before ``make test-unit ARGS="-k fuzz"`` takes longer and looks harder.
"""

import json
import os
import pickle
from collections import Counter
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from kombu.transport import memory

from ecommerce_worker.bounds import LARGEST_BODY
from ecommerce_worker.broker import topology
from ecommerce_worker.broker.notes import NOTES, Notes
from ecommerce_worker.broker.wire import Call, Raw, read
from ecommerce_worker.email.v1 import tasks as email
from ecommerce_worker.errors import Undecodable
from ecommerce_worker.execution.delivery import DELIVERY, Delivery
from ecommerce_worker.execution.task import Task
from ecommerce_worker.fulfillment.v1.tasks import fulfill_order
from ecommerce_worker.runtime import Runs
from ecommerce_worker.sailthru.v1 import tasks as sailthru
from ecommerce_worker.telemetry.listening import Listeners
from ecommerce_worker.telemetry.run import RunReport
from ecommerce_worker.testing.peer import reply
from ecommerce_worker.tests.support import keeping
from ecommerce_worker.tests.support.listening import Heard

JSON, PICKLE = 'application/json', 'application/x-python-serialize'
QUEUE = 'ecommerce.fulfillment'

# Taken before the environment is wiped for the first test.
EXAMPLES = int(os.environ.get('FUZZ_EXAMPLES', '200'))
searching = settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))

TASKS = {task.name: task for module in (email, sailthru) for task in vars(module).values() if isinstance(task, Task)}
TASKS[fulfill_order.name] = fulfill_order

PLAIN = (st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
         | st.sampled_from(['EDX-1', 'edx', '', '\0', 'EDX-1\0', '../EDX-1', '\ud800', 'ann@example.com', -1, 2**63,
                            10**4000, float('nan'), 'True', '9999-12-31T23:59:59']))
ANY = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
                   max_leaves=12)

#: What Celery 3.1 and later, and others, have put there.
ETAS = (st.none() | st.datetimes(timezones=st.none() | st.just(UTC) | st.just(timezone(timedelta(hours=14))))
        .map(datetime.isoformat)
        | st.sampled_from(['9999-12-31T23:59:59', '9999-12-31T23:59:59.999999-12:00', '0001-01-01T00:00:00+14:00',
                           '2026-01-01', '2026-01-01T00:00:00', 'tomorrow', '', 0, 1e18,
                           '\uff12\uff10\uff12\uff16-01-01'])
        | ANY)

#: The notes of this worker, as somebody might have spoilt them.
COUNTERS = ('queue', 'attempt', 'refusals', 'outages', 'redelivered', 'since', 'waited', 'resent', 'unsure', 'due')
NOTED = ANY | st.fixed_dictionaries({}, optional={
    **dict.fromkeys(COUNTERS, PLAIN), 'history': st.lists(ANY, max_size=3) | ANY})

HEADERS = st.fixed_dictionaries({}, optional={
    'task': st.sampled_from(sorted(TASKS)) | ANY, 'id': st.just('id-1') | ANY, 'retries': st.integers() | ANY,
    'eta': ETAS, 'expires': ETAS, 'origin': ANY, 'root_id': ANY, 'parent_id': ANY, 'timelimit': ANY, 'lang': ANY,
    'argsrepr': ANY, NOTES: NOTED})

ARGUMENTS = st.lists(ANY, max_size=8)
NAMES = ('order_number', 'site_code', 'email_opt_in', 'email', 'user_email', 'emails', 'subject', 'email_body',
         'sender_alias', 'reply_to', 'attachments', 'base_enterprise_url', 'offer_assignment_id', 'campaign_id',
         'lms_user_ids_by_email', 'email_body_variables', 'course_url', 'mode', 'purchase_incomplete', 'unit_cost',
         'discounts')
NAMED = st.dictionaries(st.sampled_from(NAMES) | st.text(), ANY, max_size=6)


def in_json(value):
    return json.dumps(value, default=repr).encode('utf-8', 'surrogatepass')


BODIES = (st.binary()
          | ANY.map(in_json)
          | st.tuples(ARGUMENTS | ANY, NAMED | ANY, ANY).map(in_json)
          | st.tuples(ARGUMENTS.map(tuple), NAMED, ANY).map(pickle.dumps)
          | st.fixed_dictionaries({'task': st.sampled_from(sorted(TASKS)) | ANY}, optional={
              'id': ANY, 'args': ARGUMENTS | ANY, 'kwargs': NAMED | ANY, 'eta': ETAS, 'retries': ANY}).map(in_json))

RAW = st.builds(Raw, BODIES, st.sampled_from([JSON, PICKLE, None, '', 'text/plain', 'application/data']),
                st.sampled_from(['utf-8', 'binary', None, 'no-such-encoding']), HEADERS,
                st.fixed_dictionaries({'correlation_id': st.none() | st.text()}))


def json_call(args, **headers):
    return Raw(json.dumps([args, {}, {}]).encode(), JSON, 'utf-8',
               {'task': fulfill_order.name, 'id': 'id-1', **headers})


def readable(raw):
    """What is read, None if it is refused; anything else fails the test."""
    try:
        return read(raw)
    except Undecodable as error:
        return None if len(str(error)) < 500 else pytest.fail('the reason is too long for a header')


# -- Reading ----------------------------------------------------------------------------------------------------------

@searching
@given(RAW)
@example(Raw(b'[' * LARGEST_BODY, JSON, 'utf-8', {'task': 'a'}))
@example(Raw(b'{"a":' * 1_000_000, JSON, 'utf-8', {'task': 'a'}))
@example(Raw(b'(' * 1_000_000 + b'.', PICKLE, 'binary', {'task': 'a'}))
@example(Raw(b']' + b'\x85' * 1_000_000 + b'.', PICKLE, 'binary', {'task': 'a'}))
@example(Raw(b'[[' + b'9' * 1_000_000 + b'], {}, {}]', JSON, 'utf-8', {'task': 'a'}))
@example(Raw(b'\0' * 1000, JSON, 'utf-8', {'task': 'a'}))
def test_a_message_is_read_as_a_call_or_refused_as_undecodable(raw):
    call = readable(raw)
    if call is None:
        return
    assert isinstance(call.task, str)
    assert call.task
    assert isinstance(call.id, str)
    assert call.id
    assert isinstance(call.args, tuple)
    assert all(isinstance(name, str) for name in call.kwargs)
    assert 0 <= call.retries < 10_000
    assert call.eta is None or call.eta.utcoffset() == timedelta(0)


@searching
@given(HEADERS)
def test_notes_are_read_from_any_headers_and_written_as_they_were_read(headers):
    notes = Notes.of(headers)
    assert Notes.of({NOTES: notes.as_header()}) == notes


def test_a_body_of_fifty_megabytes_is_refused_unread():
    assert readable(Raw(b'["' + b'x' * 50_000_000 + b'"]', JSON, 'utf-8', {'task': 'a'})) is None


@pytest.mark.parametrize('raw', [
    json_call(list(range(10_000))),
    Raw(pickle.dumps((tuple(range(10_000)), {}, {})), PICKLE, 'binary', {'task': fulfill_order.name, 'id': 'id-1'}),
], ids=['json', 'pickle'])
def test_ten_thousand_arguments_are_one_call(raw):
    assert len(read(raw).args) == 10_000


@pytest.mark.parametrize('raw', [
    json_call(list(range(1_000_000))),
    Raw(pickle.dumps((tuple(range(1_000_000)), {}, {})), PICKLE, 'binary', {'task': fulfill_order.name, 'id': 'id-1'}),
], ids=['json', 'pickle'])
def test_a_million_arguments_are_too_many(raw):
    assert readable(raw) is None


@pytest.mark.parametrize('eta', ['9999-12-31T23:59:59', '2026-11-21T12:00:00', '2026-11-21'])
def test_a_time_without_a_zone_is_in_utc(eta):
    assert read(json_call(['EDX-1'], eta=eta)).eta == datetime.fromisoformat(eta).replace(tzinfo=UTC)


# -- Running ----------------------------------------------------------------------------------------------------------

@pytest.fixture
def outcome_of(app, channel, in_force, peer):
    """Runs a message as the worker does; its outcome, and how many messages follow from it."""
    shop = peer(reply(body=b'{"number": "EDX-1", "status": "Open"}'))
    current = in_force(ECOMMERCE_API_ROOT=shop.url, EMAIL_WITHOUT_VENDOR='park', BROKER_POOL_LIMIT=1)
    told: list[RunReport] = []
    current.listeners = Listeners(Heard(reported=told.append))

    def outcome(call, raw, *, redelivered):
        told.clear()
        current.runs = Runs(1)
        for name in (QUEUE, topology.PARKED):
            topology.task_queue(name).bind(channel).declare()
            channel.queue_purge(name)
        # Its queue is the one that it came from, whatever its notes say: the consumer sees to that.
        notes = Notes.of({NOTES: {**Notes.of(raw.headers).as_header(), 'queue': QUEUE}})
        delivery = Delivery(call, raw, notes, redelivered)
        task = TASKS[call.task]
        task.push_request(**{DELIVERY: delivery, 'id': call.id})
        try:
            keeping.settled(task, *call.args, **call.kwargs)
        finally:
            task.pop_request()
        assert len(told) == 1
        assert 'ann@example.com' not in told[0].reason
        after = Counter({name: channel.queue_declare(queue=name).message_count for name in (QUEUE, topology.PARKED)})
        return told[0], +after

    yield outcome
    memory.Channel.queues.clear()


def safe(told, after):
    """Whether what follows from the outcome is where it belongs, once."""
    where = {'done': Counter(), 'skipped': Counter(), 'retrying': Counter({QUEUE: 1}),
             'parked': Counter({topology.PARKED: 1})}
    # What cannot be written as JSON is parked in place of being tried again.
    return after == where[told.outcome] or (told.outcome == 'retrying' and after == where['parked'])


@searching
@given(task=st.sampled_from(sorted(TASKS)), args=ARGUMENTS, kwargs=NAMED, noted=NOTED, redelivered=st.booleans(),
       eta=st.none() | st.datetimes(timezones=st.just(UTC)), retries=st.integers(0, 9_999))
@example(task=fulfill_order.name, args=['EDX-1'], kwargs={}, noted={'due': 2.0 ** 39}, redelivered=False, eta=None,
         retries=0)
@example(task=fulfill_order.name, args=['EDX-1'], kwargs={}, noted={}, redelivered=False,
         eta=datetime.max.replace(tzinfo=UTC), retries=0)
@example(task=fulfill_order.name, args=['EDX-1', 'edx', True], kwargs={'unit_cost': Decimal('NaN')}, noted={},
         redelivered=True, eta=None, retries=9_999)
def test_a_call_with_any_arguments_has_one_outcome_and_its_message_is_safe(outcome_of, task, args, kwargs, noted,
                                                                           redelivered, eta, retries):
    call = Call(task, 'id-1', tuple(args), kwargs, retries=retries, eta=eta)
    raw = Raw(b'whatever it was', JSON, 'utf-8', {NOTES: noted})
    assert safe(*outcome_of(call, raw, redelivered=redelivered))


@searching
@given(raw=RAW, redelivered=st.booleans())
@example(raw=json_call(list(range(10_000))), redelivered=False)
@example(raw=json_call(list(range(10_000))), redelivered=True)
@example(raw=json_call(['EDX-1\0']), redelivered=False)
@example(raw=json_call(['EDX-1'], eta='9999-12-31T23:59:59-12:00'), redelivered=False)
@example(raw=json_call(['EDX-1'], eta='0001-01-01T00:00:00+14:00'), redelivered=False)
@example(raw=json_call(['x' * 3_000_000]), redelivered=True)
def test_whatever_is_read_from_a_message_has_one_outcome(outcome_of, raw, redelivered):
    call = readable(raw)
    if call is not None and call.task in TASKS:
        assert safe(*outcome_of(call, raw, redelivered=redelivered))
