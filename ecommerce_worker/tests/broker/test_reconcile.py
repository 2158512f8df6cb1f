"""Orders whose deliveries never came: a shop that tells of them, a ledger that does not, and a real RabbitMQ."""

import json

import pytest

from ecommerce_worker.testing.intake import SECRET as SIGNING
from ecommerce_worker.testing.rabbitmq import free_port
from ecommerce_worker.testing.shops import KEY, SECRET, WooCommerce
from ecommerce_worker.tests.support.harness import QUEUE, eventually
from ecommerce_worker.tests.support.intake import Intake, signed
from ecommerce_worker.tests.unit.resubmit.test_missed import woo_order


@pytest.fixture
def shop(environment):
    """A WooCommerce, with an intake for it."""
    with WooCommerce() as shop:
        port = free_port()
        given = {'INTAKE_ADDRESS': f'127.0.0.1:{port}', 'INTAKES': json.dumps({'blog': {
            'kind': 'woocommerce', 'secrets': [SIGNING], 'source': shop.url, 'api_key': KEY, 'api_secret': SECRET}}),
            'PRODUCTS': json.dumps({'A': [{'course': 'course-v1:edX+A+1', 'mode': 'verified'}]})}
        environment.update({f'ECOMMERCE_WORKER_{name}': value for name, value in given.items()})
        shop.webhooks = [{'id': 7, 'delivery_url': f'http://127.0.0.1:{port}/in/blog', 'status': 'active'}]
        yield shop


def test_what_never_came_is_published_once_and_what_came_is_not(shop, recorder, environment, broker, command, tmp_path):
    shop.orders = [woo_order('1'), woo_order('2')]
    intake = Intake(int(shop.webhooks[0]['delivery_url'].split(':')[2].split('/')[0]), tmp_path / 'intake.log',
                    environment)
    try:
        intake.ready()
        body = json.dumps(shop.orders[0]).encode()
        answer = intake.post('blog', body, signed('woocommerce', body, 'order.updated', source=shop.url))
    finally:
        intake.kill()
    assert answer.state == 'accepted'
    eventually(lambda: command('orders', 'show', '1').returncode == 0)
    dry = command('reconcile', '--dry-run')
    assert dry.returncode == 0, dry.stdout + dry.stderr
    assert '2 orders checked, 1 would be published' in dry.stdout
    assert broker.depth(QUEUE) == 1
    done = command('reconcile', '--json')
    assert [it['order'] for it in json.loads(done.stdout)['orders']] == ['2'], done.stdout + done.stderr
    assert broker.depth(QUEUE) == 2
    eventually(lambda: command('orders', 'show', '2').returncode == 0)
    again = command('reconcile')
    assert '2 orders checked, 0 published' in again.stdout, again.stdout + again.stderr
    assert broker.depth(QUEUE) == 2


def test_what_stands_in_its_way_is_told(shop, command):
    ended = command('reconcile')
    assert (ended.returncode, 'needs the ledger' in ended.stderr) == (75, True), ended.stdout + ended.stderr
    ended = command('reconcile', 'blok')
    assert ended.returncode == 2
    assert 'blog' in ended.stderr
    assert command('reconcile', '--since', '365d').returncode == 2
