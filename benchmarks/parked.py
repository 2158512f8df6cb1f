"""How long a command takes that sends many parked messages again, through a real RabbitMQ, and a shop that is asked.

    python -m benchmarks.parked --messages 2000

Prints messages per second, and CPU milliseconds of the command for each, without a ledger, with one in SQLite, and once
a recorder has taken them into that.  What is flat takes twice as long for twice as many.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from kombu import Connection

from benchmarks.shop import Shop
from ecommerce_worker.broker import publishing, topology
from ecommerce_worker.broker.notes import Notes, ParkingNote
from ecommerce_worker.broker.wire import Call
from ecommerce_worker.fulfillment.names import FULFILL
from ecommerce_worker.testing.rabbitmq import PrivateNode

QUEUE = 'ecommerce.fulfillment'

#: Where they are parked, and whether who resends them is on record.
PLACES = ('without a ledger', 'with a ledger', 'in the ledger')


def park(node: PrivateNode, count: int) -> None:
    """Park so many orders."""
    notes = Notes(queue=QUEUE, attempt=12, history=({'at': time.time(), 'reason': 'the shop failed (500)'},))
    with Connection(node.url) as connection, closing(connection.channel()) as channel:
        channel.queue_declare(QUEUE, durable=True, auto_delete=False)
        topology.declare_parked(connection)
        for number in range(count):
            call = Call(FULFILL, f'{number:08}', (f'EDX-{number}',))
            note = ParkingNote(id=call.id, task=FULFILL, key=f'EDX-{number}', reason='it failed (500)', notes=notes)
            message = publishing.parked_message(publishing.new_call(call, notes).raw, note)
            channel.basic_publish(publishing.prepared(message, connection, channel), routing_key=topology.PARKED)


def taken(node: PrivateNode, environment: dict[str, str]) -> None:
    """Have a recorder take them into the ledger."""
    recorder = subprocess.Popen([sys.executable, '-m', 'ecommerce_worker', 'recorder'], env=environment,
                                stderr=subprocess.DEVNULL)
    with Connection(node.url) as connection:
        while (found := topology.depth(connection, topology.PARKED)) and found.messages:
            time.sleep(0.1)
    # It writes and acknowledges what it has in hand.
    recorder.terminate()
    recorder.wait(60)


def measure(node: PrivateNode, count: int, directory: Path, where: str) -> tuple[float, float]:
    """Seconds, and seconds of CPU."""
    with Shop(0) as shop:
        environment = {
            **os.environ, 'WORKER_CONFIGURATION_MODULE': 'ecommerce_worker.configuration.local',
            'ECOMMERCE_WORKER_BROKER_URL': node.url, 'ECOMMERCE_WORKER_ECOMMERCE_API_ROOT': f'{shop.url}/api/v2/',
            'ECOMMERCE_WORKER_BACKEND_SERVICE_EDX_OAUTH2_PROVIDER_URL': f'{shop.url}/oauth2',
            'ECOMMERCE_WORKER_BACKEND_SERVICE_EDX_OAUTH2_KEY': 'a-key',
            'ECOMMERCE_WORKER_BACKEND_SERVICE_EDX_OAUTH2_SECRET': 'a-secret',
            'HOME': str(directory)}
        command = [sys.executable, '-m', 'ecommerce_worker']
        if where != PLACES[0]:
            subprocess.run([*command, 'migrate'], env=environment, check=True, stdout=subprocess.DEVNULL)
        if where == PLACES[2]:
            taken(node, environment)
        begun, before = time.monotonic(), os.times()
        done = subprocess.run([*command, 'parked', 'resend', '--all'], env=environment, check=False, text=True,
                              capture_output=True)
        after = os.times()
        if f'{count} messages resent' not in done.stdout:
            raise SystemExit(done.stdout[-500:] + done.stderr[-500:])
        return time.monotonic() - begun, (after.children_user - before.children_user
                                          + after.children_system - before.children_system)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--messages', type=int, default=2000)
    options = parser.parse_args()
    print(f'{"":18}{"messages":>10}{"seconds":>10}{"a second":>10}{"CPU ms":>10}')
    with PrivateNode() as node:
        for where in PLACES:
            for count in (options.messages // 2, options.messages):
                with tempfile.TemporaryDirectory() as directory:
                    park(node, count)
                    seconds, cpu = measure(node, count, Path(directory), where)
                    print(f'{where:18}{count:10}{seconds:10.1f}'
                          f'{count / seconds:10.0f}{cpu / count * 1000:10.2f}', flush=True)


if __name__ == '__main__':
    main()
