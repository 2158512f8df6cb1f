"""Inside a shop of 2024, with its pins: the tasks can be imported and published, and leave its Django alone."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ecommerce_worker.email.mailer import names

PINS = Path(__file__).with_name('shop-2024.txt')
ROOT = Path(__file__).parents[3]

SHOP = """
import json

import django
from django.conf import settings
from celery import Celery, __version__ as celery_version
from kombu import Queue

settings.configure(SECRET_KEY='shop', BROKER_URL='memory://')
django.setup()
app = Celery('ecommerce', broker='memory://')
app.conf.task_serializer = 'pickle'
app.conf.task_routes = {'ecommerce_worker.fulfillment.v1.tasks.fulfill_order': {'queue': 'ecommerce.fulfillment'}}

from ecommerce_worker.fulfillment.v1.tasks import fulfill_order
from ecommerce_worker.broker.wire import Raw, read

fulfill_order.delay('EDX-1', site_code='edx', email_opt_in=True)
with app.connection_for_read() as connection:
    message = Queue('ecommerce.fulfillment').bind(connection.channel()).get()
call = read(Raw.of(message))
print(json.dumps([celery_version, django.__version__, call.task, call.args, call.kwargs]))
"""


@pytest.fixture(scope='session')
def python() -> Path:
    """The interpreter of a virtual environment with the shop's pins and us, made once for these pins."""
    named = hashlib.sha256(PINS.read_bytes() + (ROOT / 'requirements' / 'base.in').read_bytes()).hexdigest()[:12]
    home = Path(sys.prefix) / f'shop-2024-{named}'
    python = home / 'bin' / 'python'
    if not (home / 'made').exists():
        subprocess.run([sys.executable, '-m', 'venv', '--clear', home], check=True, timeout=100)
        pip = [str(python), '-m', 'pip', 'install', '--quiet', '--disable-pip-version-check']
        subprocess.run([*pip, '-r', str(PINS), '-r', str(ROOT / 'requirements' / 'base.in'), 'setuptools<81'],
                       check=True, timeout=400)
        (home / 'made').touch()
    return python


@pytest.mark.timeout(600)
def test_the_shop_publishes_its_orders(python: Path) -> None:
    ran = subprocess.run([python, '-c', SHOP], capture_output=True, text=True, check=False, cwd=ROOT,
                         env={'PATH': os.environ['PATH'], 'PYTHONWARNINGS': 'ignore'})
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == [
        '5.4.0', '3.2.25', 'ecommerce_worker.fulfillment.v1.tasks.fulfill_order', ['EDX-1'],
        {'site_code': 'edx', 'email_opt_in': True}]


@pytest.mark.timeout(600)
def test_every_client_module_can_be_imported(python: Path) -> None:
    # Each imports whatever stands above it; vendors are found by name.
    modules = ['fulfillment.v1.tasks', 'email.v1.api', 'sailthru.v1.tasks',
               *(f'email.vendors.{name}' for name in names())]
    program = '\n'.join(f'import ecommerce_worker.{module}' for module in modules)
    ran = subprocess.run([python, '-W', 'error', '-c', program], capture_output=True, text=True, check=False, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.timeout(600)
def test_nothing_that_is_installed_contradicts_another(python: Path) -> None:
    ran = subprocess.run([python, '-m', 'pip', 'check'], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout
