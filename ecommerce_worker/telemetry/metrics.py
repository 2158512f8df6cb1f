"""Metrics of this process for Prometheus, counted where things happen and read on request.

::

    runs, calls, tokens, confirms ──► Metrics, a listener ──► counters ──┐
    in a child of a prefork pool  ──► a datagram to its parent ──► ──────┤
    what is to be looked at when it is asked for ──► looked at ──────────┴──► /metrics at METRICS_ADDRESS

No label has more values than the configuration has names: a value from a message is ``other`` unless it is one of
them.  No label names this process, for Prometheus knows whom it asks.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

from typing_extensions import override

from ecommerce_worker import __version__, extras, logs
from ecommerce_worker.errors import CAUSES
from ecommerce_worker.process import pulse
from ecommerce_worker.telemetry.listening import Listener

if TYPE_CHECKING:
    from ecommerce_worker.settings import Settings
    from ecommerce_worker.telemetry.run import RunReport

logger = logs.of(__name__)

#: How each name begins.
PREFIX: Final = 'ecommerce_worker_'

#: The label for values that anyone may have written.
OTHER: Final = 'other'

#: Of circuit breakers, as Prometheus spells them.
STATES: Final = ('closed', 'half_open', 'open')

#: Upper bounds of histograms, in seconds, and in tries.
RUN_SECONDS: Final = (.05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120)
HTTP_SECONDS: Final = (.005, .01, .025, .05, .075, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10, 30, 60)
WAIT_SECONDS: Final = (1, 2, 4, 8, 15, 30, 60, 120, 300, 900, 3600, 86_400)
QUEUE_SECONDS: Final = (.1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 86_400)
CONFIRM_SECONDS: Final = (.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 15, 60)
TRIES: Final = (1, 2, 3, 5, 8, 12, 20)

METHODS: Final = ('GET', 'POST', 'PUT', 'PATCH', 'DELETE', 'HEAD')

#: The maximum number of hosts with labels of their own.
HOSTS: Final = 100

#: What a child tells at once, at most; and seconds in which what children tell gathers.
UNSENT: Final = 200
GATHER_SECONDS: Final = 0.1

#: The maximum number of events not counted yet: counting many together takes half as long as one by one.
HEARD: Final = 100

#: A look: the value by the values of the labels; nothing where there is nothing to tell.
Look = Callable[[], Mapping[tuple[str, ...], float]]


class Metrics(Listener):
    """The metrics of a process and its children."""

    def __init__(self, settings: Settings, tasks: Collection[str] = ()) -> None:
        """``tasks`` are the names that a task may have; raises ImportError without ``prometheus_client``."""
        client = _client()
        self._client = client
        self._tasks, self._queues, self._sites = tasks, set(settings.known_queues), set(settings.site_codes)
        self._hosts: set[str] = set()
        self.registry = client.CollectorRegistry(auto_describe=False)
        self._heard: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._looks: dict[str, tuple[Any, str, tuple[str, ...], Look]] = {}
        #: What counts each series: to look it up by its labels takes as long as to count.
        self._series: dict[tuple[str, ...], Callable[[float], None]] = {}
        #: In a child: its parent, and the events not reported to it yet.
        self._parent: socket.socket | None = None
        self._lock = threading.Lock()
        self._unsent: list[tuple[str, Collection[str], float]] = []

        def counter(name: str, what: str, *labels: str) -> Any:
            return client.Counter(PREFIX + name, what, labels, registry=self.registry)

        def histogram(name: str, what: str, bounds: Iterable[float], *labels: str) -> Any:
            return client.Histogram(PREFIX + name, what, labels, buckets=tuple(bounds), registry=self.registry)

        self._counters = {
            'runs': counter('runs', 'Finished runs of tasks, by outcome.', 'task', 'queue', 'site', 'outcome', 'cause'),
            'unrun': counter('messages_without_run', 'Messages parked or returned to their queue without a run.',
                             'task', 'queue', 'outcome', 'cause'),
            'circuits': counter('circuit_changes', 'State changes of circuit breakers.', 'host', 'state'),
            'tokens': counter('token_fetches', 'Attempts to fetch a token, by the cause of the failure.', 'host',
                              'cause'),
            'unconfirmed': counter('publish_failures', 'Messages that RabbitMQ rejected, or had not '
                                   'confirmed when the connection was lost.', 'kind'),
            'deliveries': counter('intake_deliveries', 'Deliveries to intakes, by result.', 'intake', 'state'),
        }
        self._histograms = {
            'seconds': histogram('run_duration_seconds', 'Duration of a run.', RUN_SECONDS, 'task', 'outcome'),
            'queued': histogram('first_run_delay_seconds', 'Time from publishing a message to '
                                'its first run, where the message has a time.', QUEUE_SECONDS, 'queue'),
            'confirms': histogram('publish_confirm_seconds', 'Time until RabbitMQ confirmed a published message.',
                                  CONFIRM_SECONDS, 'kind'),
            'tries': histogram('attempts', 'Number of tries until a message was done or parked.', TRIES, 'task',
                               'outcome'),
            'waits': histogram('next_try_delay_seconds', 'Delay until the next try of a message.',
                               WAIT_SECONDS, 'cause'),
            'calls': histogram('http_request_duration_seconds', 'Duration of an HTTP request to another service.',
                               HTTP_SECONDS, 'host', 'method', 'status_class'),
        }
        self._circuit = client.Gauge(f'{PREFIX}circuit_state', '1 for the current state of a circuit breaker.',
                                     ('host', 'state'), registry=self.registry)
        client.ProcessCollector(registry=self.registry)
        self.registry.register(_Looked(self._looks))
        self.look('build_info', 'Versions of this process.', lambda: {_build(): 1.0}, 'version', 'python', 'celery',
                  'kombu')
        self.look('ready', '1 if the process is ready to do its work.',
                  lambda: {(pulse.own.role,): float(not pulse.own.trouble('ready'))}, 'role')
        self.look('pulse_timestamp_seconds', 'Time of the last turn of the main loop.',
                  lambda: {(pulse.own.role,): pulse.own.turned}, 'role')

    def look(self, name: str, what: str, look: Look, *labels: str, counts: bool = False) -> None:
        """Add a gauge, or with ``counts`` a counter, whose value is read on request."""
        core = self._client.metrics_core
        family = core.CounterMetricFamily if counts else core.GaugeMetricFamily
        self._looks[PREFIX + name] = family, what, labels, look

    def page(self) -> tuple[int, str, bytes]:
        """All metrics, in Prometheus's format."""
        self._settle()
        return 200, self._client.CONTENT_TYPE_LATEST, self._client.generate_latest(self.registry)

    def of_children(self) -> None:
        """Make children report what they count; to be called once, before any is forked."""
        told, telling = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        telling.setblocking(False)

        def forked() -> None:
            told.close()
            self._parent, self._lock, self._unsent = telling, threading.Lock(), []

        os.register_at_fork(after_in_child=forked)
        threading.Thread(target=self._hear, args=(told,), name='metrics of children', daemon=True).start()

    def _hear(self, told: socket.socket) -> None:
        while True:
            for name, labels, value in json.loads(told.recv(65_536)):
                self._count(name, labels, value)
            # To be woken for each would cost more than to count it.
            if not select.select([told], [], [], 0)[0]:
                time.sleep(GATHER_SECONDS)

    # -- events -------------------------------------------------------------------------------------------------------

    def _hold(self, count: Callable[..., None], *what: Any) -> None:
        """Count it later with others, at the latest on request; a child reports to its parent at once."""
        if self._parent is not None:
            count(*what)
            return
        self._heard.append((count, what))
        if len(self._heard) >= HEARD:
            self._settle()

    def _settle(self) -> None:
        while self._heard:
            try:
                count, what = self._heard.popleft()
            except IndexError:
                return  # another thread has counted it
            count(*what)

    @override
    def ended(self, report: RunReport) -> None:
        """Count a run."""
        self._hold(self._run, report)

    def _run(self, report: RunReport) -> None:
        task, cause = self._task(report), _cause(report)
        self._count('seconds', (task, report.outcome), report.seconds)
        if report.queued is not None:
            self._count('queued', (self._queue(report),), report.queued)
        if report.next_try is not None:
            self._count('waits', (cause,), max(0.0, report.next_try - report.ended))
        else:
            self._count('tries', (task, report.outcome), report.attempt)
        self._count('runs', (task, self._queue(report), self._site(report), report.outcome, cause))

    @override
    def reported(self, report: RunReport) -> None:
        """Count a message without a run."""
        if report.outcome == 'returned' or (report.outcome == 'parked' and not report.attempt):
            self._count('unrun', (self._task(report), self._queue(report), report.outcome, _cause(report)))

    @override
    def circuit(self, host: str, state: str, reason: str) -> None:
        """Count a state change, and store the state."""
        self._count('circuits', (self._host(host), state.replace('-', '_')))

    @override
    def called(self, host: str, method: str, status: int | None, seconds: float) -> None:
        """Count a call of another service."""
        self._hold(self._call, host, method, status, seconds)

    def _call(self, host: str, method: str, status: int | None, seconds: float) -> None:
        self._count('calls', (self._host(host), method if method in METHODS else OTHER,
                              f'{status // 100}xx' if status else 'none'), seconds)

    @override
    def fetched(self, host: str, cause: str) -> None:
        """Count an attempt to fetch a token."""
        self._count('tokens', (self._host(host), bounded_cause(cause)))

    @override
    def published(self, kind: str, seconds: float | None) -> None:
        """Count a message that was confirmed, or not."""
        if seconds is None:
            self._count('unconfirmed', (kind,))
        else:
            self._count('confirms', (kind,), seconds)

    def delivered(self, intake: str, state: str) -> None:
        """Count a delivery to an intake."""
        self._count('deliveries', (intake, state))

    def _count(self, name: str, labels: Collection[str], value: float = 1.0) -> None:
        if self._parent is not None:
            self._tell(self._parent, name, labels, value)
            return
        series = name, *labels
        count = self._series.get(series)
        if count is None:
            count = self._series[series] = (
                self._histograms[name].labels(*labels).observe if name in self._histograms else
                self._counters[name].labels(*labels).inc)
        count(value)
        if name == 'circuits':
            host, now = labels
            for state in STATES:
                self._circuit.labels(host, state).set(state == now)

    def _tell(self, parent: socket.socket, name: str, labels: Collection[str], value: float) -> None:
        """Report to the parent: observations are sent with the next count, so that a run costs one datagram."""
        with self._lock:
            self._unsent.append((name, labels, value))
            if name in self._histograms and len(self._unsent) < UNSENT:
                return
            unsent, self._unsent = self._unsent, []
            # Without room it is not counted: a run never waits.
            with contextlib.suppress(OSError):
                parent.send(json.dumps(unsent).encode())

    def _task(self, report: RunReport) -> str:
        return report.task if report.task in self._tasks else OTHER

    def _queue(self, report: RunReport) -> str:
        return report.queue if report.queue in self._queues else OTHER

    def _site(self, report: RunReport) -> str:
        return report.site if report.site in self._sites or not report.site else OTHER

    def _host(self, host: str) -> str:
        if host not in self._hosts:
            if len(self._hosts) >= HOSTS:
                return OTHER
            self._hosts.add(host)
        return host


def _cause(report: RunReport) -> str:
    return bounded_cause(report.cause)


def bounded_cause(cause: str) -> str:
    """The cause as a label: ``none`` for none, and ``other`` for unknown ones."""
    return cause if cause in CAUSES else OTHER if cause else 'none'


class _Looked:
    """Metrics that are read on request; one that fails is left out, so that an alert about its absence is raised."""

    def __init__(self, looks: Mapping[str, tuple[Any, str, tuple[str, ...], Look]]) -> None:
        self._looks = looks

    def describe(self) -> list[Any]:
        """Nothing: metrics may be added later."""
        return []

    def collect(self) -> Iterator[Any]:
        """Look."""
        for name, (family, what, labels, look) in list(self._looks.items()):
            found = family(name, what, labels=labels)
            try:
                for values, value in look().items():
                    found.add_metric(values, value)
            except Exception as error:  # noqa: BLE001 - measuring must not break anything
                logger.debug('a metric could not be measured', name=name, error=type(error).__name__)
                continue
            yield found


def _build() -> tuple[str, ...]:
    return (__version__, platform.python_version(), version('celery'), version('kombu'))


def _client() -> Any:
    """The client library, counting in memory.

    Where ``PROMETHEUS_MULTIPROC_DIR`` is set, for some other program, it would write files, of commands too.  The
    variable stays: an extension may have begun to count that way, and would fail without.
    """
    import prometheus_client
    from prometheus_client import values

    client: Any = prometheus_client
    if values.ValueClass is not values.MutexValue:
        logger.warning('a variable for metrics in files is ignored: children report to their parent',
                       name='PROMETHEUS_MULTIPROC_DIR')
        values.ValueClass = values.MutexValue
    # When a counter was begun is when its process was.
    client.disable_created_metrics()
    return client


def begun(settings: Settings, tasks: Collection[str] = ()) -> Metrics | None:
    """The metrics of this process; None, with a line in the log, if the library is not installed."""
    if not extras.is_installed('prometheus_client'):
        logger.warning('metrics are not served, only health: the library is not installed',
                       remedy=extras.install('metrics'))
        return None
    return Metrics(settings, tasks)
