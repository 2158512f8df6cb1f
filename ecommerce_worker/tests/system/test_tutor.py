"""The plugin for Tutor, installed, enabled and rendered by the real Tutor."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ecommerce_worker import settings
from ecommerce_worker.cli.up import LAST
from ecommerce_worker.configuration import base
from ecommerce_worker.fulfillment.v1.tasks import fulfill_order
from ecommerce_worker.intake import intakes
from ecommerce_worker.process.several import GRACE
from ecommerce_worker.tests.support.cache import ROOT, TOOLS, needs_tools
from ecommerce_worker.tests.support.isolation import BARE

INTAKE = {'mine': {'kind': 'submit', 'secrets': ['a-secret-of-the-shop-of-32-bytes-and-more'],
                   'events': {'*': 'fulfill_order'}}}

pytestmark = needs_tools


@pytest.fixture
def tutor(tmp_path):
    """Runs Tutor, in a root of its own, with the plugin."""
    place = tmp_path / 'tutor'
    place.mkdir()
    # A copy, since building leaves things behind.
    shutil.copytree(ROOT / 'deploy' / 'tutor', place / 'source')
    subprocess.run([TOOLS / 'python', '-m', 'pip', '--quiet', '--disable-pip-version-check', 'install', '--no-deps',
                    '--target', place / 'site', place / 'source'], check=True, capture_output=True)
    environment = {**os.environ, 'PYTHONPATH': str(place / 'site'), 'TUTOR_ROOT': str(place / 'root'),
                   'TUTOR_PLUGINS_ROOT': str(place / 'plugins')}

    def run(*arguments):
        done = subprocess.run([TOOLS / 'tutor', *arguments], env=environment, check=False, capture_output=True,
                              text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    (place / 'root').mkdir()
    run('plugins', 'enable', 'ecommerceworker')
    return run


@pytest.fixture
def rendered(tutor):
    """Where Tutor has rendered all, of a site with TLS and an intake."""
    tutor('config', 'save', '--set', 'LMS_HOST=learn.example.com', '--set', 'ENABLE_HTTPS=true',
          '--set', f'ECOMMERCEWORKER_SETTINGS={json.dumps({"INTAKES": INTAKE})}')
    return Path(tutor('config', 'printroot').strip()) / 'env'


def apps(rendered):
    return rendered / 'plugins' / 'ecommerceworker' / 'apps'


def loaded(text, tmp_path):
    """The configuration in force in the container, which is the same for all of its processes."""
    (tmp_path / 'worker.yml').write_text(text)
    return settings.load({**BARE, 'WORKER_CONFIGURATION_MODULE': 'ecommerce_worker.configuration.production',
                          'ECOMMERCE_WORKER_CFG': str(tmp_path / 'worker.yml')}, 'up')


def the_configuration_has_no_problem_and_leads_to_the_services_of_tutor(rendered, tmp_path):
    found = loaded((apps(rendered) / 'ecommerceworker/worker.yml').read_text(), tmp_path)
    assert list(intakes.read(found, {fulfill_order.name: fulfill_order})) == ['mine']
    assert found.authentication == 'oauth2'
    assert found.LMS_ROOT_URL == 'http://lms:8000/'
    assert (found.CONSOLE_URL, found.INTAKE_URL) == ('https://orders.learn.example.com',
                                                     'https://intake.learn.example.com')
    assert not found.SCHEDULE['resubmit']['enabled']


def without_tls_or_with_a_shop_it_has_none_either(tutor, rendered, tmp_path):
    said = {'ECOMMERCE_API_ROOT': 'https://shop.example.com/api/v2/', 'LOG_FORMAT': 'json', 'EMAIL_VENDOR': 'smtp',
            'EMAIL_OPTIONS': {'host': 'smtp', 'from_email': 'shop@example.com'}}
    place = rendered.parent.parent / 'another'
    place.mkdir()
    tutor('--root', str(place), 'plugins', 'enable', 'ecommerceworker')
    tutor('--root', str(place), 'config', 'save', '--set', 'LMS_HOST=learn.example.com', '--set',
          f'ECOMMERCEWORKER_SETTINGS={json.dumps(said)}', '--set', 'ECOMMERCEWORKER_RUN_RABBITMQ=false')
    found = loaded((apps(place / 'env') / 'ecommerceworker/worker.yml').read_text(), tmp_path)
    assert (found.CONSOLE_URL, found.LOG_FORMAT, found.email_vendor) == ('http://localhost:8130', 'json', 'smtp')
    assert found.SCHEDULE['resubmit'].get('enabled', True)
    assert 'rabbitmq' not in yaml.safe_load((place / 'env/local/docker-compose.yml').read_text())['services']


def rabbitmq_lets_worker_and_shop_in_with_the_permissions_and_policies_of_deploy(rendered, tmp_path):
    found = json.loads((apps(rendered) / 'rabbitmq/definitions.json').read_text())
    subprocess.run([sys.executable, ROOT / 'deploy/rabbitmq/definitions.py', tmp_path], check=True)
    ours = json.loads((tmp_path / 'definitions.json').read_text())
    assert found['permissions'] == [it for it in ours['permissions'] if it['user'] in ('worker', 'shop')]
    assert found['policies'] == ours['policies']
    url = loaded((apps(rendered) / 'ecommerceworker/worker.yml').read_text(), tmp_path).BROKER_URL
    password = re.fullmatch(r'amqp://worker:(\w+)@rabbitmq:5672/shop', url)
    assert password
    worker = next(it for it in found['users'] if it['name'] == 'worker')
    kept = base64.b64decode(worker['password_hash'])
    assert kept[4:] == hashlib.sha256(kept[:4] + password[1].encode()).digest()


def compose_runs_all_in_one_container_that_is_killed_only_after_it_has_ended(rendered):
    services = yaml.safe_load((rendered / 'local/docker-compose.yml').read_text())['services']
    service = services['ecommerceworker']
    assert service['command'] == ['up']
    assert int(service['stop_grace_period'].removesuffix('s')) > base.SHUTDOWN_SECONDS + GRACE + 2 * LAST
    assert set(service['depends_on']) <= set(services)
    for name in ('ecommerceworker', 'rabbitmq'):
        for line in services[name]['volumes']:
            source = (rendered / 'local' / line.split(':')[0]).resolve()
            assert source.exists() or source.parent == rendered.parent / 'data'
    owned = (rendered / 'apps/permissions/setowners.sh').read_text()
    assert 'setowner 10001 /mounts/ecommerceworker' in owned
    assert '../../data/ecommerceworker:/mounts/ecommerceworker:z' in services['permissions']['volumes']


def the_proxy_leads_to_console_and_intake(rendered):
    caddy = (rendered / 'apps/caddy/Caddyfile').read_text()
    assert re.search(r'orders\.learn\.example\.com\S* \{\s+import proxy "ecommerceworker:8130"', caddy)
    assert re.search(r'intake\.learn\.example\.com\S* \{\s+import proxy "ecommerceworker:8087"', caddy)


def the_lms_is_told_who_the_worker_is(rendered, tmp_path):
    task = (ROOT / 'deploy/tutor/tutorecommerceworker/templates/ecommerceworker/tasks/lms/init.sh').read_text()
    assert 'manage_user ecommerce_worker ecommerce_worker@openedx --staff' in task
    found = loaded((apps(rendered) / 'ecommerceworker/worker.yml').read_text(), tmp_path)
    config = yaml.safe_load((rendered.parent / 'config.yml').read_text())
    assert config['ECOMMERCEWORKER_OAUTH2_SECRET'] == found.BACKEND_SERVICE_EDX_OAUTH2_SECRET
    for name in re.findall(r'\{\{ (ECOMMERCEWORKER_\w+) \}\}', task):
        assert name in config or name in ('ECOMMERCEWORKER_HOST', 'ECOMMERCEWORKER_OAUTH2_KEY')


def kubernetes_takes_its_objects(rendered, tmp_path):
    done = subprocess.run(['kubectl', 'kustomize', rendered], check=True, capture_output=True, text=True)
    objects = [it for it in yaml.safe_load_all(done.stdout)
               if it['metadata']['labels'].get('app.kubernetes.io/name') in ('ecommerceworker', 'rabbitmq')]
    assert sorted((it['kind'], it['metadata']['name']) for it in objects) == [
        ('Deployment', 'ecommerceworker'), ('PersistentVolumeClaim', 'ecommerceworker'),
        ('PersistentVolumeClaim', 'rabbitmq'), ('Secret', 'ecommerceworker'), ('Secret', 'ecommerceworker-rabbitmq'),
        ('Service', 'ecommerceworker'), ('Service', 'rabbitmq'), ('StatefulSet', 'rabbitmq')]
    (tmp_path / 'objects.yaml').write_text(yaml.safe_dump_all(objects))
    judged = subprocess.run([TOOLS / 'kubernetes-validate', '--strict', '-k', '1.34', tmp_path / 'objects.yaml'],
                            check=False, capture_output=True, text=True)
    assert judged.returncode == 0, judged.stdout + judged.stderr
    secret = next(it for it in objects if (it['kind'], it['metadata']['name']) == ('Secret', 'ecommerceworker'))
    assert loaded(secret['stringData']['worker.yml'], tmp_path).LMS_ROOT_URL == 'http://lms:8000/'
    assert json.loads(next(it for it in objects if it['metadata']['name'] == 'ecommerceworker-rabbitmq')['stringData'][
        'definitions.json'])['users']


# One test: each process of the tests would install the plugin anew.
@pytest.mark.timeout(300)
def test_tutor_takes_the_plugin_and_what_it_renders_is_as_the_worker_has_it(tutor, rendered, tmp_path):
    the_configuration_has_no_problem_and_leads_to_the_services_of_tutor(rendered, tmp_path)
    without_tls_or_with_a_shop_it_has_none_either(tutor, rendered, tmp_path)
    rabbitmq_lets_worker_and_shop_in_with_the_permissions_and_policies_of_deploy(rendered, tmp_path)
    compose_runs_all_in_one_container_that_is_killed_only_after_it_has_ended(rendered)
    the_proxy_leads_to_console_and_intake(rendered)
    the_lms_is_told_who_the_worker_is(rendered, tmp_path)
    if shutil.which('kubectl'):
        kubernetes_takes_its_objects(rendered, tmp_path)
