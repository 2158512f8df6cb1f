"""Metrics of a worker that are read on request."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ecommerce_worker import runtime
from ecommerce_worker.broker.facts import Reporter
from ecommerce_worker.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from ecommerce_worker.worker.consumer import Consumer


def of(consumer: Consumer, counted: Metrics) -> None:
    """Add the metrics of a consumer."""
    lanes, keeper = consumer.lanes, consumer.keeper

    def busy() -> dict[tuple[str, ...], float]:
        return {(lane,): float(count) for lane, count in Counter(lane for lane, *_ in lanes.running()).items()}

    def oldest() -> dict[tuple[str, ...], float]:
        return {(): max((seconds for *_, seconds in lanes.running()), default=0.0)}

    def figure(name: str) -> dict[tuple[str, ...], float]:
        reporters = runtime.current().listeners.of(Reporter)
        return {(): float(sum(getattr(reporter, name) for reporter in reporters))} if reporters else {}

    counted.look('threads', 'Maximum number of runs at once.', lambda: {(): float(consumer.room)})
    counted.look('busy_threads', 'Runs in progress, by what they wait for: a shop, a vendor or a kind of job.', busy,
                 'lane')
    counted.look('oldest_run_seconds', 'Age of the oldest run in progress.', oldest)
    counted.look('waiting_in_hand', 'Messages in this process that wait for a thread.',
                 lambda: {(): float(lanes.waiting())})
    counted.look('unpublished_messages', 'Messages kept because RabbitMQ does not accept them at present.',
                 lambda: {(): float(sum(keeper.late().values()))})
    counted.look('consuming', '1 while the worker consumes its queues.',
                 lambda: {(): float(not consumer.standing()[0])})
    counted.look('connections', 'Connections on which the worker has consumed its queues.',
                 lambda: {(): float(consumer.connections)}, counts=True)
    counted.look('facts_pending', 'Reports for the ledger that RabbitMQ has not confirmed yet.',
                 lambda: figure('pending'))
    counted.look('facts_dropped', 'Reports for the ledger that were dropped because RabbitMQ accepted none and no '
                                  'room was left.',
                 lambda: figure('dropped'), counts=True)
