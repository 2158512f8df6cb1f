"""What is reported of a run, and its form on the wire."""

import contextlib
import json
import uuid
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecommerce_worker.errors import Undecodable
from ecommerce_worker.telemetry.run import LAST_SECOND, LENGTHS, LONGEST_WAIT, OUTCOMES, RunReport, standing

REPORT = RunReport(
    'retrying', started=1_700_000_000.5, seconds=0.25, attempt=2,
    task='ecommerce_worker.fulfillment.v1.tasks.fulfill_order', id='id-1', key='EDX-1', site='edx',
    queue='ecommerce.fulfillment', reason='the shop failed (503)', status=503, next_try=1_700_000_030.0,
    worker='ecommerce-1@host', root_id='root-1')

read = RunReport.read


def wire(**changed):
    return json.dumps({**json.loads(REPORT.as_body()), **changed}).encode()


def test_a_fact_comes_back_as_it_was_sent():
    assert read(REPORT.as_body()) == REPORT


def test_on_the_wire_a_fact_is_json_with_a_version_and_without_what_is_not_there():
    body = json.loads(RunReport('done', started=1.0, fact='0' * 32).as_body())
    assert body == {'version': 1, 'outcome': 'done', 'started': 1.0, 'seconds': 0.0, 'attempt': 0, 'fact': '0' * 32}


def test_two_facts_are_never_the_same_and_each_is_a_uuid():
    ids = {RunReport('done').fact for _ in range(1000)}
    assert len(ids) == 1000
    assert {(id_.version, id_.variant) for id_ in map(uuid.UUID, ids)} == {(4, uuid.RFC_4122)}


@pytest.mark.parametrize('id_', ['e45e1782ac03dd9f70c8e2c448cfa42e', '0' * 32, 'f' * 32, 'id-1', 7])
def test_what_mariadb_would_not_take_for_a_uuid_is_no_fact(id_):
    with pytest.raises(Undecodable, match='its fact is not'):
        RunReport.read(json.dumps({'version': 1, 'outcome': 'done', 'started': 1.0, 'fact': id_}).encode())


@pytest.mark.parametrize('task, key', [
    ('a.b.fulfill_order', 'retrying.a.b.fulfill_order'), ('', 'retrying.unknown'),
    ('é' * 200, 'retrying.' + 'é' * 123), ('a.\ud800', 'retrying.a.?')])
def test_a_fact_is_routed_by_outcome_and_task(task, key):
    fact = RunReport('retrying', task=task)
    assert fact.routing_key == key
    assert len(fact.routing_key.encode()) <= 255


@pytest.mark.parametrize('version', [2, 0, '1', None, True, 1.5])
def test_a_fact_of_another_version_is_not_read(version):
    with pytest.raises(Undecodable, match='its version is'):
        read(wire(version=version))


@pytest.mark.parametrize('changed', [
    {'outcome': 'eaten'}, {'outcome': None}, {'outcome': []}, {'fact': 'x'}, {'fact': None}, {'fact': 7},
    {'started': -1}, {'started': 'x'}, {'started': True}, {'started': float('nan')}, {'started': float('inf')},
    {'started': LAST_SECOND + 1}, {'seconds': []}, {'next_try': 1e300}, {'attempt': 2 ** 31}, {'attempt': None},
    {'status': 10 ** 9}, {'status': 'x'}], ids=str)
def test_what_a_database_could_not_take_is_no_fact(changed):
    with pytest.raises(Undecodable):
        read(wire(**changed))


@pytest.mark.parametrize('body', [b'', b'\xff', b'[]', b'null', b'1', b'{}', b'[' * 100_000], ids=repr)
def test_what_is_no_fact_at_all_is_not_read(body):
    with pytest.raises(Undecodable):
        read(body)


def test_a_name_that_a_later_worker_adds_is_left_out():
    assert read(wire(mood='good')) == REPORT


@pytest.mark.parametrize('name', LENGTHS)
def test_a_text_is_cut_and_kept_on_one_line(name):
    found = getattr(read(wire(**{name: 'a\n\x00b\ud800' + 'x' * 5000})), name)
    assert found.startswith('a??b?x')
    assert len(found) == LENGTHS[name]


@pytest.mark.parametrize('name', LENGTHS)
def test_a_text_that_is_none_is_empty(name):
    assert getattr(read(wire(**{name: {'a': 1}})), name) == ''


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), lambda each: st.lists(each)
                    | st.dictionaries(st.sampled_from(['version', 'outcome', 'fact', 'started', 'status']), each)))
def test_whatever_is_read_either_is_a_fact_or_is_refused(value):
    with contextlib.suppress(Undecodable):
        assert read(json.dumps(value).encode()).outcome in OUTCOMES


@pytest.mark.parametrize('delay', [0.2, 8, 8.001, 899.5, 2.0 ** 28])
def test_the_wait_for_the_next_try_is_counted_from_the_end_and_to_the_thousandth(delay):
    report = RunReport('retrying', started=1_795_000_000.123, seconds=0.456)
    assert RunReport.read(replace(report, next_try=report.ended + delay).as_body()).wait == delay


def test_an_earlier_workers_report_is_read():
    body = (b'{"version":1,"outcome":"parked","started":1700000000.5,"seconds":0.25,"attempt":2,"task":"a.b",'
            b'"id":"id-1","key":"EDX-1","site":"edx","queue":"q","reason":"why","status":503,"worker":"w@h",'
            b'"root_id":"root","teller":"t","number":7,"fact":"00000000000040008000000000000001"}')
    assert read(body) == RunReport(
        'parked', started=1_700_000_000.5, seconds=0.25, attempt=2, task='a.b', id='id-1', key='EDX-1', site='edx',
        queue='q', reason='why', status=503, worker='w@h', root_id='root', teller='t', number=7,
        fact='00000000000040008000000000000001')


NOW = 1_795_000_000.0  # in November 2026


@pytest.mark.parametrize('started, seconds, read', [
    (NOW - 10, 2.0, (NOW - 10, 2.0)),
    (NOW - 1, 5.0, (NOW - 5, 5.0)),  # a clock that is ahead: it ended by now, and took as long as it says
    (NOW + 86_400, 2.0, (NOW - 2, 2.0)),
    (222_529_000_000.0, 0.0, (NOW, 0.0)),  # the year 9022
    (0.0, 2.0, (NOW - 2, 2.0)),
    (0.0, NOW + 5, (NOW, 0.0)),
    (NOW - 10, 1e11, (NOW, 0.0)),
])
def test_a_time_that_cannot_be_is_the_time_at_which_the_fact_came(started, seconds, read):
    found = RunReport('done', started=started, seconds=seconds).in_time(NOW)
    assert (found.started, found.seconds) == pytest.approx(read)
    assert found.ended <= NOW


@pytest.mark.parametrize('next_try, read', [
    (None, None), (NOW + 900, NOW + 900), (9e11, NOW + LONGEST_WAIT), (5.0, NOW - 10)])
def test_a_next_try_is_after_the_run_and_no_later_than_rabbitmq_can_wait(next_try, read):
    assert RunReport('retrying', started=NOW - 10, seconds=2.0, next_try=next_try).in_time(NOW).next_try == read


@pytest.mark.parametrize('outcome', [outcome for outcome in OUTCOMES if outcome != 'accepted'])
def test_whatever_is_told_of_a_run_has_the_say_over_that_it_was_accepted(outcome):
    assert standing('accepted', 0) < standing(outcome, 1)
    assert standing('accepted', 0) < standing(outcome, 0)
