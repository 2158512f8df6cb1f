"""What deploy/rabbitmq/definitions.py writes, imported into a real RabbitMQ: each user can do its work, and no more."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from amqp.exceptions import AccessRefused
from kombu import Connection

from ecommerce_worker import settings
from ecommerce_worker.fulfillment.names import FULFILL
from ecommerce_worker.testing.shop import Answer
from ecommerce_worker.tests.broker.test_commands import NEEDED, NEEDED_TO_WRITE
from ecommerce_worker.tests.broker.test_connections import limits_deliveries
from ecommerce_worker.tests.support.harness import Broker, eventually, shop_app

PROGRAM = Path(settings.__file__).parents[2] / 'deploy' / 'rabbitmq' / 'definitions.py'
QUEUE = 'ecommerce.fulfillment'


def write(directory, *options):
    subprocess.run([sys.executable, PROGRAM, *options, directory], check=True)
    return {name: (directory / f'{name}broker-url').read_text().strip() for name in ('', 'intake-', 'shop-')}


@pytest.fixture
def urls(broker: Broker, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The URL of each user, by the beginning of its file's name."""
    host = broker.url.rpartition('@')[2].rstrip('/')
    options = [] if limits_deliveries(broker) else ['--no-policies']
    found = write(tmp_path / 'credentials', '--vhost', '/', '--host', host, *options)
    broker.node.ctl('import_definitions', str(tmp_path / 'credentials/definitions.json'))
    yield found
    for name in ('worker', 'intake', 'shop'):
        broker.node.ctl('delete_user', name)


def test_each_user_can_do_its_work_and_no_more(broker, urls, shop, environment, start_worker):
    log = broker.node.directory / 'node.log'
    before = len(log.read_text())
    shop.add_order('EDX-1', Answer(status=503))
    shop.add_order('EDX-2')
    environment['ECOMMERCE_WORKER_BROKER_URL'] = urls['']
    worker = start_worker().ready()
    with shop_app(urls['shop-']) as app:
        app.send_task(FULFILL, ['EDX-1'], serializer='pickle', ignore_result=True)
    assert eventually(lambda: worker.settled('EDX-1') == 'done')
    with Connection(urls['intake-']) as connection:
        channel = connection.channel()
        connection.Producer(channel).publish([['EDX-2'], {}, {}], routing_key=QUEUE, serializer='json',
                                             headers={'task': FULFILL, 'id': '1'}, confirm_publish=True)
    assert eventually(lambda: worker.settled('EDX-2') == 'done')
    assert worker.stop() == 0
    assert 'refused for user' not in log.read_text()[before:]
    for user, forbidden in (('intake-', lambda channel: channel.basic_get(QUEUE)),
                            ('intake-', lambda channel: channel.queue_declare('ecommerce.new', passive=False)),
                            ('shop-', lambda channel: channel.queue_purge('ecommerce.ledger')),
                            ('', lambda channel: channel.queue_declare('of-somebody-else'))):
        with Connection(urls[user]) as connection, pytest.raises(AccessRefused):
            forbidden(connection.channel())


def test_the_permissions_are_those_of_the_page_and_the_policies_those_of_the_other_file(tmp_path):
    write(tmp_path, '--vhost', 'a shop')
    found = json.loads((tmp_path / 'definitions.json').read_text())
    worker, *_ = found['permissions']
    assert worker == {'user': 'worker', 'vhost': 'a shop',
                      'configure': NEEDED, 'write': NEEDED_TO_WRITE, 'read': NEEDED}
    policies = json.loads((PROGRAM.with_name('definitions.json')).read_text())['policies']
    assert found['policies'] == [{**policy, 'vhost': 'a shop'} for policy in policies]


def test_passwords_are_kept_until_their_url_is_deleted_and_nobody_else_can_read_them(tmp_path):
    first = write(tmp_path)
    assert write(tmp_path) == first
    (tmp_path / 'broker-url').unlink()
    again = write(tmp_path)
    assert again[''] != first['']
    assert again['shop-'] == first['shop-']
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
