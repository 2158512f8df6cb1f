"""Logs as JSON, and one id from the shop's request to the calls of its API: real processes, a real RabbitMQ."""

import json
import signal
import urllib.request
from functools import partial

import pytest

from ecommerce_worker import correlation
from ecommerce_worker.clients.http import Api
from ecommerce_worker.fulfillment.names import FULFILL
from ecommerce_worker.testing.intake import SECRET
from ecommerce_worker.testing.peer import Peer, reply
from ecommerce_worker.testing.rabbitmq import free_port
from ecommerce_worker.testing.shop import Answer
from ecommerce_worker.tests.broker.test_command_lines import APP, CELERY
from ecommerce_worker.tests.support.harness import QUEUE, Program, eventually, shop_app
from ecommerce_worker.tests.support.intake import Intake, order, signed

REQUEST = 'req-7f3a:1'


def said(log):
    """The objects of a log, of which each line is one."""
    return [json.loads(line) for line in log.splitlines()]


def is_done(worker, number):
    return worker.settled(number) == 'done'


def runs(log, key):
    """The lines of an order's runs."""
    return [it for it in said(log) if it.get('ecommerce.key') == key and it.get('event.action')]


@pytest.fixture
def send(broker):
    """Publish an order as a shop does that gives its own id with it."""
    with shop_app(broker.url) as app:
        def publish(number, **options):
            return app.send_task(FULFILL, (number,), serializer='json', queue=QUEUE, ignore_result=True, **options)

        yield publish


@pytest.fixture
def program(environment, tmp_path):
    """Start a program of ours, which says all in JSON."""
    started: list[Program] = []

    def start(*words, **settings):
        changed = {f'ECOMMERCE_WORKER_{name}': str(value) for name, value in {'LOG_FORMAT': 'json', **settings}.items()}
        started.append(Program(tmp_path / f'program-{len(started)}.log', {**environment, **changed}, *words))
        return started[-1]

    yield start
    for each in started:
        each.kill()


@pytest.mark.parametrize('pool', ['threads', 'prefork'])
def test_a_worker_says_all_in_json_and_its_runs_with_their_fields(start_worker, shop, publish, pool):
    worker = start_worker('--pool', pool, '--concurrency', '2', '--debug', LOG_FORMAT='json').ready()
    shop.add_order('EDX-1', Answer(status=503))
    publish('EDX-1')
    eventually(lambda: [it['event.action'] for it in runs(worker.log, 'EDX-1')] == ['retrying', 'done'])
    retrying, done = runs(worker.log, 'EDX-1')
    assert (retrying['ecommerce.status'], retrying['ecommerce.attempt'], retrying['event.outcome']) == (
        503, 1, 'unknown')
    assert retrying['ecommerce.next_try'] > retrying['@timestamp']
    assert (done['ecommerce.attempt'], done['event.outcome'], done['ecommerce.queue']) == (2, 'success', QUEUE)
    assert done['service.role'] == 'worker'
    assert worker.stop() == 0
    assert said(worker.log)


def test_a_worker_that_celery_starts_says_all_in_json_too(broker, program, shop, publish):
    worker = program(CELERY, '-A', APP, 'worker', '--concurrency=2')
    eventually(lambda: broker.consumers(QUEUE) or worker.process.poll() is not None)
    shop.add_order('EDX-1')
    publish('EDX-1')
    eventually(lambda: runs(worker.log, 'EDX-1'))
    assert worker.stop() == 0
    assert {it['service.role'] for it in said(worker.log)} == {'worker'}


@pytest.mark.parametrize('role, settings', [
    ('recorder', {}), ('beat', {}), ('console', {'CONSOLE_ADDRESS': '127.0.0.1:{port}'}),
    ('intake', {'INTAKE_ADDRESS': '127.0.0.1:{port}',
                'INTAKES': json.dumps({'mine': {'kind': 'submit', 'secrets': [SECRET]}})})])
def test_each_role_says_all_in_json(program, command, role, settings, tmp_path):
    assert command('migrate').returncode == 0
    port = str(free_port())
    process = program('-m', 'ecommerce_worker', role, SCHEDULE_STATE=str(tmp_path / 'beat'),
                      **{name: value.replace('{port}', port) for name, value in settings.items()})
    eventually(lambda: process.log or process.process.poll() is not None)
    assert process.process.poll() is None, process.log
    process.process.send_signal(signal.SIGTERM)
    assert process.process.wait(30) == 0
    assert {it['service.role'] for it in said(process.log)} == {role}


def test_a_process_that_cannot_begin_says_so_in_json(program):
    worker = program('-m', 'ecommerce_worker', 'worker', BROKER_URL=f'amqp://guest:guest@127.0.0.1:{free_port()}')
    assert worker.process.wait(60) == 69
    last = said(worker.log)[-1]
    assert (last['log.level'], 'cannot be reached' in last['message']) == ('error', True)


@pytest.mark.parametrize('role', ['worker', 'recorder', 'beat', 'console', 'intake', 'up'])
def test_a_configuration_that_cannot_be_read_is_told_in_json_too_where_the_environment_asks_for_it(program, role):
    process = program('-m', 'ecommerce_worker', role, RETRY_DELAY_MAX='soon')
    assert process.process.wait(60) == 1
    first, *_, last = said(process.log)
    assert 'RETRY_DELAY_MAX' in first['message']
    assert (first['log.level'], first['service.role']) == ('error', role)
    assert '`ecommerce-worker check`' in last['message']


def test_under_up_each_line_says_whose_it_is(program, shop, publish, tmp_path):
    up = program('-m', 'ecommerce_worker', 'up', CONSOLE_ADDRESS=f'127.0.0.1:{free_port()}',
                 SCHEDULE_STATE=str(tmp_path / 'beat'))
    shop.add_order('EDX-1')
    publish('EDX-1')
    eventually(lambda: runs(up.log, 'EDX-1'))
    eventually(lambda: {it['service.role'] for it in said(up.log)} >= {'worker', 'recorder', 'console', 'beat'})
    assert up.stop() == 0
    ends = [it['message'].split()[0] for it in said(up.log) if it['service.role'] == 'up' and 'exited' in it['message']]
    assert sorted(ends[:-1]) == ['beat', 'console', 'worker']
    assert ends[-1] == 'recorder'


def test_the_console_has_a_line_for_each_request_with_its_id(program, command):
    assert command('migrate').returncode == 0
    port = free_port()
    console = program('-m', 'ecommerce_worker', 'console', '--access-logfile', '-', CONSOLE_ADDRESS=f'127.0.0.1:{port}')
    eventually(lambda: f'http://127.0.0.1:{port}/' in console.log)
    request = urllib.request.Request(f'http://127.0.0.1:{port}/login/?next=secret', headers={'X-Request-ID': REQUEST})
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.headers['X-Request-ID'] == REQUEST
    line = eventually(lambda: next((it for it in said(console.log) if it['message'] == 'request'), None))
    assert (line['http.request.method'], line['url.path'], line['http.response.status_code']) == ('GET', '/login/', 200)
    assert line['ecommerce.request_id'] == REQUEST
    assert line['event.duration'] > 0
    assert 'secret' not in console.log


@pytest.mark.parametrize('header', ['X-Request-ID', 'x-request-id'])
def test_the_id_that_a_shop_gives_comes_back_to_it_and_to_the_lms_with_each_try(start_worker, shop, send, header):
    worker = start_worker(LOG_FORMAT='json').ready()
    shop.add_order('EDX-1', Answer(status=503))
    send('EDX-1', headers={header: REQUEST})
    eventually(lambda: [it['event.action'] for it in runs(worker.log, 'EDX-1')] == ['retrying', 'done'])
    assert {it['ecommerce.request_id'] for it in runs(worker.log, 'EDX-1')} == {REQUEST}
    assert {'PUT', 'GET', 'POST'} <= {it.method for it in shop.calls}
    assert {it.request_id for it in shop.calls} == {REQUEST}


@pytest.mark.parametrize('given', ['', 'learner@example.com', 'a b', 'x' * 129, 'a\r\nX-Evil: 1', 7])
def test_without_an_id_or_with_what_is_none_it_is_that_of_the_first_message(start_worker, shop, send, given):
    worker = start_worker(LOG_FORMAT='json').ready()
    shop.add_order('EDX-1')
    sent = send('EDX-1', headers={'X-Request-ID': given})
    eventually(lambda: runs(worker.log, 'EDX-1'))
    assert {it.request_id for it in shop.calls if it.order == 'EDX-1'} == {sent.id}


def test_the_id_of_a_delivery_goes_with_its_order_to_the_shop(environment, start_worker, shop, tmp_path):
    port = free_port()
    intake = Intake(port, tmp_path / 'intake.log', {
        **environment, 'ECOMMERCE_WORKER_LOG_FORMAT': 'json', 'ECOMMERCE_WORKER_INTAKE_ADDRESS': f'127.0.0.1:{port}',
        'ECOMMERCE_WORKER_INTAKES': json.dumps({'shop': {
            'kind': 'shopify', 'secrets': [SECRET], 'events': {'orders/paid': 'fulfill_order'}}})})
    try:
        intake.ready()
        worker = start_worker().ready()
        shop.add_order('EDX-1')
        shop.add_order('EDX-2')
        for number, given in (('EDX-1', {'X-Request-ID': REQUEST}), ('EDX-2', {})):
            body = order(number)
            answer = intake.post('shop', body, {**signed('shopify', body), **given})
            assert answer.state == 'accepted'
            eventually(partial(is_done, worker, number))
            expected = REQUEST if given else answer.content['id']
            assert answer.headers.get('x-request-id') == (REQUEST if given else None)
            assert {it.request_id for it in shop.calls if it.order == number} == {expected}
            line, = [it for it in said(intake.log) if it.get('ecommerce.key') == number]
            assert (line['message'], line['ecommerce.request_id']) == ('accepted', expected)
    finally:
        intake.kill()


def test_another_service_is_not_told_the_id():
    peer = Peer([reply()])
    try:
        with correlation.of(REQUEST):
            Api(peer.url, peer='the vendor').request('GET', 'x')
    finally:
        peer.close()
    assert 'x-request-id' not in peer.requests[0].headers
