"""The role for edX installations, run by Ansible on this machine, in directories of its own, under supervisor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig

import pytest

from ecommerce_worker.testing.shop import CLIENT_ID, CLIENT_SECRET
from ecommerce_worker.tests.support.cache import ROOT, TOOLS, needs_tools
from ecommerce_worker.tests.support.harness import eventually

pytestmark = needs_tools

SUPERVISOR = """
[supervisord]
logfile={0}/supervisord.log
pidfile={0}/supervisord.pid
user=root
[unix_http_server]
file={0}/supervisor.sock
[supervisorctl]
serverurl=unix://{0}/supervisor.sock
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[include]
files={0}/conf.d/*.conf
"""

#: A Python whose virtual environments have what is installed for the tests, so that nothing needs to be fetched.
PYTHON = """#!/bin/sh
"{python}" "$@" || exit
[ "$2" = venv ] || exit 0
for place; do :; done && echo {site} >"$place/lib/python{version}/site-packages/shared.pth"
"""


@pytest.fixture
def edx(tmp_path):
    """A machine of edX's: its directories, its supervisor, and a worker of Python 3.8; the variables that say so."""
    for name in ('conf.d', 'venv/bin'):
        (tmp_path / name).mkdir(parents=True)
    old = tmp_path / 'venv/bin/python'
    old.write_text('#!/bin/sh\nexit 1\n')
    old.chmod(0o755)
    python = tmp_path / 'python3.11'
    python.write_text(PYTHON.format(python=sys.executable, site=sysconfig.get_path('purelib'),
                                    version=sysconfig.get_python_version()))
    python.chmod(0o755)
    (tmp_path / 'supervisord.conf').write_text(SUPERVISOR.format(tmp_path))
    head = subprocess.run(['git', 'rev-parse', 'HEAD'], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    supervisor = subprocess.Popen([TOOLS / 'supervisord', '-n', '-c', tmp_path / 'supervisord.conf'],
                                  stdout=subprocess.DEVNULL, start_new_session=True)
    yield {
        'COMMON_APP_DIR': f'{tmp_path}/app', 'COMMON_CFG_DIR': f'{tmp_path}/etc', 'COMMON_LOG_DIR': f'{tmp_path}/log',
        'common_web_user': 'root', 'common_web_group': 'root', 'ecommerce_worker_venv_dir': f'{tmp_path}/venv',
        'supervisor_cfg_dir': f'{tmp_path}/conf.d', 'supervisor_cfg': f'{tmp_path}/supervisord.conf',
        'supervisor_ctl': f'{TOOLS}/supervisorctl', 'ECOMMERCE_WORKER_PYTHON': str(python),
        'ECOMMERCE_WORKER_VERSION': head.strip(), 'ECOMMERCE_WORKER_REPOS': [{
            'PROTOCOL': 'file', 'DOMAIN': '', 'PATH': str(ROOT.parent).lstrip('/'), 'REPO': ROOT.name,
            'VERSION': '{{ ECOMMERCE_WORKER_VERSION }}', 'DESTINATION': '{{ ecommerce_worker_code_dir }}'}]}
    supervisor.terminate()
    supervisor.wait(60)


def played(tmp_path, variables):
    """The play with these variables, ended."""
    (tmp_path / 'variables.json').write_text(json.dumps(variables))
    return subprocess.run(
        [TOOLS / 'ansible-playbook', '-i', tmp_path / 'inventory', '-e', f'@{tmp_path}/variables.json',
         '-e', 'ansible_become=false', '--skip-tags', 'user', ROOT / 'deploy/ansible/ecomworker.yml'],
        env={**os.environ, 'HOME': str(tmp_path), 'LC_ALL': 'C.UTF-8'}, check=False, capture_output=True, text=True,
        # Ansible refuses one that does not block, and any other child may have made ours so.
        stdin=subprocess.DEVNULL)


@pytest.mark.skipif(os.getuid() != 0, reason='supervisor changes its user')
@pytest.mark.timeout(300)
def test_the_role_of_an_edx_installation_starts_a_worker_that_fulfils_an_order(edx, broker, shop, publish, tmp_path):
    shop.add_order('EDX-1')
    publish('EDX-1')
    variables = {
        **edx, 'ECOMMERCE_WORKER_BROKER_URL': broker.url, 'ECOMMERCE_WORKER_ECOMMERCE_API_ROOT': shop.api_root}
    settings_of_ours = {
        'BACKEND_SERVICE_EDX_OAUTH2_PROVIDER_URL': shop.oauth2_root, 'BACKEND_SERVICE_EDX_OAUTH2_KEY': CLIENT_ID,
        'BACKEND_SERVICE_EDX_OAUTH2_SECRET': CLIENT_SECRET, 'EMAIL_WITHOUT_VENDOR': 'park'}
    (tmp_path / 'inventory').write_text(f'[ecomworker]\nlocalhost ansible_connection=local '
                                        f'ansible_python_interpreter={TOOLS}/python\n')

    # What does not pass its check changes nothing that runs.
    old, places = (tmp_path / 'venv/bin/python').read_text(), ('app/ecomworker/ecomworker', 'etc/ecomworker.yml')
    done = played(tmp_path, {**variables, 'ECOMMERCE_WORKER_MORE_CONFIG': {
        **settings_of_ours, 'EMAIL_WITHOUT_VENDOR': 'burn'}})
    assert done.returncode != 0
    assert 'EMAIL_WITHOUT_VENDOR' in done.stdout
    assert (tmp_path / 'venv/bin/python').read_text() == old
    assert not [place for place in (*places, 'conf.d/ecomworker.conf') if (tmp_path / place).exists()]

    done = played(tmp_path, {**variables, 'ECOMMERCE_WORKER_MORE_CONFIG': settings_of_ours})
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert (tmp_path / 'venv-before/bin/python').read_text() == old

    log = tmp_path / 'log/supervisor/ecomworker-stdout.log'
    errors = tmp_path / 'log/supervisor/ecomworker-stderr.log'
    eventually(lambda: any(path.exists() and 'done: ' in path.read_text() and 'key=EDX-1' in path.read_text()
                           for path in (log, errors)))
    assert [call.method for call in shop.calls if call.order == 'EDX-1'] == ['PUT']
    assert (tmp_path / 'etc/ecomworker.yml').stat().st_mode & 0o007 == 0
