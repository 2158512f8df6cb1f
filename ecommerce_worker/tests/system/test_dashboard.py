"""The dashboard and the alerts, answered by a real Prometheus that asks real processes with orders in every state."""

import contextlib
import json
import os
import re
import shutil
import subprocess
from functools import partial
from pathlib import Path

import pytest

from ecommerce_worker.testing.intake import SECRET
from ecommerce_worker.testing.rabbitmq import free_port
from ecommerce_worker.testing.shop import Answer
from ecommerce_worker.tests.support.harness import QUEUE, Program, eventually
from ecommerce_worker.tests.support.health import page
from ecommerce_worker.tests.support.intake import posted, source_of
from ecommerce_worker.tests.support.prometheus import Prometheus, alerts, described, expressions, selectors

#: Alerts whose state is brought about here.
RAISED = {'OrdersParked', 'CredentialsRefused', 'ServiceLeftAlone', 'NobodyConsumes', 'DefectInWorker'}

#: Why the others are silent; that each is raised in its time is for promtool, which has any time.
SILENT = {
    'PaidOrderUnfulfilled': 'no order is an hour old',
    'OrdersOverdue': 'what is not heard of counts after ten minutes',
    'QueueGrows': 'there are fewer messages than threads',
    'WaitingGrows': 'it takes a hundred messages',
    'NotReady': 'all processes do their work',
    'WorkerAbsent': 'a worker runs',
    'RecorderAbsent': 'a recorder runs',
    'RecorderBehind': 'it takes 10,000 facts',
    'BeatSilent': 'a beat runs',
    'ScheduleOverdue': 'a beat runs',
    'RestartLoop': 'no process was started again',
    'BrokerFlapping': 'no connection was lost',
    'MessagesUnpublished': 'RabbitMQ takes messages',
    'FactsLost': 'no report was lost',
}

#: What is not there while all this goes well, and why.
UNSEEN = {
    'overdue_job_timestamp_seconds': 'a beat runs, so no job is overdue',
    'publish_failures_total': 'RabbitMQ takes messages',
}

#: A task of somebody's with a programming error.
BROKEN = """
from ecommerce_worker.execution.task import task

@task()
def divide(self):
    return 1 / 0
"""


@pytest.fixture
def prometheus(tmp_path):
    """Start one."""
    program = shutil.which('prometheus')
    if program is None:
        if os.environ.get('CI'):
            pytest.fail('there is no prometheus: install the package prometheus')
        pytest.skip('there is no prometheus: install the package prometheus')
    started = []

    def start(jobs):
        started.append(Prometheus(program, tmp_path, jobs))
        eventually(lambda: started[-1].is_up)
        return started[-1]

    yield start
    for each in started:
        each.end()


@pytest.fixture
def run(environment, tmp_path):
    """Start a command of ours."""
    started = []

    def start(*words, **settings):
        changed = {f'ECOMMERCE_WORKER_{name}': str(value) for name, value in settings.items()}
        started.append(Program(tmp_path / f'{words[0]}.log', {**environment, **changed}, '-m', 'ecommerce_worker',
                               *words))
        return started[-1]

    yield start
    for program in started:
        program.kill()


def is_unseen(text):
    return any(name in text for name in UNSEEN)


def test_each_alert_is_expected_to_be_raised_or_to_be_silent():
    assert set(RAISED) | set(SILENT) == set(alerts())
    assert not set(RAISED) & set(SILENT)


def test_each_question_of_the_dashboard_and_of_the_alerts_is_answered(prometheus, run, start_worker, environment, facts,
                                                                      shop, publish, broker, tmp_path):
    ports = {role: free_port() for role in ('worker', 'recorder', 'beat', 'intake')}
    address = {role: {'METRICS_ADDRESS': f'127.0.0.1:{port}'} for role, port in ports.items()}
    taken = free_port()
    (tmp_path / 'broken.py').write_text(BROKEN)
    environment['PYTHONPATH'] = f'{tmp_path}:{Path(__file__).parents[3]}'
    environment['ECOMMERCE_WORKER_CELERY_IMPORTS'] = 'ecommerce_worker.fulfillment.v1.tasks,broken'
    assert run('migrate').process.wait(60) == 0
    run('recorder', **address['recorder'])
    run('beat', **address['beat'])
    run('intake', INTAKE_ADDRESS=f'127.0.0.1:{taken}', **address['intake'],
        INTAKES=json.dumps({'shop': {'kind': 'submit', 'secrets': [SECRET]}}))
    worker = start_worker('--queues', QUEUE, MAX_FULFILLMENT_RETRIES=0, RETRY_DELAY_MIN=600, RETRY_DELAY_MAX=600,
                          FULFILLMENT_READ_TIMEOUT=300, SHUTDOWN_SECONDS=1, **address['worker']).ready()
    eventually(lambda: page(ports['intake'], '/readyz')[0] == 200)
    seen = prometheus(ports)

    def post(number):
        body = json.dumps({'order_number': number}).encode()
        source = source_of('submit')
        return posted(taken, '/in/shop', body, source.signed(body, source.key(SECRET), 'order', 0)).state

    def value(expr):
        return sum(float(each['value'][1]) for each in seen.ask(expr))

    def are_ended(wave):
        runs = {(each['metric']['outcome'], each['metric']['cause']): float(each['value'][1])
                for each in seen.ask('sum by (outcome, cause) (ecommerce_worker_runs_total)')}
        return runs == {('done', 'none'): wave, ('parked', 'unauthorized'): wave, ('retrying', 'peer_failure'): wave,
                        ('parked', 'defect'): wave} and value(
                            'ecommerce_worker_messages_without_run_total') == 2 * wave

    # Twice, since what was there when it was first asked for has no rate.
    for wave in (1, 2):
        for kind, *answers in (('done',), ('refused', Answer(403)), ('fails', Answer(503))):
            shop.add_order(f'{kind}-{wave}', *answers)
            assert post(f'{kind}-{wave}') == 'accepted'
        publish(task='broken.divide', queue=QUEUE)
        publish('EDX-1', task='unheard.of', queue=QUEUE)
        broker.publish_raw(b'nonsense', content_type='application/x-unheard-of')
        eventually(partial(are_ended, wave))
    shop.add_order('hangs', Answer.hanging())
    publish('hangs')
    publish('nobody', queue='ecommerce.default')
    eventually(lambda: value('ecommerce_worker_busy_threads') == 1)
    for number in range(6):
        shop.add_order(f'down-{number}', Answer(503))
        publish(f'down-{number}')
    eventually(lambda: value('ecommerce_worker_circuit_state{state="open"}') == 1)
    # Of the recorder: what it saw when it looked last.
    eventually(lambda: value('ecommerce_worker_orders{state="parked"}') >= 8)
    eventually(lambda: value('ecommerce_worker_queue_messages{queue="ecommerce.default"}') == 1)

    unanswered = [expr for expr in expressions() if not is_unseen(expr)]

    def all_are_answered():
        unanswered[:] = [expr for expr in unanswered if not seen.ask(expr)]
        return not unanswered

    with contextlib.suppress(AssertionError):
        eventually(all_are_answered, seconds=60)
    assert unanswered == []
    assert [expr for expr in expressions() if is_unseen(expr) and seen.ask(expr)] == []
    assert [expr for expr, labels in expressions().items() for each in seen.ask(expr)
            if not labels <= each['metric'].keys()] == []
    rules = {rule['name']: rule for group in seen.get('rules')['groups'] for rule in group['rules']}
    assert {name: rule.get('lastError', '') for name, rule in rules.items()} == dict.fromkeys(alerts(), '')
    assert {name for name, expr in alerts().items() if seen.ask(expr)} == RAISED
    for selector in {each for expr in alerts().values() for each in selectors(expr)}:
        assert bool(seen.ask(selector)) != is_unseen(selector), selector

    told = {re.sub(r'_(bucket|count|sum)$', '', each['metric']['__name__'].removeprefix('ecommerce_worker_'))
            for each in seen.ask('{__name__=~"ecommerce_worker_.+"}')}
    assert told == described() - set(UNSEEN)
    for port in ports.values():
        done = subprocess.run(['promtool', 'check', 'metrics'], input=page(port, '/metrics')[1], capture_output=True,
                              text=True, check=False)
        assert not [line for line in done.stderr.splitlines() if 'ecommerce_worker' in line]
    assert worker.process.poll() is None
