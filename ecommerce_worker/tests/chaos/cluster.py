"""Three nodes of RabbitMQ on loopback, and the story of one of them that is killed while orders go through.

::

    shop ──► any node that answers ──► ecommerce.fulfillment, a quorum queue ──► the one worker, never started again
                                       ecommerce.parked, ecommerce.ledger: quorum too, or classic from an earlier day
"""

from __future__ import annotations

import secrets
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from kombu import Connection

from ecommerce_worker.broker import topology
from ecommerce_worker.testing.rabbitmq import free_port, program_named
from ecommerce_worker.testing.shop import ShopProcess
from ecommerce_worker.tests.chaos.harness import CONFIRMED, PATIENCE, SETTINGS, send
from ecommerce_worker.tests.support.harness import QUEUE, Broker, Worker, eventually, shop_app, worker_environment
from ecommerce_worker.tests.support.rabbitmq import Node

#: Seconds until a node is missed by the others, and seconds for a node to start on a busy machine.
NET_TICK, BOOT = 10, 180


class Member(Node):
    """One node of a cluster: the name, the cookie and the port mapper are the cluster's."""

    def __init__(self, cluster: Cluster, number: int) -> None:
        self._cluster = cluster
        self._number = number
        super().__init__(cluster.directory / f'node-{number}')

    @property
    def name(self) -> str:
        """How the others know it."""
        return f'rabbit{self._number}@localhost'

    def _prepared(self) -> dict[str, str]:
        prepared = super()._prepared()
        with (self.directory / 'rabbitmq.conf').open('a') as configuration:
            configuration.write(f'net_ticktime = {NET_TICK}\n')
        return prepared | {
            'HOME': str(self._cluster.directory),
            'RABBITMQ_NODENAME': self.name,
            'ERL_EPMD_PORT': str(self._cluster.mapper_port),
            'RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS': '-noinput +S 1:1 +A 4',
        }


class Cluster:
    """Three nodes that share nothing with any other on the machine."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.mapper_port = free_port()
        cookie = directory / '.erlang.cookie'
        cookie.write_text(secrets.token_hex(10))
        cookie.chmod(0o400)
        self.nodes = [Member(self, number) for number in (1, 2, 3)]
        self._mapper: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """All nodes, one after the other."""
        return ';'.join(node.url for node in self.nodes)

    @property
    def alive(self) -> Member:
        """A node that runs."""
        return next(node for node in self.nodes if node.runs)

    def __enter__(self) -> Self:
        # Of its own: that of a node ends with it.
        self._mapper = subprocess.Popen(
            [str(program_named('epmd')), '-address', '127.0.0.1', '-port', str(self.mapper_port)],
            stdin=subprocess.DEVNULL)
        try:
            for node in self.nodes:
                node.start(BOOT)
            for node in self.nodes[1:]:
                for command in (['stop_app'], ['reset'], ['join_cluster', self.nodes[0].name], ['start_app']):
                    node.ctl(*command, timeout=BOOT)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            node.kill()
        if self._mapper:
            self._mapper.terminate()
            self._mapper.wait()

    def home_of(self, queue: str) -> Member:
        """The node that a queue lies on, or that leads it."""
        lines = self.alive.ctl('list_queues', '--no-table-headers', 'name', 'pid').splitlines()
        home = dict(line.split('\t') for line in lines if '\t' in line)[queue]
        return next(node for node in self.nodes if node.name.partition('@')[0] in home)


@dataclass(frozen=True)
class Story:
    """What was seen."""

    rabbitmq: str
    #: The parked queue and that of the ledger were classic ones, on the node that was killed.
    classic: bool
    accepted: int
    refused: int
    #: Of those accepted: complete while the node was down; at the end.
    fulfilled_without: int
    fulfilled: int
    repeated: int
    #: Seconds from the end of the node until the last order was fulfilled.
    last: float
    #: Whether the worker was the same from the first order to the last.
    one_worker: bool
    #: What the worker said that is worse than a warning.
    errors: tuple[str, ...]

    @property
    def kept(self) -> bool:
        """Whether all accepted orders were fulfilled without the node, once each, by one worker."""
        return self.accepted == self.fulfilled_without and self.one_worker and not self.repeated

    def as_json(self) -> dict[str, Any]:
        """The story as the JSON file has it."""
        return {**asdict(self), 'kept': self.kept}

    def __str__(self) -> str:
        return '\n'.join(f'{name.replace("_", " "):>20}  {value}' for name, value in self.as_json().items())


class Publishing(threading.Thread):
    """A shop that publishes to whichever node answers."""

    def __init__(self, url: str, numbers: Sequence[str], rate: float) -> None:
        super().__init__(name='shop', daemon=True)
        self.accepted: list[str] = []
        self.refused: list[str] = []
        self._url, self._numbers, self._rate = url, numbers, rate

    def run(self) -> None:
        """Publish all."""
        with shop_app(self._url) as app:
            app.conf.broker_transport_options = CONFIRMED
            app.amqp.queues.add(topology.task_queue(QUEUE, 'quorum'))
            began = time.monotonic()
            for position, number in enumerate(self._numbers):
                time.sleep(max(0.0, began + position / self._rate - time.monotonic()))
                try:
                    send(app, number)
                except Exception:
                    self.refused.append(number)
                else:
                    self.accepted.append(number)


def run(orders: int, rate: float = 10.0, *, classic: bool = False) -> Story:
    """Kill the node that leads the orders, or that keeps the classic queues, a third of the way; it stays down."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory, Cluster(Path(directory)) as cluster, \
            ShopProcess(Path(directory), latency=0.05) as shop:
        if classic:
            with Connection(cluster.nodes[0].url) as connection:
                topology.declare_parked(connection)
                topology.declare_facts(connection)
        numbers = [f'EDX-{number}' for number in range(orders)]
        for number in numbers:
            shop.add_order(number)
        log = Path(directory) / 'worker.log'
        environment = worker_environment(cluster.url, shop, **{**SETTINGS, 'QUEUE_TYPE': 'quorum'})
        worker = Worker(Broker(cluster.nodes[1]), log, environment, ())
        try:
            worker.ready()
            victim = cluster.home_of(topology.PARKED if classic else QUEUE)
            publishing = Publishing(cluster.url, numbers, rate)
            publishing.start()
            eventually(lambda: len(publishing.accepted) > orders / 3, seconds=PATIENCE)
            victim.kill()
            killed = time.time()
            publishing.join()
            _await(shop, publishing.accepted)
            without = _complete(shop, publishing.accepted)
            victim.start(BOOT)
            _await(shop, publishing.accepted)
            one_worker = worker.process.poll() is None and worker.stop() == 0
        finally:
            worker.kill()
        calls = shop.calls
        return Story(
            rabbitmq=cluster.alive.ctl('version').strip(), classic=classic, accepted=len(publishing.accepted),
            refused=len(publishing.refused), fulfilled_without=without,
            fulfilled=_complete(shop, publishing.accepted), repeated=sum(call.repeated for call in calls),
            last=round(max((call.time for call in calls if call.is_put), default=killed) - killed, 1),
            one_worker=one_worker,
            errors=tuple(line for line in worker.log.splitlines() if ' ERROR ' in line or ' CRITICAL ' in line))


def _complete(shop: ShopProcess, accepted: Sequence[str]) -> int:
    orders = shop.orders
    return sum(orders[number].status == 'Complete' for number in accepted)


def _await(shop: ShopProcess, accepted: Sequence[str]) -> None:
    """Wait until all are complete, or nothing more will change."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and _complete(shop, accepted) < len(accepted):
        time.sleep(0.5)
