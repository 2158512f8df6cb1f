"""What policies and arguments do to our queues, as the management plugin and rabbitmqctl tell it."""

import json
from types import SimpleNamespace

import pytest

from ecommerce_worker.doctor.examination import answers
from ecommerce_worker.doctor.lines import State
from ecommerce_worker.doctor.queues import Queue, Unseen, judged, look, seen
from ecommerce_worker.settings import load
from ecommerce_worker.testing.peer import Peer, Reply, reply

SETTINGS = load({'WORKER_CONFIGURATION_MODULE': 'ecommerce_worker.configuration.test'})

#: What the policy of deploy/rabbitmq does for quorum task queues.
PARKS = {'dead-letter-exchange': '', 'dead-letter-routing-key': 'ecommerce.parked'}

#: What RabbitMQ answers at its other port.
AMQP = Reply([b'AMQP\0\0\x09\x01'], close=True)

ORDERS, PARKED, LEDGER, ROOM = ('ecommerce.fulfillment', 'ecommerce.parked', 'ecommerce.ledger',
                                'ecommerce_celery_delayed_3')


def connection(version='3.10.8', host='/'):
    return SimpleNamespace(virtual_host=host, transport=SimpleNamespace(driver_type='amqp'),
                           connection=SimpleNamespace(server_properties={'version': version}))


def states(queue, version=(3, 10, 8)):
    return [it.state.value for it in judged(queue, SETTINGS, version)]


@pytest.mark.parametrize('queue, version, expected', [
    (Queue(ORDERS), (4, 3, 6), []),
    (Queue(ORDERS, policy={'ha-mode': 'all', 'queue-mode': 'lazy'}), (3, 10), []),
    (Queue(ORDERS, policy={'message-ttl': 1}), (3, 10), ['bad']),
    (Queue(PARKED, policy={'message-ttl': 1}), (3, 10), ['bad']),
    (Queue(LEDGER, policy={'message-ttl': 1, 'max-length': 5, 'overflow': 'drop-head'}), (3, 10), []),
    (Queue(ROOM, 'quorum', {'message-ttl': 8000, 'delivery-limit': 10 ** 9}), (4, 3), []),
    (Queue(ROOM, 'quorum', {'message-ttl': 4000, 'delivery-limit': 10 ** 9}), (4, 3), ['bad']),
    (Queue(ROOM, 'quorum', {'message-ttl': 8000}), (4, 3), ['bad']),
    (Queue(ROOM, 'quorum', {'message-ttl': 8000}), (3, 12), []),
    (Queue(ORDERS, policy={'expires': 1}), (3, 10), ['bad']),
    (Queue(LEDGER, policy={'expires': 1}), (3, 10), ['bad']),
    (Queue(ORDERS, policy={'max-length-bytes': 1}), (3, 10), ['bad']),
    (Queue(ORDERS, policy={'max-length': 1, 'overflow': 'drop-head'}), (3, 10), ['bad']),
    (Queue(ORDERS, policy={'max-length': 1, 'overflow': 'reject-publish'}), (3, 10), ['warning']),
    (Queue(ORDERS, 'quorum'), (3, 13), []),
    (Queue(ORDERS, 'quorum'), (4, 0), ['bad']),
    (Queue(ORDERS, 'quorum', PARKS), (4, 0), []),
    (Queue(ORDERS, 'quorum', {'delivery-limit': -1}), (4, 0), []),
    (Queue(ORDERS, 'quorum', {'delivery-limit': 5}), (3, 10), ['bad']),
    (Queue(PARKED, 'quorum', PARKS), (4, 0), ['bad']),
], ids=str)
def test_what_destroys_messages_is_bad(queue, version, expected):
    assert states(queue, version) == expected


@pytest.fixture
def plugin():
    """The management plugin, as far as it is asked."""
    peers = []

    def answering(*replies):
        peers.append(Peer(list(replies)))
        return peers[-1]

    yield answering
    for each in peers:
        each.close()


def managed(url):
    return load({'WORKER_CONFIGURATION_MODULE': 'ecommerce_worker.configuration.test',
                 'ECOMMERCE_WORKER_MANAGEMENT_URL': url})


def test_the_management_plugin_is_asked_for_our_virtual_host_with_its_own_user(plugin):
    peer = plugin(reply(body=json.dumps([
        {'name': ORDERS, 'type': 'classic', 'arguments': {}, 'effective_policy_definition': {'message-ttl': 60_000}},
        {'name': 'of.another', 'type': 'classic', 'effective_policy_definition': {'expires': 1}}]).encode()))
    url = peer.url.replace('http://', 'http://monitor:p%40ss@')
    line, = look(connection(host='a/b'), managed(url))
    assert (line.state, line.sentence) == (
        State.BAD, 'Messages in ecommerce.fulfillment are destroyed after 60 s (message-ttl).')
    request, = peer.requests
    assert request.target == '/api/queues/a%2Fb'
    assert request.headers['authorization'] == 'Basic bW9uaXRvcjpwQHNz'


@pytest.mark.parametrize('given', [
    reply(401), reply(500), reply(body=b'<html>'), reply(body=b'{"error": "no"}'), reply(200, b'[', close=True),
    reply(200, b'[', length=9), AMQP],
    ids=['401', '500', 'html', 'no list', 'cut', 'too short', 'the port of AMQP'])
def test_a_plugin_that_does_not_tell_makes_nothing_bad(plugin, given):
    peer = plugin(given)
    url = peer.url.replace('http://', 'http://monitor:hush@')
    line, = look(connection(), managed(url))
    assert line.state is State.UNKNOWN
    assert 'hush' not in line.sentence


def test_somebody_else_at_the_address_of_the_intake_is_none(plugin):
    assert answers(f'127.0.0.1:{plugin(AMQP).port}').state is State.UNKNOWN


def test_arguments_count_as_policies_do(plugin):
    peer = plugin(reply(body=json.dumps([{
        'name': ORDERS, 'type': 'rabbit_classic_queue', 'arguments': {'x-expires': 5},
        'effective_policy_definition': []}]).encode()))
    assert seen(connection(), managed(peer.url)) == [Queue(ORDERS, 'classic', {'expires': 5})]


@pytest.fixture
def rabbitmqctl(tmp_path, monkeypatch):
    """One that prints what is asked for, as RabbitMQ 3.10 does."""
    def printing(**lists):
        for name, value in {'list_policies': [], 'list_operator_policies': [], 'list_queues': [], **lists}.items():
            (tmp_path / name).write_text(json.dumps(value))
        (tmp_path / 'rabbitmqctl').write_text(f'#!/bin/sh\nexec /bin/cat "{tmp_path}/$4"\n')
        (tmp_path / 'rabbitmqctl').chmod(0o755)
        monkeypatch.setenv('PATH', str(tmp_path))

    return printing


def test_rabbitmqctl_tells_of_policies_and_of_those_of_operators(rabbitmqctl):
    rabbitmqctl(
        list_policies=[{'name': 'p', 'pattern': '.*', 'definition': '{"max-length":5}', 'apply-to': 'all'}],
        list_operator_policies=[
            {'name': 'low', 'pattern': '^eco', 'definition': '{"expires":1}', 'apply-to': 'queues', 'priority': 1},
            {'name': 'high', 'pattern': '^eco', 'definition': '{"message-ttl":7}', 'apply-to': 'all', 'priority': 2},
            {'name': 'other', 'pattern': '^eco', 'definition': '{"expires":1}', 'apply-to': 'quorum_queues',
             'priority': 3}],
        list_queues=[{'name': ORDERS, 'type': 'classic', 'arguments': [['x-overflow', 'longstr', 'reject-publish']],
                      'policy': 'p'}])
    assert seen(connection(), SETTINGS) == [
        Queue(ORDERS, 'classic', {'max-length': 5, 'message-ttl': 7, 'overflow': 'reject-publish'})]


@pytest.mark.parametrize('pattern', ['^[[:alpha:]]+', '(?R)'])
def test_a_pattern_that_only_erlang_reads_makes_it_unknown(rabbitmqctl, pattern):
    rabbitmqctl(list_operator_policies=[{'name': 'theirs', 'pattern': pattern, 'definition': '{"expires":1}',
                                         'apply-to': 'all', 'priority': 1}],
                list_queues=[{'name': ORDERS, 'type': 'classic', 'arguments': []}])
    with pytest.raises(Unseen, match='pattern of the operator policy theirs; set MANAGEMENT_URL'):
        seen(connection(), SETTINGS)


def test_whom_a_redirect_names_is_given_no_password(plugin):
    other = plugin(reply(body=b'[]'))
    first = plugin(reply(302, headers=[f'Location: {other.url}api']))
    line, = look(connection(), managed(first.url.replace('http://', 'http://monitor:hush@')))
    assert line.state is not State.BAD
    assert [it.headers.get('authorization') for it in (*first.requests, *other.requests)] == [
        'Basic bW9uaXRvcjpodXNo', None]


def test_without_either_it_is_unknown(monkeypatch, tmp_path):
    monkeypatch.setenv('PATH', str(tmp_path))
    with pytest.raises(Unseen, match='rabbitmqctl is not installed'):
        seen(connection(), SETTINGS)
