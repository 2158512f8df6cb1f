"""The worker in memory does what a real one does, and its contract finds what is wrong."""

import itertools

import pytest

from ecommerce_worker.errors import Misconfigured
from ecommerce_worker.testing.intake import OTHER_SECRET
from ecommerce_worker.testing.worker import A_SECRET, Worker, contract
from ecommerce_worker.tests.support.extensions import ACME, install, packages

PAID = {'number': 'A-1', 'state': 'paid', 'email': 'ann@example.com'}
LOGGING = "import logging\n        logging.warning(delivery.body)\n        if delivery.text('state')"
NUMBERS = itertools.count(1)


@pytest.fixture
def acme(tmp_path):
    """Install an extension: its usual text, or with something in it replaced."""
    (tmp_path / 'site').mkdir()
    with packages(tmp_path / 'site') as place:
        def installed(before='', after=''):
            assert before in ACME
            install(place, f'acme_in_memory_{next(NUMBERS)}', ACME.replace(before, after) if before else ACME)

        yield installed


def test_a_delivery_comes_to_the_service(acme):
    acme()
    with Worker('acme', settings={'plan': 'gold'}) as worker:
        grant = worker.expects('PUT', '/grants/A-1', 204)
        answer = worker.post('acme', PAID)
        assert (answer.status, answer.content['state']) == (200, 'accepted')
        assert not grant.asked
        assert worker.outcome('A-1') == 'done'
        assert worker.outcome('A-2') == ''
    assert grant.bodies == [{'email': 'ann@example.com'}]
    assert grant.asked[0].headers['authorization'] == f'Bearer {A_SECRET}'


def test_an_outage_is_waited_out(acme):
    acme()
    with Worker('acme') as worker:
        grant = worker.expects('PUT', '/grants/A-1', 503, 204)
        worker.post('acme', PAID)
        assert worker.outcome('A-1') == 'retrying'
        assert worker.outcome('A-1') == 'retrying'
        worker.wait()
        assert worker.outcome('A-1') == 'done'
    assert len(grant.asked) == 2


def test_a_refusal_is_parked(acme):
    acme()
    with Worker('acme', MAX_FULFILLMENT_RETRIES=0) as worker:
        worker.expects('PUT', '/grants/A-1', 404)
        worker.post('acme', PAID)
        assert worker.outcome('A-1') == 'parked'
        assert len(worker.parked) == 1
        assert worker.reports[-1].status == 404


def test_what_follows_from_a_task_is_run_too(acme):
    acme("json={'email': email})\n", "json={'email': email})\n        return [Then(report.name, {'number': 'R-1'})]\n\n"
                                     "    @task(key='number')\n    def report(self, number):\n        pass\n")
    with Worker('acme') as worker:
        worker.expects('PUT', '/grants/A-1')
        worker.post('acme', PAID)
        assert worker.outcome('R-1') == 'done'


def test_a_broker_that_does_not_confirm(acme):
    acme()
    with Worker('acme') as worker:
        worker.trouble = 'it cannot be reached'
        assert worker.post('acme', PAID).status == 503
        worker.trouble = ''
        assert worker.post('acme', PAID, secret=OTHER_SECRET).status == 401
        assert worker.post('acme', b'{').content['state'] == 'parked'
        assert worker.outcome('A-1') == ''
        assert worker.parked[0].raw.body == b'{'


def test_what_was_expected_and_did_not_come_fails_the_test(acme):
    acme()
    with pytest.raises(AssertionError, match='the service was not asked PUT /grants/A-1'), Worker('acme') as worker:
        worker.expects('PUT', 'grants/A-1')


def test_what_came_and_was_not_expected_fails_the_test(acme):
    acme()
    worker = Worker('acme')
    worker.post('acme', PAID)
    worker.outcome('A-1')
    with pytest.raises(AssertionError, match='was not to be asked PUT /grants/A-1'):
        worker.__exit__(None, None, None)


def test_what_is_wrong_with_its_settings_is_told():
    with pytest.raises(Misconfigured, match='EXTENSIONS names acme, which is not installed'):
        Worker('acme')


@pytest.mark.parametrize('before, after, test', [
    # A member that is not there is a programming error; a task that takes something else; everything is taken.
    ("delivery.text('number')", "delivery.object['number']", 'test_with_strange_values_in_any_place_it_is_answered'),
    ("'email': delivery", "'mail': delivery", 'test_a_genuine_delivery_is_a_call_with_nothing_but_the_arguments'),
    ("delivery.text('state') != 'paid'", 'False', 'test_what_is_of_no_interest_is_200_with_the_reason'),
    ("if delivery.text('state')", LOGGING, 'test_no_log_and_no_answer_shows_what_is_in_it'),
])
def test_the_contract_finds_what_is_wrong(acme, caplog, before, after, test):
    acme(before, after)
    made = contract('acme', good=PAID, ignored=[{**PAID, 'state': 'pending'}])
    assert made.private == ('ann@example.com',)
    given = {'intake': made().made(), 'caplog': caplog}
    body = getattr(made(), test)
    wanted = body.__code__.co_varnames[1:body.__code__.co_argcount]
    with pytest.raises(AssertionError):
        body(**{name: given[name] for name in wanted})

