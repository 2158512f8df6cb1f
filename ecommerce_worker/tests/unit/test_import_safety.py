"""What a shop may rely on when it imports the tasks into its own process, with a Celery and a Django of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import ecommerce_worker

ROOT = Path(ecommerce_worker.__file__).parent

#: What runs in the worker's processes only: rows below those that a shop imports.
OF_THE_WORKER = ('broker.app', 'broker.batches', 'broker.confirming', 'broker.consuming', 'broker.facts',
                 'broker.mailbox', 'broker.preflight', 'broker.transport', 'celery_app', 'cli', 'console', 'demo',
                 'doctor', 'extension', 'health', 'intake', 'ledger', 'operations', 'resubmit', 'schedule.beat',
                 'smoke', 'standalone', 'testing', 'worker', '__main__', 'tests')

#: The modules that shops import by name.
SURFACE = ['ecommerce_worker.fulfillment.v1.tasks', 'ecommerce_worker.email.v1.api',
           'ecommerce_worker.sailthru.v1.tasks', 'ecommerce_worker.email.v1.utils',
           'ecommerce_worker.braze.v1.client']

MODULES = sorted('.'.join(['ecommerce_worker', *path.relative_to(ROOT).with_suffix('').parts]).removesuffix('.__init__')
                 for path in ROOT.rglob('*.py'))

EVERYTHING = [module for module in MODULES if not any(
    f'{module}.'.startswith(f'ecommerce_worker.{name}.') for name in OF_THE_WORKER)]

WATCH = """
import importlib, json, logging, os, sys, threading

seen = {'variables': [], 'events': []}
read = type(os.environ).__getitem__

def reading(self, name):
    seen['variables'].append(name)
    return read(self, name)

def listing(self):
    # Who lists all variables, and is one of ours, has read them all.
    if 'ecommerce_worker' in sys._getframe(1).f_code.co_filename:
        seen['variables'].append('*')
    return iter(list(self._data))

type(os.environ).__getitem__ = reading
type(os.environ).__iter__ = listing

def watching(event, arguments):
    if event in ('socket.connect', 'socket.bind', 'socket.getaddrinfo', 'socket.gethostbyname', 'socket.sendto',
                 'subprocess.Popen', 'os.fork', '_thread.start_new_thread', 'signal.signal'):
        seen['events'].append([event, sys._getframe(1).f_code.co_filename])
    if event == 'open' and isinstance(arguments[1], str) and set(arguments[1]) & set('wax+'):
        seen['events'].append([event, str(arguments[0])])

sys.dont_write_bytecode = True
sys.addaudithook(watching)
logging_before = logging.root.level, list(logging.root.handlers)

# What Celery and kombu bring along is not our doing: Django's texts among it, and in Celery 5.7 native delays.
import celery, celery.app.task, kombu.connection, kombu.utils.json
before = set(sys.modules)
# In a shop of 2024 there is no such module.
sys.modules['kombu.transport.native_delayed_delivery'] = None
for name in sys.argv[1:]:
    importlib.import_module(name)

from celery import _state
seen['threads'] = threading.active_count()
seen['logging'] = (logging.root.level, logging.root.handlers) != logging_before or [
    name for name, logger in logging.Logger.manager.loggerDict.items()
    if name.startswith('ecommerce_worker') and isinstance(logger, logging.Logger) and (logger.handlers or logger.level)]
seen['apps'] = len(_state._get_active_apps()) + (_state.default_app is not None)
seen['modules'] = sorted(set(sys.modules) - before)
print(json.dumps(seen))
"""


def run(program, *arguments, **environment):
    """What a program in a Python of its own prints, as JSON; it must not complain."""
    done = subprocess.run([sys.executable, '-W', 'error', '-c', program, *arguments], capture_output=True, text=True,
                          timeout=60, check=False, cwd=ROOT.parent,
                          env={'PATH': '/usr/bin:/bin', 'PYTHONPATH': str(ROOT.parent), **environment})
    assert (done.returncode, done.stderr) == (0, '')
    return json.loads(done.stdout)


@pytest.fixture(scope='module', params=[SURFACE, EVERYTHING], ids=['the surface', 'everything'])
def seen(request):
    """What happened while the modules were imported, with a configuration named that cannot be loaded."""
    return run(WATCH, *request.param, WORKER_CONFIGURATION_MODULE='no.such.module', ECOMMERCE_WORKER_CFG='/no/such.yml',
               ECOMMERCE_WORKER_BROKER_URL='nonsense')


def test_importing_reads_no_environment_variable_of_ours(seen):
    assert not [name for name in seen['variables'] if 'WORKER' in name or 'DJANGO' in name or name == '*']


def test_importing_opens_no_connection_starts_no_thread_and_writes_no_file(seen):
    # urllib3 binds a socket to ::1 and closes it again, to find out whether there is IPv6.
    assert not [event for event in seen['events'] if not event[1].endswith('urllib3/util/connection.py')]
    assert seen['threads'] == 1


def test_importing_configures_no_logging(seen):
    assert seen['logging'] == []


def test_importing_creates_no_celery_application(seen):
    assert seen['apps'] == 0


@pytest.mark.parametrize('name', [
    'django', 'edx_rest_api_client', 'kombu.transport', 'celery.bin', 'celery.worker', 'click', 'redis',
    *(f'ecommerce_worker.{name}' for name in OF_THE_WORKER)])
def test_importing_does_not_bring_along_what_only_the_worker_needs(seen, name):
    assert not [module for module in seen['modules'] if module == name or module.startswith(name + '.')]


SHOP = """
import json, sys
from celery import Celery, Task

serializer = sys.argv[1]
app = Celery('ecommerce', broker='memory://')
app.conf.task_serializer = serializer
app.conf.accept_content = ['json', 'pickle']
app.conf.task_routes = {'ecommerce_worker.fulfillment.v1.tasks.fulfill_order': {'queue': 'ecommerce.fulfillment'}}

from ecommerce_worker.fulfillment.v1.tasks import fulfill_order

fulfill_order.delay('EDX-1', site_code='edx', email_opt_in=True)
with app.connection_for_read() as connection:
    message = connection.SimpleQueue('ecommerce.fulfillment', accept=[serializer]).get(timeout=60)
    print(json.dumps({
        'name': fulfill_order.name, 'is a task': isinstance(fulfill_order._get_current_object(), Task),
        'app': fulfill_order.app.main, 'registered': fulfill_order.name in app.tasks,
        'headers': {name: message.headers[name] for name in ('task', 'retries', 'eta')},
        'content type': message.content_type, 'exchange': message.delivery_info['exchange'],
        'body': message.payload, 'id': message.headers['id'] == message.properties['correlation_id'],
    }))
app.close()
"""


@pytest.mark.parametrize('serializer, content_type', [('json', 'application/json'),
                                                      ('pickle', 'application/x-python-serialize')])
def test_a_shop_publishes_under_its_own_application_what_it_says(serializer, content_type):
    name = 'ecommerce_worker.fulfillment.v1.tasks.fulfill_order'
    args, kwargs, _ = (found := run(SHOP, serializer))['body']
    assert (args, kwargs) == (['EDX-1'], {'site_code': 'edx', 'email_opt_in': True})
    assert (found['name'], found['headers']) == (name, {'task': name, 'retries': 0, 'eta': None})
    assert (found['is a task'], found['app'], found['registered']) == (True, 'ecommerce', True)
    assert (found['content type'], found['exchange'], found['id']) == (content_type, '', True)
