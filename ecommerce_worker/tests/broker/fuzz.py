"""Messages that nobody should send, in great numbers, to a running worker and recorder at a real RabbitMQ.

    make fuzz ARGS="--messages 100000 --seed 7"

Good orders are published in between.  At the end every message has been run or is parked, both processes are those
that were started, and each good order was called for; printed is also how long these took.
"""

from __future__ import annotations

import argparse
import base64
import bz2
import json
import lzma
import os
import pickle
import random
import signal
import sqlite3
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

import amqp
from amqp.serialization import dumps

from ecommerce_worker.broker import topology
from ecommerce_worker.broker.notes import NOTES
from ecommerce_worker.email.delivery import NOT_ALL
from ecommerce_worker.fulfillment.names import FULFILL
from ecommerce_worker.testing.shop import ShopProcess
from ecommerce_worker.tests.support.harness import (
    QUEUE,
    Broker,
    Worker,
    eventually,
    shop_app,
    worker_environment,
)
from ecommerce_worker.tests.support.messages import MESSAGES
from ecommerce_worker.tests.support.rabbitmq import Node

JSON, PICKLE = 'application/json', 'application/x-python-serialize'

#: Orders that the shop has, for calls that can be run.
ORDERS: Final = tuple(f'FUZZ-{number}' for number in range(200))

#: Messages that are published before it is looked how many are left, and how many may be.
BATCH, LEFT = 20, 20

#: Seconds between two good orders.
EVERY_SECONDS: Final = 0.25

#: The largest property list that fits into a frame.
LARGEST_PROPERTIES: Final = 131_072 - 8 - 12


# -- AMQP, byte by byte -----------------------------------------------------------------------------------------------

class Wire(amqp.Message):
    """A message whose properties are these bytes."""

    def __init__(self, body: bytes, properties: bytes) -> None:
        super().__init__(body)
        self.wire = properties

    def _serialize_properties(self) -> bytes:
        return self.wire


def short(value: bytes) -> bytes:
    """A short text."""
    return bytes([len(value[:255])]) + value[:255]


def long(value: bytes) -> bytes:
    """A long text, or what a table or an array holds."""
    return struct.pack('>I', len(value)) + value


def text(rng: random.Random) -> bytes:
    """Some bytes, UTF-8 or not."""
    return rng.choice((b'', b'a', b'\xff\xfe', 'ü'.encode(), b'\xed\xa0\x80', b'\0', b'\x1b[2J\n', rng.randbytes(9),
                       rng.randbytes(255), b'task', b'ecommerce'))


def value(rng: random.Random, depth: int = 0) -> bytes:
    """A field of each type that RabbitMQ lets pass, with its letter."""
    kind = rng.choice('SIDTFAbBdflstuixV' if depth < 6 else 'SIDTbBdflstuixV')
    sizes = {'I': 4, 'D': 5, 'T': 8, 'b': 1, 'B': 1, 'l': 8, 's': 2, 'u': 2, 'i': 4}
    if kind in sizes:
        content = rng.choice((bytes(sizes[kind]), b'\xff' * sizes[kind], rng.randbytes(sizes[kind])))
    elif kind in 'Sx':
        content = long(text(rng))
    elif kind in 'df':
        # RabbitMQ closes the connection on one that is not a number.
        content = struct.pack(f'>{kind}', rng.choice((0.0, -1.5, rng.random() * 1e30)))
    elif kind == 't':
        content = rng.choice((b'\0', b'\1'))
    elif kind == 'F':
        content = long(b''.join(short(text(rng)) + value(rng, depth + 1) for _ in range(rng.randrange(4))))
    elif kind == 'A':
        content = long(b''.join(value(rng, depth + 1) for _ in range(rng.randrange(4))))
    else:
        content = b''
    return kind.encode() + content


def table(**fields: Any) -> bytes:
    """The fields of a table, without its length."""
    return bytes(dumps('F', [fields])[4:])


def strange_fields(rng: random.Random) -> bytes:
    """Headers that no producer sends."""
    return rng.choice((
        lambda: b''.join(short(text(rng)) + value(rng) for _ in range(rng.randrange(1, 12))),
        lambda: short(b'deep') + nested(rng.choice((15, 30, 3000))),
        lambda: short(b'wide') + b'A' + long(b'V' * rng.choice((10, 6_000, 100_000))),
        lambda: short(b'large') + b'S' + long(b'x' * rng.choice((1000, 60_000, 120_000))),
        lambda: b''.join(short(b'%d' % number) + b'V' for number in range(rng.choice((10, 4_000, 12_000)))),
        lambda: short(b'\xff\xfe') + b'I' + bytes(4)))()


def nested(depth: int) -> bytes:
    """An array in an array in an array."""
    found = b'V'
    for _ in range(depth):
        found = b'A' + long(found)
    return found


def properties(content_type: bytes | None = JSON.encode(), /, headers: bytes | None = None, **texts: bytes) -> bytes:
    """A property list; ``texts`` are short texts by name."""
    names = ('content_type', 'content_encoding', 'headers', 'delivery_mode', 'priority', 'correlation_id', 'reply_to',
             'expiration', 'message_id', 'timestamp', 'type', 'user_id', 'app_id', 'cluster_id')
    given = {name: short(given) for name, given in texts.items()}
    if content_type is not None:
        given['content_type'] = short(content_type)
    if headers is not None:
        given['headers'] = long(headers)
    given['delivery_mode'] = b'\2'
    flags = sum(0x8000 >> names.index(name) for name in given)
    return struct.pack('>H', flags) + b''.join(given[name] for name in names if name in given)


# -- Messages ---------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Forged:
    """A message, and where it is published."""

    body: bytes
    properties: bytes
    exchange: str = ''
    routing_key: str | bytes = QUEUE


def call(rng: random.Random, *args: Any, **kwargs: Any) -> bytes:
    """A body of protocol 2."""
    return json.dumps([list(args or (rng.choice(ORDERS),)), kwargs, {}]).encode()


def headers_of_call(**more: Any) -> bytes:
    """The headers that make a body a call."""
    return table(task=FULFILL, id=f'id-{random.getrandbits(64):x}', **more)


def noise(rng: random.Random) -> Forged:
    """Bytes."""
    return Forged(rng.randbytes(rng.randrange(300)), properties(
        rng.choice((None, JSON.encode(), PICKLE.encode(), b'\xff', rng.randbytes(20))),
        rng.choice((None, b'', strange_fields(rng)))))


def strange_properties(rng: random.Random) -> Forged:
    """A call whose properties may be any bytes."""
    names = ('content_encoding', 'correlation_id', 'reply_to', 'message_id', 'type', 'app_id', 'cluster_id')
    return Forged(call(rng), properties(JSON.encode(), headers_of_call(), **{
        name: text(rng) for name in rng.sample(names, rng.randrange(1, 4))}))


def strange_headers(rng: random.Random) -> Forged:
    """A call with headers that no producer sends, before or behind its own."""
    ours = [headers_of_call(), strange_fields(rng)]
    rng.shuffle(ours)
    return Forged(call(rng), properties(JSON.encode(), b''.join(ours)))


def spoilt_headers(rng: random.Random) -> Forged:
    """A call whose own headers have values of any type."""
    fields = b''.join(short(name) + value(rng) for name in rng.sample(
        (b'task', b'id', b'retries', b'eta', b'expires', b'root_id', b'parent_id', b'origin', b'compression', b'group',
         b'timelimit', b'argsrepr', b'lang', NOTES.encode(), b'x-death'), rng.randrange(1, 6)))
    return Forged(call(rng), properties(JSON.encode(), headers_of_call() + fields))


def spoilt_notes(rng: random.Random) -> Forged:
    """A call that bears notes that were made up."""
    names = ('queue', 'attempt', 'refusals', 'outages', 'redelivered', 'since', 'resent', 'unsure', 'due', 'fact', 'id',
             'parked_at', 'reason')
    values: tuple[Any, ...] = (None, True, -1, 2 ** 40, 1e300, 'x' * 300, 'evil.queue', b'\xff', [],
                               {'a': 1}, time.time())
    notes: dict[str, Any] = {name: rng.choice(values) for name in rng.sample(names, rng.randrange(1, 6))}
    notes.pop('queue', None)
    # What its producer has sent for later is not what this is about.
    notes.pop('due', None)
    if rng.random() < 0.3:
        notes['history'] = [{'at': rng.choice(values), 'reason': 'y' * rng.choice((1, 1000, 30_000))} for _ in range(3)]
    return Forged(call(rng), properties(JSON.encode(), headers_of_call(**{NOTES: notes})))


def strange_json(rng: random.Random) -> Forged:
    """JSON that costs more than it should, or holds what no call has."""
    number = rng.choice((3, 1000, 20_000))
    body = rng.choice((
        lambda: b'[' + b'{},' * number + b'1]', lambda: b'[' * number, lambda: b'{"a":' * number,
        lambda: b'[' + b'9' * number + b']', lambda: b'[' + b'1.7e-300,' * number + b'1]',
        lambda: b'["' + b'\\u0430' * number + b'"]', lambda: b'["\\ud800", {}, {}]',
        lambda: call(rng, '\0', '\ud800', {'a': [None]}, 10 ** 30, 1e308), lambda: call(rng, site_code=['x']),
        lambda: call(rng, 'x' * 100_000), lambda: call(rng, {'__type__': 'decimal', '__value__': '1e999999'}),
        lambda: call(rng, **{'\x1b[2J': 1}), lambda: b'{"task": "' + FULFILL.encode() + b'", "args": 7}'))()
    return Forged(body, properties(JSON.encode(), headers_of_call()))


@cache
def hostile_pickles() -> tuple[bytes, ...]:
    """Pickles made by hand."""
    shared = b''.join(b'h%ch%c\x86q%c' % (number, number, number + 1) for number in range(60))
    deep = b')' + b'\x85' * 200_000
    return (
        b'}' + deep + b'K\x01s.', b'K\x01q\0' + shared + b'}h\x3cK\x01s.', b'K\x01q\0' + shared + b'.',
        b'cdjango.utils.safestring\nSafeString\nI100000000\n\x85R.', b'cdecimal\nDecimal\nV1e999999999\n\x85R.',
        b'cos\nsystem\nVtrue\n\x85R.', b'\x80\x04\x8e' + b'\xff' * 8 + b'.', b']q\0h\0a.', b'(' * 5000, deep + b'.',
        b'\x80\x02]r\xff\xff\xff\x7f.', b'(' + b'N' * 100_000 + b'l.', b'L' + b'9' * 100_000 + b'L\n.')


def strange_pickle(rng: random.Random) -> Forged:
    """A pickle that is none of a call, or a call with strange arguments."""
    opcodes = [bytes([code]) for code in (*b'(.0123FIJKLMNPQRSTUVX]abcdeghijlopqrstu)}', *range(0x80, 0x99))]
    body = rng.choice((
        lambda: rng.choice(hostile_pickles()),
        lambda: b''.join(rng.choice(opcodes) + rng.randbytes(rng.choice((0, 0, 1, 2)))
                         for _ in range(rng.randrange(40))),
        lambda: pickle.dumps(((rng.choice(ORDERS),), {'email_opt_in': rng.random()}, {}), rng.randrange(5)),
        lambda: pickle.dumps(([{1: 'a', 'b': (None, 2 ** 70)}], {}, {}), rng.randrange(5))))()
    return Forged(body, properties(PICKLE.encode(), headers_of_call()))


@cache
def bombs() -> tuple[tuple[bytes, str], ...]:
    """A few bytes that become many, and how they are compressed."""
    zeros = bytes(30_000_000)
    return ((zlib.compress(zeros), 'application/x-gzip'), (bz2.compress(zeros), 'application/x-bz2'),
            (lzma.compress(zeros), 'application/x-lzma'))


def compressed(rng: random.Random) -> Forged:
    """A body that is compressed, says so, or neither."""
    packed = call(rng)
    body, how = rng.choice((
        *bombs(), (zlib.compress(packed), 'zlib'), (bz2.compress(packed), 'bzip2'), (lzma.compress(packed), 'xz'),
        (zlib.compress(packed)[:-5], 'gzip'), (packed, 'gzip'), (packed, 'application/zstd'), (packed, 'brotli'),
        (packed, 'none such'), (rng.randbytes(1000), 'application/x-lzma')))
    return Forged(body, properties(JSON.encode(), headers_of_call(compression=how)))


def damaged(rng: random.Random) -> Forged:
    """A genuine message with some bytes changed."""
    message = rng.choice(MESSAGES)
    body = bytearray(base64.b64decode(message['body_base64']))
    for _ in range(rng.randrange(1, 5)):
        body[rng.randrange(len(body))] = rng.randrange(256)
    # Never later: the waiting room is to be empty at the end.
    headers = {name: given for name, given in (message['headers'] or {}).items() if name != 'eta'}
    return Forged(bytes(body).replace(b'"eta"', b'"ETA"').replace(b'\x03eta', b'\x03ETA'),
                  properties(message['content_type'].encode(), table(**headers)))


def full_headers(rng: random.Random) -> Forged:
    """As many headers as a frame can hold, and a body that cannot be read."""
    rest = LARGEST_PROPERTIES - 100 - rng.randrange(1000)
    return Forged(b'{', properties(JSON.encode(), short(b'full') + b'S' + long(b'z' * rest)))


def in_task_queue(rng: random.Random) -> Forged:
    """One of these."""
    makers: tuple[Callable[[random.Random], Forged], ...] = (
        noise, strange_properties, strange_headers, spoilt_headers, spoilt_notes, strange_json, strange_pickle,
        compressed, damaged)
    return rng.choice(makers)(rng) if rng.random() > 0.01 else full_headers(rng)


def in_parked(rng: random.Random) -> Forged:
    """The same among parked messages, put there by somebody else."""
    made = in_task_queue(rng)
    return Forged(made.body, made.properties, '', topology.PARKED)


def fact(rng: random.Random) -> Forged:
    """What looks like a fact, or nearly."""
    body = rng.choice((
        lambda: json.dumps({'version': 1, 'outcome': 'done', 'fact': rng.randbytes(16).hex(), 'started': time.time(),
                            'task': FULFILL, 'id': 'x' * rng.randrange(1, 400), 'key': 'A\0\x1b'}).encode(),
        lambda: json.dumps({'version': rng.choice((1, 2, True)), 'outcome': 'parked', 'started': 1e300}).encode(),
        lambda: b'[' + b'{},' * 20_000 + b'1]', lambda: rng.randbytes(200), lambda: b'[' * 5000))()
    return Forged(body, properties(JSON.encode(), rng.choice((None, strange_fields(rng))), correlation_id=text(rng)),
                  topology.FACTS, rng.choice((b'\xff\xfe', b'done.x', rng.randbytes(30))))


def command(rng: random.Random) -> Forged:
    """Remote control."""
    method = rng.choice(('ping', 'stats', 'revoke', 'shutdown', 'cancel_consumer', 'pool_shrink', 'hello', 'conf', 7))
    reply_to: Any = rng.choice((None, None, {'exchange': 'reply.celery.pidbox', 'routing_key': 'nobody'}, [],
                           {'exchange': 'amq.topic', 'routing_key': 'x' * 300}, {'exchange': 'ecommerce.facts'}))
    body = rng.choice((
        lambda: json.dumps({'method': method, 'arguments': rng.choice(({}, {'queue': QUEUE}, {'a': 1}, [], None)),
                            'destination': rng.choice((None, [], ['x'], 7)), 'reply_to': reply_to, 'ticket': 'x',
                            'pattern': rng.choice((None, '(a+)+$')), 'matcher': rng.choice((None, 'pcre'))}).encode(),
        lambda: rng.randbytes(50), lambda: b'[' * 5000, lambda: b'[]', lambda: b'"x"', lambda: b'{}'))()
    fields = rng.choice((None, table(clock=2 ** 62), table(clock='x'), strange_fields(rng)))
    return Forged(body, properties(JSON.encode(), fields, correlation_id=text(rng)), 'celery.pidbox',
                  rng.choice((b'', b'\xff\xfe')))


# -- A run ------------------------------------------------------------------------------------------------------------

@dataclass
class Report:
    """How it went: messages sent by where they went, orders that were called for, and what became of all."""

    sent: Counter[str] = field(default_factory=Counter)
    good: int = 0
    seconds: list[float] = field(default_factory=list)
    parked: int = 0
    ended: int = 0
    followed: int = 0
    lost_processes: list[str] = field(default_factory=list)
    left: dict[str, int] = field(default_factory=dict)
    took: float = 0.0
    megabytes: dict[str, float] = field(default_factory=dict)

    @property
    def troubles(self) -> list[str]:
        """Everything that is wrong."""
        found = [f'{name} ended' for name in self.lost_processes]
        found += [f'{count} messages are left in {name}' for name, count in self.left.items() if count]
        if len(self.seconds) < self.good:
            found.append(f'{self.good - len(self.seconds)} of {self.good} good orders were not called for')
        asked = self.sent['task queue'] + self.sent['parked'] + self.good + self.followed
        if self.parked + self.ended != asked:
            found.append(f'of {asked} messages {self.parked} are parked and {self.ended} were run')
        return found

    def __str__(self) -> str:
        longest = sorted(self.seconds)[-3:]
        return (f'sent {dict(self.sent)} in {self.took:.0f} s; parked {self.parked}, run {self.ended}, '
                f'{self.followed} of them to the rest of their recipients; '
                f'{self.good} good orders, the longest after {", ".join(f"{each:.2f}" for each in longest)} s; '
                f'MB {self.megabytes}')


class Good(threading.Thread):
    """Publishes a good order now and then."""

    def __init__(self, url: str, shop: ShopProcess) -> None:
        super().__init__(daemon=True)
        self._url = url
        self._shop = shop
        self._over = threading.Event()
        self.published: dict[str, float] = {}

    def run(self) -> None:
        """Publish until stopped."""
        with shop_app(self._url) as app:
            while not self._over.wait(EVERY_SECONDS):
                number = f'GOOD-{len(self.published)}'
                self._shop.tell('add', [{'number': number}])
                self.published[number] = time.time()
                app.send_task(FULFILL, (number,), {}, serializer='json', ignore_result=True)

    def stop(self) -> None:
        """Publish no more."""
        self._over.set()
        self.join()


def fuzz(node: Node, directory: Path, messages: int, seed: int, *, seconds: float = 3600,
         say: Callable[[str], None] = lambda line: None) -> Report:
    """Send so many messages, or as many as can be in so many seconds; the worker and the recorder are started and
    stopped here.
    """
    report, rng, broker = Report(), random.Random(seed), Broker(node)
    ledger = directory / 'ledger.sqlite3'
    with broker.connection() as connection:
        # What workers before told is not counted.
        topology.declare_facts(connection)
        connection.default_channel.queue_purge(topology.LEDGER)
    with ShopProcess(directory) as shop:
        shop.tell('add', [{'number': number} for number in ORDERS])
        environment = worker_environment(node.url, shop, DATABASES={'default': {'NAME': str(ledger)}},
                                         MAX_FULFILLMENT_RETRIES=1, RETRY_DELAY_MAX=1, LOG_LEVEL='WARNING')
        run = [sys.executable, '-m', 'ecommerce_worker']
        subprocess.run([*run, 'migrate'], env=environment, check=True, capture_output=True)
        worker = Worker(broker, directory / 'worker.log', environment, ())
        with (directory / 'recorder.log').open('wb') as output:
            recorder = subprocess.Popen([*run, 'recorder'], env=environment, stdout=output, stderr=output,
                                        start_new_session=True)
        processes = {'the worker': worker.process, 'the recorder': recorder}
        try:
            worker.ready()
            good = Good(node.url, shop)
            good.start()
            began = time.monotonic()
            send(broker, rng, messages, report, processes, seconds, say)
            good.stop()
            eventually(lambda: lost(report, processes) or not any(depths(broker).values()), seconds=300)
            eventually(lambda: lost(report, processes) or not node.held(QUEUE, topology.PARKED, topology.LEDGER),
                       seconds=300)
            report.took = time.monotonic() - began
            lost(report, processes)
            report.megabytes = {name: resident_megabytes(process.pid) for name, process in processes.items()
                                if process.poll() is None}
        finally:
            for process in processes.values():
                if process.poll() is None:
                    process.send_signal(signal.SIGTERM)
                    try:
                        process.wait(60)
                    except subprocess.TimeoutExpired:
                        os.killpg(process.pid, signal.SIGKILL)
                        process.wait()
        report.left = depths(broker)
        report.good = len(good.published)
        called = {found.order: found.time for found in reversed(shop.calls) if found.method == 'PUT'}
        report.seconds = [called[number] - at for number, at in good.published.items() if number in called]
        report.parked, report.ended = recorded(ledger)
        report.followed = (directory / 'worker.log').read_text(errors='replace').count(NOT_ALL)
    return report


def send(broker: Broker, rng: random.Random, messages: int, report: Report, processes: dict[str, Any], seconds: float,
         say: Callable[[str], None]) -> None:
    """Publish, no faster than they are taken."""
    places = (('task queue', in_task_queue), ('parked', in_parked), ('facts', fact), ('remote control', command))
    connection = amqp.Connection(broker.node.url.rpartition('@')[2].strip('/'), confirm_publish=False)
    connection.connect()
    channel = connection.channel()
    until = time.monotonic() + seconds
    for number in range(1, messages + 1):
        place, make = rng.choices(places, (80, 8, 6, 6))[0]
        made = make(rng)
        if len(made.properties) > LARGEST_PROPERTIES:
            made = full_headers(rng)
            place = 'task queue'
        channel.basic_publish(Wire(made.body, made.properties), made.exchange, made.routing_key)
        report.sent[place] += 1
        if number % BATCH == 0:
            if lost(report, processes) or time.monotonic() > until:
                break
            while any(count > LEFT for count in (
                    channel.queue_declare(queue=name, passive=True).message_count
                    for name in (QUEUE, topology.PARKED, topology.LEDGER))):
                if lost(report, processes):
                    break
                time.sleep(0.02)
        if number % 5000 == 0:
            say(f'{number} messages sent')
    connection.close()


def lost(report: Report, processes: dict[str, Any]) -> list[str]:
    """The processes that have ended, in the report too."""
    report.lost_processes = [name for name, process in processes.items() if process.poll() is not None]
    return report.lost_processes


def depths(broker: Broker) -> dict[str, int]:
    """What is in the queues that are to be empty in the end."""
    return {**{name: broker.depth(name) for name in (QUEUE, topology.PARKED, topology.LEDGER)},
            'the waiting room': broker.waiting()}


#: Parked messages, and runs that fulfilled an order or found it fulfilled; told by a worker, and not of a task that
#: follows from another.
PARKED_SQL: Final = "SELECT count(*) FROM ledger_parkedmessage WHERE task NOT LIKE '%.report_assignment_email'"
RUN_SQL: Final = """
    SELECT count(*) FROM ledger_attempt JOIN ledger_order ON ledger_order.id = ledger_attempt.order_id
    WHERE ledger_attempt.outcome IN ('done', 'skipped') AND ledger_attempt.worker != ''
    AND ledger_order.task NOT LIKE '%.report_assignment_email'
"""


def recorded(ledger: Path) -> tuple[int, int]:
    """How many messages are parked, and how many were run."""
    with sqlite3.connect(ledger) as database:
        return database.execute(PARKED_SQL).fetchone()[0], database.execute(RUN_SQL).fetchone()[0]


def resident_megabytes(pid: int) -> float:
    """Memory in use."""
    lines = Path(f'/proc/{pid}/status').read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith('VmRSS'))


def main() -> None:
    """Run, and print how it went; status 1 if anything is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--messages', type=int, default=100_000)
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--seconds', type=float, default=3600, help='stop sending after so many seconds')
    parser.add_argument('--within', type=float, default=2.0, help='seconds in which a good order is to be called for')
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, Node() as node:
        broker = Broker(node)
        broker.empty()
        report = fuzz(node, Path(directory), options.messages, options.seed, seconds=options.seconds, say=print)
        print(report)
        troubles = report.troubles
        if report.seconds and max(report.seconds) > options.within:
            troubles.append(f'a good order was called for after {max(report.seconds):.2f} s')
        for log in ('worker.log', 'recorder.log'):
            lines = (Path(directory) / log).read_text(errors='replace').splitlines()
            print(f'{log}: {len(lines)} lines', *lines[-5:], sep='\n  ')
    print(*troubles, sep='\n')
    sys.exit(1 if troubles else 0)




if __name__ == '__main__':
    main()
