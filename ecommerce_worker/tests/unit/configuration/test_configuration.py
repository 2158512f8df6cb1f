"""The settings modules: what they say, what they leave alone, and what third parties build on them."""

import subprocess
import sys
import textwrap

import pytest

from ecommerce_worker import configuration, settings
from ecommerce_worker.configuration import base, get_overrides_filename
from ecommerce_worker.errors import Misconfigured

MARKS = {'YAML_REQUIRED', 'YAML_OPT_OUT'}
NAMES = ('base', 'local', 'devstack', 'production', 'test')

# What Tutor mounts, word for word in all that matters.
TUTOR = """
    import logging.config

    from ecommerce_worker.configuration.logger import get_logger_config
    from ..base import *

    BROKER_URL = "amqp://openedx:rabbit-secret@rabbitmq:5672"

    JWT_SECRET_KEY = "a-secret-that-is-long-enough-for-all"
    JWT_ISSUER = "http://local.overhang.io/oauth2"

    # Logging: get rid of local handler
    logging_config = get_logger_config(
        log_dir="/var/log",
        edx_filename="ecommerce_worker.log",
        dev_env=True,
        debug=False,
        local_loglevel="INFO",
    )
    logging_config["handlers"].pop("local")
    for logger in logging_config["loggers"].values():
        try:
            logger["handlers"].remove("local")
        except ValueError:
            continue
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Put a settings package beside those of the worker; gives its dotted name."""
    added = []

    def put(name, source):
        (tmp_path / name).mkdir()
        (tmp_path / name / '__init__.py').write_text('')
        (tmp_path / name / 'production.py').write_text(textwrap.dedent(source))
        added.append(f'{configuration.__name__}.{name}')
        return f'{added[-1]}.production'

    monkeypatch.setattr(configuration, '__path__', [*configuration.__path__, str(tmp_path)])
    yield put
    for name in [module for module in sys.modules if module.startswith(tuple(added))] if added else []:
        del sys.modules[name]
    for name in added:
        if hasattr(configuration, name.rpartition('.')[2]):
            delattr(configuration, name.rpartition('.')[2])


def test_base_and_the_table_of_settings_name_the_same():
    named = {name for name in vars(base) if name.isupper() and not name.startswith('_')}
    assert named - MARKS == set(settings.SETTINGS)


@pytest.mark.parametrize('name', sorted(settings.SETTINGS))
def test_each_default_is_what_its_setting_may_be(name):
    kind, default = settings.SETTINGS[name], getattr(base, name)
    if default is None:
        assert kind.takes_none
    else:
        read = kind.read(default)
        assert (list(read) if isinstance(default, list) else read) == default


@pytest.mark.parametrize('group', ['BRAZE', 'SAILTHRU'])
def test_base_lists_every_member_of_a_group(group):
    assert set(getattr(base, group)) == set(settings.SETTINGS[group].names)


@pytest.mark.parametrize('name, default', [
    ('BROKER_URL', 'amqp://celery:celery@127.0.0.1:5672'),
    ('DEFAULT_PRIORITY_QUEUE', 'ecommerce.default'),
    ('CELERY_DEFAULT_QUEUE', 'ecommerce.default'),
    ('CELERY_DEFAULT_EXCHANGE', 'ecommerce'),
    ('CELERY_ACCEPT_CONTENT', ['json', 'pickle']),
    ('ECOMMERCE_API_ROOT', 'http://127.0.0.1:8002/api/v2/'),
    ('MAX_FULFILLMENT_RETRIES', 11),
    ('JWT_ISSUER', 'ecommerce_worker'),
    ('BACKEND_SERVICE_EDX_OAUTH2_KEY', 'ecommerce-backend-service-key'),
    ('ECOMMERCE_SERVICE_USERNAME', 'ecommerce_worker'),
])
def test_historic_names_keep_their_meaning(name, default):
    assert getattr(base, name) == default


def test_the_queues_shops_publish_to_are_consumed_and_the_shared_one_is_not():
    assert {'ecommerce.fulfillment', 'ecommerce.email_marketing', 'ecommerce.default'} <= set(base.QUEUES)
    assert 'celery' not in base.QUEUES


@pytest.mark.parametrize('name', NAMES)
def test_importing_a_settings_module_has_no_effects(name):
    program = f"""
        import builtins, logging, os, pathlib, sys
        import importlib.util, ecommerce_worker.configuration.logger
        before = list(logging.getLogger().handlers)

        class Untouchable(dict):
            def forbidden(self, *_):
                sys.exit('the environment was read')
            __getitem__ = get = __contains__ = forbidden

        def audit(event, args):
            if event in ('socket.connect', 'subprocess.Popen'):
                sys.exit(event)
            if event == 'open' and not str(args[0]).endswith(('.py', '.pyc')) and args[0] not in (1, 2):
                sys.exit(f'{{args[0]}} was opened')

        os.environ = Untouchable()
        sys.addaudithook(audit)
        import ecommerce_worker.configuration.{name}
        assert logging.getLogger().handlers == before
        assert 'celery' not in sys.modules and 'yaml' not in sys.modules
    """
    command = [sys.executable, '-B', '-c', textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_nothing_is_logged_to_a_file_or_the_syslog_unless_asked():
    assert set(base.LOGGING['handlers']) == {'console'}
    assert base.LOGGING['loggers']['']['handlers'] == ['console']


def test_the_test_settings_run_tasks_in_place():
    found = settings.load({'WORKER_CONFIGURATION_MODULE': 'ecommerce_worker.configuration.test'})
    assert found.CELERY_ALWAYS_EAGER is True
    assert found.ECOMMERCE_SERVICE_USERNAME == 'service'
    assert found.ECOMMERCE_API_ROOT == 'http://localhost:8002/api/v2/'


def test_the_local_settings_use_the_user_of_a_fresh_rabbitmq():
    assert settings.load({}).BROKER_URL == 'amqp://guest:guest@127.0.0.1:5672//'


def test_the_historic_function_names_the_yaml_file(monkeypatch):
    monkeypatch.setenv('ECOMMERCE_WORKER_CFG', '/etc/worker.yml')
    assert get_overrides_filename('ECOMMERCE_WORKER_CFG') == '/etc/worker.yml'


def test_the_historic_function_says_what_is_missing(monkeypatch):
    monkeypatch.delenv('ECOMMERCE_WORKER_CFG', raising=False)
    with pytest.raises(EnvironmentError, match='ECOMMERCE_WORKER_CFG must name'):
        get_overrides_filename('ECOMMERCE_WORKER_CFG')
    assert configuration.CONFIGURATION_MODULE == 'WORKER_CONFIGURATION_MODULE'


def test_a_third_partys_settings_package_works_unchanged(package):
    found = settings.load({'WORKER_CONFIGURATION_MODULE': package('tutor', TUTOR)})
    assert found.BROKER_URL == 'amqp://openedx:rabbit-secret@rabbitmq:5672'
    assert found.authentication == 'jwt'
    assert found.JWT_ISSUER == 'http://local.overhang.io/oauth2'
    assert found.sources['BROKER_URL'].endswith('tutor/production.py:7')
    assert not found.extra
    assert any('ECOMMERCE_API_ROOT' in remark for remark in found.remarks)


def test_a_third_party_may_pop_a_handler_and_leave_the_loggers_as_they_are(package):
    module = package('popping', """
        from ..base import *
        from ..logger import get_logger_config
        JWT_SECRET_KEY = 'a-secret-that-is-long-enough-for-all'
        LOGGING = get_logger_config(log_dir='/nowhere', edx_filename='edx.log', dev_env=True)
        LOGGING['handlers'].pop('local')
    """)
    found = settings.load({'WORKER_CONFIGURATION_MODULE': module})
    assert found.LOGGING['loggers']['']['handlers'] == ['console']


def test_a_third_party_may_have_variables_of_its_own(package):
    module = package('forked', """
        import os
        from ..local import *
        SENTRY_DSN = 'https://key@sentry.example.com/1'
        OUR_SETTING = 1
        CELERYD_MAX_TASKS_PER_CHILD = 100
        worker_send_task_events = True
        task_count = lambda: 3
    """)
    found = settings.load({'WORKER_CONFIGURATION_MODULE': module})
    assert dict(found.extra) == {'CELERYD_MAX_TASKS_PER_CHILD': 100, 'worker_send_task_events': True}


def test_writing_into_a_mapping_of_base_counts_and_leaves_the_defaults_alone(package):
    before = dict(base.BRAZE)
    module = package('writing', """
        from ..local import *
        BRAZE['BRAZE_ENABLE'] = 'yes'
    """)
    try:
        found = settings.load({'WORKER_CONFIGURATION_MODULE': module})
        assert found.BRAZE['BRAZE_ENABLE'] is True
        assert found.sources['BRAZE[BRAZE_ENABLE]'].endswith('production.py:3')
        assert settings.DEFAULTS['BRAZE']['BRAZE_ENABLE'] is False
    finally:
        base.BRAZE.update(before)


def test_a_module_that_cannot_be_imported_is_named_with_the_cause(package):
    module = package('broken', "raise KeyError('HOME_OF_SHOP')")
    with pytest.raises(Misconfigured) as caught:
        settings.load({'WORKER_CONFIGURATION_MODULE': module})
    assert str(caught.value) == (f'WORKER_CONFIGURATION_MODULE names {module}, which cannot be imported: '
                                 "KeyError: 'HOME_OF_SHOP'")


def test_a_module_of_which_there_is_no_such_thing_is_guessed_at():
    with pytest.raises(Misconfigured, match=r'did you mean ecommerce_worker\.configuration\.production\?'):
        settings.load({'WORKER_CONFIGURATION_MODULE': 'ecommerce_worker.settings.production'})
