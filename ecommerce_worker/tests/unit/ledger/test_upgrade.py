"""A ledger that an earlier version wrote, with its console, is brought up to date and goes on.

The file is a dump of what the version of 2026-11-21 made of five facts, two parked messages, and one decision.
"""

import json
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from ecommerce_worker.telemetry.run import RunReport
from ecommerce_worker.tests.support.ledger import Ledger, environment_of

EARLIER = Path(__file__).with_name('ledger-of-2026-11-21.sql')
FULFILL = 'ecommerce_worker.fulfillment.v1.tasks.fulfill_order'


@pytest.fixture
def file(tmp_path):
    """That ledger."""
    path = tmp_path / 'ledger.sqlite3'
    with closing(sqlite3.connect(path)) as database:
        database.executescript(EARLIER.read_text())
    return path


def command(file, environment, *words):
    for name, value in {**environment_of({'NAME': str(file)}), 'ECOMMERCE_WORKER_BROKER_URL': 'memory://',
                        'ECOMMERCE_WORKER_ALLOW_UNSAFE_BROKER': 'true'}.items():
        environment.setenv(name, value)
    return subprocess.run([sys.executable, '-m', 'ecommerce_worker', *words], capture_output=True, text=True,
                          check=False)


def test_a_ledger_of_an_earlier_version_names_the_command_that_brings_it_up_to_date(file, environment):
    refused = command(file, environment, 'orders', 'list')
    assert refused.returncode == 1
    assert 'the ledger has an older version (without ledger.0003_' in refused.stderr
    assert 'run `ecommerce-worker migrate`' in refused.stderr


def test_a_ledger_of_an_earlier_version_is_brought_up_to_date_and_nothing_is_lost(file, environment):
    done = command(file, environment, 'migrate')
    assert (done.returncode, done.stdout) == (0, 'the ledger is up to date\n'), done.stderr
    listed = json.loads(command(file, environment, 'orders', 'list', '--json').stdout)['orders']
    assert {it['order']: (it['state'], it['tries']) for it in listed} == {
        'EDX-1': ('fulfilled', 1), 'EDX-2': ('waiting', 1), 'EDX-3': ('parked', 2), 'EDX-4': ('discarded', 1)}
    overdue = json.loads(command(file, environment, 'orders', 'list', '--overdue', '--json').stdout)['orders']
    assert [it['order'] for it in overdue] == ['EDX-2']
    [story] = json.loads(command(file, environment, 'orders', 'show', 'EDX-4', '--json').stdout)['orders']
    assert [(event['what'], event.get('by')) for event in story['events']] == [('parked', None), ('discarded', 'ada')]
    shown = command(file, environment, 'orders', 'show', 'EDX-1').stdout
    assert ('state    fulfilled' in shown, ' 1    fulfilled  0.50' in shown) == (True, True)
    assert command(file, environment, 'orders', 'list').stdout.endswith('\n4 orders\n')
    [parked] = json.loads(command(file, environment, 'parked', 'show', '--order', 'EDX-3', '--body', '--json')
                          .stdout)['parked']
    assert (parked['tries'], parked['reason'], parked['body'] != '') == (2, 'the shop failed (500)', True)


def test_a_ledger_that_was_brought_up_to_date_goes_on(file, environment):
    assert command(file, environment, 'migrate').returncode == 0
    with closing(Ledger({'NAME': str(file)})) as ledger:
        # By a clock that is a month behind.
        done = RunReport('done', started=1_792_000_000.0, attempt=2, task=FULFILL, id='id-2', key='EDX-2',
                         site='edx')
        ledger('recording.record', [done])
        assert ledger('rows', 'Order', 'state', 'attempts', key='EDX-2') == [('fulfilled', 2)]
        ledger('recording.record', [RunReport('retrying', started=1_795_000_500.0, attempt=2, task=FULFILL, id='id-3',
                                              key='EDX-3', site='edx')])
        assert ledger('rows', 'Order', 'state', key='EDX-3') == ['parked']
        assert ledger('firings', 'last', 'resubmit (600 s)') == 1_795_000_000.0


def test_what_has_no_task_is_listed_with_a_dash_in_its_place(file, environment):
    with closing(Ledger({'NAME': str(file)})) as ledger:
        ledger('recording.record', [RunReport('parked', id='id-9', reason='intake shop: not JSON')])
    assert re.search(r'^id-9 +parked +- +- +0 ', command(file, environment, 'orders', 'list').stdout, re.MULTILINE)
