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
