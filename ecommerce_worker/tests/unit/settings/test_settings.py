"""How settings are layered, read, checked and shown."""

import logging
import ssl
import sys
import textwrap
from pathlib import Path

import certifi
import pytest

from ecommerce_worker.errors import Misconfigured
from ecommerce_worker.settings import DEFAULTS, SETTINGS, certificate_problems, load, mask
from ecommerce_worker.settings.files import is_well_formed
from ecommerce_worker.settings.kinds import Secrecy

PRODUCTION = 'ecommerce_worker.configuration.production'
GOOD_KEY = 'a-key-of-more-than-thirty-two-bytes'
HIDDEN = 'hunter2'  # what no output may show


@pytest.fixture
def with_yaml(tmp_path):
    """Load with this text as the YAML file; gives the settings."""
    def loaded(text, **environ):
        path = tmp_path / 'worker.yml'
        path.write_text(textwrap.dedent(text))
        return load({'ECOMMERCE_WORKER_CFG': str(path), **environ})

    return loaded


@pytest.fixture
def with_module(tmp_path, monkeypatch):
    """Put a settings module beside; gives the environment that names it."""
    def environ(source):
        (tmp_path / 'settings_of_a_test.py').write_text(
            'from ecommerce_worker.configuration.local import *\n' + textwrap.dedent(source))
        return {'WORKER_CONFIGURATION_MODULE': 'settings_of_a_test'}

    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, 'dont_write_bytecode', True)
    monkeypatch.delitem(sys.modules, 'settings_of_a_test', raising=False)
    yield environ
    sys.modules.pop('settings_of_a_test', None)


def problems(loading, *args, **kwargs):
    """Give the problems that loading so ends with."""
    with pytest.raises(Misconfigured) as caught:
        loading(*args, **kwargs)
    return caught.value.problems


def env(**settings):
    """Give the environment that says so."""
    return {f'ECOMMERCE_WORKER_{name}': value for name, value in settings.items()}


def the_problem(loading, *args, **kwargs):
    """Give the only problem that loading so ends with."""
    found = problems(loading, *args, **kwargs)
    assert len(found) == 1, found
    return found[0]


# --- Layers


def test_the_environment_has_the_last_word_then_yaml_then_the_module_then_base(with_yaml, with_module):
    module = with_module("""
        WORKER_CONCURRENCY = 2
        MAX_FULFILLMENT_RETRIES = 2
        JWT_ISSUER = 'module'
    """)
    found = with_yaml("""
        WORKER_CONCURRENCY: 3
        MAX_FULFILLMENT_RETRIES: 3
    """, **module, **env(WORKER_CONCURRENCY='4'))
    assert found.WORKER_CONCURRENCY == 4
    assert found.MAX_FULFILLMENT_RETRIES == 3
    assert found.JWT_ISSUER == 'module'
    assert found.REDELIVERY_DELAY == 30


def test_each_value_tells_where_it_came_from(with_yaml, with_module, tmp_path):
    module = with_module("JWT_ISSUER = 'first'\nJWT_ISSUER = 'last'\n")
    found = with_yaml("""\
        # a comment
        MAX_FULFILLMENT_RETRIES: 3
        BRAZE:
          BRAZE_ENABLE: true
    """, **module, **env(WORKER_CONCURRENCY='4'))
    assert found.sources['WORKER_CONCURRENCY'] == 'environment ECOMMERCE_WORKER_WORKER_CONCURRENCY'
    assert found.sources['MAX_FULFILLMENT_RETRIES'] == f'{tmp_path}/worker.yml:2'
    assert found.sources['BRAZE[BRAZE_ENABLE]'] == f'{tmp_path}/worker.yml:4'
    assert found.sources['JWT_ISSUER'] == f'{tmp_path}/settings_of_a_test.py:3'
    assert found.sources['REDELIVERY_DELAY'] == 'default'


def test_groups_are_merged_key_by_key_through_all_layers(with_yaml, with_module):
    module = with_module("BRAZE = {'BRAZE_ENABLE': True, 'FROM_EMAIL': 'module@example.com'}")
    found = with_yaml("""
        BRAZE: {FROM_EMAIL: yaml@example.com}
        SAILTHRU: {templates: {course_refund: Ours}}
    """, **module, **env(BRAZE='{"BRAZE_RETRY_ATTEMPTS": "2"}'))
    assert found.BRAZE['BRAZE_ENABLE'] is True
    assert found.BRAZE['FROM_EMAIL'] == 'yaml@example.com'
    assert found.BRAZE['BRAZE_RETRY_ATTEMPTS'] == 2
    assert found.BRAZE['REST_API_URL'] == DEFAULTS['BRAZE']['REST_API_URL']
    assert dict(found.SAILTHRU['templates']) == {**DEFAULTS['SAILTHRU']['templates'], 'course_refund': 'Ours'}


@pytest.mark.parametrize('name, given, read', [
    ('MAX_FULFILLMENT_RETRIES', '0', 0),
    ('CELERY_ALWAYS_EAGER', 'false', False),
    ('JWT_ISSUER', '', ''),
])
def test_false_nought_and_an_empty_text_count(with_module, name, given, read):
    module = with_module("MAX_FULFILLMENT_RETRIES = 5\nCELERY_ALWAYS_EAGER = True\nJWT_ISSUER = 'module'\n")
    assert getattr(load({**module, **env(**{name: given})}), name) == read


@pytest.mark.parametrize('name', ['MAX_FULFILLMENT_RETRIES', 'BRAZE', 'QUEUES', 'CELERY_ALWAYS_EAGER', 'BROKER_URL'])
@pytest.mark.parametrize('nothing', ['""', 'null', ''])
def test_nothing_where_no_text_is_wanted_leaves_the_layer_below_in_force(with_yaml, name, nothing):
    assert getattr(with_yaml(f'{name}: {nothing}'), name) == getattr(load({}), name)


def test_settings_are_read_only():
    found = load({})
    with pytest.raises(AttributeError):
        setattr(found, 'BROKER_URL', 'amqp://elsewhere')  # noqa: B010 - the type checker knows it cannot be
    with pytest.raises(TypeError):
        found.BRAZE['BRAZE_ENABLE'] = True


def test_a_misspelled_attribute_is_guessed_at():
    with pytest.raises(AttributeError, match=r'there is no setting BROKER_ULR; did you mean BROKER_URL\?'):
        _ = load({}).BROKER_ULR  # type: ignore[attr-defined]


def test_the_process_environment_is_used_unless_another_is_given(monkeypatch):
    monkeypatch.setenv('ECOMMERCE_WORKER_JWT_ISSUER', 'process')
    assert load().JWT_ISSUER == 'process'
    assert load({}).JWT_ISSUER == 'ecommerce_worker'


# --- Reading


@pytest.mark.parametrize('name, given, read', [
    ('MAX_FULFILLMENT_RETRIES', '11', 11),
    ('HTTP_CONNECT_TIMEOUT', '0.5', 0.5),
    ('HTTP_CONNECT_TIMEOUT', '0.5s', 0.5),
    ('FULFILLMENT_GIVE_UP_AFTER', '3d', 259_200),
    ('RETRY_DELAY_MAX', '15m', 900),
    ('SHUTDOWN_SECONDS', '1m30s', 90),
    ('CONSOLE_SESSION_SECONDS', '8h', 28_800),
    ('MANAGEMENT_COMMAND_TIMEOUT', '1h30m', 5400),
    ('BROKER_HEARTBEAT', '10s', 10),
    ('BRAZE', "{'BRAZE_RETRY_SECONDS': '1h'}", {**DEFAULTS['BRAZE'], 'BRAZE_RETRY_SECONDS': 3600}),
    ('BROKER_POOL_LIMIT', '0', 0),
    ('CELERY_ALWAYS_EAGER', 'Yes', True),
    ('ALLOW_UNSAFE_BROKER', '1', True),
    ('QUEUES', 'one, two', ('one', 'two')),
    ('QUEUES', '["one", "two"]', ('one', 'two')),
    ('QUEUES', "('one', 'two')", ('one', 'two')),
    ('BROKER_URL', 'amqp://one;amqp://two', 'amqp://one;amqp://two'),
    ('BROKER_URL', '["amqp://one", "amqp://two"]', ['amqp://one', 'amqp://two']),
    ('BROKER_URL', 'redis+socket:///run/redis.sock', 'redis+socket:///run/redis.sock'),
    ('BROKER_TRANSPORT_OPTIONS', "{'flag': True, 'none': None}", {'flag': True, 'none': None}),
    ('BROKER_TRANSPORT_OPTIONS', '{"flag": true, "none": null}', {'flag': True, 'none': None}),
    ('SITE_OVERRIDES', "{u'edx': {u'JWT_ISSUER': u'x'}}", {'edx': {'JWT_ISSUER': 'x'}}),
])
def test_texts_of_templates_become_what_is_meant(with_yaml, name, given, read):
    assert getattr(load(env(**{name: given})), name) == read
    quoted = given.replace("'", "''")
    assert getattr(with_yaml(f"{name}: '{quoted}'"), name) == read


@pytest.mark.parametrize('spelling', [
    'required', 'CERT_REQUIRED', 'ssl.CERT_REQUIRED', 'Required', '2'])
@pytest.mark.parametrize('name', ['cert_reqs', 'ssl_cert_reqs'])
def test_how_certificates_are_verified_is_read_in_each_of_its_spellings(with_yaml, name, spelling):
    assert with_yaml(f'BROKER_USE_SSL: {{{name}: {spelling}}}').BROKER_USE_SSL == {'cert_reqs': 'required'}


@pytest.mark.parametrize('given, read', [
    ('true', True), ('false', False), ("'True'", True), ("'{}'", {}),
    ('{check_hostname: no}', {'check_hostname': False}),
    ("{'ca_certs': '%s', 'certfile': null}", {'ca_certs': certifi.where()}),
    ("{server_hostname: rabbit, ciphers: 'HIGH'}", {'server_hostname': 'rabbit', 'ciphers': 'HIGH'}),
])
def test_tls_to_the_broker_is_read_as_templates_write_it(with_yaml, given, read):
    found = with_yaml(f'BROKER_USE_SSL: {given.replace("%s", certifi.where())}').BROKER_USE_SSL
    assert found == read


def test_a_settings_module_may_use_the_constants_of_ssl(with_module):
    module = with_module('import ssl\nBROKER_USE_SSL = {"cert_reqs": ssl.CERT_NONE}')
    assert load(module).BROKER_USE_SSL == {'cert_reqs': 'none'}


@pytest.mark.parametrize('given, problem', [
    ('{cert_reqs: always}', "[cert_reqs] must be one of required, optional, none; this is 'always'"),
    ('{ca_certs: /nowhere}', '[ca_certs] /nowhere cannot be read: No such file or directory'),
    ('{ca_cert: /nowhere}', 'has no option ca_cert; there are ca_certs, cert'),
    ('{keyfile: /dev/null}', 'names a keyfile without its certfile'),
    ('maybe', 'must be true, false, or a mapping such as {ca_certs: '),
])
def test_what_is_wrong_with_tls_is_one_line(with_yaml, given, problem):
    assert the_problem(with_yaml, f'BROKER_USE_SSL: {given}').partition('BROKER_USE_SSL ')[2].startswith(problem)


@pytest.mark.parametrize('text, words', [
    ('BROKER_URL: amqps://rabbit//', 'so certificates of any host are accepted'),
    ('BROKER_URL: rediss://redis/0', 'is not verified'),
    ('BROKER_URL: rediss://redis/0?ssl_cert_reqs=required', ''),
    ('{BROKER_URL: "amqps://rabbit//", BROKER_USE_SSL: true}', ''),
    ('{BROKER_URL: "amqps://one//;amqps://two//", BROKER_USE_SSL: true}', 'does not compare host names'),
    ('{BROKER_URL: "amqps://rabbit//", BROKER_USE_SSL: {cert_reqs: none}}', 'trusts any server'),
    ('{BROKER_URL: "amqp://rabbit//"}', ''),
])
def test_a_connection_that_is_less_safe_than_it_looks_is_remarked(with_yaml, text, words):
    remarks = [remark for remark in with_yaml(text).remarks if 'BROKER_USE_SSL' in remark]
    assert len(remarks) == bool(words)
    assert words in ''.join(remarks)


@pytest.mark.parametrize('name, given', [
    ('MAX_FULFILLMENT_RETRIES', 'eleven'),
    ('MAX_FULFILLMENT_RETRIES', '1.5'),
    ('MAX_FULFILLMENT_RETRIES', '-1'),
    ('MAX_FULFILLMENT_RETRIES', '[1]'),
    ('MAX_FULFILLMENT_RETRIES', 'true'),
    ('WORKER_CONCURRENCY', '0'),
    ('HTTP_READ_TIMEOUT', '0'),
    ('HTTP_READ_TIMEOUT', '.nan'),
    ('HTTP_READ_TIMEOUT', '.inf'),
    ('CELERY_ALWAYS_EAGER', 'maybe'),
    ('FULFILLMENT_GIVE_UP_AFTER', '3 days'),
    ('FULFILLMENT_GIVE_UP_AFTER', '31d'),
    ('CONSOLE_SESSION_SECONDS', '1m0.5s'),
    ('AUTHENTICATION', 'basic'),
    ('QUEUE_TYPE', 'stream'),
    ('ECOMMERCE_API_ROOT', 'shop.example.com/api'),
    ('ECOMMERCE_API_ROOT', 'ftp://shop.example.com/'),
    ('ECOMMERCE_API_ROOT', 'https:///api/'),
    ('ECOMMERCE_API_ROOT', 'https://shop.example.com:port/'),
    ('ECOMMERCE_API_ROOT', 'https://shop.example.com/a b/'),
    ('BROKER_URL', 'localhost'),
    ('BROKER_URL', '[]'),
    ('BROKER_URL', 'amqp://user:pass/word@host'),
    ('BROKER_URL', '5672'),
    ('QUEUES', '[]'),
    ('QUEUES', '[1]'),
    ('QUEUES', '{a: b}'),
    ('JWT_ISSUER', '5'),
    ('BRAZE', '[]'),
    ('BRAZE', 'yes'),
    ('SITE_OVERRIDES', '"{broken"'),
    ('SITE_OVERRIDES', '{edx: 5}'),
    ('LOGGING', '{handlers: {}}'),
    ('LOGGING', '{version: 1, loggers: 5}'),
    ('CELERY_ACCEPT_CONTENT', '[msgpack]'),
    ('CELERY_ACCEPT_CONTENT', '[pickle]'),
])
def test_a_wrong_value_is_refused_with_its_name_and_place(with_yaml, tmp_path, name, given):
    found = the_problem(with_yaml, f'{name}: {given}')
    assert found.startswith(f'{tmp_path}/worker.yml:1: {name}')
    assert ' must ' in found


def test_a_refusal_says_what_is_wanted_and_what_was_given():
    assert the_problem(load, env(WORKER_CONCURRENCY='many')) == (
        'environment ECOMMERCE_WORKER_WORKER_CONCURRENCY: '
        "WORKER_CONCURRENCY must be a whole number from 1 to 10,000; this is 'many'")


def test_a_refusal_of_a_duration_says_its_unit():
    assert the_problem(load, env(FULFILLMENT_GIVE_UP_AFTER='3 days')).endswith(
        "FULFILLMENT_GIVE_UP_AFTER must be seconds, or a duration such as 45s, 15m, 1h30m, 3d, from 0s to 30d; "
        "this is '3 days'")


def test_references_to_the_environment_are_followed(with_yaml):
    found = with_yaml("""
        BROKER_URL: amqp://worker:${RABBIT_PASSWORD}@rabbit:5672
        QUEUES: ['${QUEUE}']
        BRAZE: {FROM_EMAIL: '${SENDER}@example.com'}
        WORKER_CONCURRENCY: ${THREADS}
        JWT_ISSUER: $${SENDER} costs $5
    """, RABBIT_PASSWORD='pass', QUEUE='mine', SENDER='shop', THREADS='7')
    assert found.BROKER_URL == 'amqp://worker:pass@rabbit:5672'
    assert found.QUEUES == ('mine',)
    assert found.BRAZE['FROM_EMAIL'] == 'shop@example.com'
    assert found.WORKER_CONCURRENCY == 7
    assert found.JWT_ISSUER == '${SENDER} costs $5'


def test_a_reference_to_nothing_is_a_problem(with_yaml, tmp_path):
    assert the_problem(with_yaml, '\nJWT_ISSUER: ${NOWHERE}') == (
        f'{tmp_path}/worker.yml:2: JWT_ISSUER refers to the environment variable NOWHERE, which is not set')


def test_a_log_format_may_use_dollars_itself(with_yaml):
    found = with_yaml("""
        LOGGING: {version: 1, formatters: {brief: {format: '${message}', style: $}}}
    """)
    assert found.LOGGING['formatters']['brief']['format'] == '${message}'


@pytest.mark.parametrize('name', ['JWT_SECRET_KEY', 'BROKER_URL'])
def test_a_secret_may_stand_in_a_file(tmp_path, name):
    (tmp_path / 'secret').write_text('amqp://from-a-file-of-more-than-32-bytes\n')
    found = load(env(**{name: f'file:{tmp_path}/secret'}))
    assert getattr(found, name) == 'amqp://from-a-file-of-more-than-32-bytes'


def test_a_secret_of_braze_may_stand_in_a_file(tmp_path, with_yaml):
    (tmp_path / 'secret').write_text('braze-key')
    found = with_yaml(f'BRAZE: {{BRAZE_REST_API_KEY: "file:{tmp_path}/secret"}}')
    assert found.BRAZE['BRAZE_REST_API_KEY'] == 'braze-key'


def test_what_is_no_secret_is_not_read_from_a_file():
    assert load(env(JWT_ISSUER='file:/etc/hostname')).JWT_ISSUER == 'file:/etc/hostname'


def test_products_are_read_from_a_file_of_yaml(tmp_path, with_yaml):
    products = tmp_path / 'products.yaml'
    products.write_text("PY101: {course: 'course-v1:edX+PY101+2027', mode: verified}")
    assert load(env(PRODUCTS=f'file:{products}')).PRODUCTS == {
        'PY101': ({'course': 'course-v1:edX+PY101+2027', 'mode': 'verified'},)}
    assert with_yaml(f'SITE_OVERRIDES: {{MITx: {{PRODUCTS: "file:{products}"}}}}').for_site('MITx').PRODUCTS.keys() == {
        'PY101'}


@pytest.mark.parametrize('written, problem', [
    (None, 'No such file or directory'), ('- PY101', 'it is not a mapping in YAML'),
    ('a: {b', 'it is not a mapping in YAML')])
def test_a_file_of_products_that_cannot_be_read_is_a_problem(tmp_path, written, problem):
    if written:
        (tmp_path / 'products').write_text(written)
    assert the_problem(load, env(PRODUCTS=f'file:{tmp_path}/products')) == (
        f'environment ECOMMERCE_WORKER_PRODUCTS: PRODUCTS cannot be read from {tmp_path}/products: {problem}')


def test_a_secret_in_a_file_that_is_not_there_is_a_problem():
    assert the_problem(load, env(JWT_SECRET_KEY='file:/nowhere/secret')) == (
        'environment ECOMMERCE_WORKER_JWT_SECRET_KEY: JWT_SECRET_KEY cannot be read from /nowhere/secret: '
        'No such file or directory')


# --- Names


@pytest.mark.parametrize('text, problem', [
    ('\nBROKR_URL: x', '2: there is no setting BROKR_URL; did you mean BROKER_URL?'),
    ('Braze: {}', '1: there is no setting Braze; did you mean BRAZE?'),
    ('XYZZY: 1', '1: there is no setting XYZZY'),
    ('BRAZE:\n  FROM_EMAL: x', '2: there is no setting BRAZE[FROM_EMAL]; did you mean FROM_EMAIL?'),
    ('BRAZE_ENABLE: true', '1: BRAZE_ENABLE belongs in BRAZE'),
    ('SITE_OVERRIDES:\n  edx:\n    JWT_ISUER: x',
     '3: there is no setting SITE_OVERRIDES[edx].JWT_ISUER; did you mean JWT_ISSUER?'),
    ('SITE_OVERRIDES:\n  edx:\n    BRAZE:\n      FROM_EMAL: x',
     '4: there is no setting SITE_OVERRIDES[edx].BRAZE[FROM_EMAL]; did you mean FROM_EMAIL?'),
    ('SITE_OVERRIDES:\n  edx:\n    BROKER_URL: amqp://x',
     '3: SITE_OVERRIDES[edx].BROKER_URL: BROKER_URL cannot differ from site to site'),
    ('YAML_REQUIRED: true', '1: there is no setting YAML_REQUIRED'),
])
def test_an_unknown_name_in_yaml_is_a_problem(with_yaml, tmp_path, text, problem):
    assert the_problem(with_yaml, text).startswith(f'{tmp_path}/worker.yml:{problem}')


def test_an_unknown_variable_with_our_prefix_is_a_problem():
    assert the_problem(load, env(QUEUE='mine')) == (
        'environment ECOMMERCE_WORKER_QUEUE: there is no setting QUEUE; did you mean QUEUES?')


def test_what_kubernetes_says_of_a_service_of_our_name_is_not_for_us():
    load(env(SERVICE_HOST='10.0.0.1', SERVICE_PORT='80', SERVICE_PORT_HTTP='80', PORT='tcp://10.0.0.1:80',
             PORT_80_TCP_ADDR='10.0.0.1'))


@pytest.mark.parametrize('service', ['CONSOLE_', 'WORKER_', 'A_B_C_', 'RECORDER2_'])
def test_what_kubernetes_says_of_any_service_of_ours_is_not_for_us(service):
    load({f'ECOMMERCE_WORKER_{service}{name}': value for name, value in {
        'SERVICE_HOST': '10.0.0.1', 'SERVICE_PORT': '8130', 'SERVICE_PORT_HTTP': '8130', 'PORT': 'tcp://10.0.0.1:8130',
        'PORT_8130_TCP': 'tcp://10.0.0.1:8130', 'PORT_8130_TCP_PROTO': 'tcp', 'PORT_8130_TCP_PORT': '8130',
        'PORT_8130_TCP_ADDR': '10.0.0.1', 'PORT_53_UDP': 'udp://10.0.0.1:53', 'PORT_53_UDP_ADDR': 'fd00::1'}.items()})


def test_a_variable_that_only_ends_like_one_of_kubernetes_is_a_problem():
    assert the_problem(load, env(CONSOLE_PORT='8130')).startswith(
        'environment ECOMMERCE_WORKER_CONSOLE_PORT: there is no setting CONSOLE_PORT')


def test_other_settings_of_celery_are_handed_on(with_yaml):
    found = with_yaml("""
        CELERYD_MAX_TASKS_PER_CHILD: 100
        worker_send_task_events: true
        task_routes: {a: {queue: b}}
    """, **env(BROKER_LOGIN_METHOD='PLAIN', worker_max_memory_per_child='200000', CELERY_TIMEZONE='Europe/Rome'))
    assert dict(found.extra) == {
        'CELERYD_MAX_TASKS_PER_CHILD': 100, 'worker_send_task_events': True, 'task_routes': {'a': {'queue': 'b'}},
        'BROKER_LOGIN_METHOD': 'PLAIN', 'worker_max_memory_per_child': 200000, 'CELERY_TIMEZONE': 'Europe/Rome',
    }
    assert found.sources['CELERY_TIMEZONE'] == 'environment ECOMMERCE_WORKER_CELERY_TIMEZONE'


@pytest.mark.parametrize('spelling, name, value', [
    ('broker_url', 'BROKER_URL', 'amqp://x'),
    ('CELERY_BROKER_URL', 'BROKER_URL', 'amqp://x'),
    ('broker_pool_limit', 'BROKER_POOL_LIMIT', 3),
    ('task_always_eager', 'CELERY_ALWAYS_EAGER', True),
    ('CELERY_TASK_ALWAYS_EAGER', 'CELERY_ALWAYS_EAGER', True),
    ('task_default_queue', 'CELERY_DEFAULT_QUEUE', 'mine'),
    ('imports', 'CELERY_IMPORTS', ('a.tasks',)),
    ('accept_content', 'CELERY_ACCEPT_CONTENT', ('json',)),
    ('worker_hijack_root_logger', 'CELERYD_HIJACK_ROOT_LOGGER', True),
])
def test_celerys_other_spellings_of_our_settings_are_ours(with_yaml, tmp_path, spelling, name, value):
    found = with_yaml(f'{spelling}: {list(value) if isinstance(value, tuple) else value}')
    assert getattr(found, name) == value
    assert not found.extra
    assert found.sources[name] == f'{tmp_path}/worker.yml:1'


def test_a_setting_for_celery_that_looks_like_a_slip_is_remarked(with_yaml, tmp_path):
    found = with_yaml('BROKER_ULR: amqp://x')
    assert found.remarks == (
        f'{tmp_path}/worker.yml:1: BROKER_ULR is passed on to Celery unchanged; did you mean BROKER_URL?',)


@pytest.mark.parametrize('name, given, kept', [
    ('CELERY_ACCEPT_CONTENT', '[json, yaml, pickle]', ('json', 'pickle')),
    ('CELERY_TASK_SERIALIZER', 'pickle', 'json'),
    ('CELERY_RESULT_SERIALIZER', 'yaml', 'json'),
])
def test_what_older_workers_could_read_or_write_is_remarked_and_left_out(with_yaml, name, given, kept):
    found = with_yaml(f'{name}: {given}')
    assert getattr(found, name) == kept
    assert len(found.remarks) == 1
    assert name in found.remarks[0]


# --- The YAML file


OTHER_BASE = 'is a number in a base other than 10 in YAML: write it in decimal digits, or in quotes if it is a string'


@pytest.mark.parametrize('text, problems_', [
    ('BRAZE: {}\nSITE_OVERRIDES: {a: {}}\n\nSITE_OVERRIDES: {b: {}}',
     ['4: SITE_OVERRIDES is set already in line 2: only one of the two would count']),
    ('SITE_OVERRIDES:\n  a: {}\n  a: {}',
     ['3: SITE_OVERRIDES[a] is set already in line 2: only one of the two would count']),
    ('SITE_OVERRIDES:\n  a:\n    JWT_ISSUER: x\n    BRAZE: {}\n    JWT_ISSUER: y',
     ['5: SITE_OVERRIDES[a].JWT_ISSUER is set already in line 3: only one of the two would count']),
    ('BROKER_URL: amqp://x\nbroker_url: amqp://y',
     ['2: BROKER_URL is set already in line 1: only one of the two would count']),
    ('SITE_OVERRIDES:\n  no: {}', ["2: SITE_OVERRIDES[no]: YAML reads no as true or false: put it in quotes: 'no'"]),
    ('SITE_OVERRIDES:\n  2024: {}', ["2: SITE_OVERRIDES[2024]: YAML reads 2024 as a number: put it in quotes: '2024'"]),
    ('SITE_OVERRIDES:\n  null: {}', ["2: SITE_OVERRIDES[null]: YAML reads null as nothing: put it in quotes: 'null'"]),
    ('on: 1', ["1: on: YAML reads on as true or false: put it in quotes: 'on'"]),
    ('LOGGING: {version: 1, handlers: {a: {class: logging.NullHandler, class: b}}}',
     ['1: LOGGING[handlers][a][class] is set already in line 1: only one of the two would count']),
    ('MAX_FULFILLMENT_RETRIES: 010', [f'1: MAX_FULFILLMENT_RETRIES 010 {OTHER_BASE}']),
    ('RETRY_DELAY_MAX: 1:30', [f'1: RETRY_DELAY_MAX 1:30 {OTHER_BASE}']),
])
def test_what_yaml_misreads_without_a_word_is_refused_with_its_lines(with_yaml, tmp_path, text, problems_):
    assert list(problems(with_yaml, text)) == [f'{tmp_path}/worker.yml:{problem}' for problem in problems_]


def test_all_of_what_yaml_misreads_is_told_at_once_with_what_else_is_wrong(with_yaml):
    assert len(problems(with_yaml, """
        SITE_OVERRIDES: {no: {}, a: {JWT_ISUER: x}}
        WORKER_CONCURRENCY: many
        WORKER_CONCURRENCY: 4
        XYZZY: 1
        SCHEDULE: {job: {intervall: 5}}
    """)) == 5


def test_an_anchor_may_be_used_again_and_laid_over(with_yaml):
    found = with_yaml("""
        SITE_OVERRIDES:
          a: &shop {JWT_ISSUER: x, ECOMMERCE_SERVICE_USERNAME: y}
          b: {<<: *shop, JWT_ISSUER: z}
          c: *shop
    """)
    assert (found.for_site('b').JWT_ISSUER, found.for_site('b').ECOMMERCE_SERVICE_USERNAME) == ('z', 'y')
    assert found.for_site('c').JWT_ISSUER == 'x'


@pytest.mark.parametrize('given, problem', [
    ("{'a': {}, 'a': {}}", "SITE_OVERRIDES has the key 'a' twice"),
    ('{"a": {}, "b": {"JWT_ISSUER": null, "JWT_ISSUER": "x"}}',
     'SITE_OVERRIDES cannot be used: b[JWT_ISSUER] is set already in line 1: only one of the two would count'),
    ('{False: {}}', 'SITE_OVERRIDES has the key False, which is not a string: put it in quotes'),
    ('{no: {}}', "SITE_OVERRIDES cannot be used: no: YAML reads no as true or false: put it in quotes: 'no'"),
])
def test_a_mapping_in_a_text_is_read_as_strictly(given, problem):
    assert the_problem(load, env(SITE_OVERRIDES=given)) == f'environment ECOMMERCE_WORKER_SITE_OVERRIDES: {problem}'


def test_two_variables_for_one_setting_are_a_problem():
    assert the_problem(load, env(BROKER_URL='amqp://x', broker_url='amqp://y')) == (
        'environment ECOMMERCE_WORKER_broker_url: BROKER_URL is set already, as ECOMMERCE_WORKER_BROKER_URL: '
        'only one of the two would count')


def test_production_cannot_do_without_the_yaml_file():
    assert the_problem(load, {'WORKER_CONFIGURATION_MODULE': PRODUCTION}).startswith('ECOMMERCE_WORKER_CFG is not set')


def test_devstack_can_if_told_to():
    devstack = {'WORKER_CONFIGURATION_MODULE': 'ecommerce_worker.configuration.devstack'}
    assert the_problem(load, devstack).startswith('ECOMMERCE_WORKER_CFG is not set')
    found = load({**devstack, 'IGNORE_YAML_OVERRIDES': '1', 'ECOMMERCE_WORKER_CFG': '/nowhere.yml'})
    assert found.ECOMMERCE_API_ROOT == 'http://localhost:18130/api/v2/'


def test_only_devstack_can_be_told_to():
    environ = {'IGNORE_YAML_OVERRIDES': '1', 'ECOMMERCE_WORKER_CFG': '/nowhere.yml'}
    assert problems(load, {**environ, 'WORKER_CONFIGURATION_MODULE': PRODUCTION})


def test_an_empty_yaml_file_changes_nothing(with_yaml):
    assert with_yaml('# nothing yet').rows() == load({}).rows()


@pytest.mark.parametrize('text, place', [
    ('A: [1', ':2:1: '),
    ('A: b: c', ':1:5: '),
    ('A:\n\t- b', ':2:1: '),
    ('A: !!python/object/apply:os.system [ls]', ':1:4: '),
    ('A: *missing', ':1:4: '),
    ('A: "\x07"', ': '),
    ('A: 2001-99-99', ': '),
    ('- A', ': this must be a mapping'),
    ('A', ': this must be a mapping'),
])
def test_yaml_that_is_none_is_named_with_the_position(with_yaml, tmp_path, text, place):
    assert the_problem(with_yaml, text + '\n').startswith(f'{tmp_path}/worker.yml{place}')


def test_a_yaml_error_quotes_nothing_of_the_file(with_yaml):
    assert HIDDEN not in the_problem(with_yaml, f'JWT_SECRET_KEY: "{HIDDEN}" x')


def test_a_yaml_file_that_is_no_text_is_named(tmp_path):
    (tmp_path / 'worker.yml').write_bytes(b'\xff\xfe\xfa')
    assert the_problem(load, {'ECOMMERCE_WORKER_CFG': f'{tmp_path}/worker.yml'}).startswith(f'{tmp_path}/worker.yml: ')


@pytest.mark.parametrize('path', ['/nowhere/worker.yml', '/'])
def test_a_yaml_file_that_cannot_be_read_is_named(path):
    assert the_problem(load, {'ECOMMERCE_WORKER_CFG': path}).startswith(f'{path}: ')


def test_a_yaml_file_that_contains_itself_is_no_endless_loop(with_yaml):
    assert the_problem(with_yaml, 'BRAZE: &braze {templates: *braze}').endswith('a part of it contains itself')


def test_shared_parts_of_yaml_keep_their_lines(with_yaml):
    found = with_yaml("""\
        BRAZE: &ours
          FROM_EMAIL: a@example.com
        SITE_OVERRIDES:
          edx:
            BRAZE:
              <<: *ours
              BRAZE_ENABLE: true
    """)
    assert found.for_site('edx').BRAZE['FROM_EMAIL'] == 'a@example.com'
    assert found.sources['SITE_OVERRIDES[edx].BRAZE[FROM_EMAIL]'].endswith('worker.yml:2')


# --- All together


def test_all_problems_are_told_at_once(with_yaml):
    found = problems(with_yaml, """
        BROKR_URL: x
        MAX_FULFILLMENT_RETRIES: many
        BRAZE: {BRAZE_ENABLE: perhaps, NOTHING: 1}
        SITE_OVERRIDES: {edx: {ECOMMERCE_API_ROOT: nowhere}}
        RETRY_DELAY_MIN: 1000
    """, WORKER_CONFIGURATION_MODULE='no.such.module', **env(JWT_SECRET_KEY='file:/nowhere', QUEUE_TYPE='odd'))
    named = ('no.such.module', 'BROKR_URL', 'MAX_FULFILLMENT_RETRIES', 'BRAZE[BRAZE_ENABLE]', 'BRAZE[NOTHING]',
             'SITE_OVERRIDES[edx].ECOMMERCE_API_ROOT', 'JWT_SECRET_KEY', 'QUEUE_TYPE')
    assert len(found) == len(named)
    for name, problem in zip(named, found, strict=True):
        assert name in problem


def test_the_shortest_delay_is_not_longer_than_the_longest(with_yaml, tmp_path):
    assert the_problem(with_yaml, 'RETRY_DELAY_MIN: 1000') == (
        f'{tmp_path}/worker.yml:1: RETRY_DELAY_MIN (1000) is more than RETRY_DELAY_MAX (900)')


def test_a_wrong_value_is_not_complained_of_twice():
    the_problem(load, env(RETRY_DELAY_MIN='1000', RETRY_DELAY_MAX='much'))


# --- Credentials

OURS = {'BACKEND_SERVICE_EDX_OAUTH2_KEY': 'our-key', 'BACKEND_SERVICE_EDX_OAUTH2_SECRET': 'our-secret'}
ROOTS = {'ECOMMERCE_API_ROOT': 'https://shop.example.com/api/v2/',
         'BACKEND_SERVICE_EDX_OAUTH2_PROVIDER_URL': 'https://lms.example.com/oauth2/',
         'EMAIL_VENDOR': 'smtp'}


@pytest.fixture
def in_production():
    """Load with what a production's environment says; gives the settings."""
    def loaded(**settings):
        return load({'WORKER_CONFIGURATION_MODULE': PRODUCTION, 'ECOMMERCE_WORKER_CFG': '/dev/null',
                     **env(**{**ROOTS, **settings})})

    return loaded


@pytest.mark.parametrize('given, way', [
    ({}, 'oauth2'),
    ({'JWT_SECRET_KEY': GOOD_KEY}, 'jwt'),
    (OURS, 'oauth2'),
    ({**OURS, 'JWT_SECRET_KEY': GOOD_KEY}, 'oauth2'),
    ({**OURS, 'JWT_SECRET_KEY': GOOD_KEY, 'AUTHENTICATION': 'jwt'}, 'jwt'),
    ({**OURS, 'BACKEND_SERVICE_EDX_OAUTH2_SECRET': '', 'JWT_SECRET_KEY': GOOD_KEY}, 'jwt'),
    ({'BACKEND_SERVICE_EDX_OAUTH2_KEY': 'our-key', 'JWT_SECRET_KEY': GOOD_KEY}, 'jwt'),
    ({'JWT_SECRET_KEY': GOOD_KEY, 'AUTHENTICATION': 'oauth2'}, 'oauth2'),
])
def test_the_authentication_follows_from_the_credentials_unless_it_is_named(given, way):
    assert load(env(**given)).authentication == way


@pytest.mark.parametrize('given', [OURS, {'JWT_SECRET_KEY': GOOD_KEY}])
def test_production_runs_with_secrets_of_its_own(in_production, given):
    assert in_production(**given).remarks == ()


@pytest.mark.parametrize('given, secret', [
    ({}, 'BACKEND_SERVICE_EDX_OAUTH2_SECRET is the publicly known'),
    ({'JWT_SECRET_KEY': 'insecure-secret-key'}, 'JWT_SECRET_KEY is the publicly known'),
    ({'BACKEND_SERVICE_EDX_OAUTH2_SECRET': ''}, 'BACKEND_SERVICE_EDX_OAUTH2_SECRET is not set'),
    ({'AUTHENTICATION': 'jwt'}, 'JWT_SECRET_KEY is not set'),
    ({'AUTHENTICATION': 'oauth2', 'JWT_SECRET_KEY': GOOD_KEY}, 'BACKEND_SERVICE_EDX_OAUTH2_SECRET is the public'),
])
def test_production_refuses_secrets_that_anybody_knows(in_production, given, secret):
    assert secret in the_problem(in_production, **given)


SOLD = {'PRODUCTS': '{"A": [{"course": "course-v1:edX+A+1", "mode": "verified"}]}'}


def test_who_sells_courses_needs_the_lms_s_authentication_beside_that_of_an_older_shop(in_production):
    wanted = 'BACKEND_SERVICE_EDX_OAUTH2_SECRET is not set, but PRODUCTS needs it'
    assert wanted in the_problem(in_production, JWT_SECRET_KEY=GOOD_KEY, **SOLD)
    lms = {'LMS_ROOT_URL': 'https://lms.example.com/'}
    assert in_production(**OURS, JWT_SECRET_KEY=GOOD_KEY, AUTHENTICATION='jwt', **SOLD, **lms).remarks == ()


def test_who_sells_courses_and_names_no_lms_is_told_so(in_production):
    remark, = in_production(**OURS, **SOLD).remarks
    assert 'LMS_ROOT_URL is http://localhost:18000/, on this machine itself' in remark
    assert in_production(**OURS).remarks == ()


def test_a_refusal_tells_both_ways_out(in_production):
    problem = the_problem(in_production)
    assert 'BACKEND_SERVICE_EDX_OAUTH2_KEY' in problem
    assert 'JWT_SECRET_KEY' in problem
    assert 'production' in problem


def test_production_refuses_them_at_a_site_too(in_production):
    sites = "{'edx': {'AUTHENTICATION': 'jwt', 'JWT_SECRET_KEY': 'insecure-secret-key'}, 'mit': {'JWT_ISSUER': 'mit'}}"
    problem = the_problem(in_production, **OURS, SITE_OVERRIDES=sites)
    assert 'site edx: JWT_SECRET_KEY is the publicly known' in problem


def test_development_runs_with_what_is_shipped():
    assert load({}).ALLOW_INSECURE_SECRETS is True


def test_credentials_asked_for_by_name_must_be_there_even_in_development():
    assert 'JWT_SECRET_KEY is not set' in the_problem(load, env(AUTHENTICATION='jwt'))


@pytest.mark.parametrize('given, said', [
    ({'ECOMMERCE_API_ROOT': 'http://localhost:8002/api/v2/'}, 'ECOMMERCE_API_ROOT is http://localhost:8002/api/v2/'),
    ({'ECOMMERCE_API_ROOT': 'http://[::1]:8002/api/v2/'}, 'ECOMMERCE_API_ROOT is http://[::1]:8002'),
    ({'JWT_SECRET_KEY': 'short', 'AUTHENTICATION': 'jwt'}, 'JWT_SECRET_KEY is shorter than 32 bytes'),
    ({'SITE_OVERRIDES': "{'edx': {'JWT_SECRET_KEY': 'whatever'}}"}, 'site edx: JWT_SECRET_KEY is not used'),
])
def test_what_may_be_a_mistake_is_remarked(in_production, given, said):
    remarks = in_production(**{**OURS, **given}).remarks
    assert len(remarks) == 1
    assert said in remarks[0]


# --- Mail

@pytest.mark.parametrize('given, vendor', [
    ({}, 'outbox'),
    ({'SAILTHRU': "{'SAILTHRU_ENABLE': true}"}, 'sailthru'),
    ({'SAILTHRU': "{'SAILTHRU_ENABLE': true}", 'BRAZE': "{'BRAZE_ENABLE': true}"}, 'braze'),
    ({'SAILTHRU': "{'SAILTHRU_ENABLE': true}", 'EMAIL_VENDOR': 'smtp'}, 'smtp'),
    ({'EMAIL_WITHOUT_VENDOR': 'park'}, ''),
])
def test_mail_is_sent_by_the_vendor_that_is_named_or_enabled(given, vendor):
    assert load(env(**given)).email_vendor == vendor


def test_production_refuses_to_start_where_nobody_would_send_the_mail(in_production):
    assert 'EMAIL_VENDOR is not set' in the_problem(in_production, **OURS, EMAIL_VENDOR='')


def test_production_may_do_without_mail_if_it_says_so(in_production):
    remarks = in_production(**OURS, EMAIL_VENDOR='', EMAIL_WITHOUT_VENDOR='park').remarks
    assert len(remarks) == 1
    assert 'mail is parked' in remarks[0]


def test_a_site_may_have_a_vendor_of_its_own():
    sites = "{'edx': {'EMAIL_VENDOR': 'smtp', 'EMAIL_OPTIONS': {'host': 'mail.example.com'}}}"
    settings = load(env(SITE_OVERRIDES=sites, EMAIL_OPTIONS="{'port': 25}"))
    assert settings.email_vendor == 'outbox'
    assert settings.for_site('edx').email_vendor == 'smtp'
    assert dict(settings.for_site('edx').EMAIL_OPTIONS) == {'port': 25, 'host': 'mail.example.com'}


def test_the_options_of_a_vendor_may_hold_secrets(tmp_path):
    (tmp_path / 'password').write_text('hidden\n')
    settings = load(env(EMAIL_OPTIONS=f"{{'password': 'file:{tmp_path}/password', 'username': 'shop'}}"))
    assert dict(settings.EMAIL_OPTIONS) == {'password': 'hidden', 'username': 'shop'}
    assert 'hidden' not in str(settings.rows())


# --- Sites

SITES = """
    MAX_FULFILLMENT_RETRIES: 5
    BRAZE: {BRAZE_ENABLE: true, FROM_EMAIL: all@example.com}
    SITE_OVERRIDES:
      edx:
        MAX_FULFILLMENT_RETRIES: 0
        JWT_ISSUER: ''
        BRAZE: {BRAZE_ENABLE: false}
      mit:
        JWT_SECRET_KEY: the-secret-key-of-mit-of-more-than-32-bytes
      empty:
"""


def test_a_site_has_the_last_word_falsy_ones_too(with_yaml):
    edx = with_yaml(SITES).for_site('edx')
    assert edx.MAX_FULFILLMENT_RETRIES == 0
    assert edx.JWT_ISSUER == ''
    assert edx.BRAZE['BRAZE_ENABLE'] is False


def test_a_site_keeps_what_it_does_not_mention(with_yaml):
    edx = with_yaml(SITES).for_site('edx')
    assert edx.BRAZE['FROM_EMAIL'] == 'all@example.com'
    assert edx.WORKER_CONCURRENCY == 32


def test_a_site_may_prove_itself_another_way(with_yaml):
    found = with_yaml(SITES)
    assert (found.authentication, found.for_site('mit').authentication) == ('oauth2', 'jwt')


def test_sites_are_known_by_their_codes_and_built_once(with_yaml):
    found = with_yaml(SITES)
    assert found.site_codes == ('edx', 'mit', 'empty')
    assert found.for_site('edx') is found.for_site('edx')
    assert found.for_site('edx').sources['MAX_FULFILLMENT_RETRIES'].endswith('worker.yml:6')


@pytest.mark.parametrize('code', [None, ''])
def test_no_site_means_the_defaults_without_a_word(with_yaml, caplog, code):
    caplog.set_level(logging.INFO)
    found = with_yaml(SITES)
    assert found.for_site(code) is found
    assert not caplog.records


def test_an_unknown_site_means_the_defaults_and_one_line(with_yaml, caplog):
    caplog.set_level(logging.INFO)
    found = with_yaml(SITES)
    assert found.for_site('elsewhere') is found
    assert found.for_site('elsewhere') is found
    assert [(record.levelname, record.fields) for record in caplog.records] == [('INFO', {'site': 'elsewhere'})]


def test_unknown_sites_do_not_fill_the_memory(caplog):
    caplog.set_level(logging.INFO)
    found = load({})
    for number in range(2000):
        found.for_site(f'site-{number}')
    assert len(caplog.records) == 1000


def test_sites_of_several_layers_are_merged(with_yaml, with_module):
    module = with_module("SITE_OVERRIDES = {'edx': {'JWT_ISSUER': 'module', 'MAX_FULFILLMENT_RETRIES': 1}}")
    edx = with_yaml('SITE_OVERRIDES: {edx: {JWT_ISSUER: yaml}}', **module).for_site('edx')
    assert (edx.JWT_ISSUER, edx.MAX_FULFILLMENT_RETRIES) == ('yaml', 1)


def test_no_sites_at_all_may_be_none_as_ever(with_module):
    assert load(with_module('SITE_OVERRIDES = None')).site_codes == ()


# --- Secrets


@pytest.mark.parametrize('url, shown', [
    ('amqp://user:hunter2@host:5672//', 'amqp://user:***@host:5672//'),
    ('amqp://host:5672//', 'amqp://host:5672//'),
    ('amqp://user@host', 'amqp://user@host'),
    ('amqp://', 'amqp://'),
    ('redis://:hunter2@host:6379/0', 'redis://:***@host:6379/0'),
    ('amqp://user:hun/te@r2@host', 'amqp://user:***@host'),
    ('amqp://user:hunter2;hunter2@host', 'amqp://user:***@host'),
    ('amqp://a:hunter2@one;amqp://two:5672;amqp://b:hunter2@three', 'amqp://a:***@one;amqp://two:5672;amqp://b:***@three'),
    ('redis://host/0?password=hunter2&db=1', 'redis://host/0?password=***&db=1'),
    ('redis://host/0?db=1&sentinel_password=hunter2', 'redis://host/0?db=1&sentinel_password=***'),
    (['amqp://a:hunter2@one', 'amqp://b:hunter2@two'], "['amqp://a:***@one', 'amqp://b:***@two']"),
])
def test_of_a_broker_url_all_but_the_password_is_shown(url, shown):
    assert mask('BROKER_URL', url) == shown


@pytest.mark.parametrize('name, value, shown', [
    ('JWT_SECRET_KEY', HIDDEN, '***'),
    ('JWT_SECRET_KEY', None, 'None'),
    ('JWT_SECRET_KEY', '', "''"),
    ('JWT_ISSUER', 'shop', 'shop'),
    ('BACKEND_SERVICE_EDX_OAUTH2_KEY', 'our-key', 'our-key'),
    ('BROKER_PASSWORD', HIDDEN, '***'),
    ('CELERY_DEFAULT_ROUTING_KEY', 'ecommerce', 'ecommerce'),
    ('BRAZE', {'BRAZE_REST_API_KEY': HIDDEN, 'FROM_EMAIL': 'x'}, "{'BRAZE_REST_API_KEY': '***', 'FROM_EMAIL': 'x'}"),
    ('BROKER_TRANSPORT_OPTIONS', {'sentinel_kwargs': {'password': HIDDEN}}, "{'sentinel_kwargs': {'password': '***'}}"),
])
def test_secrets_are_masked(name, value, shown):
    assert mask(name, value) == shown


def test_every_secret_of_a_group_is_masked():
    kinds = {name: SETTINGS[group].of(name) for group in ('BRAZE', 'SAILTHRU') for name in SETTINGS[group].names}
    secrets = [name for name, kind in kinds.items() if kind and kind.secrecy is Secrecy.WHOLE]
    assert len(secrets) == 4
    assert {mask(name, HIDDEN) for name in secrets} == {'***'}


def test_rows_and_repr_show_no_secret(with_yaml):
    found = with_yaml(f"""
        BROKER_URL: amqp://worker:{HIDDEN}@rabbit
        BACKEND_SERVICE_EDX_OAUTH2_SECRET: {HIDDEN}
        BROKER_TRANSPORT_OPTIONS: {{sentinel_kwargs: {{password: {HIDDEN}}}}}
        BRAZE: {{BRAZE_REST_API_KEY: {HIDDEN}, BRAZE_WEBAPP_API_KEY: {HIDDEN}}}
        SAILTHRU: {{SAILTHRU_KEY: {HIDDEN}, SAILTHRU_SECRET: {HIDDEN}}}
        CELERY_RESULT_BACKEND: redis://:{HIDDEN}@redis
        BROKER_PASSWORD: {HIDDEN}
        broker_read_url: amqp://worker:{HIDDEN}@rabbit
        SITE_OVERRIDES: {{edx: {{JWT_SECRET_KEY: {HIDDEN}, BRAZE: {{BRAZE_REST_API_KEY: {HIDDEN}}}}}}}
    """)
    assert HIDDEN not in str(found.rows())
    assert HIDDEN not in f'{found!r} {found} {found.remarks} {found.sources}'


@pytest.mark.parametrize('text', [
    f'BROKER_URL: amqp:/user:{HIDDEN}@host',
    f'BROKER_URL: amqp://user:{HIDDEN}/{HIDDEN}@host',
    f'BROKER_URL: {{password: {HIDDEN}}}',
    f'JWT_SECRET_KEY: [{HIDDEN}]',
    f'BRAZE: {{BRAZE_REST_API_KEY: [{HIDDEN}]}}',
    f'BRAZE: "BRAZE_REST_API_KEY={HIDDEN}"',
    f'SITE_OVERRIDES: "edx, JWT_SECRET_KEY, {HIDDEN}"',
    f'BROKER_TRANSPORT_OPTIONS: [{HIDDEN}]',
    f'ECOMMERCE_API_ROOT: ftp://user:{HIDDEN}@shop/',
    f'JWT_SECRT_KEY: {HIDDEN}',
])
def test_a_problem_shows_no_secret(with_yaml, text):
    assert HIDDEN not in the_problem(with_yaml, text)


def test_rows_follow_the_reference_page_and_end_with_what_is_handed_on(with_yaml):
    rows = with_yaml(SITES + '    CELERY_TIMEZONE: UTC\n').rows()
    names = [name for name, _, _ in rows]
    assert names[0] == 'BROKER_URL'
    assert names[-1] == 'CELERY_TIMEZONE'
    assert names.index('SITE_OVERRIDES[edx].JWT_ISSUER') < names.index('BRAZE[FROM_EMAIL]')
    by_name = {name: (value, source) for name, value, source in rows}
    value, source = by_name['SITE_OVERRIDES[edx].BRAZE[BRAZE_ENABLE]']
    assert value == 'False'
    assert source.endswith('worker.yml:8')
    assert by_name['REDELIVERY_DELAY'] == ('30', 'default')
    assert by_name['SITE_OVERRIDES[mit].JWT_SECRET_KEY'][0] == '***'


# --- Certificates


@pytest.mark.parametrize('name', ['REQUESTS_CA_BUNDLE', 'CURL_CA_BUNDLE'])
def test_certificates_of_the_environment_that_cannot_be_used_are_problems(tmp_path, name):
    assert certificate_problems({name: f'{tmp_path}/ca.pem'}) == [
        f'environment {name}: {tmp_path}/ca.pem cannot be read: No such file or directory']
    (tmp_path / 'ca.pem').write_text('nonsense')
    assert certificate_problems({name: f'{tmp_path}/ca.pem'}) == [
        f'environment {name}: {tmp_path}/ca.pem holds no certificates in PEM format']
    assert certificate_problems({name: str(tmp_path)}) == []
    assert certificate_problems({name: certifi.where()}) == []


@pytest.mark.parametrize('spoil, works', [
    (lambda pem: pem.replace(b'\n', b'\r\n'), True), (lambda pem: b'# of ours\n' + pem + b'\n\n', True),
    (lambda pem: pem[:-200], False), (lambda pem: pem + pem[:500], False),
    (lambda pem: pem[:300] + b'*' + pem[301:], False), (lambda pem: pem.replace(b'BEGIN CERT', b'BEGIN  CERT'), False),
    (lambda pem: pem.replace(b' CERTIFICATE', b' X509 CERTIFICATE'), True), (lambda pem: b'', False),
], ids=range(8))
def test_certificates_are_problems_exactly_when_openssl_cannot_use_them(tmp_path, spoil, works):
    one = Path(certifi.where()).read_bytes().partition(b'-----END CERTIFICATE-----')[0].partition(b'-----BEGIN')
    pem = b''.join(one[1:]) + b'-----END CERTIFICATE-----\n'
    (tmp_path / 'ca.pem').write_bytes(pem + spoil(pem) if spoil(pem) else b'')
    try:
        ssl.create_default_context(cafile=tmp_path / 'ca.pem')
    except ssl.SSLError:
        assert not works
    else:
        assert works
    assert (certificate_problems({'REQUESTS_CA_BUNDLE': f'{tmp_path}/ca.pem'}) == []) is works


def test_of_a_usual_bundle_no_trust_store_is_built_at_each_start():
    assert is_well_formed(Path(certifi.where()).read_bytes())


def test_only_the_certificates_that_would_be_used_are_looked_at():
    assert certificate_problems({}) == []
    assert certificate_problems({'REQUESTS_CA_BUNDLE': certifi.where(), 'CURL_CA_BUNDLE': '/nowhere'}) == []


def test_certificates_that_only_mail_would_use_are_remarked():
    assert load({'SSL_CERT_FILE': '/nowhere'}).remarks == (
        'environment SSL_CERT_FILE: /nowhere cannot be read: No such file or directory',)


def test_the_queues_of_a_configuration_are_those_consumed_and_those_published_to():
    found = load(env(QUEUES='one,two', DEFAULT_PRIORITY_QUEUE='three', CELERY_DEFAULT_QUEUE='four',
                     SCHEDULE="{'job': {'queue': 'five', 'task': 'x', 'interval': 5}}"))
    assert found.known_queues == {'one', 'two', 'three', 'four', 'five'}
