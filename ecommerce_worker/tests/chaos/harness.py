"""The scene of one run: orders, a shop, workers, a network between them; and the count of what became of each order."""

from __future__ import annotations

import contextlib
import math
import os
import re
import signal
import subprocess
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from celery import Celery
from kombu import Connection, Queue

from ecommerce_worker.broker import topology
from ecommerce_worker.broker.notes import NOTES
from ecommerce_worker.broker.wire import Raw, read
from ecommerce_worker.errors import Undecodable
from ecommerce_worker.fulfillment.names import FULFILL
from ecommerce_worker.testing.shop import Answer, Call, Order, ShopProcess
from ecommerce_worker.tests.support.harness import (
    QUEUES,
    Broker,
    Program,
    Worker,
    shop_app,
    worker_environment,
)
from ecommerce_worker.tests.support.proxy import Proxy

if TYPE_CHECKING:
    from ecommerce_worker.tests.chaos.neighbours import Mail, Neighbour

#: Tasks at once in a worker, by pool.
CONCURRENCY = {'threads': 8, 'prefork': 4}

#: Seconds of a fault that goes on and on, unless another time is given.
LASTING = 60.0

#: Seconds of each call at the shop: with it, some are always in progress when something breaks.
LATENCY = 0.2

#: Seconds after which what is not settled counts as stuck.
PATIENCE = 240

#: The part of the orders that may be called for again, where that cannot be ruled out.
SELDOM = 0.02

#: Seconds without a call after which none will come: all queues are empty, and no call takes as long.
QUIET = 15

#: The same while there are messages: no retry is delayed for as long in any of the runs.
STUCK = 75

#: Short, so that runs are. A message that was with a lost worker waits ten times as long as the shop takes.
SETTINGS: Mapping[str, object] = {
    'REDELIVERY_DELAY': 2, 'RETRY_DELAY_MAX': 4, 'MAX_FULFILLMENT_RETRIES': 6, 'FULFILLMENT_READ_TIMEOUT': 4,
    'HTTP_READ_TIMEOUT': 4, 'BROKER_HEARTBEAT': 4, 'SHUTDOWN_SECONDS': 10,
}

#: A shop that wants to be told whether its order was accepted: confirmed, and within seconds.
CONFIRMED = {'confirm_publish': True, 'connect_timeout': 3, 'read_timeout': 5, 'write_timeout': 5,
             'max_retries': 1, 'interval_start': 0, 'interval_step': 0.2, 'interval_max': 0.2}

_LEFT_ALONE = re.compile(r' skipped: task=\S+ key=(\S+) ')


@dataclass(frozen=True)
class Kind:
    """A kind of worker: how one is started, and what is to be expected of it."""

    name: str
    #: Arguments of the interpreter; {pool}, {concurrency} and {number}, different for each worker, are filled in.
    command: tuple[str, ...]
    pools: tuple[str, ...]
    #: Seconds that it waits for an answer of the shop.
    read_timeout: float
    #: Whether it makes the promise that runs put to the test; others do as they can, and are counted.
    promises: bool
    environment: Mapping[str, str] = field(default_factory=dict)


OURS = Kind('ours', ('-m', 'ecommerce_worker', 'worker'), ('threads', 'prefork'), read_timeout=4, promises=True)

STOCK = Kind('stock', (
    '-m', 'celery', '--app', 'ecommerce_worker.tests.chaos.stock', 'worker', '--loglevel=info', '--pool={pool}',
    '--concurrency={concurrency}', '--hostname=ecomworker-{number}@%h',
    '--queues=ecommerce.fulfillment,ecommerce.email_marketing,ecommerce.default',
), ('prefork',), read_timeout=10, promises=False,
    # Celery reads pickles as root only when it is told to.
    environment={'C_FORCE_ROOT': 'true'})


class WorkerOf(Worker):
    """A worker of any kind."""

    def __init__(self, broker: Broker, log: Path, environment: Mapping[str, str], command: Sequence[str],
                 pipe: int | None = None) -> None:
        Program.__init__(self, log, environment, *command, output=pipe)
        self._broker = broker


@dataclass(frozen=True)
class Count:
    """What became of the orders of one run; the lists hold numbers of orders."""

    fault: str
    pool: str
    #: Confirmed by RabbitMQ; the others were refused, and their shop was told so.
    accepted: int
    refused: int
    #: Complete in the shop's book; of these, so many were complete already when the worker looked again.
    fulfilled: int
    left_alone: int
    #: Of those that are not complete: still in a queue or in the waiting room; with a person.
    waiting: int
    parked: int
    missing: list[str]
    #: PUTs of an order that was complete; PUTs while another one of the same order was in progress.
    repeated: int
    overlapping: int
    #: Orders that the shop fulfilled more than once.
    twice: list[str]
    #: Parked messages that are none of the orders'.
    strangers: int
    #: Seconds from publishing an order until it is called for: within these 50 and 99 of 100 are.
    p50: float
    p99: float
    #: Seconds from the end of the fault until the last order was settled; of the whole run.
    recovery: float
    seconds: float
    #: Whatever else is not as it should be.
    wrong: list[str] = field(default_factory=list)

    def holds(self, fault: Fault) -> bool:
        """Whether each accepted order is in one place, and none was called for again where that can be ruled out."""
        whole = self.fulfilled + self.waiting + self.parked == self.accepted
        # A shop that publishes an order twice has it called for twice, though never while it is open.
        again = max(self.repeated if fault.copies == 1 else 0, self.overlapping, len(self.twice))
        few = max(2, SELDOM * self.accepted) if fault.unavoidable else 0
        in_time = not fault.punctual or self.p99 <= fault.punctual
        return whole and again <= few and in_time and not self.missing and not self.wrong

    def as_json(self) -> dict[str, Any]:
        """The count as the JSON file has it."""
        return asdict(self)


class Producer(threading.Thread):
    """The shop's half: publishes orders at an even pace and notes what it is told of each."""

    def __init__(self, url: str, numbers: Sequence[str], seconds: float, copies: int = 1) -> None:
        super().__init__(name='producer', daemon=True)
        self.numbers = numbers
        #: When each was published, in epoch seconds.
        self.published: dict[str, float] = {}
        self._copies = copies
        self.accepted: list[str] = []
        self.refused: dict[str, str] = {}
        self._url = url
        self._pace = seconds / max(1, len(numbers))

    def run(self) -> None:
        """Publish all."""
        with shop_app(self._url) as app:
            app.conf.broker_transport_options = CONFIRMED
            for number in self.numbers:
                began = time.monotonic()
                self.published[number] = time.time()
                try:
                    for _ in range(self._copies):
                        send(app, number)
                except Exception as error:
                    self.refused[number] = type(error).__name__
                else:
                    self.accepted.append(number)
                time.sleep(max(0.0, self._pace - (time.monotonic() - began)))


def send(app: Celery, number: str, task: str = FULFILL, site_code: str | None = None) -> None:
    """Publish an order as the shop does, without trying again by itself: it may have arrived; raises if unconfirmed."""
    kwargs = {'site_code': site_code} if site_code else {}
    with app.producer_or_acquire() as producer:
        connection = producer.connection
        try:
            app.send_task(task, (number,), kwargs, serializer='pickle', ignore_result=True,
                          queue='ecommerce.fulfillment', producer=producer, retry=False, confirm_timeout=5)
        except BaseException:
            # A late confirmation must not be taken for that of the next order.
            connection.collect()
            raise


class Scene:
    """All that takes part in one run; faults break its parts."""

    def __init__(self, broker: Broker, directory: Path, pool: str, settings: Mapping[str, object],
                 kind: Kind = OURS, lasting: float = LASTING) -> None:
        self.broker = broker
        #: Seconds for which a fault lasts that goes on and on.
        self.lasting = lasting
        #: How many messages it had parked that are none of the orders'.
        self.strangers = 0
        #: How often a worker was killed among those: each time one may be parked twice, for the first worker had
        #: published it and not yet acknowledged it.
        self.kills = 0
        #: The statuses with which a worker that is stopped may end.
        self.good_statuses = {0}
        #: Another site, and who sends the mail, where a fault has them.
        self.neighbour: Neighbour | None = None
        self.mail: Mail | None = None
        #: What ends with the scene.
        self.stack = contextlib.ExitStack()
        #: Arguments of Python for each worker, given those that start one.
        self.command: Callable[..., Sequence[str]] = lambda *arguments: arguments
        self.kind = kind
        self.pool = pool
        self.concurrency = CONCURRENCY[pool]
        self.shop = ShopProcess(directory, latency=LATENCY)
        self.workers: list[Worker] = []
        self.directory = directory
        self.wire = Proxy(broker.node.port)
        #: When the fault was over, in epoch seconds.
        self.repaired = 0.0
        self._settings = dict(settings)
        self._started = 0
        self._keeper: threading.Thread | None = None
        self._ending = threading.Event()

    def __enter__(self) -> Self:
        self.shop.start()
        self.fresh()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        if self._keeper:
            self._keeper.join()
        for worker in self.workers:
            with contextlib.suppress(ProcessLookupError):
                # A worker that was killed leaves its group of prefork children behind, for a moment.
                os.killpg(worker.process.pid, signal.SIGKILL)
            worker.process.wait()
        with contextlib.suppress(OSError, ProcessLookupError):
            self.shop.kill()
        self.stack.close()
        self.wire.close()

    def fresh(self) -> None:
        """Take away what is left of an earlier run.

        The waiting room stays: RabbitMQ 3.10 hangs for a minute when it is killed right after it declared a new one.
        """
        with self.broker.connection() as connection:
            channel = connection.channel()
            for name in QUEUES:
                topology.task_queue(name).bind(channel).declare()
            topology.declare(connection, [topology.task_queue(name) for name in QUEUES])
            for name in (*QUEUES, topology.PARKED, *map(topology.level, range(topology.BITS))):
                channel.queue_purge(name)

    def configure(self, **settings: object) -> None:
        """Set these for workers that are started from now on."""
        self._settings |= settings

    def start_worker(self, pipe: int | None = None) -> Worker:
        """Start one more worker, which reaches RabbitMQ through :attr:`wire`; its log goes to a file or to the pipe."""
        url = f'amqp://guest:guest@127.0.0.1:{self.wire.port}//'
        environment = worker_environment(url, self.shop, **{
            **SETTINGS, 'WORKER_POOL': self.pool, 'WORKER_CONCURRENCY': self.concurrency, **self._settings})
        command = [word.format(pool=self.pool, concurrency=self.concurrency, number=self._started)
                   for word in self.kind.command]
        worker = WorkerOf(self.broker, self.directory / f'worker-{self._started}.log',
                          {**environment, **self.kind.environment}, command)
        self._started += 1
        self.workers.append(worker)
        return worker

    def detour(self, port: int) -> None:
        """Have workers that are started from now on reach the shop by way of this port."""
        there = f'http://127.0.0.1:{port}'
        self.configure(ECOMMERCE_API_ROOT=self.shop.api_root.replace(self.shop.url, there),
                       BACKEND_SERVICE_EDX_OAUTH2_PROVIDER_URL=self.shop.oauth2_root.replace(self.shop.url, there))

    def keep_alive(self) -> None:
        """Start a worker whenever the last one died, as systemd does."""
        def keep() -> None:
            while not self._ending.wait(0.2):
                if self.workers[-1].process.poll() is not None:
                    self.start_worker()

        self._keeper = threading.Thread(target=keep, daemon=True)
        self._keeper.start()

    def await_consumer(self, workers: int = 1) -> None:
        """Return when so many workers consume; waits out a RabbitMQ that is coming back."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            with contextlib.suppress(Exception):
                if self.broker.consumers('ecommerce.fulfillment') >= workers:
                    return
            time.sleep(0.1)
        raise AssertionError('no worker consumes:\n' + self.log()[-3000:])

    def log(self) -> str:
        """What all workers have logged."""
        return ''.join(path.read_text(errors='replace') for path in sorted(self.directory.glob('worker-*.log')))

    def freeze_shop(self) -> None:
        """Have the shop take connections and answer nothing."""
        self._signal_shop(signal.SIGSTOP)

    def thaw_shop(self) -> None:
        """Have the shop go on, with what it was asked meanwhile too."""
        self._signal_shop(signal.SIGCONT)

    def _signal_shop(self, number: signal.Signals) -> None:
        assert self.shop._process
        self.shop._process.send_signal(number)

    def finish(self, accepted: Sequence[str], patience: float = PATIENCE) -> None:
        """Wait until each accepted order is complete or parked and nothing is left in RabbitMQ, or nothing will change.

        No longer than patience lasts.
        """
        until, left = time.monotonic() + patience, set(accepted)
        seen, since = (-1, True), time.monotonic()
        while time.monotonic() < until:
            with contextlib.suppress(OSError, AssertionError, RuntimeError, *Connection().connection_errors):
                left -= {number for number, order in self.shop.orders.items() if order.status == 'Complete'}
                if left:
                    left -= set(self.parked())
                idle = not (self.broker.waiting() or any(map(self.broker.depth, QUEUES)) or self.unsettled())
                if idle and not left:
                    return
                if seen != (seen := (len(self.shop.calls), idle)):
                    since = time.monotonic()
                if time.monotonic() > since + (QUIET if idle else STUCK):
                    return
            time.sleep(0.3)

    def parked(self) -> list[str]:
        """The keys of the parked messages."""
        return [message.headers[NOTES].get('key', '') for message in self.broker.parked()]

    def unsettled(self) -> int:
        """How many messages are in the task queues or with a worker."""
        return self.broker.node.held(*QUEUES)

    def stop_workers(self, on_duty: int = 1) -> list[str]:
        """Stop all workers as a deployment does; what is wrong with how they, or the last so many before, ended."""
        self._ending.set()
        if self._keeper:
            self._keeper.join()
        # Who was killed was killed by a fault.
        wrong = [f'a worker died, with status {status}' for worker in self.workers[-on_duty:]
                 if (status := worker.process.poll()) not in {None, -signal.SIGKILL}]
        alive = [worker for worker in self.workers if worker.process.poll() is None]
        for worker in alive:
            worker.process.send_signal(signal.SIGTERM)
        for worker in alive:
            try:
                status = worker.process.wait(40)
            except subprocess.TimeoutExpired:
                worker.kill()
                wrong.append('a worker did not stop within 40 s')
            else:
                if status not in self.good_statuses:
                    wrong.append(f'a worker ended with status {status}')
        return wrong

    def in_broker(self) -> set[str]:
        """The orders in queues and in the waiting room, once no worker has any in hand."""
        found = set()
        with self.broker.connection() as connection:
            channel = connection.channel()
            for name in (*QUEUES, *map(topology.level, range(topology.BITS))):
                queue = Queue(name).bind(channel)
                while message := queue.get(no_ack=False):
                    with contextlib.suppress(Undecodable, IndexError):
                        found.add(str(read(Raw.of(message)).args[0]))
        return found


@dataclass(frozen=True)
class Fault:
    """Something that breaks while orders go through, and is whole again when ``act`` returns."""

    name: str
    act: Callable[[Scene], None]
    #: The script of each order's PUTs, by its position.
    script: Callable[[int], Sequence[Answer]] = lambda _: ()
    pools: tuple[str, ...] = ('threads', 'prefork')
    workers: int = 1
    settings: Mapping[str, object] = field(default_factory=dict)
    #: Seconds that the shop takes at least to publish all orders.
    publishing: float = 8.0
    #: What is to be there before the first worker is started.
    prepare: Callable[[Scene], None] = lambda _: None
    #: Whether it goes on for as long as it is told to, and the orders as well.
    lasts: bool = False
    #: How often the shop publishes each order, at once.
    copies: int = 1
    #: Seconds within which 99 of 100 orders are to be called for; 0 if that is not asked.
    punctual: float = 0.0
    #: How many parked messages there are to be that are none of the orders'.
    strangers: int = 0
    #: Why repeated or overlapping PUTs cannot be ruled out, though seldom; elsewhere there must be none.
    unavoidable: str = ''


def run(broker: Broker, directory: Path, fault: Fault, pool: str, orders: int, patience: float = PATIENCE,
        kind: Kind = OURS, lasting: float = LASTING) -> Count:
    """Let the orders go through while the fault happens, and count."""
    began = time.monotonic()
    numbers = [f'EDX-{position}' for position in range(orders)]
    with Scene(broker, directory, pool, fault.settings, kind, lasting) as scene:
        scene.shop.add_orders(
            [Order(number, answers=list(fault.script(position))) for position, number in enumerate(numbers)])
        fault.prepare(scene)
        for _ in range(fault.workers):
            scene.start_worker()
        scene.await_consumer(fault.workers)
        # Long enough for several rounds of a fault, and no more than the worker can do.
        producer = Producer(broker.url, numbers, max(lasting if fault.lasts else fault.publishing,
                                                     orders * LATENCY * 1.5 / scene.concurrency), fault.copies)
        producer.start()
        time.sleep(1.5)
        wrong = []
        try:
            fault.act(scene)
        except (AssertionError, subprocess.TimeoutExpired) as error:
            if kind.promises:
                raise
            wrong.append(str(error).partition('\n')[0])
        scene.repaired = time.time()
        producer.join()
        scene.finish(producer.accepted, patience)
        wrong += scene.stop_workers(fault.workers)
        return count(scene, fault, producer, wrong, time.monotonic() - began)


def count(scene: Scene, fault: Fault, producer: Producer, wrong: list[str], seconds: float) -> Count:
    """Where each order is."""
    accepted = set(producer.accepted)
    book, calls = scene.shop.orders, scene.shop.calls
    complete = {number for number, order in book.items() if order.status == 'Complete'}
    keys = Counter(scene.parked())
    open_ = accepted - complete
    parked = open_ & set(keys)
    waiting = (open_ - parked) & scene.in_broker() if open_ - parked else set()
    strangers = sum(number for key, number in keys.items() if key not in book)
    expected = fault.strangers + scene.strangers
    if scene.kind.promises and not expected <= strangers <= expected + scene.kills:
        wrong.append(f'{strangers} strangers are parked instead of {expected}')
    puts = [call for call in calls if call.is_put]
    ends = [call.time + (call.duration or 0.0) for call in calls if call.order in accepted]
    first: dict[str, float] = defaultdict(lambda: math.inf)
    for call in puts:
        first[call.order or ''] = min(first[call.order or ''], call.time)
    waits = sorted(first[number] - producer.published[number] for number in accepted & first.keys())
    p50, p99 = (round(waits[min(len(waits) - 1, len(waits) * part // 100)], 3) if waits else 0.0 for part in (50, 99))
    return Count(
        fault=fault.name, pool=scene.pool, accepted=len(accepted), refused=len(producer.refused),
        fulfilled=len(accepted & complete), left_alone=len(set(_LEFT_ALONE.findall(scene.log())) & set(book)),
        waiting=len(waiting), parked=len(parked), missing=sorted(open_ - parked - waiting),
        repeated=sum(call.repeated for call in puts), overlapping=sum(call.overlapping for call in puts),
        twice=sorted(number for number, order in book.items() if order.fulfilments > 1), strangers=strangers,
        p50=p50, p99=p99, recovery=round(max(0.0, max(ends, default=0.0) - scene.repaired), 1),
        seconds=round(seconds, 1), wrong=wrong)


def at_once(calls: Sequence[Call]) -> int:
    """The most calls that were in progress at the same time."""
    steps = sorted([(call.time, 1) for call in calls] + [(call.time + (call.duration or 0.0), -1) for call in calls])
    most = current = 0
    for _, step in steps:
        current += step
        most = max(most, current)
    return most


def resident_megabytes(pid: int) -> float:
    """The memory in use of a process, without its children."""
    lines = Path(f'/proc/{pid}/status').read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith('VmRSS')) / 1024


def each(seconds: float, times: int) -> Iterator[int]:
    """The rounds of a fault, so many seconds apart."""
    for number in range(times):
        if number:
            time.sleep(seconds)
        yield number
