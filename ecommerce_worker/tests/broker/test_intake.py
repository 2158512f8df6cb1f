"""A real intake at a real RabbitMQ: what is answered, and what then is in the broker."""

import json
import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from kombu import Queue

from ecommerce_worker.broker import topology
from ecommerce_worker.broker.notes import NOTES
from ecommerce_worker.fulfillment.names import FULFILL
from ecommerce_worker.telemetry.tally import Tally
from ecommerce_worker.testing.intake import OTHER_SECRET, SECRET
from ecommerce_worker.testing.rabbitmq import free_port
from ecommerce_worker.tests.support.harness import QUEUE, Program, eventually
from ecommerce_worker.tests.support.intake import Intake, order, signed

SHOP = {'kind': 'shopify', 'secrets': [SECRET], 'events': {'orders/paid': 'fulfill_order'}}
SUBMIT = {'kind': 'submit', 'secrets': [SECRET]}
WOO = {'kind': 'woocommerce', 'secrets': [SECRET], 'events': {'order.updated': 'fulfill_order'}}


@pytest.fixture
def start_intake(environment, tmp_path):
    """Start one, with these intakes: ``start_intake(shop={…})``; ``settings`` are others."""
    started: list[Intake] = []

    def start(settings=None, options=(), **intakes):
        port = free_port()
        given = {'INTAKES': json.dumps(intakes or {'shop': SHOP}), 'INTAKE_ADDRESS': f'127.0.0.1:{port}',
                 'INTAKE_SPOOL': str(tmp_path / 'spool'), **(settings or {})}
        intake = Intake(port, tmp_path / f'intake-{len(started)}.log', {
            **environment, **{f'ECOMMERCE_WORKER_{name}': str(value) for name, value in given.items()}}, *options)
        started.append(intake)
        return intake

    yield start
    for intake in started:
        intake.kill()


@pytest.fixture
def parking(broker):
    """The queue of parked messages, which a worker declares."""
    with broker.connection() as connection:
        topology.declare_parked(connection)


def taken(broker, name=QUEUE):
    """The messages of a queue, taken out of it."""
    with broker.connection() as connection:
        queue = Queue(name).bind(connection.channel())
        return list(iter(lambda: queue.get(no_ack=True), None))


def bodies(broker, name=QUEUE):
    return [json.loads(message.body)[1] for message in taken(broker, name)]


def test_an_order_becomes_one_message_with_nothing_of_it_but_the_arguments(start_intake, broker):
    intake = start_intake().ready()
    body = order('EDX-1')
    answer = intake.post('shop', body, signed('shopify', body))
    assert (answer.status, answer.state) == (200, 'accepted')
    message, = taken(broker)
    assert json.loads(message.body)[:2] == [[], {'order_number': 'EDX-1'}]
    assert (message.headers['task'], message.headers['id']) == (FULFILL, answer.content['id'])
    assert message.headers[NOTES]['ask'] is True
    assert message.properties['delivery_mode'] == 2
    assert 'learner@example.com' not in message.body
    assert 'learner@example.com' not in intake.log


def test_the_same_event_delivered_twice_is_one_message_under_one_id(start_intake, broker):
    intake, body = start_intake().ready(), order()
    headers = signed('shopify', body)
    first, second = (intake.post('shop', body, headers) for _ in range(2))
    assert (first.state, second.state) == ('accepted', 'repeated')
    assert first.content['id'] == second.content['id']
    assert len(taken(broker)) == 1
    # One that was killed in between remembers nothing, and yet the id is the same.
    intake.kill()
    again = start_intake().ready().post('shop', body, headers)
    assert (again.state, again.content['id']) == ('accepted', first.content['id'])


@pytest.mark.parametrize('changed', [
    {'X-Shopify-Hmac-Sha256': ''}, {'X-Shopify-Hmac-Sha256': 'nonsense'}, {'X-Shopify-Hmac-Sha256': 'ä'},
    signed('shopify', order(), secret=OTHER_SECRET), {'X-Shopify-Shop-Domain': 'other.myshopify.com'},
], ids=['empty', 'nonsense', 'not ASCII', 'another secret', 'another shop'])
def test_whatever_is_wrong_with_a_signature_is_401_without_a_hint(start_intake, broker, changed):
    intake, body = start_intake(shop={**SHOP, 'source': 'mine.myshopify.com'}).ready(), order()
    answer = intake.post('shop', body, {**signed('shopify', body, source='mine.myshopify.com'), **changed})
    assert (answer.status, answer.content) == (401, {})
    assert taken(broker) == []


def test_an_unknown_path_and_a_closed_intake_look_alike(start_intake):
    intake, body = start_intake(shop=SHOP, gone={**SHOP, 'state': 'closed'}).ready(), order()
    answers = [intake.post(name, body, signed('shopify', body)) for name in ('gone', 'nobody', '../shop', '')]
    assert {answer.status for answer in answers} == {404}
    headers = [{name: value for name, value in answer.headers.items() if name != 'date'} for answer in answers]
    assert all(each == headers[0] for each in headers)
    assert {str(answer.content) for answer in answers} == {'{}'}


def test_what_a_head_alone_tells_is_refused_before_the_body_comes(start_intake):
    intake = start_intake(shop={**SHOP, 'max_bytes': 2000}, old={**SHOP, 'state': 'retired'}).ready()
    body = order()
    headers = signed('shopify', body)
    assert intake.post('shop', b'{' * 2001, headers).status == 413
    assert intake.post('shop', body, {**headers, 'Content-Type': 'text/plain'}).status == 415
    assert intake.post('shop', body, {**headers, 'Content-Encoding': 'gzip'}).status == 415
    assert intake.post('old', body, headers).status == 410
    got = intake.get('/in/shop')
    assert (got.status, got.headers['allow']) == (405, 'POST')
    assert intake.get('/healthz').content == {'state': 'alive'}
    with socket.create_connection(('127.0.0.1', intake.port), timeout=60) as client:
        client.sendall(b'POST /in/shop HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n'
                       b'Content-Length: 1048577\r\n\r\n')
        assert client.recv(4096).startswith(b'HTTP/1.1 413 ')
    with socket.create_connection(('127.0.0.1', intake.port), timeout=60) as client:
        client.sendall(b'POST /in/shop HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\r\n')
        assert client.recv(4096).startswith(b'HTTP/1.1 411 ')


@pytest.mark.parametrize('body, topic, reason', [
    (order(financial_status='pending'), 'orders/paid', 'not paid'),
    (order(cancelled_at='2026-01-01T00:00:00Z'), 'orders/paid', 'cancelled'),
    (order(test=True), 'orders/paid', 'test order'),
    (order(), 'orders/create', 'topic'),
])
def test_what_is_of_no_interest_is_success_with_the_reason(start_intake, broker, body, topic, reason):
    intake = start_intake().ready()
    answer = intake.post('shop', body, signed('shopify', body, topic))
    assert (answer.status, answer.state, answer.content['reason']) == (200, 'ignored', reason)
    assert taken(broker) == []
    assert intake.stop() == 0
    assert intake.said(f'ignored: intake=shop reason="{reason}" count=1')


def test_a_dry_intake_publishes_nothing(start_intake, broker):
    intake, body = start_intake(shop={**SHOP, 'state': 'dry'}).ready(), order()
    assert intake.post('shop', body, signed('shopify', body)).content['reason'] == 'dry run'
    assert taken(broker) == []


@pytest.mark.parametrize('body, why', [
    (b'{"name": ', 'the body is not JSON'), (b'[1, 2]', 'the body is not a JSON object'),
    (b'{"financial_status": "paid"}', 'name is missing'),
    (b'{"financial_status": "paid", "name": {"a": 1}}', 'name is not a string'),
    (b'{"financial_status": "paid", "name": "' + b'9' * 200 + b'"}', 'longer than 128'),
    (b'[' * 5000 + b']' * 5000, 'nested deeper'), (b'', 'the body is not JSON'),
])
@pytest.mark.usefixtures('parking')
def test_what_is_genuine_and_unreadable_is_parked_as_it_came(start_intake, broker, body, why):
    intake = start_intake().ready()
    answer = intake.post('shop', body, signed('shopify', body))
    assert (answer.status, answer.state) == (200, 'parked')
    parked, = broker.parked()
    assert (parked.body or b'', parked.headers[NOTES]['id']) == (body, answer.content['id'])
    assert why in parked.headers[NOTES]['reason']
    assert int(parked.properties['expiration']) > 0


@pytest.mark.usefixtures('parking')
def test_a_bug_in_a_mapping_parks_the_body_and_tells_nothing_of_it(start_intake, broker, environment, tmp_path):
    (tmp_path / 'buggy.py').write_text(
        'from ecommerce_worker.intake.sources import shopify\n'
        'class Source(shopify.Source):\n'
        '    def event(self, delivery):\n'
        '        raise KeyError(delivery.body)\n')
    environment['PYTHONPATH'] = str(tmp_path)
    intake, body = start_intake(shop={**SHOP, 'kind': 'buggy'}).ready(), order()
    answer = intake.post('shop', body, signed('shopify', body))
    assert (answer.status, answer.state) == (200, 'parked')
    parked, = broker.parked()
    assert 'KeyError at buggy.py:4' in parked.headers[NOTES]['reason']
    assert 'learner' not in intake.log
    assert 'learner' not in parked.headers[NOTES]['reason']


@pytest.mark.usefixtures('parking')
@pytest.mark.parametrize('where', ['in RabbitMQ', 'in the ledger'])
def test_a_delivery_that_was_parked_is_mapped_again_once_its_intake_can(start_intake, broker, environment, tmp_path,
                                                                       command, where):
    (tmp_path / 'buggy.py').write_text(
        'from ecommerce_worker.intake.sources import shopify\n'
        'class Source(shopify.Source):\n'
        '    def event(self, delivery):\n'
        '        raise KeyError(delivery.body)\n')
    environment['PYTHONPATH'] = str(tmp_path)
    given = {'INTAKES': json.dumps({'shop': {**SHOP, 'kind': 'buggy'}})}
    intake, body = start_intake(shop={**SHOP, 'kind': 'buggy'}).ready(), order()
    parked = intake.post('shop', body, signed('shopify', body))
    assert parked.state == 'parked'
    message, = broker.parked()
    assert SECRET not in str(message.headers)
    assert 'hmac' not in str(message.headers).lower()
    if where == 'in the ledger':
        assert command('migrate').returncode == 0
        recorder = Program(tmp_path / 'recorder.log', environment, '-m', 'ecommerce_worker', 'recorder')
        eventually(lambda: broker.depth(topology.PARKED) == 0)
        assert recorder.stop() == 0
    stuck = command('parked', 'resend', '--all', **given)
    assert (stuck.returncode, 'still has a programming error: KeyError at buggy.py:4' in stuck.stderr) == (1, True)
    assert 'learner' not in stuck.stderr
    other = command('parked', 'resend', '--all', INTAKES='{}')
    assert 'there is no intake shop in INTAKES; the delivery stays parked' in other.stderr
    assert other.returncode == 1
    (tmp_path / 'buggy.py').write_text('from ecommerce_worker.intake.sources.shopify import Source\n')
    sent = command('parked', 'resend', '--all', **given)
    assert (sent.returncode, f'sent to {QUEUE}' in sent.stdout) == (0, True), sent.stderr
    message, = taken(broker)
    assert json.loads(message.body)[1] == {'order_number': 'EDX-1'}
    assert message.headers['task'] == FULFILL
    assert broker.depth(topology.PARKED) == 0
    if where == 'in the ledger':
        told, = json.loads(command('orders', 'show', parked.content['id'], '--json').stdout)['orders']
        assert (told['order'], told['state']) == (parked.content['id'], 'fulfilled')


def test_a_queue_that_is_gone_is_503_and_the_sender_comes_again(start_intake, broker):
    intake, body = start_intake().ready(), order()
    headers = signed('shopify', body)
    with broker.connection() as connection:
        connection.channel().queue_delete(QUEUE)
    answer = intake.post('shop', body, headers)
    assert (answer.status, answer.headers['retry-after']) == (503, '30')
    with broker.connection() as connection:
        topology.task_queue(QUEUE).bind(connection.channel()).declare()
    assert intake.post('shop', body, headers).state == 'accepted'
    assert len(taken(broker)) == 1


def test_an_intake_without_a_queue_is_not_ready_until_a_worker_has_declared_it(start_intake, broker):
    with broker.connection() as connection:
        connection.channel().queue_delete(QUEUE)
        intake = start_intake()
        eventually(lambda: intake.said(f'the queues for deliveries do not exist: is a worker running.: queues={QUEUE}'))
        assert not intake.is_ready()
        assert intake.get('/healthz').status == 200
        topology.task_queue(QUEUE).bind(connection.channel()).declare()
        eventually(intake.is_ready)
        # It is gone again, which the next delivery shows.
        connection.channel().queue_delete(QUEUE)
        body = order()
        assert intake.post('shop', body, signed('shopify', body)).status == 503
        assert not intake.is_ready()
        topology.task_queue(QUEUE).bind(connection.channel()).declare()


def test_a_broker_that_is_away_is_503_in_time_and_taken_up_again(start_intake, link):
    intake, body = start_intake({'BROKER_URL': link.url}).ready(), order()
    with link.interrupted():
        started = time.monotonic()
        assert intake.post('shop', body, signed('shopify', body)).status == 503
        assert time.monotonic() - started < 5
        eventually(lambda: not intake.is_ready())
    eventually(intake.is_ready)
    assert intake.post('shop', body, signed('shopify', body)).state == 'accepted'


def test_an_alarm_is_503_and_what_was_confirmed_too_late_is_one_order(start_intake, broker):
    intake, body = start_intake().ready(), order()
    headers = signed('shopify', body)
    before = broker.node.ctl('eval', 'vm_memory_monitor:get_vm_memory_high_watermark().').strip()
    broker.node.ctl('set_vm_memory_high_watermark', '0.0000001')
    try:
        eventually(lambda: 'memory' in broker.node.ctl('eval', 'rabbit_alarm:get_alarms().'))
        answers = [intake.post('shop', body, headers).status for _ in range(2)]
    finally:
        broker.node.ctl('set_vm_memory_high_watermark', before)
    assert answers == [503, 503]
    eventually(intake.is_ready)
    # Until its queue has confirmed what was late, the answer is 503 still, and the sender comes again.
    eventually(lambda: intake.post('shop', body, headers).status == 200)
    # Those that were late and the one that was not: however many there are, they are one order.
    assert len({message.headers['id'] for message in eventually(lambda: taken(broker))}) == 1


def test_a_secret_that_is_changed_in_its_file_is_taken_up_without_a_restart(start_intake, tmp_path):
    file = tmp_path / 'secret'
    file.write_text(SECRET)
    intake, body = start_intake(shop={**SHOP, 'secrets': [f'file:{file}']}).ready(), order()
    assert intake.post('shop', body, signed('shopify', body, secret=OTHER_SECRET)).status == 401
    file.write_text(OTHER_SECRET + '\n')
    eventually(lambda: intake.post('shop', body, signed('shopify', body, secret=OTHER_SECRET)).status == 200)
    assert intake.post('shop', body, signed('shopify', body)).status == 401


def test_a_secret_that_is_taken_out_of_its_file_holds_no_more(start_intake, tmp_path):
    files = [tmp_path / 'old', tmp_path / 'new']
    for file, secret in zip(files, (SECRET, OTHER_SECRET), strict=True):
        file.write_text(secret)
    intake, body = start_intake(shop={**SHOP, 'secrets': [f'file:{file}' for file in files]}).ready(), order()
    assert intake.post('shop', body, signed('shopify', body)).status == 200
    files[0].write_text(OTHER_SECRET)
    # Whoever has it only ever posts what fits.
    eventually(lambda: intake.post('shop', body, signed('shopify', body)).status == 401)


def test_a_repeat_at_the_same_moment_and_a_repeat_later_end_as_one_fulfilment(start_intake, start_worker, shop):
    shop.add_order('EDX-1')
    intake, body = start_intake().ready(), order()
    headers = signed('shopify', body)
    worker = start_worker().ready()
    with ThreadPoolExecutor(8) as senders:
        answers = list(senders.map(lambda _: intake.post('shop', body, headers), range(8)))
    assert {answer.status for answer in answers} == {200}
    intake.kill()
    second = start_intake().ready()
    assert second.post('shop', body, headers).state == 'accepted'
    eventually(lambda: len([it for it in worker.outcomes('EDX-1') if it in ('done', 'skipped')]) >= 2)
    assert shop.orders['EDX-1'].fulfilments == 1
    assert shop.orders['EDX-1'].puts == 1


def test_a_ping_of_woocommerce_is_200_and_nothing_is_done(start_intake, broker):
    intake = start_intake(blog={**WOO, 'spool': True}).ready()
    form = {'Content-Type': 'application/x-www-form-urlencoded'}
    assert intake.post('blog', b'webhook_id=7', form).status == 200
    for body in (b'webhook_id=7&x=1', b'webhook_id=', b'x' + b'webhook_id=7', b'webhook_id=' + b'7' * 60):
        assert intake.post('blog', body, form).status == 401
    assert taken(broker) == []


def test_what_a_shop_sends_only_once_is_kept_on_disk_while_the_broker_is_away(start_intake, broker, link, tmp_path):
    body = json.dumps({'id': 727, 'number': '727', 'status': 'processing', 'date_paid_gmt': '2026-01-01T00:00:00',
                       'billing': {'email': 'learner@example.com'}}).encode()
    watched = {'BROKER_URL': link.url, 'HEALTH_DIR': tmp_path / 'health'}
    intake = start_intake(watched, blog={**WOO, 'spool': True}).ready()
    with link.interrupted():
        answer = intake.post('blog', body, signed('woocommerce', body, 'order.updated'))
        assert (answer.status, answer.state) == (200, 'accepted')
        kept, = (tmp_path / 'spool').glob('*.json')
        assert b'learner' not in kept.read_bytes()
        assert kept.stat().st_mode & 0o077 == 0
        # Whoever leads requests to those who are ready goes on to do so.
        shown, = (tmp_path / 'health').glob('intake-*.json')
        eventually(lambda: 'the broker' in json.loads(shown.read_text())['detail'])
        assert json.loads(shown.read_text())['ready'] is True
        # Another process finds it.
        intake.kill()
    start_intake({'BROKER_URL': link.url}, blog={**WOO, 'spool': True}).ready()
    message, = eventually(lambda: taken(broker))
    assert json.loads(message.body)[1] == {'order_number': '727'}
    assert message.headers['id'] == answer.content['id']
    eventually(lambda: not list((tmp_path / 'spool').glob('*.json')))


def test_a_program_submits_an_order_under_a_key_of_its_own(start_intake, broker):
    intake = start_intake(mine=SUBMIT).ready()

    def submit(content, key, **headers):
        body = json.dumps(content).encode()
        return intake.post('mine', body, {**signed('submit', body), 'Idempotency-Key': key, **headers})

    first = submit({'order_number': 'EDX-1', 'email_opt_in': True}, '"a"')
    assert (first.status, first.state) == (202, 'accepted')
    assert submit({'order_number': 'EDX-1', 'email_opt_in': True}, 'a').content == first.content
    other = submit({'order_number': 'EDX-2'}, 'a')
    assert (other.status, other.headers['content-type']) == (422, 'application/problem+json')
    assert bodies(broker) == [{'order_number': 'EDX-1', 'email_opt_in': True}]
    assert submit({'order_number': 'EDX-2'}, '').status == 400
    assert submit({'number': 'EDX-2'}, 'b').status == 422
    assert 'number' in submit({'number': 'EDX-2'}, 'b').content['detail']
    assert submit({'order_number': 'EDX-2'}, 'b', Authorization='Bearer wrong').status == 401
    assert submit(['EDX-2'], 'b').status == 400


def test_more_than_the_rate_of_an_intake_is_429(start_intake):
    intake = start_intake(shop={**SHOP, 'rate': 1}).ready()
    bodies = [order(f'EDX-{number}') for number in range(20)]
    answers = [intake.post('shop', body, signed('shopify', body)) for body in bodies]
    assert {answer.status for answer in answers} == {200, 429}
    assert answers[0].status == 200
    assert {answer.headers['retry-after'] for answer in answers if answer.status == 429} == {'1'}


def test_refusals_are_one_line_each_minute_however_many_there_are(start_intake):
    intake, body = start_intake().ready(), order()
    for _ in range(30):
        intake.post('shop', body, {**signed('shopify', body), 'X-Shopify-Hmac-Sha256': 'x'})
        intake.post('no\x7fbody-secret'.replace('\x7f', '-'), body, {})
    assert intake.stop() == 0
    assert intake.log.count('refused: ') == 2
    assert intake.said('refused: intake=shop reason="signature" count=30')
    assert intake.said('refused: intake=- reason="no such intake" count=30')


def test_what_is_accepted_is_in_the_ledger_before_any_worker_has_touched_it(start_intake, command, broker, tmp_path,
                                                                            environment):
    import subprocess
    import sys

    # Before the queue of the ledger is bound nobody keeps a report.
    with broker.connection() as connection:
        topology.declare_facts(connection)
    intake, body = start_intake().ready(), order('EDX-9')
    assert command('migrate').returncode == 0
    recorder = subprocess.Popen([sys.executable, '-m', 'ecommerce_worker', 'recorder'], env=environment,
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert intake.post('shop', body, signed('shopify', body)).state == 'accepted'
        eventually(lambda: 'accepted' in command('orders', 'show', 'EDX-9').stdout)
        shown = command('orders', 'show', 'EDX-9').stdout
        assert 'by the intake shop: orders/paid, delivery ' in shown
        assert 'trying' in shown
    finally:
        recorder.kill()
        recorder.wait()


def test_what_was_counted_is_told_to_the_ledger_at_the_end_at_the_latest(start_intake, broker):
    with broker.connection() as connection:
        topology.declare_facts(connection)
        connection.default_channel.queue_purge(topology.LEDGER)
    processes = [start_intake().ready() for _ in range(2)]
    for number, intake in enumerate(processes):
        body = order(f'EDX-{number}')
        assert intake.post('shop', body, signed('shopify', body)).state == 'accepted'
        assert intake.post('shop', body, {**signed('shopify', body), 'X-Shopify-Hmac-Sha256': 'x'}).status == 401
    for intake in processes:
        assert intake.stop() == 0
    told: list[Tally] = []
    with broker.connection() as connection:
        queue = Queue(topology.LEDGER).bind(connection.channel())

        def all_told():
            # What a connection wrote last may come into the queue after it was closed.
            told.extend(Tally.read(it.body.encode() if isinstance(it.body, str) else bytes(it.body))
                        for it in iter(lambda: queue.get(no_ack=True), None)
                        if it.delivery_info['routing_key'] == 'tally.shop')
            return len({it.process for it in told}) == 2

        eventually(all_told)
    assert [(it.counts, sum(it.times), it.kind, it.state, it.test_orders) for it in told] == [
        ({'accepted': {'': 1}, 'refused': {'signature': 1}}, 1, 'shopify', 'live', 'ignore')] * 2
    assert all(it.url.endswith('/in/shop') for it in told)


def test_try_signs_an_order_posts_it_and_says_what_became_of_it(start_intake, environment, command, tmp_path):
    intake = start_intake().ready()
    (tmp_path / 'order.json').write_bytes(order('EDX-1'))
    given = {'INTAKES': json.dumps({'shop': SHOP}), 'INTAKE_ADDRESS': f'127.0.0.1:{intake.port}'}
    done = command('intake', 'try', 'shop', str(tmp_path / 'order.json'), '--wait', '1s', **given)
    assert '200 accepted' in done.stdout, done.stderr
    (tmp_path / 'unpaid.json').write_bytes(order('EDX-2', financial_status='pending'))
    done = command('intake', 'try', 'shop', str(tmp_path / 'unpaid.json'), **given)
    assert (done.returncode, '200 ignored: not paid' in done.stdout) == (1, True)
    other = {**given, 'INTAKES': json.dumps({'shop': {**SHOP, 'secrets': [OTHER_SECRET]}})}
    done = command('intake', 'try', 'shop', str(tmp_path / 'order.json'), **other)
    assert (done.returncode, 'different secrets' in done.stderr) == (1, True)
    assert command('intake', 'try', 'shpo', str(tmp_path / 'order.json'), **given).returncode == 2


def test_list_tells_the_address_to_paste_into_the_shop(command):
    done = command('intake', 'list', INTAKES=json.dumps({'shop': SHOP}), INTAKE_URL='https://intake.example.com')
    assert 'https://intake.example.com/in/shop' in done.stdout
    assert 'orders/paid: fulfill_order' in done.stdout
    secret = command('intake', 'secret').stdout.strip()
    assert secret != command('intake', 'secret').stdout.strip()
    given = {**SHOP, 'kind': 'standard', 'secrets': [secret], 'events': {'order.paid': 'fulfill_order'}}
    assert command('intake', 'list', INTAKES=json.dumps({'shop': given})).returncode == 0


def test_check_says_what_is_no_mistake_but_should_be_known(command):
    given = {'blog': {**WOO, 'rate': 5}, 'shop': {**SHOP, 'rate': 5}}
    done = command('check', INTAKES=json.dumps(given))
    assert done.returncode == 0, done.stdout
    assert 'note: INTAKES[blog] loses deliveries above its rate, which are answered 429' in done.stdout
    assert 'note: INTAKES[blog] loses deliveries while RabbitMQ is unreachable' in done.stdout
    assert 'INTAKES[shop] loses' not in done.stdout
    told = json.loads(command('check', '--json', INTAKES=json.dumps(given)).stdout)
    assert sum('loses' in note for note in told['notes']) == 2


@pytest.mark.parametrize('covered, notes', [('', 1), ('nothing', 0)])
def test_check_notes_refunds_that_nobody_could_decide_about(command, covered, notes):
    given = {'shop': {**SHOP, 'events': {'orders/paid': 'enroll', 'orders/refunded': 'revoke'}}}
    done = command('check', '--json', INTAKES=json.dumps(given), COVERED_BY=covered, PRODUCTS=json.dumps(
        {'PY101': [{'course': 'course-v1:edX+PY101+2027', 'mode': 'verified'}]}))
    assert done.returncode == 0, done.stdout
    assert sum('takes refunds, but COVERED_BY is empty' in note for note in json.loads(done.stdout)['notes']) == notes


def test_check_tells_once_of_an_extension_that_is_not_installed(command):
    done = command('check', EXTENSIONS='acme', ACME=json.dumps({'url': 'http://x'}), INTAKES=json.dumps({
        'acme': {'kind': 'acme', 'secrets': [SECRET]}}))
    assert done.stdout.splitlines()[0].endswith(
        'EXTENSIONS names acme, which is not installed; no extensions are installed')
    assert '1 problem found' in done.stdout


def test_two_processes_share_an_address(start_intake, broker):
    first = start_intake().ready()
    second = start_intake({'INTAKE_ADDRESS': f'127.0.0.1:{first.port}'})
    eventually(lambda: second.said('accepting deliveries at'))
    bodies = [order(f'EDX-{number}') for number in range(40)]
    assert {first.post('shop', body, signed('shopify', body)).status for body in bodies} == {200}
    assert len(taken(broker)) == 40
    eventually(lambda: 'accepted:' in first.log and 'accepted:' in second.log)


def test_it_ends_in_order_and_what_is_under_way_is_answered(start_intake):
    intake, body = start_intake().ready(), order()
    os.kill(intake.process.pid, signal.SIGSTOP)
    answers = []
    sender = threading.Thread(target=lambda: answers.append(intake.post('shop', body, signed('shopify', body))))
    sender.start()
    os.kill(intake.process.pid, signal.SIGCONT)
    sender.join()
    assert answers[0].state == 'accepted'
    assert intake.stop() == 0
    assert 'Traceback' not in intake.log


@pytest.mark.parametrize('intakes, problem', [
    ({'shop': {**SHOP, 'kind': 'shopfy'}}, 'did you mean shopify?'),
    ({'shop': {**SHOP, 'secret': 'x'}}, 'did you mean secrets?'),
    ({'shop': {**SHOP, 'secrets': ['short']}}, 'is too short (5 bytes)'),
    ({'shop': {**SHOP, 'secrets': ['file:/no/such']}}, 'cannot be read from /no/such'),
    ({'shop': {**SHOP, 'events': {'order/paid': 'fulfill_order'}}}, 'did you mean orders/paid?'),
    ({'shop': {**SHOP, 'events': {'orders/paid': 'fulfil_order'}}}, 'did you mean fulfill_order?'),
    ({'shop': {**SHOP, 'state': True}}, 'YAML reads on and off as true and false'),
    ({'shop': {**SHOP, 'site': 'campus'}}, 'which is not in SITE_OVERRIDES'),
    ({'shop': {**SHOP, 'queue': 'ecommerce.fulfilment'}}, 'did you mean ecommerce.fulfillment?'),
    ({'shop': {**SHOP, 'arguments': {'order_nummer': 'name'}}}, 'did you mean order_number?'),
    ({'Shop!': SHOP}, 'is part of a URL'),
    ({'shop': {'kind': 'hmac', 'secrets': [SECRET], 'events': {'paid': 'fulfill_order'}}}, 'has the topic paid'),
    ({'shop': {**SHOP, 'kind': 'standard', 'secrets': ['whsec_nonsense!']}}, 'must be whsec_ and Base64'),
    ({'shop': {key: value for key, value in SHOP.items() if key != 'secrets'}}, 'is not set'),
])
def test_check_tells_what_is_wrong_with_an_intake(command, intakes, problem):
    done = command('check', INTAKES=json.dumps(intakes).replace('true', 'True'))
    assert (done.returncode, problem in done.stdout) == (1, True), done.stdout + done.stderr
    assert SECRET not in done.stdout


def test_check_shows_no_secret_and_counts_all_problems(command):
    done = command('check', INTAKES=json.dumps({'shop': SHOP, 'blog': WOO}))
    assert (done.returncode, SECRET in done.stdout) == (0, False), done.stdout
    bad = {'shop': {**SHOP, 'kind': 'x', 'rate': -1}, 'blog': {**WOO, 'rate': -1, 'secrets': []}}
    said = command('check', INTAKES=json.dumps(bad)).stdout
    assert '3 problems found' in said, said
