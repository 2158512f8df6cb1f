"""The story of a long outage: thousands of orders wait, the shop is left alone; when it is back, all are fulfilled."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from celery import Celery

from ecommerce_worker.testing.shop import Order
from ecommerce_worker.tests.chaos.harness import CONFIRMED, Scene, at_once, resident_megabytes, send
from ecommerce_worker.tests.support.harness import QUEUES, Broker
from ecommerce_worker.tests.support.proxy import Proxy

#: Seconds after the first failures that the worker is given to find out that the shop is down.
FOUND_OUT = 5.0


@dataclass(frozen=True)
class Story:
    """What was seen; megabytes are the worker's resident memory."""

    orders: int
    #: Seconds that the shop was down, and probes on the wire in that time, once the worker had found out.
    down: float
    probes: int
    #: Before; when the last order was published, and all its threads had worked; the most since then; at the end.
    megabytes_before: float
    megabytes_waiting: float
    megabytes_most: float
    megabytes_after: float
    fulfilled: int
    repeated: int
    overlapping: int
    #: The most calls in progress at once when the shop was back, and how many the worker is configured for.
    at_once: int
    concurrency: int
    #: Seconds from the return of the shop until the first and the last order was fulfilled.
    first: float
    last: float

    @property
    def kept(self) -> bool:
        """Whether nothing was lost, the shop was left alone, and the worker did not grow with what waited."""
        return (self.fulfilled == self.orders and not self.repeated and not self.overlapping
                and self.probes < self.down and self.at_once <= self.concurrency
                and self.megabytes_most < 1.2 * self.megabytes_waiting)

    def as_json(self) -> dict[str, Any]:
        """The story as the JSON file has it."""
        return {**asdict(self), 'kept': self.kept}

    def __str__(self) -> str:
        return '\n'.join(f'{name.replace("_", " "):>20}  {value}' for name, value in self.as_json().items())


def run(broker: Broker, directory: Path, orders: int, down: float) -> Story:
    """Have so many orders wait for a shop that is down for so many seconds after the last one was published."""
    numbers = [f'EDX-{position}' for position in range(orders)]
    with Proxy(0) as shop_wire, Scene(broker, directory, 'threads', {}) as scene:
        shop_wire.target = scene.shop.port
        scene.detour(shop_wire.port)
        scene.shop.add_orders([Order('WARM-UP'), *map(Order, numbers)])
        worker = scene.start_worker()
        scene.await_consumer()
        with Celery('shop', broker=broker.url, set_as_current=False) as app:
            app.conf.broker_transport_options = CONFIRMED
            send(app, 'WARM-UP')
            scene.finish(['WARM-UP'])
            before = resident_megabytes(worker.process.pid)
            shop_wire.refuse()
            began = time.time()
            for number in numbers:
                send(app, number)
        waiting = most = resident_megabytes(worker.process.pid)
        until = time.time() + down
        while time.time() < until:
            most = max(most, resident_megabytes(worker.process.pid))
            time.sleep(0.5)
        back = time.time()
        probes = sum(began + FOUND_OUT < at < back for at in shop_wire.connected)
        shop_wire.accept()
        while time.time() < back + 900:
            most = max(most, resident_megabytes(worker.process.pid))
            if not (any(map(broker.depth, QUEUES)) or broker.waiting() or scene.unsettled()):
                break
            time.sleep(1)
        after = resident_megabytes(worker.process.pid)
        scene.stop_workers()
        calls = [call for call in scene.shop.calls if call.order in set(numbers)]
        puts = [call for call in calls if call.is_put and call.status == 200]
        ends = [call.time + (call.duration or 0.0) - back for call in puts]
        return Story(
            orders=orders, down=round(back - began - FOUND_OUT, 1), probes=probes, megabytes_before=round(before, 1),
            megabytes_waiting=round(waiting, 1), megabytes_most=round(most, 1), megabytes_after=round(after, 1),
            fulfilled=sum(order.status == 'Complete' for number, order in scene.shop.orders.items()
                          if number != 'WARM-UP'),
            repeated=sum(call.repeated for call in calls), overlapping=sum(call.overlapping for call in calls),
            at_once=at_once(calls), concurrency=scene.concurrency,
            first=round(min(ends, default=0.0), 1), last=round(max(ends, default=0.0), 1))
