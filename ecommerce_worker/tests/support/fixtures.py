"""For tests that need a broker: a RabbitMQ and a shop of our own, real workers, a producer that knows only names."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ecommerce_worker.broker import topology
from ecommerce_worker.fulfillment.names import FULFILL
from ecommerce_worker.testing.rabbitmq import PrivateNode
from ecommerce_worker.testing.shop import Shop
from ecommerce_worker.tests.support.harness import Broker, Worker, eventually, shop_app, worker_environment
from ecommerce_worker.tests.support.proxy import Proxy
from ecommerce_worker.tests.support.rabbitmq import Node


@pytest.fixture(scope='session')
def shared_node() -> Iterator[Node]:
    """A RabbitMQ for this session."""
    if PrivateNode.program() is None:
        why = 'there is no rabbitmq-server program: install RabbitMQ to run the tests against a broker'
        if os.environ.get('CI') or os.environ.get('REQUIRE_BROKER'):
            pytest.fail(why)
        pytest.skip(why)
    with Node() as node:
        yield node


@pytest.fixture
def own_node() -> Iterator[Node]:
    """A RabbitMQ that no other test has, which may be stopped, killed and reset."""
    with Node() as node:
        yield node


@pytest.fixture
def node(request: pytest.FixtureRequest) -> Node:
    """The RabbitMQ of this session; with the mark ``restarts_rabbitmq`` one that no other test has.

    One that comes up again needs a moment to find the leaders of its quorum queues. RabbitMQ 3.10 ends all
    dead-lettering if a queue of the waiting room is deleted in that moment, as the next test would.
    """
    own = request.node.get_closest_marker('restarts_rabbitmq')
    node: Node = request.getfixturevalue('own_node' if own else 'shared_node')
    return node


@dataclass
class Link:
    """The only way to RabbitMQ for whoever connects to :attr:`url`."""

    proxy: Proxy

    @property
    def url(self) -> str:
        """Where it begins."""
        return f'amqp://guest:guest@127.0.0.1:{self.proxy.port}//'

    def interrupted(self) -> contextlib.AbstractContextManager[None]:
        """Within this context RabbitMQ is away for whoever comes this way: as if it was stopped, but at once."""
        return self.proxy.interrupted()


@pytest.fixture
def link(broker: Broker) -> Iterator[Link]:
    """A way to the RabbitMQ of this test that can be interrupted, which is far cheaper than to stop and start one."""
    with Proxy(broker.node.port) as proxy:
        yield Link(proxy)


@pytest.fixture
def broker(node: Node) -> Broker:
    """The node, empty."""
    broker = Broker(node)
    broker.empty()
    return broker


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    """A shop, which records each call."""
    with Shop(log=tmp_path / 'calls.jsonl', book=tmp_path / 'book.jsonl') as shop:
        yield shop


@pytest.fixture
def environment(broker: Broker, shop: Shop, tmp_path: Path) -> dict[str, str]:
    """The environment of a worker of this shop; there is no ledger but one that a test makes."""
    return worker_environment(broker.url, shop, DATABASES={'default': {'NAME': str(tmp_path / 'ledger.sqlite3')}})


@pytest.fixture
def start_worker(broker: Broker, environment: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """Start a worker, with other settings or options if need be."""
    started: list[Worker] = []

    def start(*options: str, **settings: object) -> Worker:
        changed = {f'ECOMMERCE_WORKER_{name}': str(value) for name, value in settings.items()}
        worker = Worker(broker, tmp_path / f'worker-{len(started)}.log', {**environment, **changed}, options)
        started.append(worker)
        return worker

    yield start
    for worker in started:
        worker.kill()


@pytest.fixture
def command(environment: dict[str, str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command of ours as an operator does."""
    def run(*arguments: str, answer: str = '', **settings: object) -> subprocess.CompletedProcess[str]:
        changed = {f'ECOMMERCE_WORKER_{name}': str(value) for name, value in settings.items()}
        return subprocess.run([sys.executable, '-m', 'ecommerce_worker', *arguments], env={**environment, **changed},
                              input=answer, capture_output=True, text=True, timeout=110, check=False)

    return run


@pytest.fixture
def publish(broker: Broker) -> Iterator[Callable[..., Any]]:
    """Publish a task by name, as the shop does."""
    with shop_app(broker.url) as app:
        def send(*args: Any, task: str = FULFILL, serializer: str = 'pickle', queue: str | None = None,
                 **kwargs: Any) -> Any:
            return app.send_task(task, args, kwargs, serializer=serializer, ignore_result=True,
                                 **({'queue': queue} if queue else {}))

        yield send


@pytest.fixture
def facts(broker: Broker) -> Broker:
    """The queue of facts, empty."""
    with broker.connection() as connection:
        topology.declare_facts(connection)
        connection.default_channel.queue_purge(topology.LEDGER)
    return broker


@pytest.fixture
def recorder(facts: Broker, environment: dict[str, str], command: Callable[..., subprocess.CompletedProcess[str]],
             tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A recorder, and the ledger that it keeps."""
    assert command('migrate').returncode == 0
    with (tmp_path / 'recorder.log').open('wb') as log:
        process = subprocess.Popen([sys.executable, '-m', 'ecommerce_worker', 'recorder'], env=environment, stdout=log,
                                   stderr=log)
    eventually(lambda: facts.consumers(topology.PARKED))
    yield process
    process.kill()
    process.wait()
