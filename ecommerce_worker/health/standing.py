"""The findings about broker, workers, ledger and schedule: one list, whoever shows it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Final

from ecommerce_worker.durations import span
from ecommerce_worker.health.broker import Broker
from ecommerce_worker.health.findings import Finding, Severity
from ecommerce_worker.health.ledger import Ledger
from ecommerce_worker.health.schedule import Schedule
from ecommerce_worker.health.spool import Spooled
from ecommerce_worker.health.workers import Workers
from ecommerce_worker.words import counted

#: Seconds for which a delivery may be in a spool: RabbitMQ may be away for a moment.
SPOOLED_SECONDS: Final = 300.0

WARNING, TROUBLE = Severity.WARNING, Severity.TROUBLE


@dataclass(frozen=True)
class Standing:
    """The results of the checks; None if not checked or not there.  What is unknown is never trouble."""

    task_queues: tuple[str, ...]
    broker: Broker
    workers: Workers | None = None
    ledger: Ledger | None = None
    schedule: Schedule | None = None
    spool: Spooled | None = None

    @property
    def parked(self) -> int:
        """The number of parked messages, in the queue and in the ledger."""
        return self.broker.parked + (self.ledger.parked if self.ledger else 0)

    @cached_property
    def findings(self) -> tuple[Finding, ...]:
        """All findings; trouble first."""
        found = [*_of_broker(self), *_of_workers(self), *_of_queues(self), *_of_spool(self), *_of_ledger(self),
                 *_of_intakes(self), *_of_schedule(self)]
        return tuple(sorted(found, key=lambda it: it.severity is not TROUBLE))


def _of_broker(it: Standing) -> Iterator[Finding]:
    broker = it.broker
    if broker.problem:
        yield Finding('broker', TROUBLE, f'The broker is unreachable, so only the ledger was read: {broker.problem}')
    if not broker.takes_messages:
        yield Finding('broker', TROUBLE, 'The broker accepts no messages, so workers cannot be asked: it is low on '
                      'memory or disk space.', 'See `rabbitmq-diagnostics alarms`.')
    if broker.missing and (broker.is_declared or broker.consumers or (it.workers and it.workers.names)):
        yield Finding('queues', TROUBLE, f'{", ".join(broker.missing)} should exist but cannot be reached.',
                      'A worker declares missing queues within a minute. Is a RabbitMQ node down '
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
        yield Finding('messages', TROUBLE, f'{counted(number, "message")} cannot be {what}: RabbitMQ does not accept '
                      'them.', 'The workers keep them and try again; see their log.')


def _of_queues(it: Standing) -> Iterator[Finding]:
    broker = it.broker
    alone = [queue for queue in broker.queues if queue.consumers == 0]
    for queue in alone:
        if queue.messages:
            yield Finding(
                'queues', TROUBLE,
                f'No worker consumes {queue.name}, which holds {counted(queue.messages, "message")}.',
                f'Start a worker with it in QUEUES (or `-Q {queue.name}`).')
    empty = [queue.name for queue in alone if not queue.messages and queue.name in it.task_queues]
    if empty and broker.consumers:
        yield Finding('queues', WARNING, f'No worker consumes {", ".join(empty)}; no messages there yet.',
                      'Start a worker for the queues that shops publish to; remove the others from QUEUES.')
    if it.parked:
        yield Finding('parked', WARNING, f'{counted(it.parked, "message")} parked: each waits until a person resends '
                      'or discards it.', 'See `ecommerce-worker parked list`.')
    if broker.too_large:
        yield Finding('parked', WARNING, f'{counted(broker.too_large, "parked message")} too large for the ledger '
                      'and not shown in the console.', 'See `ecommerce-worker parked list`; to accept '
                      'such messages in future, increase max_allowed_packet in the database.')


def _of_spool(it: Standing) -> Iterator[Finding]:
    spool = it.spool
    if spool is None:
        return
    if spool.oldest > SPOOLED_SECONDS:
        yield Finding('spool', TROUBLE, f'{counted(spool.waiting, "message")} in INTAKE_SPOOL for up to '
                      f'{span(spool.oldest)}: accepted from a shop, but not published to RabbitMQ.',
                      'An intake with `spool` publishes them: is one running, and do its queues exist?')
    if spool.unreadable:
        yield Finding('spool', TROUBLE, f'{counted(spool.unreadable, "file")} in INTAKE_SPOOL cannot be read: orders '
                      'that were accepted from a shop.', 'Inspect the files that end with `.unreadable`.')
    if spool.drafts:
        yield Finding('spool', WARNING, f'{counted(spool.drafts, "file")} in INTAKE_SPOOL left incomplete by an intake '
                      'that was killed: these were not acknowledged to the shop.',
                      'Compare them with the orders of the shop, then remove the files whose names begin with a dot.')


def _of_ledger(it: Standing) -> Iterator[Finding]:
    ledger = it.ledger
    if ledger is None:
        return
    if it.broker.recorders == 0 and not it.broker.problem:
        yield Finding('recorder', TROUBLE, 'No recorder is running: the ledger is not updated.',
                      'Start one: `ecommerce-worker recorder`.')
    if ledger.problem:
        yield Finding('ledger', WARNING, f'The ledger cannot be read: {ledger.problem}')
    if ledger.overdue:
        yield Finding('orders', TROUBLE, f'{counted(ledger.overdue, "order")} overdue: no report when one was due.',
                      'See `ecommerce-worker orders list --overdue`; `ecommerce-worker resubmit` asks the '
                      'shop. If nothing leaves the waiting room, see docs/how-to/reset-rabbitmq.rst.')
    if ledger.lost:
        yield Finding('reports', WARNING, f'{counted(ledger.lost, "report")} of runs lost in the last '
                      f'{ledger.lost_days} days: as many orders, mails or jobs may be shown in an old state.')


def _of_intakes(it: Standing) -> Iterator[Finding]:
    for name, problem in it.ledger.webhooks.items() if it.ledger else ():
        yield Finding('intakes', TROUBLE, f'The intake {name} receives nothing: the shop {problem}.',
                      '`ecommerce-worker reconcile --repair` enables webhooks; until then orders are missing.')
    for name, seconds in it.ledger.silent.items() if it.ledger else ():
        yield Finding('intakes', WARNING, f'The intake {name} has received nothing for {span(seconds)}, longer than '
                      'usual.', '`ecommerce-worker reconcile --dry-run` asks the shop whether orders are missing; is '
                                'the '
                      'intake running and reachable?')


def _of_schedule(it: Standing) -> Iterator[Finding]:
    schedule = it.schedule
    if schedule is None:
        return
    if schedule.problem:
        yield Finding('beat', WARNING, f'It is unknown whether a beat is running: {schedule.problem}')
    if schedule.is_missed:
        last = ('none has ever run' if schedule.silent is None
                else f'the last sign of life was {span(schedule.silent)} ago')
        yield Finding('beat', TROUBLE, f'No beat is running: {last}. The jobs of SCHEDULE are not published, and '
                      'orders lost on their way to RabbitMQ are not resubmitted.',
                      'Start one: `ecommerce-worker beat`.')
    for mistake in schedule.mistakes:
        yield Finding('schedule', TROUBLE, f'Beat cannot start with these settings: {mistake}')
    for name, since in schedule.overdue:
        yield Finding('schedule', TROUBLE, f'SCHEDULE[{name}] has been overdue since '
                      f'{datetime.fromtimestamp(since, UTC):%Y-%m-%d %H:%M} UTC: no beat has fired it.',
                      "See beat's log.")
    if schedule.is_alive and schedule.unknown:
        yield Finding('schedule', WARNING, f'No running beat knows SCHEDULE[{"], SCHEDULE[".join(schedule.unknown)}].',
                      'Restart beat after changing SCHEDULE.')
