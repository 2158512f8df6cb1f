"""Extensions are found, refused with a clear line, and have settings like those of the worker."""

import json

import pytest
import yaml

from ecommerce_worker import runtime
from ecommerce_worker.errors import Misconfigured
from ecommerce_worker.settings import load
from ecommerce_worker.tests.support.extensions import SETTINGS, install, packages

MADE_FOR, HERE = 'which acme_licences 1.0 made for version', 'of the interface, but this worker has 1: a newer'
SILENT = ('whose module acme_licences (acme_licences 1.0) does not declare the version of the interface that it was '
          'made for: API = 1')
GIVEN = {'url': 'https://acme.example.com/', 'token': 'hunter2'}


@pytest.fixture
def place(tmp_path):
    (tmp_path / 'site').mkdir()
    with packages(tmp_path / 'site') as made:
        yield made


@pytest.fixture
def loaded(tmp_path):
    def load_with(environ=None, **given):
        path = tmp_path / 'worker.yml'
        path.write_text(yaml.safe_dump({'EXTENSIONS': ['acme'], **given}))
        return load({'ECOMMERCE_WORKER_CFG': str(path), **(environ or {})})

    return load_with


def problems(*args, **kwargs):
    with pytest.raises(Misconfigured) as caught:
        args[0](*args[1:], **kwargs)
    return caught.value.problems


def test_its_settings_are_read_by_site_and_shown_without_secrets(place, loaded):
    install(place, 'acme_licences', SETTINGS)
    found = loaded(ACME={**GIVEN, 'pin': 'hunter2'}, SITE_OVERRIDES={'b': {'ACME': {'plan': 'gold', 'pin': 'hunter2'}}})
    assert found.ACME == {**GIVEN, 'plan': 'basic', 'pin': 'hunter2'}
    assert found.for_site('b').ACME == {**GIVEN, 'plan': 'gold', 'pin': 'hunter2'}
    rows = {name: (value, source) for name, value, source in found.rows()}
    assert rows['ACME[url]'][0] == GIVEN['url']
    assert rows['ACME[plan]'] == ('basic', 'default')
    assert {rows[name][0] for name in ('ACME[token]', 'ACME[pin]', 'SITE_OVERRIDES[b].ACME[pin]')} == {'***'}
    assert 'hunter2' not in str(found.rows())


def test_they_come_from_everywhere(place, loaded, tmp_path):
    install(place, 'acme_licences', SETTINGS)
    (tmp_path / 'token').write_text('from a file\n')
    found = loaded({'ECOMMERCE_WORKER_ACME': json.dumps({'url': GIVEN['url']}), 'ECOMMERCE_WORKER_EXTENSIONS': 'acme'},
                   EXTENSIONS=[], ACME={'token': f'file:{tmp_path}/token'})
    assert (found.ACME['url'], found.ACME['token']) == (GIVEN['url'], 'from a file')


def test_one_that_is_not_switched_on_does_nothing(place, loaded):
    install(place, 'acme_licences', 'raise SystemExit')
    assert loaded(EXTENSIONS=[]).extensions == {}
    assert problems(loaded, EXTENSIONS=[], ACME=GIVEN)[0].endswith(
        'there is no setting ACME: it looks like one of the extension acme, which is not in EXTENSIONS')


def test_its_queue_is_consumed_unless_it_is_said_which_ones_are(place, loaded):
    install(place, 'acme_licences', SETTINGS)
    assert loaded(ACME=GIVEN).QUEUES[-1] == 'acme'
    found = loaded(ACME=GIVEN, QUEUES=['ecommerce.fulfillment'])
    assert found.QUEUES == ('ecommerce.fulfillment',)
    assert 'acme' in found.known_queues
    assert any('does not consume acme, to which extensions publish' in remark for remark in found.remarks)


@pytest.mark.parametrize('given, problem', [
    ({'url': 'x', 'token': 'hunter2'}, "ACME[url] must be a URL such as https://shop.example.com/api/v2/; this is 'x'"),
    ({'url': GIVEN['url']}, 'ACME[token] is not set'),
    ({**GIVEN, 'tokn': 'hunter2'}, 'there is no setting ACME[tokn]; did you mean token?'),
])
def test_its_settings_are_checked_as_those_of_the_worker_are(place, loaded, given, problem):
    install(place, 'acme_licences', SETTINGS)
    found, = problems(loaded, ACME=given)
    assert found.endswith(problem)
    assert 'hunter2' not in found


@pytest.mark.parametrize('text, options, problem', [
    ('API = 2', {}, f'{MADE_FOR} 2 {HERE} worker is needed'),
    ('from ecommerce_worker.extension import of_the_future\nAPI: int = 2', {},
     f'{MADE_FOR} 2 {HERE} worker is needed'),
    ('API = 0', {}, f'{MADE_FOR} 0 {HERE} release of it is needed'),
    ('', {}, SILENT),
    ('API = 1\n1 / 0', {}, 'which cannot be imported (acme_licences 1.0): ZeroDivisionError: division by zero'),
    ('API = 1\nimport nowhere', {},
     "which cannot be imported (acme_licences 1.0): ModuleNotFoundError: No module named 'nowhere'"),
    ('API = ', {}, 'which cannot be imported (acme_licences 1.0): SyntaxError: invalid syntax (<unknown>, line 1)'),
    ('API = 1', {'target': 'acme_licences:Acme'},
     'for which acme_licences 1.0 names acme_licences:Acme: it must be a module'),
    ('API = 1', {'target': 'acme_elsewhere'},
     "which cannot be imported (acme_licences 1.0): ModuleNotFoundError: No module named 'acme_elsewhere'"),
])
def test_one_that_cannot_be_had_is_told_in_a_line(place, loaded, text, options, problem):
    install(place, 'acme_licences', text, **options)
    # What is said for it is no mistake then.
    assert problems(loaded, ACME=GIVEN) == (f'EXTENSIONS names acme, {problem}',)


def test_a_name_that_there_is_not_is_told_with_the_closest(place, loaded):
    install(place, 'acme_licences', SETTINGS)
    assert problems(loaded, EXTENSIONS=['acne']) == (
        'EXTENSIONS names acne, which is not installed; did you mean acme?',)


def test_a_name_that_is_there_twice_is_told(place, loaded):
    install(place, 'acme_licences', SETTINGS)
    install(place, 'acme_of_others', SETTINGS)
    assert problems(loaded, ACME=GIVEN) == (
        'EXTENSIONS names acme, which more than one package provides: acme_licences 1.0 and acme_of_others 1.0',)


@pytest.mark.parametrize('name, problem', [
    ('BROKER_URL', 'extension acme: its setting BROKER_URL is one of the worker'),
    ('OTHERS', 'extension acme: its setting OTHERS must be called ACME, or begin with that and _'),
])
def test_its_settings_have_its_name(place, loaded, name, problem):
    install(place, 'acme_licences',
            f'from ecommerce_worker.extension import TEXT, Group\nAPI = 1\nG = Group({name!r}, {{}}, {{}})')
    assert problem in problems(loaded)


def test_one_that_asks_for_settings_too_early_is_told_so(place, monkeypatch):
    install(place, 'acme_licences', 'from ecommerce_worker.extension import site\nAPI = 1\nsite().settings')
    monkeypatch.setenv('ECOMMERCE_WORKER_EXTENSIONS', 'acme')
    monkeypatch.setattr(runtime, '_current', None)
    assert 'an extension reads settings while being imported' in problems(runtime.current)[0]
