"""A person is removed from all that is kept, and it is said what there was."""

import base64
import json
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest
from kombu import Queue

from ecommerce_worker.broker import publishing, topology
from ecommerce_worker.broker.notes import Notes, ParkingNote
from ecommerce_worker.broker.publishing import Publication
from ecommerce_worker.broker.wire import Call, Raw
from ecommerce_worker.errors import NotPublished
from ecommerce_worker.intake.spool import Spool
from ecommerce_worker.tests.support.harness import QUEUE, eventually, shop_app

ANN, BOB = 'Ann@example.com', 'bob@example.com'
MAIL = 'ecommerce_worker.email.v1.api.send_refund_email'


class Away:
    """A broker that is not there."""

    ready = False

    def publish(self, publication, fact=None):
        raise NotPublished('the broker cannot be reached')


def body(address):
    return json.dumps([[], {'to': address}, {}]).encode()


def park(app, connection, number, address, queue=topology.PARKED):
    parked = publishing.parked_message(
        Raw(body(address), 'application/json', 'utf-8', {'task': MAIL, 'id': f'id-{number}'}),
        ParkingNote(id=f'id-{number}', task=MAIL, key=f'EDX-{number}', reason=f'refused for {address}',
                    notes=Notes(queue=QUEUE)))
    topology.declare_queue(connection, topology.parked_queue('classic', queue))
    publishing.publish(app, Publication(parked.raw, queue))


@pytest.fixture
def kept(broker, command, environment, tmp_path):
    """Things of two people in each place; the file of the ledger, and what knows how many are left where."""
    assert command('migrate').returncode == 0
    environment['ECOMMERCE_WORKER_INTAKE_SPOOL'] = str(tmp_path / 'spool')
    with broker.connection() as connection, shop_app(broker.url) as app:
        topology.declare_facts(connection)
        connection.default_channel.queue_purge(topology.LEDGER)
        topology.declare(connection, [topology.task_queue(QUEUE)])
        for number, address in enumerate((ANN, BOB)):
            park(app, connection, number, address)
        with subprocess.Popen([sys.executable, '-m', 'ecommerce_worker', 'recorder'], env=environment,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as recorder:
            eventually(lambda: broker.depth(topology.PARKED) == 0 and rows(tmp_path, 'ledger_parkedmessage') == 2)
            recorder.terminate()
        for number, address in enumerate((ANN, BOB), 2):
            park(app, connection, number, address)
            park(app, connection, f'{number}-large', address, topology.PARKED_LARGE)
            publishing.wait(app, Call(MAIL, f'waits-{number}', kwargs={'to': address}), Notes(queue=QUEUE), 600)
            Spool(Away(), tmp_path / 'spool').publish(Publication(
                Raw(body(address), 'application/json', 'utf-8', {}, {'correlation_id': f'spooled-{number}'}), QUEUE))
            (tmp_path / 'spool' / f'.draft-{number}').write_bytes(
                b'{"queue": "q", "body": "' + base64.b64encode(b'xy' + body(address))[:-7])
    eventually(lambda: broker.waiting() == 2)
    yield tmp_path
    with broker.connection() as connection:
        connection.default_channel.queue_delete(topology.PARKED_LARGE)


def taken(connection):
    """A fact of the ledger's queue."""
    body = Queue(topology.LEDGER).bind(connection.channel()).get(no_ack=True).body
    return body if isinstance(body, str) else bytes(body)


def rows(directory, table, condition='1 = 1'):
    with closing(sqlite3.connect(directory / 'ledger.sqlite3', timeout=60)) as ledger:
        return ledger.execute(f'SELECT count(*) FROM {table} WHERE {condition}').fetchone()[0]


def text_of(directory):
    """All that the ledger holds, whatever table it is in."""
    with closing(sqlite3.connect(directory / 'ledger.sqlite3', timeout=60)) as ledger:
        return '\n'.join(
            f'{value.decode(errors="replace") if isinstance(value, bytes) else value}'
            for (name,) in ledger.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            for row in ledger.execute(f'SELECT * FROM {name}').fetchall() for value in row)


def left(broker, directory):
    return (broker.depth(topology.PARKED), broker.depth(topology.PARKED_LARGE), broker.waiting(),
            len(list((directory / 'spool').iterdir())))


def test_a_person_is_found_everywhere_and_a_dry_run_changes_nothing(kept, command, broker):
    before = text_of(kept)
    found = json.loads(command('erase', ANN.lower(), '--dry-run', '--json').stdout)['found']
    assert [it['place'] for it in found] == [
        'parked', 'parked', 'waiting room', 'spool', 'spool', 'ledger, 1 text of ledger_order',
        'ledger, 1 text of ledger_parkedmessage', 'ledger']
    assert [it['key'] for it in found][:3] == ['EDX-2', 'EDX-2-large', '']
    assert (left(broker, kept), text_of(kept)) == ((2, 2, 2, 4), before)


def test_a_person_is_removed_and_nobody_else_and_the_record_does_not_name_them(kept, command, broker):
    refused = command('erase', ANN, answer='n\n')
    assert (refused.returncode, 'nothing was erased' in refused.stderr) == (1, True)
    erased = command('erase', '-', '--reason', f'ticket 7 of {ANN}', answer=f'{ANN}\ny\n')
    assert erased.returncode == 0, erased.stderr
    assert '8 items erased' in erased.stdout
    assert ANN.lower() not in (erased.stdout + erased.stderr).lower()
    assert left(broker, kept) == (1, 1, 1, 2)
    text = text_of(kept)
    assert ANN.lower() not in text.lower()
    assert text.lower().count(BOB) >= 3
    assert rows(kept, 'ledger_audit', "action = 'erased' AND reason = 'a person: 8 found; ticket 7 of ***'") == 1
    assert rows(kept, 'ledger_parkedmessage', "settled = ''") == 1
    again = command('erase', ANN, '--yes')
    assert (again.returncode, '0 items erased' in again.stdout) == (0, True)
    assert 'not searched: the shop' in again.stdout


def test_an_order_that_waited_for_a_person_who_is_erased_is_given_up_in_the_ledger(broker, command, environment):
    assert command('migrate').returncode == 0
    with broker.connection() as connection, shop_app(broker.url) as app:
        topology.declare_facts(connection)
        connection.default_channel.queue_purge(topology.LEDGER)
        topology.declare(connection, [topology.task_queue(QUEUE)])
        publishing.wait(app, Call(MAIL, 'waits', kwargs={'to': ANN}), Notes(queue=QUEUE, attempt=3), 600)
        eventually(lambda: broker.waiting() == 1)
        assert command('erase', ANN, '--yes').returncode == 0
        report = json.loads(taken(connection))
    assert (report['outcome'], report['id'], report['attempt'], report['reason']) == (
        'discarded', 'waits', 3, 'a person was erased')
