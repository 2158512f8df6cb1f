"""The examples in the documents: each configuration is taken as it stands."""

import re
import runpy
import subprocess
import sys
import textwrap
from importlib.metadata import metadata
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import certifi
import pytest
import yaml
from celery import Celery, shared_task

from ecommerce_worker import runtime, settings
from ecommerce_worker.broker import app as celery_app
from ecommerce_worker.configuration import base
from ecommerce_worker.intake import intakes
from ecommerce_worker.schedule import checks
from ecommerce_worker.tests.support.extensions import install, packages
from ecommerce_worker.tests.support.isolation import BARE

ROOT = Path(settings.__file__).parents[2]
PAGES = [ROOT / 'README.rst', *sorted((ROOT / 'docs').rglob('*.rst'))]

#: What a server must have said whatever else it says; an example that is a whole file says so itself.
SECRET = 'whsec_dGhpcnR5LXR3by1ieXRlcy1vci1tb3JlLW9mLXNlY3JldHM='
REST = {'BROKER_URL': 'amqp://rabbitmq.example.com//', 'ECOMMERCE_API_ROOT': 'https://shop.example.com/api/v2/',
        'BACKEND_SERVICE_EDX_OAUTH2_KEY': 'ecommerce-worker', 'BACKEND_SERVICE_EDX_OAUTH2_SECRET': 'secret',
        'EMAIL_WITHOUT_VENDOR': 'park'}


def blocks(text):
    """The configurations in a page: marked as YAML, or written so after a line that ends with two colons."""
    for found in re.finditer(r'^(?:\.\. code-block:: yaml|.*::)\n\n((?:    .*\n|\n)+)', text, re.MULTILINE):
        block = textwrap.dedent(found[1])
        if re.match(r'(#.*\n)*[A-Z_]+:', block):
            yield block


def examples():
    for page in PAGES:
        # Each example of this page goes on from those before it.
        before: dict[str, Any] | None = {} if page.name == 'run-scheduled-jobs.rst' else None
        for number, block in enumerate(blocks(page.read_text()), 1):
            if before is not None:
                for name, value in yaml.safe_load(block).items():
                    before[name] = {**before.get(name, {}), **value} if isinstance(value, dict) else value
            yield pytest.param(block if before is None else yaml.safe_dump(before), id=f'{page.name}-{number}')
    comment = Path(base.__file__).read_text()
    jobs = re.search(r'The jobs of a django-SHOP, as YAML:\n((?:#   .*\n)+)', comment)
    assert jobs
    yield pytest.param(jobs[1].replace('#   ', '') + 'DJANGO_PROJECT_SETTINGS: shop.settings\n', id='base.py')


@pytest.fixture
def written(tmp_path):
    """Writes an example to a file, with the files that it names; gives the environment of who reads it."""
    def write(block):
        for path in re.findall(r'(?:file:)?(/(?:run/secrets|etc)/[\w./-]+)', block):
            kept = tmp_path / path.replace('/', '_')
            kept.write_text(Path(certifi.where()).read_text() if path.endswith('.pem') else SECRET)
            block = block.replace(path, str(kept))
        for name in re.findall(r'file:\$\{CREDENTIALS_DIRECTORY\}/([\w-]+)', block):
            (tmp_path / name).write_text(SECRET)
        (tmp_path / 'worker.yml').write_text(block)
        said = yaml.safe_load(block)
        rest = {} if 'BROKER_URL' in said and 'ECOMMERCE_API_ROOT' in said else REST
        return {
            'WORKER_CONFIGURATION_MODULE': 'ecommerce_worker.configuration.production',
            'ECOMMERCE_WORKER_CFG': str(tmp_path / 'worker.yml'), 'HOME': str(tmp_path),
            **dict.fromkeys(re.findall(r'\$\{(\w+)\}', block), 'the-value-of-a-variable-of-32-bytes'),
            'CREDENTIALS_DIRECTORY': str(tmp_path),
            # What the example itself says counts.
            **{f'ECOMMERCE_WORKER_{name}': value for name, value in rest.items()
               if name not in said and not (name == 'EMAIL_WITHOUT_VENDOR' and 'EMAIL_VENDOR' in said)}}

    return write


@pytest.fixture
def vendor(monkeypatch):
    """The vendor that a page tells how to write."""
    module = ModuleType('acme_mail')
    module.Vendor = lambda options, connect: SimpleNamespace(policy=None)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, 'acme_mail', module)


@shared_task(name='acme_orders.grant')
def grant(order_number, site_code=None):
    """A task of somebody's own."""


@pytest.fixture
def tasks_of_its_own(monkeypatch):
    """The tasks that pages call by way of an intake."""
    monkeypatch.setitem(sys.modules, 'acme_orders', ModuleType('acme_orders'))


@pytest.fixture(scope='module')
def extension(tmp_path_factory):
    """The extension that a page tells how to write, installed as it stands there."""
    page = (ROOT / 'docs' / 'how-to' / 'write-an-extension.rst').read_text()
    with packages(tmp_path_factory.mktemp('site')) as place:
        code = re.search(r'^\.\. code-block:: python\n\n((?:    .*\n|\n)+)', page, re.MULTILINE)
        assert code
        install(place, 'acme_licences', code[1])
        yield


@pytest.mark.parametrize('block', [*examples()])
@pytest.mark.usefixtures('vendor', 'tasks_of_its_own', 'extension')
def test_an_example_is_a_configuration_without_a_problem(written, block):
    found = settings.load(written(block))
    runtime.Runtime(found).check()
    with Celery('worker', set_as_current=False) as app:
        app.config_from_object(celery_app.celery_settings(found))
        for name in found.CELERY_IMPORTS:
            app.loader.import_task_module(name)
        app.finalize()
        assert checks.schedule_problems(found, app.tasks) == []
        intakes.read(found, app.tasks)


def test_the_examples_are_found():
    assert len(list(examples())) > 15


@pytest.mark.parametrize('page', ['README.rst', 'docs/how-to/go-to-production.rst'])
def test_the_file_of_a_server_passes_check_as_the_page_says(written, page):
    block = next(blocks((ROOT / page).read_text()))
    ended = subprocess.run([sys.executable, '-m', 'ecommerce_worker', 'check'], capture_output=True, text=True,
                           check=False, cwd=ROOT, env={**BARE, **written(block)})
    assert ended.stdout.endswith('no problems found\n'), ended.stdout + ended.stderr
    assert 'ECOMMERCE_WORKER' not in ended.stdout.replace('ECOMMERCE_WORKER_CFG', '')


def test_what_pages_install_is_this_package_with_extras_that_it_has():
    found = {(name, extra) for page in PAGES
             for name, extra in re.findall(r"pip install '([\w-]+)\[(\w+)\]'", page.read_text())}
    known = metadata('edx-ecommerce-worker').get_all('Provides-Extra')
    assert ('edx-ecommerce-worker', 'all') in found
    assert found <= {('edx-ecommerce-worker', extra) for extra in known or ()}


@pytest.fixture
def settings_page():
    """The program that writes the page of settings."""
    return runpy.run_path(str(ROOT / 'docs' / 'settings_page.py'))


def test_the_page_of_settings_is_what_make_reference_writes(settings_page):
    assert settings_page['PAGE'].read_text() == settings_page['page']()


def test_the_page_of_settings_has_all_of_them(settings_page):
    terms = re.findall(r'(?m)^``.*', settings_page['made']())
    assert set(re.findall(r'``(\w+)``', '\n'.join(terms))) == set(settings.SETTINGS)
