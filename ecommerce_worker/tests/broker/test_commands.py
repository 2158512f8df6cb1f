"""The operator's commands, run as an operator runs them."""

from __future__ import annotations

import json
import re
import secrets
import sqlite3
import subprocess
import sys
from dataclasses import dataclass, field

import pytest
from kombu import Producer, Queue

from ecommerce_worker.broker import publishing, topology
from ecommerce_worker.broker.notes import Notes, ParkingNote
from ecommerce_worker.broker.wire import Raw
from ecommerce_worker.fulfillment.names import FULFILL
from ecommerce_worker.operations import queues
from ecommerce_worker.testing.rabbitmq import free_port
from ecommerce_worker.testing.shop import Answer
from ecommerce_worker.tests.support.harness import QUEUE, QUEUES, eventually, shop_app
from ecommerce_worker.tests.support.rabbitmq import Node


@pytest.fixture
def stuck(shop, broker, publish, start_worker):
    """A worker, and one order that it could not fulfil."""
    shop.add_order('EDX-1', Answer(status=500).always())
    worker = start_worker().ready()
    publish('EDX-1')
    eventually(lambda: broker.parked_order('EDX-1'))
    return worker


def test_a_stuck_order_is_listed_with_its_reason(stuck, command):
    listed = command('parked', 'list')
    assert listed.returncode == 0
    assert re.search(r'EDX-1 +fulfill_order .* 3 +the shop failed \(500\); given up after 3 tries', listed.stdout)
    assert '1 parked message' in listed.stdout


def test_a_stuck_order_shows_its_history_and_not_its_contents(stuck, command):
    shown = command('parked', 'show', '--order', 'EDX-1').stdout
    assert shown.count('the shop failed (500)') == 4
    assert 'email_opt_in' not in shown
    assert '"EDX-1"' in command('parked', 'show', '--order', 'EDX-1', '--body').stdout


def test_looking_leaves_parked_messages_where_they_are(stuck, command, broker):
    for _ in range(3):
        command('parked', 'list')
        command('parked', 'show', '--order', 'EDX-1')
    assert broker.depth(topology.PARKED) == 1


def test_a_repaired_order_is_resent_and_fulfilled(stuck, command, shop, broker):
    shop.repair('EDX-1')
    resent = command('parked', 'resend', '--order', 'EDX-1')
    assert resent.returncode == 0
    assert '1 message resent' in resent.stdout
    eventually(lambda: stuck.settled('EDX-1') == 'done')
    assert broker.depth(topology.PARKED) == 0
    assert [call.method for call in shop.calls if call.order == 'EDX-1'][-2:] == ['GET', 'PUT']


@pytest.mark.parametrize('status, said', [
    ('Complete', 'not resent: the shop has already fulfilled it (Complete); you may discard it'),
    ('Payment Error', 'not resent: the shop would refuse to fulfil it: its status there is Payment Error')])
def test_an_order_that_the_shop_would_not_fulfil_is_not_sent_again(park, command, shop, broker, status, said):
    shop.add_order('EDX-0', status=status)
    park('1111')
    ended = command('parked', 'resend', '--all')
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, '0 messages resent\n', f'1111 {said}\n')
    assert [call.method for call in shop.calls if call.order == 'EDX-0'] == ['GET']
    assert (broker.depth(QUEUE), broker.depth(topology.PARKED)) == (0, 1)


def test_a_shop_that_is_unreachable_has_nothing_sent_again(park, command, broker):
    park('1111', '2222')
    ended = command('parked', 'resend', '--all', ECOMMERCE_API_ROOT=f'http://127.0.0.1:{free_port()}/api/v2/')
    assert ended.returncode == 1
    assert ended.stderr == (
        '1111 not resent: the shop refused the connection\n2222 not resent: the shop refused the connection\n'
        '2 messages parked as before, because the shop did not answer: EDX-0, EDX-1\n'
        'repeat this command when the shop answers again: it resends those that are still parked\n')
    assert broker.depth(topology.PARKED) == 2


def test_where_there_is_no_ledger_a_message_knows_how_often_it_was_sent_again(park, command, shop, broker):
    shop.add_order('EDX-0')
    park('1111')
    for _ in range(2):
        assert command('parked', 'resend', '--all', RESENDS_PER_HOUR=2).returncode == 0
        assert command('queues', 'purge', '--park').returncode == 0
    ended = command('parked', 'resend', '--all', RESENDS_PER_HOUR=2)
    assert ended.returncode == 1
    assert 'not resent: already resent 2 times within an hour, the limit' in ended.stderr
    [message] = broker.parked()
    assert [entry['reason'] for entry in message.headers['ecommerce']['history']].count('resent by a person') == 2
    assert 'RESENDS_PER_HOUR is 0' in command('parked', 'resend', '--all', RESENDS_PER_HOUR=0).stderr


def test_who_sends_again_what_no_recorder_has_taken_is_on_record(park, command, shop, tmp_path):
    ledger = {'DATABASES': {'default': {'NAME': str(tmp_path / 'ledger.sqlite3')}}}
    assert command('migrate', **ledger).returncode == 0
    for number in range(3):
        shop.add_order(f'EDX-{number}')
    park('1111', '2222', '3333')
    assert command('parked', 'resend', '1111', '--reason', 'repaired', **ledger).returncode == 0
    assert command('parked', 'discard', '2222', '--yes', '--reason', 'refunded', **ledger).returncode == 0
    with sqlite3.connect(tmp_path / 'ledger.sqlite3') as database:
        found = database.execute('SELECT action, reason, message_id, key FROM ledger_audit ORDER BY id').fetchall()
    database.close()
    assert found == [('resent', 'repaired', '1111', 'EDX-0'), ('discarded', 'refunded', '2222', 'EDX-1')]


def test_what_could_not_go_on_record_is_not_done(park, command, shop, broker, tmp_path):
    shop.add_order('EDX-0')
    park('1111')
    (tmp_path / 'ledger.sqlite3').write_bytes(b'')
    ledger = {'DATABASES': {'default': {'NAME': str(tmp_path / 'ledger.sqlite3')}}}
    assert command('parked', 'resend', '1111', **ledger).returncode != 0
    assert command('parked', 'discard', '1111', '--yes', **ledger).returncode != 0
    assert (broker.depth(QUEUE), broker.depth(topology.PARKED)) == (0, 1)


def test_a_message_that_could_not_be_read_is_resent_byte_by_byte(broker, start_worker, command):
    body = b'\x80\x02cos\nsystem\nU\x04trueq\x00\x85Rq\x01.'
    broker.publish_raw(body, content_type='application/x-python-serialize', content_encoding='binary',
                       headers={'task': FULFILL, 'id': 'id-1'})
    start_worker().ready()
    before = eventually(broker.parked)
    assert re.search(r'os\.system|posix', before[0].headers['ecommerce']['reason'])
    command('parked', 'resend', '--all')
    after = eventually(lambda: [message for message in broker.parked()
                                if len(message.headers['ecommerce']['history']) > 1])
    assert (after[0].body, after[0].content_type) == (body, 'application/x-python-serialize')


def test_resending_picks_by_order_task_and_id(broker, start_worker, publish, command):
    start_worker(MAX_FULFILLMENT_RETRIES=0).ready()
    for number in ('EDX-1', 'EDX-2'):
        publish(number)
    publish('x', task='somebody.elses.task', queue=QUEUE)
    eventually(lambda: broker.depth(topology.PARKED) == 3)
    assert '1 parked message' in command('parked', 'list', '--order', 'EDX-2').stdout
    assert '2 parked messages' in command('parked', 'list', '--task', 'fulfill_order').stdout
    assert command('parked', 'resend', '--order', 'EDX-3').returncode == 1
    assert command('parked', 'resend').returncode == 2
    assert broker.depth(topology.PARKED) == 3


def test_a_message_of_a_task_that_is_not_there_is_found_by_the_order_number_that_it_names(
        broker, start_worker, publish, command):
    publish(task='tasks.of.next.year', queue=QUEUE, order_number='EDX-1')
    worker = start_worker().ready()
    eventually(lambda: broker.parked_order('EDX-1'))
    assert 'key=EDX-1 ' in worker.log
    assert '1 parked message' in command('parked', 'list', '--order', 'EDX-1').stdout


def test_an_order_number_with_a_space_is_one_word_in_the_log_and_one_argument_of_a_command(
        broker, start_worker, publish, command):
    publish('EDX 1')
    worker = start_worker().ready()
    eventually(lambda: broker.parked_order('EDX 1'))
    assert ' key="EDX 1" ' in worker.log
    assert '1 parked message' in command('parked', 'list', '--order', 'EDX 1').stdout


@pytest.fixture
def park(broker):
    """Put messages among the parked ones: of each its id, and an order of the same number as its place."""
    def put(*ids):
        with shop_app(broker.url) as app, broker.connection() as connection:
            topology.declare_parked(connection)
            for number, id_ in enumerate(ids):
                publishing.park(app, Raw(b'{}', 'application/json', 'utf-8'), ParkingNote(
                    id=id_, task=FULFILL, key=f'EDX-{number}', reason='why', notes=Notes(queue=QUEUE)))

    return put


def test_who_destroys_large_parked_messages_is_on_record(command, broker, tmp_path):
    assert command('migrate').returncode == 0
    with shop_app(broker.url) as app, broker.connection() as connection:
        topology.declare_queue(connection, topology.parked_queue('classic', topology.PARKED_LARGE))
        connection.default_channel.queue_purge(topology.PARKED_LARGE)
        message = publishing.parked_message(Raw(b'{}', 'application/json', 'utf-8'), ParkingNote(
            id='1111', task=FULFILL, key='EDX-1', reason='why', notes=Notes(queue=QUEUE)))
        publishing.publish(app, publishing.Publication(message.raw, topology.PARKED_LARGE))
        assert command('queues', 'purge', topology.PARKED_LARGE, '--yes').returncode == 0
        connection.default_channel.queue_delete(topology.PARKED_LARGE)
    with sqlite3.connect(tmp_path / 'ledger.sqlite3') as database:
        assert database.execute('SELECT action, reason, message_id, key FROM ledger_audit').fetchall() == [
            ('discarded', 'destroyed with its queue', '1111', 'EDX-1')]


def test_ids_are_listed_as_long_as_tells_them_apart(park, command):
    park('11111111-1', '22222222-1')
    assert re.findall(r'^[12]\S+', command('parked', 'list').stdout, re.MULTILINE) == ['11111111', '22222222']
    park('22222222-2', '22222222-2')
    assert re.findall(r'^[12]\S+', command('parked', 'list').stdout, re.MULTILINE) == [
        '11111111-1', '22222222-1', '22222222-2', '22222222-2']


@pytest.mark.parametrize('words', [['resend'], ['discard', '--yes']], ids=' '.join)
def test_the_beginning_of_several_ids_is_refused_with_the_list_of_them(park, command, shop, broker, words):
    shop.add_order('EDX-1')
    park('11111111-1', '11111111-2', '2222')
    refused = command('parked', *words, '111')
    assert (refused.returncode, broker.depth(topology.PARKED)) == (1, 3)
    assert refused.stdout == ''
    assert re.findall(r'^[12]\S+', refused.stderr, re.MULTILINE) == ['11111111-1', '11111111-2']
    assert refused.stderr.endswith('\necommerce-worker: 111 matches several ids: '
                                   'give more characters\n')
    assert command('parked', *words, '11111111-2').returncode == 0
    assert broker.depth(topology.PARKED) == 2


def test_a_whole_id_is_meant_as_it_is_and_with_all_its_copies(park, command, shop, broker):
    shop.add_order('EDX-0')
    shop.add_order('EDX-1')
    park('1111', '1111', '11112')
    assert '2 messages resent' in command('parked', 'resend', '1111').stdout
    assert (broker.depth(QUEUE), broker.depth(topology.PARKED)) == (2, 1)


@pytest.mark.parametrize('words', [['resend', '--all'], ['resend', '--order', 'EDX-7'], ['resend', '7'],
                                   ['discard', '--all'], ['show', '7']], ids=' '.join)
def test_what_finds_no_message_says_so(broker, command, words):
    ended = command('parked', *words)
    assert (ended.returncode, ended.stdout) == (1, '')
    assert ended.stderr.startswith('ecommerce-worker: no parked message matches')


def said(ended):
    """The one JSON document that a command printed, and nothing else."""
    return json.loads(ended.stdout)


def test_that_the_parked_queue_is_not_to_be_had_is_not_taken_for_that_nothing_is_parked(park, command, broker):
    park('1111')
    with broker.unavailable(topology.PARKED):
        ended = command('parked', 'list')
    assert 'ecommerce.parked is unavailable: RabbitMQ reports that it is down; messages parked there are left out' in (
        ended.stderr)
    assert command('parked', 'list').stderr == ''


def test_programs_read_what_is_parked_and_what_became_of_it(shop, park, command, broker):
    shop.add_order('EDX-0')
    park('1111', '2222', '3333')
    found = said(command('parked', 'list', '--limit', '2', '--json'))
    assert (found['count'], [it['id'] for it in found['parked']]) == (3, ['1111', '2222'])
    first = found['parked'][0]
    assert {name: value for name, value in first.items() if name != 'parked_at'} == {
        'id': '1111', 'order': 'EDX-0', 'task': FULFILL, 'queue': QUEUE, 'tries': 0, 'reason': 'why'}
    assert re.fullmatch(r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z', first['parked_at'])
    [shown] = said(command('parked', 'show', '1111', '--json'))['parked']
    assert (shown['size'], shown['content_type'], shown['history']) == (2, 'application/json', [])
    assert 'body' not in shown
    assert said(command('parked', 'show', '1111', '--body', '--json'))['parked'][0]['body'] == 'e30='
    assert said(command('parked', 'resend', '1111', '--json')) == {
        'resent': [{'id': '1111', 'order': 'EDX-0', 'queue': QUEUE}], 'stuck': []}
    refused = command('parked', 'discard', '2222', '--json')
    assert (refused.returncode, refused.stdout) == (2, '')
    assert said(command('parked', 'discard', '2222', '--yes', '--json')) == {
        'discarded': [{'id': '2222', 'order': 'EDX-1'}]}
    assert broker.depth(topology.PARKED) == 1


def test_programs_read_how_things_stand(broker, publish, command):
    publish('EDX-1')
    ended = command('status', '--json')
    found = said(ended)
    assert ended.returncode == 1
    assert {name: type(value) for name, value in found.items()} == {
        'broker': str, 'takes_messages': bool, 'workers': list, 'waiting': int, 'parked': int, 'queues': list,
        'ledger': type(None), 'beat': type(None), 'troubles': list, 'findings': list}
    assert found['queues'][0] == {'name': QUEUE, 'messages': 1, 'consumers': 0}
    assert found['troubles'] == [f'{it["sentence"]} {it["remedy"]}' for it in found['findings']]
    assert found['findings'][1] == {
        'subject': 'queues', 'severity': 'trouble', 'sentence': f'No worker consumes {QUEUE}, which holds 1 message.',
        'remedy': f'Start a worker with it in QUEUES (or `-Q {QUEUE}`).'}


def test_programs_read_what_was_resubmitted(shop, command):
    shop.add_order('EDX-1', age=3600)
    shop.add_order('EDX-2', status='Complete', age=3600)
    ended = command('resubmit', '--order', 'EDX-1', '--order', 'EDX-2', '--order', 'EDX-3', '--dry-run', '--json')
    found = said(ended)
    assert ended.returncode == 1
    assert [(it['order'], it['status'], it['published']) for it in found['orders']] == [
        ('EDX-2', 'Complete', False), ('EDX-1', 'Open', True)]
    assert (found['published'], found['settled'], found['dry_run']) == (1, 0, True)
    assert found['troubles'] == ['EDX-3: no shop knows it (404)']


def test_programs_read_the_configuration(command):
    found = said(command('check', '--json'))
    assert (found['problems'], type(found['notes'])) == ([], list)
    settings = {it['name']: it for it in found['settings']}
    assert '***' in settings['BROKER_URL']['value']
    assert settings['MAX_FULFILLMENT_RETRIES']['from'].startswith('environment ')
    ended = command('check', '--json', WORKER_CONCURRENCY='many')
    assert ended.returncode == 1
    assert len(said(ended)['problems']) == 1


#: What a terminal obeys, what looks like another row, and what turns the direction of writing.
EVIL = 'EDX-1\x1b[2J\x9b31m\nFORGED  row\u202e'


@pytest.mark.parametrize('words', [['list'], ['show', '1'], ['discard', '1', '--yes'], ['resend', '1']], ids=' '.join)
def test_no_message_reaches_the_terminal(broker, command, words):
    with shop_app(broker.url) as app, broker.connection() as connection:
        topology.declare_parked(connection)
        publishing.park(app, Raw(b'{}', 'application/json', 'utf-8'), ParkingNote(
            id=f'1{EVIL}', task=EVIL, key=EVIL, reason=EVIL, notes=Notes(queue=QUEUE, history=({'reason': EVIL},))))
    ended = command('parked', *words)
    shown = ended.stdout + ended.stderr
    assert 'EDX-1?[2J?31m?FORGED  row?' in shown
    assert all(line.isprintable() for line in shown.splitlines())
    assert not any(line.startswith('FORGED') for line in shown.splitlines())
    assert json.loads(command('parked', 'list', '--json').stdout)['count'] == int(words[0] in ('list', 'show'))


def test_discarding_asks_first(stuck, command, broker):
    assert command('parked', 'discard', '--all', answer='n\n').returncode == 1
    assert broker.depth(topology.PARKED) == 1
    assert command('parked', 'discard', '--order', 'EDX-1', '--yes').returncode == 0
    assert broker.depth(topology.PARKED) == 0


def test_status_is_well_when_a_worker_consumes(broker, start_worker, command):
    start_worker().ready()
    status = command('status', '--timeout', '3')
    assert status.returncode == 0, status.stdout
    assert re.search(r'workers +ecommerce-\d+-\w+@', status.stdout)


def test_status_names_workers_of_different_queues(broker, start_worker, command):
    start_worker('--hostname', 'one@here', '-Q', 'fulfillment')
    start_worker('--hostname', 'other@here', '-Q', 'email_marketing')
    eventually(lambda: broker.consumers('fulfillment') and broker.consumers('email_marketing'))
    assert 'workers   one@here, other@here' in command('status', '--timeout', '3').stdout


def test_status_calls_out_a_queue_that_nobody_consumes(broker, start_worker, publish, command):
    start_worker('-Q', 'fulfillment')
    eventually(lambda: broker.consumers('fulfillment'))
    publish('EDX-1')
    eventually(lambda: broker.depth(QUEUE) == 1)
    status = command('status', '--timeout', '3')
    assert status.returncode == 1
    assert 'trouble: No worker consumes ecommerce.fulfillment, which holds 1 message.' in status.stdout


def test_status_counts_what_waits_and_what_is_parked(shop, broker, start_worker, publish, command):
    shop.add_order('EDX-1', Answer(status=503, headers={'Retry-After': '600'}))
    shop.add_order('EDX-2', Answer(status=403).always())
    start_worker(MAX_FULFILLMENT_RETRIES=0).ready()
    publish('EDX-1')
    publish('EDX-2')
    eventually(lambda: broker.waiting() == 1 and broker.depth(topology.PARKED) == 1)
    status = command('status', '--timeout', '3')
    assert 'waiting   1 for their next try' in status.stdout
    assert 'parked    1 for a person' in status.stdout


def test_status_counts_parked_messages_that_no_ledger_takes(broker, command):
    with shop_app(broker.url) as app, broker.connection() as connection:
        topology.declare_queue(connection, topology.parked_queue(name=topology.PARKED_LARGE))
        publishing.publish(app, publishing.Publication(Raw(b'{}', 'application/json', 'utf-8'), topology.PARKED_LARGE))
        try:
            status = command('status')
        finally:
            connection.default_channel.queue_delete(topology.PARKED_LARGE)
    assert 'parked    1 for a person' in status.stdout
    assert 'warning: 1 parked message too large for the ledger' in status.stdout


def test_status_fails_on_parked_messages_if_told_to(stuck, command):
    warned = command('status', '--timeout', '3')
    assert (warned.returncode, 'warning: 1 message parked:' in warned.stdout) == (0, True)
    status = command('status', '--timeout', '3', '--fail-on-parked')
    assert status.returncode == 1
    assert 'trouble: 1 message parked: each waits until a person' in status.stdout


def test_status_does_not_count_the_workers_of_other_services(broker, command, tmp_path):
    (tmp_path / 'other.py').write_text(
        'from celery import Celery\n'
        f'app = Celery("other", broker={broker.url!r})\n'
        '@app.task\n'
        'def mail(): pass\n')
    with (tmp_path / 'other.log').open('wb') as log:
        other = subprocess.Popen([sys.executable, '-m', 'celery', '-A', 'other', 'worker', '-P', 'solo', '-Q', 'other'],
                                 cwd=tmp_path, stdout=log, stderr=log)
    try:
        eventually(lambda: broker.consumers('other'))
        status = command('status', '--timeout', '3')
        assert status.returncode == 1
        assert 'workers   none' in status.stdout
        assert 'trouble: No worker is running' in status.stdout
    finally:
        other.terminate()
        other.wait(30)


def test_status_says_that_there_are_no_queues_yet(broker, command):
    with broker.connection() as connection:
        channel = connection.channel()
        for name in QUEUES:
            channel.queue_delete(name)
    shown = command('status').stdout
    assert 'No queues yet' in shown
    assert 'CONSUMERS' not in shown


def test_status_says_that_a_full_broker_takes_no_messages(broker, command):
    broker.node.ctl('set_disk_free_limit', str(10 ** 15))
    try:
        status = command('status')
    finally:
        broker.node.ctl('set_disk_free_limit', str(50_000_000))
    assert status.returncode == 1
    assert 'trouble: The broker accepts no messages' in status.stdout
    assert 'workers   ?' in status.stdout


def test_purging_offers_to_park_and_says_what_it_would_destroy(broker, publish, command):
    for number in range(3):
        publish(f'EDX-{number}')
    left = command('queues', 'purge', answer='leave\n')
    assert left.returncode == 1
    assert 'This would destroy 3 messages' in left.stdout
    assert broker.depth(QUEUE) == 3
    parked = command('queues', 'purge', answer='park\n')
    assert parked.returncode == 0
    assert (broker.depth(QUEUE), broker.depth(topology.PARKED)) == (0, 3)
    assert {message.headers['ecommerce']['key'] for message in broker.parked()} == {'EDX-0', 'EDX-1', 'EDX-2'}


def test_what_was_parked_by_a_purge_can_be_resent(shop, broker, publish, command, start_worker):
    shop.add_order('EDX-1')
    publish('EDX-1')
    command('queues', 'purge', '--park')
    command('parked', 'resend', '--all')
    worker = start_worker().ready()
    eventually(lambda: worker.settled('EDX-1') == 'done')


@pytest.mark.parametrize('words', [['purge'], ['reset']], ids=' '.join)
def test_destroying_and_parking_at_once_is_a_wrong_command_line(broker, publish, command, words):
    publish('EDX-1')
    ended = command('queues', *words, '--park', '--yes')
    assert (ended.returncode, ended.stdout) == (2, '')
    assert ended.stderr == 'ecommerce-worker: --yes destroys the messages and --park keeps them: use one of the two\n'
    assert broker.depth(QUEUE) == 1


@pytest.mark.parametrize('words, options', [
    (['queues', 'purge'], '--park or --yes'), (['queues', 'reset'], '--park or --yes'),
    (['parked', 'discard', '--all'], '--yes')], ids=str)
def test_where_nobody_answers_nothing_is_done(broker, publish, park, command, words, options):
    publish('EDX-1')
    park('1111')
    ended = command(*words)
    assert ended.returncode == 1
    assert ended.stderr == f'ecommerce-worker: nothing was done: no answer; use {options} instead\n'
    assert (broker.depth(QUEUE), broker.depth(topology.PARKED)) == (1, 1)


def test_a_queue_that_there_is_not_is_not_an_empty_one(broker, publish, command):
    publish('EDX-1')
    ended = command('queues', 'purge', QUEUE, 'ecommerce.fulfilment', '--yes')
    assert (ended.returncode, ended.stdout) == (1, '')
    assert ended.stderr == ('ecommerce-worker: there is no queue ecommerce.fulfilment; did you mean '
                            'ecommerce.fulfillment?\n')
    assert broker.depth(QUEUE) == 1


def test_a_queue_that_is_not_declared_yet_is_empty(broker, command):
    with broker.connection() as connection:
        connection.channel().queue_delete(QUEUE)
    ended = command('queues', 'purge', QUEUE)
    assert (ended.returncode, ended.stdout) == (0, 'the queues are empty\n')


def test_purging_with_yes_destroys(broker, publish, command):
    publish('EDX-1')
    assert command('queues', 'purge', QUEUE, '--yes').returncode == 0
    assert (broker.depth(QUEUE), broker.depth(topology.PARKED)) == (0, 0)


def test_a_reset_parks_what_waits_and_declares_all_anew(shop, broker, publish, command, start_worker):
    shop.add_order('EDX-1', Answer(status=503, headers={'Retry-After': '600'}))
    worker = start_worker().ready()
    publish('EDX-1')
    eventually(lambda: broker.waiting() == 1)
    assert 'stop them first' in command('queues', 'reset', '--park').stderr
    worker.stop()
    assert command('queues', 'reset', '--park').returncode == 0
    assert (broker.waiting(), broker.depth(topology.PARKED)) == (0, 1)
    command('parked', 'resend', '--all')
    again = start_worker().ready()
    eventually(lambda: again.settled('EDX-1') == 'done')


def test_a_reset_mends_a_queue_of_another_shape(broker, command):
    with broker.connection() as connection:
        channel = connection.channel()
        channel.queue_delete(QUEUE)
        Queue(QUEUE, queue_arguments={'x-max-priority': 3}).bind(channel).declare()
    refused = command('worker')
    assert refused.returncode == 78
    assert 'exists with other arguments' in refused.stderr
    assert command('queues', 'reset', '--yes').returncode == 0
    with broker.connection() as connection:
        topology.task_queue(QUEUE).bind(connection.channel()).declare()


def test_a_reset_parks_what_is_published_while_it_runs(broker, publish, environment):
    publish('EDX-1')
    with subprocess.Popen([sys.executable, '-m', 'ecommerce_worker', 'queues', 'reset'], env=environment, text=True,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reset:
        shown = ''
        assert reset.stdout
        while 'leave them?' not in shown:  # by now it has looked what there is
            shown += reset.stdout.read(1)
        publish('EDX-2', queue='fulfillment')
        eventually(lambda: broker.depth('fulfillment') == 1)
        shown = reset.communicate('park\n', timeout=60)[0]
    assert shown.count('1 message parked') == 2
    assert {message.headers['ecommerce']['key'] for message in broker.parked()} == {'EDX-1', 'EDX-2'}


@pytest.mark.parametrize('queue_type', ['classic', 'quorum'])
def test_only_an_empty_queue_is_deleted(broker, queue_type):
    with broker.connection() as connection:
        queue = Queue('somebodys', queue_arguments={'x-queue-type': queue_type}).bind(connection.channel())
        queue.declare()
        Producer(queue.channel).publish({}, exchange='', routing_key='somebodys', delivery_mode=2)
        eventually(lambda: broker.depth('somebodys') == 1)
        assert not queues.deleted(connection, 'somebodys')
        assert broker.depth('somebodys') == 1
        queue.purge()
        assert queues.deleted(connection, 'somebodys')
        assert topology.depth(connection, 'somebodys') is None


def test_a_reset_of_quorum_queues_parks_what_they_hold(broker, command, publish):
    with broker.connection() as connection:
        channel = connection.channel()
        channel.queue_delete(QUEUE)
        Queue(QUEUE, queue_arguments={'x-queue-type': 'quorum'}).bind(channel).declare()
        Producer(channel).publish({}, exchange='', routing_key=QUEUE, delivery_mode=2)
    assert command('queues', 'reset', '--park').returncode == 0
    assert (broker.depth(QUEUE), broker.depth(topology.PARKED)) == (0, 1)
    publish('EDX-1')  # which declares the queue in the shop's shape


# -- a worker that cannot start says why ------------------------------------------------------------------------------

@pytest.mark.parametrize('url, status, says', [
    ('amqp://guest:guest@127.0.0.1:{free}//', 69, 'cannot be reached'),
    ('amqp://guest:guest@broker.invalid//', 69, 'cannot be reached'),
    ('amqp://guest:wrong-password@127.0.0.1:{port}//', 77, 'refuses the login'),
    ('amqp://guest:guest@127.0.0.1:{port}/nowhere', 77, 'virtual host'),
    ('foo://guest:wrong-password@127.0.0.1', 78, 'an unknown kind of broker'),
    ('memory://', 78, 'loses messages'),
    ('filesystem://', 78, 'loses messages'),
])
def test_a_worker_without_a_usable_broker_says_why_in_one_line(broker, command, url, status, says):
    ended = command('worker', BROKER_URL=url.format(free=free_port(), port=broker.node.port))
    assert ended.returncode == status, ended.stderr
    assert says in ended.stderr
    assert 'Traceback' not in ended.stderr
    assert 'wrong-password' not in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1


def test_a_worker_refuses_to_start_on_the_problems_that_check_shows(command):
    settings = {'MAX_FULFILLMENT_RETRIES': 'eleven', 'ECOMMERCE_API_ROOT': 'shop.example.com',
                'SITE_OVERRIDES': json.dumps({'edx': {'ECOMERCE_API_ROOT': 'http://x/'}})}
    checked, started = command('check', **settings), command('worker', **settings)
    assert (checked.returncode, started.returncode) == (1, 1)
    for name in ('MAX_FULFILLMENT_RETRIES', 'ECOMMERCE_API_ROOT', 'ECOMERCE_API_ROOT'):
        assert name in checked.stdout
        assert name in started.stderr
    assert 'did you mean ECOMMERCE_API_ROOT' in checked.stdout


@pytest.mark.parametrize('imports, says', [
    ('ecommerce_worker.fulfilment.v1.tasks', 'did you mean ecommerce_worker.fulfillment.v1.tasks?'),
    ('broken', 'cannot be imported: ZeroDivisionError: division by zero'),
])
def test_a_module_of_tasks_that_cannot_be_imported_is_a_wrong_setting(command, environment, tmp_path, imports, says):
    (tmp_path / 'broken.py').write_text('1 / 0\n')
    environment['PYTHONPATH'] = str(tmp_path)
    for ended in (command('worker', CELERY_IMPORTS=imports), command('check', CELERY_IMPORTS=imports)):
        assert ended.returncode == 1
        assert f'CELERY_IMPORTS names {imports}, which' in ended.stderr + ended.stdout
        assert says in ended.stderr + ended.stdout
        assert 'Traceback' not in ended.stderr


@pytest.mark.parametrize('pool', [('--pool', 'gevent'), ('-Pgevent',)], ids=' '.join)
def test_a_pool_that_is_not_offered_is_a_wrong_command_line(command, pool):
    ended = command('worker', *pool)
    assert ended.returncode == 2
    assert ended.stderr == 'ecommerce-worker: --pool must be one of threads, prefork, solo\n'


# What docs/how-to/go-to-production.rst says that a worker's user needs.
NEEDED = r'^(ecommerce([._].*)?|fulfillment|email_marketing|.*celery\.pidbox)$'
NEEDED_TO_WRITE = r'^(ecommerce([._].*)?|fulfillment|email_marketing|.*celery\.pidbox|amq\.default)$'


@dataclass(frozen=True)
class Permit:
    """Gives a RabbitMQ user permissions: ``permit(configure, write, read)``."""

    node: Node
    #: Of this test alone: RabbitMQ may log a refusal of another test's after this one has begun.
    user: str = field(default_factory=lambda: f'worker-{secrets.token_hex(4)}')

    def __call__(self, *patterns):
        self.node.ctl('set_permissions', '-p', '/', self.user, *patterns)


@pytest.fixture
def permit(broker, environment):
    """Have worker and commands use a RabbitMQ user, and permit that what is needed."""
    permit = Permit(broker.node)
    broker.node.ctl('add_user', permit.user, 'password-of-the-worker')
    environment['ECOMMERCE_WORKER_BROKER_URL'] = broker.url.replace('guest:guest',
                                                                    f'{permit.user}:password-of-the-worker')
    yield permit
    broker.node.ctl('delete_user', permit.user)


def test_a_worker_and_its_commands_need_no_more_permissions_than_are_documented(
        shop, broker, permit, publish, start_worker, command):
    permit(NEEDED, NEEDED_TO_WRITE, NEEDED)
    log = broker.node.directory / 'node.log'
    before = len(log.read_text())
    shop.add_order('EDX-1', Answer(status=503))
    shop.add_order('EDX-2', Answer(status=403).always())
    worker = start_worker(MAX_FULFILLMENT_RETRIES=0).ready()
    publish('EDX-1')
    publish('EDX-2')
    eventually(lambda: worker.settled('EDX-1') == 'done' and broker.parked_order('EDX-2'))
    status = command('status', '--timeout', '3')
    assert status.returncode == 0, status.stdout + status.stderr
    assert command('parked', 'discard', '--all', '--yes').returncode == 0
    assert worker.stop() == 0
    assert command('queues', 'reset', '--park').returncode == 0
    # From 4.3 on, RabbitMQ lets nobody ask for a queue of others: `status` takes it for absent.
    assert not [line for line in log.read_text()[before:].splitlines()
                if f"refused for user '{permit.user}'" in line and "queue 'celery'" not in line]


def test_a_worker_without_a_permission_that_it_needs_says_which_in_one_line(permit, start_worker):
    permit('^(?!.*pidbox).*$', '.*', '.*')
    worker = start_worker()
    assert worker.process.wait(30) == 77
    complaint, = (line for line in worker.log.splitlines() if ' CRITICAL ' in line)
    assert f"access to exchange 'celery.pidbox' in vhost '/' refused for user '{permit.user}'" in complaint
    assert 'Traceback' not in worker.log


def test_a_command_without_a_permission_that_it_needs_says_which_in_one_line(broker, permit, command):
    broker.publish_raw(b'x', routing_key=topology.PARKED)
    for words, *patterns in ((['worker'], '', '.*', '.*'), (['status'], '', '.*', '.*'),
                             (['queues', 'reset', '--yes'], '', '.*', '.*'), (['parked', 'list'], '.*', '.*', '')):
        permit(*patterns)
        ended = command(*words)
        assert ended.returncode == 77, ended.stderr
        assert f"refused for user '{permit.user}'" in ended.stderr
        assert len(ended.stderr.splitlines()) == 1


def test_a_worker_logs_the_configuration_in_force_without_secrets(start_worker):
    log = start_worker().ready().log
    assert 'configuration: MAX_FULFILLMENT_RETRIES=2 from="environment ECOMMERCE_WORKER_MAX_FULFILLMENT_RETRIES"' in log
    assert 'configuration: BACKEND_SERVICE_EDX_OAUTH2_SECRET=*** ' in log
    assert 'demo-client-secret' not in log
    assert 'guest:guest' not in log


def test_variables_of_celery_do_not_overrule_the_settings(shop, publish, environment, start_worker):
    nowhere = f'amqp://127.0.0.1:{free_port()}//'
    environment.update(dict.fromkeys(
        ('BROKER_URL', 'CELERY_BROKER_URL', 'CELERY_BROKER_READ_URL', 'CELERY_BROKER_WRITE_URL'), nowhere))
    environment.update(dict.fromkeys(('RESULT_BACKEND', 'CELERY_RESULT_BACKEND'), 'nonsense://'))
    shop.add_order('EDX-1', Answer(status=503))
    worker = start_worker().ready()
    publish('EDX-1')
    eventually(lambda: worker.settled('EDX-1') == 'done')


def test_check_shows_what_is_in_force_without_secrets(command, broker):
    checked = command('check')
    assert checked.returncode == 0
    assert 'demo-client-secret' not in checked.stdout
    assert 'guest:guest' not in checked.stdout
    row = r'MAX_FULFILLMENT_RETRIES +environment ECOMMERCE_WORKER_MAX_FULFILLMENT_RETRIES +2'
    assert re.search(row, checked.stdout)


def test_celery_itself_starts_the_same_worker(shop, broker, publish, environment, command, tmp_path):
    shop.add_order('EDX-1', Answer(status=503))
    path = tmp_path / 'celery.log'
    with path.open('wb') as log:
        worker = subprocess.Popen([sys.executable, '-m', 'celery', '-A', 'ecommerce_worker.celery_app:app', 'worker'],
                                  env=environment, stdout=log, stderr=log)
    try:
        publish('EDX-1')
        eventually(lambda: shop.orders['EDX-1'].status == 'Complete')
        eventually(lambda: 'done: task=' in path.read_text())
        assert 'workers   celery@' in command('status', '--timeout', '3').stdout
    finally:
        worker.terminate()
        worker.wait(30)
