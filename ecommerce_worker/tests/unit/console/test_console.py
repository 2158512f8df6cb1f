"""The console's wording, charts, address and key; and how its process begins and ends."""

import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import pytest

import ecommerce_worker
from ecommerce_worker.console.address import url_of
from ecommerce_worker.console.charts import HEIGHT, WIDTH, chart
from ecommerce_worker.console.keys import secret_key
from ecommerce_worker.console.watch import Watch
from ecommerce_worker.errors import Misconfigured
from ecommerce_worker.settings import load
from ecommerce_worker.testing.rabbitmq import free_port
from ecommerce_worker.tests.support.console import served
from ecommerce_worker.tests.support.harness import eventually
from ecommerce_worker.tests.support.ledger import environment_of

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def settings(**given):
    return load({'WORKER_CONFIGURATION_MODULE': 'ecommerce_worker.configuration.test',
                 **{f'ECOMMERCE_WORKER_{name}': str(value) for name, value in given.items()}})


# -- charts -----------------------------------------------------------------------------------------------------------

def test_columns_are_stacked_and_the_highest_fills_the_chart():
    drawn = chart([(NOW, {'done': 2, 'skipped': 1, 'parked': 1}), (NOW, {'retrying': 1, 'resent': 5}), (NOW, {})])
    assert (drawn.most, dict(drawn.total)) == (4, {'done': 3, 'retrying': 1, 'parked': 1})
    assert [(bar.kind, bar.y, bar.height) for bar in drawn.bars] == [
        ('done', 25, 75), ('parked', 0, 25), ('retrying', 75, 25)]
    assert all(0 <= bar.x < bar.x + bar.width <= WIDTH for bar in drawn.bars)


@pytest.mark.parametrize('columns', [[], [(NOW, {})]], ids=['none', 'empty'])
def test_a_chart_of_nothing_has_no_bars(columns):
    assert (chart(columns).bars, chart(columns).most) == ((), 0)


def test_what_there_is_can_be_seen():
    drawn = chart([(NOW, {'done': 100_000, 'parked': 1})])
    assert [bar.height for bar in drawn.bars] == [HEIGHT, 1]
    assert all(0 <= bar.y <= HEIGHT for bar in drawn.bars)


# -- RabbitMQ ---------------------------------------------------------------------------------------------------------

def test_the_broker_is_asked_once_for_many_pages():
    counter = count(1)
    watch = Watch(lambda: str(next(counter)), str)
    assert eventually(lambda: watch.look() == '1')
    assert [watch.look() for _ in range(3)] == ['1', '1', '1']


def test_a_page_does_not_wait_for_a_broker_that_says_nothing():
    answering = threading.Event()

    def ask():
        answering.wait(30)
        return 'an answer'

    watch = Watch(ask, str)
    assert watch.look() == 'no answer yet'
    answering.set()
    assert eventually(lambda: watch.look() == 'an answer')


def test_whatever_goes_wrong_with_asking_is_said():
    watch = Watch(lambda: str(1 // 0), str)
    assert eventually(lambda: 'ZeroDivisionError' in watch.look())


# -- address and key --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('given, url', [
    ({}, 'http://127.0.0.1:8130'), ({'CONSOLE_ADDRESS': '[::1]:81'}, 'http://[::1]:81'),
    ({'CONSOLE_ADDRESS': '0.0.0.0:8130', 'CONSOLE_URL': 'https://orders.example.com/'}, 'https://orders.example.com'),
    ({'CONSOLE_ADDRESS': '0.0.0.0:8130', 'CONSOLE_URL': 'http://localhost:9000'}, 'http://localhost:9000')])
def test_the_console_is_where_the_settings_say(given, url):
    assert url_of(settings(**given)) == url


@pytest.mark.parametrize('given', [
    {'CONSOLE_ADDRESS': '0.0.0.0:8130'}, {'CONSOLE_URL': 'http://orders.example.com'},
    {'CONSOLE_ADDRESS': '192.0.2.1:8130'}])
def test_passwords_do_not_travel_readable(given):
    with pytest.raises(Misconfigured, match='passwords are sent unencrypted'):
        url_of(settings(**given))


@pytest.mark.parametrize('name, value', [
    ('ADDRESS', '8130'), ('ADDRESS', 'host:0'), ('ADDRESS', 'host:70000'), ('ADDRESS', ':8130'),
    ('URL', 'https://example.com/orders'), ('URL', 'ftp://example.com')])
def test_nonsense_is_no_address(name, value):
    with pytest.raises(Misconfigured, match=f'CONSOLE_{name} must be'):
        settings(**{f'CONSOLE_{name}': value})


def test_a_key_is_made_once_and_kept_for_its_owner_only(tmp_path):
    found = settings(DATABASES={'default': {'NAME': str(tmp_path / 'ledger.sqlite3')}})
    key = secret_key(found)
    assert (len(key), secret_key(found)) == (64, key)
    [kept] = tmp_path.iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600


def test_no_key_is_kept_where_no_ledger_is(tmp_path):
    assert secret_key(settings(DATABASES={'default': {'NAME': str(tmp_path / 'none' / 'ledger.sqlite3')}}))
    assert not list(tmp_path.iterdir())


def test_a_short_key_is_refused():
    with pytest.raises(Misconfigured, match='shorter than 32 bytes'):
        secret_key(settings(CONSOLE_SECRET_KEY='short'))
    assert secret_key(settings(CONSOLE_SECRET_KEY='x' * 32)) == 'x' * 32


# -- the process ------------------------------------------------------------------------------------------------------

WORDS = """
from datetime import UTC, datetime, timedelta
from ecommerce_worker.ledger.setup import open_ledger
open_ledger()
from ecommerce_worker.console.text import ordinal, sentence
from ecommerce_worker.durations import every, span
from ecommerce_worker.ledger.queries import Entry
now = datetime(2026, 11, 21, 12, tzinfo=UTC)
def said(state, task='ecommerce_worker.fulfillment.v1.tasks.fulfill_order', next_try=None, attempts=1, reason='why.'):
    return sentence(Entry(1, 'EDX-1', task, '', state, reason, None, next_try, attempts, now, now), now)
print(said('fulfilled'))
print(said('fulfilled', attempts=2))
print(said('fulfilled', task='x.send_refund_email'))
print(said('waiting', next_try=now + timedelta(minutes=61)))
print(said('waiting', next_try=now - timedelta(days=1)))
print(said('waiting'))
print(said('parked'))
print(said('discarded'))
print(said('trying', reason=''))
later = Entry(1, 'EDX-1', 'fulfill_order', '', 'trying', 'by the intake acme', None, None, 0, now, now)
print(sentence(later, now + timedelta(minutes=5)))
print(*map(ordinal, (1, 2, 3, 4, 11, 12, 21, 112)), span(1), span(-5))
print(*map(every, (60, 90, 600, 3600, 86400, 172800, 1.5)), sep=', ')
"""


def process(code, **environment):
    return subprocess.run([sys.executable, '-W', 'error', '-c', code], capture_output=True, text=True, check=False,
                          timeout=60, env={'PATH': '/usr/bin:/bin', 'HOME': '/nonexistent', **environment,
                                           'PYTHONPATH': str(Path(ecommerce_worker.__file__).parents[1])})


def test_each_state_is_a_plain_sentence():
    done = process(WORDS, **environment_of({'NAME': ':memory:'}))
    assert done.stderr == ''
    assert done.stdout.splitlines() == [
        'The order was fulfilled on 2026-11-21 12:00 UTC.',
        'The order was fulfilled on 2026-11-21 12:00 UTC, at the 2nd try.',
        'The task was done on 2026-11-21 12:00 UTC.',
        'The order will be retried in 1 hour. Last try: why.',
        ('The order is overdue: its next try was due 1 day ago and has not been reported. Is a worker running? Last '
         'try: why.'),
        'The order is waiting for its next try. Last try: why.',
        'The order has been parked since 2026-11-21 12:00 UTC, until a person decides: why.',
        'The order was discarded on 2026-11-21 12:00 UTC: why.',
        'The order has been with a worker, or queued for one, for 0 seconds, since 2026-11-21 12:00 UTC.',
        ('The order has been with a worker, or queued for one, for 5 minutes, since 2026-11-21 12:00 UTC. Last report: '
         'by the intake acme.'),
        '1st 2nd 3rd 4th 11th 12th 21st 112th 1 second 0 seconds',
        'every minute, every 90 seconds, every 10 minutes, every hour, every day, every 2 days, every 1.5 seconds']


RUN = """
from ecommerce_worker.console import server as serve
from ecommerce_worker.errors import WorkerError
{before}
try:
    {run}
except WorkerError as error:
    print(error)
"""


def running(before='', run='serve.run()', **database):
    done = process(RUN.format(before=before, run=run), **environment_of(database))
    assert (done.returncode, done.stderr) == (0, '')
    return done.stdout


MIGRATE = 'import subprocess, sys; subprocess.run([sys.executable, "-m", "ecommerce_worker", "migrate"], check=True)'


def test_a_process_with_another_django_is_refused(tmp_path):
    before = 'from django.conf import settings; settings.configure(INSTALLED_APPS=[])'
    assert 'Django is already set up in this process with other settings' in running(before, NAME=str(tmp_path / 'x'))


def test_a_console_without_a_ledger_names_the_command(tmp_path):
    assert '`ecommerce-worker migrate` creates it' in running(NAME=str(tmp_path / 'x'))
    assert not (tmp_path / 'x').exists()


def test_a_ledger_of_another_version_is_left_alone(tmp_path):
    change = (f'{MIGRATE}; import sqlite3; db = sqlite3.connect("{tmp_path}/x"); '
              'db.execute("UPDATE django_migrations SET name = \'0009_new\'"); db.commit(); db.close()')
    assert 'newer version (migration 0009_new)' in running(change, NAME=str(tmp_path / 'x'))


@pytest.mark.parametrize('options, why', [
    (['--threads', 'nine'], "argument --threads: invalid int value: 'nine'"),
    (['--nonsense'], 'unrecognized arguments: --nonsense'),
    (['app:app'], 'unrecognized arguments: app:app'),
    (['-b', '0.0.0.0:80'], 'unrecognized arguments: -b 0.0.0.0:80'),
])
def test_options_that_are_unknown_end_it_before_it_begins(tmp_path, options, why):
    done = process(RUN.format(before=MIGRATE, run=f'serve.run(options={options})'),
                   **environment_of({'NAME': str(tmp_path / 'x')}))
    assert (done.returncode, done.stderr.splitlines()[-1]) == (2, f'ecommerce-worker console: error: {why}')


def test_requests_are_logged_where_it_is_asked_for_and_no_invitation_is(tmp_path):
    log = tmp_path / 'access.log'
    environment = {**environment_of({'NAME': str(tmp_path / 'ledger.sqlite3')}),
                   'ECOMMERCE_WORKER_CONSOLE_ADDRESS': f'127.0.0.1:{free_port()}',
                   'ECOMMERCE_WORKER_BROKER_URL': 'amqp://127.0.0.1:1//'}
    with served(tmp_path, environment, '--access-logfile', str(log)) as console:
        urllib.request.urlopen(f'{console.url}/login/', timeout=60).close()
        urllib.request.urlopen(console.invitation, timeout=60).close()
        eventually(lambda: 'GET /invitation/...' in log.read_text())
        assert '127.0.0.1 "GET /login/" 200 ' in log.read_text()
        assert console.invitation.split('/')[-2] not in log.read_text()


def test_who_is_invited_gets_a_whole_address(tmp_path):
    found = running(MIGRATE, 'print(serve.invite("ada", "support"))', NAME=str(tmp_path / 'x'))
    assert re.search(r'^http://127\.0\.0\.1:8130/invitation/\w+/[\w-]+/$', found, re.MULTILINE)


def test_the_first_start_prints_a_link_and_no_password(tmp_path):
    environment = {**environment_of({'NAME': str(tmp_path / 'ledger.sqlite3')}),
                   'ECOMMERCE_WORKER_CONSOLE_ADDRESS': f'127.0.0.1:{free_port()}',
                   'ECOMMERCE_WORKER_BROKER_URL': 'amqp://127.0.0.1:1//'}
    with served(tmp_path, environment) as console:
        assert len(console.log.splitlines()) == 2
        browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        with browser.open(console.invitation, timeout=60) as answer:
            assert 'Choose a password for operator' in answer.read().decode()
        console.process.send_signal(signal.SIGTERM)
        assert console.process.wait(60) == 0
    assert not list(tmp_path.glob('*.ctl'))


def test_a_link_that_was_printed_stays_good_when_the_console_is_started_again(tmp_path):
    environment = {**environment_of({'NAME': str(tmp_path / 'ledger.sqlite3')}),
                   'ECOMMERCE_WORKER_CONSOLE_ADDRESS': f'127.0.0.1:{free_port()}',
                   'ECOMMERCE_WORKER_BROKER_URL': 'amqp://127.0.0.1:1//'}
    with served(tmp_path, environment) as console:
        first = console.invitation
    with served(tmp_path, environment) as console:
        assert console.invitation != ''
        browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        with browser.open(first, timeout=60) as answer:
            assert 'Choose a password for operator' in answer.read().decode()


@pytest.mark.parametrize('address, why', [('127.0.0.1:{port}', 'Address already in use'),
                                          ('192.0.2.1:{port}', 'Cannot assign requested address')])
def test_an_address_that_cannot_be_listened_on_is_one_line(tmp_path, address, why):
    with socket.create_server(('127.0.0.1', 0)) as taken:
        address = address.format(port=taken.getsockname()[1])
        code = RUN.format(before=MIGRATE, run='serve.run()')
        done = process(code, **environment_of({'NAME': str(tmp_path / 'x')}),
                       ECOMMERCE_WORKER_CONSOLE_ADDRESS=address, ECOMMERCE_WORKER_CONSOLE_URL='https://orders.test')
    assert done.stderr == ''
    assert done.stdout.splitlines()[-1] == (
        f'the console cannot listen on {address} ({why}); set CONSOLE_ADDRESS to another address')
