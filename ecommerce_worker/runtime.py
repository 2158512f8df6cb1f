"""The process's one global: its settings, its sites and who is told of outcomes."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Container, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from ecommerce_worker.clients.circuit import Hold
from ecommerce_worker.errors import Misconfigured, WrongArguments
from ecommerce_worker.settings import Settings, certificate_problems, load
from ecommerce_worker.site import Site
from ecommerce_worker.telemetry import log
from ecommerce_worker.telemetry.run import Listener, Safety, Told

logger = logging.getLogger(__name__)


#: The settings that these are made from.
MADE_FROM: Final = {'mailer': ('EMAIL_VENDOR', 'EMAIL_OPTIONS', 'BRAZE', 'SAILTHRU'), 'purchases': ('SAILTHRU',)}


@dataclass
class Run:
    """One message in this process: how its run ended, what was told of it, and whether what follows is safe with the
    broker.

    The lock is held while it runs and is settled.
    """

    outcome: Any = None
    told: Told | None = None
    secured: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)


class Runs:
    """The messages that this process had lately.

    A connection that is lost during a run takes the acknowledgement with it, and the broker delivers the message
    again.  If that is to the same process, it knows how the run ended, and need not do it again.
    """

    def __init__(self, length: int) -> None:
        self._length = length
        self._runs: OrderedDict[Hashable, Run] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, message: Hashable, *, redelivered: bool) -> Run:
        """The run of this message; one that is not delivered again begins anew, whatever was before."""
        with self._lock:
            if redelivered and message in self._runs:
                return self._runs[message]
            self._runs[message] = run = Run()
            self._runs.move_to_end(message)
            if len(self._runs) > self._length:
                self._runs.popitem(last=False)
            return run


class Runtime:
    """What the tasks of one process share."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.listeners: list[Listener] = [log.log]
        #: Before which messages are not acknowledged; None where nobody listens but the log.
        self.safety: Safety | None = None
        self.runs = Runs(2 * settings.WORKER_CONCURRENCY)  # twice as many as are in hand at once
        self._sites: dict[int, Site] = {}
        self._holds: dict[str, Hold] = {}
        self._lock = threading.Lock()

    def site(self, code: str | None = None) -> Site:
        """The site of that code; one without overrides of its own shares the default site.

        Codes come with messages: raises :class:`~ecommerce_worker.errors.WrongArguments` for one that is not a text.
        """
        if not (code is None or isinstance(code, str)):
            raise WrongArguments('site_code must be a text')
        settings = self.settings.for_site(code)
        with self._lock:
            # Settings of a site are one object for as long as the process lives, and as many as there are overrides.
            return self._sites.setdefault(id(settings), Site(settings, self.hold))

    def check(self, spoiled: Container[str] = ()) -> None:
        """Make sure that whatever is built from settings can be; raises ``Misconfigured`` with all that cannot.

        What is built from a setting that is ``spoiled`` is not looked at: it was said already what is wrong with that.
        """
        problems = certificate_problems()
        for code in (None, *self.settings.site_codes):
            site = self.site(code)
            for name in ('mailer', 'purchases') if site.settings.email_vendor else ('purchases',):
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

    def tell(self, told: Told) -> None:
        """Tell every listener; one that fails harms neither the others nor whoever tells."""
        for listener in self.listeners:
            try:
                listener(told)
            except Exception:
                logger.exception('a listener failed')

    def hold(self, url: str) -> Hold:
        """The hold on the host of this URL: one for all sites that have a service there."""
        host = urlsplit(url).netloc.rpartition('@')[2].lower()
        return self._holds.setdefault(host, Hold(host, self.settings.WORKER_CONCURRENCY))


_current: Runtime | None = None
_lock = threading.Lock()


def current() -> Runtime:
    """The runtime in force; the first call loads the configuration (raises ``Misconfigured``)."""
    global _current  # noqa: PLW0603 - the one global
    with _lock:
        if _current is None:
            _current = Runtime(load())
        return _current


def site(code: str | None = None) -> Site:
    """The site of that code in the runtime in force."""
    return current().site(code)


@contextmanager
def use(runtime: Runtime) -> Iterator[Runtime]:
    """Put another runtime in force for a while, for tests and commands."""
    global _current  # noqa: PLW0603 - the one global
    with _lock:
        before, _current = _current, runtime
    try:
        yield runtime
    finally:
        with _lock:
            _current = before
