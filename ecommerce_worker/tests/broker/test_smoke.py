"""The functional test of a deployment: real processes, a real RabbitMQ; and what it leaves alone."""

import json

import pytest

from ecommerce_worker.broker import topology
from ecommerce_worker.testing.intake import OTHER_SECRET, SECRET
from ecommerce_worker.testing.rabbitmq import free_port
from ecommerce_worker.testing.shop import Answer
from ecommerce_worker.tests.support.harness import QUEUE, eventually
from ecommerce_worker.tests.support.intake import Intake


@pytest.fixture
def smoke(command):
    """Run it, and read what it says."""
    def run(*options, **settings):
        done = command('smoke', '--json', *options, **settings)
        found = json.loads(done.stdout)
        assert done.returncode == (0 if found['passed'] else 1), done.stderr
        return found

    return run


def names(broker):
    """What there is in RabbitMQ beside what workers have."""
    return [name for name in broker.node.ctl('list_queues', 'name').split() + broker.node.ctl(
        'list_exchanges', 'name').split() if 'smoke' in name]


def test_an_order_goes_through_intake_queue_worker_and_waiting_room_to_a_stand_in(smoke, broker, shop, publish):
    publish('EDX-1')  # of somebody else, whom nobody is to serve
    reports = broker.depth(topology.LEDGER)  # of the tests before
    found = smoke()
    assert found['problem'] is None
    assert [it['step'] for it in found['steps']] == [
        'a temporary worker consumes a temporary queue',
        'a temporary intake answers and is ready to publish to RabbitMQ',
        'the intake accepted the order, and RabbitMQ confirmed it',
        'the worker called the stand-in shop, which answered 503',
        'the retry left the waiting room, and the order is fulfilled',
        'the temporary worker, queue and order are removed']
    times = [it['seconds'] for it in found['steps']]
    assert times == sorted(times)
    assert broker.depth(QUEUE) == 1
    assert (broker.waiting(), broker.depth(topology.PARKED), broker.depth(topology.LEDGER)) == (0, 0, reports)
    assert names(broker) == []
    assert shop.calls == []


def test_workers_that_run_and_their_configuration_are_left_alone(smoke, start_worker, shop, publish, tmp_path):
    worker = start_worker(METRICS_ADDRESS=f'127.0.0.1:{free_port()}').ready()
    before = worker.log
    other = json.dumps({'mine': {'kind': 'submit', 'secrets': ['x' * 40], 'spool': True}})
    assert smoke(INTAKES=other, INTAKE_SPOOL=str(tmp_path / 'spool'), LOG_FORMAT='json',
                 HEALTH_DIR=str(tmp_path / 'none'))['passed']
    assert worker.log == before
    assert not (tmp_path / 'spool').exists()
    shop.add_order('EDX-1')
    publish('EDX-1')
    eventually(lambda: worker.settled('EDX-1') == 'done')


def test_an_order_that_is_named_is_followed_through_the_workers_that_run(smoke, start_worker, shop):
    start_worker().ready()
    shop.add_order('TEST-1', Answer(status=503))
    found = smoke('--order', 'TEST-1')
    assert [it['step'].split()[0] for it in found['steps']] == ['TEST-1', 'retrying', 'done']
    assert shop.orders['TEST-1'].fulfilments == 1
    again = smoke('--order', 'TEST-1')
    assert [it['step'].split()[0] for it in again['steps']] == ['TEST-1', 'skipped']
    assert (again['passed'], shop.orders['TEST-1'].fulfilments, shop.orders['TEST-1'].puts) == (True, 1, 2)


@pytest.fixture
def intakes(environment, tmp_path):
    """One that runs, with an intake of our own kind and one of Stripe's; the settings of who knows them."""
    port = free_port()
    settings = {'INTAKE_ADDRESS': f'127.0.0.1:{port}', 'INTAKES': json.dumps({
        'older': {'kind': 'submit', 'secrets': [SECRET]},
        'myshop': {'kind': 'stripe', 'secrets': [SECRET], 'events': {'checkout.session.completed': 'fulfill_order'}}})}
    intake = Intake(port, tmp_path / 'intake.log', {
        **environment, **{f'ECOMMERCE_WORKER_{name}': value for name, value in settings.items()}})
    try:
        intake.ready()
        yield settings
    finally:
        intake.kill()


def test_an_order_goes_in_by_an_intake_that_runs_as_its_shop_would_send_it(smoke, start_worker, shop, broker, tmp_path,
                                                                           intakes):
    start_worker().ready()
    shop.add_order('TEST-1', Answer(status=503))
    found = smoke('--intake', 'older', '--order', 'TEST-1', **intakes)
    assert found['steps'][0]['step'].startswith('the intake older answered 202 accepted, as message ')
    assert [it['step'].split()[0] for it in found['steps'][1:]] == ['retrying', 'done']
    again = smoke('--intake', 'older', '--order', 'TEST-1', **intakes)
    assert [it['step'].split()[0] for it in again['steps'][1:]] == ['skipped']
    shop.add_order('EDX-7')
    (tmp_path / 'order.json').write_text(json.dumps({
        'id': 'evt_7', 'object': 'event', 'type': 'checkout.session.completed', 'livemode': True,
        'data': {'object': {'id': 'cs_7', 'client_reference_id': 'EDX-7', 'payment_status': 'paid'}}}))
    assert smoke('--intake', 'myshop', '--file', str(tmp_path / 'order.json'), **intakes)['passed']
    assert shop.orders['EDX-7'].fulfilments == 1
    twice = smoke('--intake', 'myshop', '--file', str(tmp_path / 'order.json'), **intakes)
    assert 'this delivery was received before' in twice['problem']
    other = intakes['INTAKES'].replace(SECRET, OTHER_SECRET)
    refused = smoke('--intake', 'older', '--order', 'TEST-1', **{**intakes, 'INTAKES': other})
    assert 'the intake older answered 401 refused; the running intake has different secrets' in refused['problem']
    away = smoke('--intake', 'older', '--order', 'TEST-1', **{**intakes, 'INTAKE_ADDRESS': f'127.0.0.1:{free_port()}'})
    assert 'no answer from http://127.0.0.1' in away['problem']


@pytest.mark.parametrize('options, said', [
    (('--intake', 'oldre', '--order', 'X'), 'there is no intake oldre; did you mean older?'),
    (('--intake', 'myshop', '--order', 'X'), 'the intake myshop is of kind shopify: --file must name'),
    (('--intake', 'older'), 'specify an order of the shop'),
    (('--intake', 'myshop', '--file', __file__, '--order', 'X'), '--file contains the order'),
    (('--file', __file__), '--file needs --intake')], ids=str)
def test_what_an_intake_needs_and_has_not_is_said_before_anything_is_sent(command, broker, options, said):
    done = command('smoke', *options, INTAKES=json.dumps({
        'older': {'kind': 'submit', 'secrets': [SECRET]},
        'myshop': {'kind': 'shopify', 'secrets': [SECRET], 'events': {'orders/paid': 'fulfill_order'}}}))
    assert (done.returncode, broker.depth(QUEUE)) == (2, 0)
    assert said in done.stderr


def test_an_order_that_the_shop_does_not_know_does_not_pass(command, start_worker, broker):
    start_worker(MAX_FULFILLMENT_RETRIES=0).ready()
    done = command('smoke', '--order', 'TEST-2')
    assert done.returncode == 1
    assert 'the order is parked: the shop does not know it (404)' in done.stderr
    assert eventually(lambda: broker.parked_order('TEST-2'))


def test_without_a_worker_it_is_said_that_nobody_told_of_it(smoke, broker):
    found = smoke('--order', 'TEST-3', '--wait', '1s')
    assert 'no worker has reported it' in found['problem']
    assert broker.depth(QUEUE) == 1


def test_without_facts_it_is_said_that_nothing_can_be_followed(smoke, broker):
    assert 'PUBLISH_FACTS is off' in smoke('--order', 'TEST-4', PUBLISH_FACTS='false')['problem']
    assert broker.depth(QUEUE) == 0


def test_a_worker_that_cannot_be_started_is_told_with_its_last_word_and_nothing_is_left(smoke, broker):
    found = smoke(EMAIL_VENDOR='braze')
    assert 'a worker cannot be started on this machine; its last log line: ecommerce-worker: ' in found['problem']
    assert names(broker) == []
