"""A worker in memory, for tests of extensions: no broker, no processes; services are real ones on loopback.

::

    post ──► the intake ──► queue ──► outcome ──► the task ──► the service, with scripted answers
                                         ▲            │
                                         └─ wait ◄────┘ is to be tried again
"""

from __future__ import annotations

import contextlib
import json
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Final, Self

from celery.exceptions import Ignore
from typing_extensions import override

from ecommerce_worker import runtime
from ecommerce_worker.broker import topology
from ecommerce_worker.broker.app import Application as CeleryApplication
from ecommerce_worker.broker.app import celery_settings
from ecommerce_worker.broker.notes import Notes
from ecommerce_worker.broker.publishing import Publication
from ecommerce_worker.broker.wire import read
from ecommerce_worker.errors import Misconfigured, NotPublished
from ecommerce_worker.execution.delivery import DELIVERY, Delivery
from ecommerce_worker.execution.outcomes import Handover
from ecommerce_worker.intake import intakes
from ecommerce_worker.intake.application import Application
from ecommerce_worker.intake.counts import Counts
from ecommerce_worker.intake.functions import Standard, Token
from ecommerce_worker.settings import SETTINGS, load
from ecommerce_worker.settings.extensions import find
from ecommerce_worker.settings.kinds import URL, Secrecy
from ecommerce_worker.telemetry.listening import Listener
from ecommerce_worker.telemetry.run import RunReport
from ecommerce_worker.testing.intake import SECRET, Answered, InMemory, SourceContract, posted
from ecommerce_worker.testing.peer import Peer, Reply, Request, reply

#: The value of each secret that a test does not give.
A_SECRET: Final = 'a-secret-of-a-test'


@dataclass
class Expected:
    """A request that a service is to get; ``asked`` are those that came."""

    method: str
    path: str
    answers: list[Reply]
    asked: list[Request] = field(default_factory=list)

    @property
    def bodies(self) -> list[Any]:
        """What they said in JSON; None for one without a body."""
        return [json.loads(it.body) if it.body else None for it in self.asked]


class Worker(Listener):
    """A worker with one extension, and an intake of each kind that it brings, called as the kind is.

    ``settings`` are those of the group that is called as the extension; URLs that are not given lead to a stand-in on
    loopback, and secrets are made up.  ``others`` are settings of the worker by their names, and of further groups.
    Used as a context manager; it ends with AssertionError for what a service was to be asked and was not, and for what
    it was asked besides.
    """

    def __init__(self, extension: str, *, settings: Mapping[str, Any] | None = None, **others: Any) -> None:
        self._service = Peer(self._answer)
        self._expected: list[Expected] = []
        self._unexpected: list[str] = []
        self._ready: deque[Publication] = deque()
        self._waiting: list[Publication] = []
        #: What became of messages, in this order.
        self.reports: list[RunReport] = []
        #: What is parked.
        self.parked: list[Publication] = []
        #: What the broker does not confirm anything for; '' for a broker that does.
        self.trouble = ''
        with contextlib.ExitStack() as stack:
            stack.callback(self._service.close)
            made = runtime.Runtime(load(_environment(extension, self._service.url, settings or {}, others)))
            made.listeners.add(self)
            stack.callback(_close, made)
            stack.enter_context(runtime.use(made))
            self.app = CeleryApplication('ecommerce_worker', set_as_current=False)
            stack.callback(self.app.close)
            self.app.config_from_object({**celery_settings(made.settings), 'broker_url': 'memory://'})
            self.app.loader.import_default_modules()
            self.app.finalize()
            self.intakes = intakes.read(made.settings, self.app.tasks)
            self._application = Application(self.intakes, dict.fromkeys(self.intakes, self), Counts(),
                                            lambda: not self.trouble)
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._stack.close()
        if error is None:
            missed = [f'{it.method} {it.path}' for it in self._expected if not it.asked]
            assert not self._unexpected, f'the service was not to be asked {", ".join(self._unexpected)}'
            assert not missed, f'the service was not asked {", ".join(missed)}'

    @override
    def reported(self, report: RunReport) -> None:
        """What became of a message."""
        self.reports.append(report)

    def publish(self, publication: Publication, report: RunReport | None = None) -> None:
        """Take a message, as a broker does."""
        del report
        if self.trouble:
            raise NotPublished(self.trouble)
        (self.parked if publication.queue == topology.PARKED else self._ready).append(publication)

    def expects(self, method: str, path: str, *answers: Any) -> Expected:
        """Have the service expect this request, with or without a query.

        ``answers`` are a status each, or what is answered as JSON with 200; the last one again and again; 204 if there
        are none.
        """
        self._expected.append(Expected(method, '/' + path.lstrip('/'), [
            reply(it, b'' if it == 204 else b'{}') if isinstance(it, int) else reply(200, json.dumps(it).encode())
            for it in answers or (204,)]))
        return self._expected[-1]

    def post(self, intake: str, content: Any, *, topic: str = '', secret: str = SECRET, late: float = 0.0) -> Answered:
        """What an intake answers to this delivery, signed as its sender does; that of bytes is sent as it is.

        ``late`` is how many seconds ago it was signed.
        """
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        source = self.intakes[intake].source
        return posted(self._application, intake, body,
                      source.signed(body, source.key(secret), topic, time.time() - late))

    def outcome(self, key: str) -> str:
        """How the last run ended of what people know by this key, such as an order number; '' if there was none.

        Whatever is in a queue is run first: ``done``, ``skipped``, ``retrying`` or ``parked``.
        """
        while self._ready:
            self._run(self._ready.popleft())
        return next((it.outcome for it in reversed(self.reports) if it.key == key), '')

    def wait(self) -> None:
        """Let the time pass that messages wait for until they are tried again."""
        self._ready += self._waiting
        self._waiting = []

    def _run(self, publication: Publication) -> None:
        raw = publication.raw
        call = read(raw)
        task = self.app.tasks[call.task]
        task.push_request(**{DELIVERY: Delivery(call, raw, Notes.of(raw.headers)), 'id': call.id})
        try:
            task(*call.args, **call.kwargs)
        except Handover as handover:
            for following in handover.publications:
                is_again = following.delay and following.raw.headers.get('id') == call.id
                (self._waiting.append if is_again else self.publish)(following)
        except Ignore:
            pass
        finally:
            task.pop_request()

    def _answer(self, request: Request) -> Reply:
        path = request.target.partition('?')[0]
        for it in self._expected:
            if (it.method, it.path) == (request.method, path):
                it.asked.append(request)
                return it.answers.pop(0) if len(it.answers) > 1 else it.answers[0]
        self._unexpected.append(f'{request.method} {path}')
        return reply(501)


def _environment(extension: str, url: str, settings: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, str]:
    """The environment of a worker with this extension."""
    found, problems = find([extension], SETTINGS)
    if problems:
        raise Misconfigured(problems)
    it = found[extension]
    given: dict[str, Any] = {
        'EXTENSIONS': [extension], 'JWT_SECRET_KEY': A_SECRET * 2,
        'INTAKES': {kind: {'kind': kind, 'secrets': [SECRET]} for kind in intakes.brought(it)}, **others}
    for group in it.groups:
        own = settings if group.name == extension.upper().replace('-', '_') else others.get(group.name, {})
        made_up = {name: url if kind is URL else A_SECRET for name, kind in group.kinds.items()
                   if name not in group.defaults and (kind is URL or kind.secrecy is Secrecy.WHOLE)}
        given[group.name] = {**made_up, **own}
    return {'WORKER_CONFIGURATION_MODULE': 'ecommerce_worker.configuration.test',
            **{f'ECOMMERCE_WORKER_{name}': value if isinstance(value, str) else json.dumps(value)
               for name, value in given.items()}}


def _close(made: runtime.Runtime) -> None:
    for code in (None, *made.settings.site_codes):
        made.site(code).close()


def contract(kind: str, *, good: Mapping[str, Any], ignored: Sequence[Mapping[str, Any]] = (), extension: str = '',
             settings: Mapping[str, Any] | None = None, private: Sequence[str] = ()) -> type[SourceContract]:
    """What every intake stands, as a class of tests for pytest, for a kind that an extension brings.

    Give it a name that begins with ``Test``: ``TestContract = contract('acme', good={...}, ignored=[...])``.  ``good``
    is a delivery that is acted on, ``ignored`` are some that are not.  ``extension`` is that which brings it, if it is
    called otherwise than the kind.  No log shows what is ``private``: each text of ``good`` with an @ in it, if not
    given.
    """
    with Worker(extension or kind, settings=settings) as worker:
        found = worker.intakes[kind]
    scheme = getattr(found.source, 'scheme', found.source)
    hidden = tuple(private) or tuple(text for text in _texts(good) if '@' in text)
    delivery, others = good, tuple(ignored)

    class Contract(SourceContract):
        topic, signs, signs_time = '', not isinstance(scheme, Token), isinstance(scheme, Standard)
        good, ignored, private, called = delivery, others, hidden, None

        @override
        def made(self, **changed: Any) -> InMemory:
            secrets = intakes.Secrets(changed.get('secrets', (SECRET,)), found.source.key)
            return InMemory(replace(found, secrets=secrets))

    Contract.kind = kind
    return Contract


def _texts(content: Any) -> list[str]:
    if isinstance(content, str):
        return [content]
    inner = content.values() if isinstance(content, Mapping) else content if isinstance(content, list) else ()
    return [text for it in inner for text in _texts(it)]
