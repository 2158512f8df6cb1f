"""What the ledger remembers of orders that would be published anew."""

import json
import subprocess
import sys
import time

import pytest

from ecommerce_worker.broker.notes import NOTES
from ecommerce_worker.broker.wire import Raw
from ecommerce_worker.fulfillment.names import FULFILL
from ecommerce_worker.ledger.incoming import Parcel
from ecommerce_worker.resubmit.known import RECENTLY, memory_of
from ecommerce_worker.telemetry.run import RunReport
from ecommerce_worker.tests.support.ledger import Ledger, environment_of

LONG_AGO = time.time() - RECENTLY - 60
LONG_SILENT = "UPDATE ledger_order SET heard = '2026-01-01 00:00:00'"


@pytest.fixture(scope='module')
def opened(tmp_path_factory):
    """A ledger."""
    opened = Ledger({'NAME': str(tmp_path_factory.mktemp('ledger') / 'ledger.sqlite3')})
    yield opened
    opened.close()


@pytest.fixture
def ledger(opened):
    """The same, empty."""
    opened('empty')
    return opened


def fact(outcome, ended=LONG_AGO, **other):
    return RunReport(outcome, started=ended, **{
        'attempt': 1, 'task': FULFILL, 'id': 'id-1', 'key': 'EDX-1', 'site': 'edx', **other})


def parcel(key='EDX-1', task=FULFILL):
    notes = {'queue': 'ecommerce.fulfillment', 'id': f'id of {key}', 'task': task, 'key': key, 'site': 'edx',
             'parked_at': LONG_AGO, 'reason': 'the shop failed (500)'}
    body = json.dumps([[key], {'site_code': 'edx'}, {}]).encode()
    return Parcel.of(Raw(body, 'application/json', 'utf-8', {'task': task, NOTES: notes}, {}))


def known(ledger, *numbers):
    return [(it['site'], it['number'], it['where'], it['discarded']) for it in ledger('resubmit.known.known', numbers)]


def test_a_parked_order_is_known_for_as_long_as_its_message_is_there(ledger):
    ledger('recording.record', [], [parcel(), parcel('EDX-2'), parcel('EDX-3', task='other.task')])
    ledger('execute', LONG_SILENT)
    [(site, number, where, discarded)] = known(ledger, 'EDX-1', 'EDX-3', 'EDX-4')
    assert (site, number, discarded) == ('edx', 'EDX-1', False)
    assert where.startswith('it has been parked here since 20')
    assert where.endswith(' UTC (the shop failed (500)); see `parked resend`')
    ledger('execute', "UPDATE ledger_parkedmessage SET settled = 'resent'")
    assert known(ledger, 'EDX-1') == []


def test_what_a_person_has_discarded_is_known_as_that(ledger):
    ledger('recording.record', [fact('discarded', reason='discarded by hand', key='EDX-2')], [parcel()])
    [number] = ledger('rows', 'ParkedMessage', 'pk')
    ledger('decisions.discard', number, who='anna', reason='paid twice')
    found = {number: (where, discarded) for _, number, where, discarded in known(ledger, 'EDX-1', 'EDX-2')}
    assert found['EDX-1'][0].startswith('it was discarded by anna, 20')
    assert found['EDX-2'][0].startswith('it was discarded by hand, 20')
    assert found['EDX-1'][1] is found['EDX-2'][1] is True


@pytest.mark.parametrize('clock', [-86_400, 0, 86_400])
@pytest.mark.parametrize('outcome, silent, is_known', [
    ('retrying', False, True), ('returned', False, True), ('resent', False, True), ('parked', False, True),
    ('retrying', True, False), ('parked', True, False), ('done', False, False), ('skipped', False, False)])
def test_an_order_that_was_heard_of_a_moment_ago_may_be_on_its_way_whatever_its_worker_takes_for_the_time(
        ledger, outcome, silent, is_known, clock):
    ledger('recording.record', [fact(outcome, time.time() + clock)])
    if silent:
        ledger('execute', LONG_SILENT)
    found = known(ledger, 'EDX-1')
    assert bool(found) is is_known
    assert all(where.startswith('it may be in transit (') and not discarded for *_, where, discarded in found)


def test_without_a_ledger_there_is_no_memory(in_force, tmp_path):
    assert memory_of(in_force(DATABASES={'default': {'NAME': str(tmp_path / 'x')}}).settings) is None


def test_a_ledger_that_cannot_be_looked_into_keeps_everything_back(environment, tmp_path):
    (tmp_path / 'ledger').write_text('no database at all, but a text of some length')
    for name, value in environment_of({'NAME': str(tmp_path / 'ledger')}).items():
        environment.setenv(name, value)
    ended = subprocess.run([sys.executable, '-m', 'ecommerce_worker', 'resubmit'], capture_output=True, text=True,
                           check=False)
    assert (ended.returncode, ended.stdout) == (75, '')
    assert ended.stderr.startswith('ecommerce-worker: it is unknown which orders are parked in the ledger: ')
    assert ended.stderr.endswith('file is not a database\n')
