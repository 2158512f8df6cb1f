"""The files of deploy/, read by the tools that they are for, or by the schemas of these."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from ecommerce_worker.tests.support.cache import ROOT, TOOLS, needs_tools

pytestmark = needs_tools


def said(*command):
    """The exit status of a tool, and what it says."""
    done = subprocess.run([TOOLS / command[0], *command[1:]], check=False, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_hadolint_has_nothing_to_say():
    assert said('hadolint', ROOT / 'deploy/container/Dockerfile') == (0, '')


def test_compose_is_as_its_specification_has_it():
    status, words = said('check-jsonschema', '--builtin-schema', 'vendor.compose-spec',
                         ROOT / 'deploy/container/compose.yaml')
    assert status == 0, words


#: What holds objects against the definitions that KEDA and prometheus-operator have of them.
MODELS = """
import sys, yaml
from cloudcoil.models.keda import v1alpha1 as keda
from cloudcoil.models.prometheus_operator import v1 as prometheus

for it in filter(None, yaml.safe_load_all(sys.stdin)):
    group = it['apiVersion'].partition('/')[0]
    if models := {'keda.sh': keda, 'monitoring.coreos.com': prometheus}.get(group):
        getattr(models, it['kind']).model_validate(it, extra='forbid')
        print(it['kind'])
"""


@pytest.mark.skipif(not shutil.which('kubectl'), reason='there is no kubectl to render with')
def test_objects_of_kubernetes_are_as_its_api_and_operators_have_them(tmp_path):
    # All at once: these tools take longer to begin than to judge.
    objects = [it for name in ('keda', 'prometheus-operator', 'sqlite') for it in subprocess.run(
        ['kubectl', 'kustomize', ROOT / 'deploy/kubernetes/overlays' / name], check=True, capture_output=True,
        text=True).stdout.split('---\n')]
    of_operators = [it for it in objects if re.search(r'(?m)^apiVersion: (keda|monitoring)', it)]
    (tmp_path / 'objects.yaml').write_text('---\n'.join(it for it in objects if it not in of_operators))
    status, words = said('kubernetes-validate', '--strict', '-k', '1.34', tmp_path / 'objects.yaml')
    assert status == 0, words
    judged = subprocess.run([TOOLS / 'python', '-c', MODELS], input='---\n'.join(of_operators), check=False,
                            capture_output=True, text=True)
    assert judged.returncode == 0, judged.stderr
    assert sorted(judged.stdout.split()) == ['PodMonitor', 'PrometheusRule', 'ScaledObject', 'TriggerAuthentication']


#: What supervisor makes of a file: its programs, and how long it waits for each.
PROGRAMS = """
import sys
from supervisor.options import ServerOptions

options = ServerOptions()
options.realize(['-n', '-c', sys.argv[1]])
for group in options.process_group_configs:
    for it in group.process_configs:
        print(it.name, it.stopwaitsecs, it.stopasgroup)
"""


def test_supervisor_takes_its_programs(tmp_path):
    programs = (ROOT / 'deploy/supervisor/ecommerce-worker.conf').read_text()
    for there, here in (('user=ecommerce-worker', 'user=root'), ('=/opt/', f'={tmp_path}/'),
                        ('=/var/log/ecommerce-worker/', f'={tmp_path}/')):
        programs = programs.replace(there, here)
    (tmp_path / 'supervisord.conf').write_text(f'[supervisord]\nuser=root\n{programs}')
    done = subprocess.run([TOOLS / 'python', '-c', PROGRAMS, tmp_path / 'supervisord.conf'], check=False,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == [f'ecommerce-worker-{role} 60 False' for role in sorted(
        ('worker', 'recorder', 'beat', 'console', 'intake', 'up'))]
