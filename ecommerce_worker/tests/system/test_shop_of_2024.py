"""Inside shops of 2024, with their pins: the tasks can be imported and published, and leave their Django alone.

Each shop is a virtual environment, made once for its pins: that takes 20 to 40 seconds, half of it with pip's cache.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ecommerce_worker.email.mailer import names
from ecommerce_worker.tests.support.cache import CACHE, ROOT

PINS = sorted(Path(__file__).parent.glob('shop-2024*.txt'))

SHOP = """
import json

import django
from django.conf import settings
from celery import Celery, __version__ as celery_version
from kombu import Queue

# As the shop's settings name it; its tasks are imported while Django is set up.
settings.configure(SECRET_KEY='shop', BROKER_URL='memory://', INSTALLED_APPS=['shop.ShopConfig'])
django.setup()
from celery import current_app as app
app.conf.task_serializer = 'pickle'
app.conf.task_routes = {'ecommerce_worker.fulfillment.v1.tasks.fulfill_order': {'queue': 'ecommerce.fulfillment'}}

from ecommerce_worker.fulfillment.v1.tasks import fulfill_order
from ecommerce_worker.broker.wire import Raw, read
import requests, urllib3

fulfill_order.delay('EDX-1', site_code='edx', email_opt_in=True)
with app.connection_for_read() as connection:
    message = Queue('ecommerce.fulfillment').bind(connection.channel()).get()
call = read(Raw.of(message))
print(json.dumps([celery_version, django.__version__, urllib3.__version__, requests.__version__,
                  call.task, call.args, call.kwargs]))
"""

#: The shop's own application, which imports the tasks and makes its Celery application when it is ready.
CONFIG = """
from celery import Celery
from django.apps import AppConfig

class ShopConfig(AppConfig):
    name = 'shop'

    def ready(self):
        Celery('ecommerce', broker='memory://').set_default()
        from ecommerce_worker.fulfillment.v1.tasks import fulfill_order
        from ecommerce_worker.email.v1.api import did_email_bounce, send_offer_assignment_email
"""


def pinned(pins: Path) -> dict[str, str]:
    """The pinned versions, by name."""
    lines = (line.partition('#')[0].strip().split('==') for line in pins.read_text().splitlines())
    return {words[0]: words[1] for words in lines if len(words) == 2}


@pytest.fixture(scope='session', params=PINS, ids=lambda pins: pins.stem)
def pins(request: pytest.FixtureRequest) -> Path:
    """The pins of one shop."""
    found: Path = request.param
    return found


@pytest.fixture(scope='session')
def python(pins: Path) -> Path:
    """The interpreter of a virtual environment with the shop's pins and us, made once for these pins."""
    made_of = sys.version.encode() + pins.read_bytes() + (ROOT / 'requirements' / 'base.in').read_bytes()
    home = CACHE / 'shops' / f'{pins.stem}-{hashlib.sha256(made_of).hexdigest()[:12]}'
    home.parent.mkdir(parents=True, exist_ok=True)
    python = home / 'bin' / 'python'
    # Tests run in several processes: one makes it, the others wait.
    with home.with_suffix('.lock').open('w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / 'made').exists():
            subprocess.run([sys.executable, '-m', 'venv', '--clear', home], check=True, timeout=100)
            pip = [str(python), '-m', 'pip', 'install', '--quiet', '--disable-pip-version-check']
            subprocess.run([*pip, '-r', str(pins), '-r', str(ROOT / 'requirements' / 'base.in'), 'setuptools<81'],
                           check=True, timeout=400)
            (home / 'made').touch()
    return python


@pytest.mark.timeout(600)
def test_the_shop_publishes_its_orders(python: Path, pins: Path, tmp_path: Path) -> None:
    (tmp_path / 'shop.py').write_text(CONFIG)
    ran = subprocess.run([python, '-c', SHOP], capture_output=True, text=True, check=False, cwd=ROOT,
                         env={'PATH': os.environ['PATH'], 'PYTHONWARNINGS': 'ignore',
                              'PYTHONPATH': f'{ROOT}{os.pathsep}{tmp_path}'})
    assert ran.returncode == 0, ran.stderr
    versions = pinned(pins)
    assert json.loads(ran.stdout) == [
        *(versions[name] for name in ('celery', 'Django', 'urllib3', 'requests')),
        'ecommerce_worker.fulfillment.v1.tasks.fulfill_order', ['EDX-1'], {'site_code': 'edx', 'email_opt_in': True}]


@pytest.mark.timeout(600)
def test_every_client_module_can_be_imported(python: Path) -> None:
    # Each imports whatever stands above it; vendors are found by name.
    modules = ['fulfillment.v1.tasks', 'email.v1.api', 'sailthru.v1.tasks', 'email.v1.utils', 'braze.v1.client',
               *(f'email.vendors.{name}' for name in names())]
    program = '\n'.join(f'import ecommerce_worker.{module}' for module in modules)
    ran = subprocess.run([python, '-W', 'error', '-c', program], capture_output=True, text=True, check=False, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.timeout(600)
def test_nothing_that_is_installed_contradicts_another(python: Path) -> None:
    ran = subprocess.run([python, '-m', 'pip', 'check'], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout
