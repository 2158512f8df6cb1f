"""What deploy/rabbitmq/definitions.py writes, imported into a real RabbitMQ: each user can do its work, and no more."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from os import EX_NOPERM
from pathlib import Path

import pytest
from amqp.exceptions import AccessRefused
from kombu import Connection

from ecommerce_worker import settings
from ecommerce_worker.broker import topology
from ecommerce_worker.fulfillment.names import FULFILL
from ecommerce_worker.testing.intake import SECRET
from ecommerce_worker.testing.rabbitmq import free_port
from ecommerce_worker.testing.shop import Answer
from ecommerce_worker.tests.support.harness import Broker, Program, eventually, shop_app
from ecommerce_worker.tests.support.intake import Intake

PROGRAM = Path(settings.__file__).parents[2] / 'deploy' / 'rabbitmq' / 'definitions.py'
QUEUE = 'ecommerce.fulfillment'

#: What the console does with a message that is parked.
RESEND = """
from ecommerce_worker.celery_app import app
from ecommerce_worker.ledger import setup
setup.open_current_ledger()
from ecommerce_worker.console import deciding
from ecommerce_worker.ledger.models import ParkedMessage
print(deciding.resend(app, [it.pk for it in ParkedMessage.objects.all()], who='sue', reason='repaired'))
"""


#: The files whose names do not say whose they are.
NAMES = {'broker-url': 'worker', 'management-url': 'monitoring'}


def define(broker, place):
    """Have RabbitMQ know what it has to know of a shop; its URLs are in that place."""
    host = broker.url.rpartition('@')[2].rstrip('/')
    subprocess.run([sys.executable, PROGRAM, '--vhost', '/', '--host', host, place], check=True)
    broker.node.ctl('import_definitions', str(place / 'definitions.json'))


@pytest.fixture
def urls(broker: Broker, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The URL of each user, by its name."""
    place = tmp_path / 'credentials'
    define(broker, place)
    yield {NAMES.get(path.name, path.name.removesuffix('-broker-url')): path.read_text().strip()
           for path in place.glob('*-url')}
    # All at once: each call of rabbitmqctl takes a second.
    users = json.loads((place / 'definitions.json').read_text())['users']
    names = ', '.join(f'<<"{user["name"]}">>' for user in users)
    broker.node.ctl('eval', f"""
        [rabbit_auth_backend_internal:delete_user(User, <<"a test">>) || User <- [{names}]],
        [rabbit_policy:delete(<<"/">>, Name, <<"a test">>) || Name <- [<<"ecommerce-tasks">>, <<"ecommerce-looks">>]].
    """)


def test_each_role_can_do_its_work_and_no_more(broker, urls, shop, environment, start_worker, command, tmp_path):
    log = broker.node.directory / 'node.log'
    before = len(log.read_text())
    started: list[Program] = []

    def environment_of(role, **given):
        return {**environment, 'ECOMMERCE_WORKER_BROKER_URL': urls[role],
                **{f'ECOMMERCE_WORKER_{name}': str(value) for name, value in given.items()}}

    def run(role, **given):
        started.append(Program(tmp_path / f'{role}.log', environment_of(role, **given), '-m', 'ecommerce_worker', role))
        return started[-1]

    assert command('migrate').returncode == 0
    # Each on a RabbitMQ that nobody has declared anything in: beat and recorder need not wait for a worker.
    with broker.connection() as connection:
        for name in (topology.PARKED, topology.LEDGER, QUEUE):
            connection.default_channel.queue_delete(name)
        connection.default_channel.exchange_delete(topology.FACTS)
    port = free_port()
    intake = Intake(port, tmp_path / 'intake.log', environment_of(
        'intake', INTAKE_ADDRESS=f'127.0.0.1:{port}',
        INTAKES={'shop': {'kind': 'submit', 'secrets': [SECRET], 'events': {'*': 'fulfill_order'}}}))
    started.append(intake)
    try:
        beat = run('beat', SCHEDULE_STATE=tmp_path / 'beat', SCHEDULE={'order': {
            'task': FULFILL, 'args': ['EDX-4'], 'interval': '2s', 'queue': QUEUE}})
        recorder = run('recorder', METRICS_ADDRESS=f'127.0.0.1:{free_port()}')
        shop.add_order('EDX-1', Answer(status=503))
        shop.add_order('EDX-2', Answer(status=403))
        shop.add_order('EDX-3')
        shop.add_order('EDX-4')
        eventually(lambda: 'beat is ready' in beat.log and broker.consumers(topology.PARKED))

        worker = start_worker(BROKER_URL=urls['worker'], MAX_FULFILLMENT_RETRIES=0).ready()
        with shop_app(urls['shop']) as app:
            app.send_task(FULFILL, ['EDX-1'], serializer='pickle', ignore_result=True)
            app.send_task(FULFILL, ['EDX-2'], serializer='pickle', ignore_result=True)
        answered = intake.ready().post('shop', b'{"order_number": "EDX-3"}', {
            'Authorization': f'Bearer {SECRET}', 'Idempotency-Key': '"EDX-3"', 'Content-Type': 'application/json'})
        assert answered.state == 'accepted', intake.log
        eventually(lambda: all('done' in worker.outcomes(order) for order in ('EDX-1', 'EDX-3', 'EDX-4')))
        eventually(lambda: 'parked' in command('orders', 'show', 'EDX-2').stdout)

        resent = subprocess.run([sys.executable, '-c', RESEND], env=environment_of('console'), capture_output=True,
                                text=True, check=True)
        assert 'count=1' in resent.stdout, resent.stdout
        eventually(lambda: worker.settled('EDX-2') == 'done')
        eventually(lambda: 'fulfilled' in command('orders', 'show', 'EDX-2').stdout)

        # A new password: who is connected goes on, and who comes with the old one is refused.
        place = tmp_path / 'credentials'
        (place / 'broker-url').unlink()
        define(broker, place)
        shop.add_order('EDX-5')
        with shop_app(urls['shop']) as app:
            app.send_task(FULFILL, ['EDX-5'], serializer='pickle', ignore_result=True)
        eventually(lambda: worker.settled('EDX-5') == 'done')
        assert command('status', BROKER_URL=urls['worker']).returncode == EX_NOPERM
        assert 'ecommerce.fulfillment' in command('status', BROKER_URL=f'file:{place}/broker-url').stdout
        assert worker.stop() == intake.stop() == beat.stop() == recorder.stop() == 0
    finally:
        for program in started:
            program.kill()
    refused = re.findall(r"access to (\w+ '[^']*') .*refused for user '(\w+)'", log.read_text()[before:])
    # `status` looks for queues of former days, which need not be there; since 4.3 that is refused, and no harm.
    assert {it for it in refused if it != ("queue 'celery'", 'worker')} == set()

    for user, forbidden in (('intake', lambda channel: channel.basic_get(QUEUE)),
                            ('intake', lambda channel: channel.queue_declare('ecommerce.new', passive=False)),
                            ('console', lambda channel: channel.basic_get(topology.PARKED)),
                            ('beat', lambda channel: channel.basic_get(topology.PARKED)),
                            ('recorder', lambda channel: channel.basic_get(QUEUE)),
                            ('shop', lambda channel: channel.queue_purge(topology.LEDGER)),
                            ('worker', lambda channel: channel.queue_declare('of-somebody-else'))):
        with Connection(urls[user]) as connection, pytest.raises(AccessRefused):
            forbidden(connection.channel())
