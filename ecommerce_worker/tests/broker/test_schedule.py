"""Scheduled jobs through a real RabbitMQ, a real Redis and a real Django project: beats, workers, wake-ups."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from kombu import Queue

from ecommerce_worker.broker import topology
from ecommerce_worker.errors import Skip
from ecommerce_worker.locks.broker import turn
from ecommerce_worker.schedule.checks import COMMAND
from ecommerce_worker.schedule.entries import Entry
from ecommerce_worker.schedule.file_store import FileFirings
from ecommerce_worker.telemetry.run import RunReport
from ecommerce_worker.testing.rabbitmq import free_port
from ecommerce_worker.tests.support.django_project import Project, gone
from ecommerce_worker.tests.support.harness import Broker, Worker, eventually
from ecommerce_worker.worker.wakeup import Listener

DEFAULT = 'ecommerce.default'


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project.at(tmp_path / 'project')


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / 'schedule.sqlite3'


@pytest.fixture
def given(project: Project, state: Path) -> dict[str, object]:
    """The settings of a worker, and a beat, of that project."""
    return {**project.settings, 'SCHEDULE_STATE': str(state)}


@pytest.fixture
def start_beat(environment: dict[str, str], given: dict[str, object],
               tmp_path: Path) -> Iterator[Callable[..., tuple[subprocess.Popen[bytes], Path]]]:
    """Start a beat; gives the process and its log."""
    started: list[subprocess.Popen[bytes]] = []

    def start(**schedule: object) -> tuple[subprocess.Popen[bytes], Path]:
        log = tmp_path / f'beat-{len(started)}.log'
        settings = {f'ECOMMERCE_WORKER_{name}': str(it) for name, it in {
            **given, 'SCHEDULE': {'resubmit': {'enabled': False}, **schedule}}.items()}
        with log.open('wb') as output:
            started.append(subprocess.Popen(
                [sys.executable, '-m', 'ecommerce_worker', 'beat'], env={**environment, **settings}, stdout=output,
                stderr=output, cwd=tmp_path, start_new_session=True))
        eventually(lambda: 'beat is ready' in log.read_text() or started[-1].poll() is not None)
        assert started[-1].poll() is None, log.read_text()
        return started[-1], log

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()


def ask(broker: Broker, *args: Any, **kwargs: Any) -> None:
    """Publish a management command by name."""
    with Celery('anybody', broker=broker.url, set_as_current=False) as app:
        app.send_task(COMMAND, args, kwargs, queue=DEFAULT, serializer='json')


# --- Commands in workers


@pytest.mark.parametrize('pool', ['threads', 'prefork'])
def test_a_command_runs_once_and_tells_so_in_one_line(broker, start_worker, project, given, pool):
    ask(broker, 'job', 'customers', **{'with-child': False, 'say': 'jane@example.com'})
    worker = start_worker(**given, WORKER_POOL=pool, WORKER_CONCURRENCY=2).ready()
    eventually(lambda: worker.settled('job') == 'done')
    assert [note['argv'] for note in project.notes()] == [['job', 'customers', '--say=jane@example.com']]
    assert 'jane' not in worker.log
    assert not [name for name in project.notes()[0]['environ'] if name.startswith('ECOMMERCE_WORKER')]


def test_a_command_that_is_not_allowed_and_one_that_fails_are_parked(broker, start_worker, given):
    ask(broker, 'shell')
    ask(broker, 'job', status=3, say='it went wrong for jane@example.com')
    ask(broker, 'job', status=4, not_after=time.time() + 60)
    worker = start_worker(**given).ready()
    eventually(lambda: broker.depth('ecommerce.parked') == 2 and worker.settled('job') and 'skipped: ' in worker.log)
    assert "the command 'shell' is not among MANAGEMENT_COMMANDS" in worker.log
    eventually(lambda: 'it went wrong for ***' in worker.log)
    assert 'jane' not in worker.log


def test_a_worker_that_stops_lets_a_command_end(broker, start_worker, project, given):
    ask(broker, 'job', seconds=2)
    worker = start_worker(**given).ready()
    eventually(project.notes)
    assert worker.stop() == 0
    assert len(project.notes('ended')) == 1


@pytest.mark.parametrize('pool', ['threads', 'prefork'])
def test_a_command_ends_with_a_worker_that_is_killed_and_runs_again(broker, start_worker, project, given, pool):
    ask(broker, 'job', seconds=60)
    worker = start_worker(**given, WORKER_POOL=pool, WORKER_CONCURRENCY=1).ready()
    eventually(project.notes)
    worker.kill()
    assert gone(project.notes()[0]['pid'])
    start_worker(**given, MANAGEMENT_COMMAND_TIMEOUT=2).ready()
    eventually(lambda: len(project.notes()) == 2 and broker.depth('ecommerce.parked'))


def test_a_job_does_not_overlap_itself_among_several_workers(broker, start_worker, project, given, tmp_path):
    end = tmp_path / 'end'
    for _ in range(6):
        ask(broker, 'job', until=str(end), not_after=time.time() + 600)
    workers = [start_worker(**given, WORKER_CONCURRENCY=3) for _ in range(2)]
    for worker in workers:
        worker.ready()

    def settled(*outcomes: str) -> int:
        return sum(worker.log.count(f' {outcome}: task={COMMAND}') for worker in workers for outcome in outcomes)

    eventually(lambda: settled('skipped'))
    end.touch()
    eventually(lambda: settled('done', 'skipped') == 6)
    assert project.most_at_once() == 1
    assert len(project.notes()) == settled('done') >= 2


TURN = """
import sys
from celery import Celery
from ecommerce_worker.locks.broker import turn

with turn(Celery('other', broker=sys.argv[1]), 'mail'):
    print('running', flush=True)
    sys.stdin.read()
"""


def test_a_turn_is_kept_against_other_processes_and_ends_with_its_own(broker):
    with Celery('one', broker=broker.url, set_as_current=False) as app:
        other = subprocess.Popen([sys.executable, '-c', TURN, broker.url], stdin=subprocess.PIPE,
                                 stdout=subprocess.PIPE)
        try:
            assert other.stdout
            assert other.stdout.readline() == b'running\n'
            with pytest.raises(Skip), turn(app, 'mail', time.time() - 1):
                pytest.fail('two at once')
            with turn(app, 'another job'):
                pass
        finally:
            other.kill()
            other.communicate()
        with turn(app, 'mail', time.time() + 30) as beat:
            beat()


# --- Beats


def test_two_beats_fire_each_job_once_and_workers_run_it(broker, start_worker, start_beat, project, state, given):
    schedule = {'mail': {'task': COMMAND, 'args': ['send_queued_mail'], 'interval': '2s', 'expires': 60},
                'index': {'task': COMMAND, 'args': ['rebuild_index'], 'kwargs': {'say': 'done'}, 'interval': '3s',
                          'expires': 60}}
    worker = start_worker(**given).ready()
    beats = [start_beat(**schedule) for _ in range(2)]
    eventually(lambda: len(project.notes(command='send_queued_mail')) >= 3
               and len(project.notes(command='rebuild_index')) >= 2)
    for process, _ in beats:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    fired = [line.rpartition(' id=')[2] for _, log in beats for line in log.read_text().splitlines()
             if 'fired: ' in line]
    assert len(fired) == len(set(fired))
    assert all('beat ends' in log.read_text() for _, log in beats)
    eventually(lambda: worker.log.count(f'task={COMMAND} ') >= len(fired))
    assert broker.depth('ecommerce.parked') == 0
    ticked = FileFirings(state).ticked()
    assert ticked is not None
    assert time.time() - ticked < 60


def test_what_a_beat_fires_is_reported_as_accepted(broker, start_beat):
    with broker.connection() as connection:
        topology.declare_facts(connection)
        connection.default_channel.queue_purge(topology.LEDGER)
    start_beat(mail={'task': COMMAND, 'args': ['send_queued_mail'], 'interval': '1s', 'expires': 60})
    eventually(lambda: broker.depth(topology.LEDGER))
    with broker.connection() as connection:
        body = Queue(topology.LEDGER).bind(connection.channel()).get(no_ack=True).body
    report = RunReport.read(body.encode() if isinstance(body, str) else bytes(body))
    assert (report.outcome, report.task, report.key, report.queue) == ('accepted', COMMAND, 'send_queued_mail', DEFAULT)
    assert report.reason == 'by beat, for SCHEDULE[mail]'


def test_a_beat_that_cannot_keep_what_it_fires_says_so_in_one_line(command, tmp_path):
    ended = command('beat', DATABASES={'default': {'NAME': str(tmp_path / 'no-ledger')}},
                    SCHEDULE_STATE='/dev/null/beat/schedule.sqlite3')
    assert ended.returncode == 1
    assert 'ready' not in ended.stdout
    assert ended.stderr == ('ecommerce-worker: SCHEDULE_STATE /dev/null/beat/schedule.sqlite3 cannot be used: Not a '
                            'directory\n')


def test_a_beat_goes_on_when_the_other_one_is_killed(broker, start_worker, start_beat, project, given):
    schedule = {'mail': {'task': COMMAND, 'args': ['send_queued_mail'], 'interval': '1s', 'expires': 60}}
    start_worker(**given).ready()
    (killed, _), (other, _) = start_beat(**schedule), start_beat(**schedule)
    eventually(project.notes)
    killed.kill()
    count = len(project.notes())
    eventually(lambda: len(project.notes()) >= count + 2)
    assert other.poll() is None


def test_a_beat_goes_on_when_rabbitmq_comes_back(link, start_beat, given):
    given['BROKER_URL'] = link.url
    _, log = start_beat(mail={'task': COMMAND, 'args': ['send_queued_mail'], 'interval': '1s'})
    eventually(lambda: 'fired: ' in log.read_text())
    with link.interrupted():
        eventually(lambda: 'cannot be fired' in log.read_text())
    count = log.read_text().count('fired: ')
    eventually(lambda: log.read_text().count('fired: ') > count + 1, seconds=60)


def test_orders_that_never_reached_rabbitmq_are_resubmitted_by_the_clock(broker, shop, start_worker, start_beat, given):
    shop.add_order('EDX-1', age=3600)
    worker = start_worker(**given).ready()
    process, log = start_beat(resubmit={'interval': '2s', 'expires': 60})
    eventually(lambda: 'resubmitted orders that were lost on their way to RabbitMQ: count=1' in worker.log)
    eventually(lambda: worker.log.count('done: task=ecommerce_worker.resubmit.tasks.resubmit_orders') >= 2)
    assert 'fired: entry=resubmit' in log.read_text()
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    # Once, however often it is looked for: now it waits here, as the firings did for a moment.
    eventually(lambda: broker.waiting() == 1)
    assert worker.log.count('resubmitted orders that were lost') == 1


def test_two_beats_that_share_a_ledger_and_no_file_fire_each_job_once(broker, start_beat, command, given, state,
                                                                      tmp_path):
    given['DATABASES'] = {'default': {'NAME': str(tmp_path / 'ledger.sqlite3')}}
    assert command('migrate', DATABASES=given['DATABASES']).returncode == 0
    mail = {'task': COMMAND, 'args': ['send_queued_mail'], 'interval': '1s', 'expires': 60}
    beats = [start_beat(mail=mail) for _ in range(2)]
    eventually(lambda: sum(log.read_text().count('fired: ') for _, log in beats) >= 5)
    for process, _ in beats:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    fired = [line.rpartition(' id=')[2] for _, log in beats for line in log.read_text().splitlines()
             if 'fired: ' in line]
    assert len(fired) == len(set(fired))
    assert not state.exists()


def test_status_asks_for_a_beat_only_where_somebody_wants_one(command, given, tmp_path):
    given['DATABASES'] = {'default': {'NAME': str(tmp_path / 'no-ledger')}}
    assert 'beat' not in command('status', **given).stdout
    given['SCHEDULE'] = {'resubmit': {'interval': '1h'}}
    assert 'trouble: No beat is running: none has ever run.' in command('status', **given).stdout
    given['SCHEDULE'] = {'resubmit': {'enabled': False}}
    assert 'beat' not in command('status', **given).stdout
    FileFirings(given['SCHEDULE_STATE']).tick('one that is gone', time.time() - 600)
    given['SCHEDULE'] = {}
    assert 'No beat is running: the last sign of life was 10 minutes ago' in command('status', **given).stdout


def test_status_names_what_is_overdue(command, given, tmp_path):
    given['DATABASES'] = {'default': {'NAME': str(tmp_path / 'no-ledger')}}
    firings = FileFirings(given['SCHEDULE_STATE'])
    firings.tick('one', time.time())
    assert 'overdue' not in command('status', **given).stdout
    firings.begin('resubmit (600 s)', time.time() // 600 * 600 - 1200)
    done = command('status', **given)
    assert 'beat      alive' in done.stdout
    assert re.search(r'trouble: SCHEDULE\[resubmit\] has been overdue since 20\S+ \S+ UTC: no beat has fired it\.',
                     done.stdout)
    assert done.returncode == 1
    given['SCHEDULE'] = {'mail': {'task': 'x.y', 'interval': 60}}
    assert ('trouble: Beat cannot start with these settings: environment ECOMMERCE_WORKER_SCHEDULE: SCHEDULE[mail] '
            'names the task x.y') in command('status', **given).stdout


def test_a_beat_with_a_wrong_schedule_does_not_start(environment, given):
    settings = {f'ECOMMERCE_WORKER_{name}': str(it) for name, it in {
        **given, 'SCHEDULE': {'mail': {'task': COMMAND, 'args': ['flush'], 'crontab': '0 25 * * *'}}}.items()}
    done = subprocess.run([sys.executable, '-m', 'ecommerce_worker', 'beat'], env={**environment, **settings},
                          capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert 'SCHEDULE[mail] has a crontab' in done.stderr
    assert "SCHEDULE[mail] cannot be run: the command 'flush'" in done.stderr


# --- Wake-ups


class PrivateRedis:
    """A redis-server of the tests' own, on a port that stays the same."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f'redis://127.0.0.1:{self.port}/0'

    def start(self) -> None:
        self._process = subprocess.Popen(
            ['redis-server', '--port', str(self.port), '--bind', '127.0.0.1', '--dir', str(self._directory),
             '--save', ''], stdout=subprocess.DEVNULL)
        eventually(lambda: self.said('PING').startswith(b'+PONG'))

    def stop(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def said(self, *words: str) -> bytes:
        """What it answers to a command; nothing if it is not there."""
        try:
            with socket.create_connection(('127.0.0.1', self.port), timeout=1) as connection:
                connection.sendall(f'*{len(words)}\r\n'.encode()
                                   + b''.join(f'${len(word)}\r\n{word}\r\n'.encode() for word in words))
                return connection.recv(4096)
        except OSError:
            return b''

    def publish(self, message: str = 'send_queued_mail', channel: str = 'django-SHOP') -> int:
        """How many were listening."""
        return int(self.said('PUBLISH', channel, message)[1:] or 0)

    def listeners(self, channel: str = 'django-SHOP') -> int:
        return int(self.said('PUBSUB', 'NUMSUB', channel).split(b':')[-1] or 0)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[PrivateRedis]:
    if shutil.which('redis-server') is None:
        why = 'there is no redis-server program: install Redis to run these tests'
        if os.environ.get('CI') or os.environ.get('REQUIRE_BROKER'):
            pytest.fail(why)
        pytest.skip(why)
    server = PrivateRedis(tmp_path)
    server.start()
    yield server
    server.stop()


MAIL = Entry('mail', COMMAND)


@pytest.fixture
def listen(redis: PrivateRedis) -> Iterator[Callable[..., tuple[Listener, list[str]]]]:
    """Start a listener; gives it, and the names of what it has fired."""
    started: list[Listener] = []

    def start() -> tuple[Listener, list[str]]:
        fired: list[str] = []
        started.append(Listener(redis.url, {'django-SHOP': [('send_queued_mail', MAIL)]},
                                lambda entry: fired.append(entry.name)))
        before = redis.listeners()
        started[-1].start()
        eventually(lambda: redis.listeners() == before + 1)
        return started[-1], fired

    yield start
    for listener in started:
        listener.stop()


def test_a_message_wakes_and_others_do_not(redis, listen):
    _, fired = listen()
    eventually(lambda: redis.said('KEYS', 'ecommerce-worker:wake-up:*')[:2] == b'*1')
    redis.publish('something else')
    redis.publish(channel='another')
    redis.publish()
    eventually(lambda: fired)
    assert fired == ['mail']


def test_many_messages_wake_twice(redis, listen):
    _, fired = listen()
    eventually(lambda: redis.said('KEYS', 'ecommerce-worker:wake-up:*')[:2] == b'*1')
    for _ in range(100):
        assert redis.publish() == 1
    eventually(lambda: len(fired) == 2)


def test_one_of_several_workers_acts_and_another_takes_over(redis, listen):
    first, fired_first = listen()
    eventually(lambda: first._leads)
    _, fired_second = listen()
    redis.publish()
    eventually(lambda: fired_first)
    first.stop()

    def woken() -> bool:
        redis.publish()
        return bool(fired_second)

    eventually(woken)
    assert redis.listeners() == 1


def test_redis_may_go_and_come_back(redis, listen, caplog):
    caplog.set_level('INFO', 'ecommerce_worker')
    _, fired = listen()
    redis.stop()
    eventually(lambda: 'Redis is unreachable' in caplog.text)
    redis.start()
    eventually(lambda: redis.listeners() == 1)

    def woken() -> bool:
        redis.publish()
        return bool(fired)

    eventually(woken)
    assert caplog.text.count('Redis is unreachable') == 1
    assert caplog.text.count('woken up through Redis again') == 1


def test_a_listener_that_finds_no_redis_can_be_stopped(caplog):
    listener = Listener(f'redis://127.0.0.1:{free_port()}/0', {'c': [('', MAIL)]}, lambda entry: None)
    listener.start()
    eventually(lambda: 'Redis is unreachable' in caplog.text)
    listener.stop()
    assert not [thread for thread in threading.enumerate() if thread.name == 'wake-up']


#: What `celery_app` has in it.
STEP = """
from celery import current_app
from ecommerce_worker.worker.wakeup import WakeUp

current_app.steps['worker'].add(WakeUp)
"""


@pytest.fixture
def woken_worker(redis: PrivateRedis, start_worker: Callable[..., Worker], environment: dict[str, str],
                 given: Mapping[str, object], tmp_path: Path) -> Callable[[], Worker]:
    """Start a worker that is woken up."""
    (tmp_path / 'waking.py').write_text(STEP)
    environment['PYTHONPATH'] = str(tmp_path)
    schedule = {'mail': {'task': COMMAND, 'args': ['send_queued_mail'], 'kwargs': {'seconds': 5}, 'interval': '1m'}}

    def start() -> Worker:
        before = redis.listeners()
        worker = start_worker(
            **given, CELERY_IMPORTS=f'{COMMAND.rpartition(".")[0]},waking', SCHEDULE=schedule, WAKE_UP_URL=redis.url,
            WAKE_UP={'mail': {'channel': 'django-SHOP', 'message': 'send_queued_mail'}}).ready()
        eventually(lambda: redis.listeners() > before)
        return worker

    return start


def test_a_shop_wakes_a_worker_and_many_messages_are_one_running_and_one_more(redis, woken_worker, project):
    worker = woken_worker()
    eventually(lambda: redis.said('KEYS', 'ecommerce-worker:wake-up:*')[:2] == b'*1')
    redis.publish()
    eventually(project.notes)
    for _ in range(200):
        redis.publish()
    eventually(lambda: len(project.notes('ended')) == 2)
    assert project.most_at_once() == 1
    assert worker.stop() == 0
    assert redis.listeners() == 0
    assert len(project.notes()) == 2
    assert gone(project.notes()[0]['pid'])


def test_a_worker_works_while_redis_is_away(redis, woken_worker, broker, project):
    worker = woken_worker()
    redis.stop()
    ask(broker, 'job')
    eventually(lambda: project.notes(command='job'))
    eventually(lambda: 'Redis is unreachable' in worker.log)
    assert worker.stop() == 0
