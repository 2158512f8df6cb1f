"""Break everything while orders go through, and count what became of each.

    make chaos ARGS="--orders 300 --json chaos.json"

Each run starts with empty queues, a new shop and new workers on a private RabbitMQ; the exit status is 1 if an order
is missing, or was called for again though nothing made that unavoidable.

    make chaos ARGS="--worker stock"

does the same to stock Celery with the settings of the worker that ours replaces, and only counts: `missing` are the
orders that were accepted, never fulfilled, and are in no queue any more.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from ecommerce_worker.tests.chaos import cluster, intake, outage
from ecommerce_worker.tests.chaos.faults import FAULTS
from ecommerce_worker.tests.chaos.harness import LASTING, OURS, STOCK, Count, run
from ecommerce_worker.tests.support.harness import Broker
from ecommerce_worker.tests.support.rabbitmq import Node

COLUMNS = ('accepted', 'refused', 'fulfilled', 'left_alone', 'waiting', 'parked', 'missing', 'repeated', 'overlapping',
           'twice', 'strangers', 'p50', 'p99', 'recovery', 'seconds')

KINDS = {kind.name: kind for kind in (OURS, STOCK)}

#: Short forms of others, which are for the tests.
SHORT = ('worker-killed-twice', 'rabbitmq-killed-once')


def words(given: str) -> list[str]:
    """A list separated by commas."""
    return [word for word in given.split(',') if word]


def row(counted: Count) -> str:
    """One line of the table."""
    values = (getattr(counted, name) for name in COLUMNS)
    cells = ' '.join(f'{len(value) if isinstance(value, list) else value:>11}' for value in values)
    return f'{counted.fault:<26}{counted.pool:<8}{cells}'


def main() -> int:
    """Run what is asked for; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--orders', type=int, default=200, help='of each run')
    parser.add_argument('--faults', type=words, default=[name for name in FAULTS if name not in SHORT],
                        help='some of: ' + ', '.join(FAULTS))
    parser.add_argument('--lasting', type=float, default=LASTING, metavar='SECONDS',
                        help='of the faults that go on and on (what is slow beside what is not)')
    parser.add_argument('--pools', type=words, default=['threads', 'prefork'], help='threads, prefork or both')
    parser.add_argument('--worker', choices=KINDS, default=OURS.name, help='stock: see above; prefork only')
    parser.add_argument('--outage', type=int, default=0, metavar='ORDERS',
                        help='then have so many orders wait for a shop that is down for --down seconds')
    parser.add_argument('--down', type=float, default=60)
    parser.add_argument('--cluster', type=int, default=0, metavar='ORDERS',
                        help='then kill a node of three while so many orders go through, twice: on a new installation, '
                             'and on one whose parked queue is a classic one on that node')
    parser.add_argument('--intake', type=int, default=0, metavar='ORDERS',
                        help='then have so many orders posted to the intake in each of its runs: '
                             + ', '.join(intake.FAULTS))
    parser.add_argument('--json', type=Path, help='file that gets the numbers')
    options = parser.parse_args()
    if unknown := [name for name in options.faults if name not in FAULTS]:
        parser.error(f'no such fault: {", ".join(unknown)}')
    kind = KINDS[options.worker]
    if (options.outage or options.cluster or options.intake) and not kind.promises:
        parser.error('--outage, --cluster and --intake are for our own worker')

    good, found = True, []
    about = {'date': time.strftime('%Y-%m-%d', time.gmtime()), 'python': platform.python_version(),
             'celery': version('celery'), 'kombu': version('kombu'), 'orders': options.orders, 'worker': kind.name}
    with Node() as node:
        about['rabbitmq'] = node.ctl('version').strip()
        print(' '.join(f'{name}={value}' for name, value in about.items()))
        print(f'{"fault":<26}{"pool":<8}' + ' '.join(f'{name:>11}' for name in COLUMNS), flush=True)
        for name in options.faults:
            fault = FAULTS[name]
            for pool in (it for it in options.pools if it in fault.pools and it in kind.pools):
                with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
                    counted = run(Broker(node), Path(directory), fault, pool, options.orders, kind=kind,
                                  lasting=options.lasting)
                kept = counted.holds(fault)
                good = good and (kept or not kind.promises)
                found.append(counted.as_json() | {'kept': kept})
                print(row(counted), '' if kept else f' NOT KEPT {counted.missing[:5]} {counted.wrong}', flush=True)
        story = None
        if options.outage:
            with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
                story = outage.run(Broker(node), Path(directory), options.outage, options.down)
            good = good and story.kept
            print(story)
    stories = []
    for classic in (False, True) if options.cluster else ():
        stories.append(cluster.run(options.cluster, classic=classic))
        good = good and stories[-1].kept
        print(stories[-1])
    posted = []
    for name in intake.FAULTS if options.intake else ():
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory, \
                Node(Path(directory) / 'node') as node:
            posted.append(intake.run(node, Path(directory), name, options.intake))
        good = good and posted[-1].kept
        print(posted[-1], flush=True)
    if options.json:
        result = {'about': about, 'runs': found, 'outage': story and story.as_json(),
                  'cluster': [each.as_json() for each in stories],
                  'intake': [each.as_json() for each in posted]}
        options.json.write_text(json.dumps(result, indent=1) + '\n')
    return 0 if good else 1


if __name__ == '__main__':
    sys.exit(main())
