"""What the worker has in the broker: shapes, names and keys."""

import json
from datetime import UTC, datetime

import pytest
from celery import Celery
from kombu import Exchange, Queue
from kombu.transport import native_delayed_delivery
from kombu.utils import functional

from ecommerce_worker.broker import publishing, topology
from ecommerce_worker.broker.notes import NOTES, Notes, ParkingNote
from ecommerce_worker.broker.wire import Call, Raw
from ecommerce_worker.errors import NotPublished
from ecommerce_worker.tests.support.memory import taken

TASK_QUEUES = ('ecommerce.fulfillment', 'ecommerce.email_marketing', 'ecommerce.default', 'fulfillment',
               'email_marketing')
CALL = Call('ecommerce_worker.fulfillment.v1.tasks.fulfill_order', 'id-1', ('EDX-1',), {'site_code': 'edx'}, retries=2)
RAW = Raw(b'\x80\x02anything', 'application/x-python-serialize', 'binary', {'id': 'id-1'}, {'correlation_id': 'id-1'})


@pytest.fixture
def delaying(monkeypatch):
    """The broker delays messages itself, as far as the worker can see."""
    def declare_delivery(connection):
        Exchange(topology.DELIVERY, 'topic').bind(connection.default_channel).declare()
        Exchange(topology.UNDELIVERABLE, 'fanout').bind(connection.default_channel).declare()
        return []

    for module in (topology, publishing):
        monkeypatch.setattr(module, 'is_rabbitmq', lambda connection: True)
    monkeypatch.setattr(topology, 'declare_waiting_room', declare_delivery)


# -- shapes -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('name', TASK_QUEUES)
def test_a_task_queue_has_the_shape_in_which_the_shop_declares_it(name):
    queue = topology.task_queue(name)
    assert (queue.name, queue.durable, queue.exclusive, queue.auto_delete) == (name, True, False, False)
    assert not queue.queue_arguments
    assert (queue.expires, queue.message_ttl, queue.max_length, queue.max_priority) == (None, None, None, None)


@pytest.mark.parametrize('exchange, routing_key, queue', [
    *((name, name, name) for name in TASK_QUEUES), ('ecommerce', 'ecommerce', 'ecommerce.default')])
def test_a_task_queue_gets_what_celery_3_publishes(app, channel, exchange, routing_key, queue):
    with app.connection_for_write() as connection:
        topology.declare(connection, map(topology.task_queue, TASK_QUEUES))
    channel.basic_publish(channel.prepare_message('x'), exchange=exchange, routing_key=routing_key)
    assert [name for name in TASK_QUEUES if taken(channel, name)] == [queue]


def test_a_quorum_queue_says_so_in_its_arguments():
    assert topology.task_queue('ecommerce.fulfillment', 'quorum').queue_arguments == {'x-queue-type': 'quorum'}


@pytest.mark.parametrize('exchange, routing_key, queue', [
    ('', 'ecommerce.fulfillment', 'ecommerce.fulfillment'),
    ('ecommerce.fulfillment', 'ecommerce.fulfillment', 'ecommerce.fulfillment'),
    ('fulfillment', 'fulfillment', 'fulfillment'),
    ('', 'ecommerce.default', 'ecommerce.default'),
    ('ecommerce', 'ecommerce', 'ecommerce.default'),
    ('', 'ecommerce', 'ecommerce'),
    ('celery', 'celery', 'celery'),
])
def test_where_a_message_was_published_tells_its_queue(exchange, routing_key, queue):
    assert topology.queue_of(exchange, routing_key) == queue


@pytest.mark.parametrize('number', [0, 9, topology.BITS - 1])
def test_the_waiting_room_has_the_names_that_kombu_gives_it(number):
    assert topology.level(number) == native_delayed_delivery.level_name(number, topology.PREFIX)


def test_headers_travel_on_without_what_must_not():
    headers = {'task': 'x', 'id': 'id-1', 'argsrepr': "('ann@example.com',)", 'kwargsrepr': '{}', 'x-death': [{}],
               'x-first-death-queue': 'a', 'x-first-death-reason': 'expired', 'x-last-death-exchange': 'b',
               'compression': 'application/x-gzip', NOTES: {'attempt': 1}, 'x-request-id': 'r'}
    kept = dict(headers)
    assert publishing.without_traces(headers) == {
        'task': 'x', 'id': 'id-1', 'x-request-id': 'r', 'compression': 'application/x-gzip'}
    assert headers == kept


# -- ways -------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('name', TASK_QUEUES)
def test_a_delayed_message_reaches_its_own_queue_and_no_other(app, channel, delaying, name):
    with app.connection_for_write() as connection:
        topology.declare(connection, map(topology.task_queue, TASK_QUEUES))
    key = native_delayed_delivery.calculate_routing_key(77, name)
    channel.basic_publish(channel.prepare_message('x'), exchange=topology.DELIVERY, routing_key=key)
    assert [queue for queue in TASK_QUEUES if taken(channel, queue)] == [name]


def test_a_queue_named_like_the_end_of_another_gets_none_of_its_messages(app, channel, delaying):
    names = ('b', 'a.b', 'c.a.b', '0.b', '1.0.b')
    with app.connection_for_write() as connection:
        topology.declare(connection, map(topology.task_queue, names))
    for name in names:
        key = native_delayed_delivery.calculate_routing_key(2 ** topology.BITS - 1, name)
        channel.basic_publish(channel.prepare_message(name), exchange=topology.DELIVERY, routing_key=key)
    assert [taken(channel, name).body.decode() for name in names] == list(names)
    assert not any(taken(channel, name) for name in names)


@pytest.mark.parametrize('delay, seconds, number', [
    (0, 1, 0), (0.2, 1, 0), (1, 1, 0), (1.01, 2, 1), (3, 3, 1), (600, 600, 9), (1023, 1023, 9), (1024, 1024, 10),
    (1e12, 2 ** 28 - 1, 27)])
def test_a_delay_enters_at_its_highest_bit_with_the_routing_key_that_kombu_writes(
        app, channel, delaying, delay, seconds, number):
    room = Exchange(topology.level(number), 'topic')
    Queue('waiting', room, routing_key='#').bind(channel).declare()
    publishing.wait(app, CALL, Notes(queue='ecommerce.fulfillment'), delay)
    assert taken(channel, 'waiting').delivery_info['routing_key'] == native_delayed_delivery.calculate_routing_key(
        seconds, 'ecommerce.fulfillment')


def test_where_the_broker_cannot_delay_a_message_carries_the_time_before_which_it_must_not_run(app, channel):
    before = datetime.now(UTC).timestamp()
    publishing.wait(app, CALL, Notes(queue='ecommerce.fulfillment'), 600)
    eta = datetime.fromisoformat(taken(channel, 'ecommerce.fulfillment').headers['eta'])
    assert before + 600 <= eta.timestamp() <= datetime.now(UTC).timestamp() + 600


def test_a_waiting_message_is_the_same_call_in_json(app, channel):
    notes = Notes(queue='ecommerce.fulfillment', attempt=3, refusals=1, outages=2, since=1.5,
                  history=({'reason': 'x'},))
    publishing.wait(app, CALL, notes, 1)
    message = taken(channel, 'ecommerce.fulfillment')
    assert json.loads(message.body) == [['EDX-1'], {'site_code': 'edx'}, {}]
    assert (message.content_type, message.content_encoding) == ('application/json', 'utf-8')
    assert {name: message.headers[name] for name in ('task', 'id', 'root_id', 'retries', 'argsrepr', 'kwargsrepr')} == {
        'task': CALL.task, 'id': 'id-1', 'root_id': 'id-1', 'retries': 2, 'argsrepr': '', 'kwargsrepr': ''}
    assert Notes.of(message.headers) == notes
    assert message.properties['correlation_id'] == 'id-1'
    assert message.properties['delivery_mode'] == 2


def note(**notes):
    return ParkingNote(id='id-1', task='t', key='EDX-1', reason='why', notes=Notes(**notes))


def sent_again(app, channel):
    raw = Raw.of(taken(channel, topology.PARKED))
    found = ParkingNote.read(raw.headers)
    assert found
    publishing.publish(app, publishing.unparked(raw, found, TASK_QUEUES))


def test_a_parked_message_is_kept_as_it_came_with_the_reason_beside_it(app, channel):
    publishing.park(app, RAW, note(queue='fulfillment', attempt=2))
    message = taken(channel, topology.PARKED)
    assert message.body == RAW.body
    assert (message.content_type, message.content_encoding) == (RAW.content_type, RAW.content_encoding)
    assert message.headers['id'] == 'id-1'
    header = message.headers[NOTES]
    assert (header['task'], header['id'], header['key'], header['reason']) == ('t', 'id-1', 'EDX-1', 'why')
    assert (header['queue'], header['attempt']) == ('fulfillment', 2)
    assert message.properties['delivery_mode'] == 2


@pytest.mark.parametrize('content_type', ['application/x-python-serialize', 'application/x-yaml', None])
def test_a_parked_message_that_is_sent_again_is_the_one_that_came(app, channel, content_type):
    raw = Raw(RAW.body, content_type, 'binary', {'id': 'id-1', 'x-death': [], 'a': 1}, {'correlation_id': 'id-1'})
    publishing.park(app, raw, note(queue='fulfillment', attempt=12, refusals=12, outages=3, redelivered=4, since=1.0,
                                   history=({'reason': 'why'},)))
    sent_again(app, channel)
    message = taken(channel, 'fulfillment')
    assert message.body == RAW.body
    assert message.content_type == (content_type or 'application/octet-stream')
    assert message.headers['a'] == 1
    assert 'x-death' not in message.headers
    # Its patience is renewed, but it is known to have been tried.
    found = Notes.of(message.headers)
    assert found == Notes(queue='fulfillment', resent=True, attempt=16, history=found.history)
    assert [entry['reason'] for entry in found.history] == ['why', 'resent by a person']


@pytest.mark.parametrize('queue, said', [('evil.queue', 'names the queue evil.queue'), ('', 'queue is unknown'),
                                         ('evil\nqueue', r'evil\?queue')])
def test_a_parked_message_is_sent_to_no_queue_but_ours(app, channel, queue, said):
    publishing.park(app, RAW, note(queue=queue))
    with pytest.raises(publishing.UnknownQueue, match=said):
        sent_again(app, channel)
    assert taken(channel, queue or 'celery') is None


def test_a_broker_that_is_gone_is_told_as_not_published(monkeypatch):
    waits: list[float] = []
    monkeypatch.setattr(functional, 'sleep', waits.append)
    unreachable = Celery('worker', broker='amqp://127.0.0.1:1//', set_as_current=False)
    with unreachable as app, pytest.raises(NotPublished) as caught:
        publishing.park(app, RAW, note())
    assert sum(waits) < 10
    assert '127.0.0.1' not in str(caught.value)
