"""Beat: what is wrong with a schedule, and that each firing happens once, whoever is there to see to it."""

import json
import logging
import sqlite3

import pytest
from celery import Celery

from ecommerce_worker import settings
from ecommerce_worker.errors import Misconfigured
from ecommerce_worker.execution.task import task
from ecommerce_worker.resubmit import tasks as chores
from ecommerce_worker.schedule.beat import Scheduler
from ecommerce_worker.schedule.checks import COMMAND, overdue, schedule_problems
from ecommerce_worker.schedule.claims import CLAIM_SECONDS
from ecommerce_worker.schedule.file_store import FileFirings, StateUnusable
from ecommerce_worker.schedule.timing import Every
from ecommerce_worker.schedule.v1 import tasks
from ecommerce_worker.tests.support.clock import Clock
from ecommerce_worker.tests.support.memory import taken

QUEUE = 'ecommerce.default'
MAIL = {'task': COMMAND, 'args': ['send_queued_mail'], 'interval': '1m'}
PROJECT = {'DJANGO_PROJECT_SETTINGS': 'shop.settings', 'MANAGEMENT_COMMANDS': 'send_queued_mail,rebuild_index'}

#: A Saturday, in epoch seconds.
NOON = 1_795_262_400.0


@task(policy=lambda site: site.fulfillment_policy)
def endless(self, number=0):
    """A task that cannot expire."""


@pytest.fixture
def clock():
    return Clock(NOON)


@pytest.fixture
def firings(tmp_path):
    return FileFirings(tmp_path / 'state' / 'schedule.sqlite3')


@pytest.fixture
def beat(app, in_force, clock, firings):
    """Starts beats of one schedule: ``beat(mail=MAIL)``."""
    def start(**schedule):
        in_force(**PROJECT, SCHEDULE={'resubmit': {'enabled': False}, **schedule})
        for registered in (tasks.run_management_command, endless):
            assert registered.name
        return Scheduler(app, firings=firings, clock=clock)

    return start


@pytest.fixture
def fired(channel):
    """What was published since it was asked last."""
    def all_of_it(queue=QUEUE):
        found = []
        while message := taken(channel, queue):
            args, kwargs, _ = json.loads(message.body)
            found.append((message.headers['task'].rpartition('.')[2], args, kwargs, message.headers['id']))
        return found

    return all_of_it


# --- What is wrong with a schedule


def problems(app, schedule, **given):
    given = {**PROJECT, 'SCHEDULE': schedule, **given}
    conf = settings.load({f'ECOMMERCE_WORKER_{name}': str(value) for name, value in given.items()})
    return schedule_problems(conf, {COMMAND: tasks.run_management_command, endless.name: endless})


@pytest.mark.parametrize('entry, problem', [
    ({**MAIL, 'interval': None}, 'needs one of crontab and interval'),
    ({**MAIL, 'crontab': '0 10 * * *'}, 'needs one of crontab and interval, and has both'),
    ({**MAIL, 'interval': None, 'crontab': '0 25 * * *'}, "has a crontab '0 25 \\* \\* \\*' that cannot be read"),
    ({**MAIL, 'queue': 'nowhere'}, 'is published to nowhere, which is not among QUEUES'),
    ({'interval': 60}, 'names no task'),
    ({**MAIL, 'task': COMMAND[:-1]}, f'did you mean {COMMAND}'),
    ({'task': endless.name, 'interval': 60, 'expires': 60}, 'has no argument not_after'),
    ({'task': endless.name, 'interval': 60, 'kwargs': {'nummer': 1}}, "unexpected keyword argument 'nummer'"),
    ({**MAIL, 'args': ['flush']}, "cannot be run: the command 'flush' is not among MANAGEMENT_COMMANDS"),
    ({**MAIL, 'args': []}, 'is not among MANAGEMENT_COMMANDS'),
    ({**MAIL, 'args': ['send_queued_mail', '--all']}, 'cannot be run: an argument begins with'),
    ({**MAIL, 'kwargs': {'settings': 'other'}}, 'would load other code'),
])
def test_a_wrong_entry_is_named_with_what_is_wrong(app, entry, problem):
    found = problems(app, {'mail': entry})
    assert len(found) == 1
    assert found[0].startswith('environment ECOMMERCE_WORKER_SCHEDULE: SCHEDULE[mail] ')
    with pytest.raises(AssertionError, match=problem):
        raise AssertionError(found[0])


def test_all_problems_are_told_at_once(app):
    found = problems(app, {'one': {'interval': 60}, 'two': {**MAIL, 'queue': 'x', 'crontab': '1'}},
                     WAKE_UP={'tow': {'channel': 'c'}, 'one': {}}, DJANGO_PROJECT_SETTINGS='')
    assert [line.partition(': ')[2].partition(' ')[0] for line in found] == [
        'SCHEDULE[one]', 'SCHEDULE[two]', 'SCHEDULE[two]', 'SCHEDULE[two]', 'WAKE_UP[tow]', 'WAKE_UP[tow]',
        'WAKE_UP[one]', 'WAKE_UP[one]']
    assert 'did you mean two?' in str(found)


@pytest.mark.parametrize('entry', [
    MAIL, {**MAIL, 'expires': '30s', 'queue': 'ecommerce.email_marketing'},
    {'task': COMMAND, 'kwargs': {'name': 'rebuild_index', 'noinput': True}, 'crontab': '0 10 * * *'},
    {'task': endless.name, 'interval': '7d'}, {'enabled': False},
])
def test_a_right_entry_has_no_problem(app, entry):
    assert problems(app, {'mail': entry}) == []


@pytest.mark.parametrize('given, words', [
    ({'interval': '10 parsecs'}, 'SCHEDULE[mail][interval] must be seconds, or a duration such as 45s, 15m, 1h30m, 3d'),
    ({'interval': '0.5s'}, 'from 1s to 366d'),
    ({'crontap': '* * * * *'}, 'there is no setting SCHEDULE[mail][crontap]; did you mean crontab?'),
    ({'args': 'send'}, 'SCHEDULE[mail][args] must be a list'),
])
def test_an_entry_that_cannot_be_read_is_refused_by_the_settings(given, words):
    with pytest.raises(Misconfigured) as caught:
        settings.load({'ECOMMERCE_WORKER_SCHEDULE': str({'mail': given})})
    assert words in str(caught.value)


def test_beat_does_not_start_with_a_wrong_schedule(beat):
    with pytest.raises(Misconfigured, match='names no task'):
        beat(mail={'interval': 60})


@pytest.mark.parametrize('given, found', [
    ({}, 0), ({'QUEUES': 'fulfillment'}, 0),
    ({'SCHEDULE': {'resubmit': {'enabled': False}}, 'QUEUES': 'fulfillment'}, 0),
    ({'SCHEDULE': {'resubmit': {'interval': '1h'}}, 'QUEUES': 'fulfillment'}, 1)])
def test_the_entry_that_comes_with_the_worker_is_a_problem_only_to_who_asked_for_it(app, in_force, given, found):
    conf = in_force(**given).settings
    assert len(schedule_problems(conf, {chores.resubmit_orders.name: chores.resubmit_orders})) == found


# --- Firing


def test_a_new_entry_is_fired_when_it_is_next_due(beat, clock, fired):
    scheduler = beat(mail=MAIL)
    clock.now = NOON + 20
    assert scheduler.tick() <= 40.1
    assert fired() == []
    clock.now = NOON + 60
    scheduler.tick()
    scheduler.tick()
    assert [it[:3] for it in fired()] == [
        ('run_management_command', ['send_queued_mail'], {'not_after': NOON + 120})]


def test_the_entry_that_comes_with_the_worker_has_orders_resubmitted_every_ten_minutes(app, in_force, firings, clock,
                                                                                       fired):
    in_force()
    scheduler = Scheduler(app, firings=firings, clock=clock)
    for _ in range(3):
        scheduler.tick()
        clock.now += 600
    assert [it[:3] for it in fired()] == [
        ('resubmit_orders', [], {'not_after': NOON + 1200}), ('resubmit_orders', [], {'not_after': NOON + 1800})]


def test_it_is_left_out_where_no_worker_would_run_it(app, in_force, firings, clock):
    in_force(QUEUES='fulfillment')
    assert Scheduler(app, firings=firings, clock=clock).timings == []


def test_a_task_that_cannot_expire_is_told_no_time(beat, clock, fired):
    scheduler = beat(job={'task': endless.name, 'interval': 60, 'kwargs': {'number': 7},
                          'queue': 'ecommerce.fulfillment'})
    scheduler.tick()
    clock.now += 60
    scheduler.tick()
    assert [it[2] for it in fired('ecommerce.fulfillment')] == [{'number': 7}]


def test_several_beats_fire_each_firing_once(beat, clock, fired):
    beats = [beat(mail=MAIL) for _ in range(3)]
    for minute in range(10):
        clock.now = NOON + 60 * minute
        for scheduler in beats:
            scheduler.tick()
    found = fired()
    assert len(found) == 9
    assert len({id_ for *_, id_ in found}) == 9


def test_a_claim_of_a_beat_that_died_ends_and_its_firing_has_the_same_id(beat, clock, firings, fired):
    scheduler = beat(mail=MAIL)
    scheduler.tick()
    clock.now += 60
    assert firings.claim('mail (60 s)', clock.now, 'one that dies', clock.now)
    scheduler.tick()
    assert fired() == []
    clock.now += CLAIM_SECONDS + 1
    scheduler.tick()
    assert len(fired()) == 1


def test_what_was_due_while_no_beat_ran_is_fired_once_and_told(beat, clock, fired, caplog):
    schedule = {'index': {**MAIL, 'args': ['rebuild_index'], 'interval': None, 'crontab': '0 10 * * *'}}
    beat(**schedule).tick()
    clock.now += 3 * 86_400
    scheduler = beat(**schedule)
    scheduler.tick()
    scheduler.tick()
    assert [kwargs for _, _, kwargs, _ in fired()] == [{'not_after': NOON + 4 * 86_400 - 2 * 3600}]
    assert ('late, and fired once: entry=index due=2026-11-24T10:00:00Z last=2026-11-21T10:00:00Z missed=2'
            in caplog.text)


def test_what_has_expired_while_no_beat_ran_is_told_and_left_out(beat, clock, fired, caplog):
    schedule = {'index': {**MAIL, 'interval': None, 'crontab': '0 10 * * *', 'expires': '1h'}}
    beat(**schedule).tick()
    clock.now += 86_400
    beat(**schedule).tick()
    assert fired() == []
    assert 'late, and skipped since it expired: entry=index' in caplog.text
    clock.now += 79_201
    beat(**schedule).tick()
    assert len(fired()) == 1


@pytest.mark.parametrize('expires, remembered', [(None, ('fired', 2)), ('1h', ('expired', 2))])
def test_how_many_were_missed_is_remembered_once(beat, clock, firings, expires, remembered):
    told = []

    class Telling(FileFirings):
        def fired(self, *args):
            told.append(('fired', args[-1]))
            super().fired(*args)

        def expired(self, *args):
            told.append(('expired', args[-1]))
            super().expired(*args)

    scheduler = beat(index={**MAIL, 'interval': None, 'crontab': '0 10 * * *', 'expires': expires})
    scheduler.firings = Telling(firings._path)
    scheduler.tick()
    clock.now += 3 * 86_400
    for _ in range(2):
        scheduler.tick()
    clock.now += 79_200
    scheduler.tick()
    assert told == [remembered, ('fired', 0)]


@pytest.mark.parametrize('last, now, since', [
    (None, NOON, None), (NOON - 600, NOON, None), (NOON - 600, NOON + 59, None), (NOON - 600, NOON + 61, NOON),
    (NOON - 3600, NOON, NOON - 3000), (NOON, NOON + 61, None), (NOON + 1200, NOON, None)])
def test_an_entry_is_overdue_a_minute_after_nobody_has_fired_it(last, now, since):
    assert overdue(Every(600), last, now) == since


def test_an_entry_with_another_time_begins_anew(beat, clock, fired):
    beat(mail=MAIL).tick()
    clock.now += 3600
    beat(mail={**MAIL, 'interval': '10m'}).tick()
    assert fired() == []


def test_a_clock_that_was_ahead_does_not_silence_an_entry(beat, clock, fired):
    scheduler = beat(mail=MAIL)
    clock.now += 10 * 86_400
    scheduler.tick()
    clock.now = NOON
    scheduler.tick()
    clock.now += 60
    scheduler.tick()
    assert len(fired()) == 1


def test_a_failing_entry_does_not_stop_the_others(beat, clock, fired, firings, caplog):
    class Failing(FileFirings):
        def last(self, entry):
            if entry.startswith('bad'):
                raise sqlite3.OperationalError('disk I/O error')
            return super().last(entry)

    scheduler = beat(bad=MAIL, good=MAIL)
    scheduler.firings = Failing(firings._path)
    for _ in range(3):
        scheduler.tick()
        clock.now += 60
    assert len(fired()) == 2
    told = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.getMessage() for record in told] == [
        'a job cannot be fired, beat will keep trying: entry=bad error="OperationalError: disk I/O error"']
    scheduler.firings = firings
    scheduler.tick()
    assert 'firing a job again: entry=bad' in caplog.text


def test_a_file_that_cannot_be_used_any_more_is_named(beat, clock, firings, caplog):
    scheduler = beat(mail=MAIL)
    scheduler.live()
    firings._path.unlink()
    firings._path.mkdir()
    assert scheduler.tick() == 5
    assert f'SCHEDULE_STATE {firings._path} cannot be used: unable to open database file' in caplog.text
    with pytest.raises(StateUnusable):
        scheduler.live()


def test_what_could_not_be_published_is_fired_when_the_broker_is_there(beat, clock, fired, firings, caplog):
    scheduler = beat(mail=MAIL)
    scheduler.tick()
    clock.now += 60
    with Celery('cut off', broker='amqp://127.0.0.1:9//', set_as_current=False) as other:
        cut_off = Scheduler(other, firings=firings, clock=clock)
        assert cut_off.tick() == 5
    assert 'a job cannot be fired, beat will keep trying: entry=mail' in caplog.text
    scheduler.tick()
    assert len(fired()) == 1


def test_the_last_tick_is_kept(beat, clock, firings):
    assert firings.ticked() is None
    scheduler = beat(mail=MAIL)
    scheduler.tick()
    assert firings.ticked() == NOON
    clock.now += 30
    beat(mail=MAIL).tick()
    assert firings.ticked() == NOON + 30


def test_beat_sleeps_until_something_is_due_but_not_for_long(beat, clock):
    clock.now = NOON + 50
    assert 10 <= beat(mail=MAIL).tick() < 10.1
    assert 30 <= beat(index={**MAIL, 'interval': None, 'crontab': '0 10 * * *'}).tick() < 30.1
    assert 30 <= beat().tick() < 30.1
