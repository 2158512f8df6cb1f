"""An application of somebody's own: nothing is set but its queues, and the ledger knows of all."""

import json
import subprocess
import sys

import pytest

from ecommerce_worker.tests.support.harness import eventually

MODULE = """
import os
from pathlib import Path

from ecommerce_worker.extension import application

celery = application(queues=['exports', 'reports'])
ADDRESS = 'ann@example.com'
DONE = Path(os.environ['DONE'])


@celery.task(key='number')
def export(number):
    DONE.open('a').write(f'{number}\\n')
    return {'what is returned': 'is of no account'}


@celery.task(bind=True, key='number')
def twice(self, number):
    with DONE.open('a') as file:
        file.write(f'{number}\\n')
    if DONE.read_text().count(number) < 2:
        self.retry(exc=KeyError(ADDRESS), countdown=1)


@celery.task(key='number')
def broken(number):
    raise KeyError(ADDRESS)
"""


@pytest.fixture
def exports(environment, tmp_path):
    """Put the module where Python finds it."""
    (tmp_path / 'exports.py').write_text(MODULE)
    environment |= {'PYTHONPATH': str(tmp_path), 'DONE': str(tmp_path / 'done')}
    return environment


@pytest.fixture
def worker(exports, tmp_path):
    """A worker of it, started as Celery starts any; gives its log."""
    log = tmp_path / 'exports.log'
    with log.open('wb') as output:
        process = subprocess.Popen([sys.executable, '-m', 'celery', '-A', 'exports', 'worker'], env=exports,
                                   stdout=output, stderr=output)
    yield log
    process.terminate()
    process.wait(30)


def published(exports, task, number):
    subprocess.run([sys.executable, '-c', f'import exports; exports.{task}.delay({number!r})'], env=exports, check=True)


def test_what_is_published_is_in_the_ledger_run_tried_again_and_parked(exports, worker, command, broker, tmp_path):
    assert command('migrate').returncode == 0
    recorder = subprocess.Popen([sys.executable, '-m', 'ecommerce_worker', 'recorder'], env=exports,
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def outcomes(number):
        said = command('orders', 'show', number, '--json').stdout
        return [it['what'] for order in json.loads(said)['orders'] for it in order['events']] if said else []

    try:
        eventually(lambda: broker.consumers('exports') and broker.consumers('reports'))
        for task in ('export', 'twice', 'broken'):
            published(exports, task, f'A-{task}')
        eventually(lambda: outcomes('A-export') == ['accepted', 'done'])
        eventually(lambda: outcomes('A-twice') == ['accepted', 'retrying', 'done'])
        eventually(lambda: outcomes('A-broken') == ['accepted', 'parked'])
    finally:
        recorder.terminate()
        recorder.wait(30)
    assert sorted((tmp_path / 'done').read_text().split()) == ['A-export', 'A-twice', 'A-twice']
    assert 'ann@example.com' not in worker.read_text()
    assert 'a programming error in the worker: KeyError at exports.py:' in worker.read_text()
