"""A command starts without the secrets that it does not use, and with none missing that it does."""

from __future__ import annotations

import pytest

from ecommerce_worker.cli import main
from ecommerce_worker.errors import Misconfigured
from ecommerce_worker.settings import SETTINGS, load
from ecommerce_worker.settings.kinds import Secrecy
from ecommerce_worker.settings.uses import _USED, ALL, unused

#: Each names a file that is not there.
MISSING = {
    'BROKER_URL': 'broker', 'DATABASES': 'ledger', 'BACKEND_SERVICE_EDX_OAUTH2_SECRET': 'oauth2',
    'EMAIL_OPTIONS': 'smtp', 'CONSOLE_SECRET_KEY': 'console', 'MANAGEMENT_URL': 'management', 'WAKE_UP_URL': 'redis',
    'INTAKE_BROKER_URL': 'intake', 'JWT_SECRET_KEY': 'campus', 'LEARNER_KEY': 'learners',
}


@pytest.fixture
def environ(tmp_path):
    """A server none of whose secrets is there."""
    path = tmp_path / 'worker.yml'
    path.write_text("""
        BROKER_URL: file:/nowhere/broker
        DATABASES: {default: {ENGINE: django.db.backends.postgresql, PASSWORD: 'file:/nowhere/ledger'}}
        BACKEND_SERVICE_EDX_OAUTH2_KEY: worker
        BACKEND_SERVICE_EDX_OAUTH2_SECRET: file:/nowhere/oauth2
        EMAIL_VENDOR: smtp
        EMAIL_OPTIONS: {host: mail.example.com, password: '${SMTP}', from_email: shop@example.com}
        CONSOLE_SECRET_KEY: file:/nowhere/console
        MANAGEMENT_URL: file:/nowhere/management
        WAKE_UP_URL: file:/nowhere/redis
        INTAKE_BROKER_URL: file:/nowhere/intake
        LEARNER_KEY: file:/nowhere/learners
        SITE_OVERRIDES: {campus: {AUTHENTICATION: jwt, JWT_SECRET_KEY: 'file:/nowhere/campus'}}
    """)
    return {'WORKER_CONFIGURATION_MODULE': 'ecommerce_worker.configuration.production',
            'ECOMMERCE_WORKER_CFG': str(path)}


def missed(environ, command):
    """What a command says is missing."""
    with pytest.raises(Misconfigured) as caught:
        load(environ, command)
    assert all('cannot be read from /nowhere/' in it or 'variable SMTP' in it for it in caught.value.problems)
    return sorted(next(name for name in MISSING if name in it) for it in caught.value.problems)


@pytest.mark.parametrize('command, used', [
    ('worker', ['BACKEND_SERVICE_EDX_OAUTH2_SECRET', 'BROKER_URL', 'DATABASES', 'EMAIL_OPTIONS', 'JWT_SECRET_KEY',
                'LEARNER_KEY', 'WAKE_UP_URL']),
    ('recorder', ['BROKER_URL', 'DATABASES']),
    ('beat', ['BROKER_URL', 'DATABASES', 'WAKE_UP_URL']),
    ('console', ['BACKEND_SERVICE_EDX_OAUTH2_SECRET', 'BROKER_URL', 'CONSOLE_SECRET_KEY', 'DATABASES',
                 'JWT_SECRET_KEY', 'LEARNER_KEY', 'WAKE_UP_URL']),
    ('orders', ['DATABASES', 'LEARNER_KEY']),
    ('intake', ['BROKER_URL', 'INTAKE_BROKER_URL']),
    ('migrate', ['DATABASES']),
    ('up', sorted(MISSING)),
    ('', sorted(MISSING))])
def test_a_command_misses_the_secrets_that_it_uses_and_no_others(environ, command, used):
    # One problem names INTAKE_BROKER_URL, another BROKER_URL, which is a part of it.
    found = [name.replace('INTAKE_BROKER_URL', 'BROKER_URL') for name in used]
    assert sorted(name.replace('INTAKE_BROKER_URL', 'BROKER_URL') for name in missed(environ, command)) == sorted(found)


def test_a_command_that_calls_no_api_and_sends_no_mail_needs_no_credentials(tmp_path):
    path = tmp_path / 'intake.yml'
    path.write_text('BROKER_URL: amqp://intake:pw@rabbitmq.example.com/shop')
    environ = {'WORKER_CONFIGURATION_MODULE': 'ecommerce_worker.configuration.production',
               'ECOMMERCE_WORKER_CFG': str(path)}
    load(environ, 'intake')
    with pytest.raises(Misconfigured) as caught:
        load(environ, 'worker')
    problems = '\n'.join(caught.value.problems)
    assert 'BACKEND_SERVICE_EDX_OAUTH2_SECRET is the publicly known default' in problems
    assert 'EMAIL_VENDOR is not set' in problems


def test_what_is_wrong_with_a_value_is_said_to_every_command():
    environ = {'ECOMMERCE_WORKER_AUTHENTICATION': 'kerberos'}
    with pytest.raises(Misconfigured, match='AUTHENTICATION must be one of'):
        load(environ, 'intake')


def test_it_is_known_who_uses_each_setting_that_may_hold_a_secret():
    def holds(kind):
        if not kind.member:
            return kind.secrecy is not Secrecy.NONE
        return any(holds(it) for it in map(kind.of, (*kind.names, 'any')) if it)

    secret = {name for name, kind in SETTINGS.items() if holds(kind)}
    # LOGGING is taken as it stands; what differs for a site is that of all sites.
    assert secret - {'LOGGING', 'SITE_OVERRIDES'} <= ALL
    assert set(SETTINGS) >= ALL


def test_each_command_of_which_it_is_known_what_it_uses_exists():
    assert set(_USED) <= set(main.commands)
    assert not unused('no such command')
