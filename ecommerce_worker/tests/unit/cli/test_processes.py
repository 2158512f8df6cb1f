"""What the commands decide without a broker."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from celery import Celery

import ecommerce_worker
from ecommerce_worker.broker.wire import Call
from ecommerce_worker.cli.processes import _said
from ecommerce_worker.execution.parking import key_of
from ecommerce_worker.fulfillment.v1.tasks import fulfill_order
from ecommerce_worker.tests.support.isolation import BARE

ROOT = Path(ecommerce_worker.__file__).parents[1]


@pytest.mark.parametrize('options, pool', [
    ([], None), (['-c', '4'], None), (['--pool', 'prefork'], 'prefork'), (['--pool=prefork'], 'prefork'),
    (['-P', 'prefork'], 'prefork'), (['-Pprefork', '-c', '4'], 'prefork'),
    (['-P', 'solo', '--pool=prefork'], 'prefork'),
    (['-P'], None), (['--pool-start-method', 'spawn'], None),
])
def test_what_is_said_for_an_option_of_celery_is_found_in_each_of_its_spellings(options, pool):
    assert _said(tuple(options), '-P', '--pool') == pool


ASK = """
import json
from ecommerce_worker.celery_app import app

with app.connection_for_read() as read, app.connection_for_write() as write, app.connection() as either:
    urls = [connection.as_uri(include_password=True) for connection in (read, write, either, app.pool.connection)]
print(json.dumps([urls, app.backend.as_uri()]))
"""


def asked(**environment):
    """The URLs of the application's connections and of its result backend, in a process of this environment."""
    done = subprocess.run([sys.executable, '-c', ASK], capture_output=True, text=True, check=True, cwd=ROOT,
                          env={'PATH': '/usr/bin:/bin', 'PYTHONPATH': str(ROOT), **environment})
    return json.loads(done.stdout)


def test_broker_and_result_backend_are_those_of_the_settings_whatever_variables_celery_knows():
    urls, backend = asked(ECOMMERCE_WORKER_BROKER_URL='amqp://ours:secret@ours:5672//',
                          CELERY_BROKER_URL='amqp://theirs//', CELERY_BROKER_READ_URL='amqp://theirs//',
                          CELERY_BROKER_WRITE_URL='amqp://theirs//', CELERY_RESULT_BACKEND='redis://theirs')
    assert (set(urls), backend) == ({'amqp://ours:secret@ours:5672//'}, 'disabled://')


def test_a_url_to_read_by_and_one_to_write_by_may_differ():
    urls, backend = asked(ECOMMERCE_WORKER_BROKER_URL='amqp://neither//', ECOMMERCE_WORKER_BROKER_READ_URL='amqp://read//',
                          ECOMMERCE_WORKER_BROKER_WRITE_URL='amqp://write//',
                          ECOMMERCE_WORKER_CELERY_RESULT_BACKEND='cache+memory://')
    assert [url.partition('@')[2].partition(':')[0] or url for url in urls] == ['read', 'write', 'write', 'write']
    assert backend == 'memory:///'


@pytest.mark.parametrize('task, kwargs, key', [
    (fulfill_order.name, {'order_number': 'EDX-1'}, 'EDX-1'),
    ('of.next.year', {'order_number': 'EDX-1', 'order': 'EDX-2'}, 'EDX-1'),
    ('of.next.year', {'order': 'EDX-2'}, 'EDX-2'),
    ('of.next.year', {'email': 'ann@example.com'}, ''),
    ('of.next.year', {'order_number': 'ann@example.com'}, ''),
    ('of.next.year', {'order_number': ['EDX-1']}, ''),
    ('of.next.year', {'order_number': 'x' * 129}, ''),
])
def test_a_call_is_known_by_its_order_number(task, kwargs, key):
    with Celery('worker', set_as_current=False) as app:
        app.finalize()
        assert key_of(app, Call(task, 'id-1', (), kwargs)) == key


def command(*arguments, **environment):
    """A run of the command in an environment of its own."""
    return subprocess.run([sys.executable, '-m', 'ecommerce_worker', *arguments], capture_output=True, text=True,
                          check=False, cwd=ROOT, env={**BARE, **environment})


def test_all_problems_are_told_at_once_those_of_the_schedule_and_of_mail_too(tmp_path):
    path = tmp_path / 'worker.yml'
    path.write_text("""
WORKER_CONCURRENCY: many
XYZZY: 1
WORKER_POOL: threads
WORKER_POOL: solo
SITE_OVERRIDES: {no: {}}
EMAIL_VENDOR: smpt
SCHEDULE:
  one: {crontab: '0 0 0', task: x}
  two: {intervall: 1h}
  three: {task: x, interval: 5}
WAKE_UP: {four: {channel: c}}
CELERY_TIMEZONE: Mars/Olympus
""")
    ended = command('check', ECOMMERCE_WORKER_CFG=str(path), REQUESTS_CA_BUNDLE='/nowhere/ca.pem')
    assert ended.returncode == 1
    assert 'Traceback' not in ended.stderr
    for words in ('worker.yml:2: WORKER_CONCURRENCY must be', 'worker.yml:3: there is no setting XYZZY',
                  'worker.yml:5: WORKER_POOL is set already', 'worker.yml:6: SITE_OVERRIDES[no]: YAML reads',
                  'worker.yml:10: there is no setting SCHEDULE[two][intervall]', 'has a crontab',
                  'SCHEDULE[three] names the task x', 'WAKE_UP[four] wakes an entry', 'Mars/Olympus',
                  'EMAIL_VENDOR names smpt', 'environment REQUESTS_CA_BUNDLE: /nowhere/ca.pem cannot be read'):
        assert words in ended.stdout, words
    # Of an entry that could not be read nothing else is said.
    assert ended.stdout.count('[two]') == 1
    assert 'a worker would refuse to start' in ended.stdout


def test_a_configuration_is_checked_for_what_one_command_uses(tmp_path):
    path = tmp_path / 'worker.yml'
    path.write_text("""
BROKER_URL: amqp://recorder:pw@rabbitmq.example.com/shop
BACKEND_SERVICE_EDX_OAUTH2_SECRET: file:/nowhere/oauth2
""")
    given = {'ECOMMERCE_WORKER_CFG': str(path),
             'WORKER_CONFIGURATION_MODULE': 'ecommerce_worker.configuration.production'}
    ended = command('check', '--for', 'recorder', **given)
    assert (ended.returncode, ended.stdout.splitlines()[-1]) == (0, 'no problems found'), ended.stdout
    ended = command('check', '--for', 'console', **given)
    assert 'BACKEND_SERVICE_EDX_OAUTH2_SECRET cannot be read from /nowhere/oauth2' in ended.stdout
    assert ended.stdout.splitlines()[-1].endswith('found; `console` would refuse to start')
    assert command('check', '--for', 'nobody', **given).returncode == 2


def test_what_is_built_from_a_setting_that_is_wrong_is_not_wrong_twice(tmp_path):
    path = tmp_path / 'worker.yml'
    path.write_text('EMAIL_VENDOR: smtp\nEMAIL_OPTIONS: [host]\n')
    ended = command('check', ECOMMERCE_WORKER_CFG=str(path))
    assert ended.stdout.startswith(f'problem: {path}:2: EMAIL_OPTIONS must be a mapping')
    assert '1 problem found' in ended.stdout


@pytest.mark.parametrize('arguments, status, words', [
    (['check'], 0, 'no problems found'),
    (['status', '--timeout', '0.1s'], 69, 'cannot be reached'),
    (['parked', 'list'], 69, 'cannot be reached'),
    (['beat'], 1, 'SCHEDULE_STATE ~/.local/state/ecommerce-worker/schedule.sqlite3 is in the home directory'),
    (['migrate'], 1, 'DATABASES ~/.local/state/ecommerce-worker/ledger.sqlite3 is in the home directory, which'),
    (['recorder'], 1, 'DATABASES ~/.local/state/ecommerce-worker/ledger.sqlite3 is in the home directory, which'),
    (['orders', 'list'], 1, 'DATABASES ~/.local/state/ecommerce-worker/ledger.sqlite3 is in the home directory'),
    (['console'], 1, 'is in the home directory'),
    (['up'], 1, 'is in the home directory'),
], ids=lambda it: ' '.join(it) if isinstance(it, list) else '')
def test_a_user_without_a_name_and_a_home_is_borne_or_told_in_one_line(arguments, status, words):
    ended = subprocess.run(
        [sys.executable, '-m', 'ecommerce_worker.tests.support.homeless', *arguments], capture_output=True, text=True,
        check=False, cwd=ROOT, env={**BARE, 'ECOMMERCE_WORKER_EMAIL_WITHOUT_VENDOR': 'park',
                                    'ECOMMERCE_WORKER_BROKER_URL': 'amqp://127.0.0.1:1//'})
    assert 'Traceback' not in ended.stderr, ended.stderr
    assert ended.returncode == status, ended.stderr
    assert words in ended.stdout + ended.stderr


WITHOUT = """
import runpy, sys

for name in sys.argv.pop(1).split(','):
    sys.modules[name] = None
sys.argv[0] = 'ecommerce-worker'
runpy.run_module('ecommerce_worker', run_name='__main__')
"""


@pytest.mark.parametrize('missing, arguments, extra', [
    ('axes,waitress', ['console'], 'console'), ('whitenoise', ['console-user', 'ann'], 'console'),
    ('circus', ['up'], 'up'), ('flower', ['flower'], 'flower'), ('django', ['migrate'], 'ledger'),
    ('django', ['recorder'], 'ledger'), ('django', ['orders', 'list'], 'ledger'),
    ('django', ['orders', 'show', 'EDX-1'], 'ledger'),
])
def test_a_command_whose_extra_is_missing_ends_with_one_line_that_names_it(missing, arguments, extra):
    ended = subprocess.run([sys.executable, '-c', WITHOUT, missing, *arguments], capture_output=True, text=True,
                           check=False, cwd=ROOT, env=BARE)
    assert (ended.returncode, ended.stdout) == (1, '')
    assert ended.stderr == (f'ecommerce-worker: this command needs {missing.replace(",", ", ")}, not installed here: '
                            f"pip install 'edx-ecommerce-worker[{extra}]'\n")


def test_a_ledger_whose_driver_is_missing_names_the_extra():
    ended = subprocess.run(
        [sys.executable, '-c', WITHOUT, 'psycopg,psycopg2', 'migrate'], capture_output=True, text=True, check=False,
        cwd=ROOT, env={**BARE, 'ECOMMERCE_WORKER_DATABASES': str(
            {'default': {'ENGINE': 'django.db.backends.postgresql', 'NAME': 'ledger'}})})
    assert ended.returncode == 1
    assert "pip install 'edx-ecommerce-worker[postgresql]'" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
