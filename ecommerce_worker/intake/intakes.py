"""The intakes of a configuration: reads and checks them, and maps events to calls."""

from __future__ import annotations

import contextlib
import inspect
import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ecommerce_worker import plugins
from ecommerce_worker.broker.wire import Call
from ecommerce_worker.enrolment.names import REVOKE
from ecommerce_worker.errors import Misconfigured, Undecodable, WrongArguments
from ecommerce_worker.execution.task import accepted
from ecommerce_worker.intake import functions, sources
from ecommerce_worker.intake.source import Delivery, Event, Source, secret_of, text_at, value_at
from ecommerce_worker.settings import Extension, Settings, broker_urls, scheme_of
from ecommerce_worker.settings.kinds import FLAG, TEXT, Kind, number, one_of, read_mapping, read_ways, whole
from ecommerce_worker.telemetry.run import RunReport
from ecommerce_worker.words import did_you_mean, hint

#: The name of a source's class in its module.
CLASS: Final = 'Source'

#: The name of an intake, which is part of its URL.
NAME = re.compile(r'[a-z0-9][a-z0-9_-]{0,63}')

#: The queue of an intake that names none: where shops publish orders.
QUEUE: Final = 'ecommerce.fulfillment'

#: The minimum length of a key in bytes.
SHORTEST_KEY: Final = 16

#: The maximum size of a body in bytes, unless an intake sets a lower one: the limit of the server.
LARGEST_BODY: Final = 1024 * 1024

#: The topic that stands for all topics not named.
ANY: Final = '*'

#: The argument with the purchased lines; see :mod:`ecommerce_worker.enrolment.lines`.
LINES: Final = 'lines'

#: The argument by which its shop can be asked about an order; see :class:`ecommerce_worker.enrolment.origin.Origin`.
SHOP: Final = 'shop'

#: The maximum length of the argument that identifies a task for people, such as the order number.
LONGEST_NUMBER: Final = 128

#: Seconds between two looks into files of secrets.
REREAD_SECONDS: Final = 1.0

#: The namespace of message ids, which are derived from the sender's event ids.
NAMESPACE: Final = uuid.uuid5(uuid.NAMESPACE_URL, 'urn:ecommerce-worker:intake')


def _read_secrets(given: Any) -> tuple[str, ...]:
    found = (given,) if isinstance(given, str) else tuple(given)
    if not found or not all(isinstance(one, str) and one for one in found):
        raise ValueError
    return found


def _read_texts(given: Any) -> dict[str, str]:
    found = read_mapping(given)
    if not all(isinstance(value, str) and value for value in found.values()):
        raise ValueError
    return found


def _read_state(given: Any) -> str:
    if isinstance(given, bool):
        raise ValueError  # YAML reads on and off as booleans
    return str(one_of(*STATES).read(given))


#: ``dry`` checks everything and publishes nothing; ``closed`` answers 404; ``retired`` answers 410, so senders stop.
STATES: Final = ('live', 'dry', 'closed', 'retired')

#: The options of every intake, and their defaults.
OPTIONS: Final[Mapping[str, Kind]] = {
    'kind': TEXT,
    'secrets': Kind('a list of one or more secrets, each a string, ${VARIABLE} or file:/path', _read_secrets),
    'site': TEXT,
    'learner': Kind('a list of property:<name>, meta:<name> and buyer', read_ways),
    'events': Kind('a mapping of topics to tasks, such as {orders/paid: fulfill_order}', _read_texts),
    'arguments': Kind('a mapping of arguments to places in the body, such as {order_number: data.number}', _read_texts),
    'queue': TEXT,
    'state': Kind('one of ' + ', '.join(STATES) + ' (YAML reads on and off as true and false)', _read_state),
    'test_orders': one_of('ignore', 'run'),
    'max_bytes': whole(1024, LARGEST_BODY),
    'rate': number(0, 100_000),
    'spool': FLAG,
}
DEFAULTS: Final[Mapping[str, Any]] = {
    'site': '', 'learner': (), 'events': {}, 'arguments': {}, 'queue': QUEUE, 'state': 'live', 'test_orders': 'ignore',
    'max_bytes': LARGEST_BODY, 'rate': 0, 'spool': False}


class Secrets:
    """The keys of an intake; several are valid at once, so that they can be rotated without downtime."""

    def __init__(self, given: Sequence[str], key: Callable[[str], bytes]) -> None:
        """Read the keys; raises ValueError, whose text contains no secret."""
        self._given = given
        self._key = key
        self._read_at = time.monotonic()
        self.keys = self._read()

    def reread(self) -> None:
        """Read files again, at most once in :data:`REREAD_SECONDS`."""
        now = time.monotonic()
        if now - self._read_at < REREAD_SECONDS or not any(one.startswith('file:') for one in self._given):
            return
        self._read_at = now
        with contextlib.suppress(ValueError):  # the file may be half-written
            self.keys = self._read()

    def _read(self) -> tuple[bytes, ...]:
        return tuple(self._checked(one) for one in self._given)

    def _checked(self, given: str) -> bytes:
        secret = secret_of(given)
        where = f'of {given.removeprefix("file:")} ' if given.startswith('file:') else ''
        try:
            key = self._key(secret)
        except ValueError as error:
            raise ValueError(f'{where}must be {error}') from None
        if len(key) < SHORTEST_KEY:
            raise ValueError(f'{where}is too short ({len(key)} bytes): use at least {SHORTEST_KEY} random bytes')
        return key


@dataclass(frozen=True)
class Action:
    """The task that a topic is mapped to: its name, the argument that identifies it for people, and its body."""

    task: str
    key: str
    signature: inspect.Signature
    body: Any = None


@dataclass(frozen=True)
class Intake:
    """An intake: the sender, how its deliveries are verified, and the tasks that they are mapped to."""

    name: str
    source: Source
    secrets: Secrets
    events: Mapping[str, Action]
    site: str = ''
    arguments: Mapping[str, str] = field(default_factory=dict)
    queue: str = QUEUE
    state: str = 'live'
    test_orders: str = 'ignore'
    max_bytes: int = LARGEST_BODY
    rate: float = 0.0
    spool: bool = False
    #: Where the addresses of learners stand; see ``LEARNER``.
    learner: tuple[str, ...] = ('buyer',)
    #: The ``kind`` in ``INTAKES``, and the tasks available to a source that chooses the task itself.
    kind: str = ''
    tasks: Mapping[str, Action] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """Where senders post to."""
        return f'/in/{self.name}'

    def verify(self, delivery: Delivery) -> None:
        """Raise :class:`~ecommerce_worker.intake.source.Refused` unless signed with a secret that is valid now."""
        # Not only when none matches: a removed secret must no longer be accepted.
        self.secrets.reread()
        self.source.verify(delivery, self.secrets.keys)

    def message_id(self, sent: str) -> str:
        """The id of the message for an event, derived from the sender's id of it."""
        # A lone surrogate cannot be encoded as UTF-8, but needs an id too.
        return str(uuid.uuid5(NAMESPACE, f'{self.name}\n{sent}'.encode(errors='backslashreplace').decode()))

    def ignores(self, event: Event) -> str:
        """The reason for ignoring an event; '' if it is not ignored."""
        if self.action(event) is None and not self.source.DECIDES:
            return 'topic'
        if event.ignored:
            return event.ignored
        return 'test order' if event.test and self.test_orders == 'ignore' else ''

    def action(self, event: Event) -> Action | None:
        """The action that an event is mapped to."""
        if event.then:
            return self.tasks.get(event.then.task)
        return self.events.get(event.topic) or self.events.get(ANY)

    def call(self, event: Event, request_id: str = '') -> Call:
        """The task call for an event, on behalf of that request; only the arguments are taken from the event.

        Raises :class:`~ecommerce_worker.errors.Undecodable` for missing values, ``WrongArguments`` for arguments that
        the task does not accept.
        """
        action = self.action(event)
        if action is None:
            raise WrongArguments(f'the task {event.then.task} is not registered' if event.then else
                                 'its topic is not mapped to a task')
        kwargs: dict[str, Any] = {'site_code': self.site} if self.site else {}
        if event.then:
            kwargs.update(event.then.kwargs)
        paths = {action.key: action.key} if event.then and action.key in kwargs else {**event.paths, **self.arguments}
        for name, path in paths.items():
            try:
                kwargs[name] = (text_at if name == action.key else value_at)(event.content, path)
            except Undecodable:
                if name != action.key or not event.unnumbered or LINES not in action.signature.parameters:
                    raise
                kwargs[name] = event.unnumbered
        if LINES in action.signature.parameters and LINES not in kwargs and not event.then:
            sold = self.source.sold(event)
            kwargs.update({} if sold is None else {LINES: [it.line(self.learner).message() for it in sold]})
        if SHOP in action.signature.parameters and SHOP not in kwargs and not event.then:
            reference, placed = self.source.reference(event), self.source.placed(event)
            said = {'placed': int(placed)} if placed else {}
            kwargs.update({SHOP: {'intake': self.name, 'order': reference, **said}} if reference else {})
        if self.site and kwargs['site_code'] != self.site:
            raise WrongArguments('its site_code is not the site of the intake')
        number = str(kwargs.get(action.key, ''))
        if len(number) > LONGEST_NUMBER:
            raise Undecodable(f'its {action.key} is longer than {LONGEST_NUMBER} characters')
        if not number.isprintable():
            # No ledger can store NUL or a lone surrogate, and invisible characters cannot be searched for.
            raise Undecodable(f'its {action.key} has control characters')
        try:
            action.signature.bind(**kwargs)
        except TypeError as error:
            raise WrongArguments(f'the task does not accept these arguments: {error}') from None
        id_ = self.message_id(event.id)
        return Call(action.task, id_, kwargs=kwargs, origin=f'intake {self.name}', root_id=id_, request_id=request_id)

    def accepted(self, call: Call, reason: str) -> RunReport:
        """The report that a call was accepted, to be made before it is published."""
        return accepted(self._action_of(call).body, call, self.queue, reason, began=time.time())

    def number(self, call: Call) -> str:
        """The argument that identifies the call for people, such as the order number."""
        return str(call.kwargs.get(self._action_of(call).key, ''))

    def _action_of(self, call: Call) -> Action:
        return self.tasks.get(call.task) or next(each for each in self.events.values() if each.task == call.task)


def names() -> list[str]:
    """The names of the built-in sources."""
    return plugins.names(sources)


def brought(extension: Extension) -> dict[str, type[Source]]:
    """The kinds of intakes that an extension provides, by name."""
    return {cls.NAME: cls for cls in functions.of(extension.module)}


def _problems_of(extensions: Iterable[Extension]) -> Iterator[str]:
    for extension in extensions:
        for kind in brought(extension):
            if kind in names():
                yield f'extension {extension.name}: its kind of intake {kind} is already built in'
            elif not extension.owns(kind):
                yield (f'extension {extension.name}: its kind of intake {kind} must be named {extension.name} or '
                       f'begin with {extension.name}_')


def find(name: str, setting: str = 'INTAKES', extensions: Iterable[Extension] = ()) -> type[Source]:
    """The source with that name: built in, of an extension, or of a custom module.

    Raises :class:`~ecommerce_worker.errors.Misconfigured`, which names the ``setting``.
    """
    kinds = {kind: cls for extension in extensions for kind, cls in brought(extension).items()}
    if name in kinds:
        return kinds[name]
    found = plugins.find(name, sources, CLASS, setting, kinds)
    if not (isinstance(found, type) and issubclass(found, Source)):
        raise Misconfigured([f'{setting} names {name}, whose {CLASS} is not a subclass of intake.source.Source'])
    return found


def source_of(settings: Settings, name: str) -> Source | None:
    """The source of the intake of that name, for who asks its shop and needs no secret of the intake; None without one.

    Raises :class:`~ecommerce_worker.errors.Misconfigured`.
    """
    given = settings.INTAKES.get(name)
    if given is None:
        return None
    label = f'INTAKES[{name}]'
    cls = find(str(given.get('kind')), f'{label}[kind]', settings.extensions.values())
    own = {option: value for option, value in given.items() if option in cls.OPTIONS}
    return cls(plugins.read_options(own, cls.OPTIONS, cls.DEFAULTS, label))


def read(settings: Settings, tasks: Mapping[str, Any]) -> dict[str, Intake]:
    """The intakes by name; ``tasks`` are the tasks registered with the workers.

    Raises :class:`~ecommerce_worker.errors.Misconfigured` with all that is wrong.
    """
    found, problems = {}, [*_problems_of(settings.extensions.values())]
    for name, given in settings.INTAKES.items():
        reader = _Reader(name, given, settings, tasks)
        intake = reader.read()
        problems += reader.problems
        if intake and not reader.problems:
            found[name] = intake
    urls = settings.INTAKE_BROKER_URL or broker_urls(settings)
    if found and not all(scheme_of(url) == 'amqp' for url in ([urls] if isinstance(urls, str) else urls)):
        problems.append('INTAKES needs RabbitMQ, which confirms messages; set INTAKE_BROKER_URL to an amqp:// URL')
    if problems:
        raise Misconfigured(problems)
    return found


def remarks(intakes: Mapping[str, Intake], settings: Settings) -> Iterator[str]:
    """Notes about settings that are valid but may surprise."""
    for intake in intakes.values():
        if intake.state != 'live':
            yield f'INTAKES[{intake.name}] is {intake.state}'
        if not intake.source.REPEATS and not intake.spool and intake.state == 'live':
            yield (f'INTAKES[{intake.name}] loses deliveries while RabbitMQ is unreachable, since this sender never '
                   'retries; spool: true keeps them on disk')
        if not intake.source.REPEATS and intake.rate and intake.state == 'live':
            yield (f'INTAKES[{intake.name}] loses deliveries above its rate, which are answered 429, since this '
                   'sender never retries; rate: 0 removes the limit')
        if any(action.task == REVOKE for action in intake.events.values()) and \
                not settings.for_site(intake.site).COVERED_BY:
            yield (f'INTAKES[{intake.name}] takes refunds, but COVERED_BY is empty: each refunded line is parked until '
                   'somebody decides about it')


class _Reader:
    """Reads one entry of INTAKES; collects all problems."""

    def __init__(self, name: str, given: Mapping[str, Any], settings: Settings, tasks: Mapping[str, Any]) -> None:
        self._name, self._given, self._settings, self._tasks = name, given, settings, tasks
        self._label = f'INTAKES[{name}]'
        self.problems: list[str] = []

    def _problem(self, option: str, text: str) -> None:
        self.problems.append(f'{self._label}{f"[{option}]" if option else ""} {text}')

    def read(self) -> Intake | None:
        """The intake, or None if its options are not valid."""
        if not NAME.fullmatch(self._name):
            self._problem('', 'must consist of lower-case letters, digits, - and _, since the name is part of a URL')
        kind = self._given.get('kind')
        if not isinstance(kind, str) or not kind:
            self._problem('kind', f'is not set; use one of {", ".join(names())}')
            return None
        try:
            cls = find(kind, f'{self._label}[kind]', self._settings.extensions.values())
            options = plugins.read_options(self._given, {**OPTIONS, **cls.OPTIONS},
                                           {**DEFAULTS, **self._queue(kind), **cls.DEFAULTS}, self._label)
        except Misconfigured as error:
            self.problems += error.problems
            return None
        made = cls({name: options[name] for name in cls.OPTIONS})
        secrets = self._secrets(options['secrets'], made)
        events = self._events(options['events'] or cls.EVENTS, made)
        self._look_at_places(options)
        if made.options.get('report_back') and not made.has_key:
            self._problem('report_back', 'needs a key to the API of the shop, which is not set')
        if self.problems or secrets is None:
            return None
        if made.DECIDES and options['arguments']:
            self._problem('arguments', 'has no effect: this kind chooses the task and its arguments itself')
        self._look_at_arguments(options['arguments'], events)
        site = self._settings.for_site(options['site'])
        if any(LINES in action.signature.parameters for action in events.values()) and not site.PRODUCTS:
            self._problem('', 'enrols learners, but PRODUCTS is empty: no product could be matched to a course')
        tasks = {name: self._action(name) for name in self._tasks} if made.DECIDES else {}
        return Intake(self._name, made, secrets, events, kind=kind, tasks=tasks,
                      learner=options['learner'] or site.LEARNER, **{
            name: options[name] for name in ('site', 'arguments', 'queue', 'state', 'test_orders', 'max_bytes', 'rate',
                                             'spool')})

    def _queue(self, kind: str) -> dict[str, str]:
        """The default queue of a kind that an extension provides: the queue named like the extension."""
        owner = next((it.name for it in self._settings.extensions.values() if kind in brought(it)), '')
        return {'queue': owner} if owner else {}

    def _action(self, task: str) -> Action:
        body = self._tasks[task]
        return Action(task, getattr(body, 'key', ''), inspect.signature(body.run), body)

    def _secrets(self, given: Sequence[str], made: Source) -> Secrets | None:
        try:
            return Secrets(given, made.key)
        except ValueError as error:
            self._problem('secrets', str(error))
            return None

    def _events(self, given: Mapping[str, str], made: Source) -> dict[str, Action]:
        found = {}
        if made.DECIDES:
            if given:
                self._problem('events', 'has no effect: this kind chooses the task and its arguments itself')
            return {}
        if not given:
            self._problem('events', 'is not set: every delivery would be ignored')
        by_name = {name.rpartition('.')[2]: name for name in self._tasks if not name.startswith('celery.')}
        for topic, task in given.items():
            if made.topics and topic not in (*made.topics, ANY):
                self._problem('events', f'has the topic {topic}, which this kind does not have'
                                        f'{hint(topic, made.topics)}')
            full = task if task in self._tasks else by_name.get(task, '')
            if not full:
                self._problem('events', f'maps {topic} to the task {task}, which is not registered'
                                        f'{did_you_mean(task, by_name)}')
                continue
            found[topic] = self._action(full)
        return found

    def _look_at_places(self, options: Mapping[str, Any]) -> None:
        site, queue = options.get('site'), options.get('queue')
        if site and site not in self._settings.site_codes:
            self._problem('site', f'is {site}, which is not in SITE_OVERRIDES'
                                  f'{did_you_mean(site, self._settings.site_codes)}')
        if queue and queue not in self._settings.known_queues:
            self._problem('queue', f'is {queue}, which no worker consumes'
                                   f'{did_you_mean(queue, self._settings.known_queues)}')

    def _look_at_arguments(self, arguments: Mapping[str, str], events: Mapping[str, Action]) -> None:
        for action in {action.task: action for action in events.values()}.values():
            taken = action.signature.parameters
            if any(each.kind is each.VAR_KEYWORD for each in taken.values()):
                continue
            for name in arguments:
                if name not in taken:
                    self._problem('arguments', f'has {name}, which the task {action.task} does not accept'
                                               f'{did_you_mean(name, taken)}')
