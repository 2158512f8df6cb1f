"""What an order costs: this worker, and what one might write in its place, in one run.

    make benchmark
    make benchmark ARGS=--quick
    make benchmark ARGS="--only worker --against ../before --repeat 5"
    make benchmark ARGS="--only worker --setting METRICS_ADDRESS=127.0.0.1:9464 --repeat 5"

Each program gets orders through a real RabbitMQ and calls a shop that takes a fixed time.  Programs take turns, and the
table has the median of their repetitions:

    CPU ms      user and system time of all processes of the program, for each order
    x           that, as a multiple of the first row's
    orders/s    from the first to the last order of a full queue
    MB          resident memory
    start       seconds from its start to its first order, and seconds of CPU until then
    p50, p99    milliseconds from publishing to the shop's call, at half of orders/s
    calls       system calls for each order, where there is strace (--strace)

Timings differ from machine to machine and from minute to minute: compare rows of one run.  CPU is what differs least
while a machine does other things too.  Reads /proc, so it runs on Linux.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from amqp import Channel, Message
from kombu import Connection

from benchmarks.processes import cpu_seconds, processes, resident_megabytes
from benchmarks.shop import Shop
from ecommerce_worker.testing.rabbitmq import PrivateNode

TASK: Final = 'ecommerce_worker.fulfillment.v1.tasks.fulfill_order'
HERE: Final = Path(__file__).resolve().parents[1]

#: Where `make benchmark` installs dramatiq.
DRAMATIQ: Final = HERE / '.cache' / 'benchmark' / 'bin' / 'dramatiq'

#: What a worker says some seconds after its start, if it is the only one; until then locks of orders are RabbitMQ's.
ALONE: Final = 'orders are locked on this machine only'

#: Seconds after which a program that calls for no order is given up.
PATIENCE: Final = 30.0

#: Seconds between two looks at what the shop has seen.
LOOK_SECONDS: Final = 0.1

Environment = Mapping[str, str]


@dataclass(frozen=True)
class Program:
    """What is measured: its command, and how an order is published for it."""

    name: str
    command: list[str]
    #: Which queue it consumes, and the arguments that it declares that with; '' for orders on standard input.
    queue: str = ''
    arguments: Mapping[str, str] = field(default_factory=dict)
    #: The message of an order.
    message: Callable[[str], Message] = lambda _: Message(b'')
    #: The working copy that it is run from.
    tree: Path = HERE
    #: What its log says once it works as it does from then on; '' for at once.
    settled: str = ''
    #: Further variables of its environment.
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Figures:
    """What one repetition found."""

    rate: float
    cpu: float
    memory: float
    start: float | None = None
    start_cpu: float | None = None
    p50: float | None = None
    p99: float | None = None
    calls: float | None = None


def celery_message(task: str, number: str, kwargs: Mapping[str, Any]) -> Message:
    """A task call as Celery publishes it."""
    id_ = str(uuid.uuid4())
    headers = {'lang': 'py', 'task': task, 'id': id_, 'root_id': id_, 'parent_id': None, 'group': None, 'retries': 0,
               'eta': None, 'expires': None, 'timelimit': [None, None], 'argsrepr': repr((number,)),
               'kwargsrepr': repr(kwargs), 'origin': 'gen1@shop', 'shadow': None, 'ignore_result': True}
    body = json.dumps([[number], kwargs, {'callbacks': None, 'errbacks': None, 'chain': None, 'chord': None}])
    return Message(body.encode(), content_type='application/json', content_encoding='utf-8', delivery_mode=2,
                   correlation_id=id_, application_headers=headers)


def dramatiq_message(number: str) -> Message:
    """A message as dramatiq publishes it."""
    body = {'queue_name': 'benchmark.dramatiq', 'actor_name': 'fulfil', 'args': [number], 'kwargs': {}, 'options': {},
            'message_id': str(uuid.uuid4()), 'message_timestamp': round(time.time() * 1000)}
    return Message(json.dumps(body).encode(), delivery_mode=2)


def programs(options: argparse.Namespace) -> Iterator[Program]:
    """All programs that can be had here."""
    python, threads = sys.executable, options.threads
    yield Program('bare requests loop', [python, '-m', 'benchmarks.peers.loop', str(threads)])
    if DRAMATIQ.exists():
        queue = 'benchmark.dramatiq'
        yield Program(
            'dramatiq', [str(DRAMATIQ), '--processes', '1', '--threads', str(threads),
                         'benchmarks.peers.dramatiq_actors'], queue,
            {'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': f'{queue}.XQ'}, dramatiq_message)
    yield Program(
        'stock Celery', [python, '-m', 'celery', '-A', 'benchmarks.peers.stock_celery', 'worker', '--pool', 'threads',
                         '--concurrency', str(threads)],
        'benchmark.celery', message=lambda number: celery_message('fulfil', number, {}))

    def worker(name: str, given: list[str], tree: Path = HERE, **settings: str) -> Program:
        return Program(
            name, [python, '-m', 'ecommerce_worker', 'worker', *given], 'ecommerce.fulfillment',
            message=lambda number: celery_message(TASK, number, {'site_code': 'edx', 'email_opt_in': True}),
            tree=tree, settled=ALONE,
            environment={f'ECOMMERCE_WORKER_{setting}': value for setting, value in settings.items()})

    trees = {'worker': HERE, **{f'worker of {Path(tree).name}': Path(tree).resolve() for tree in options.against}}
    for name, tree in trees.items():
        for kind, given in ((' as shipped', []), (f', {threads} threads', ['--concurrency', str(threads)])):
            yield worker(f'{name}{kind}', given, tree)
        yield worker(f'{name}, {options.processes} processes', [
            '--processes', str(options.processes), '--concurrency', str(-(-threads // options.processes))], tree)
    for setting in options.setting:
        name, _, value = setting.partition('=')
        yield worker(f'worker, {threads} threads, {setting}', ['--concurrency', str(threads)], **{name: value})


class Running:
    """A program that runs, with a RabbitMQ and a shop of its own."""

    def __init__(self, program: Program, channel: Channel, shop: Shop, environment: Environment, log: Path) -> None:
        self._program = program
        self._channel = channel
        self._shop = shop
        self._log = log
        self.began = time.time()
        with log.open('wb') as output:
            self._process = subprocess.Popen(
                program.command, env={**environment, **program.environment, 'PYTHONPATH': str(program.tree)},
                cwd=program.tree, stdin=subprocess.PIPE, stdout=output, stderr=output, start_new_session=True)
        self.pid = self._process.pid
        self.published: dict[str, float] = {}

    def publish(self, numbers: Iterable[str]) -> None:
        """Publish orders."""
        for number in numbers:
            self.published[number] = time.time()
            if self._program.queue:
                self._channel.basic_publish(self._program.message(number), routing_key=self._program.queue)
            elif self._process.stdin:
                self._process.stdin.write(f'{number}\n'.encode())
                self._process.stdin.flush()

    def wait_for(self, count: int) -> None:
        """Wait until the shop was called for so many orders in all; SystemExit if nothing moves any more."""
        until, before = time.monotonic() + PATIENCE, -1
        while (seen := self._shop.look()) < count:
            if seen > before:
                until, before = time.monotonic() + PATIENCE, seen
            if self._process.poll() is not None or time.monotonic() > until:
                raise SystemExit(f'{self._program.name} stands still at {seen} of {count} orders:\n'
                                 + self._log.read_text()[-1000:])
            time.sleep(LOOK_SECONDS)

    def settle(self) -> None:
        """Wait until it works as it does from then on."""
        until = time.monotonic() + PATIENCE
        while self._program.settled not in self._log.read_text(errors='replace') and time.monotonic() < until:
            time.sleep(LOOK_SECONDS)
        time.sleep(1.0)

    def end(self) -> None:
        """Stop it in good order."""
        if self._process.stdin:
            with suppress(OSError):
                self._process.stdin.close()
        if self._program.queue:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()


@contextmanager
def running(program: Program, node: PrivateNode, channel: Channel, shop: Shop) -> Iterator[Running]:
    """The program, until the end of the block."""
    environment = {
        **os.environ,
        'BENCHMARK_BROKER': node.url, 'BENCHMARK_SHOP': shop.url,
        'WORKER_CONFIGURATION_MODULE': 'ecommerce_worker.configuration.local',
        'ECOMMERCE_WORKER_BROKER_URL': node.url,
        'ECOMMERCE_WORKER_ECOMMERCE_API_ROOT': f'{shop.url}/api/v2/',
        'ECOMMERCE_WORKER_BACKEND_SERVICE_EDX_OAUTH2_PROVIDER_URL': f'{shop.url}/oauth2',
        'ECOMMERCE_WORKER_BACKEND_SERVICE_EDX_OAUTH2_KEY': 'a-key',
        'ECOMMERCE_WORKER_BACKEND_SERVICE_EDX_OAUTH2_SECRET': 'a-secret',
    }
    with tempfile.TemporaryDirectory() as directory:
        found = Running(program, channel, shop, environment, Path(directory) / 'log')
        try:
            yield found
        finally:
            found.end()


def measure(program: Program, node: PrivateNode, options: argparse.Namespace) -> Figures:
    """One repetition."""
    with Connection(node.url) as connection, closing(connection.channel()) as channel, Shop(options.latency) as shop:
        if program.queue:
            channel.queue_declare(program.queue, durable=True, auto_delete=False, arguments=dict(program.arguments))
            channel.queue_purge(program.queue)
        with running(program, node, channel, shop) as it:
            # One order first, for what is built then; then all threads at once.
            warm = 2 * options.threads
            it.publish(['EDX-0'])
            it.wait_for(1)
            start, start_cpu = shop.called['EDX-0'] - it.began, cpu_seconds(it.pid)
            it.publish(_numbers(1, warm))
            it.wait_for(warm)
            it.settle()
            cpu, first, last = cpu_seconds(it.pid), warm, warm + options.orders
            it.publish(_numbers(first, last))
            it.wait_for(last)
            called = [shop.called[number] for number in _numbers(first, last)]
            rate = options.orders / (max(called) - min(called))
            # What is told of them is theirs, too.
            time.sleep(1.0)
            found = Figures(rate, (cpu_seconds(it.pid) - cpu) / options.orders * 1000, resident_megabytes(it.pid))
            if program.queue:
                found.start, found.start_cpu = start, start_cpu
            if options.seconds:
                last = _at_half_load(it, shop, found, last, options.seconds)
            if options.strace:
                found.calls = _system_calls(it, last, options.orders // 4)
            return found


def _numbers(first: int, last: int) -> list[str]:
    return [f'EDX-{number}' for number in range(first, last)]


def _at_half_load(it: Running, shop: Shop, found: Figures, first: int, seconds: float) -> int:
    """Find out how long an order takes from being published to being called for; returns the next number."""
    pace, begun = found.rate / 2, time.monotonic()
    numbers = _numbers(first, first + int(pace * seconds))
    for place, number in enumerate(numbers):
        time.sleep(max(0.0, begun + place / pace - time.monotonic()))
        it.publish([number])
    it.wait_for(first + len(numbers))
    took = sorted((shop.called[number] - it.published[number]) * 1000 for number in numbers)
    found.p50, found.p99 = took[len(took) // 2], took[len(took) * 99 // 100]
    return first + len(numbers)


def _system_calls(it: Running, first: int, count: int) -> float | None:
    """How many system calls an order takes; None if they cannot be counted."""
    program = shutil.which('strace')
    if not program:
        return None
    with tempfile.NamedTemporaryFile('r') as counted:
        pids = [option for pid in processes(it.pid) for option in ('-p', str(pid))]
        tracing = subprocess.Popen([program, '-f', '-qq', '-c', '-o', counted.name, *pids])
        time.sleep(1.0)
        if tracing.poll() is None:
            it.publish(_numbers(first, first + count))
            it.wait_for(first + count)
            time.sleep(1.0)
            tracing.send_signal(signal.SIGINT)
        tracing.wait()
        totals = [line.split() for line in counted.read().splitlines() if line.endswith(' total')]
    return int(totals[-1][-2 - (len(totals[-1]) == 6)]) / count if totals else None


COLUMNS: Final = (('CPU ms', 'cpu', '.2f'), ('orders/s', 'rate', '.0f'), ('MB', 'memory', '.0f'),
                  ('start', 'start', '.2f'), ('CPU s', 'start_cpu', '.2f'), ('p50', 'p50', '.0f'),
                  ('p99', 'p99', '.0f'), ('calls', 'calls', '.0f'))


def table(found: Mapping[str, list[Figures]]) -> str:
    """The medians, a line for each program."""
    wide = max(map(len, found))
    lines = [f'{"":{wide}}' + ''.join(f'{title:>10}' + ('     x' if title == 'CPU ms' else '')
                                      for title, *_ in COLUMNS)]
    reference = None
    for name, figures in found.items():
        cells = []
        for _, attribute, form in COLUMNS:
            values = [value for each in figures if (value := getattr(each, attribute)) is not None]
            middle = statistics.median(values) if values else None
            cells.append(f'{"-" if middle is None else format(middle, form):>10}')
            if attribute == 'cpu' and middle is not None:
                reference = reference or middle
                cells.append(f'{middle / reference:6.2f}')
        lines.append(f'{name:{wide}}' + ''.join(cells))
    return '\n'.join(lines)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--orders', type=int, default=3000, help='of each repetition')
    parser.add_argument('--latency', type=float, default=0.1, help='seconds that the shop takes for each call')
    parser.add_argument('--threads', type=int, default=100)
    parser.add_argument('--processes', type=int, default=2, help='of the row with several, which share the threads')
    parser.add_argument('--repeat', type=int, default=3)
    parser.add_argument('--seconds', type=float, default=5.0, help='at half load; 0 for none')
    parser.add_argument('--only', action='append', default=[], metavar='TEXT', help='programs whose names have this')
    parser.add_argument('--against', action='append', default=[], metavar='DIRECTORY',
                        help='another working copy of this worker, measured beside it')
    parser.add_argument('--setting', action='append', default=[], metavar='NAME=VALUE',
                        help='a setting of this worker, measured beside it without')
    parser.add_argument('--strace', action='store_true', help='count system calls, which takes its time')
    parser.add_argument('--quick', action='store_true', help='600 orders, once, for a first impression')
    options = parser.parse_args()
    if options.quick:
        options.orders, options.repeat, options.seconds = min(options.orders, 600), 1, min(options.seconds, 2.0)
    chosen = [it for it in programs(options) if not options.only or any(text in it.name for text in options.only)]
    print(f'{options.orders} orders, a shop of {options.latency * 1000:.0f} ms, {os.cpu_count()} cores, '
          f'median of {options.repeat}', flush=True)
    if not DRAMATIQ.exists():
        print('without dramatiq, which `make benchmark` installs')
    found: dict[str, list[Figures]] = {it.name: [] for it in chosen}
    with PrivateNode() as node:
        for turn in range(options.repeat):
            # Whoever is first in one turn is last in the next.
            for program in chosen if turn % 2 == 0 else chosen[::-1]:
                found[program.name].append(it := measure(program, node, options))
                if sys.stderr.isatty():
                    print(f'{program.name}: {it}', file=sys.stderr, flush=True)
    print(table(found))


if __name__ == '__main__':
    main()
