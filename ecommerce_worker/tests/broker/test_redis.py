"""Redis as the broker, which shops' defaults named for years: what it can promise is kept."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ecommerce_worker.broker.notes import NOTES
from ecommerce_worker.fulfillment.names import FULFILL
from ecommerce_worker.testing.rabbitmq import free_port
from ecommerce_worker.testing.shop import Answer, ShopProcess
from ecommerce_worker.tests.support.harness import (
    QUEUE,
    Broker,
    Worker,
    eventually,
    shop_app,
    worker_environment,
)
from ecommerce_worker.tests.support.messages import MESSAGES


@dataclass
class PrivateRedis:
    """A redis-server of the tests' own, which writes down all it is told."""

    process: subprocess.Popen[bytes]
    port: int

    @property
    def url(self) -> str:
        return f'redis://127.0.0.1:{self.port}/0'


@pytest.fixture(scope='module')
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateRedis]:
    program = shutil.which('redis-server')
    if program is None:
        why = 'there is no redis-server program: install Redis to run these tests'
        if os.environ.get('CI') or os.environ.get('REQUIRE_BROKER'):
            pytest.fail(why)
        pytest.skip(why)
    port = free_port()
    process = subprocess.Popen(
        [program, '--port', str(port), '--bind', '127.0.0.1', '--dir', str(tmp_path_factory.mktemp('redis')),
         '--appendonly', 'yes', '--save', ''], stdout=subprocess.DEVNULL)
    try:
        eventually(lambda: _answers(port))
        yield PrivateRedis(process, port)
    finally:
        process.terminate()
        process.wait(30)


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(('127.0.0.1', port), timeout=1) as connection:
            connection.sendall(b'PING\r\n')
            return connection.recv(16).startswith(b'+PONG')
    except OSError:
        return False


@pytest.fixture
def broker(redis: PrivateRedis) -> Broker:
    """That Redis, empty."""
    with socket.create_connection(('127.0.0.1', redis.port)) as connection:
        connection.sendall(b'FLUSHALL\r\n')
        assert connection.recv(16) == b'+OK\r\n'
    return Broker(redis)  # type: ignore[arg-type]  # of the node, only where it is


@pytest.fixture
def environment(broker: Broker, shop: ShopProcess, tmp_path: Path) -> dict[str, str]:
    # A worker that is dead is known to be so after this many seconds; an hour, if nobody says otherwise.
    options = {'visibility_timeout': 3, 'unacked_restore_interval': 1}
    # A ledger that nothing writes into: Redis does not tell who consumes a queue.
    database = {'default': {'NAME': str(tmp_path / 'ledger.sqlite3')}}
    return worker_environment(broker.url, shop, BROKER_TRANSPORT_OPTIONS=options, DATABASES=database,
                              SCHEDULE_STATE=tmp_path / 'beat.sqlite3')


@pytest.fixture
def publish(broker: Broker) -> Iterator[Callable[..., Any]]:
    with shop_app(broker.url) as app:
        yield lambda *args, **kwargs: app.send_task(
            'ecommerce_worker.fulfillment.v1.tasks.fulfill_order', args, kwargs, serializer='pickle',
            ignore_result=True)


def ready(worker: Worker) -> Worker:
    eventually(lambda: ' ready.' in worker.log or worker.process.poll() is not None)
    assert worker.process.poll() is None, worker.log
    return worker


def fulfilled(shop: ShopProcess, *numbers: str) -> bool:
    return all(shop.orders[number].status == 'Complete' for number in numbers)


def puts(shop: ShopProcess, number: str) -> int:
    return sum(call.is_put and call.order == number for call in shop.calls)


def test_orders_are_fulfilled_through_outages_and_refusals(shop, start_worker, publish):
    shop.add_order('EDX-1')
    shop.add_order('EDX-2', Answer(503), Answer(503))
    shop.add_order('EDX-3', hidden=1)
    shop.add_order('EDX-4', Answer(429, {'Retry-After': '2'}))
    for number in range(1, 5):
        publish(f'EDX-{number}')
    ready(start_worker())
    eventually(lambda: fulfilled(shop, 'EDX-1', 'EDX-2', 'EDX-3', 'EDX-4'))


def test_the_worker_says_at_start_what_redis_cannot_promise(start_worker):
    log = ready(start_worker()).log
    assert 'Redis' in log
    assert 'visibility_timeout' in log


def test_a_message_that_names_a_queue_of_its_own_comes_back_to_ours(shop, start_worker, broker):
    shop.add_order('EDX-1', Answer(503))
    broker.publish_raw(b'[["EDX-1"], {}, {}]', content_type='application/json', content_encoding='utf-8',
                       headers={'task': FULFILL, 'id': 'id-1', NOTES: {'queue': 'evil.queue'}})
    ready(start_worker())
    eventually(lambda: fulfilled(shop, 'EDX-1'))
    assert not broker.depth('evil.queue')


def test_nothing_parked_is_listed_as_nothing(command):
    ended = command('parked', 'list')
    assert (ended.returncode, ended.stdout) == (0, '0 parked messages\n'), ended.stderr


def test_an_order_that_cannot_be_fulfilled_is_parked_and_sent_again(shop, start_worker, publish, command, broker):
    shop.add_order('EDX-1', Answer(500).always())
    publish('EDX-1')
    ready(start_worker())
    eventually(lambda: broker.depth('ecommerce.parked'))
    listed = command('parked', 'list')
    assert 'EDX-1' in listed.stdout, listed.stderr
    shop.repair('EDX-1')
    assert command('parked', 'resend', '--order', 'EDX-1').returncode == 0
    eventually(lambda: fulfilled(shop, 'EDX-1'))
    assert broker.depth('ecommerce.parked') == 0


def test_what_a_killed_worker_had_in_hand_comes_back(shop, start_worker, publish):
    shop.add_order('EDX-1', Answer(delay=5, drop=True))
    publish('EDX-1')
    worker = ready(start_worker(FULFILLMENT_READ_TIMEOUT=10))
    eventually(lambda: puts(shop, 'EDX-1'))
    worker.kill()
    ready(start_worker())
    eventually(lambda: fulfilled(shop, 'EDX-1'), seconds=60)


def test_what_a_stopping_worker_holds_is_handed_back(shop, start_worker, publish):
    shop.add_order('EDX-1', Answer(503, {'Retry-After': '600'}))
    publish('EDX-1')
    worker = ready(start_worker())
    eventually(lambda: worker.settled('EDX-1') == 'retrying')
    assert worker.stop() == 0
    # It waits for its time in the next worker.
    other = ready(start_worker())
    assert other.stop() == 0
    assert puts(shop, 'EDX-1') == 1


def test_a_message_of_an_older_shop_is_read(shop, start_worker, broker):
    message = next(message for message in MESSAGES if message['task'].endswith('fulfill_order') and message['exchange'])
    shop.add_order('EDX-100001')
    shop.add_order('EDX-100003')
    broker.publish_message({**message, 'routing_key': message['routing_key']})
    ready(start_worker())
    eventually(lambda: any(order.status == 'Complete' for order in shop.orders.values()))


def test_status_shows_queues_and_workers(start_worker, command, publish):
    ready(start_worker())
    assert command('migrate').returncode == 0
    shown = command('status')
    assert 'recorders: ?' in shown.stdout
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert QUEUE in shown.stdout
