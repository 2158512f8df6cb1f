"""Whether a worker stays as it is, whatever waits: retries that are all due at once, and many orders that wait.

    python -m benchmarks.waiting
    python -m benchmarks.waiting --due 2000 --waiting 20000 --sites 2000

Prints resident memory and CPU of the worker, and seconds of ``status`` and of the readiness check: with nothing to do,
while so many retries come due in one second, after them, and with so many orders in the waiting room.
``--sites`` gives the configuration so many sites of their own; the orders are then of all of them in turn.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import yaml
from kombu import Connection

from benchmarks.processes import cpu_seconds, environment, resident_megabytes
from benchmarks.shop import Shop
from ecommerce_worker.broker import publishing, topology
from ecommerce_worker.broker.notes import Notes
from ecommerce_worker.broker.transport import corked
from ecommerce_worker.broker.wire import Call
from ecommerce_worker.fulfillment.names import FULFILL
from ecommerce_worker.testing.rabbitmq import PrivateNode

QUEUE: Final = 'ecommerce.fulfillment'

#: Seconds that the shop takes.
LATENCY: Final = 0.02

#: Seconds between two looks.
LOOK_SECONDS: Final = 0.1


class Bench:
    """A worker with a RabbitMQ and a shop of its own, and what is asked of it."""

    def __init__(self, node: PrivateNode, shop: Shop, environment: dict[str, str], pid: int, sites: int) -> None:
        self._node = node
        self._shop = shop
        self._environment = environment
        self._pid = pid
        self._sites = sites
        self._published = 0

    def publish(self, count: int, due: float) -> None:
        """Publish so many retries of orders that are due then, in epoch seconds; at once if that is over."""
        with Connection(self._node.url) as connection, closing(connection.channel()) as channel:
            for begin in range(0, count, 500):
                with corked(channel):
                    for number in range(self._published + begin, self._published + min(begin + 500, count)):
                        call = Call(FULFILL, f'{number:08}', (f'EDX-{number}',),
                                    {'site_code': f'site-{number % self._sites}'} if self._sites else {})
                        notes = Notes(queue=QUEUE, attempt=3, refusals=3)
                        wait = due - time.time()
                        found = publishing.waiting_call(call, notes, wait) if wait > 0 else publishing.new_call(
                            call, notes)
                        exchange, key = found.address(connection)
                        publishing.send(channel, publishing.prepared(found, connection, channel), exchange, key,
                                        mandatory=False)
        self._published += count

    def await_calls(self) -> float:
        """Return when the shop was called for all of them; the most memory meanwhile."""
        most = 0.0
        while self._shop.look() < self._published:
            most = max(most, resident_megabytes(self._pid))
            time.sleep(LOOK_SECONDS)
        return most

    def await_waiting(self, count: int) -> None:
        """Return when so many are in the waiting room."""
        with Connection(self._node.url) as connection:
            while topology.waiting(connection) < count:
                time.sleep(LOOK_SECONDS)

    def row(self, what: str, memory: float | None = None) -> None:
        """Print how it stands."""
        words = [sys.executable, '-m']
        status = self._timed([*words, 'ecommerce_worker', 'status'])
        ready = self._timed([*words, 'ecommerce_worker.health', '--ready'])
        print(f'{what:36}{memory or resident_megabytes(self._pid):8.0f}{cpu_seconds(self._pid):10.1f}{status:10.2f}'
              f'{ready:10.2f}', flush=True)

    def _timed(self, words: list[str]) -> float:
        times = []
        for _ in range(3):
            begun = time.monotonic()
            subprocess.run(words, env=self._environment, check=False, capture_output=True)
            times.append(time.monotonic() - begun)
        return statistics.median(times)


@contextmanager
def bench(options: argparse.Namespace) -> Iterator[Bench]:
    """A worker that has had its first order."""
    with PrivateNode() as node, Shop(LATENCY) as shop, tempfile.TemporaryDirectory() as made:
        directory = Path(made)
        site = {'ECOMMERCE_API_ROOT': f'{shop.url}/api/v2/',
                'BACKEND_SERVICE_EDX_OAUTH2_PROVIDER_URL': f'{shop.url}/oauth2',
                'BACKEND_SERVICE_EDX_OAUTH2_KEY': 'a-key', 'BACKEND_SERVICE_EDX_OAUTH2_SECRET': 'a-secret'}
        (directory / 'worker.yaml').write_text(yaml.safe_dump({
            'BROKER_URL': node.url, **site, 'HEALTH_DIR': str(directory / 'health'),
            # There is none.
            'DATABASES': {'default': {'NAME': str(directory / 'ledger.sqlite3')}},
            'SITE_OVERRIDES': {f'site-{number}': {**site, 'BACKEND_SERVICE_EDX_OAUTH2_KEY': f'key-{number}'}
                               for number in range(options.sites)}}))
        given = environment(CFG=directory / 'worker.yaml')
        with (directory / 'log').open('wb') as log:
            worker = subprocess.Popen([sys.executable, '-m', 'ecommerce_worker', 'worker'], env=given, stdout=log,
                                      stderr=log)
        try:
            begun = time.monotonic()
            with Connection(node.url) as connection:
                while not ((found := topology.depth(connection, QUEUE)) and found.consumers):
                    if worker.poll() is not None:
                        raise SystemExit((directory / 'log').read_text()[-2000:])
                    time.sleep(0.02)
            print(f'{options.sites} sites; consumes after {time.monotonic() - begun:.1f} s')
            yield Bench(node, shop, given, worker.pid, options.sites)
        finally:
            worker.terminate()
            worker.wait(60)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--due', type=int, default=10_000)
    parser.add_argument('--waiting', type=int, default=100_000)
    parser.add_argument('--sites', type=int, default=0)
    options = parser.parse_args()
    with bench(options) as it:
        print(f'{"":36}{"MB":>8}{"CPU s":>10}{"status s":>10}{"ready s":>10}')
        it.publish(options.sites or 100, 0)
        it.await_calls()
        it.row('nothing to do')
        due = time.time() + 10 + options.due / 1000
        it.publish(options.due, due)
        time.sleep(max(0.0, due - time.time()))
        it.row(f'{options.due} retries are due')
        most = it.await_calls()
        it.row(f'... done after {time.time() - due:.0f} s at most', most)
        it.publish(options.waiting, time.time() + 36_000)
        it.await_waiting(options.waiting)
        it.row(f'{options.waiting} orders wait')
        print(f'load {os.getloadavg()[0]:.1f}')


if __name__ == '__main__':
    main()
