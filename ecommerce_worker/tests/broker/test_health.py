"""Whether processes live and are ready, as those see it who look after them: files, HTTP, systemd."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ecommerce_worker.testing.intake import SECRET
from ecommerce_worker.testing.rabbitmq import free_port
from ecommerce_worker.tests.support.harness import Program, eventually
from ecommerce_worker.tests.support.health import Listening, is_so, page, probe

#: A worker that does nothing in its loop any more once it gets SIGWINCH; its other threads go on.
STUCK = """
import signal, time

signal.signal(signal.SIGWINCH, lambda *_: time.sleep(3600))
"""


@pytest.fixture
def directory(tmp_path):
    """Where processes write how they are; it is made by the first."""
    return tmp_path / 'health'


@pytest.fixture
def start(start_worker, directory):
    """Start a worker that is watched closely; the port where it can be asked is its attribute."""
    def start(*options, ready=True, **settings):
        port = free_port()
        worker = start_worker(*options, **{'HEALTH_DIR': directory, 'HEALTH_SECONDS': 4,
                                           'METRICS_ADDRESS': f'127.0.0.1:{port}', **settings})
        worker.port = port
        if ready:
            eventually(lambda: is_so(directory, 'ready'))
        return worker

    return start


@pytest.fixture
def run(environment, tmp_path):
    """Start a command of ours."""
    started: list[Program] = []

    def start(*words, **settings):
        changed = {f'ECOMMERCE_WORKER_{name}': str(value) for name, value in settings.items()}
        started.append(Program(tmp_path / f'{words[0]}-{len(started)}.log', {**environment, **changed}, '-m',
                               'ecommerce_worker', *words))
        return started[-1]

    yield start
    for program in started:
        program.kill()


def written(directory, role):
    """What the only process of a role has written."""
    path, = directory.glob(f'{role}-*.json')
    return json.loads(path.read_text())


@pytest.mark.parametrize('pool', ['threads', 'prefork', 'solo'])
def test_a_worker_is_alive_ready_and_started_once_it_consumes_and_gone_when_it_has_ended(start, directory, pool):
    worker = start('--pool', pool, '--concurrency', '2')
    assert [is_so(directory, asked, '--role', 'worker') for asked in ('live', 'ready', 'started')] == [True] * 3
    assert [page(worker.port, path) for path in ('/livez', '/readyz')] == [(200, 'live\n'), (200, 'ready\n')]
    vitals = written(directory, 'worker')
    assert (vitals['role'], vitals['pid'], vitals['reason']) == ('worker', worker.process.pid, '')
    assert ' threads, 0 in hand' in vitals['detail']
    assert worker.stop() == 0
    gone = probe(directory, '--live')
    assert (gone.returncode, gone.stderr) == (1, f'no running process writes to {directory}\n')


def test_a_worker_that_is_stopped_by_a_signal_is_not_alive_until_it_goes_on(start, directory):
    worker = start()
    worker.process.send_signal(signal.SIGSTOP)
    said = eventually(lambda: probe(directory).stderr)
    assert said.startswith(f'worker {worker.process.pid} has not responded for ')
    worker.process.send_signal(signal.SIGCONT)
    eventually(lambda: is_so(directory, 'live'))


def test_a_worker_whose_loop_hangs_says_so_by_a_thread_that_lives(start, directory, environment, tmp_path):
    (tmp_path / 'stuck.py').write_text(STUCK)
    environment['PYTHONPATH'] = f'{tmp_path}:{Path(__file__).parents[3]}'
    worker = start(CELERY_IMPORTS='ecommerce_worker.fulfillment.v1.tasks,stuck')
    worker.process.send_signal(signal.SIGWINCH)
    eventually(lambda: page(worker.port, '/livez')[0] == 503)
    assert 'has not responded for' in page(worker.port, '/readyz')[1]
    assert 'has not responded for' in probe(directory).stderr
    assert worker.process.poll() is None


def test_while_rabbitmq_is_away_a_worker_is_alive_and_not_ready(start, directory, link):
    worker = start(BROKER_URL=link.url)
    link.proxy.refuse()
    eventually(lambda: not is_so(directory, 'ready'))
    # The third try comes six seconds after the first, which is longer than its loop may stand still else.
    while worker.log.count('Trying again in') < 3:
        assert is_so(directory, 'live')
        assert is_so(directory, 'started')
    assert page(worker.port, '/livez')[0] == 200
    assert 'consumes nothing' in page(worker.port, '/readyz')[1]
    link.proxy.accept()
    eventually(lambda: is_so(directory, 'ready'))
    assert page(worker.port, '/readyz')[0] == 200
    # The loop of the new connection has a pulse too.
    worker.process.send_signal(signal.SIGSTOP)
    eventually(lambda: not is_so(directory, 'live'))


def test_of_several_workers_each_is_looked_at_and_a_killed_one_is_not_there(start, directory):
    first, second = start(ready=False), start(ready=False)
    eventually(lambda: probe(directory, '--ready').stdout.count('worker') == 2)
    second.process.send_signal(signal.SIGSTOP)
    eventually(lambda: probe(directory).stderr.startswith(f'worker {second.process.pid} has not responded'))
    second.kill()
    assert probe(directory, '--ready').stdout.startswith(f'ready: worker {first.process.pid} (')
    # Who comes next clears up behind it.
    start(ready=False)
    eventually(lambda: probe(directory, '--ready').stdout.count('worker') == 2)
    assert len(list(directory.iterdir())) == 2


@pytest.mark.parametrize('settings, line', [
    ({'HEALTH_DIR': '/dev/null/health'}, 'HEALTH_DIR cannot be written'),
    ({'METRICS_ADDRESS': '192.0.2.1:9464'}, 'cannot listen at METRICS_ADDRESS'),
])
def test_what_cannot_be_written_or_listened_at_costs_one_line_and_no_worker(start, settings, line):
    worker = start(ready=False, **settings).ready()
    assert worker.stop() == 0
    assert worker.log.count(line) == 1


def test_of_two_workers_at_one_port_the_second_goes_on_without_and_in_a_range_each_has_its_own(start):
    port = free_port()
    first = start(METRICS_ADDRESS=f'127.0.0.1:{port}').ready()
    second = start(METRICS_ADDRESS=f'127.0.0.1:{port}', ready=False).ready(2)
    assert second.log.count('cannot listen at METRICS_ADDRESS') == 1
    third = start(METRICS_ADDRESS=f'127.0.0.1:{port}-{port + 20}', ready=False).ready(3)
    found = eventually(lambda: [line for line in third.log.splitlines() if 'health and metrics are served' in line])
    assert int(found[0].rpartition('port=')[2]) in range(port + 1, port + 21)
    assert first.stop() == second.stop() == 0


@pytest.mark.parametrize('address', ['path', 'abstract'])
def test_systemd_hears_when_a_worker_is_ready_how_it_is_and_that_it_ends(start, environment, tmp_path, address):
    systemd = Listening(str(tmp_path / 'notify') if address == 'path' else f'@{tmp_path.name}-{os.getpid()}')
    try:
        # In a container the process has a number that the test cannot know.
        environment.update(NOTIFY_SOCKET=systemd.address, WATCHDOG_USEC='3000000')
        worker = start('--pool', 'prefork', '--concurrency', '2', ready=False, SHUTDOWN_SECONDS=7)
        assert systemd.until('READY') == '1'
        assert systemd.until('STATUS').endswith(' 0 in hand')
        assert systemd.until('WATCHDOG') == '1'
        worker.process.send_signal(signal.SIGTERM)
        assert systemd.until('STOPPING') == '1'
        assert int(systemd.said[-1]['EXTEND_TIMEOUT_USEC']) > 7_000_000
        assert worker.process.wait(30) == 0
    finally:
        systemd.close()


def test_systemd_waits_as_long_as_a_recorder_does_for_its_database(run, environment, tmp_path, broker):
    systemd = Listening(str(tmp_path / 'notify'))
    try:
        environment.update(NOTIFY_SOCKET=systemd.address, WATCHDOG_USEC='3000000')
        run('migrate').process.wait(60)
        run('recorder')
        # As long as anybody may be waited for, and as before once that is over.
        assert int(systemd.until('WATCHDOG_USEC')) == 300_000_000
        while int(systemd.until('WATCHDOG_USEC')) != 3_000_000:
            pass
    finally:
        systemd.close()


@pytest.mark.parametrize('role', ['recorder', 'beat', 'intake', 'console'])
def test_every_role_has_a_pulse_and_is_ready_once_it_works(run, directory, broker, role):
    port = free_port()
    settings = {'HEALTH_DIR': directory, 'HEALTH_SECONDS': 4, 'METRICS_ADDRESS': f'127.0.0.1:{port}',
                'INTAKES': json.dumps({'shop': {'kind': 'submit', 'secrets': [SECRET]}}),
                'INTAKE_ADDRESS': f'127.0.0.1:{free_port()}', 'CONSOLE_ADDRESS': f'127.0.0.1:{free_port()}'}
    assert run('migrate').process.wait(60) == 0
    program = run(role, **settings)
    eventually(lambda: is_so(directory, 'ready', '--role', role))
    eventually(lambda: page(port, '/livez')[0] == page(port, '/readyz')[0] == 200)
    program.process.send_signal(signal.SIGSTOP)
    eventually(lambda: not is_so(directory, 'live'))
    program.process.send_signal(signal.SIGCONT)
    eventually(lambda: is_so(directory, 'live'))
    assert program.stop() == 0
    assert not is_so(directory, 'live')


@pytest.mark.parametrize('role', ['recorder', 'beat', 'intake'])
def test_an_outage_of_rabbitmq_ends_no_life_of_any_role(run, directory, link, role):
    settings = {'HEALTH_DIR': directory, 'HEALTH_SECONDS': 4, 'BROKER_URL': link.url,
                'SCHEDULE': json.dumps({'often': {'task': 'ecommerce_worker.resubmit.tasks.resubmit_orders',
                                                  'interval': '1s'}}),
                'INTAKES': json.dumps({'shop': {'kind': 'submit', 'secrets': [SECRET]}}),
                'INTAKE_ADDRESS': f'127.0.0.1:{free_port()}'}
    assert run('migrate').process.wait(60) == 0
    run(role, **settings)
    eventually(lambda: is_so(directory, 'ready', '--role', role))
    with link.interrupted():
        eventually(lambda: not is_so(directory, 'ready'))
        assert is_so(directory, 'live')
    eventually(lambda: is_so(directory, 'ready'))


def test_the_probe_imports_neither_celery_nor_django_nor_click():
    program = ('import runpy, sys\nsys.argv = ["health", "--dir", "/nowhere"]\n'
               'try:\n    runpy.run_module("ecommerce_worker.health", run_name="__main__")\n'
               'except SystemExit as end:\n    print(end.code, sorted(sys.modules))')
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, check=True)
    assert done.stdout.startswith('1 [')
    imported = json.loads(done.stdout[2:].replace("'", '"'))
    assert 'ecommerce_worker.process.vitals' in imported
    assert not {'celery', 'django', 'click', 'kombu', 'yaml', 'typing_extensions', 'logging'} & set(imported)


def test_of_all_under_one_parent_each_has_a_pulse_and_only_the_parent_speaks_to_systemd(run, environment, directory,
                                                                                        tmp_path, broker):
    systemd = Listening(str(tmp_path / 'notify'))
    try:
        environment['NOTIFY_SOCKET'] = systemd.address
        assert run('migrate').process.wait(60) == 0
        up = run('up', HEALTH_DIR=directory, CONSOLE_ADDRESS=f'127.0.0.1:{free_port()}')
        roles = ('beat', 'console', 'recorder', 'up', 'worker')
        eventually(lambda: [each.partition(' ')[0] for each in probe(directory, '--ready').stdout.partition(': ')[
            2].split('; ')] == list(roles))
        assert systemd.until('READY') == '1'
        for role in roles[:3]:
            variables = Path('/proc', str(written(directory, role)['pid']), 'environ').read_bytes()
            assert b'ECOMMERCE_WORKER_HEALTH_DIR=' in variables
            assert b'NOTIFY_SOCKET=' not in variables
        up.process.send_signal(signal.SIGTERM)
        assert systemd.until('STOPPING') == '1'
        assert up.process.wait(60) == 0
    finally:
        systemd.close()
