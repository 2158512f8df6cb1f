"""What is counted in a process, and what bounds it."""

import os
import subprocess
import sys

import pytest

from ecommerce_worker.settings import load
from ecommerce_worker.telemetry.metrics import HOSTS, Metrics
from ecommerce_worker.telemetry.run import RunReport

TASK = 'ecommerce_worker.fulfillment.v1.tasks.fulfill_order'

#: A child that counts a burst of runs, faster than any worker.
CHILD = """
import os, sys, time
from ecommerce_worker.settings import load
from ecommerce_worker.telemetry.metrics import Metrics
from ecommerce_worker.telemetry.run import RunReport
metrics = Metrics(load({'WORKER_CONFIGURATION_MODULE': 'ecommerce_worker.configuration.test'}))
metrics.of_children()
if os.fork() == 0:
    for _ in range(100):
        metrics.called('shop', 'PUT', 200, 0.1)
        metrics.called('shop', 'GET', 200, 0.1)
        metrics.ended(RunReport('done', seconds=0.1, attempt=1, queued=1.0))
        metrics.published('fact', 0.1)
    metrics.circuit('shop', 'open', 'why')
    os._exit(0)
os.wait()
until = time.monotonic() + 60
while b'circuit_changes_total{' not in (page := metrics.page()[2]) and time.monotonic() < until:
    time.sleep(0.01)
print(page.decode())
"""

#: Somebody else's metrics, in files, in a process that begins to count ours.
BESIDE = """
import prometheus_client
theirs = prometheus_client.Histogram('theirs', 'What an extension counts.', ['what'])
theirs.labels('before').observe(1)
from ecommerce_worker.settings import load
from ecommerce_worker.telemetry import metrics
from ecommerce_worker.telemetry.run import RunReport
ours = metrics.begun(load({'WORKER_CONFIGURATION_MODULE': 'ecommerce_worker.configuration.test'}))
for _ in range(2):
    ours.ended(RunReport('done', seconds=0.1, attempt=1))
    theirs.labels('before').observe(1)
    theirs.labels('after').observe(1)
print(ours.page()[2].decode())
"""


@pytest.fixture
def metrics():
    return Metrics(load({'WORKER_CONFIGURATION_MODULE': 'ecommerce_worker.configuration.test'}), {TASK})


def lines(metrics, name):
    return [line for line in metrics.page()[2].decode().splitlines() if line.startswith(f'ecommerce_worker_{name}')]


def test_what_others_count_in_files_goes_on_and_ours_is_in_memory(tmp_path):
    done = subprocess.run([sys.executable, '-c', BESIDE], capture_output=True, text=True, check=False,
                          env={**os.environ, 'PROMETHEUS_MULTIPROC_DIR': str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert 'ecommerce_worker_run_duration_seconds_count{outcome="done",task="other"} 2.0' in done.stdout
    assert done.stderr.count('PROMETHEUS_MULTIPROC_DIR') == 1
    assert all(b'ecommerce_worker' not in path.read_bytes() for path in tmp_path.iterdir())


def test_what_a_child_counts_in_a_burst_is_all_counted_by_its_parent():
    done = subprocess.run([sys.executable, '-c', CHILD], capture_output=True, text=True, check=True)
    counted = dict(line.rsplit(' ', 1) for line in done.stdout.splitlines() if line.startswith('ecommerce_worker_'))
    totals = {name: sum(float(value) for series, value in counted.items()
                        if series.startswith(f'ecommerce_worker_{name}'))
              for name in ('runs_total', 'http_request_duration_seconds_count', 'first_run_delay_seconds_count',
                           'publish_confirm_seconds_count', 'circuit_state{host="shop",state="open"}')}
    assert list(totals.values()) == [100, 200, 100, 100, 1]


def test_labels_have_no_more_values_than_the_configuration_has_names(metrics):
    for number in range(HOSTS + 50):
        metrics.ended(RunReport('done', task=f'task-{number}', queue=f'queue-{number}', site=f'site-{number}',
                                cause=f'cause-{number}', attempt=1))
        metrics.called(f'host-{number}', f'METHOD-{number}', 200, 0.1)
        metrics.fetched(f'host-{number}', f'cause-{number}')
    assert lines(metrics, 'runs_total') == [
        'ecommerce_worker_runs_total{cause="other",outcome="done",queue="other",site="other",task="other"} 150.0']
    assert len(lines(metrics, 'http_request_duration_seconds_count')) == HOSTS + 1
    assert len(lines(metrics, 'token_fetches_total')) == HOSTS + 1


def test_what_cannot_be_looked_at_is_missing_and_all_else_is_there(metrics):
    metrics.look('broken', 'It raises.', lambda: 1 / 0)
    metrics.look('whole', 'It does not.', lambda: {(): 1.0})
    assert lines(metrics, 'broken') == []
    assert lines(metrics, 'whole') == ['ecommerce_worker_whole 1.0']


def test_only_what_says_how_long_it_lay_is_counted_by_that(metrics):
    metrics.ended(RunReport('done', task=TASK, queue='ecommerce.fulfillment', attempt=1, queued=7))
    metrics.ended(RunReport('done', task=TASK, queue='ecommerce.fulfillment', attempt=1))
    assert lines(metrics, 'first_run_delay_seconds_count') == [
        'ecommerce_worker_first_run_delay_seconds_count{queue="ecommerce.fulfillment"} 1.0']
