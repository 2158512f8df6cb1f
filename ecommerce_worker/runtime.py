"""The one global of the process: its settings, sites and listeners."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Container, Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from ecommerce_worker.clients.circuit import CircuitBreaker
from ecommerce_worker.errors import Misconfigured, WrongArguments
from ecommerce_worker.locks.machine import Turns
from ecommerce_worker.process import role
from ecommerce_worker.settings import VENDORS, Settings, certificate_problems, load
from ecommerce_worker.telemetry.listening import Listeners
from ecommerce_worker.telemetry.log import Lines
from ecommerce_worker.telemetry.run import RunReport, Safety, new_id

if TYPE_CHECKING:
    from ecommerce_worker.site import Site

#: The settings that these are made from.
MADE_FROM: Final = {'mailer': ('EMAIL_VENDOR', 'EMAIL_OPTIONS', *VENDORS), 'purchases': ('SAILTHRU',),
                    'covers': ('COVERED_BY', 'LEARNER_KEY')}


@dataclass
class Run:
    """One message in this process: how its run ended, the report of it, and whether what follows is safe with the
    broker.

    The lock is held while it runs; ``name`` tells it from any other run of any process.
    """

    outcome: Any = None
    report: RunReport | None = None
    secured: bool = False
    name: str = field(default_factory=new_id)
    lock: threading.Lock = field(default_factory=threading.Lock)


#: Ids of messages that a process remembers to have run: some 2 MB.
REMEMBERED: Final = 10_000


class Runs:
    """The recent messages of this process.

    A connection that is lost during a run takes the acknowledgement with it, and the broker delivers the message
    again.  If that is to the same process, it knows how the run ended, and need not do it again.

    There may also be two messages of one id: a shop published it twice, or a next try was published and the worker
    killed before it had acknowledged the message itself.  Nothing on the later one shows that the other was run.
    """

    def __init__(self, length: int) -> None:
        self._length = length
        self._runs: OrderedDict[Hashable, Run] = OrderedDict()
        self._expected: OrderedDict[str, Run] = OrderedDict()
        self._at_work: Counter[str] = Counter()
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()

    def begin(self, id_: str) -> None:
        """Note that a run of the message with this id begins."""
        with self._lock:
            self._at_work[id_] += 1

    def end(self, id_: str, *, acted: bool) -> None:
        """Note that it has ended, and whether it may have done anything."""
        with self._lock:
            self._at_work[id_] -= 1
            if not self._at_work[id_]:
                del self._at_work[id_]
            if acted:
                self._ended[id_] = None
                self._ended.move_to_end(id_)
                if len(self._ended) > REMEMBERED:
                    self._ended.popitem(last=False)

    def has_another(self, id_: str) -> bool:
        """Whether, beside the run that asks, there is or was one of the same id that may have done something."""
        with self._lock:
            return id_ in self._ended or self._at_work[id_] > 1

    def of(self, message: Hashable, *, redelivered: bool, name: str = '') -> Run:
        """The run of this message; one that is not redelivered starts again, whatever was before.

        ``name`` is the run that the message was to come back to; see :meth:`expect`.
        """
        with self._lock:
            if name in self._expected:
                return self._expected[name]
            if redelivered and message in self._runs:
                return self._runs[message]
            self._runs[message] = run = Run()
            self._runs.move_to_end(message)
            if len(self._runs) > self._length:
                self._runs.popitem(last=False)
            return run

    def expect(self, run: Run) -> None:
        """Remember a running run whose redelivered message waits and returns under its name."""
        with self._lock:
            self._expected[run.name] = run
            if len(self._expected) > self._length:
                self._expected.popitem(last=False)

    def secured(self, name: str) -> None:
        """Note that the broker has confirmed what follows from the run with this name."""
        with self._lock:
            for run in (*self._runs.values(), *self._expected.values()):
                if run.name == name:
                    run.secured = True


class Runtime:
    """The resources that the tasks of one process share."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.listeners = Listeners(Lines())
        #: Messages are not acknowledged before it has their reports; None if there is only the log.
        self.safety: Safety | None = None
        self.runs = Runs(2 * settings.WORKER_CONCURRENCY)  # twice as many as are in hand at once
        #: Whose turn it is at an order: one run of this machine, until something wider is put here.
        self.turn: Callable[..., AbstractContextManager[None]] = Turns(settings.BROKER_URL).turn
        self._sites: dict[int, Site] = {}
        self._shops: dict[str, str] = {}
        self._circuits: dict[str, CircuitBreaker] = {}
        self._lock = threading.Lock()

    def site(self, code: str | None = None) -> Site:
        """The site of that code; one without overrides of its own shares the default site.

        Codes come with messages: raises :class:`~ecommerce_worker.errors.WrongArguments` for one that is not a string.
        """
        if not (code is None or isinstance(code, str)):
            raise WrongArguments('site_code must be a string')
        settings = self.settings.for_site(code)
        with self._lock:
            # Settings of a site are one object for as long as the process lives, and as many as there are overrides.
            found = self._sites.get(id(settings))
            if found is None:
                # Its clients take a fifth of the time in which a command starts, and most commands make no calls.
                from ecommerce_worker.site import Site

                found = self._sites[id(settings)] = Site(settings, self.circuit)
            return found

    def shop(self, site: Site) -> str:
        """The name of a site's shop: the first site code of that shop, '' for the site without one.

        Not its URL, which may differ between machines.
        """
        root = site.settings.ECOMMERCE_API_ROOT
        with self._lock:
            if not self._shops:
                # Of all sites at once: there may be thousands.
                codes = (None, *sorted(self.settings.site_codes))
                self._shops = {self.settings.for_site(code).ECOMMERCE_API_ROOT: code or '' for code in reversed(codes)}
            return self._shops[root]

    def check(self, spoiled: Container[str] = ()) -> None:
        """Check that everything made from settings can be built; raises ``Misconfigured`` with all problems.

        What depends on a ``spoiled`` setting is skipped: its problem was already reported.
        """
        problems = certificate_problems()
        for code in (None, *self.settings.site_codes):
            site = self.site(code)
            for name in MADE_FROM if site.settings.email_vendor else ('purchases', 'covers'):
                if any(it in spoiled for it in (*MADE_FROM[name], *(['SITE_OVERRIDES'] if code else []))):
                    continue
                try:
                    getattr(site, name)
                except Misconfigured as error:
                    problems += [f'site {code}: {problem}' if code else problem for problem in error.problems]
        # A site whose settings of mail are those of all sites has their problems too.
        problems = [it for it in problems if it.partition(': ')[2] not in problems]
        if problems:
            raise Misconfigured(problems)

    def report(self, report: RunReport) -> None:
        """Report an outcome to all listeners."""
        self.listeners.tell(self.listeners.reported, report)

    def circuit(self, url: str) -> CircuitBreaker:
        """The circuit breaker of the host of this URL: one for all sites that have a service there."""
        host = host_of(url)
        return self._circuits.setdefault(host, CircuitBreaker(
            host, self.settings.WORKER_CONCURRENCY, changed=self._circuit_changed, called=self._called,
            fetched=self._fetched))

    def published(self, kind: str, seconds: float | None) -> None:
        """Notify listeners of a message that RabbitMQ confirmed, or did not; see
        :meth:`~ecommerce_worker.telemetry.listening.Listener.published`.
        """
        if self.listeners.published:
            self.listeners.tell(self.listeners.published, kind, seconds)

    def left_alone(self) -> list[tuple[str, float]]:
        """The hosts with an open circuit breaker, and for how many more seconds."""
        return [(host, seconds) for host, circuit in list(self._circuits.items()) if (seconds := circuit.rest) > 0]

    def _circuit_changed(self, host: str, state: str, reason: str) -> None:
        self.listeners.tell(self.listeners.circuit, host, state, reason)

    def _called(self, *what: Any) -> None:
        if self.listeners.called:
            self.listeners.tell(self.listeners.called, *what)

    def _fetched(self, host: str, cause: str) -> None:
        self.listeners.tell(self.listeners.fetched, host, cause)


def host_of(url: str) -> str:
    """Host and port of a URL, for display."""
    return urlsplit(url).netloc.rpartition('@')[2].lower()


_current: Runtime | None = None
_loading = False
_lock = threading.RLock()


def current() -> Runtime:
    """The runtime in force; the first call loads the configuration (raises ``Misconfigured``)."""
    global _current, _loading  # noqa: PLW0603 - the one global
    with _lock:
        if _current is None:
            if _loading:
                raise Misconfigured(['an extension reads settings while being imported; read them in a task instead'])
            _loading = True
            try:
                _current = Runtime(load(command=role.name()))
            finally:
                _loading = False
        return _current


def site(code: str | None = None) -> Site:
    """The site of that code in the runtime in force."""
    return current().site(code)


@contextmanager
def use(runtime: Runtime) -> Iterator[Runtime]:
    """Use another runtime within the block, for tests and commands."""
    global _current  # noqa: PLW0603 - the one global
    with _lock:
        before, _current = _current, runtime
    try:
        yield runtime
    finally:
        with _lock:
            _current = before
