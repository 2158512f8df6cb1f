"""Whatever is published on the virtual host of a real RabbitMQ: nothing stops, and orders behind it are fulfilled."""

import bz2
import json
import random
import sqlite3
import subprocess
import sys
import time
from functools import cache
from typing import Any

import amqp
import pytest
from celery import Celery
from kombu import Queue
from kombu.asynchronous import Hub

from ecommerce_worker.broker import topology
from ecommerce_worker.broker.notes import NOTES
from ecommerce_worker.broker.transport import BrokerConnection
from ecommerce_worker.fulfillment.names import FULFILL
from ecommerce_worker.tests.broker import fuzz
from ecommerce_worker.tests.broker.fuzz import (
    JSON,
    PICKLE,
    Forged,
    Wire,
    headers_of_call,
    long,
    nested,
    properties,
    short,
)
from ecommerce_worker.tests.support.harness import QUEUE, eventually

ORDER = json.dumps([['EDX-1'], {}, {}]).encode()
TASK = headers_of_call()


@cache
def hostile():
    """What is published among the orders, and the reason for which it is parked."""
    deep_key, shared, _, large = fuzz.hostile_pickles()[:4]
    return {
        'a correlation id that is not UTF-8': (
            Forged(ORDER, properties(JSON.encode(), TASK, correlation_id=b'\xff\xfe')),
            'not all of it can be read: correlation_id'),
        'an array nested 3000 deep': (Forged(ORDER, properties(JSON.encode(), TASK + short(b'x') + nested(3000))),
                                      'not all of it can be read: headers'),
        'a pickle with a deep key': (Forged(deep_key, properties(PICKLE.encode(), TASK)), 'nested deeper'),
        'a pickle that shares': (Forged(shared, properties(PICKLE.encode(), TASK)), 'too many parts'),
        'a pickle of 100 MB': (Forged(large, properties(PICKLE.encode(), TASK)), 'other arguments'),
        'a bomb': (Forged(bz2.compress(bytes(500_000_000)), properties(
            JSON.encode(), headers_of_call(compression='application/x-bz2'))), 'decompress'),
        'headers that fill a frame': (fuzz.full_headers(random.Random(1)), 'not valid application/json'),
        'eight megabytes of objects': (Forged(b'[' + b'{},' * 2_700_000 + b'1]', properties(JSON.encode(), TASK)),
                                       'the body has'),
        'a hundred thousand objects': (Forged(b'[' + b'{},' * 100_000 + b'1]', properties(JSON.encode(), TASK)),
                                       'too many parts'),
        'a name that is not UTF-8': (Forged(b'[', properties(JSON.encode(), TASK + short(b'\xff\xfe') + b't\1')),
                                     'not valid application/json'),
        'a time beyond the calendar': (Forged(b'[', properties(JSON.encode(), TASK + short(b'x') + b'T' + b'\xff' * 8)),
                                       'not valid application/json'),
        'a table in a table': (Forged(b'[', properties(JSON.encode(), TASK + short(b'x') + b'F' + long(
            short(b'\xff') + b'F' + long(b'')))), 'not valid application/json'),
    }


@pytest.fixture
def forge(broker):
    """Publish a message byte by byte."""
    connection = amqp.Connection(broker.url.rpartition('@')[2].strip('/'), confirm_publish=True)
    connection.connect()
    channel = connection.channel()

    def publish(forged: Forged) -> None:
        channel.basic_publish(Wire(forged.body, forged.properties), forged.exchange, forged.routing_key)

    yield publish
    connection.close()


def test_what_nobody_should_send_is_parked_and_orders_behind_it_are_fulfilled(broker, shop, publish, forge,
                                                                              start_worker):
    worker = start_worker('--concurrency', '2').ready()
    for number, (forged, _) in enumerate(hostile().values()):
        forge(forged)
        shop.tell('add', [{'number': f'EDX-{number}'}])
        publish(f'EDX-{number}')
    eventually(lambda: broker.depth(topology.PARKED) == len(hostile()))
    for number in range(len(hostile())):
        eventually(lambda: 'done' in worker.outcomes(f'EDX-{number}'))  # noqa: B023 - asked at once
    reasons = [message.headers[NOTES]['reason'] for message in broker.parked()]
    for name, (_, expected) in hostile().items():
        assert any(expected in reason for reason in reasons), name
    assert worker.process.poll() is None
    assert worker.stop() == 0


#: A task that finds no site in a call.
ODD = """
from ecommerce_worker.execution.task import task
@task(policy=lambda site: site.fulfillment_policy, site=lambda call: call.kwargs['site'])
def odd(self, *args, **kwargs):
    pass
"""


def test_a_message_that_cannot_be_described_is_parked_with_its_body(broker, shop, publish, forge, environment, tmp_path,
                                                                   start_worker):
    (tmp_path / 'odd.py').write_text(ODD)
    environment['PYTHONPATH'] = str(tmp_path)
    worker = start_worker(CELERY_IMPORTS=f'{FULFILL.rpartition(".")[0]},odd').ready()
    forge(Forged(ORDER, properties(JSON.encode(), fuzz.table(task='odd.odd', id='id'), correlation_id=b'\xff\xfe')))
    shop.add_order('EDX-1')
    publish('EDX-1')
    eventually(lambda: worker.settled('EDX-1') == 'done')
    message, = eventually(broker.parked)
    assert bytes(message.body) == ORDER
    assert message.headers[NOTES]['reason'] == 'not all of it can be read: correlation_id'
    assert message.headers[NOTES]['queue'] == QUEUE


def test_headers_that_fill_a_frame_are_parked_as_far_as_there_is_room(broker, forge, start_worker):
    start_worker('--concurrency', '2').ready()
    full = fuzz.full_headers(random.Random(1))
    small = Forged(b'{', properties(JSON.encode(), short(b'a') + b'I' + bytes(4) + short(b'\xff') + b'V'
                                    + short(b'full') + b'S' + long(b'z' * 130_000)))
    for _ in range(3):
        forge(full)
        forge(small)
    parked = eventually(lambda: len(found := broker.parked()) == 6 and found)
    assert [set(message.headers) - {NOTES} for message in parked].count({'a', b'\xff'}) == 3


def test_a_command_that_changes_a_worker_is_not_obeyed_and_one_that_asks_is(broker, shop, publish, forge, start_worker):
    worker = start_worker().ready()
    control = Celery('other', broker=broker.url, set_as_current=False).control
    for command, arguments in (('cancel_consumer', {'queue': QUEUE}), ('shutdown', {}), ('pool_shrink', {'n': 31}),
                               ('revoke', {'task_id': 'id-1'}), ('rate_limit', {'task_name': FULFILL, 'rate_limit': 1}),
                               ('hello', {'from_node': 'x', 'revoked': ['id-1']})):
        control.broadcast(command, arguments)
    for body in (b'[]', b'"x"', b'\xff', b'{"method": 7}', b'[' * 9999,
                 b'{"method": "ping", "pattern": "(a+)+$", "matcher": "pcre"}'):
        for headers in (None, short(b'x') + nested(3000), short(b'clock') + b'l' + b'\x7f' + b'\xff' * 7):
            strange = properties(JSON.encode(), headers, correlation_id=b'\xff')
            forge(Forged(body, strange, 'celery.pidbox', b'\xff\xfe'))
    answers = eventually(lambda: control.ping(timeout=2))
    assert [answer for each in answers for answer in each.values()] == [{'ok': 'pong'}]
    assert control.inspect(timeout=2).revoked().popitem()[1] == []
    shop.tell('add', [{'number': 'EDX-1'}])
    publish('EDX-1')
    eventually(lambda: worker.settled('EDX-1') == 'done')
    assert 'was ignored' in worker.log
    assert not broker.parked()


def test_a_command_that_is_named_in_remote_control_is_obeyed(broker, start_worker):
    worker = start_worker(REMOTE_CONTROL='shutdown,revoke').ready()
    control = Celery('other', broker=broker.url, set_as_current=False).control
    control.broadcast('shutdown')
    assert worker.process.wait(60) == 0


def test_commands_survive_what_lies_in_the_queues(broker, forge, command):
    with broker.connection() as connection:
        topology.declare_parked(connection)
    for forged, _ in hostile().values():
        forge(forged)
        forge(Forged(forged.body, forged.properties, '', topology.PARKED))
    for words in (('parked', 'list'), ('queues', 'purge', '--yes', QUEUE), ('parked', 'discard', '--all', '--yes'),
                  ('status',)):
        done = command(*words)
        assert 'Traceback' not in done.stderr, done.stderr


def test_what_was_read_ahead_while_somebody_waited_reaches_its_consumer(broker):
    with BrokerConnection(broker.url) as connection:
        hub, channel, come = Hub(), connection.channel(), list[Any]()
        connection.transport.register_with_event_loop(connection.connection, hub)
        queue = Queue(QUEUE).bind(channel)
        queue.consume('tag', come.append)
        for number in range(200):
            broker.publish_raw(b'%d' % number)
            # Its answer comes behind what has been delivered meanwhile.
            channel.queue_declare(queue=QUEUE, passive=True)
        loop = hub.create_loop()
        deadline = time.monotonic() + 30
        while len(come) < 200 and time.monotonic() < deadline:
            next(loop)
        assert [message.body for message in come] == [b'%d' % number for number in range(200)]
        hub.close()


def test_some_thousand_messages_of_the_fuzzer_are_parked_or_run(node, broker, tmp_path):
    report = fuzz.fuzz(node, tmp_path, 1500, 7)
    assert not report.troubles, report


def test_the_recorder_takes_what_lies_among_parked_messages_and_facts(broker, forge, environment, tmp_path):
    run = [sys.executable, '-m', 'ecommerce_worker']
    subprocess.run([*run, 'migrate'], env=environment, check=True, capture_output=True)
    with broker.connection() as connection:
        topology.declare_parked(connection)
        topology.declare_facts(connection)
        connection.default_channel.queue_purge(topology.LEDGER)
    for forged, _ in hostile().values():
        forge(Forged(forged.body, forged.properties, '', topology.PARKED))
        forge(Forged(forged.body, forged.properties, topology.FACTS, b'\xff\xfe'))
    recorder = subprocess.Popen([*run, 'recorder'], env=environment, stderr=subprocess.PIPE)

    def kept() -> list[int]:
        with sqlite3.connect(tmp_path / 'ledger.sqlite3') as ledger:
            return [ledger.execute(f'SELECT count(*) FROM {table}').fetchone()[0]
                    for table in ('ledger_parkedmessage', 'ledger_setaside')]

    try:
        # Two orders are the same body, which is set aside once.
        bodies = len({forged.body for forged, _ in hostile().values()})
        eventually(lambda: recorder.poll() is not None or kept() == [len(hostile()), bodies], seconds=60)
        assert recorder.poll() is None
    finally:
        recorder.terminate()
        _, errors = recorder.communicate(timeout=30)
    assert recorder.returncode == 0, errors
    assert broker.depth(topology.PARKED) + broker.depth(topology.LEDGER) == 0
