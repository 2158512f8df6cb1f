"""The recorder against a real RabbitMQ: nothing is lost and nothing is counted twice, whoever is killed."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from kombu import Producer

from ecommerce_worker.broker import publishing, topology
from ecommerce_worker.broker.notes import NOTES, Notes, ParkingNote
from ecommerce_worker.broker.wire import Raw
from ecommerce_worker.fulfillment.names import FULFILL
from ecommerce_worker.operations.parked import looked_through
from ecommerce_worker.telemetry.run import RunReport
from ecommerce_worker.tests.support.harness import QUEUE, Broker, Program, eventually, shop_app
from ecommerce_worker.tests.support.ledger import (
    Ledger,
    PrivateMariadb,
    PrivatePostgres,
    Refused,
    environment_of,
    private,
)

NOW = datetime.now(UTC).timestamp()


@pytest.fixture(scope='module')
def postgresql():
    """A PostgreSQL for these tests."""
    with private(PrivatePostgres) as server:
        yield server


@pytest.fixture(scope='module')
def mysql():
    """A MariaDB for these tests."""
    with private(PrivateMariadb) as server:
        yield server


@pytest.fixture(params=['postgresql', 'mysql'])
def server(request):
    """Either of them."""
    return request.getfixturevalue(request.param)


@pytest.fixture(params=['sqlite', 'postgresql', 'mysql'])
def ledger(request, tmp_path):
    """An empty ledger on each."""
    database = {'NAME': str(tmp_path / 'ledger.sqlite3')}
    if request.param != 'sqlite':
        database = request.getfixturevalue(request.param).database
    ledger = Ledger(database)
    ledger('empty')
    yield ledger
    ledger.close()


@pytest.fixture
def queues(broker):
    """The queues that the recorder takes from, empty."""
    with broker.connection() as connection:
        topology.declare_facts(connection)
        topology.declare_parked(connection)
        connection.default_channel.queue_purge(topology.LEDGER)
    return broker


class Recorder(Program):
    """A recorder of this ledger."""

    def __init__(self, broker_url: str, database: Mapping[str, Any], log: Path) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith('ECOMMERCE_WORKER')}
        environment = {**kept, **environment_of(database), 'ECOMMERCE_WORKER_BROKER_URL': broker_url,
                       'WORKER_CONFIGURATION_MODULE': 'ecommerce_worker.configuration.local'}
        super().__init__(log, environment, '-m', 'ecommerce_worker', 'recorder')


@pytest.fixture
def record(queues: Broker, tmp_path: Path) -> Iterator[Callable[..., Recorder]]:
    """Start a recorder of a ledger."""
    started: list[Recorder] = []

    def start(ledger: Ledger, url: str = queues.url) -> Recorder:
        started.append(Recorder(url, ledger.database, tmp_path / f'recorder-{len(started)}.log'))
        return started[-1]

    yield start
    for recorder in started:
        recorder.kill()


@pytest.fixture
def app(queues):
    """A producer."""
    with shop_app(queues.url) as app:
        yield app


def tell(broker, facts):
    """Publish facts as a worker does."""
    with broker.connection() as connection:
        producer = Producer(connection)
        for fact in facts:
            body = fact if isinstance(fact, bytes) else fact.as_body()
            producer.publish(body, exchange=topology.FACTS, routing_key='done.x', delivery_mode=2,
                             content_type='application/json', content_encoding='utf-8')


def park(app, number, body=b'{"who": "learner@example.com"}'):
    publishing.park(app, Raw(body, 'application/json', 'utf-8', {'task': FULFILL, 'id': f'id-{number}'},
                             {'correlation_id': f'id-{number}'}),
                    ParkingNote(id=f'id-{number}', task=FULFILL, key=f'EDX-{number}', site='edx', reason='why',
                                notes=Notes(queue=QUEUE, attempt=3)))


def fact(number, outcome='done'):
    return RunReport(outcome, started=NOW, seconds=0.1, attempt=1, task=FULFILL, id=f'id-{number}', key=f'EDX-{number}',
                     site='edx', queue=QUEUE)


def more_than(ledger, count):
    return len(ledger('rows', 'Attempt', 'pk')) > count


def drained(broker):
    return lambda: broker.depth(topology.LEDGER) == broker.depth(topology.PARKED) == 0


def test_facts_and_parked_messages_come_into_the_ledger(queues, ledger, record, app):
    recorder = record(ledger)
    tell(queues, [fact(1), fact(2, 'retrying'), b'{"version": 7}', b'nonsense'])
    park(app, 3)
    eventually(lambda: len(ledger('rows', 'Order', 'pk')) == 3 and len(ledger('rows', 'SetAside', 'pk')) == 2)
    assert sorted(ledger('rows', 'Order', 'key', 'state')) == [
        ('EDX-1', 'fulfilled'), ('EDX-2', 'waiting'), ('EDX-3', 'parked')]
    assert recorder.stop() == 0
    assert 'learner' not in recorder.log
    assert drained(queues)()


def test_a_recorder_that_is_killed_again_and_again_loses_and_doubles_nothing(queues, ledger, record, app):
    tell(queues, [fact(number) for number in range(6000)])
    for number in range(6000, 6100):
        park(app, number)
    kills = 0
    while not (count := len(ledger('rows', 'Attempt', 'pk'))) or (kills < 4 and count < 6000):
        recorder = record(ledger)
        eventually(partial(more_than, ledger, count))
        recorder.kill()
        kills += 1
    record(ledger)
    eventually(lambda: len(ledger('rows', 'Attempt', 'pk')) == 6000
               and len(ledger('rows', 'ParkedMessage', 'pk')) == 100, seconds=60)
    eventually(drained(queues))
    assert kills > 0
    orders = ledger('rows', 'Order', 'key', 'attempts', 'state')
    assert sorted(orders) == sorted([(f'EDX-{number}', 1, 'fulfilled') for number in range(6000)]
                                    + [(f'EDX-{number}', 0, 'parked') for number in range(6000, 6100)])


def test_two_recorders_share_a_ledger(queues, ledger, record):
    tell(queues, [fact(number % 100) for number in range(2000)])
    recorders = [record(ledger), record(ledger)]
    eventually(lambda: len(ledger('rows', 'Attempt', 'pk')) == 2000, seconds=60)
    assert sorted(ledger('rows', 'Order', 'attempts')) == [20] * 100
    assert all(recorder.process.poll() is None for recorder in recorders)


@pytest.mark.parametrize('ledger', ['sqlite'], indirect=True)
def test_a_recorder_waits_for_its_broker(link, queues, ledger, record):
    recorder = record(ledger, link.url)
    tell(queues, [fact(1)])
    eventually(lambda: ledger('rows', 'Attempt', 'pk'))
    with link.interrupted():
        eventually(lambda: 'unreachable: what="the broker"' in recorder.log)
    tell(queues, [fact(2)])
    eventually(lambda: len(ledger('rows', 'Attempt', 'pk')) == 2)
    assert recorder.log.count('unreachable: what="the broker"') == 1
    assert recorder.log.count('recording continues: what="the broker"') == 1


def test_a_recorder_waits_for_its_database(queues, server, record, app):
    ledger = Ledger(server.database)
    ledger('empty')
    recorder = record(ledger)
    tell(queues, [fact(1)])
    eventually(lambda: ledger('rows', 'Attempt', 'pk'))
    server.kill()
    try:
        tell(queues, [fact(2)])
        park(app, 3)
        eventually(lambda: 'unreachable: what="the ledger"' in recorder.log)
        eventually(lambda: queues.depth(topology.LEDGER) == queues.depth(topology.PARKED) == 1)
    finally:
        server.start()
    ledger.close()
    ledger = Ledger(server.database)
    eventually(lambda: len(ledger('rows', 'Attempt', 'pk')) == 2 and ledger('queries.count_parked') == 1)
    eventually(drained(queues))
    ledger.close()
    assert recorder.log.count('unreachable: what="the ledger"') == 1
    assert recorder.log.count('recording continues: what="the ledger"') == 1


def test_a_database_that_is_killed_again_and_again_loses_and_doubles_nothing(queues, server, record, app):
    ledger = Ledger(server.database)
    ledger('empty')
    record(ledger)
    tell(queues, [fact(number) for number in range(5000)])
    for count in (0, 1000, 2500):
        eventually(partial(more_than, ledger, count))
        ledger.close()
        server.kill()
        server.start()
        ledger = Ledger(server.database)
    eventually(lambda: len(ledger('rows', 'Attempt', 'pk')) == 5000, seconds=60)
    eventually(drained(queues))
    assert sorted(ledger('rows', 'Order', 'key', 'attempts')) == sorted((f'EDX-{number}', 1) for number in range(5000))
    ledger.close()


def test_a_recorder_that_its_database_hung_up_on_opens_another_connection(queues, server, record):
    ledger = Ledger(server.database)
    ledger('empty')
    recorder = record(ledger)
    for number in (1, 2):       # with the first one it tidies up, too
        tell(queues, [fact(number)])
        eventually(partial(more_than, ledger, number - 1))
    ledger('hang_up')
    tell(queues, [fact(3)])
    eventually(partial(more_than, ledger, 2))
    ledger.close()
    assert 'unreachable' not in recorder.log


def test_a_parked_message_that_the_database_does_not_take_stays_in_rabbitmq_and_holds_nobody_up(
        queues, mysql, record, app):
    ledger = Ledger(mysql.database)
    ledger('empty')
    ledger('execute', f'SET GLOBAL max_allowed_packet = {1024 * 1024}')
    try:
        for number, size in enumerate((10, 2_000_000, 10)):
            park(app, number, b'\xff' * size)
        recorder = record(ledger)
        eventually(lambda: ledger('queries.count_parked') == 2)
        assert queues.depth(topology.PARKED_LARGE) == 1
        assert 'larger than the database accepts' in recorder.log
        # The commands know it all the same.
        with queues.connection() as connection, looked_through(connection) as found:
            assert [(parked.id, len(parked.raw.body)) for parked in found] == [('id-1', 2_000_000)]
    finally:
        ledger('execute', f'SET GLOBAL max_allowed_packet = {16 * 1024 * 1024}')
        ledger.close()
        with queues.connection() as connection:
            connection.default_channel.queue_delete(topology.PARKED_LARGE)


def test_parked_messages_are_taken_that_are_too_big_for_one_statement(queues, server, record, app):
    ledger = Ledger(server.database)
    ledger('empty')
    for number in range(5):
        park(app, number, b'\xff' * 6_000_000)
    record(ledger)
    eventually(lambda: ledger('queries.count_parked') == 5)
    ledger.close()


def test_a_recorder_started_before_its_database_waits_for_it(queues, server, record):
    ledger = Ledger(server.database)
    ledger('empty')
    ledger.close()
    server.kill()
    try:
        recorder = record(ledger)
        eventually(lambda: 'unreachable: what="the ledger"' in recorder.log)
    finally:
        server.start()
    tell(queues, [fact(1)])
    ledger = Ledger(server.database)
    eventually(lambda: ledger('rows', 'Attempt', 'pk'))
    ledger.close()


def test_a_recorder_without_a_ledger_says_how_to_make_one(queues, record, tmp_path):
    ledger = Ledger({'NAME': str(tmp_path / 'none.sqlite3')}, migrated=False)
    recorder = record(ledger)
    assert recorder.process.wait(30) == 1
    assert '`ecommerce-worker migrate` creates it' in recorder.log
    ledger.close()


def test_what_somebody_else_put_among_the_parked_messages_is_kept_one_by_one(queues, ledger, record):
    for _ in range(3):
        queues.publish_raw(b'the same', routing_key=topology.PARKED, headers={'x': 1}, content_type='text/plain')
    record(ledger)
    eventually(lambda: ledger('queries.count_parked') == 3)
    assert {each['reason'] for each in ledger('queries.parked')} == {'put here by another program or person'}
    eventually(drained(queues))


def test_an_order_that_somebody_else_put_there_is_known_by_its_number(queues, ledger, record):
    queues.publish_raw(b'[["EDX-9"], {}, {}]', routing_key=topology.PARKED, content_type='application/json',
                       content_encoding='utf-8',
                       headers={'task': 'ecommerce_worker.fulfillment.v1.tasks.fulfill_order', 'id': 'id-9'})
    record(ledger)
    eventually(lambda: [each['key'] for each in ledger('queries.parked')] == ['EDX-9'])


def test_a_resent_message_goes_to_its_queue_as_it_came(queues, ledger, record, app):
    body = json.dumps([['EDX-1'], {'site_code': 'edx'}, {}]).encode()
    park(app, 1, body)
    record(ledger)
    eventually(lambda: ledger('queries.count_parked') == 1)
    [number] = ledger('rows', 'ParkedMessage', 'pk')
    assert ledger('resend', queues.url, number, who='ada', reason='the shop is back') == QUEUE
    with queues.connection() as connection:
        message = topology.task_queue(QUEUE).bind(connection.channel()).get(no_ack=True)
    assert (bytes(message.body, 'utf-8') if isinstance(message.body, str) else bytes(message.body)) == body
    assert (message.content_type, message.headers['id']) == ('application/json', 'id-1')
    assert message.headers[NOTES]['resent'] is True
    assert ledger('rows', 'ParkedMessage', 'body', 'headers', 'settled') == [(None, '', 'resent')]
    assert ledger('rows', 'Audit', 'who', 'action', 'reason', 'key') == [('ada', 'resent', 'the shop is back', 'EDX-1')]
    assert ledger('rows', 'Order', 'state', 'reason') == [('trying', 'resent by ada')]
    with pytest.raises(Refused, match='AlreadySettled'):
        ledger('resend', queues.url, number, who='bob')


@pytest.mark.parametrize('ledger', ['postgresql'], indirect=True)
def test_a_message_that_cannot_be_resent_stays_parked(link, queues, ledger, record, app):
    park(app, 1)
    recorder = record(ledger)
    eventually(lambda: ledger('queries.count_parked') == 1)
    [number] = ledger('rows', 'ParkedMessage', 'pk')
    recorder.stop()
    with link.interrupted(), pytest.raises(Refused, match='NotPublished'):
        ledger('resend', link.url, number, who='ada')
    assert ledger('queries.count_parked') == 1
    assert ledger('rows', 'Audit', 'pk') == []
    assert ledger('queries.body_of', number)
