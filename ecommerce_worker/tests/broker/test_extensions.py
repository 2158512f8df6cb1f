"""An extension in real processes: nothing of ours is changed for it."""

import json

import pytest

from ecommerce_worker.broker.topology import PARKED
from ecommerce_worker.testing.intake import SECRET
from ecommerce_worker.testing.peer import Peer, reply
from ecommerce_worker.testing.rabbitmq import free_port
from ecommerce_worker.tests.support.extensions import ACME, install
from ecommerce_worker.tests.support.harness import eventually
from ecommerce_worker.tests.support.intake import Intake, signed

ORDER = json.dumps({'number': 'A-1', 'state': 'paid', 'email': 'ann@example.com'}).encode()


@pytest.fixture
def acme():
    """The service that it asks."""
    with_answers = Peer([reply(204, b'')])
    yield with_answers
    with_answers.close()


@pytest.fixture
def switched_on(environment, acme, tmp_path):
    """Install it, and put it into the environment of all processes."""
    place = tmp_path / 'site'
    place.mkdir()
    install(place, 'acme_licences', ACME)
    environment |= {'PYTHONPATH': str(place), **{f'ECOMMERCE_WORKER_{name}': json.dumps(value) for name, value in {
        'EXTENSIONS': ['acme'], 'ACME': {'url': acme.url, 'token': 'hunter2'},
        'INTAKES': {'acme': {'kind': 'acme', 'secrets': [SECRET]}}}.items()}}
    return environment


def test_a_delivery_comes_to_the_service_of_an_extension(switched_on, acme, start_worker, command, tmp_path):
    assert command('migrate').returncode == 0
    worker = start_worker().ready()
    port = free_port()
    intake = Intake(port, tmp_path / 'intake.log', {
        **switched_on, 'ECOMMERCE_WORKER_INTAKE_ADDRESS': f'127.0.0.1:{port}'}).ready()
    try:
        answer = intake.post('acme', ORDER, signed('hmac', ORDER, header='X-Acme-Signature'))
        assert (answer.status, answer.state) == (200, 'accepted')
        eventually(lambda: worker.outcomes('A-1') == ['done'])
    finally:
        intake.kill()
    asked, = acme.requests
    assert (asked.method, asked.target, json.loads(asked.body)) == ('PUT', '/grants/A-1', {'email': 'ann@example.com'})
    assert asked.headers['authorization'] == 'Bearer hunter2'
    for private in ('ann@example.com', 'hunter2', SECRET):
        assert private not in worker.log + intake.log


def test_an_order_that_its_service_refuses_is_parked_and_sent_again(switched_on, acme, start_worker, command, publish,
                                                                    broker):
    acme.replies[:] = [reply(400), reply(204, b'')]
    worker = start_worker(MAX_FULFILLMENT_RETRIES=0).ready()
    publish(order_number='A-1', email='ann@example.com', task='acme_licences.grant', queue='acme', serializer='json')
    eventually(lambda: worker.outcomes('A-1') == ['parked'] and broker.depth(PARKED) == 1)
    assert command('parked', 'resend', '--order', 'A-1').returncode == 0
    eventually(lambda: worker.outcomes('A-1')[-1] == 'done')
    assert [it.target for it in acme.requests] == ['/grants/A-1'] * 2


def test_check_names_what_an_extension_brings_and_what_is_wrong_with_it(switched_on, command):
    done = command('check')
    assert done.returncode == 0, done.stdout
    assert ('extension acme (acme_licences 1.0): settings ACME; intake kinds acme; tasks acme_licences.grant; '
            'queue acme') in done.stdout
    assert 'hunter2' not in done.stdout
    assert json.loads(command('check', '--json').stdout)['extensions'] == [{
        'name': 'acme', 'package': 'acme_licences 1.0', 'settings': ['ACME'], 'intakes': ['acme'],
        'tasks': ['acme_licences.grant']}]
    bad = command('check', EXTENSIONS='["acne"]', ACME='{"url": "x"}')
    assert bad.returncode == 1
    assert 'problem: EXTENSIONS names acne, which is not installed; did you mean acme?' in bad.stdout
