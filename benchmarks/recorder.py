"""How many facts a recorder writes into its ledger in a second.

    python -m benchmarks.recorder
    python -m benchmarks.recorder --facts 20000 --repeat 5 --database sqlite

Publishes facts as workers do, two of each order (a try that failed, and one that did not), starts a recorder, and waits
until the ledger has all of them.  Prints the median of its repetitions: facts a second from the first to the last one
that is written, CPU milliseconds of the recorder for each, and its resident memory.  PostgreSQL writes to the disk, as
SQLite does.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from tempfile import TemporaryDirectory
from typing import Any

from kombu import Connection

from benchmarks.processes import cpu_seconds, environment, resident_megabytes
from ecommerce_worker.broker import publishing, topology
from ecommerce_worker.broker.transport import corked
from ecommerce_worker.fulfillment.names import FULFILL
from ecommerce_worker.telemetry.run import RunReport
from ecommerce_worker.testing.rabbitmq import PrivateNode
from ecommerce_worker.tests.support.ledger import PrivatePostgres

#: Seconds between two looks into the queue.
LOOK_SECONDS = 0.02


class Postgres(PrivatePostgres):
    """The one of the tests, but that it waits for the disk."""

    running = PrivatePostgres.running.replace(' -c fsync=off', '')


def publish(node: PrivateNode, count: int) -> None:
    """Publish so many facts."""
    teller = uuid.uuid4().hex
    with Connection(node.url) as connection, closing(connection.channel()) as channel:
        topology.declare_facts(connection)
        with corked(channel):
            for number in range(count):
                order, again = divmod(number, 2)
                report = RunReport(
                    'done' if again else 'retrying', task=FULFILL, id=f'{teller}-{order}',
                    key=f'EDX-{teller[:8]}-{order}',
                    site=f'site-{order % 50}', attempt=1 + again, queue='ecommerce.fulfillment', worker='worker-1',
                    started=time.time(), seconds=0.1, reason='' if again else 'the shop failed (503)',
                    teller=teller, number=number + 1)
                publishing.send(channel, publishing.fact_message(channel, report.as_body()), topology.FACTS,
                                report.routing_key, mandatory=False)


def left(connection: Connection) -> int:
    """How many facts are in the queue, in the recorder's hands or not: the queue is empty once it has stopped too."""
    found = topology.depth(connection, topology.LEDGER)
    return found.messages if found else 0


def measure(node: PrivateNode, environment: dict[str, str], count: int) -> tuple[float, float, float]:
    """Facts a second, CPU milliseconds for each, and megabytes."""
    publish(node, count)
    with Connection(node.url) as connection:
        while left(connection) < count:
            time.sleep(LOOK_SECONDS)
        recorder = subprocess.Popen([sys.executable, '-m', 'ecommerce_worker', 'recorder'], env=environment,
                                    stderr=subprocess.DEVNULL)
        try:
            # From the first batch on: what a program needs to begin is measured elsewhere.
            while (begin := left(connection)) == count:
                time.sleep(LOOK_SECONDS)
            if not begin:
                raise SystemExit(f'{count} facts are too few to measure, they are one batch: use --facts 5000')
            begun, before = time.monotonic(), cpu_seconds(recorder.pid)
            while left(connection):
                time.sleep(LOOK_SECONDS)
            seconds = time.monotonic() - begun
            used = cpu_seconds(recorder.pid) - before
            return begin / seconds, used / begin * 1000, resident_megabytes(recorder.pid)
        finally:
            recorder.terminate()
            recorder.wait(60)


@contextmanager
def databases(names: list[str]) -> Iterator[dict[str, dict[str, Any]]]:
    """A database of each of these kinds."""
    with ExitStack() as stack:
        found = dict[str, dict[str, Any]]()
        if 'sqlite' in names:
            directory = stack.enter_context(TemporaryDirectory())
            found['SQLite'] = {'ENGINE': 'django.db.backends.sqlite3', 'NAME': f'{directory}/ledger.sqlite3'}
        if 'postgresql' in names:
            found['PostgreSQL'] = stack.enter_context(Postgres()).database
        yield found


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--facts', type=int, default=10_000)
    parser.add_argument('--repeat', type=int, default=3)
    parser.add_argument('--database', nargs='*', default=['sqlite', 'postgresql'], choices=['sqlite', 'postgresql'])
    options = parser.parse_args()
    found: dict[str, list[tuple[float, float, float]]] = {}
    with PrivateNode() as node, databases(options.database) as given:
        # By turns: the machine is not the same from minute to minute.
        for number in range(options.repeat):
            for name, database in given.items():
                given_to = environment(BROKER_URL=node.url, DATABASES={'default': database})
                if not number:
                    subprocess.run([sys.executable, '-m', 'ecommerce_worker', 'migrate'], env=given_to, check=True,
                                   stdout=subprocess.DEVNULL)
                found.setdefault(name, []).append(measure(node, given_to, options.facts))
    print(f'{options.facts} facts, median of {options.repeat}, load {os.getloadavg()[0]:.1f}')
    print(f'{"":12}{"facts/s":>10}{"CPU ms":>10}{"MB":>8}')
    for name, rows in found.items():
        rate, cpu, memory = (statistics.median(column) for column in zip(*rows, strict=True))
        print(f'{name:12}{rate:10.0f}{cpu:10.2f}{memory:8.0f}')


if __name__ == '__main__':
    main()
