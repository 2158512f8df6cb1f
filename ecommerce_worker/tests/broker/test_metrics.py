"""Metrics of real processes, as Prometheus reads them."""

import contextlib
import json
import signal
import sqlite3
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ecommerce_worker.broker import topology
from ecommerce_worker.fulfillment.names import FULFILL
from ecommerce_worker.testing.intake import SECRET
from ecommerce_worker.testing.rabbitmq import free_port
from ecommerce_worker.testing.shop import Answer
from ecommerce_worker.tests.support.harness import QUEUE, Program, eventually, shop_app, standstill
from ecommerce_worker.tests.support.health import page
from ecommerce_worker.tests.support.intake import posted
from ecommerce_worker.tests.support.rabbitmq import Node


class Scraped:
    """What a process said when it was asked last, by name and labels."""

    def __init__(self, port):
        self._port = port

    def __call__(self, name, **labels):
        """The sum of all samples of that name that have these labels; None if there is none."""
        status, text = page(self._port, '/metrics')
        found = [sample.value for family in (text_string_to_metric_families(text) if status == 200 else ())
                 for sample in family.samples
                 if sample.name == f'ecommerce_worker_{name}' and labels.items() <= sample.labels.items()]
        return sum(found) if found else None

    @property
    def text(self):
        """The whole page."""
        return page(self._port, '/metrics')[1]


class Measured(Program):
    """A program of ours that is measured."""

    metrics: Scraped


@pytest.fixture
def start(start_worker):
    """Start a worker that is measured."""
    def start(*options, **settings):
        port = free_port()
        worker = start_worker(*options, METRICS_ADDRESS=f'127.0.0.1:{port}', **settings).ready()
        worker.metrics = Scraped(port)
        return worker

    return start


@pytest.fixture
def run(environment, tmp_path):
    """Start a command of ours that is measured."""
    started = []

    def start(*words, **settings):
        port = free_port()
        changed = {f'ECOMMERCE_WORKER_{name}': str(value) for name, value in settings.items()}
        program = Measured(tmp_path / f'{words[0]}.log', {
            **environment, **changed, 'ECOMMERCE_WORKER_METRICS_ADDRESS': f'127.0.0.1:{port}'}, '-m',
            'ecommerce_worker', *words)
        program.metrics = Scraped(port)
        started.append(program)
        return program

    yield start
    for program in started:
        program.kill()


@pytest.mark.parametrize('pool', ['threads', 'prefork'])
def test_runs_are_counted_by_what_became_of_them_and_why(start, shop, publish, broker, pool):
    worker = start('--pool', pool, '--concurrency', '2')
    shop.add_order('EDX-1')
    shop.add_order('EDX-2', Answer(503))
    shop.add_order('EDX-3', *[Answer(403)] * 9)
    for number in ('EDX-1', 'EDX-2', 'EDX-3'):
        publish(number)
    eventually(lambda: worker.metrics('runs_total', outcome='done') == 2)
    eventually(lambda: worker.metrics('runs_total', outcome='parked'))
    labels = {'task': FULFILL, 'queue': QUEUE, 'site': ''}
    assert worker.metrics('runs_total', outcome='done', cause='none', **labels) == 2
    assert worker.metrics('runs_total', outcome='retrying', cause='peer_failure', **labels) == 1
    assert worker.metrics('runs_total', outcome='retrying', cause='unauthorized', **labels) == 2
    assert worker.metrics('runs_total', outcome='parked', cause='unauthorized', **labels) == 1
    assert worker.metrics('run_duration_seconds_count', task=FULFILL, outcome='done') == 2
    assert worker.metrics('attempts_sum', outcome='parked') == 3
    assert worker.metrics('next_try_delay_seconds_count', cause='unauthorized') == 2
    host = shop.api_root.split('/')[2]
    calls = len([call for call in shop.calls if call.is_put])
    assert worker.metrics('http_request_duration_seconds_count', host=host, method='PUT') == calls
    assert worker.metrics('http_request_duration_seconds_count', host=host, method='PUT', status_class='5xx') == 1
    assert worker.metrics('token_fetches_total', host=host, cause='none') == sum(
        call.path.startswith('/oauth2/') for call in shop.calls)
    eventually(lambda: worker.metrics('publish_confirm_seconds_count', kind='parked') == 1)
    assert worker.metrics('publish_confirm_seconds_count', kind='waiting') == 3
    eventually(lambda: worker.metrics('publish_confirm_seconds_count', kind='fact'))
    # Celery says nothing of when it publishes.
    assert worker.metrics('first_run_delay_seconds_count') is None


@pytest.mark.parametrize('stamp', ['header', 'property'])
def test_how_long_a_message_lay_before_its_first_run_is_counted_where_it_says_when_it_was_published(
        start, shop, broker, stamp):
    worker = start(RETRY_DELAY_MIN=0)
    shop.add_order('EDX-1', Answer(503))
    at = int(time.time()) - 100
    header, stamped = ({'timestamp_in_ms': at * 1000}, {}) if stamp == 'header' else ({}, {'timestamp': at})
    broker.publish_raw(b'[["EDX-1"], {}, {}]', content_type='application/json', content_encoding='utf-8',
                       headers={'task': FULFILL, 'id': 'id-1', **header}, **stamped)
    eventually(lambda: worker.metrics('runs_total', outcome='done') == 1)
    assert worker.metrics('first_run_delay_seconds_count', queue=QUEUE) == 1
    assert 100 <= worker.metrics('first_run_delay_seconds_sum') < 160


class StampingNode(Node):
    """A node that writes onto each message when it came, as deploy/container/compose.yaml has it."""

    def _prepared(self):
        environment = super()._prepared()
        with (self.directory / 'rabbitmq.conf').open('a') as file:
            file.write('\nmessage_interceptors.incoming.set_header_timestamp.overwrite = false\n')
        return environment


def test_rabbitmq_itself_can_say_when_a_shop_published(start_worker, shop, broker, environment):
    with broker.connection() as connection:
        if topology.version(connection.ensure_connection()) < (3, 12):
            pytest.skip('RabbitMQ does so from 3.12 on')
    with StampingNode() as node, shop_app(node.url) as app:
        port = free_port()
        # It lies there until a worker comes.
        with app.connection_for_write() as connection:
            topology.declare(connection, [topology.task_queue(QUEUE)])
        shop.add_order('EDX-1', Answer(503))
        app.send_task(FULFILL, ('EDX-1',), queue=QUEUE, ignore_result=True)
        published = time.time()
        start_worker(BROKER_URL=node.url, METRICS_ADDRESS=f'127.0.0.1:{port}', RETRY_DELAY_MIN=0)
        metrics = Scraped(port)
        eventually(lambda: metrics('runs_total', outcome='done') == 1)
        assert metrics('first_run_delay_seconds_count', queue=QUEUE) == 1
        assert 0 < metrics('first_run_delay_seconds_sum') < time.time() - published + 1


def test_what_rabbitmq_refuses_is_counted_and_confirmed_in_the_end(start, shop, publish, broker):
    worker = start(MAX_FULFILLMENT_RETRIES=0)
    shop.add_order('EDX-1', Answer(403))
    broker.node.ctl('set_policy', 'full', f'^{topology.PARKED}$', '{"max-length":0,"overflow":"reject-publish"}')
    try:
        publish('EDX-1')
        eventually(lambda: worker.metrics('publish_failures_total', kind='parked'))
        assert worker.metrics('publish_confirm_seconds_count', kind='parked') is None
    finally:
        broker.node.ctl('clear_policy', 'full')
    eventually(lambda: worker.metrics('publish_confirm_seconds_count', kind='parked') == 1)


def test_a_worker_tells_what_is_in_hand_and_whether_it_consumes(start, shop, publish):
    shop.add_order('EDX-1', Answer.hanging())
    worker = start('--concurrency', '4', FULFILLMENT_READ_TIMEOUT=60, SHUTDOWN_SECONDS=1)
    assert worker.metrics('busy_threads') is None
    publish('EDX-1')
    eventually(lambda: worker.metrics('busy_threads') == 1)
    eventually(lambda: worker.metrics('oldest_run_seconds') > 0)
    assert (worker.metrics('threads'), worker.metrics('consuming'), worker.metrics('connections_total')) == (8, 1, 1)
    assert worker.metrics('ready', role='worker') == 1
    assert abs(worker.metrics('pulse_timestamp_seconds') - time.time()) < 60
    assert worker.metrics('build_info') == 1
    assert 'process_resident_memory_bytes' in worker.metrics.text


def test_messages_that_no_task_takes_are_counted_and_what_they_say_is_no_label(start, broker, publish):
    worker = start()
    publish('EDX-1', task='secret.of.somebody', queue=QUEUE)
    broker.publish_raw(b'nonsense', content_type='application/x-unheard-of')
    eventually(lambda: worker.metrics('messages_without_run_total') == 2)
    assert worker.metrics('messages_without_run_total', task='other', cause='unknown_task', outcome='parked') == 1
    assert worker.metrics('messages_without_run_total', task='other', cause='unreadable', outcome='parked') == 1
    assert 'secret.of' not in worker.metrics.text


def test_a_site_that_is_made_up_and_a_host_that_is_down_are_bounded_labels(start, shop, publish):
    worker = start(MAX_FULFILLMENT_RETRIES=20, RETRY_DELAY_MIN=0)
    host = shop.api_root.split('/')[2]
    for number in range(8):
        shop.add_order(f'EDX-{number}', *[Answer(503)] * 20)
        publish(f'EDX-{number}', site_code='made-up')
    eventually(lambda: worker.metrics('circuit_state', host=host, state='open') == 1)
    assert worker.metrics('circuit_state', host=host, state='closed') == 0
    assert worker.metrics('circuit_state', host=host) == 1
    assert worker.metrics('runs_total', site='other')
    assert 'made-up' not in worker.metrics.text


def test_what_others_have_set_for_metrics_in_files_is_not_obeyed_and_told_in_a_line(start, environment, tmp_path, shop,
                                                                                    publish):
    (tmp_path / 'multi').mkdir()
    environment['PROMETHEUS_MULTIPROC_DIR'] = str(tmp_path / 'multi')
    worker = start('--pool', 'prefork', '--concurrency', '2')
    shop.add_order('EDX-1')
    publish('EDX-1')
    eventually(lambda: worker.metrics('runs_total', outcome='done') == 1)
    assert worker.log.count('PROMETHEUS_MULTIPROC_DIR') == 1
    assert not list((tmp_path / 'multi').iterdir())


def test_children_that_follow_others_are_counted_too_and_take_no_port_along(start, shop, publish):
    worker = start('--pool', 'prefork', '--concurrency', '1', '--max-tasks-per-child', '1')
    for number in range(3):
        shop.add_order(f'EDX-{number}')
        publish(f'EDX-{number}')
    eventually(lambda: worker.metrics('runs_total', outcome='done') == 3)


def test_the_recorder_tells_where_orders_are_and_since_when(run, start, shop, publish, broker):
    with broker.connection() as connection:
        topology.declare_facts(connection)
        connection.default_channel.queue_purge(topology.LEDGER)
    assert run('migrate').process.wait(60) == 0
    recorder = run('recorder')
    began = time.time()
    worker = start(MAX_FULFILLMENT_RETRIES=0, RETRY_DELAY_MIN=600, RETRY_DELAY_MAX=600)
    shop.add_order('EDX-1')
    shop.add_order('EDX-2', Answer(503))
    shop.add_order('EDX-3', Answer(403))
    for number in ('EDX-1', 'EDX-2', 'EDX-3'):
        publish(number)
    eventually(lambda: recorder.metrics('orders', state='parked', task=FULFILL, cause='unauthorized') == 1)
    eventually(lambda: recorder.metrics('orders', state='waiting', task=FULFILL, site='', cause='peer_failure') == 1)
    assert recorder.metrics('orders') == 2
    assert began - 60 < recorder.metrics('oldest_open_timestamp_seconds', task=FULFILL) < time.time()
    assert (recorder.metrics('overdue_orders'), recorder.metrics('lost_facts')) == (0, 0)
    # Queues are looked at every few seconds.
    eventually(lambda: recorder.metrics('queue_consumers', queue=QUEUE) == 1)
    eventually(lambda: recorder.metrics('queue_messages', queue='waiting room') == 1)
    assert worker.stop() == 0


def test_a_job_that_nobody_fires_is_told_since_when(run, broker, tmp_path):
    schedule = json.dumps({'often': {'task': 'ecommerce_worker.resubmit.tasks.resubmit_orders', 'interval': '1h'}})
    assert run('migrate').process.wait(60) == 0
    beat = run('beat', SCHEDULE=schedule)
    with contextlib.closing(sqlite3.connect(tmp_path / 'ledger.sqlite3', timeout=60)) as ledger, ledger:
        eventually(lambda: ledger.execute('SELECT count(*) FROM ledger_firing WHERE entry LIKE "often%"').fetchone()[0])
        assert beat.stop() == 0
        ledger.execute('UPDATE ledger_firing SET fired = fired - 7200 WHERE entry LIKE "often%"')
    recorder = run('recorder', SCHEDULE=schedule)
    eventually(lambda: recorder.metrics('overdue_job_timestamp_seconds', entry='often'))
    since = recorder.metrics('overdue_job_timestamp_seconds', entry='often')
    assert since == recorder.metrics('job_fired_timestamp_seconds', entry='often') + 3600
    assert recorder.metrics('overdue_job_timestamp_seconds') == since
    assert recorder.metrics('overdue_orders', state='waiting') == 0


def test_an_intake_counts_deliveries(run, broker):
    port = free_port()
    intake = run('intake', INTAKE_ADDRESS=f'127.0.0.1:{port}',
                 INTAKES=json.dumps({'shop': {'kind': 'submit', 'secrets': [SECRET]}}))
    eventually(lambda: intake.metrics('ready', role='intake') == 1)
    assert posted(port, '/in/shop', b'{}', {'Content-Type': 'application/json'}).status == 401
    assert posted(port, '/in/nobody', b'{}', {}).status == 404
    eventually(lambda: intake.metrics('intake_deliveries_total', intake='shop', state='refused') == 1)
    assert 'nobody' not in intake.metrics.text
    intake.process.send_signal(signal.SIGTERM)
    assert intake.process.wait(30) == 0


def test_a_queue_that_does_not_answer_keeps_no_recorder_from_recording(run, start, shop, publish, facts, node,
                                                                       tmp_path):
    with facts.connection() as connection:
        topology.declare(connection, [topology.task_queue(name) for name in (QUEUE, 'ecommerce.default')])
    assert run('migrate').process.wait(60) == 0
    node.ctl('eval', standstill('ecommerce.default', 'suspend'))
    try:
        recorder = run('recorder')
        start('--queues', QUEUE)
        shop.add_order('EDX-1')
        publish('EDX-1')
        with contextlib.closing(sqlite3.connect(tmp_path / 'ledger.sqlite3', timeout=60)) as ledger:
            eventually(lambda: ledger.execute('SELECT state FROM ledger_order').fetchall() == [('fulfilled',)])
        # Of what answers there are figures all the same.
        eventually(lambda: recorder.metrics('queue_consumers', queue=QUEUE) == 1)
        assert recorder.metrics('queue_messages', queue='ecommerce.default') is None
    finally:
        node.ctl('eval', standstill('ecommerce.default', 'resume'))


def test_figures_that_cannot_be_had_are_missing_and_cost_a_line(run, start, shop, publish, facts, tmp_path):
    assert run('migrate').process.wait(60) == 0
    with contextlib.closing(sqlite3.connect(tmp_path / 'ledger.sqlite3', timeout=60)) as ledger, ledger:
        ledger.execute('DROP TABLE ledger_beattick')
    recorder = run('recorder')
    start()
    shop.add_order('EDX-1')
    publish('EDX-1')
    with contextlib.closing(sqlite3.connect(tmp_path / 'ledger.sqlite3', timeout=60)) as ledger:
        eventually(lambda: ledger.execute('SELECT state FROM ledger_order').fetchall() == [('fulfilled',)])
    eventually(lambda: recorder.metrics('queue_consumers', queue=QUEUE) == 1)
    assert recorder.metrics('overdue_orders') is None
    assert recorder.log.count('cannot be reached, so its metrics are left out: what="the ledger"') == 1
    assert 'recording is paused' not in recorder.log
