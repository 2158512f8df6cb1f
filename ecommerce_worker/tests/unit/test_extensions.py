"""What an extension brings: kinds of intakes, tasks, services; and what is wrong with it."""

import itertools
import json
import time

import pytest

from ecommerce_worker import runtime
from ecommerce_worker.errors import Misconfigured
from ecommerce_worker.intake import intakes
from ecommerce_worker.intake.application import Application
from ecommerce_worker.intake.counts import Counts
from ecommerce_worker.settings import load
from ecommerce_worker.testing.intake import SECRET, posted
from ecommerce_worker.testing.peer import reply
from ecommerce_worker.tests.support.extensions import ACME, install, packages

NUMBERS = itertools.count(1)
ORDER = {'number': 'A-1', 'state': 'paid', 'email': 'ann@example.com', 'card': 'of no interest'}


@pytest.fixture
def current(tmp_path, app):
    """Put an extension in force; gives the runtime, whose settings have an intake of its kind."""
    (tmp_path / 'site').mkdir()
    with packages(tmp_path / 'site') as place:
        def made(text=ACME, *, url='https://acme.example.com/', intake=None, **given):
            module = f'acme_{next(NUMBERS)}'
            install(place, module, text)
            found = load({f'ECOMMERCE_WORKER_{name}': json.dumps(value) for name, value in {
                'EXTENSIONS': ['acme'], 'ACME': {'url': url, 'token': 'hunter2'},
                'INTAKES': {'acme': {'kind': 'acme', 'secrets': [SECRET], **(intake or {})}}, **given}.items()}
                | {'WORKER_CONFIGURATION_MODULE': 'ecommerce_worker.configuration.test'})
            return runtime.Runtime(found)

        yield made


class Publisher:
    def __init__(self):
        self.published = []

    def publish(self, publication, fact=None):
        self.published.append((publication, fact))


def delivered(current, app, content):
    """What a delivery is answered, and what was published of it."""
    found, publisher = intakes.read(current.settings, app.tasks), Publisher()
    application = Application(found, {'acme': publisher}, Counts(), lambda: True)
    body, it = json.dumps(content).encode(), found['acme']
    headers = it.source.signed(body, it.secrets.keys[0], '', time.time())
    return posted(application, 'acme', body, headers), publisher.published


def test_a_delivery_leads_to_the_task_that_its_function_says(current, app):
    answer, published = delivered(current(), app, ORDER)
    assert (answer.status, answer.content['state']) == (200, 'accepted')
    (publication, fact), = published
    assert publication.queue == 'acme'
    assert publication.raw.headers['task'].endswith('.grant')
    assert json.loads(publication.raw.body)[1] == {'order_number': 'A-1', 'email': 'ann@example.com'}
    assert (fact.outcome, fact.key, fact.queue) == ('accepted', 'A-1', 'acme')


def test_what_its_function_has_no_task_for_is_ignored_with_its_reason(current, app):
    answer, published = delivered(current(), app, {**ORDER, 'state': 'pending'})
    assert (answer.status, answer.content) == (200, {'state': 'ignored', 'reason': 'not paid'})
    assert not published


@pytest.mark.parametrize('returned, reason', [
    ("Then('acme.gone', {})", 'the task acme.gone is not registered'),
    ("Then(grant.name, {'order_number': 'A-1'})",
     "the task does not accept these arguments: missing a required argument: 'email'"),
    ("Then(grant.name, {'order_number': 'A-1', 'email': {1}})", 'its arguments cannot be written as JSON (TypeError)'),
    ("Then(grant.name, {'order_number': [], 'email': ''})", 'order_number is not a string'),
    ('None', 'a programming error in the intake: TypeError at functions.py'),
])
def test_what_no_task_takes_is_parked_and_answered(current, app, returned, reason):
    text = ACME.replace("Then(grant.name, {'order_number': delivery.text('number'), 'email': delivery.text('email')})",
                        returned)
    assert text != ACME
    answer, published = delivered(current(text), app, ORDER)
    assert (answer.status, answer.content['state']) == (200, 'parked')
    assert reason in str(published[0][0].raw.headers)


def test_the_site_of_the_intake_goes_with_it(current, app):
    made = current(intake={'site': 'b'}, SITE_OVERRIDES={'b': {'ACME': {'plan': 'gold'}}})
    _, published = delivered(made, app, ORDER)
    assert json.loads(published[0][0].raw.body)[1]['site_code'] == 'b'


def test_its_service_is_that_of_the_site(current, peer):
    ours, theirs = peer(reply(204, b'')), peer(reply(204, b''))
    sites = {'b': {'ACME': {'url': theirs.url, 'token': 'other'}}}
    with runtime.use(current(url=ours.url, SITE_OVERRIDES=sites)) as now:
        group, = now.settings.extensions['acme'].groups
        for code in (None, 'b'):
            now.site(code).service(group).request('PUT', 'grants/A-1', json={'email': 'a'})
            assert now.site(code).service(group) is now.site(code).service(group)
            now.site(code).service(group).close()
    assert [it.headers['authorization'] for it in (*ours.requests, *theirs.requests)] == [
        'Bearer hunter2', 'Bearer other']
    assert ours.requests[0].target == '/grants/A-1'


@pytest.mark.parametrize('options, problem', [
    ({'events': {'x': 'fulfill_order'}},
     'INTAKES[acme][events] has no effect: this kind chooses the task and its arguments itself'),
    ({'arguments': {'x': 'y'}},
     'INTAKES[acme][arguments] has no effect: this kind chooses the task and its arguments itself'),
    ({'kind': 'acmee'}, 'INTAKES[acme][kind] names acmee, which does not exist; did you mean acme?'),
])
def test_what_is_wrong_with_an_intake_of_its_kind_is_told(current, app, options, problem):
    with pytest.raises(Misconfigured) as caught:
        intakes.read(current(intake=options).settings, app.tasks)
    assert caught.value.problems == (problem,)


@pytest.mark.parametrize('kind, problem', [
    ('shopify', 'extension acme: its kind of intake shopify is already built in'),
    ('others', 'extension acme: its kind of intake others must be named acme or begin with acme_'),
])
def test_its_kinds_of_intakes_have_its_name(current, app, kind, problem):
    with pytest.raises(Misconfigured) as caught:
        intakes.read(current(ACME.replace("@intake('acme'", f"@intake('{kind}'"), INTAKES={}).settings, app.tasks)
    assert caught.value.problems == (problem,)
