"""What one order costs: N orders through a real RabbitMQ and a shop of fixed latency, for this worker as shipped.

    make benchmark ARGS="--orders 3000 --latency 0.1"
    make benchmark ARGS="--repeat 7 --against METRICS_ADDRESS=127.0.0.1:9464"

Prints orders per second, CPU milliseconds of the worker per order (its start not counted), its resident memory, and
how many processes it is.
Timings differ from machine to machine and from minute to minute: compare pairs of one run (--repeat), on one machine.
With --against each run has a twin with that setting, and what it costs is told pair by pair.
Reads /proc, so it runs on Linux.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from celery import Celery

from ecommerce_worker.testing.rabbitmq import PrivateNode
from ecommerce_worker.testing.shop import CLIENT_ID, CLIENT_SECRET, ShopProcess

QUEUE = 'ecommerce.fulfillment'
TASK = 'ecommerce_worker.fulfillment.v1.tasks.fulfill_order'


def processes(pid: int) -> list[int]:
    """The process and its descendants (children of a prefork pool)."""
    children = Path(f'/proc/{pid}/task/{pid}/children').read_text().split()
    return [pid, *(found for child in children for found in processes(int(child)))]


def cpu_seconds(pid: int) -> float:
    """User and system time that the process and its descendants have used."""
    ticks = 0
    for each in processes(pid):
        fields = Path(f'/proc/{each}/stat').read_text().rpartition(')')[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf('SC_CLK_TCK')


def resident_megabytes(pid: int) -> float:
    """Memory in use, what processes share counted once for each."""
    lines = (line for each in processes(pid) for line in Path(f'/proc/{each}/status').read_text().splitlines())
    return sum(int(line.split()[1]) for line in lines if line.startswith('VmRSS')) / 1024


def measure(node: PrivateNode, options: argparse.Namespace,
            changed: Mapping[str, str] = {}) -> tuple[float, float, float, int]:
    """Orders per second, CPU milliseconds per order, resident megabytes, processes; with these settings changed."""
    with tempfile.TemporaryDirectory() as directory, ShopProcess(Path(directory), latency=options.latency) as shop:
        shop_app = Celery('shop', broker=node.url)
        numbers = [f'EDX-{number}' for number in range(options.orders)]
        shop.tell('add', [{'number': number} for number in numbers])
        environment = {
            **os.environ,
            'WORKER_CONFIGURATION_MODULE': 'ecommerce_worker.configuration.local',
            'ECOMMERCE_WORKER_BROKER_URL': node.url,
            'ECOMMERCE_WORKER_ECOMMERCE_API_ROOT': shop.api_root,
            'ECOMMERCE_WORKER_BACKEND_SERVICE_EDX_OAUTH2_PROVIDER_URL': shop.oauth2_root,
            'ECOMMERCE_WORKER_BACKEND_SERVICE_EDX_OAUTH2_KEY': CLIENT_ID,
            'ECOMMERCE_WORKER_BACKEND_SERVICE_EDX_OAUTH2_SECRET': CLIENT_SECRET,
            **{f'ECOMMERCE_WORKER_{name}': value for name, value in changed.items()},
        }
        command = [sys.executable, '-m', 'ecommerce_worker', 'worker', *options.worker]
        with (Path(directory) / 'worker.log').open('wb') as log:
            worker = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            with shop_app.connection_for_write() as connection:
                channel = connection.channel()
                channel.queue_declare(queue=QUEUE, durable=True, auto_delete=False)
                while not channel.queue_declare(queue=QUEUE, passive=True).consumer_count:
                    if worker.poll() is not None:
                        raise SystemExit((Path(directory) / 'worker.log').read_text())
                    time.sleep(0.1)
            for number in numbers[:options.concurrency]:  # warm up: connections, token, threads
                shop_app.send_task(TASK, (number,), queue=QUEUE)
            wait_for(shop, options.concurrency)
            cpu, begun = cpu_seconds(worker.pid), time.monotonic()
            with shop_app.producer_pool.acquire(block=True) as producer:
                for number in numbers[options.concurrency:]:
                    shop_app.send_task(TASK, (number,), {'site_code': 'edx', 'email_opt_in': True}, queue=QUEUE,
                                       producer=producer)
            wait_for(shop, options.orders)
            seconds, count = time.monotonic() - begun, options.orders - options.concurrency
            time.sleep(0.5)
            return (count / seconds, (cpu_seconds(worker.pid) - cpu) / count * 1000,
                    resident_megabytes(worker.pid), len(processes(worker.pid)))
        finally:
            worker.send_signal(signal.SIGTERM)
            worker.wait(30)


def wait_for(shop: ShopProcess, count: int) -> None:
    """Wait until so many orders have been called for, looking at the size of the shop's log only now and then."""
    while True:
        time.sleep(0.2)
        if not shop.log.exists():
            continue
        fulfilled = sum(1 for line in shop.log.read_bytes().splitlines() if b'"status": 200' in line and b'PUT' in line)
        if fulfilled >= count:
            return


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--orders', type=int, default=3000)
    parser.add_argument('--latency', type=float, default=0.1, help='seconds that the shop takes for each call')
    parser.add_argument('--concurrency', type=int, default=32, help='of the worker')
    parser.add_argument('--pool', default='threads')
    parser.add_argument('--repeat', type=int, default=3)
    parser.add_argument('--against', default='', metavar='NAME=VALUE',
                        help='measure pairs, one of each with this setting')
    options = parser.parse_args()
    options.worker = ['--pool', options.pool, '--concurrency', str(options.concurrency)]
    print(f'{options.orders} orders, shop latency {options.latency * 1000:.0f} ms, '
          f'{options.pool} pool of {options.concurrency}')
    print('orders/s  CPU ms/order  resident MB  processes')
    with PrivateNode() as node:
        if options.against:
            compare(node, options)
            return
        for _ in range(options.repeat):
            show(measure(node, options))


def show(measured: tuple[float, float, float, int], what: str = '') -> None:
    """Print a row of the table."""
    rate, cpu, memory, count = measured
    print(f'{rate:8.1f}  {cpu:12.2f}  {memory:11.0f}  {count:9d}  {what}'.rstrip(), flush=True)


def compare(node: PrivateNode, options: argparse.Namespace) -> None:
    """Measure pairs, of which every other one begins with the setting, and print by how much its CPU time is more."""
    name, _, value = options.against.partition('=')
    more = []
    for number in range(options.repeat):
        found = {}
        for changed in ({}, {name: value})[::-1 if number % 2 else 1]:
            found[bool(changed)] = measure(node, options, changed)
            show(found[bool(changed)], options.against if changed else '')
        more.append((found[True][1] / found[False][1] - 1) * 100)
    print(f'CPU per order with {options.against}: ' + ', '.join(f'{each:+.1f} %' for each in more)
          + f'; median {statistics.median(more):+.1f} %')


if __name__ == '__main__':
    main()
