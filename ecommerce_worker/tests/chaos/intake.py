"""Break everything while shops post orders to the intake, and count what became of each that was answered with success.

::

    senders ──POST, again and again until 2xx──► intake ──► RabbitMQ ──► worker ──► shop
                                                   │ ▲          ▲           ▲
    one that posts once only (spool) ──────────────┘ └──────────┴───────────┴── killed, blocked, deleted, full

A 2xx is a promise: the order is fulfilled under its number, once.  What was never answered with success is the
sender's to deliver again, which here it does until the end.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final

from kombu import Connection

from ecommerce_worker.testing.intake import SECRET
from ecommerce_worker.testing.rabbitmq import free_port
from ecommerce_worker.testing.shop import ShopProcess
from ecommerce_worker.tests.chaos.harness import PATIENCE, SETTINGS
from ecommerce_worker.tests.support.harness import QUEUE, ROOMS, Broker, Worker, eventually, worker_environment
from ecommerce_worker.tests.support.intake import Intake, order, posted, signed
from ecommerce_worker.tests.support.rabbitmq import Node

INTAKES: Final = {
    'shop': {'kind': 'shopify', 'secrets': [SECRET], 'events': {'orders/paid': 'fulfill_order'}},
    'blog': {'kind': 'woocommerce', 'secrets': [SECRET], 'events': {'order.updated': 'fulfill_order'}, 'spool': True},
}

#: Seconds between two tries of a sender that comes again.
AGAIN: Final = 0.5

#: Every so many orders one is of the shop that posts once only.
ONCE: Final = 3


class Site:
    """All that runs, and what can be done to it."""

    def __init__(self, node: Node, directory: Path, shop: ShopProcess, spool: Path) -> None:
        self.node, self.directory, self.spool = node, directory, spool
        self.port = free_port()
        self.senders = Senders(self.port)
        self._environment = {
            **worker_environment(node.url, shop, **SETTINGS), 'ECOMMERCE_WORKER_INTAKES': json.dumps(INTAKES),
            'ECOMMERCE_WORKER_INTAKE_ADDRESS': f'127.0.0.1:{self.port}', 'ECOMMERCE_WORKER_INTAKE_SPOOL': str(spool)}
        self.worker = self._worker()
        self.intake = self._intake()

    def _worker(self) -> Worker:
        return Worker(Broker(self.node), self.directory / 'worker.log', self._environment, ())

    def _intake(self) -> Intake:
        return Intake(self.port, self.directory / 'intake.log', self._environment)

    def kill_intake(self) -> None:
        """With SIGKILL, and start another."""
        self.intake.kill()
        self.intake = self._intake()

    def kill_worker(self) -> None:
        """With SIGKILL, and start another."""
        self.worker.kill()
        self.worker = self._worker()

    def kill_rabbitmq(self) -> None:
        """As a power cut would, and start it after a moment."""
        self.node.kill()
        self.node.start()

    def raise_alarm(self) -> None:
        """Have RabbitMQ take nothing for longer than the intake waits."""
        self.node.ctl('set_vm_memory_high_watermark', '0.0000001')
        time.sleep(5)
        self.node.ctl('set_vm_memory_high_watermark', '0.9')

    def kill_both(self) -> None:
        """RabbitMQ and, while orders wait for it, the intake."""
        self.node.kill()
        time.sleep(1.5)
        self.kill_intake()
        self.node.start()

    def delete_queue(self) -> None:
        """Delete the queue while nothing is in it; the worker, which is held for a while, makes it anew.

        Nor may anything be on its way, from a sender or out of the waiting room: RabbitMQ confirms what it was given
        for a queue that is deleted in that moment.
        """
        pid = self.worker.process.pid
        with self.senders.paused(), Connection(self.node.url) as connection:
            eventually(lambda: not list(self.spool.glob('*.json')) and self._is_empty(), seconds=PATIENCE)
            os.kill(pid, signal.SIGSTOP)
            connection.channel().queue_delete(QUEUE)
        time.sleep(3)
        os.kill(pid, signal.SIGCONT)

    def _is_empty(self) -> bool:
        """Whether nothing is in the queue, in the hands of its consumers, or waits to come back to it."""
        return not self.node.held(QUEUE, *ROOMS)

    def end(self) -> None:
        """Stop all of it."""
        self.intake.kill()
        self.worker.kill()


Act = Callable[[Site], None]

#: What is done while orders come in, one after the other.
FAULTS: Final[Mapping[str, tuple[Act, ...]]] = {
    'nothing': (),
    'intake-killed': (Site.kill_intake,) * 4,
    'rabbitmq-killed': (Site.kill_rabbitmq,) * 2,
    'both-killed': (Site.kill_both,) * 2,
    'memory-alarm': (Site.raise_alarm,) * 2,
    'queue-deleted': (Site.delete_queue,) * 2,
    'everything': (Site.kill_intake, Site.kill_worker, Site.kill_rabbitmq, Site.raise_alarm, Site.delete_queue,
                   Site.kill_intake),
}


@dataclass(frozen=True)
class Story:
    """What was seen."""

    fault: str
    #: Orders; answers of success among all answers; orders of senders that post once which were not.
    orders: int
    accepted: int
    unanswered: int
    refusals: int
    #: Of those accepted: complete in the end; fulfilled by more than one call; neither complete nor anywhere.
    fulfilled: int
    twice: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def kept(self) -> bool:
        """Whether every promise was kept, once."""
        return self.accepted == self.fulfilled and not self.twice and not self.missing

    def as_json(self) -> dict[str, Any]:
        """The story as the JSON file has it."""
        return {**asdict(self), 'kept': self.kept}


class Senders:
    """Shops that post orders, some of which come again until they are answered with success, some of which do not."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._lock = threading.Lock()
        self._posting = 0
        self._may_post = threading.Event()
        self._may_post.set()
        self.accepted: set[str] = set()
        self.refusals = 0
        self._threads: list[threading.Thread] = []

    def start(self, numbers: list[str], rate: float) -> None:
        """Post each of them at its time, so many in a second, from a thread of its own."""
        for place, number in enumerate(numbers):
            once = place % ONCE == 0
            thread = threading.Timer(place / rate, self._post_once if once else self._post, (number,))
            thread.start()
            self._threads.append(thread)

    def join(self) -> None:
        """Return when all are answered, or were asked once."""
        for thread in self._threads:
            thread.join()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Nothing is posted within this context, and all that was has been answered."""
        self._may_post.clear()
        try:
            eventually(lambda: not self._posting, seconds=PATIENCE)
            yield
        finally:
            self._may_post.set()

    def _count(self, more: int) -> None:
        with self._lock:
            self._posting += more

    def _answered(self, name: str, number: str, body: bytes, headers: Mapping[str, str]) -> bool:
        self._count(1)
        # Counted first: whoever pauses sees it, or it sees the pause.
        while not self._may_post.is_set():
            self._count(-1)
            self._may_post.wait()
            self._count(1)
        try:
            answer = posted(self._port, f'/in/{name}', body, headers)
        except (OSError, HTTPException, ValueError):
            return False
        finally:
            self._count(-1)
        good = answer.state in ('accepted', 'repeated')
        with self._lock:
            if good:
                self.accepted.add(number)
            else:
                self.refusals += 1
        return good

    def _post(self, number: str) -> None:
        body, until = order(number), time.monotonic() + PATIENCE
        headers = signed('shopify', body)
        while not self._answered('shop', number, body, headers) and time.monotonic() < until:
            time.sleep(AGAIN)

    def _post_once(self, number: str) -> None:
        body = json.dumps({'id': 1, 'number': number, 'status': 'processing',
                           'date_paid_gmt': '2026-01-01T00:00:00'}).encode()
        self._answered('blog', number, body, signed('woocommerce', body, 'order.updated'))


@contextlib.contextmanager
def small_disk(directory: Path, size: str = '40k') -> Iterator[Path]:
    """A file system of its own, which is soon full; PermissionError where nobody may mount one."""
    directory.mkdir()
    done = subprocess.run(['mount', '-t', 'tmpfs', '-o', f'size={size}', 'tmpfs', str(directory)], capture_output=True,
                          check=False)
    if done.returncode:
        raise PermissionError(done.stderr.decode(errors='replace'))
    try:
        yield directory
    finally:
        subprocess.run(['umount', str(directory)], check=True)


def run(node: Node, directory: Path, fault: str, orders: int = 90, rate: float = 6.0,
        spool: Path | None = None, acts: tuple[Act, ...] | None = None) -> Story:
    """Post so many orders while these acts are done, and wait until all that were accepted have ended."""
    acts = FAULTS[fault] if acts is None else acts
    Broker(node).empty()
    with ShopProcess(directory, latency=0.05) as shop:
        numbers = [f'EDX-{number}' for number in range(orders)]
        for number in numbers:
            shop.add_order(number)
        site = Site(node, directory, shop, spool or directory / 'spool')
        try:
            site.worker.ready()
            site.intake.ready()
            senders = site.senders
            senders.start(numbers, rate)
            for place, act in enumerate(acts, 1):
                eventually(partial(_come, senders, place * orders // (len(acts) + 2)), seconds=PATIENCE)
                act(site)
            senders.join()
            _await(shop, senders.accepted)
        finally:
            site.end()
        ended = shop.orders
        complete = {number for number in senders.accepted if ended[number].status == 'Complete'}
        return Story(fault, orders, len(senders.accepted), orders - len(senders.accepted), senders.refusals,
                     len(complete), tuple(sorted(number for number in numbers if ended[number].fulfilments > 1)),
                     tuple(sorted(senders.accepted - complete)))


def _come(senders: Senders, number: int) -> bool:
    return len(senders.accepted) >= number


def _await(shop: ShopProcess, accepted: set[str]) -> None:
    """Wait until all are complete, or nothing more will change."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        ended = shop.orders
        if all(ended[number].status == 'Complete' for number in accepted):
            return
        time.sleep(0.5)


def fill(directory: Path) -> None:
    """Fill what is left of the disk."""
    with contextlib.suppress(OSError), (directory / 'filler').open('wb', buffering=0) as file:
        while True:
            file.write(os.urandom(4096))
