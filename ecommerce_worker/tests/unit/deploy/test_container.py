"""The image's description and what Compose makes of it, held against the program."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from ecommerce_worker import settings
from ecommerce_worker.cli import main
from ecommerce_worker.cli.up import CHILDREN, LAST
from ecommerce_worker.configuration import base
from ecommerce_worker.console.address import url_of
from ecommerce_worker.errors import Misconfigured
from ecommerce_worker.fulfillment.v1.tasks import fulfill_order
from ecommerce_worker.health.__main__ import answer
from ecommerce_worker.intake import intakes
from ecommerce_worker.intake.spool import directory_of
from ecommerce_worker.process.several import GRACE
from ecommerce_worker.tests.support.isolation import BARE

ROOT = Path(settings.__file__).parents[2]
PLACE = ROOT / 'deploy' / 'container'
DOCKERFILE = PLACE / 'Dockerfile'
COMPOSE = yaml.safe_load((PLACE / 'compose.yaml').read_text())
OURS = {name: service for name, service in COMPOSE['services'].items() if 'command' in service}


def instructions(name):
    """What stands after an instruction of the Dockerfile, wherever it stands."""
    text = DOCKERFILE.read_text().replace('\\\n', ' ')
    return re.findall(rf'^\s*(?:HEALTHCHECK .*)?{name} (.*)$', text, re.MULTILINE)


def image_environment():
    last, = instructions('ENV')
    return dict(word.split('=', 1) for word in shlex.split(last))


def test_the_image_runs_as_nobody_and_begins_with_a_command_there_is():
    assert instructions('USER') == ['10001:10001']
    entry, = map(json.loads, instructions('ENTRYPOINT'))
    assert entry == ['tini', '--', 'ecommerce-worker']
    *_, (command,) = map(json.loads, instructions('CMD'))
    assert command in main.commands


def test_the_image_asks_its_health_by_a_command_there_is(tmp_path, environment):
    environment.setenv('ECOMMERCE_WORKER_HEALTH_DIR', str(tmp_path))
    asked, *_ = map(json.loads, instructions('CMD'))
    assert asked[:3] == ['python', '-m', 'ecommerce_worker.health']
    # Nobody writes there: 1, and not the 2 of a wrong command line.
    assert answer(asked[3:])[0] == 1


def test_the_image_installs_the_versions_that_are_tested():
    def pins(path):
        return set(re.findall(r'^([\w.-]+==[\w.]+)', (ROOT / path).read_text(), re.MULTILINE))

    assert pins('deploy/container/requirements.txt') == pins('requirements/production.txt')


def test_what_is_copied_into_the_image_exists_and_is_let_through():
    ignored = (PLACE / 'Dockerfile.dockerignore').read_text().split()
    for line in instructions('COPY'):
        if line.startswith('--from'):
            continue
        for path in line.split()[:-1]:
            assert (ROOT / path).exists()
            assert any(f'!{path}' == kept or (kept[0] == '!' and Path(path).match(kept[1:])) for kept in ignored), path


def test_each_role_is_a_service_that_runs_its_command():
    assert {name: service['command'] for name, service in OURS.items()} == {
        role: [role] for role in (*CHILDREN, 'migrate')}


def test_a_service_is_killed_only_after_its_process_has_ended_by_itself():
    for service in OURS.values():
        assert int(service['stop_grace_period'].removesuffix('s')) > base.SHUTDOWN_SECONDS + GRACE + 2 * LAST


def secrets_of(service):
    """The files that a service finds, and what each is of."""
    return {it if isinstance(it, str) else it['target']: it if isinstance(it, str) else it['source']
            for it in service['secrets']}


def environment_of(name, tmp_path):
    """The environment of a service, its secrets in a directory of the test's."""
    service = OURS[name]
    kept = tmp_path / 'secrets'
    kept.mkdir(exist_ok=True)
    for target, source in secrets_of(service).items():
        (kept / target).write_text(f'amqp://{source}:pw@rabbitmq:5672/shop' if target.endswith('url') else source * 3)
    environment = {**BARE, **image_environment(), **service.get('environment', {}), 'CREDENTIALS_DIRECTORY': str(kept)}
    mounted = dict(line.split(':')[1::-1] for line in service['volumes'])
    environment['ECOMMERCE_WORKER_CFG'] = str(PLACE / mounted[environment['ECOMMERCE_WORKER_CFG']])
    return environment


def loaded(name, tmp_path):
    """The configuration in force in this service, and its intakes."""
    found = settings.load(environment_of(name, tmp_path), name)
    return found, intakes.read(found, {fulfill_order.name: fulfill_order})


@pytest.mark.parametrize('name', OURS)
def test_the_configuration_of_a_service_has_no_problem(name, tmp_path):
    found, taken = loaded(name, tmp_path)
    hosts = {found.DATABASES['default'].get('HOST')} - {None}
    assert hosts <= set(COMPOSE['services'])
    assert list(taken) == (['shop'] if name == 'intake' else [])
    if name != 'intake':
        assert url_of(found).startswith('https://')
        assert 'ledger' in OURS[name]['networks']


@pytest.mark.parametrize('name', OURS)
def test_a_service_is_given_the_secrets_that_it_uses_and_no_others(name, tmp_path):
    environment = environment_of(name, tmp_path)
    place = Path(environment['CREDENTIALS_DIRECTORY'])
    for target, source in secrets_of(OURS[name]).items():
        assert source in COMPOSE['secrets']
        (place / target).rename(tmp_path / 'away')
        with pytest.raises(Misconfigured, match=f'{target}: No such file'):
            intakes.read(settings.load(environment, name), {fulfill_order.name: fulfill_order})
        (tmp_path / 'away').rename(place / target)


def test_what_an_intake_keeps_on_disk_outlives_its_container(tmp_path, monkeypatch):
    volume, place = OURS['intake']['volumes'][-1].split(':')
    assert volume in COMPOSE['volumes']
    monkeypatch.setenv('HOME', image_environment()['HOME'])
    assert directory_of(loaded('intake', tmp_path)[0]).is_relative_to(place)


def test_each_service_has_a_user_of_its_own_in_rabbitmq():
    urls = {name: secrets_of(service).get('broker-url') for name, service in OURS.items()}
    assert urls == {name: {'worker': 'broker-url', 'migrate': None}.get(name, f'{name}-broker-url') for name in OURS}


@pytest.mark.parametrize('name, setting', [('console', 'CONSOLE_ADDRESS'), ('intake', 'INTAKE_ADDRESS')])
def test_the_port_of_a_service_is_the_one_that_it_listens_on_and_open_to_this_machine_only(name, setting, tmp_path):
    address = getattr(loaded(name, tmp_path)[0], setting)
    port = address.rpartition(':')[2]
    assert address == f'0.0.0.0:{port}'
    assert OURS[name]['ports'] == [f'127.0.0.1:{port}:{port}']


def test_the_intake_reaches_no_ledger_and_what_writes_it_waits_until_it_is_made():
    assert 'ledger' not in OURS['intake']['networks']
    for name in ('recorder', 'beat', 'console'):
        assert OURS[name]['depends_on']['migrate'] == {'condition': 'service_completed_successfully'}
    for service in COMPOSE['services'].values():
        for other, how in service.get('depends_on', {}).items():
            # The worker's image brings its own.
            if how['condition'] == 'service_healthy' and other != 'worker':
                assert COMPOSE['services'][other]['healthcheck']['test']
