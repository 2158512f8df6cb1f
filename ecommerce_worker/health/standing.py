"""How things stand, and what is found about it: one list, whoever shows it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

from ecommerce_worker.durations import span
from ecommerce_worker.health.broker import Broker
from ecommerce_worker.health.findings import Finding, Severity
from ecommerce_worker.health.ledger import Ledger
from ecommerce_worker.health.schedule import Schedule
from ecommerce_worker.health.workers import Workers
from ecommerce_worker.words import counted

WARNING, TROUBLE = Severity.WARNING, Severity.TROUBLE


@dataclass(frozen=True)
class Standing:
    """What was looked at; None was not, or is not there.  What is unknown is never trouble."""

    task_queues: tuple[str, ...]
    broker: Broker
    workers: Workers | None = None
    ledger: Ledger | None = None
    schedule: Schedule | None = None

    @property
    def parked(self) -> int:
        """The messages that are parked, wherever they are."""
        return self.broker.parked + (self.ledger.parked if self.ledger else 0)

    @cached_property
    def findings(self) -> tuple[Finding, ...]:
        """All that is not well; trouble first."""
        found = [*_of_broker(self), *_of_workers(self), *_of_queues(self), *_of_ledger(self), *_of_schedule(self)]
        return tuple(sorted(found, key=lambda it: it.severity is not TROUBLE))


def _of_broker(it: Standing) -> Iterator[Finding]:
    broker = it.broker
    if broker.problem:
        yield Finding('broker', TROUBLE, f'The broker cannot be asked, only the ledger: {broker.problem}')
    if not broker.takes_messages:
        yield Finding('broker', TROUBLE, 'The broker takes no messages, so workers cannot be asked: its memory or its '
                      'disk is short.', 'See `rabbitmq-diagnostics alarms`.')
    if broker.missing and (broker.is_declared or broker.consumers or (it.workers and it.workers.names)):
        yield Finding('queues', TROUBLE, f'{", ".join(broker.missing)} should exist and cannot be reached.',
                      'A worker declares what is missing within a minute; is a node of RabbitMQ down '
                      '(`rabbitmq-diagnostics cluster_status`)?')


def _of_workers(it: Standing) -> Iterator[Finding]:
    workers = it.workers
    if it.broker.problem:
        return
    if it.broker.consumers == 0 and not (workers and workers.names):
        yield Finding('workers', TROUBLE, 'No worker is running: nothing is fulfilled.',
                      'Start one: `ecommerce-worker worker`.')
    elif workers and not workers.names:
        yield Finding('workers', TROUBLE, f'No worker answered within {workers.seconds:g} s.',
                      'If one is running, see its log; else start one: `ecommerce-worker worker`.')
    for what, number in (workers.held or {}).items() if workers else ():
        yield Finding('messages', TROUBLE, f'{counted(number, "message")} cannot be {what}: RabbitMQ does not take '
                      'what follows.', 'The workers keep them and try again; see their log.')


def _of_queues(it: Standing) -> Iterator[Finding]:
    broker = it.broker
    alone = [queue for queue in broker.queues if queue.consumers == 0]
    for queue in alone:
        if queue.messages:
            yield Finding(
                'queues', TROUBLE, f'Nobody consumes {queue.name}, which holds {counted(queue.messages, "message")}.',
                f'Start a worker with it in QUEUES (or `-Q {queue.name}`).')
    empty = [queue.name for queue in alone if not queue.messages and queue.name in it.task_queues]
    if empty and broker.consumers:
        yield Finding('queues', WARNING, f'Nobody consumes {", ".join(empty)}; no message is there yet.',
                      'Start a worker for what shops publish to; take the rest out of QUEUES.')
    if it.parked:
        yield Finding('parked', WARNING, f'{counted(it.parked, "message")} parked: each waits for a person to resend '
                      'or discard it.', 'See `ecommerce-worker parked list`.')
    if broker.too_large:
        yield Finding('parked', WARNING, f'{counted(broker.too_large, "parked message")} too large for the ledger, '
                      'and on no page of the console.', 'See `ecommerce-worker parked list`, or raise the '
                      'max_allowed_packet of the database for those to come.')


def _of_ledger(it: Standing) -> Iterator[Finding]:
    ledger = it.ledger
    if ledger is None:
        return
    if it.broker.recorders == 0 and not it.broker.problem:
        yield Finding('recorder', TROUBLE, 'No recorder is running: the ledger does not move.',
                      'Start one: `ecommerce-worker recorder`.')
    if ledger.problem:
        yield Finding('ledger', WARNING, f'The ledger cannot be read: {ledger.problem}')
    if ledger.overdue:
        yield Finding('orders', TROUBLE, f'{counted(ledger.overdue, "order")} overdue: nothing was heard when it was '
                      'time.', 'See `ecommerce-worker orders list --overdue`; `ecommerce-worker resubmit` asks the '
                      'shop. If nothing leaves the waiting room, see docs/how-to/reset-rabbitmq.rst.')
    if ledger.lost:
        yield Finding('reports', WARNING, f'{counted(ledger.lost, "report")} of runs never came in the last '
                      f'{ledger.lost_days} days: as many orders, mails or jobs may be shown as they were before.')


def _of_schedule(it: Standing) -> Iterator[Finding]:
    schedule = it.schedule
    if schedule is None:
        return
    if schedule.problem:
        yield Finding('beat', WARNING, f'It is unknown whether a beat is running: {schedule.problem}')
    if schedule.is_missed:
        last = ('there has never been one' if schedule.silent is None
                else f'the last sign of life was {span(schedule.silent)} ago')
        yield Finding('beat', TROUBLE, f'No beat is running: {last}. The jobs of SCHEDULE are not published, and '
                      'orders lost on their way to RabbitMQ are not resubmitted.',
                      'Start one: `ecommerce-worker beat`.')
    for mistake in schedule.mistakes:
        yield Finding('schedule', TROUBLE, f'No beat can start with these settings: {mistake}')
    for name, since in schedule.overdue:
        yield Finding('schedule', TROUBLE, f'SCHEDULE[{name}] is overdue since '
                      f'{datetime.fromtimestamp(since, UTC):%Y-%m-%d %H:%M} UTC: nobody has fired it.',
                      'See the log of beat.')
    if schedule.is_alive and schedule.unknown:
        yield Finding('schedule', WARNING, f'No beat knows SCHEDULE[{"], SCHEDULE[".join(schedule.unknown)}].',
                      'Restart all beats after a change of SCHEDULE.')
