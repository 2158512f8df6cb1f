"""The command lines by which deployments of the years before start a worker: each starts this one, or says why not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ecommerce_worker.tests.support.harness import Broker, eventually

CELERY = str(Path(sys.executable).with_name('celery'))
APP = 'ecommerce_worker.celery_app:app'
TODAY = 'ecommerce.fulfillment,ecommerce.email_marketing,ecommerce.default'
OLD = 'fulfillment,email_marketing'

#: Makefile of the original; Tutor 18 and 19; the Ansible role of Quince and master, and of Juniper; our own.
LINES = {
    'the Makefile': ['-A', 'ecommerce_worker', 'worker', f'--app={APP}', '--loglevel=info', f'--queue={OLD}'],
    'Tutor': ['--app=ecommerce_worker.celery_app:app', 'worker', '--loglevel=info', '--hostname=worker.%h',
              '--max-tasks-per-child=100', f'--queues={OLD}'],
    'Ansible': ['-A', APP, 'worker', '--concurrency=4', '--loglevel=info', '--hostname=ecomworker.%h',
                f'--queue={TODAY}'],
    'Ansible, older': ['-A', 'ecommerce_worker', 'worker', '--concurrency=4', '--loglevel=info', '--queue', TODAY],
}


@pytest.fixture
def started(environment: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., tuple[Any, Path]]]:
    """Starts a program; gives its process and the file of its output."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(*words: str) -> tuple[subprocess.Popen[bytes], Path]:
        log = tmp_path / f'output-{len(processes)}.log'
        with log.open('wb') as output:
            processes.append(subprocess.Popen(words, stdout=output, stderr=output, env=environment, cwd=tmp_path,
                                              start_new_session=True))
        return processes[-1], log

    yield start
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize('line', LINES)
def test_a_line_of_an_older_deployment_starts_the_worker(broker: Broker, started, line):
    process, log = started(CELERY, *LINES[line])
    queue = 'fulfillment' if OLD in LINES[line][-1] else 'ecommerce.fulfillment'
    eventually(lambda: broker.consumers(queue) or process.poll() is not None)
    assert process.poll() is None, log.read_text()
    said = f'does not consume {TODAY.replace(",", ", ")}, to which shops publish'
    assert (said in log.read_text()) is (queue == 'fulfillment')


def test_a_queue_to_which_nobody_publishes_is_named_at_start(broker: Broker, started):
    _, log = started(sys.executable, '-m', 'ecommerce_worker', 'worker', '--queue=ecommerce.fulfillmnt,mine')
    eventually(lambda: broker.consumers('mine'))
    assert ('consumes ecommerce.fulfillmnt, to which no shop publishes by default; did you mean '
            'ecommerce.fulfillment?') in log.read_text()
    assert 'consumes mine, to which no shop publishes by default' in log.read_text()


@pytest.mark.parametrize('words', [
    [sys.executable, '-m', 'ecommerce_worker', 'worker', '--logfile', 'worker.log'],
    [CELERY, '-A', 'ecommerce_worker', 'worker', '-f', 'worker.log'],
], ids=['ours', "Celery's"])
def test_a_log_file_gets_the_log(broker: Broker, started, tmp_path, words):
    _, output = started(*words)
    eventually(lambda: broker.consumers('ecommerce.fulfillment'))
    log = tmp_path / 'worker.log'
    eventually(lambda: log.exists() and ' ready.' in log.read_text())
    assert 'configuration: BROKER_URL=' in log.read_text()
    assert ' ready.' not in output.read_text()


def test_a_worker_in_the_background_logs_to_its_file(broker: Broker, environment, tmp_path):
    pid, log = tmp_path / 'worker.pid', tmp_path / 'worker.log'
    subprocess.run([CELERY, '-A', 'ecommerce_worker', 'worker', '-D', '--logfile', log, '--pidfile', pid], check=True,
                   env=environment, cwd=tmp_path, timeout=60)
    try:
        eventually(lambda: broker.consumers('ecommerce.fulfillment'))
        eventually(lambda: log.exists() and ' ready.' in log.read_text())
    finally:
        number = int(pid.read_text())
        os.kill(number, signal.SIGTERM)
        eventually(lambda: not Path(f'/proc/{number}').exists())


@pytest.mark.parametrize('option', ['-D', '--detach'])
def test_our_own_command_does_not_go_into_the_background_and_says_so(command, option):
    ended = command('worker', option)
    assert (ended.returncode, ended.stdout) == (2, '')
    assert ended.stderr.startswith('ecommerce-worker: -D is not supported: use systemd')


def test_who_would_see_nothing_of_a_log_is_told(broker: Broker, environment, tmp_path):
    pid = tmp_path / 'worker.pid'
    ran = subprocess.run([CELERY, '-A', 'ecommerce_worker', 'worker', '--detach', '--pidfile', pid], check=True,
                         env=environment, cwd=tmp_path, timeout=60, capture_output=True, text=True)
    assert '-D without --logfile FILE' in ran.stderr
    eventually(lambda: pid.exists() and pid.read_text().strip())
    number = int(pid.read_text())
    os.kill(number, signal.SIGTERM)
    eventually(lambda: not Path(f'/proc/{number}').exists())
