"""Metrics of the ledger and RabbitMQ: where orders are, what is overdue, the messages in queues.

::

    a thread of the recorder, every 15 s ──► the ledger, RabbitMQ ──► what was seen last ──► /metrics
                                                 │ away, slow, or a defect of ours
                                                 └──► nothing is known of that; recording goes on

Who asks for metrics waits for neither, nor does the recorder: a queue may not answer, and a query may take long.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from django.db import Error, close_old_connections
from django.db import connection as database
from django.db.models import Count, Min

from ecommerce_worker import logs
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

logger = logs.of(__name__)

#: Seconds between two looks: at first, for a recorder that begins has much to write, and at most.
SHORTEST, LONGEST = 1.0, 15.0

#: Seconds for which it is known what was seen.
KNOWN_SECONDS: Final = 90.0

#: Where orders are that are not over.
OPEN: Final = (State.TRYING, State.WAITING, State.PARKED)

#: The figures: what each is, and its labels.
FIGURES: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    'orders': ('Open orders, mails and jobs, by state.', ('state', 'task', 'site', 'cause')),
    'oldest_open_timestamp_seconds': ('When the oldest open order, mail or job was first seen.', ('task', 'site')),
    'overdue_orders': ('Open orders, mails and jobs without a report when one was due.', ('state',)),
    'lost_facts': ('Reports of runs that were lost in the last seven days.', ()),
    'set_aside_facts': ('Reports set aside because this version cannot read them.', ()),
    'beat_timestamp_seconds': ('Last sign of life of a beat.', ()),
    'job_fired_timestamp_seconds': ('When the last firing of a job was due.', ('entry',)),
    'overdue_job_timestamp_seconds': ('Since when a job has been due without being fired.', ('entry',)),
    'queue_messages': ('Messages in a queue.', ('queue',)),
    'queue_consumers': ('Consumers of a queue.', ('queue',)),
}

#: The values of each, by its labels.
Figures = Mapping[str, Mapping[tuple[str, ...], float]]


class Looking:
    """The last observations; :meth:`start` begins to collect them."""

    def __init__(self, app: Celery, settings: Settings, counted: Metrics) -> None:
        self._queues = tuple(settings.QUEUES)
        self._sites, self._tasks = set(settings.site_codes), app.tasks
        self._timings = _timings(app, settings)
        self._app = app
        self._connection: Any = None
        #: What was seen of each, and when (monotonic seconds).
        self._seen: dict[str, tuple[float, Figures]] = {}
        self._failed: set[str] = set()
        for name, (what, labels) in FIGURES.items():
            counted.look(name, what, lambda name=name: self._figure(name), *labels)  # type: ignore[misc]

    def start(self) -> None:
        """Collect from now on."""
        threading.Thread(target=self._run, name='figures', daemon=True).start()

    def _figure(self, name: str) -> Mapping[tuple[str, ...], float]:
        """The values of a metric; none if they are out of date."""
        since = time.monotonic() - KNOWN_SECONDS
        return next((seen[name] for at, seen in list(self._seen.values()) if at > since and name in seen), {})

    def _run(self) -> None:
        pause = SHORTEST
        while True:
            self._look('the ledger', self._of_ledger, self._leave_ledger)
            self._look('RabbitMQ', self._of_broker, self._leave_broker)
            time.sleep(pause)
            pause = min(LONGEST, pause * 2)

    def _look(self, what: str, look: Callable[[], Figures], leave: Callable[[], None]) -> None:
        try:
            self._seen[what] = time.monotonic(), look()
            self._failed.discard(what)
        except Exception as error:  # noqa: BLE001 - measuring must not break anything
            self._seen.pop(what, None)
            leave()
            if what not in self._failed:
                self._failed.add(what)
                logger.warning('cannot be reached, so its metrics are left out', what=what,
                               error=type(error.__cause__ or error).__name__)

    def _leave_ledger(self) -> None:
        with contextlib.suppress(Error):
            database.close()

    def _leave_broker(self) -> None:
        connection, self._connection = self._connection, None
        if connection:
            connection.collect()

    def _of_ledger(self) -> Figures:
        close_old_connections()
        found: dict[str, dict[tuple[str, ...], float]] = {'orders': {}, 'oldest_open_timestamp_seconds': {}}
        are_open = Order.objects.filter(state__in=[state.value for state in OPEN]).order_by()
        oldest = found['oldest_open_timestamp_seconds']
        for state, task, site, cause, count, first in are_open.values_list('state', 'task', 'site', 'cause').annotate(
                count=Count('pk'), first=Min('first_seen')):
            place = self._task(task), self._site(site)
            labels = state, *place, bounded_cause(cause)
            found['orders'][labels] = found['orders'].get(labels, 0.0) + count
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

    def _of_broker(self) -> Figures:
        # Without heartbeats, since nothing would send them between two looks.
        connection = self._connection = self._connection or topology.asking(self._app, heartbeat=0)
        connection.ensure_connection(max_retries=1, interval_start=0)
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
    """The jobs, and when each is due; none if the schedule is invalid."""
    try:
        return checks.timings(app, settings)
    except Misconfigured:
        return []
