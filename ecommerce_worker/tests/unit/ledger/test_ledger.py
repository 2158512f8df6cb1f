"""The ledger: what it makes of facts and parked messages, on each of the databases."""

import dataclasses
import json
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import permutations
from pathlib import Path

import pytest
from django.db import DataError, IntegrityError, OperationalError

import ecommerce_worker
from ecommerce_worker.broker.notes import NOTES
from ecommerce_worker.broker.wire import Raw
from ecommerce_worker.enrolment.cover import REFUNDED, STILL_PAID
from ecommerce_worker.ledger.database import database, path_of
from ecommerce_worker.ledger.incoming import Aside, Parcel
from ecommerce_worker.schedule.entries import RETENTION
from ecommerce_worker.telemetry.run import RunReport, by_intake
from ecommerce_worker.telemetry.tally import Tally
from ecommerce_worker.tests.support.ledger import Ledger, Refused, environment_of

TASK = 'ecommerce_worker.fulfillment.v1.tasks.fulfill_order'
#: A little ago: nothing is of the future.
NOW = datetime.now(UTC).timestamp() - 120


@pytest.fixture(scope='session', params=['sqlite', 'postgresql', 'mysql'])
def opened(request, tmp_path_factory):
    """A ledger on each."""
    if request.param == 'sqlite':
        opened = Ledger({'NAME': str(tmp_path_factory.mktemp('ledger') / 'a' / 'ledger.sqlite3')})
    else:
        opened = Ledger(request.getfixturevalue(request.param).database)
    yield opened
    opened.close()


@pytest.fixture
def ledger(opened):
    """The same, empty."""
    opened('empty')
    return opened


def fact(outcome='done', started=NOW, **other):
    return RunReport(outcome, started=started, **{
        'attempt': 1, 'task': TASK, 'id': 'id-1', 'key': 'EDX-1', 'site': 'edx', **other})


BODY = json.dumps([['EDX-1'], {'site_code': 'edx'}, {}]).encode()


def parcel(id_='id-1', parked_at=NOW, body=BODY, **header):
    notes = {'queue': 'ecommerce.fulfillment', 'attempt': 3, 'history': [{'at': 1.5, 'reason': 'why'}], 'id': id_,
             'task': TASK, 'key': 'EDX-1', 'site': 'edx', 'reason': 'the shop failed (500)', 'parked_at': parked_at,
             **header}
    return Parcel.of(Raw(body, 'application/json', 'utf-8', {'task': TASK, 'lang': 'py', NOTES: notes},
                         {'correlation_id': id_}))


def states(ledger):
    return ledger('rows', 'Order', 'key', 'state', 'attempts')


# -- facts ------------------------------------------------------------------------------------------------------------

def test_an_order_is_what_its_last_run_made_of_it(ledger):
    ledger('recording.record', [fact('retrying', NOW, status=503, reason='down', next_try=NOW + 9)])
    [found] = ledger('queries.search', 'EDX-1')
    assert (found['state'], found['reason'], found['status'], found['attempts']) == ('waiting', 'down', 503, 1)
    assert found['next_try'].timestamp() == pytest.approx(NOW + 9)
    ledger('recording.record', [fact('done', NOW + 10, seconds=0.5)])
    [found] = ledger('queries.search', 'EDX-1')
    assert (found['state'], found['status'], found['next_try'], found['attempts']) == ('fulfilled', None, None, 2)
    assert (found['last_seen'] - found['first_seen']).total_seconds() == pytest.approx(10.5)


@pytest.mark.parametrize('outcome, state', [
    ('done', 'fulfilled'), ('skipped', 'fulfilled'), ('retrying', 'waiting'), ('parked', 'parked'),
    ('returned', 'trying'), ('resent', 'trying'), ('discarded', 'discarded')])
def test_each_outcome_has_its_state(ledger, outcome, state):
    ledger('recording.record', [fact(outcome)])
    assert ledger('rows', 'Order', 'state') == [state]


def test_a_fact_is_counted_once_however_often_it_comes(ledger):
    one = fact('retrying')
    ledger('recording.record', [one, one])
    ledger('recording.record', [one])
    ledger('recording.record', [one, fact('done', NOW + 1)])
    assert states(ledger) == [('EDX-1', 'fulfilled', 2)]
    assert ledger('rows', 'Attempt', 'outcome') == ['retrying', 'done']


def test_of_two_facts_the_later_one_has_the_say_whichever_comes_first(ledger):
    ledger('recording.record', [fact('done', NOW + 5)])
    ledger('recording.record', [fact('retrying', NOW)])
    assert states(ledger) == [('EDX-1', 'fulfilled', 2)]
    assert ledger('rows', 'Order', 'first_seen')[0].timestamp() == pytest.approx(NOW)


#: What becomes of one message, try by try; the clock of every other worker is a day fast, or slow.
LIVES = [
    [('retrying', 1), ('retrying', 2), ('done', 3)],
    [('retrying', 1), ('returned', 1), ('skipped', 2)],
    [('retrying', 1), ('parked', 2)],
    [('retrying', 1), ('parked', 2), ('resent', 2), ('retrying', 3)],
    [('parked', 1), ('resent', 1), ('retrying', 2), ('done', 3)],
    [('parked', 0), ('discarded', 0)],
]
ENDS = ['fulfilled', 'fulfilled', 'parked', 'waiting', 'fulfilled', 'discarded']


@pytest.mark.parametrize('skew', [86_400, -86_400])
@pytest.mark.parametrize('life, end', list(zip(LIVES, ENDS, strict=True)), ids=str)
def test_an_order_ends_the_same_in_whatever_order_its_facts_come_and_whatever_workers_take_for_the_time(
        ledger, life, end, skew):
    for number, order in enumerate(permutations(range(len(life)))):
        key = f'EDX-{number}'
        told = [fact(outcome, NOW + at + skew * (at % 2), attempt=attempt, key=key, id=f'id-{number}')
                for at, (outcome, attempt) in enumerate(life)]
        together = number % 2
        for batch in [[told[at] for at in order]] if together else [[told[at]] for at in order]:
            ledger('recording.record', batch)
        assert ledger('rows', 'Order', 'state', key=key) == [end]


def test_a_message_that_lies_in_the_ledger_is_parked_though_reports_of_its_tries_come_late(ledger):
    told = fact('parked', attempt=4)
    ledger('recording.record', (), [parcel(fact=told.as_body().decode())])
    ledger('recording.record', [fact('retrying', NOW + 60, attempt=3), fact('returned', NOW + 61, attempt=4)])
    assert ledger('rows', 'Order', 'state') == ['parked']


def test_of_two_messages_of_an_order_the_one_heard_of_last_has_the_say(ledger):
    ledger('recording.record', [fact('done', NOW, id='id-1')])
    ledger('recording.record', [fact('retrying', NOW - 86_400, id='id-2')])
    assert ledger('rows', 'Order', 'state') == ['waiting']


# -- what the ledger knows that it does not know ----------------------------------------------------------------------

def unknown(ledger):
    found = ledger('queries.unknown')
    return found['overdue'], found['lost']


def test_numbers_that_did_not_come_are_counted_until_they_do(ledger):
    def told(*numbers, teller='a' * 32):
        return [fact('done', key=f'EDX-{number}', id=f'id-{number} {teller}', teller=teller, number=number)
                for number in numbers]

    three, = told(3)
    ledger('recording.record', told(1, 2))
    assert unknown(ledger) == (0, 0)
    ledger('recording.record', told(7, 5))
    ledger('recording.record', told(7, 5))
    assert unknown(ledger) == (0, 3)
    ledger('recording.record', told(3, teller='b' * 32))
    assert unknown(ledger) == (0, 5)
    ledger('recording.record', [three, *told(4)])
    assert unknown(ledger) == (0, 3)
    ledger('recording.record', [three])
    assert unknown(ledger) == (0, 3)


def test_a_fact_that_came_with_its_parked_message_is_not_missing_when_it_comes_itself(ledger):
    told = fact('parked', attempt=1)
    ledger('recording.record', (), [parcel(fact=told.as_body().decode())])
    ledger('recording.record', [replace(told, teller='a' * 32, number=1)])
    assert unknown(ledger) == (0, 0)


def test_what_was_lost_long_ago_is_not_said_for_ever(ledger):
    ledger('recording.record', [fact(teller='a' * 32, number=4)])
    assert unknown(ledger) == (0, 3)
    ledger('execute', "UPDATE ledger_teller SET missed = '2026-01-01 00:00:00', heard = '2026-01-01 00:00:00'")
    assert unknown(ledger) == (0, 0)
    ledger('maintenance.retention', 90)
    assert ledger('rows', 'Teller', 'name') == []


@pytest.mark.parametrize('outcome, due, silent, is_overdue', [
    ('retrying', -3600, True, True), ('retrying', -3600, False, False), ('retrying', 3600, True, False),
    ('resent', None, True, True), ('returned', None, True, True), ('returned', None, False, False),
    ('parked', None, True, False), ('done', None, True, False)])
def test_an_order_that_should_have_been_heard_of_is_overdue(ledger, outcome, due, silent, is_overdue):
    ledger('recording.record', [fact(outcome, NOW - 7200, next_try=due and NOW + due)])
    if silent:
        ledger('execute', "UPDATE ledger_order SET heard = '2026-01-01 00:00:00'")
    assert unknown(ledger) == (int(is_overdue), 0)
    assert [each['key'] for each in ledger('queries.orders', overdue=True)] == ['EDX-1'] * is_overdue


YEAR_9022 = 222_529_000_000.0


def test_a_fact_of_the_future_shows_as_what_it_came_at_and_does_not_keep_out_the_truth(ledger):
    ledger('recording.record', [fact('retrying', YEAR_9022, next_try=YEAR_9022)], [parcel(parked_at=YEAR_9022)])
    [found] = ledger('queries.search', 'EDX-1')
    now = datetime.now(UTC)
    assert NOW < found['first_seen'].timestamp() <= found['last_seen'].timestamp() <= now.timestamp()
    times = [*ledger('rows', 'Attempt', 'started'), *ledger('rows', 'ParkedMessage', 'parked_at')]
    assert len(times) == 2
    assert max(times) <= now
    ledger('recording.record', [fact('done', now.timestamp())])
    assert states(ledger) == [('EDX-1', 'fulfilled', 2)]


def test_a_fact_of_before_there_was_a_worker_does_not_make_an_order_old(ledger):
    ledger('recording.record', [fact('retrying', 0.0)])
    assert ledger('rows', 'Order', 'first_seen')[0].timestamp() > NOW


def test_an_order_that_an_older_version_saw_in_the_future_hears_true_facts(ledger):
    ledger('recording.record', [fact('retrying', NOW)])
    ledger('execute', "UPDATE ledger_order SET last_seen = '9022-04-05 00:00:00'")
    ledger('recording.record', [fact('done', datetime.now(UTC).timestamp())])
    assert states(ledger) == [('EDX-1', 'fulfilled', 2)]
    assert ledger('rows', 'Order', 'last_seen')[0] <= datetime.now(UTC)


def test_orders_of_one_number_at_two_sites_are_two(ledger):
    ledger('recording.record', [fact('done'), fact('parked', site='other'), fact('done', key='edx-1')])
    assert sorted(states(ledger)) == [('EDX-1', 'fulfilled', 1), ('EDX-1', 'parked', 1), ('edx-1', 'fulfilled', 1)]


def test_a_message_without_a_key_is_known_by_its_id(ledger):
    ledger('recording.record', [fact(key='', id='id-7'), fact(key='', id='id-8')])
    assert sorted(each[0] for each in states(ledger)) == ['id-7', 'id-8']


def test_what_a_person_or_a_consumer_does_is_no_attempt(ledger):
    ledger('recording.record', [fact('parked', attempt=0), fact('resent', NOW + 1, attempt=0)])
    assert states(ledger) == [('EDX-1', 'trying', 0)]


def test_a_full_batch_is_written(ledger):
    ledger('recording.record', [fact(key=f'EDX-{number}', id=f'id-{number}') for number in range(500)])
    assert len(states(ledger)) == 500


def test_a_fact_of_another_version_is_kept_and_read_by_who_can(ledger):
    later, now = b'{"version": 2}', fact().as_body()
    for _ in range(2):
        ledger('recording.record', aside=[Aside.of(later, 'why'), Aside.of(now, 'why')])
    assert len(ledger('rows', 'SetAside', 'pk')) == 2
    assert ledger('recording.read_set_aside') == 1
    assert [bytes(body) for body in ledger('rows', 'SetAside', 'body')] == [later]
    assert states(ledger) == [('EDX-1', 'fulfilled', 1)]


# -- parked messages --------------------------------------------------------------------------------------------------

def test_a_parked_message_is_kept_once_however_often_it_comes(ledger):
    ledger('recording.record', (), [parcel(), parcel()])
    ledger('recording.record', (), [parcel()])
    [found] = ledger('queries.parked')
    assert (found['id'], found['key'], found['tries'], found['queue']) == ('id-1', 'EDX-1', 3, 'ecommerce.fulfillment')
    assert found['history'] == ({'at': 1.5, 'reason': 'why'},)
    assert states(ledger) == [('EDX-1', 'parked', 0)]


def test_a_parked_message_brings_the_fact_of_its_run_which_is_counted_once(ledger):
    told = fact('parked', NOW - 1, seconds=0.5, attempt=4)
    ledger('recording.record', (), [parcel(fact=told.as_body().decode())])
    ledger('recording.record', [told], [parcel(fact=told.as_body().decode())])
    ledger('recording.record', [told, fact('retrying', NOW - 9)])
    assert states(ledger) == [('EDX-1', 'parked', 2)]
    assert ledger('rows', 'Attempt', 'outcome', 'attempt') == [('parked', 4), ('retrying', 1)]


@pytest.mark.parametrize('found', [None, 7, '', 'x', '{"version": 7}', '\ud800', b'x'], ids=repr)
def test_what_is_no_fact_on_a_parked_message_is_left_alone(found):
    assert parcel(fact=found).note.report is None


def test_a_message_that_is_parked_again_is_another_one(ledger):
    ledger('recording.record', (), [parcel(), parcel(parked_at=NOW + 1)])
    assert ledger('queries.count_parked') == 2


def test_an_order_that_was_fulfilled_after_its_parking_stays_fulfilled(ledger):
    ledger('recording.record', [fact('done', NOW + 60)], [parcel()])
    assert ledger('rows', 'Order', 'state') == ['fulfilled']


def test_a_parked_message_belongs_to_the_order_of_its_site(ledger):
    ledger('recording.record', [fact('parked', NOW - 1)], [parcel()])
    assert states(ledger) == [('EDX-1', 'parked', 1)]


def test_keys_that_differ_in_case_or_in_an_accent_are_different(ledger):
    keys = ['EDX-1', 'edx-1', 'ÉDX-1', '\N{PARTY POPPER}']
    ledger('recording.record', [fact(key=key) for key in keys], [parcel(key, key=key) for key in keys])
    for key in keys:
        assert [each['key'] for each in ledger('queries.search', key)] == [key]
        assert [each['id'] for each in ledger('queries.parked', key=key)] == [key]


@pytest.mark.parametrize('chosen, ids', [
    ({}, ['id-1', 'id-2', 'od-3']), ({'key': 'EDX-2'}, ['id-2']), ({'task': 'fulfill_order'}, ['id-1', 'id-2']),
    ({'task': 'order'}, []), ({'ids': ['id-']}, ['id-1', 'id-2']), ({'ids': ['id-2', 'od-3']}, ['id-2', 'od-3']),
    ({'limit': 1}, ['id-1'])], ids=str)
def test_parked_messages_are_chosen_by_key_task_and_the_beginning_of_an_id(ledger, chosen, ids):
    ledger('recording.record', (), [parcel(), parcel('id-2', NOW + 1, key='EDX-2'),
                                  parcel('od-3', NOW + 2, key='', task='')])
    assert [each['id'] for each in ledger('queries.parked', **chosen)] == ids


def test_what_is_discarded_is_erased_and_written_down(ledger):
    ledger('recording.record', (), [parcel(body=b'learner@example.com')])
    [number] = ledger('rows', 'ParkedMessage', 'pk')
    assert ledger('queries.body_of', number) == b'learner@example.com'
    ledger('decisions.discard', number, who='ada', reason='paid back')
    assert ledger('rows', 'ParkedMessage', 'body', 'headers', 'correlation_id', 'settled') == [
        (None, '', '', 'discarded')]
    assert ledger('rows', 'Audit', 'who', 'action', 'reason', 'key', 'message_id') == [
        ('ada', 'discarded', 'paid back', 'EDX-1', 'id-1')]
    assert (ledger('rows', 'Order', 'state'), ledger('queries.count_parked')) == (['discarded'], 0)
    with pytest.raises(Refused, match='is no longer parked: it was discarded'):
        ledger('decisions.discard', number, who='bob', reason='')


@pytest.mark.parametrize('header', [
    None, 'x', {}, {'id': 'id-1'}, {'id': '', 'parked_at': 1.0}, {'id': 'id-1', 'parked_at': True},
    {'id': 'id-1', 'parked_at': 1e300}, {'id': 'id-1', 'parked_at': float('nan')}, {'id': 1, 'parked_at': 1.0}],
    ids=str)
def test_a_message_that_no_worker_parked_is_no_parcel(header):
    assert Parcel.of(Raw(b'x', None, None, {NOTES: header} if header is not None else {})) is None


def test_whatever_is_in_a_parked_message_is_kept(ledger):
    strange = Raw(b'\x00\xff', None, None, {
        'bytes': b'\x00\xff', 'time': datetime(2026, 1, 1, tzinfo=UTC), 'nul': 'a\x00b', 'big': 2 ** 62,
        'made up': {'__type__': 'nothing', '__value__': 1},
        NOTES: {'id': 'i\x00d' * 500, 'parked_at': 5, 'key': '\ud800', 'reason': 'a\nb',
                'history': [{'at': 'x', 'reason': 7}, {'at': 1e300}]}})
    ledger('recording.record', (), [Parcel.of(strange)])
    [found] = ledger('queries.parked')
    assert (found['key'], found['reason'], found['content_type']) == ('?', 'a?b', '')
    assert found['history'] == ({'at': None, 'reason': ''}, {'at': None, 'reason': ''})
    assert ledger('queries.body_of', found['number']) == b'\x00\xff'
    kept = ledger('headers_of', found['number'])
    assert kept == {name: value for name, value in strange.headers.items() if name != 'made up'}


# -- questions --------------------------------------------------------------------------------------------------------

def test_a_search_finds_the_key_or_else_any_part_of_it_or_the_id_of_a_message(ledger):
    ledger('recording.record', [fact(), fact(key='EDX-10', id='id-10'), fact(key='EDX-11', id='id-11')])
    for text, keys in {'EDX-1': ['EDX-1'], 'EDX-': ['EDX-1', 'EDX-10', 'EDX-11'], 'id-10': ['EDX-10'],
                       'dx-1': ['EDX-1', 'EDX-10', 'EDX-11'], '11': ['EDX-11'], 'y': [], '%': [], '_': [],
                       '': []}.items():
        assert [each['key'] for each in ledger('queries.search', text)] == keys


def test_an_order_is_found_with_its_lines_and_with_no_other(ledger):
    ledger('recording.record', [fact('done', key=key, id=f'id-{key}', task=task) for key, task in (
        ('#1', 'x.enroll'), ('#1 2', 'x.enroll_line'), ('#1 1.2', 'x.enroll_line'), ('#10', 'x.enroll'),
        ('#10 1', 'x.enroll_line'))])
    assert [each['key'] for each in ledger('queries.search', '#1')] == ['#1', '#1 1.2', '#1 2']


def test_the_story_of_an_order_has_its_runs_and_what_people_did(ledger):
    ledger('recording.record', [fact('retrying', NOW - 9), fact('parked', NOW - 5, attempt=2)], [parcel(parked_at=NOW)])
    [number] = ledger('rows', 'ParkedMessage', 'pk')
    ledger('decisions.discard', number, who='ada', reason='paid back')
    story = ledger('queries.story', ledger('rows', 'Order', 'pk')[0])
    assert [(each['outcome'], each['attempt']) for each in story['tries']] == [('retrying', 1), ('parked', 2)]
    assert [(each['who'], each['action']) for each in story['decisions']] == [('ada', 'discarded')]
    assert ledger('queries.story', 0) is None


def test_what_the_ledger_keeps_of_a_report_comes_back_as_it_was(ledger):
    report = fact('retrying', NOW - 9.25, seconds=0.125, attempt=3, queue='q', reason='why', status=503,
                  next_try=NOW + 30.5, worker='w@h', root_id='root', teller='t' * 32, number=7)
    ledger('recording.record', [report])
    [found] = ledger('queries.story', ledger('rows', 'Order', 'pk')[0])['tries']
    # Task, key and site are the order's; by the numbers of tellers it is only counted what is missing.
    gone = {'task': '', 'key': '', 'site': '', 'teller': '', 'number': 0}
    assert found == {**dataclasses.asdict(report), **gone}


def test_the_story_of_an_order_is_told_in_its_order_and_nothing_twice(ledger):
    ledger('recording.record', [fact('parked', NOW - 9), fact('resent', NOW - 600, attempt=0)],
           [parcel(parked_at=NOW - 8)])
    [number] = ledger('rows', 'ParkedMessage', 'pk')
    ledger('decisions.discard', number, who='ada', reason='paid back')
    later = datetime.now(UTC).timestamp() + 1
    ledger('recording.record', [fact('discarded', later, attempt=0), fact('discarded', later, attempt=0, id='id-2'),
                              fact('done', later + 5)])
    events = ledger('events', ledger('rows', 'Order', 'pk')[0])
    assert [each.get('outcome') or each['who'] for each in events] == ['resent', 'parked', 'ada', 'discarded', 'done']
    assert events[3]['id'] == 'id-2'


def test_orders_are_listed_by_state_and_by_how_long_nothing_was_heard_of_them(ledger):
    now = datetime.now(UTC).timestamp()  # NOW was minutes ago, in a long run
    ledger('recording.record', [fact('retrying', now - 900, key='EDX-1'), fact('retrying', now, key='EDX-2'),
                                fact('done', now - 1200, key='EDX-3')])
    cases: list[tuple[list[str], dict[str, object]]] = [
        (['EDX-3', 'EDX-1', 'EDX-2'], {}), (['EDX-1', 'EDX-2'], {'state': 'waiting'}), ([], {'site': ''}),
        (['EDX-1'], {'state': 'waiting', 'older_than': 600}), (['EDX-3'], {'older_than': 600, 'limit': 1}),
        (['EDX-3'], {'task': 'fulfill_order', 'site': 'edx', 'limit': 1})]
    for keys, chosen in cases:
        assert [each['key'] for each in ledger('queries.orders', **chosen)] == keys


# -- what is over -----------------------------------------------------------------------------------------------------

def test_what_is_over_goes_and_what_is_not_stays(ledger):
    old = NOW - 100 * 86_400
    ledger('recording.record', [fact('done', old), fact('retrying', old, key='EDX-2'), fact('done', key='EDX-3')],
           [parcel(key='EDX-4', parked_at=old)])
    ledger('maintenance.retention', 90)
    assert sorted(states(ledger)) == [('EDX-2', 'waiting', 1), ('EDX-3', 'fulfilled', 1), ('EDX-4', 'parked', 0)]
    assert len(ledger('rows', 'Attempt', 'pk')) == 1
    assert ledger('queries.count_parked') == 1


def test_what_is_parked_is_erased_when_the_operator_says_so(ledger):
    ledger('recording.record', (), [parcel(parked_at=NOW - 100 * 86_400), parcel('id-2', key='EDX-2')])
    assert sum(ledger('maintenance.retention', 90, 30)) == 1
    assert ledger('rows', 'ParkedMessage', 'body', 'headers', 'settled')[0] == (None, '', 'erased')
    assert sorted(ledger('rows', 'Order', 'key', 'state')) == [('EDX-1', 'discarded'), ('EDX-2', 'parked')]


def test_an_order_of_which_another_message_is_parked_stays(ledger):
    old = NOW - 100 * 86_400
    ledger('recording.record', (), [parcel(parked_at=old), parcel('id-2')])
    assert sum(ledger('maintenance.retention', 90, 30)) == 1
    assert states(ledger) == [('EDX-1', 'parked', 0)]
    ledger('execute', "UPDATE ledger_order SET state = 'fulfilled', last_seen = '2020-01-01 00:00:00'")
    assert sum(ledger('maintenance.retention', 90)) == 0
    assert states(ledger) == [('EDX-1', 'fulfilled', 0)]


def test_what_was_settled_goes_when_its_time_is_over(ledger):
    ledger('recording.record', (), [parcel(parked_at=NOW - 9)])
    ledger('decisions.discard', ledger('rows', 'ParkedMessage', 'pk')[0], who='ada', reason='')
    ledger('maintenance.retention', 90, now=datetime.now(UTC) + timedelta(days=91))
    assert [ledger('rows', model, 'pk') for model in ('Order', 'ParkedMessage', 'Audit')] == [[], [], []]


# -- what the recorder does by the clock ------------------------------------------------------------------------------

MONDAY = datetime(2026, 11, 23, tzinfo=UTC).timestamp()
AT_3_30, AT_4_00 = 3.5 * 3600, 4 * 3600.0


def test_the_first_look_begins_with_what_was_due_last(ledger):
    ledger('recording.record', [fact(started=NOW - 100 * 86_400)])
    assert ledger('chores_at', MONDAY) == {
        'retention': MONDAY - 86_400 + AT_3_30, 'housekeeping': MONDAY - 86_400 + AT_4_00}
    assert states(ledger) != []


def test_each_is_done_when_it_is_due(ledger):
    ledger('recording.record', [fact(started=NOW - 100 * 86_400)])
    sunday = MONDAY + 6 * 86_400
    assert ledger('chores_at', MONDAY, MONDAY + AT_3_30 - 1) == ledger('chores_at', MONDAY)
    assert states(ledger) != []
    assert ledger('chores_at', MONDAY + AT_3_30, sunday + AT_4_00 + 5) == {
        'retention': sunday + AT_3_30, 'housekeeping': sunday + AT_4_00}
    assert states(ledger) == []


def test_one_that_fails_does_not_stop_the_others_and_is_tried_again(ledger):
    ledger('chores_at', MONDAY)
    sunday = MONDAY + 6 * 86_400
    done = ledger('chores_at', sunday + AT_4_00, broken=RETENTION)
    assert done == {'retention': MONDAY - 86_400 + AT_3_30, 'housekeeping': sunday + AT_4_00}
    assert ledger('chores_at', sunday + AT_4_00 + 60) == done
    assert ledger('failures', RETENTION, sunday + AT_4_00 + 301, 10 * 60) == 2
    assert ledger('chores_at', sunday + AT_4_00 + 1301)['retention'] == sunday + AT_3_30


# -- opening ----------------------------------------------------------------------------------------------------------

def test_the_models_are_those_that_the_migrations_make(ledger):
    assert ledger('drifted') is False


def test_a_ledger_of_another_version_names_the_command(ledger):
    ledger('setup.require_schema')
    ledger('execute', "UPDATE django_migrations SET name = '0000_old' WHERE app = 'ledger' AND name = '0001_initial'")
    try:
        with pytest.raises(Refused, match=r'newer version .migration 0000_old.*`ecommerce-worker migrate 0008_'):
            ledger('setup.require_schema')
        ledger('execute', "UPDATE django_migrations SET app = 'other' WHERE app = 'ledger'")
        with pytest.raises(Refused, match=r'there is no ledger yet.*`ecommerce-worker migrate`'):
            ledger('setup.require_schema')
    finally:
        ledger('execute', "UPDATE django_migrations SET app = 'ledger' WHERE app = 'other'",
               "UPDATE django_migrations SET name = '0001_initial' WHERE name = '0000_old'")


OPEN = """
import sys
from ecommerce_worker.errors import WorkerError
try:
    {before}
    from ecommerce_worker.ledger.setup import open_ledger, require_schema, migrate
    open_ledger()
    open_ledger()
    require_schema()
except WorkerError as error:
    print(error)
"""


def opening(before='pass', **given):
    done = subprocess.run([sys.executable, '-W', 'error', '-c', OPEN.format(before=before)], capture_output=True,
                          text=True, check=False, env={'PATH': '/usr/bin:/bin', **environment_of(given),
                                            'PYTHONPATH': str(Path(ecommerce_worker.__file__).parents[1])})
    assert (done.returncode, done.stderr) == (0, '')
    return done.stdout


def test_a_process_with_another_django_is_refused(tmp_path):
    before = 'from django.conf import settings; settings.configure(INSTALLED_APPS=[])'
    assert 'Django is already set up in this process with other settings' in opening(before, NAME=str(tmp_path / 'x'))


def test_a_ledger_that_is_not_there_is_not_made_by_looking(tmp_path):
    assert '`ecommerce-worker migrate` creates it' in opening(NAME=str(tmp_path / 'x'))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('given, text', [
    ({'ENGINE': 'django.db.backends.oracle9'}, "'django.db.backends.oracle9' isn't an available database backend"),
    ({'ENGINE': 'django.db.backends.postgresql', 'HOST': '/no/such/place', 'NAME': 'x'}, 'the ledger cannot be used')])
def test_a_database_that_cannot_be_used_is_one_line(given, text):
    found = opening(**given)
    assert text in found
    assert found.count('\n') == 1


def test_a_mysql_that_mixes_up_orders_is_refused_with_what_mends_it(mysql):
    ledger = Ledger(mysql.database)
    ledger('execute', 'CREATE DATABASE `a-b` COLLATE utf8mb4_general_ci')
    ledger.close()
    assert opening(**{**mysql.database, 'NAME': 'a-b'}).endswith(
        'its collation, utf8mb4_general_ci, ignores case and would mix up orders: '
        'ALTER DATABASE `a-b` CHARACTER SET utf8mb4 COLLATE utf8mb4_bin\n')


def test_what_a_database_says_is_told_without_the_values_of_a_row(ledger):
    said = {OperationalError(1213, 'deadlock'): "(1213, 'deadlock')", OperationalError('away\nlearner@'): 'away',
            DataError(1366, "Incorrect string value: 'learner@'"): 'DataError',
            IntegrityError(1062, "Duplicate entry 'learner@'"): 'IntegrityError'}
    assert [ledger('setup.said', error) for error in said] == list(said.values())


def test_a_file_is_for_its_owner_only(tmp_path):
    path = tmp_path / 'deep' / 'ledger.sqlite3'
    opening('from ecommerce_worker.ledger.setup import migrate; migrate()', NAME=str(path))
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_sqlite_file_is_locked_from_the_beginning_and_written_to_the_disk():
    found = database({'ENGINE': 'django.db.backends.sqlite3', 'NAME': '~/x.sqlite3', 'OPTIONS': {'timeout': 3}})
    assert found['NAME'] == str(Path('~/x.sqlite3').expanduser())
    assert (found['OPTIONS']['transaction_mode'], found['OPTIONS']['timeout']) == ('IMMEDIATE', 3)
    assert 'journal_mode=WAL' in found['OPTIONS']['init_command']


@pytest.mark.parametrize('given', [{'ENGINE': 'django.db.backends.sqlite3', 'NAME': ':memory:'},
                                   {'ENGINE': 'django.db.backends.postgresql', 'NAME': 'ledger'}])
def test_what_is_no_file_has_no_path(given):
    assert path_of(given) is None
    assert database(given)['NAME'] == given['NAME']


# -- what intakes have counted ----------------------------------------------------------------------------------------

def tally(number=1, process='a' * 32, **other):
    return Tally(**{'intake': 'shop', 'process': process, 'hour': int(NOW // 3600 * 3600), 'number': number,
                    'counts': {'accepted': {'': number}}, 'times': (number, *[0] * 12), **other})


def counted(ledger):
    return ledger('intake_summaries')


def test_the_latest_tally_of_a_process_and_an_hour_counts_and_processes_add_up(ledger):
    ledger('recording.record', tallies=[tally(1), tally(3), tally(2)])
    ledger('recording.record', tallies=[tally(3), tally(2)])
    ledger('recording.record', tallies=[tally(4, process='b' * 32), tally(5, hour=int(NOW // 3600 * 3600) - 3600)])
    [(intake, totals, processes, p99)] = counted(ledger)
    assert (intake, totals['accepted'], processes, p99) == ('shop', 3 + 4 + 5, 2, '1 ms or less')


def test_what_was_counted_before_a_day_ago_is_not_shown_and_goes_with_the_retention(ledger):
    ledger('recording.record', tallies=[tally(hour=int(NOW // 3600 * 3600) - 90_000)])
    assert counted(ledger) == []
    ledger('maintenance.retention', 90)
    assert len(ledger('rows', 'IntakeHour', 'intake')) == 1
    ledger('maintenance.retention', 1)
    assert ledger('rows', 'IntakeHour', 'intake') == []


# -- lines of orders --------------------------------------------------------------------------------------------------

ENROLMENT = 'ecommerce_worker.enrolment.tasks.'
COURSE = 'course-v1:edX+A+1'


def line(number='#1', task='enroll_line', outcome='done', learner='ann', **other):
    bought = {'order_number': number, 'product': 'A', 'course': COURSE, 'mode': 'verified', 'learner': learner,
              'mask': 'a…@e….com'}
    return fact(outcome, task=f'{ENROLMENT}{task}', **{
        'key': f'{number} 1', 'id': f'{number} {task} {other.get("key")}', **bought, **other})


def test_an_order_shows_its_lines_what_they_were_for_and_how_each_stands(ledger):
    ledger('recording.record', [
        fact(task=f'{ENROLMENT}enroll', key='#1', id='root'), line(outcome='retrying', reason='down'), line(),
        line('#10'), fact(task=f'{ENROLMENT}enroll', key='#1', id='root', site='other')])
    order, = (it for it in ledger('queries.search', '#1') if it['key'] == '#1' and it['site'] == 'edx')
    shown, = ledger('queries.story', order['number'])['lines']
    assert [shown[name] for name in ('key', 'order_number', 'product', 'course', 'mode', 'mask', 'state')] == [
        '#1 1', '#1', 'A', COURSE, 'verified', 'a…@e….com', 'fulfilled']


def test_what_a_person_does_with_a_line_takes_nothing_from_it(ledger):
    ledger('recording.record', [line(outcome='parked')])
    ledger('recording.record', [replace(line(outcome='discarded'), order_number='', product='', course='', mode='',
                                        learner='', mask='', fact='f' * 32)])
    assert ledger('rows', 'Order', 'state', 'course', 'learner') == [('discarded', COURSE, 'ann')]


def test_the_lines_of_a_learner_are_found_by_a_pseudonym(ledger):
    ledger('recording.record', [line(), line('#2', learner='bob'), line('#3', learner='old')])
    assert sorted(it['key'] for it in ledger('queries.search', 'x@example.com', ('ann', 'old'))) == ['#1 1', '#3 1']


@pytest.mark.parametrize('others, covered_by', [
    ([line('#2')], ('#2',)), ([line('#2', outcome='retrying'), line('#3', outcome='parked')], ('#2', '#3')),
    ([line('#2', task='set_mode')], ('#2',)), ([line('#2', outcome='discarded')], ()),
    ([line('#2'), line('#2', task='revoke_line')], ()),
    ([line('#2'), line('#2', task='revoke_line', outcome='retrying')], ()),
    ([line('#2', learner='bob')], ()), ([line('#2', course='course-v1:edX+B+1')], ()), ([line('#2', site='x')], ()),
    ([line('#2', mode='audit')], ()), ([line('#2', learner='old')], ('#2',)),
    # the single course of the order was given back, and not the bundle that has it too
    ([line('#2'), line('#2', key='#2 2.1'), line('#2', task='revoke_line')], ('#2',)),
    ([line('#2'), line('#2', key='#2 2.1'), line('#2', task='revoke_line'),
      line('#2', key='#2 2', task='revoke_line')], ()),
    # one line that was told of twice, with another number of learners
    ([line('#2'), line('#2', key='#2 1.1'), line('#2', key='#2 1.1', task='revoke_line')], ()),
    ([line('#2', outcome='skipped', reason=REFUNDED)], ()),
    ([line('#2'), line('#2', task='revoke_line', outcome='parked', reason=f'{STILL_PAID}; given up')], ('#2',)),
    ([line('#2'), line('#2', task='set_mode', outcome='skipped', reason=REFUNDED)], ()),
], ids=range(17))
def test_another_order_pays_for_a_course_unless_it_was_refunded_or_given_up_or_was_for_less(ledger, others, covered_by):
    ledger('recording.record', [line(), *others])
    assert ledger('queries.covering', '#1', COURSE, ('ann', 'old'), 'edx') == {
        'covered_by': covered_by, 'taken_back': False}


def test_another_line_of_the_order_itself_pays_for_a_course_until_it_is_refunded_too(ledger):
    bundle, single = line(key='#1 2.1'), line()
    ledger('recording.record', [single, bundle])
    assert ledger('queries.covering', '#1', COURSE, ('ann',), 'edx') == {'covered_by': (), 'taken_back': False}
    ledger('recording.record', [replace(single, task=f'{ENROLMENT}revoke_line', fact='1' * 32, id='a')])
    assert ledger('queries.covering', '#1', COURSE, ('ann',), 'edx') == {'covered_by': ('#1',), 'taken_back': False}
    ledger('recording.record', [replace(bundle, task=f'{ENROLMENT}revoke_line', fact='2' * 32, id='b')])
    assert ledger('queries.covering', '#1', COURSE, ('ann',), 'edx') == {'covered_by': (), 'taken_back': True}


def test_what_was_free_in_an_order_does_not_pay_for_what_was_refunded_of_it(ledger):
    ledger('recording.record', [line(), line(key='#1 2', mode='audit'), line(task='revoke_line')])
    assert ledger('queries.covering', '#1', COURSE, ('ann',), 'edx') == {'covered_by': (), 'taken_back': True}


@pytest.mark.parametrize('outcome, taken_back', [('done', True), ('skipped', True), ('retrying', False),
                                                 ('parked', False)])
def test_what_an_order_paid_for_is_taken_back_when_that_is_done(ledger, outcome, taken_back):
    ledger('recording.record', [line(), line(task='revoke_line', outcome=outcome)])
    assert ledger('queries.covering', '#1', COURSE, ('ann',), 'edx')['taken_back'] is taken_back
    ledger('recording.record', [line(task='revoke_line', outcome='accepted', id='told of again')])
    assert ledger('queries.covering', '#1', COURSE, ('ann',), 'edx')['taken_back'] is taken_back


def test_the_ledger_knows_what_the_products_of_an_order_were_when_it_came(ledger):
    ledger('recording.record', [
        line(), line(key='#1 1.2', course='course-v1:edX+B+1'), line(key='#1 2', product='C', mode='audit'),
        line(key='#1 3', learner='bob'), line(key='#1 4', product='NEW', course='', mode=''), line('#10', product='X'),
        line(site='', product='Y'), line(task='revoke_line', product='Z')])
    assert ledger('queries.bought', '#1', 'edx') == [
        {'product': 'A', 'course': COURSE, 'mode': 'verified'},
        {'product': 'A', 'course': 'course-v1:edX+B+1', 'mode': 'verified'},
        {'product': 'C', 'course': COURSE, 'mode': 'audit'}]


def test_lines_are_kept_for_longer_than_the_rest(ledger):
    old = NOW - 100 * 86_400
    ledger('recording.record', [fact('done', old), line(started=old)])
    ledger('maintenance.retention', 90, 0, 730)
    assert ledger('rows', 'Order', 'key') == ['#1 1']
    assert ledger('rows', 'Attempt', 'outcome') == []
    ledger('maintenance.retention', 90, 0, 95)
    assert ledger('rows', 'Order', 'key') == []


def test_a_learner_is_forgotten_by_a_pseudonym(ledger):
    ledger('recording.record', [line(), line('#2', learner='bob')])
    assert [ledger('erasing.forget', ('ann', 'old'), dry=dry) for dry in (True, False, False)] == [1, 1, 0]
    assert ledger('rows', 'Order', 'learner', 'mask') == [('', ''), ('bob', 'a…@e….com')]


# -- intakes that are silent ------------------------------------------------------------------------------------------

def hours_of(days, *hours):
    """Hours in which something came: these, of each of so many days before this one."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return [today - timedelta(days=day) + timedelta(hours=hour) for day in range(days, 0, -1) for hour in hours]


def test_an_intake_that_is_silent_for_longer_than_usual_is_noticed(ledger):
    now = datetime.now(UTC)
    for name, ago in (('busy', 40), ('well', 1)):
        last = now - timedelta(hours=ago)
        hours = [last - timedelta(hours=3 * number) for number in range(100)]
        ledger('recording.record', (), (), (), [Tally(
            intake=name, process='a' * 32, hour=int(at.timestamp() // 3600 * 3600), number=place,
            last=at.timestamp()) for place, at in enumerate(reversed(hours), 1)])
    assert list(ledger('intakes.silences', now)) == ['busy']


@pytest.mark.parametrize('hours, silence, unusual', [
    (hours_of(20, 9, 12, 18), 20, False), (hours_of(20, 9, 12, 18), 24, True),  # its nights have 15 hours
    (hours_of(20, *range(24)), 5, False), (hours_of(20, *range(24)), 7, True),
    (hours_of(20, 9), 30, False), (hours_of(20, 9), 37, True),
    (hours_of(19, 9), 300, False),  # too few to tell
    (hours_of(3, *range(24)), 300, False), ([], 300, False),
])
def test_what_is_unusual_is_longer_by_half_than_the_longest_silence_before(ledger, hours, silence, unusual):
    last = hours[-1] if hours else datetime.now(UTC)
    found = ledger('intakes.unusual', hours, last, last + timedelta(hours=silence))
    assert found == (timedelta(hours=silence) if unusual else None)


def test_what_is_wrong_with_a_webhook_is_known_until_it_is_mended(ledger):
    now = datetime.now(UTC)
    ledger('intakes.write_webhooks', {'shop': 'has disabled its webhook 7', 'blog': ''}, now)
    assert ledger('intakes.dead_webhooks') == [('shop', 'has disabled its webhook 7', now)]
    ledger('intakes.write_webhooks', {'shop': ''}, now)
    assert ledger('intakes.dead_webhooks') == []


def test_it_is_known_when_an_intake_last_had_an_order_published(ledger):
    by = by_intake('mine')
    ledger('recording.record', [
        fact('accepted', NOW, reason=by), fact('accepted', NOW + 5, reason=f'{by}: order, delivery Z1', id='id-2'),
        fact('accepted', NOW + 7, reason=f'{by_intake("mine2")}: order', id='id-3'),
        fact('accepted', NOW + 9, reason=f'{by}, of a delivery that was parked', id='id-4')])
    assert ledger('queries.last_accepted_by', 'mine') == datetime.fromtimestamp(NOW + 5, UTC)
    assert ledger('queries.last_accepted_by', 'min') is None


@pytest.mark.parametrize('opened', ['sqlite'], indirect=True)
@pytest.mark.parametrize('question', [
    ('queries.story', 1), ('queries.count_parked',), ('queries.entries_of', ['EDX-1'], TASK),
    ('queries.orders',), ('decisions.no_longer_parked', 1), ('queries.body_of', 1), ('queries.last_ended', ['id-1'])],
    ids=lambda it: it[0])
def test_what_is_asked_of_a_ledger_of_any_size_is_answered_by_an_index(ledger, question):
    ledger('recording.record', [fact()])
    [number] = ledger('rows', 'Order', 'pk')
    name, *rest = question
    given = [number] if rest == [1] else rest
    assert [line for line in ledger('plan', name, *given) if line.startswith('SCAN') and 'INDEX' not in line] == []


@pytest.mark.parametrize('opened', ['sqlite'], indirect=True)
def test_an_order_is_found_among_any_number_by_its_number_and_by_its_lines(ledger):
    ledger('recording.record', [fact(key='#1', id='a'), fact(key='#1 1', id='b'), fact(key='#10', id='c'),
                                fact(key='#1!', id='d')])
    assert [it['key'] for it in ledger('queries.search', '#1')] == ['#1', '#1 1']
    assert [line for line in ledger('plan', 'queries.search', '#1') if line.startswith('SCAN')] == []


@pytest.mark.parametrize('opened', ['sqlite'], indirect=True)
def test_what_is_over_is_not_compared_with_each_parked_message(ledger):
    assert [line for line in ledger('plan', 'maintenance.retention', 90) if 'CORRELATED' in line] == []
