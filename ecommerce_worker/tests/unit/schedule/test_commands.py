"""Management commands: how they are asked for, what they see, that they end, what is told of them."""

import logging
import os
import threading
import time

import pytest

from ecommerce_worker import settings
from ecommerce_worker.broker.notes import Notes
from ecommerce_worker.broker.wire import Call, Raw
from ecommerce_worker.errors import Misconfigured, Skip, WrongArguments
from ecommerce_worker.execution.delivery import Delivery
from ecommerce_worker.execution.outcomes import Done, Parked, Skipped
from ecommerce_worker.locks import broker as turns
from ecommerce_worker.locks.broker import turn
from ecommerce_worker.schedule import commands
from ecommerce_worker.schedule.commands import arguments
from ecommerce_worker.schedule.v1.tasks import run_management_command
from ecommerce_worker.tests.support.django_project import Project, gone

ALLOWED = ('job', 'rebuild_index')


@pytest.fixture
def project(tmp_path):
    return Project.at(tmp_path)


@pytest.fixture
def ran(app, in_force, project):
    """Run the task as the consumer does: ``ran('job', seconds=3)``; gives the outcome."""
    def perform(*args, timeout=30, **kwargs):
        in_force(**project.settings, MANAGEMENT_COMMAND_TIMEOUT=timeout)
        call = Call(run_management_command.name, 'id-1', args, kwargs)
        return run_management_command.perform(Delivery(call, Raw(b'', 'application/json', 'utf-8', {}, {}),
                                                       Notes(queue='ecommerce.default')))

    return perform


# --- How they are asked for


@pytest.mark.parametrize('args, options, words', [
    ((), {}, ['job']),
    (('customers', 7), {'delete-expired': True}, ['job', 'customers', '7', '--delete-expired']),
    ((), {'batch_size': 100, 'noinput': False, 'using': None}, ['job', '--batch_size=100']),
    (('a b; rm -rf /', '$(id)'), {'say': '--settings=x y'}, ['job', 'a b; rm -rf /', '$(id)', '--say=--settings=x y']),
])
def test_arguments_are_words_and_options_have_names(args, options, words):
    assert arguments('job', args, options, ALLOWED) == words


@pytest.mark.parametrize('name', ['shell', 'flush', '', None, 7, ['job'], 'job --settings=x'])
def test_a_command_that_is_not_allowed_is_refused(name):
    with pytest.raises(WrongArguments, match='is not among MANAGEMENT_COMMANDS'):
        arguments(name, (), {}, ALLOWED)


@pytest.mark.parametrize('args, options', [
    (('--settings=other',), {}), (('-v3',), {}), (('-',), {}), (('a\0b',), {}), ((None,), {}), ((['a'],), {}),
    ((), {'settings': 'other'}), ((), {'pythonpath': '/tmp'}), ((), {'pythonp': '/tmp'}), ((), {'Set': 'x'}),
    ((), {'a=b --settings': 'x'}), ((), {'': 'x'}), ((), {'-say': 'x'}), ((), {'say': ['x']}), ((), {'say': 'a\0b'}),
])
def test_what_could_be_taken_for_something_else_is_refused(args, options):
    with pytest.raises(WrongArguments):
        arguments('job', args, options, ALLOWED)


# --- Running them


def test_a_command_runs_in_its_project(ran, project):
    assert ran('job', 'customers', seconds=0) == Done()
    noted = project.notes()[0]
    assert noted['argv'] == ['job', 'customers', '--seconds=0']
    assert noted['cwd'] == str(project.directory)
    assert noted['environ']['DJANGO_SETTINGS_MODULE'] == 'shop_settings'


def test_a_command_sees_nothing_of_the_worker_s_environment(ran, project, environment):
    environment.setenv('ECOMMERCE_WORKER_BROKER_URL', 'amqp://worker:hunter2@rabbit')
    environment.setenv('RABBIT_PASSWORD', 'hunter2')
    environment.setenv('LC_TIME', 'C')
    ran('job')
    seen = project.notes()[0]['environ']
    assert 'hunter2' not in str(seen)
    assert {'PATH', 'LC_TIME', 'NOTES'} <= set(seen)


@pytest.mark.parametrize('given, seen', [
    ({'PATH': '/bin', 'HOME': '/root', 'LC_ALL': 'C', 'TZ': 'UTC'}, {'PATH', 'HOME', 'LC_ALL', 'TZ'}),
    ({'BROKER_PASSWORD': 'x', 'WORKER_CONFIGURATION_MODULE': 'x', 'PYTHONPATH': 'x', 'CELERY_BROKER_URL': 'x'}, set()),
])
def test_other_programs_get_what_cannot_be_a_secret(given, seen):
    assert set(settings.environment_for_others(given)) == seen


def test_a_command_that_takes_too_long_is_ended_with_all_that_it_started(ran, project):
    outcome = ran('job', seconds=60, timeout=2, **{'with-child': True}, not_after=time.time() + 60)
    assert isinstance(outcome, Skipped)
    assert 'it took longer than 2 s and was killed' in outcome.reason
    noted = project.notes()[0]
    assert gone(noted['pid'])
    assert gone(noted['child'])


def test_a_command_that_will_not_end_is_killed(ran, project, monkeypatch):
    monkeypatch.setattr(commands, 'GRACE_SECONDS', 0.5)
    assert isinstance(ran('job', seconds=60, deaf=True, timeout=2), Parked)
    assert gone(project.notes()[0]['pid'])


def test_a_command_that_leaves_something_behind_is_not_waited_for(ran, project):
    try:
        assert ran('job', **{'with-child': True}) == Done()
    finally:
        os.kill(project.notes()[0]['child'], 9)


def test_a_command_may_say_more_than_a_pipe_holds(ran):
    assert ran('job', say='word ' * 20_000) == Done()


# --- How it ended


def test_a_command_that_fails_is_parked_if_nothing_asks_again(ran, caplog):
    outcome = ran('job', status=3, say='it went wrong')
    assert isinstance(outcome, Parked)
    assert outcome.reason == 'job failed: exit status 3; the end of its output is in the log'
    assert 'command=job' in caplog.text
    assert 'it went wrong' in caplog.text


def test_a_command_that_fails_is_not_parked_if_it_comes_again(ran, caplog):
    outcome = ran('job', status=3, not_after=time.time() + 60)
    assert outcome == Skipped('job failed: exit status 3; it will run again as scheduled')
    assert [record.levelno for record in caplog.records if record.getMessage().startswith('a command failed')] == [
        logging.ERROR]


def test_a_command_that_does_not_exist_fails(ran, in_force, project, app):
    in_force(**{**project.settings, 'MANAGEMENT_COMMANDS': 'nonsense'})
    ended = commands.run(['nonsense'], settings.load({
        f'ECOMMERCE_WORKER_{name}': str(value) for name, value in project.settings.items()}))
    assert ended.status == 1
    assert "Unknown command: 'nonsense'" in ended.tail


def test_a_command_that_is_late_is_left_out(ran, project):
    assert isinstance(ran('job', not_after=time.time() - 1), Skipped)
    assert not project.notes()


@pytest.mark.parametrize('not_after', ['tomorrow', True, [1]])
def test_a_time_that_is_none_is_parked(ran, not_after):
    assert isinstance(ran('job', not_after=not_after), Parked)


@pytest.mark.parametrize('args', [('shell',), ()])
def test_a_command_that_is_not_allowed_is_parked(ran, project, args):
    outcome = ran(*args)
    assert isinstance(outcome, Parked)
    assert 'MANAGEMENT_COMMANDS' in outcome.reason
    assert not project.notes()


@pytest.mark.parametrize('name, value', [
    ('DJANGO_PROJECT_SETTINGS', ''), ('DJANGO_PROJECT_DIRECTORY', '/no/such'), ('DJANGO_PROJECT_PYTHON', '/no/python')])
def test_a_project_that_cannot_be_used_is_named(project, name, value):
    given = {**project.settings, name: value}
    with pytest.raises(Misconfigured, match=name):
        commands.run(['job'], settings.load({f'ECOMMERCE_WORKER_{key}': str(it) for key, it in given.items()}))


# --- What is told


@pytest.mark.parametrize('output, told', [
    ('sent to Jane <jane.doe@example.com>', 'sent to Jane <***>'),
    ('to=jane@example.com,joe@example.com;', '***,***;'),
    ('connecting to postgres://shop:hunter2@db/shop', 'connecting to postgres://shop:***'),
    ('PASSWORD = hunter2 and more', 'PASSWORD = ***'),
    ("{'api_key': 'hunter2'}", "{'api_key': ***"),
    ('Authorization: Bearer hunter2', 'Authorization: ***'),
    ('the value of it is s3cr3t-of-ours', 'the value of it is ***'),
    ('a\n\n  b\n', 'a\n  b'),
])
def test_the_output_is_told_without_addresses_and_secrets(output, told):
    assert commands.masked_tail(output, ['s3cr3t-of-ours']) == told


def test_the_end_of_a_long_output_is_told():
    assert commands.masked_tail('\n'.join(map(str, range(100)))).splitlines() == [str(line) for line in range(85, 100)]


# --- One at a time


def test_one_runs_one_waits_and_others_are_not_needed(app):
    runs, running, end = [], threading.Event(), threading.Event()

    def first():
        with turn(app, 'mail'):
            running.set()
            end.wait(30)
            runs.append('first')

    def second():
        with turn(app, 'mail'):
            runs.append('second')

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    threads[0].start()
    assert running.wait(30)
    threads[1].start()
    while 'ecommerce.job.mail.next' not in turns._taken:
        time.sleep(0.01)
    with pytest.raises(Skip, match='another run is waiting'), turn(app, 'mail'):
        pytest.fail('two at once')
    with turn(app, 'another job'):
        end.set()
    for thread in threads:
        thread.join()
    assert runs == ['first', 'second']


def test_a_run_that_waits_is_left_out_when_it_is_late(app):
    with turn(app, 'mail'), pytest.raises(Skip, match='when this one was due'), turn(app, 'mail', time.time() - 1):
        pytest.fail('two at once')
    with turn(app, 'mail'):
        pass


def test_a_run_that_fails_leaves_its_turn_to_others(app):
    with pytest.raises(ZeroDivisionError), turn(app, 'mail'):
        raise ZeroDivisionError
    with turn(app, 'mail'):
        pass
