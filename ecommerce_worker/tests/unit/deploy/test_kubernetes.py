"""The objects of deploy/kubernetes as kubectl renders them, held against the program."""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
import sys
import textwrap
from functools import cache
from pathlib import Path

import pytest
import yaml

from ecommerce_worker import settings
from ecommerce_worker.cli.up import CHILDREN, LAST
from ecommerce_worker.configuration import base
from ecommerce_worker.console.address import url_of
from ecommerce_worker.errors import Misconfigured
from ecommerce_worker.fulfillment.v1.tasks import fulfill_order
from ecommerce_worker.health.__main__ import answer
from ecommerce_worker.intake import intakes
from ecommerce_worker.process.several import GRACE
from ecommerce_worker.telemetry.serving import ports_of
from ecommerce_worker.tests.support.isolation import BARE
from ecommerce_worker.tests.unit.deploy.test_container import image_environment

ROOT = Path(settings.__file__).parents[2]
PLACE = ROOT / 'deploy' / 'kubernetes'

#: What the page has people make, besides what definitions.py writes.
MADE = {'ecommerce-worker-shop': {'oauth2-secret'}, 'ecommerce-worker-ledger': {'ledger-password'},
        'ecommerce-worker-console': {'console-secret-key'}, 'ecommerce-worker-intake': {'shop-secret'}}

pytestmark = pytest.mark.skipif(not shutil.which('kubectl'), reason='there is no kubectl to render with')


@cache
def rendered(name):
    """The objects of a folder, by kind and name."""
    done = subprocess.run(['kubectl', 'kustomize', PLACE / name], check=True, capture_output=True, text=True)
    return {(it['kind'], it['metadata']['name']): it for it in yaml.safe_load_all(done.stdout)}


def of_kind(name, *kinds):
    return [it for (kind, _), it in rendered(name).items() if kind in kinds]


def roles(name='base'):
    """The objects that run processes, by the command that they run."""
    found = {}
    for it in of_kind(name, 'Deployment', 'StatefulSet', 'Job'):
        container, = it['spec']['template']['spec']['containers']
        command, = container['args']
        found[command] = it
    return found


def pod(name, role):
    return roles(name)[role]['spec']['template']['spec']


ALL = [('base', role) for role in (*CHILDREN, 'migrate')] + [('overlays/sqlite', 'up')]
each_role = pytest.mark.parametrize('name, role', ALL)


def secrets_of(spec):
    """The files that a pod finds, and what each is of: a secret and its key."""
    volume = next(it for it in spec['volumes'] if it['name'] == 'credentials')
    return {item['path']: (source['secret']['name'], item['key'])
            for source in volume['projected']['sources'] for item in source['secret']['items']}


def environment_of(name, role, tmp_path):
    """The environment of a process, its files in a directory of the test's."""
    spec = pod(name, role)
    container, = spec['containers']
    told = {it['name']: it['value'] for it in container.get('env', ())}
    places = {it['name']: it['mountPath'] for it in container['volumeMounts']}
    assert told['CREDENTIALS_DIRECTORY'] == places['credentials']
    kept = tmp_path / 'credentials'
    kept.mkdir(exist_ok=True)
    for path, (_, key) in secrets_of(spec).items():
        (kept / path).write_text(f'amqp://{key}:pw@rabbitmq:5672/shop' if key.endswith('url') else key * 3)
    volume = next(it for it in spec['volumes'] if it['name'] == 'configuration')
    environment = {**image_environment(), **told}
    file = Path(environment['ECOMMERCE_WORKER_CFG'])
    assert str(file.parent) == places['configuration']
    (tmp_path / file.name).write_text(rendered(name)['ConfigMap', volume['configMap']['name']]['data'][file.name])
    return {**BARE, **environment, 'CREDENTIALS_DIRECTORY': str(kept),
            'ECOMMERCE_WORKER_CFG': str(tmp_path / file.name)}


def loaded(name, role, tmp_path):
    found = settings.load(environment_of(name, role, tmp_path), role)
    return found, intakes.read(found, {fulfill_order.name: fulfill_order})


def test_each_role_is_run_by_an_object_of_its_own():
    assert set(roles()) == {*CHILDREN, 'migrate'}
    assert set(roles('overlays/sqlite')) == {'up'}


@each_role
def test_the_configuration_of_a_pod_has_no_problem(name, role, tmp_path):
    found, taken = loaded(name, role, tmp_path)
    assert list(taken) == (['shop'] if role == 'intake' else [])
    if role != 'intake':
        assert url_of(found).startswith('https://')
    if role == 'up':
        # The only place of its own that is kept.
        state = next(it for it in pod(name, role)['containers'][0]['volumeMounts'] if it['name'] == 'state')
        assert Path(found.DATABASES['default']['NAME']).parent == Path(state['mountPath'])


@each_role
def test_a_pod_is_given_the_secrets_that_it_uses_and_no_others(name, role, tmp_path):
    environment = environment_of(name, role, tmp_path)
    place = Path(environment['CREDENTIALS_DIRECTORY'])
    for path in secrets_of(pod(name, role)):
        (place / path).rename(tmp_path / 'away')
        with pytest.raises(Misconfigured, match=f'{path}: No such file'):
            intakes.read(settings.load(environment, role), {fulfill_order.name: fulfill_order})
        (tmp_path / 'away').rename(place / path)


def test_secrets_are_those_that_the_page_has_people_make(tmp_path):
    program = ROOT / 'deploy' / 'rabbitmq' / 'definitions.py'
    subprocess.run([sys.executable, program, tmp_path], check=True)
    written = {path.name for path in tmp_path.iterdir()}
    made = {**MADE, 'ecommerce-worker-broker': {it for it in written if it.endswith('broker-url')}}
    for name, role in ALL:
        for secret, key in secrets_of(pod(name, role)).values():
            assert key in made[secret]
    asked = rendered('overlays/keda')['TriggerAuthentication', 'ecommerce-worker-rabbitmq']['spec']['secretTargetRef']
    assert [(it['name'], it['key']) for it in asked] == [('ecommerce-worker-monitoring', 'management-url')]
    assert 'management-url' in written
    page = (ROOT / 'docs' / 'how-to' / 'run-it-on-kubernetes.rst').read_text()
    for secret, keys in {**made, 'ecommerce-worker-monitoring': {'management-url'}}.items():
        command = re.search(rf'create secret generic {secret} ((?:.*\\\n)*.*)', page)
        assert command, secret
        assert set(re.findall(r'--from-file=credentials/([\w-]+)', command[1])) >= keys - {'shop-broker-url'}


@each_role
def test_a_pod_may_do_next_to_nothing(name, role):
    spec = pod(name, role)
    assert (spec['enableServiceLinks'], spec['automountServiceAccountToken']) == (False, False)
    security = spec['securityContext']
    assert (security['runAsNonRoot'], security['runAsUser'], security['seccompProfile']) == (
        True, 10001, {'type': 'RuntimeDefault'})
    for container in [*spec['containers'], *spec.get('initContainers', ())]:
        assert container['securityContext'] == {'allowPrivilegeEscalation': False, 'readOnlyRootFilesystem': True,
                                                'capabilities': {'drop': ['ALL']}}
        assert container['image'].endswith('/ecommerce-worker:4.0.0')
        assert container['resources']['limits'].keys() == {'memory'}
    written = {mount['mountPath'] for mount in spec['containers'][0]['volumeMounts'] if not mount.get('readOnly')}
    assert written == {'/tmp', image_environment()['ECOMMERCE_WORKER_HEALTH_DIR'],
                       *(['/var/lib/ecommerce-worker'] if role == 'up' else [])}


def seconds_before_it_is_told_to_stop(name, role):
    container, = pod(name, role)['containers']
    program, seconds = container.get('lifecycle', {}).get('preStop', {}).get('exec', {}).get('command', ['sleep', '0'])
    assert program == 'sleep'
    return float(seconds)


@each_role
def test_a_pod_is_killed_only_after_its_process_has_ended_by_itself(name, role):
    assert (pod(name, role)['terminationGracePeriodSeconds'] - seconds_before_it_is_told_to_stop(name, role)
            > base.SHUTDOWN_SECONDS + GRACE + 2 * LAST)


def test_who_answers_goes_on_until_a_service_leads_to_others():
    served = {role for role in CHILDREN if any(
        chosen({'matchLabels': it['spec']['selector']}, roles()[role]['spec']['template']['metadata']['labels'])
        for it in of_kind('base', 'Service'))}
    assert served == {role for role in CHILDREN if seconds_before_it_is_told_to_stop('base', role) >= 5}


@each_role
def test_probes_ask_by_commands_there_are_and_live_depends_on_nobody_else(name, role, tmp_path):
    container, = pod(name, role)['containers']
    probes = {probe: container.get(f'{probe}Probe') for probe in ('startup', 'liveness', 'readiness')}
    if role == 'migrate':
        assert not any(probes.values())
        return
    asked = {}
    for probe, it in probes.items():
        python, _, module, *asked[probe] = it['exec']['command']
        assert (python, module) == ('python', 'ecommerce_worker.health')
        # Nobody writes there: 1, and not the 2 of a wrong command line.
        assert answer([*asked[probe], '--dir', str(tmp_path)])[0] == 1
    assert asked == {'startup': ['--live'], 'liveness': ['--live'], 'readiness': ['--ready']}
    assert probes['liveness']['periodSeconds'] * probes['liveness']['failureThreshold'] >= base.HEALTH_SECONDS


def test_who_uses_the_ledger_waits_until_it_is_of_this_version():
    waiting = {role for role in CHILDREN if 'initContainers' in pod('base', role)}
    assert waiting == {'recorder', 'beat', 'console'}
    for role in waiting:
        container, = pod('base', role)['initContainers']
        assert container['args'] == ['migrate', '--check']
        assert container['volumeMounts'][1]['name'] == 'credentials'


@pytest.mark.parametrize('name, role, setting, port', [
    ('base', 'console', 'CONSOLE_ADDRESS', 'http'), ('base', 'intake', 'INTAKE_ADDRESS', 'http'),
    ('overlays/sqlite', 'up', 'CONSOLE_ADDRESS', 'console'), ('overlays/sqlite', 'up', 'INTAKE_ADDRESS', 'intake')])
def test_a_service_leads_to_the_port_that_is_listened_on(name, role, setting, port, tmp_path):
    host, _, number = getattr(loaded(name, role, tmp_path)[0], setting).rpartition(':')
    ports = {it['name']: it['containerPort'] for it in pod(name, role)['containers'][0]['ports']}
    assert (host, ports[port]) == ('0.0.0.0', int(number))
    labels = roles(name)[role]['spec']['template']['metadata']['labels']
    leads = [it for it in of_kind(name, 'Service') if it['spec']['selector'].items() <= labels.items()]
    assert [each['targetPort'] for it in leads for each in it['spec']['ports'] if each['port'] == int(number)] == [port]


@each_role
def test_metrics_are_where_a_pod_says(name, role, tmp_path):
    _, ports = ports_of(loaded(name, role, tmp_path)[0].METRICS_ADDRESS)
    assert {it['name']: it['containerPort'] for it in pod(name, role)['containers'][0]['ports']}['metrics'] in ports
    # One for each process.
    assert len(ports) == (len(CHILDREN) if role == 'up' else 1)


def chosen(selector, labels):
    return (selector.get('matchLabels', {}).items() <= labels.items()
            and all(it['operator'] == 'In' and labels.get(it['key']) in it['values']
                    for it in selector.get('matchExpressions', ())))


def allowed(name, role, direction):
    """The ports by which this role may be reached, or may reach others."""
    labels = roles(name)[role]['spec']['template']['metadata']['labels']
    policies = [it['spec'] for it in of_kind(name, 'NetworkPolicy') if chosen(it['spec']['podSelector'], labels)]
    assert any({'Ingress', 'Egress'} <= set(it['policyTypes']) for it in policies), 'all is allowed that is not named'
    return {port['port'] for it in policies for rule in it.get(direction, ()) for port in rule['ports']}


@pytest.mark.parametrize('role, reached_by, reaches', [
    ('worker', set(), {53, 5671, 5672, 5432, 80, 443, 25, 465, 587}),
    ('recorder', set(), {53, 5671, 5672, 5432}),
    ('beat', set(), {53, 5671, 5672, 5432}),
    ('console', {'http'}, {53, 5671, 5672, 5432, 80, 443}),
    ('intake', {'http'}, {53, 5671, 5672}),
    ('migrate', set(), {53, 5432})])
def test_a_role_reaches_what_it_works_with_and_nothing_else(role, reached_by, reaches):
    assert allowed('base', role, 'egress') == reaches
    assert allowed('base', role, 'ingress') == reached_by
    assert allowed('overlays/prometheus-operator', role, 'ingress') == reached_by | {'metrics'}


def test_pods_may_be_taken_one_at_a_time_also_while_none_is_ready():
    budgets = {it['spec']['selector']['matchLabels']['app.kubernetes.io/component']: it['spec']
               for it in of_kind('base', 'PodDisruptionBudget')}
    assert set(budgets) == {'worker', 'intake'}
    for role, budget in budgets.items():
        assert (budget['maxUnavailable'], budget['unhealthyPodEvictionPolicy']) == (1, 'AlwaysAllow')
        assert chosen(budget['selector'], roles()[role]['spec']['template']['metadata']['labels'])


def test_keda_counts_the_task_queues_over_http_and_has_two_messages_for_each_thread():
    scaled = rendered('overlays/keda')['ScaledObject', 'ecommerce-worker']['spec']
    assert scaled['scaleTargetRef']['name'] == roles('overlays/keda')['worker']['metadata']['name']
    assert 'replicas' not in roles('overlays/keda')['worker']['spec']
    assert scaled['minReplicaCount'] >= 1
    trigger, = scaled['triggers']
    said = trigger['metadata']
    assert (said['protocol'], said['mode'], said['useRegex'], said['operation']) == (
        'http', 'QueueLength', 'true', 'sum')
    assert all(re.search(said['queueName'], queue) for queue in base.QUEUES)
    assert not re.search(said['queueName'], 'ecommerce.parked')
    assert float(said['value']) == 2 * base.WORKER_CONCURRENCY


def test_the_alerts_are_those_of_deploy_prometheus():
    made = runpy.run_path(str(PLACE / 'rules.py'))['made']()
    assert (PLACE / 'overlays' / 'prometheus-operator' / 'rules.yaml').read_text() == made
    rule = rendered('overlays/prometheus-operator')['PrometheusRule', 'ecommerce-worker']
    assert rule['spec'] == yaml.safe_load((ROOT / 'deploy/prometheus/ecommerce-worker.rules.yml').read_text())


def test_prometheus_finds_each_process_and_no_job():
    monitor = rendered('overlays/prometheus-operator')['PodMonitor', 'ecommerce-worker']['spec']
    found = {role for role, it in roles('overlays/prometheus-operator').items()
             if chosen(monitor['selector'], it['spec']['template']['metadata']['labels'])}
    assert found == set(CHILDREN)
    assert [it['port'] for it in monitor['podMetricsEndpoints']] == ['metrics']


def test_a_folder_of_ones_own_builds_on_it_as_the_page_says(tmp_path):
    page = (ROOT / 'docs' / 'how-to' / 'run-it-on-kubernetes.rst').read_text()
    folder, patches = (textwrap.dedent(re.findall(begin + r'\n\n((?:    .*\n)+)', page)[0]) for begin in (
        r'address of the console::', r'remove its objects:\n\n\.\. code-block:: text'))
    site = tmp_path / 'site'
    site.mkdir()
    (tmp_path / 'ecommerce_worker').symlink_to(ROOT)
    (site / 'kustomization.yaml').write_text(folder + patches)
    for name in ('worker.yml', 'intake.yml'):
        (site / name).write_text((PLACE / 'base' / name).read_text().replace('.example.com', '.of.ours.example.com'))
    found = rendered(site)
    assert {it['metadata']['namespace'] for it in found.values()} == {'shop'}
    assert set(roles(site)) == {'worker', 'recorder', 'beat', 'console', 'migrate'}
    container, = pod(site, 'worker')['containers']
    assert container['image'] == 'registry.shop.example.com/ecommerce-worker:4.0.0'
    volume = next(it for it in pod(site, 'worker')['volumes'] if it['name'] == 'configuration')
    assert 'shop.of.ours.example.com' in found['ConfigMap', volume['configMap']['name']]['data']['worker.yml']
