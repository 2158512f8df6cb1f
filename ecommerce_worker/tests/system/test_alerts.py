"""The alerts for Prometheus, judged by its own `promtool`: each is raised, stays silent, and is known what it does when
its series are missing.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
RULES = ROOT / 'deploy' / 'prometheus' / 'ecommerce-worker.rules.yml'
RUNBOOK = ROOT / 'docs' / 'how-to' / 'answer-alerts.rst'
FULFILL = 'ecommerce_worker.fulfillment.v1.tasks.fulfill_order'

#: Of each alert: series with which it is raised after two hours, a value a minute, and with which it is not.
SERIES = {
    'PaidOrderUnfulfilled': ({f'oldest_open_timestamp_seconds{{task="{FULFILL}",site=""}}': '60x120'},
                             {f'oldest_open_timestamp_seconds{{task="{FULFILL}",site=""}}': '0+60x120'}),
    'OrdersParked': ({f'orders{{state="parked",task="{FULFILL}",site="",cause="rejected",instance="a"}}': '1x120',
                      f'orders{{state="parked",task="{FULFILL}",site="",cause="rejected",instance="b"}}': '1x120'},
                     {f'orders{{state="waiting",task="{FULFILL}",site="",cause="rejected"}}': '1x120'}),
    'OrdersOverdue': ({'overdue_orders{state="waiting"}': '2x120', 'overdue_orders{state="trying"}': '0x120'},
                      {'overdue_orders{state="waiting"}': '0x120'}),
    'NobodyConsumes': ({'queue_messages{queue="ecommerce.fulfillment"}': '3x120',
                        'queue_consumers{queue="ecommerce.fulfillment"}': '0x120'},
                       {'queue_messages{queue="ecommerce.fulfillment"}': '3x120',
                        'queue_consumers{queue="ecommerce.fulfillment"}': '1x120',
                        'queue_messages{queue="ecommerce.parked"}': '3x120',
                        'queue_consumers{queue="ecommerce.parked"}': '0x120'}),
    'QueueGrows': ({'queue_messages{queue="ecommerce.fulfillment",instance="a"}': '0+2x120',
                    'queue_messages{queue="ecommerce.fulfillment",instance="b"}': '0+2x120',
                    'threads{instance="c"}': '32x120', 'threads{instance="d"}': '32x120'},
                   {'queue_messages{queue="ecommerce.fulfillment"}': '400-2x120',
                    'queue_messages{queue="ecommerce.default"}': '0+1x120',
                    'queue_messages{queue="ecommerce.ledger"}': '0+9x120',
                    'queue_messages{queue="waiting room"}': '0+9x120',
                    'threads{instance="c"}': '32x120', 'threads{instance="d"}': '32x120'}),
    'WaitingGrows': ({'queue_messages{queue="waiting room"}': '0+2x120'},
                     {'queue_messages{queue="waiting room"}': '400-1x120',
                      'queue_messages{queue="ecommerce.fulfillment"}': '0+9x120'}),
    'CredentialsRefused': ({'runs_total{site="",cause="unauthorized"}': '0+1x120'},
                           {'runs_total{site="",cause="unauthorized"}': '7x120',
                            'runs_total{site="",cause="none"}': '0+9x120'}),
    'DefectInWorker': ({'runs_total{task="a",cause="defect"}': '_x100 1x20'},
                       {'runs_total{task="a",cause="defect"}': '1x120'}),
    'ServiceLeftAlone': ({'circuit_state{host="shop",state="open"}': '1x120'},
                         {'circuit_state{host="shop",state="open"}': '0x120',
                          'circuit_state{host="shop",state="closed"}': '1x120'}),
    'NotReady': ({'ready{role="recorder",instance="a"}': '0x120'}, {'ready{role="recorder",instance="a"}': '1x120'}),
    'WorkerAbsent': ({'ready{role="worker",instance="a"}': '0x120'},
                     {'ready{role="worker",instance="a"}': '0x120', 'ready{role="worker",instance="b"}': '1x120'}),
    'RecorderAbsent': ({'ready{role="worker"}': '1x120'}, {'overdue_orders': '0x120'}),
    'RecorderBehind': ({'queue_messages{queue="ecommerce.ledger"}': '10001x120'},
                       {'queue_messages{queue="ecommerce.ledger"}': '9999x120',
                        'queue_messages{queue="ecommerce.fulfillment"}': '10001x120'}),
    'ScheduleOverdue': ({'overdue_job_timestamp_seconds{entry="resubmit",instance="a"}': '600x120',
                         'overdue_job_timestamp_seconds{entry="resubmit",instance="b"}': '600x120'},
                        {'overdue_job_timestamp_seconds{entry="resubmit"}': '600x20 _x100',
                         'job_fired_timestamp_seconds{entry="resubmit"}': '600x120'}),
    'RestartLoop': ({'process_start_time_seconds{job="w",instance="a"}': '0+600x120',
                     'build_info{job="w",instance="a",version="4"}': '1x120'},
                    {'process_start_time_seconds{job="w",instance="a"}': '0x100 600x20',
                     'build_info{job="w",instance="a",version="4"}': '1x120',
                     'process_start_time_seconds{job="another",instance="a"}': '0+600x120'}),
    'BrokerFlapping': ({'connections_total{instance="a"}': '1+1x120'},
                       {'connections_total{instance="a"}': '1x100 2x20'}),
    'BeatSilent': ({'beat_timestamp_seconds': '60x120'}, {'beat_timestamp_seconds': '0+60x120'}),
    'MessagesUnpublished': ({'unpublished_messages{instance="a"}': '1x120'},
                            {'unpublished_messages{instance="a"}': '0x120'}),
    'FactsLost': ({'lost_facts': '1x120'}, {'lost_facts': '0x120'}),
}

#: Those that are raised when there is no series at all: whom they ask is not there.
OF_THE_ABSENT = {'WorkerAbsent', 'RecorderAbsent'}


@pytest.fixture(scope='module')
def promtool():
    """Prometheus's own judge of rules."""
    found = shutil.which('promtool')
    if found is None:
        if os.environ.get('CI'):
            pytest.fail('there is no promtool: install the package prometheus')
        pytest.skip('there is no promtool: install the package prometheus')
    return found


def rules():
    group, = yaml.safe_load(RULES.read_text())['groups']
    return {rule['alert']: rule for rule in group['rules']}


def raised(promtool, directory, series_of):
    """How often each alert is raised after two hours of its series.

    All in one process: to begin takes promtool longer than to judge.
    """
    paths = {}
    for alert, series in series_of.items():
        paths[alert] = directory / f'{alert}.yml'
        paths[alert].write_text(yaml.safe_dump({
            'rule_files': [str(RULES)], 'evaluation_interval': '1m', 'tests': [{
                'interval': '1m',
                'input_series': [{'series': name if name.startswith('process_') else f'ecommerce_worker_{name}',
                                  'values': values} for name, values in series.items()],
                'alert_rule_test': [{'eval_time': '115m', 'alertname': alert, 'exp_alerts': []}]}]}))
    done = subprocess.run([promtool, 'test', 'rules', *map(str, paths.values())], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False)
    said = dict(zip(paths, done.stdout.split('Unit Testing: ')[1:], strict=True))
    assert all('SUCCESS' in text or 'got:[' in text for text in said.values()), done.stdout
    return {alert: text.count(f'alertname="{alert}"') for alert, text in said.items()}


def test_each_alert_has_a_test_and_a_section_that_says_what_to_do():
    assert rules().keys() == SERIES.keys()
    titles = re.findall(r'^(\w+)\n=+$', RUNBOOK.read_text(), re.MULTILINE)
    assert sorted(titles) == sorted(SERIES)
    for alert, rule in rules().items():
        assert rule['annotations']['runbook'] == f'docs/how-to/answer-alerts.rst#{alert.lower()}'
        assert rule['labels']['severity'] in ('page', 'ticket')


def test_each_series_that_is_asked_for_is_in_the_reference():
    described = (ROOT / 'docs' / 'reference' / 'metrics.rst').read_text()
    for name in set(re.findall(r'ecommerce_worker_(\w+)', RULES.read_text())):
        assert re.search(rf'``{name}(\{{|``)', described), name


def test_an_alert_is_raised_when_it_should_be_and_at_no_other_time(promtool, tmp_path):
    firing, silent = ({alert: series[number] for alert, series in SERIES.items()} for number in (0, 1))
    assert raised(promtool, tmp_path, firing) == dict.fromkeys(SERIES, 1)
    assert raised(promtool, tmp_path, silent) == dict.fromkeys(SERIES, 0)


def test_where_its_series_are_missing_only_the_alerts_about_the_absent_are_raised(promtool, tmp_path):
    assert raised(promtool, tmp_path, {alert: {} for alert in SERIES}) == {
        alert: int(alert in OF_THE_ABSENT) for alert in SERIES}


def test_the_rules_are_well_formed(promtool):
    done = subprocess.run([promtool, 'check', 'rules', str(RULES)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
