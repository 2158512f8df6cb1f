"""Figures of what nobody else knows: where orders are, what is overdue, what lies in RabbitMQ.

The recorder looks every now and then and keeps what it saw; who asks for metrics is answered by that.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from django.db.models import Count, Min

from ecommerce_worker.broker import topology
from ecommerce_worker.errors import Misconfigured
from ecommerce_worker.ledger import queries
from ecommerce_worker.ledger.models import Order, SetAside, State
from ecommerce_worker.ledger.schedule_store import LedgerFirings, last_of
from ecommerce_worker.schedule import checks
from ecommerce_worker.schedule.entries import Entry
from ecommerce_worker.schedule.timing import Timing
from ecommerce_worker.telemetry.metrics import OTHER, Metrics, bounded_cause

if TYPE_CHECKING:
    from celery import Celery

    from ecommerce_worker.settings import Settings

#: Seconds between two looks.
LOOK_SECONDS: Final = 15.0

#: Where orders are that are not over.
OPEN: Final = (State.TRYING, State.WAITING, State.PARKED)

#: The figures: what each is, and its labels.
FIGURES: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    'orders': ('Orders, mails and jobs that are not over, by where they are.', ('state', 'task', 'site', 'cause')),
    'oldest_open_timestamp_seconds': ('When the oldest of them that is not over was first seen.', ('task', 'site')),
    'overdue_orders': ('Those of which nothing was heard when it was time.', ('state',)),
    'lost_facts': ('Reports of runs that never came, lately.', ()),
    'set_aside_facts': ('Facts that this version cannot read.', ()),
    'beat_timestamp_seconds': ('When a beat gave its last sign of life.', ()),
    'job_fired_timestamp_seconds': ('When the last firing of a job was due.', ('entry',)),
    'overdue_job_timestamp_seconds': ('When a job was due first that nobody has fired.', ('entry',)),
    'queue_messages': ('Messages in a queue of RabbitMQ.', ('queue',)),
    'queue_consumers': ('Who consumes a queue of RabbitMQ.', ('queue',)),
}

#: The values of each, by its labels.
Figures = Mapping[str, Mapping[tuple[str, ...], float]]


class Looking:
    """What the recorder saw when it looked last."""

    def __init__(self, app: Celery, settings: Settings, counted: Metrics) -> None:
        self._queues = tuple(settings.QUEUES)
        self._sites, self._tasks = set(settings.site_codes), app.tasks
        self._timings = _timings(app, settings)
        self._look_at = 0.0
        self._seen: Figures = {}
        for name, (what, labels) in FIGURES.items():
            counted.look(name, what, lambda name=name: self._seen.get(name, {}), *labels)  # type: ignore[misc]

    def step(self, connection: Any, now: float) -> None:
        """Look if it is time; raises what the ledger and the broker raise."""
        if now >= self._look_at:
            self._look_at = now + LOOK_SECONDS
            self._seen = {**self._of_ledger(), **self._of_broker(connection)}

    def forget(self) -> None:
        """Nothing is known at present."""
        self._seen, self._look_at = {}, 0.0

    def _of_ledger(self) -> Figures:
        found: dict[str, dict[tuple[str, ...], float]] = {'orders': {}, 'oldest_open_timestamp_seconds': {}}
        are_open = Order.objects.filter(state__in=[state.value for state in OPEN]).order_by()
        for state, task, site, cause, count in are_open.values_list('state', 'task', 'site', 'cause').annotate(
                count=Count('pk')):
            labels = state, self._task(task), self._site(site), bounded_cause(cause)
            found['orders'][labels] = found['orders'].get(labels, 0.0) + count
        oldest = found['oldest_open_timestamp_seconds']
        for task, site, first in are_open.values_list('task', 'site').annotate(first=Min('first_seen')):
            place = self._task(task), self._site(site)
            oldest[place] = min(oldest.get(place, first.timestamp()), first.timestamp())
        overdue, ticked = queries.overdue_by_state(), LedgerFirings(0.0).ticked()
        return {**found, **self._of_schedule(time.time()),
                'overdue_orders': {(state.value,): overdue.get(state, 0) for state in (State.TRYING, State.WAITING)},
                'lost_facts': {(): queries.lost_reports()}, 'set_aside_facts': {(): SetAside.objects.count()},
                'beat_timestamp_seconds': {} if ticked is None else {(): ticked}}

    def _of_schedule(self, now: float) -> Figures:
        last = last_of(entry.key for entry, _ in self._timings)
        fired = {entry.name: last[entry.key].due for entry, _ in self._timings if entry.key in last}
        overdue = {entry.name: checks.overdue(timing, fired.get(entry.name), now) for entry, timing in self._timings}
        return {'job_fired_timestamp_seconds': {(name,): due for name, due in fired.items()},
                'overdue_job_timestamp_seconds': {(name,): due for name, due in overdue.items() if due is not None}}

    def _of_broker(self, connection: Any) -> Figures:
        room = topology.waiting_room(connection)
        found = topology.depths(connection, (*self._queues, topology.PARKED, topology.LEDGER, *room))
        messages: dict[tuple[str, ...], float] = {
            (depth.name,): depth.messages for depth in found if depth.name not in room}
        if waiting := [depth.messages for depth in found if depth.name in room]:
            messages['waiting room',] = sum(waiting)
        return {'queue_messages': messages,
                'queue_consumers': {(depth.name,): depth.consumers for depth in found
                                    if depth.consumers is not None and depth.name not in room}}

    def _task(self, task: str) -> str:
        return task if task in self._tasks else OTHER

    def _site(self, site: str) -> str:
        return site if site in self._sites or not site else OTHER


def _timings(app: Celery, settings: Settings) -> list[tuple[Entry, Timing]]:
    """The jobs, and when each is due; none of a schedule with which no beat would start."""
    try:
        return checks.timings(app, settings)
    except Misconfigured:
        return []
