"""Files for existing edX installations and for supervisor, held against the program."""

from __future__ import annotations

import configparser
import re
import shlex
from pathlib import Path

import pytest
import yaml

from ecommerce_worker import settings
from ecommerce_worker.cli import main
from ecommerce_worker.cli.up import CHILDREN, LAST
from ecommerce_worker.configuration import base
from ecommerce_worker.process.several import GRACE

ROOT = Path(settings.__file__).parents[2]
ANSIBLE = ROOT / 'deploy' / 'ansible'
DEFAULTS = yaml.safe_load((ANSIBLE / 'roles/ecomworker/defaults/main.yml').read_text())
KEPT = yaml.safe_load((ANSIBLE / 'keep-the-role.yml').read_text())

#: The variables of edX's role that say how a worker works, besides those of Sailthru.
OF_EDX = ('VERSION', 'REPOS', 'BROKER_USERNAME', 'BROKER_PASSWORD', 'BROKER_HOST', 'BROKER_PORT', 'BROKER_TRANSPORT',
          'BROKER_URL', 'CONCURRENCY', 'ECOMMERCE_API_ROOT', 'MAX_FULFILLMENT_RETRIES', 'JWT_SECRET_KEY', 'JWT_ISSUER',
          'SITE_OVERRIDES', 'SERVICE_CONFIG')


def test_the_role_takes_the_variables_of_edx():
    assert {f'ECOMMERCE_WORKER_{name}' for name in OF_EDX} <= DEFAULTS.keys()
    sailthru = {f'ECOMMERCE_WORKER_{name}' for name in base.SAILTHRU if name.startswith('SAILTHRU_')}
    assert sailthru - {'ECOMMERCE_WORKER_SAILTHRU_API_URL'} <= DEFAULTS.keys()
    assert all('password' not in str(value).lower() and 'insecure' not in str(value)
               for name, value in DEFAULTS.items() if 'SECRET' in name)


@pytest.mark.parametrize('said', [DEFAULTS, KEPT])
def test_the_configuration_that_a_role_writes_has_settings_there_are(said):
    for name, value in said['ECOMMERCE_WORKER_SERVICE_CONFIG'].items():
        assert name in settings.SETTINGS
        if isinstance(value, dict):
            assert value.keys() <= set(settings.SETTINGS[name].names)


def test_under_edx_s_own_role_a_worker_ends_before_supervisor_kills_it():
    assert KEPT['ECOMMERCE_WORKER_SERVICE_CONFIG']['SHUTDOWN_SECONDS'] < 10


def programs(text):
    parser = configparser.RawConfigParser(comment_prefixes=(';',), inline_comment_prefixes=None)
    parser.read_string(text)
    return {name.removeprefix('program:'): dict(parser[name]) for name in parser.sections()}


def test_supervisor_runs_each_role_by_a_command_there_is_and_waits_until_it_has_ended():
    found = programs((ROOT / 'deploy/supervisor/ecommerce-worker.conf').read_text())
    commands = {name: it['command'].split() for name, it in found.items()}
    assert {name: words[1:] for name, words in commands.items()} == {
        f'ecommerce-worker-{role}': [role] for role in (*CHILDREN, 'up')}
    assert {words[0] for words in commands.values()} == {'/opt/ecommerce-worker/.venv/bin/ecommerce-worker'}
    assert {words[1] for words in commands.values()} <= set(main.commands)
    role = programs((ANSIBLE / 'roles/ecomworker/templates/ecomworker.conf.j2').read_text())
    for it in (*found.values(), *role.values()):
        assert int(it['stopwaitsecs']) > base.SHUTDOWN_SECONDS + GRACE + 2 * LAST
        assert (it['stopasgroup'], it['killasgroup']) == ('false', 'true')


def test_supervisor_tells_each_role_where_its_configuration_is():
    for name, it in programs((ROOT / 'deploy/supervisor/ecommerce-worker.conf').read_text()).items():
        said = dict(shlex.split(word)[0].split('=', 1) for word in re.findall(r'\w+="[^"]*"', it['environment']))
        assert Path(said['ECOMMERCE_WORKER_CFG']).name == ('intake.yml' if name.endswith('intake') else 'worker.yml')
        assert said.keys() >= {'CREDENTIALS_DIRECTORY', 'HOME', 'WORKER_CONFIGURATION_MODULE'}
        role = name.rpartition('-')[2]
        assert said.get('ECOMMERCE_WORKER_BROKER_URL', '') == (
            '' if role in ('worker', 'up') else f'file:{said["CREDENTIALS_DIRECTORY"]}/{role}-broker-url')
