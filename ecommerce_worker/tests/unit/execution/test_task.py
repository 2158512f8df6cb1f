"""How a run ends, what is told of it, and that its message is safe whatever happens."""

import contextlib
import dataclasses
import errno
import json
import logging
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded

from ecommerce_worker import errors, runtime
from ecommerce_worker.broker import topology
from ecommerce_worker.broker.notes import NOTES, Notes
from ecommerce_worker.broker.wire import Call, Raw, read
from ecommerce_worker.email.v1.tasks import send_offer_update_email
from ecommerce_worker.errors import ApiError, Held, NotFound, Skip, Taken, Unreachable, WrongArguments
from ecommerce_worker.execution.delivery import DELIVERY, Delivery
from ecommerce_worker.execution.outcomes import Deferred, Done, Handover, Parked, Retrying, Skipped, Then
from ecommerce_worker.execution.task import task
from ecommerce_worker.fulfillment.v1.tasks import fulfill_order
from ecommerce_worker.sailthru.v1.tasks import update_course_enrollment
from ecommerce_worker.telemetry.listening import Listeners
from ecommerce_worker.telemetry.run import RunReport
from ecommerce_worker.testing.peer import reply
from ecommerce_worker.tests.support import keeping
from ecommerce_worker.tests.support.listening import Heard
from ecommerce_worker.tests.support.memory import taken

QUEUE = 'ecommerce.fulfillment'
OPEN, COMPLETE = b'{"number": "EDX-1", "status": "Open"}', b'{"number": "EDX-1", "status": "Complete"}'
PICKLED = pickle.dumps((('EDX-1',), {'email_opt_in': True}, {}), 2)


#: What the task below does when it is told the name of it.
ACTS: dict[str | None, Any] = {}


@task(policy=lambda site: site.fulfillment_policy, key='order_number')
def body(self, order_number, site_code=None, act=None):
    """A task that does what it is told to."""
    todo = ACTS.get(act)
    if isinstance(todo, BaseException):
        raise todo
    return todo() if todo else None


@pytest.fixture(autouse=True)
def current(app, in_force):
    """An application and settings in force; nothing is waited for."""
    return in_force(REDELIVERY_DELAY=30, REDELIVERY_LIMIT=3)


def delivery(*args, act=None, notes=None, redelivered=False, eta=None, retries=0, **kwargs):
    """A message as the consumer hands it on; what it was made of is a pickle."""
    if act:
        kwargs['act'] = str(len(ACTS))
        ACTS[kwargs['act']] = act
    call = Call(fulfill_order.name, 'id-1', args or ('EDX-1',), kwargs, retries=retries, eta=eta)
    raw = Raw(PICKLED, 'application/x-python-serialize', 'binary', {'task': call.task, 'id': call.id},
              {'correlation_id': call.id})
    return Delivery(call, raw, notes or Notes(queue=QUEUE), redelivered)


@contextlib.contextmanager
def request(task, message):
    """The task as Celery's worker has it while it runs that message."""
    task.push_request(**{DELIVERY: message, 'id': message.call.id})
    try:
        yield task
    finally:
        task.pop_request()


def performed(task, message):
    with request(task, message):
        return task.perform(message)


def settled(task, message):
    """What Celery hears of a run: None acknowledges, as does Ignore; what it hands over is published first."""
    with request(task, message):
        return keeping.settled(task, *message.call.args, **message.call.kwargs)


def handed_over(task, message):
    """What a run hands over to be published."""
    with request(task, message), pytest.raises(Handover) as caught:
        task(*message.call.args, **message.call.kwargs)
    return caught.value


# -- perform ----------------------------------------------------------------------------------------------------------

def test_a_body_that_returns_is_done():
    assert performed(body, delivery()) == Done()


def test_a_body_that_has_nothing_left_to_do_is_skipped():
    assert performed(body, delivery(act=Skip('nothing left'))) == Skipped('nothing left')


@pytest.mark.parametrize('error', [
    errors.Unreachable('gone'), errors.Throttled('slow', status=429), errors.PeerFailure('ill', status=503),
    errors.PeerFailure('ill', status=500), errors.NotFound('where', status=404),
    errors.Unauthorized('who', status=401), errors.Rejected('no', status=400),
], ids=repr)
def test_an_error_of_a_service_is_tried_again_with_a_note_of_it(error):
    outcome = performed(body, delivery(act=error))
    assert isinstance(outcome, Retrying)
    assert outcome.reason == str(error)
    assert outcome.delay >= 1
    assert outcome.notes.attempt == 1
    assert outcome.notes.history[-1]['reason'] == str(error)


@pytest.mark.parametrize('error', [errors.WrongArguments('an order number is wanted'),
                                   errors.Misconfigured(['BROKER_URL is wrong'])], ids=repr)
def test_what_a_person_must_correct_is_parked_with_its_reason(error):
    outcome = performed(body, delivery(act=error))
    assert isinstance(outcome, Parked)
    assert outcome.reason == str(error)
    assert outcome.notes.attempt == 1


@pytest.mark.parametrize('error', [
    ValueError('ann@example.com'), TypeError('ann@example.com'), AttributeError('ann@example.com'),
    KeyError('ann@example.com'), RecursionError('ann@example.com'), AssertionError('ann@example.com'),
    UnicodeDecodeError('utf-8', b'ann@example.com', 0, 1, 'ann@example.com'), Ignore('ann@example.com'),
    Reject('ann@example.com'), StopIteration('ann@example.com'), ExceptionGroup('ann@example.com', [ValueError()]),
], ids=lambda error: type(error).__name__)
def test_a_programming_error_is_parked_with_its_place_and_not_its_text(error, caplog):
    outcome = performed(body, delivery(act=error))
    assert isinstance(outcome, Parked)
    assert outcome.reason.startswith(f'a programming error in the worker: {type(error).__name__} at test_task.py:')
    assert 'ann@example.com' not in repr(outcome)
    assert type(error).__name__ in caplog.text
    # As source, the line that raised may stand in the log; what the message held may not.
    assert 'ann@example.com' not in caplog.text


@pytest.mark.parametrize('error', [
    SystemExit(1), KeyboardInterrupt(), GeneratorExit(), SoftTimeLimitExceeded(), OSError('invalid path: /ca.pem'),
    FileNotFoundError(2, 'No such file or directory', '/ca.pem'), PermissionError(13, 'Permission denied'),
    OSError(errno.EMFILE, 'Too many open files'), OSError(errno.ENOSPC, 'No space left on device'),
], ids=repr)
def test_a_fault_of_the_workers_own_machine_is_an_outage_and_no_defect_of_the_message(error, caplog):
    for notes in (Notes(queue=QUEUE), Notes(queue=QUEUE, attempt=50, outages=50, refusals=11, since=time.time())):
        outcome = performed(body, delivery(act=error, notes=notes))
        assert isinstance(outcome, Retrying)
        assert outcome.notes.outages == notes.outages + 1
        assert outcome.notes.unsure
        assert outcome.notes.refusals == notes.refusals
        assert 'on its own machine' in outcome.reason
        assert '/ca.pem' not in outcome.reason
    assert 'programming error' not in caplog.text


def test_a_fault_of_the_workers_own_machine_is_borne_as_long_as_an_outage(in_force):
    in_force(FULFILLMENT_GIVE_UP_AFTER=60)
    notes = Notes(queue=QUEUE, attempt=1, waited=61.0)
    assert isinstance(performed(body, delivery(act=OSError(errno.EMFILE, 'x'), notes=notes)), Parked)


@pytest.mark.parametrize('error', [MemoryError()], ids=repr)
def test_a_run_that_is_interrupted_says_nothing_about_its_message_and_is_begun_again(error):
    outcome = performed(body, delivery(act=error))
    assert isinstance(outcome, Retrying)
    assert type(error).__name__ in outcome.reason
    assert outcome.notes.redelivered == 1


def test_a_run_that_runs_out_of_memory_again_and_again_is_parked():
    error = MemoryError()
    message, outcomes = delivery(act=error), []
    for _ in range(4):
        outcomes.append(performed(body, message))
        message = delivery(act=error, notes=outcomes[-1].notes)
    assert [type(outcome) for outcome in outcomes] == [Retrying, Retrying, Retrying, Parked]
    assert 'started 4 times and never finished' in outcomes[-1].reason


def test_a_message_that_is_delivered_again_is_not_run_at_once():
    ran = []
    outcome = performed(body, delivery(redelivered=True, act=lambda: ran.append(1)))
    assert isinstance(outcome, Retrying)
    assert 30 <= outcome.delay <= 60
    assert outcome.notes.redelivered == 1
    assert not ran


def test_rounds_of_redelivery_lie_further_and_further_apart_and_end():
    rounds = [[performed(body, delivery(redelivered=True, notes=Notes(queue=QUEUE, redelivered=number)))
               for _ in range(50)] for number in range(4)]
    for number, outcomes in enumerate(rounds[:3]):
        delays = [outcome.delay for outcome in outcomes]
        assert 30 <= min(delays) < max(delays) <= 30 + 30 * (number + 1)
    assert {type(outcome) for outcome in rounds[3]} == {Parked}


def test_a_message_whose_time_has_not_come_waits_for_it():
    ran = []
    eta = datetime.now(UTC) + timedelta(hours=1)
    outcome = performed(body, delivery(eta=eta, act=lambda: ran.append(1)))
    assert isinstance(outcome, Retrying)
    assert 3590 < outcome.delay <= 3600
    assert not ran


def test_a_message_whose_time_has_come_is_run():
    assert performed(body, delivery(eta=datetime.now(UTC) - timedelta(days=1))) == Done()


def test_a_message_that_waits_for_its_time_keeps_what_is_known_of_its_tries():
    eta = datetime.now(UTC) + timedelta(hours=1)
    notes = Notes(queue=QUEUE, attempt=3, outages=3, since=1.0)
    assert performed(body, delivery(eta=eta, notes=notes)).notes.attempt == 3


def test_arguments_of_a_newer_shop_are_dropped_with_a_line_in_the_log(caplog):
    assert performed(body, delivery(discount='ann@example.com', coupon=1)) == Done()
    assert 'coupon,discount' in caplog.text
    assert 'ann@example.com' not in caplog.text


@pytest.mark.parametrize('args, kwargs', [
    (('EDX-1', 'edx', None, 'ann@example.com'), {}),
    (('EDX-1',), {'order_number': 'ann@example.com'}),
    ((), {'site_code': 'ann@example.com'}),
], ids=['too many', 'twice', 'too few'])
def test_arguments_that_the_task_cannot_take_are_parked(args, kwargs):
    message = delivery()
    message = Delivery(Call(body.name, 'id-1', args, kwargs), message.raw, message.notes)
    outcome = performed(body, message)
    assert isinstance(outcome, Parked)
    assert outcome.reason.startswith('the task does not accept these arguments')
    assert 'ann@example.com' not in outcome.reason


# -- patience ---------------------------------------------------------------------------------------------------------

def waits(error, **first):
    """The delays until a message is given up, its notes carried from try to try."""
    message = delivery(act=error, **first)
    while isinstance(outcome := performed(body, message), Retrying):
        yield outcome.delay
        message = delivery(act=error, notes=outcome.notes, retries=first.get('retries', 0))
    assert isinstance(outcome, Parked)
    yield outcome.reason


def test_a_refusal_is_given_up_after_twelve_tries():
    *delays, reason = waits(NotFound('the shop does not know it (404)', status=404))
    assert delays == [2 ** n for n in range(11)]
    assert reason == 'the shop does not know it (404); given up after 12 tries'


def test_an_order_that_an_older_worker_has_tried_goes_on_where_it_stood():
    *delays, _ = waits(NotFound('', status=404), retries=8)
    assert delays == [256, 512, 1024]


def test_outages_do_not_use_up_the_tries_of_refusals():
    notes = performed(body, delivery(act=Unreachable(''), notes=Notes(outages=50, attempt=50))).notes
    assert (notes.attempt, notes.outages, notes.refusals) == (51, 51, 0)
    outcome = performed(body, delivery(act=NotFound('', status=404), notes=notes))
    assert outcome.delay == 1
    assert (outcome.notes.attempt, outcome.notes.outages, outcome.notes.refusals) == (52, 51, 1)


@pytest.mark.parametrize('clock', [-400 * 86_400, 0, 400 * 86_400])
def test_an_outage_is_given_up_after_its_time_whatever_clocks_say(clock):
    day, since = 24 * 3600, time.time() + clock
    young, old = Notes(since=since, waited=2.9 * day), Notes(since=since, waited=3.1 * day)
    assert isinstance(performed(body, delivery(act=Unreachable(''), notes=young)), Retrying)
    assert isinstance(performed(body, delivery(act=Unreachable(''), notes=old)), Parked)


def test_what_a_message_is_made_to_wait_is_added_up():
    first = performed(body, delivery(act=Unreachable(''), notes=Notes(since=1.0))).notes
    assert 1 <= first.waited <= 2
    then = performed(body, delivery(act=Unreachable(''), notes=first))
    assert then.notes.waited == first.waited + then.delay


# -- put off ----------------------------------------------------------------------------------------------------------

PUT_OFF = pytest.mark.parametrize('error', [Held('left alone', retry_after=3), Taken('in hand')], ids=repr)


@PUT_OFF
def test_what_is_put_off_was_not_tried(error):
    notes = Notes(queue=QUEUE, attempt=2, outages=1, refusals=1, waited=1.0, since=1.0, history=({'reason': 'x'},))
    outcome = performed(body, delivery(act=error, notes=notes))
    assert isinstance(outcome, Deferred)
    assert outcome.notes.deferred == outcome.delay
    kept = dataclasses.replace(outcome.notes, deferred=0.0, ask=False)
    assert kept == notes


@PUT_OFF
def test_what_is_put_off_for_years_is_neither_parked_nor_given_up_by_its_first_try(error):
    notes = Notes(queue=QUEUE, since=1.0, deferred=1e8)
    outcome = performed(body, delivery(act=error, notes=notes))
    assert isinstance(outcome, Deferred)
    assert outcome.delay <= 903
    assert outcome.notes.deferred == 1e8 + outcome.delay
    assert isinstance(performed(body, delivery(act=Unreachable(''), notes=outcome.notes)), Retrying)


@PUT_OFF
def test_what_is_put_off_again_and_again_is_reported_once(error, caplog):
    notes = Notes(queue=QUEUE)
    with caplog.at_level(logging.INFO):
        for _ in range(5):
            found = handed_over(body, delivery(act=error, notes=notes)).publications[0]
            notes = Notes.of(found.raw.headers)
    assert len(told(caplog)) == 1


@PUT_OFF
def test_what_is_put_off_for_long_is_reported_every_five_minutes_lest_it_be_missed(error):
    for before, reported in ((0.0, True), (1.0, False), (299.9, True), (301.0, False)):
        outcome = performed(body, delivery(act=error, notes=Notes(deferred=before)))
        outcome = dataclasses.replace(outcome, notes=dataclasses.replace(outcome.notes, deferred=before + 1))
        assert bool(body.announce(delivery(notes=Notes(deferred=before)), outcome)) is reported


def test_who_met_another_at_the_order_asks_first_and_who_was_held_need_not():
    assert delivery(notes=performed(body, delivery(act=Taken('in hand'))).notes).repeated
    assert not delivery(notes=performed(body, delivery(act=Held('left alone'))).notes).repeated


@pytest.mark.parametrize('redelivered', [True, False])
def test_what_was_delivered_again_and_is_put_off_asks_first(redelivered):
    assert body.deferred(delivery(redelivered=redelivered), 'why', 1.0, 'turn').notes.ask is redelivered


def test_a_try_ends_the_time_for_which_a_message_is_put_off():
    notes = performed(body, delivery(act=Unreachable(''), notes=Notes(deferred=1.0))).notes
    assert notes.deferred == 0


def test_each_site_has_its_own_patience(in_force):
    in_force(SITE_OVERRIDES=json.dumps({'edx': {'MAX_FULFILLMENT_RETRIES': 0}}))
    error = NotFound('', status=404)
    assert isinstance(performed(body, delivery(act=error, site_code='edx')), Parked)
    assert isinstance(performed(body, delivery(act=error, site_code='other')), Retrying)
    assert isinstance(performed(body, delivery(act=error, site_code=['edx'])), Retrying)


# -- fulfilment -------------------------------------------------------------------------------------------------------

def requests_of(shop):
    return [f'{request.method} {request.target}' for request in shop.requests]


GET, PUT = 'GET /orders/EDX-1/', 'PUT /orders/EDX-1/fulfill/?email_opt_in='


def test_the_first_run_of_an_order_just_has_it_fulfilled(peer, in_force):
    shop = peer(reply(body=COMPLETE))
    in_force(ECOMMERCE_API_ROOT=shop.url)
    assert performed(fulfill_order, delivery(site_code='edx', email_opt_in=True)) == Done()
    assert requests_of(shop) == [PUT + 'True']


@pytest.mark.parametrize('message', [
    delivery(notes=Notes(attempt=1)), delivery(notes=Notes(redelivered=1)), delivery(notes=Notes(resent=True)),
    delivery(retries=1),
], ids=['tried before', 'delivered before', 'resent', 'tried by an older worker'])
def test_a_run_that_may_not_be_the_first_asks_before_it_repeats(peer, in_force, message):
    shop = peer(reply(body=OPEN), reply(body=COMPLETE))
    in_force(ECOMMERCE_API_ROOT=shop.url)
    assert performed(fulfill_order, message) == Done()
    assert requests_of(shop) == [GET, PUT + 'False']


def test_the_second_of_two_messages_of_one_id_asks_first(peer, in_force):
    # Neither was delivered before, nor tried: a shop published it twice, or a worker was killed between both.
    shop = peer(reply(body=COMPLETE))
    in_force(ECOMMERCE_API_ROOT=shop.url)
    assert settled(fulfill_order, delivery()) is None
    skipped = settled(fulfill_order, delivery(notes=Notes(queue=QUEUE, deferred=2.0)))
    assert str(skipped) == 'the order is already complete'
    assert requests_of(shop) == [PUT + 'False', GET]


def test_one_that_was_put_off_before_it_had_done_anything_need_not_ask(peer, in_force):
    shop = peer(*[reply(503)] * 5, reply(body=COMPLETE))
    in_force(ECOMMERCE_API_ROOT=shop.url)
    for number in range(5):
        handed_over(fulfill_order, dataclasses.replace(delivery(), call=dataclasses.replace(
            delivery().call, id=f'other-{number}')))
    assert Notes.of(handed_over(fulfill_order, delivery()).publications[0].raw.headers).deferred
    del shop.requests[:]
    assert not runtime.current().runs.has_another('id-1')


def test_while_one_of_the_same_id_is_at_work_there_is_another():
    runs = runtime.Runs(2)
    runs.begin('id-1')
    assert not runs.has_another('id-1')
    runs.begin('id-1')
    assert runs.has_another('id-1')
    runs.end('id-1', acted=False)
    assert not runs.has_another('id-1')
    runs.end('id-1', acted=True)
    assert runs.has_another('id-1')


def test_only_so_many_ids_are_remembered(monkeypatch):
    monkeypatch.setattr(runtime, 'REMEMBERED', 2)
    runs = runtime.Runs(2)
    for number in range(3):
        runs.begin(f'id-{number}')
        runs.end(f'id-{number}', acted=True)
    assert [runs.has_another(f'id-{number}') for number in range(3)] == [False, True, True]


def test_an_order_that_turns_out_to_be_complete_is_left_alone(peer, in_force):
    shop = peer(reply(body=COMPLETE))
    in_force(ECOMMERCE_API_ROOT=shop.url)
    assert performed(fulfill_order, delivery(notes=Notes(attempt=1))) == Skipped('the order is already complete')
    assert requests_of(shop) == [GET]


def test_an_order_that_cannot_be_asked_about_is_not_fulfilled_again(peer, in_force):
    shop = peer(reply(503))
    in_force(ECOMMERCE_API_ROOT=shop.url)
    assert isinstance(performed(fulfill_order, delivery(notes=Notes(attempt=1))), Retrying)
    assert requests_of(shop) == [GET]


@pytest.mark.parametrize('answer, outcome', [
    (reply(406, b''), Skipped), (reply(404), Retrying), (reply(500), Retrying), (reply(200, b'<html>'), Retrying)])
def test_an_answer_of_the_shop_decides_the_outcome(peer, in_force, answer, outcome):
    in_force(ECOMMERCE_API_ROOT=peer(answer, reply(body=COMPLETE)).url)
    assert isinstance(performed(fulfill_order, delivery()), outcome)


@pytest.mark.parametrize('args, kwargs', [
    (('../EDX-1',), {}), ((7,), {}), ((None,), {}), (('EDX-1',), {'site_code': ['edx']}),
    (('EDX-1',), {'email_opt_in': 'yes'}), (('EDX-1',), {'email_opt_in': 1}),
], ids=repr)
def test_arguments_of_a_wrong_kind_are_parked_and_nobody_is_asked(peer, in_force, args, kwargs):
    shop = peer(reply(body=COMPLETE))
    in_force(ECOMMERCE_API_ROOT=shop.url)
    assert isinstance(performed(fulfill_order, delivery(*args, **kwargs)), Parked)
    assert not shop.requests


@pytest.mark.parametrize('task, args, kwargs, code', [
    (fulfill_order, ('EDX-1', 'edx', True), {}, 'edx'),
    (fulfill_order, ('EDX-1',), {'site_code': 'edx'}, 'edx'),
    (fulfill_order, ('EDX-1', None), {}, ''),
    (fulfill_order, ('EDX-1', ['edx']), {}, ''),
    (update_course_enrollment, ('a@b.c', 'https://x', True, 'audit', None, None, None, None, 'edx'), {}, 'edx'),
    (send_offer_update_email, ('a@b.c', 'Subject', 'Body', 'edX', '', [], 'edx'), {}, 'edx'),
    (send_offer_update_email, ('a@b.c', 'Subject', 'Body', 'edX', 'edx'), {}, 'edx'),
    (send_offer_update_email, ('a@b.c', 'Subject', 'Body', 'edX', 'me@b.c'), {}, ''),
    (send_offer_update_email, ('a@b.c', 'Subject', 'Body', 'edX'), {'site_code': 'edx'}, 'edx'),
    (send_offer_update_email, (), {}, ''),
])
def test_the_site_is_seen_wherever_it_stands_among_the_arguments(in_force, task, args, kwargs, code):
    in_force(SITE_OVERRIDES={'edx': {'JWT_ISSUER': 'edx'}})
    assert task.site_of(Call(task.name, 'id-1', args, kwargs)) == code


def test_a_site_given_by_position_has_its_own_patience_and_is_told(in_force):
    current = in_force(SITE_OVERRIDES={'edx': {'MAX_FULFILLMENT_RETRIES': 0}})
    told: list[RunReport] = []
    current.listeners.add(Heard(reported=told.append))
    message = delivery('EDX-1', 'edx', act=NotFound('where', status=404))
    assert isinstance(performed(body, message), Parked)
    settled(body, message)
    assert [it.site for it in told] == ['edx']


def test_each_site_is_asked_at_its_own_address(peer, in_force):
    shop, other = peer(reply(body=COMPLETE)), peer(reply(body=COMPLETE))
    in_force(ECOMMERCE_API_ROOT=shop.url, SITE_OVERRIDES=json.dumps({'other': {'ECOMMERCE_API_ROOT': other.url}}))
    for site_code in ('other', 'stranger', None):
        assert performed(fulfill_order, delivery(site_code=site_code)) == Done()
    assert (len(shop.requests), len(other.requests)) == (2, 1)


# -- settle -----------------------------------------------------------------------------------------------------------

def test_a_run_that_is_done_is_acknowledged():
    assert settled(body, delivery()) is None


def test_a_run_that_was_skipped_is_acknowledged_and_ignored():
    assert isinstance(settled(body, delivery(act=Skip('nothing left'))), Ignore)


def test_a_retry_is_published_with_its_notes_before_its_message_is_acknowledged(channel):
    assert isinstance(settled(body, delivery(act=Unreachable('gone'), site_code='edx')), Ignore)
    message = taken(channel, QUEUE)
    call, notes = read(Raw.of(message)), Notes.of(message.headers)
    assert (call.task, call.id, call.args, call.kwargs['site_code']) == (fulfill_order.name, 'id-1', ('EDX-1',), 'edx')
    assert (notes.attempt, notes.outages, notes.queue) == (1, 1, QUEUE)
    assert message.content_type == 'application/json'


def test_a_parked_message_is_kept_as_it_came_before_it_is_acknowledged(channel):
    assert isinstance(settled(body, delivery(act=WrongArguments('why'))), Ignore)
    message = taken(channel, topology.PARKED)
    assert message.body == PICKLED
    assert message.content_type == 'application/x-python-serialize'
    header = message.headers[NOTES]
    assert (header['key'], header['id'], header['reason'], header['queue']) == ('EDX-1', 'id-1', 'why', QUEUE)
    assert taken(channel, QUEUE) is None


def test_what_is_handed_over_reaches_another_process_whole_and_shows_nothing():
    found = handed_over(body, delivery(act=WrongArguments('why'), site_code='edx'))
    copy = pickle.loads(pickle.dumps(found))
    assert (copy.publications, copy.message, copy.report) == (found.publications, found.message, found.report)
    assert copy.requeue is True
    assert 'EDX-1' not in repr(found) + str(found)


def nested(depth):
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


HUGE = 10 ** 5000

DEEP = nested(100_000)

STRANGE = {
    'a set among unknown arguments': {'kwargs': {'discounts': {1, 2}}},
    'a deep list among unknown arguments': {'kwargs': {'discounts': DEEP}},
    'a mapping without names among unknown arguments': {'kwargs': {'discounts': {(1, 2): 3}}},
    'a huge number among unknown arguments': {'kwargs': {'discounts': HUGE}},
    'a huge number for an order': {'args': (HUGE,)},
    'a deep list for an order': {'args': (DEEP,)},
    'a huge number for a site': {'kwargs': {'site_code': HUGE}},
    'a deep list for a site': {'kwargs': {'site_code': DEEP}},
    'half a character for an order': {'args': ('EDX-\ud800',)},
    'half a character for a site': {'kwargs': {'site_code': '\ud800'}},
    'half a character among unknown arguments': {'kwargs': {'\ud800': '\ud800'}},
}


@pytest.mark.parametrize('strange', STRANGE.values(), ids=STRANGE)
def test_whatever_a_message_holds_it_is_tried_again_or_parked(peer, in_force, strange):
    in_force(ECOMMERCE_API_ROOT=peer(reply(503)).url)
    message = delivery(*strange.get('args', ()), **strange.get('kwargs', {}))
    assert handed_over(fulfill_order, message).publications


# -- announce ---------------------------------------------------------------------------------------------------------

def told(caplog):
    return [record for record in caplog.records if record.name == 'ecommerce_worker.telemetry.log']


@pytest.mark.parametrize('act, outcome, level', [
    (None, 'done', logging.INFO), (Skip('nothing left'), 'skipped', logging.INFO),
    (Unreachable('gone'), 'retrying', logging.INFO), (WrongArguments('why'), 'parked', logging.ERROR),
])
def test_a_run_is_one_line_in_the_log(caplog, act, outcome, level):
    with caplog.at_level(logging.INFO):
        settled(body, delivery(act=act, site_code='edx', notes=Notes(queue=QUEUE, attempt=4)))
    record, = told(caplog)
    assert record.levelno == level
    line = record.getMessage()
    assert line.startswith(f'{outcome}: ')
    for fact in (f'task={body.name}', 'key=EDX-1', 'site=edx', 'id=id-1', 'attempt=5', 'seconds='):
        assert fact in line


def test_the_line_tells_when_the_next_try_will_be(caplog):
    with caplog.at_level(logging.INFO):
        settled(body, delivery(act=Unreachable('gone', retry_after=120)))
    assert 'next_try=120s' in told(caplog)[0].getMessage()


@pytest.mark.parametrize('kwargs', [{'order_number': 'EDX-1\nparked: task=x'}, {'site_code': 'edx\r\nparked: task=x'},
                                    {'order_number': 'EDX-1\x1b[2J'}, {'order_number': 'EDX-1\u2028parked: task=x'}],
                         ids=repr)
def test_whatever_a_message_holds_its_line_is_one_line(caplog, kwargs):
    message = delivery()
    message = Delivery(Call(body.name, 'id-1', (), {'order_number': 'EDX-1', **kwargs}), message.raw, message.notes)
    with caplog.at_level(logging.INFO):
        settled(body, message)
    line = told(caplog)[0].getMessage()
    assert line.splitlines() == [line]
    assert '\x1b' not in line


def test_no_line_holds_anything_but_ids(caplog):
    with caplog.at_level(logging.DEBUG):
        for act in (None, Skip('x'), Unreachable('x'), ValueError('ann@example.com'), SystemExit('ann@example.com')):
            settled(body, delivery('EDX-1', act=act, email='ann@example.com'))
        settled(body, delivery({'email': 'ann@example.com'}, site_code={'email': 'ann@example.com'}))
    assert 'ann@example.com' not in caplog.text


def test_a_listener_that_fails_harms_neither_the_others_nor_the_message_and_is_said_once(current, caplog):
    def failing(*_):
        raise ValueError('ann@example.com')

    heard: list[RunReport] = []
    current.listeners = Listeners(Heard(failing, failing, failing), Heard(reported=heard.append))
    for _ in range(3):
        assert settled(body, delivery()) is None
    report, *_ = heard
    assert (len(heard), report.outcome, report.key, report.id, report.attempt) == (3, 'done', 'EDX-1', 'id-1', 1)
    [line] = [line for line in caplog.text.splitlines() if 'a listener failed' in line]
    assert 'error=ValueError at=test_task.py:' in line
    assert 'ann@example.com' not in caplog.text


@pytest.mark.parametrize('act, outcome', [
    (None, 'done'), (Skip('x'), 'skipped'), (Unreachable('x'), 'retrying'), (ValueError(), 'parked'),
    (SystemExit(), 'retrying'), (Held('x'), 'deferred'), (Taken('x'), 'deferred')], ids=repr)
def test_who_listens_hears_each_run_begin_and_end_and_knows_it_by_its_id(current, act, outcome):
    heard: list[tuple[str, RunReport]] = []
    current.listeners = Listeners(Heard(*(lambda report, what=what: heard.append((what, report))
                                          for what in ('started', 'ended', 'reported'))))
    settled(body, delivery('EDX-1', 'edx', act=act))
    (_, begun), (_, ended), (_, reported) = heard
    assert [what for what, _ in heard] == ['started', 'ended', 'reported']
    assert (begun.outcome, begun.key, begun.site, begun.attempt) == ('started', 'EDX-1', 'edx', 1)
    assert (ended.outcome, ended.fact, ended.started) == (outcome, begun.fact, begun.started)
    assert reported == dataclasses.replace(ended, outcome='retrying' if outcome == 'deferred' else outcome)


def test_what_does_not_run_begins_and_ends_nothing(current):
    heard: list[RunReport] = []
    current.listeners = Listeners(Heard(heard.append, heard.append))
    message = delivery()
    run = current.runs.of(message.message, redelivered=True)
    with run.lock:
        assert body.let_go(message) is not None
    assert heard == []


def test_the_circuit_breaker_of_a_host_is_heard(current):
    heard: list[tuple[str, ...]] = []
    current.listeners = Listeners(Heard(circuit=lambda *said: heard.append(said)))
    circuit = current.circuit('https://user:secret@shop.test:8443/api/')
    for _ in range(7):
        with contextlib.suppress(ApiError), circuit.call():
            raise Unreachable('no answer')
    assert heard == [('shop.test:8443', 'open', 'no answer')]


# -- the rest ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('args, kwargs, key', [
    (('EDX-1',), {}, 'EDX-1'), ((), {'order_number': 'EDX-1'}, 'EDX-1'), ((7,), {}, '7'), ((), {}, ''),
    ((None,), {}, ''), ((['ann@example.com'],), {}, ''), (({'a': 1},), {}, ''), (('x' * 1000,), {}, 'x' * 128),
    ((HUGE,), {}, ''),
], ids=['by position', 'by name', 'a number', 'none', 'None', 'a list', 'a mapping', 'long', 'huge'])
def test_a_call_is_known_by_its_order_number(args, kwargs, key):
    assert fulfill_order.key_of(Call(fulfill_order.name, 'id-1', args, kwargs)) == key


def test_a_task_called_as_a_function_is_one(peer, in_force):
    shop = peer(reply(body=COMPLETE), reply(406, b''), reply(body=COMPLETE), reply(404))
    in_force(ECOMMERCE_API_ROOT=shop.url)
    assert fulfill_order('EDX-1', email_opt_in=True) is None
    assert fulfill_order('EDX-1') is None
    with pytest.raises(NotFound):
        fulfill_order('EDX-1')
    assert requests_of(shop) == [PUT + 'True', PUT + 'False', GET, PUT + 'False']


@pytest.mark.parametrize('answers, state, methods', [
    ([reply(404), reply(body=OPEN), reply(body=COMPLETE)], 'SUCCESS', ['PUT', 'GET', 'PUT']),
    ([reply(503), reply(body=COMPLETE)], 'SUCCESS', ['PUT', 'GET']),
    ([reply(404)], 'FAILURE', ['PUT'] + ['GET'] * 11),
    ([reply(503)], 'FAILURE', ['PUT', 'GET', 'GET']),
    ([reply(body=COMPLETE)], 'SUCCESS', ['PUT']),
])
def test_a_task_in_eager_mode_is_tried_again_at_once_a_bounded_number_of_times(peer, in_force, app, answers, state,
                                                                               methods):
    shop = peer(*answers)
    in_force(ECOMMERCE_API_ROOT=shop.url)
    app.conf.task_always_eager = True
    assert fulfill_order.delay('EDX-1').state == state
    assert [request.method for request in shop.requests] == methods


def test_a_task_needs_an_argument_to_be_known_by():
    with pytest.raises(TypeError, match='no argument'):
        task(policy=lambda site: site.fulfillment_policy, key='order_number')(lambda self, number: None)


def test_a_message_is_acknowledged_late_and_not_lost_with_its_worker():
    assert fulfill_order.name == 'ecommerce_worker.fulfillment.v1.tasks.fulfill_order'
    assert fulfill_order.acks_late
    assert fulfill_order.reject_on_worker_lost
    assert fulfill_order.ignore_result


# -- a message that comes again ---------------------------------------------------------------------------------------

def again(message, **changes):
    return dataclasses.replace(message, redelivered=True, **changes)


def test_a_run_that_ended_while_its_connection_was_lost_is_not_begun_again(channel):
    runs = []
    message = delivery(act=lambda: runs.append(1))
    assert settled(body, message) is None
    assert settled(body, again(message)) is None
    assert runs == [1]
    assert taken(channel, QUEUE) is None


def test_what_followed_from_that_run_is_not_published_twice(channel):
    message = delivery(act=Unreachable('gone'))
    assert isinstance(settled(body, message), Ignore)
    assert isinstance(settled(body, again(message)), Ignore)
    assert taken(channel, QUEUE) is not None
    assert taken(channel, QUEUE) is None


def test_what_was_not_published_then_is_handed_over_again():
    message = delivery(act=WrongArguments('why'))
    first, second = handed_over(body, message), handed_over(body, again(message))
    assert [found.raw.headers[NOTES]['reason'] for found in (*first.publications, *second.publications)] == ['why'] * 2


class Slow:
    """A run that goes on until it is let go, and then ends well or with the error."""

    def __init__(self, error=None):
        self.begun, self.error = 0, error
        self.started, self.may_end = threading.Event(), threading.Event()

    def __call__(self):
        self.begun += 1
        self.started.set()
        self.may_end.wait(60)
        if self.error:
            raise self.error


def test_for_a_run_still_under_way_nobody_waits_and_its_message_comes_back_to_it(channel):
    slow = Slow()
    message = delivery(act=slow)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(settled, body, message)
        assert slow.started.wait(60)
        notes = Notes.of(handed_over(body, again(message)).publications[0].raw.headers)
        assert notes.redelivered == 1
        back = dataclasses.replace(message, notes=notes)
        assert Notes.of(handed_over(body, back).publications[0].raw.headers).redelivered == 2
        slow.may_end.set()
        assert first.result(60) is None
    # It learns how that run ended, and what follows from it is not published twice.
    assert settled(body, back) is None
    assert slow.begun == 1
    assert taken(channel, QUEUE) is None


def test_a_run_that_never_ends_is_parked_in_the_end_and_keeps_one_thread():
    slow = Slow()
    message = delivery(act=slow)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(settled, body, message)
        assert slow.started.wait(60)
        lost = again(message)
        for _ in range(3):
            found = handed_over(body, lost).publications[0]
            assert found.queue == QUEUE
            lost = dataclasses.replace(message, notes=Notes.of(found.raw.headers))
        parked = handed_over(body, lost).publications[0]
        slow.may_end.set()
    assert parked.queue == topology.PARKED
    assert 'started 4 times and never finished' in parked.raw.headers[NOTES]['reason']


def test_where_that_run_is_not_known_the_message_is_run():
    assert settled(body, delivery(notes=Notes(queue=QUEUE, redelivered=1, run='of another process'))) is None


@pytest.mark.parametrize('notes', [{NOTES: {'queue': QUEUE, 'attempt': 1}}, {NOTES: {'queue': QUEUE, 'resent': True}}])
def test_the_next_try_of_a_message_is_another_one(channel, notes):
    message = delivery(act=Unreachable('gone'))
    settled(body, message)
    taken(channel, QUEUE)
    lost = again(message, raw=dataclasses.replace(message.raw, headers={**message.raw.headers, **notes}))
    # Another worker began it and was lost: it waits, as whatever is delivered again without having ended here.
    assert isinstance(settled(body, lost), Ignore)
    assert taken(channel, QUEUE).headers[NOTES]['redelivered'] == 1


def test_messages_to_which_their_producer_gave_one_id_are_not_taken_for_each_other():
    message = delivery()
    other_task = dataclasses.replace(message, call=dataclasses.replace(message.call, task='another'))
    other_body = dataclasses.replace(message, raw=dataclasses.replace(message.raw, body=b'[]'))
    assert len({message.message, other_task.message, other_body.message}) == 3
    assert again(message).message == message.message


def test_what_follows_from_a_run_is_not_taken_to_be_published_since_its_message_went_on_as_another(channel):
    # It was delivered again while it ran, and goes on as a message that comes back to the run.
    slow = Slow(Unreachable('gone'))
    message = delivery(act=slow)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(handed_over, body, message)
        assert slow.started.wait(60)
        settled(body, again(message))
        slow.may_end.set()
        assert Notes.of(first.result(60).publications[0].raw.headers).outages == 1


def test_no_more_runs_are_remembered_than_fit():
    runs = runtime.Runs(3)
    first = runs.of('0', redelivered=False)
    for name in '123':
        runs.of(name, redelivered=False)
    assert runs.of('0', redelivered=True) is not first


# -- what follows -----------------------------------------------------------------------------------------------------

def test_what_follows_from_a_run_is_published_before_its_message_is_acknowledged(channel):
    message = delivery(act=lambda: [Then('shop.next', {'order_number': 'EDX-1'}), Then('shop.next', {})])
    assert settled(body, message) is None
    first, second = taken(channel, QUEUE), taken(channel, QUEUE)
    assert first.headers['task'] == 'shop.next'
    assert first.headers['parent_id'] == first.headers['root_id'] == 'id-1'
    assert json.loads(first.body)[:2] == [[], {'order_number': 'EDX-1'}]
    assert len({'id-1', first.headers['id'], second.headers['id']}) == 3


def test_what_follows_has_the_same_id_whenever_the_run_is_repeated(channel):
    message = delivery(act=lambda: [Then('shop.next', {})])
    settled(body, message)
    settled(body, message)
    assert taken(channel, QUEUE).headers['id'] == taken(channel, QUEUE).headers['id']


def test_a_lost_answer_leaves_a_task_unsure(channel):
    seen = []
    settled(body, delivery(act=Unreachable('no answer', maybe_done=True)))
    notes = Notes.of(taken(channel, QUEUE).headers)
    settled(body, delivery(act=lambda: seen.append(body.unsure), notes=notes))
    settled(body, delivery(act=lambda: seen.append(body.unsure), notes=Notes(queue=QUEUE, attempt=3)))
    settled(body, delivery(act=lambda: seen.append(body.unsure), notes=Notes(queue=QUEUE, redelivered=1)))
    assert seen == [True, False, True]


def test_a_call_whose_lane_cannot_be_told_has_one_all_the_same(in_force):
    in_force()

    def broken(site):
        raise AttributeError('lane')

    @task(policy=lambda site: site.fulfillment_policy, lane=broken)
    def strange(self):
        """A task whose lane is a defect."""

    assert strange.lane_of(Call(strange.name, 'id-1')) == strange.name


@pytest.mark.parametrize('act, published, notes, changed, expected', [
    (None, 100, {}, {}, 100), (errors.Rejected('no', status=400), 100, {}, {}, 100), (None, -5, {}, {}, 0),
    (None, None, {}, {}, None), (None, 100, {'attempt': 1}, {}, None),
    (None, 100, {'resent': True, 'attempt': 2}, {}, None),
    (None, 100, {}, {'redelivered': True}, None), (None, 100, {'due': time.time() + 1000}, {}, None),
    (None, 100, {}, {'eta': datetime.now(UTC) - timedelta(seconds=1)}, None),
    (errors.Held('down', retry_after=1), 100, {}, {}, None), (errors.Taken('another'), 100, {}, {}, None),
], ids=['done', 'refused', 'a clock ahead', 'not said', 'a second try', 'resent', 'redelivered', 'due', 'an eta',
        'held', 'taken'])
def test_how_long_a_message_had_been_published_is_told_of_its_first_run(current, act, published, notes, changed,
                                                                       expected):
    heard: list[RunReport] = []
    current.listeners.add(Heard(ended=heard.append))
    at = None if published is None else time.time() - published
    settled(body, delivery(act=act, notes=Notes(queue=QUEUE, published=at, **notes), **changed))
    told = heard[0].queued
    assert told is None if expected is None else told == pytest.approx(expected, abs=30)
