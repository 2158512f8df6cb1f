"""The intakes of a configuration: read, checked as a whole, and what each makes of an event."""

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
from ecommerce_worker.errors import Misconfigured, Undecodable, WrongArguments
from ecommerce_worker.intake import functions, sources
from ecommerce_worker.intake.source import Delivery, Event, Source, secret_of, text_at, value_at
from ecommerce_worker.settings import Extension, Settings, broker_urls, scheme_of
from ecommerce_worker.settings.kinds import FLAG, TEXT, Kind, number, one_of, read_mapping, read_ways, whole
from ecommerce_worker.words import did_you_mean, hint

#: What a source's class is called in its module.
CLASS: Final = 'Source'

#: How an intake is called in its URL.
NAME = re.compile(r'[a-z0-9][a-z0-9_-]{0,63}')

#: Where orders go unless an intake says otherwise: where shops publish them.
QUEUE: Final = 'ecommerce.fulfillment'

#: Bytes of a key, at least.
SHORTEST_KEY: Final = 16

#: Bytes of a body, at most, unless an intake says less: what the server takes.
LARGEST_BODY: Final = 1024 * 1024

#: The topic that stands for all that are not named.
ANY: Final = '*'

#: The argument that is what was bought; see :mod:`ecommerce_worker.enrolment.lines`.
LINES: Final = 'lines'

#: The argument by which its shop can be asked about an order; see :class:`ecommerce_worker.enrolment.origin.Origin`.
SHOP: Final = 'shop'

#: Letters of the argument by which people know a task.
LONGEST_NUMBER: Final = 128

#: Seconds between two looks into files of secrets.
REREAD_SECONDS: Final = 1.0

#: Makes the ids of messages out of what senders call their events.
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
        raise ValueError  # what YAML makes of on and off
    return str(one_of(*STATES).read(given))


#: ``dry`` checks all and publishes nothing; ``closed`` is as if it did not exist; ``retired`` tells senders to stop.
STATES: Final = ('live', 'dry', 'closed', 'retired')

#: The options of every intake, and what they are if they are not given.
OPTIONS: Final[Mapping[str, Kind]] = {
    'kind': TEXT,
    'secrets': Kind('a list of one or more secrets, each as a text, ${VARIABLE} or file:/path', _read_secrets),
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
    """The keys of an intake; several hold at once, so that they can be changed without a gap."""

    def __init__(self, given: Sequence[str], key: Callable[[str], bytes]) -> None:
        """Read them; raises ValueError, which says what is wrong without a secret in it."""
        self._given = given
        self._key = key
        self._read_at = time.monotonic()
        self.keys = self._read()

    def reread(self) -> None:
        """Read files again, unless that was just done."""
        now = time.monotonic()
        if now - self._read_at < REREAD_SECONDS or not any(one.startswith('file:') for one in self._given):
            return
        self._read_at = now
        with contextlib.suppress(ValueError):  # it is being written, maybe
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
            raise ValueError(f'{where}has {len(key)} bytes, which can be guessed; at least {SHORTEST_KEY} are needed')
        return key


@dataclass(frozen=True)
class Action:
    """The task that a topic leads to: its name, and which argument is the one that people know it by."""

    task: str
    key: str
    signature: inspect.Signature


@dataclass(frozen=True)
class Intake:
    """A way in: who comes, how that is proved, and what is done."""

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
    #: What ``INTAKES`` calls the kind of its source, and the tasks that a source may choose from which decides itself.
    kind: str = ''
    tasks: Mapping[str, Action] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """Where senders post to."""
        return f'/in/{self.name}'

    def verify(self, delivery: Delivery) -> None:
        """Raise :class:`~ecommerce_worker.intake.source.Refused` unless it is genuine, by whatever secret holds now."""
        # Not only when none fits: a secret that was taken away is to hold no more.
        self.secrets.reread()
        self.source.verify(delivery, self.secrets.keys)

    def message_id(self, sent: str) -> str:
        """The id of the message that comes of the event which the sender calls so."""
        # What is no text in UTF-8, half a surrogate pair, has an id too.
        return str(uuid.uuid5(NAMESPACE, f'{self.name}\n{sent}'.encode(errors='backslashreplace').decode()))

    def ignores(self, event: Event) -> str:
        """Why nothing is to be done about an event; '' if there is something to do."""
        if self.action(event) is None and not self.source.DECIDES:
            return 'topic'
        if event.ignored:
            return event.ignored
        return 'test order' if event.test and self.test_orders == 'ignore' else ''

    def action(self, event: Event) -> Action | None:
        """What an event leads to."""
        if event.then:
            return self.tasks.get(event.then.task)
        return self.events.get(event.topic) or self.events.get(ANY)

    def call(self, event: Event) -> Call:
        """The call that is made of an event, with nothing of it but the arguments.

        Raises :class:`~ecommerce_worker.errors.Undecodable` for what is not there, ``WrongArguments`` for what the task
        does not take.
        """
        action = self.action(event)
        if action is None:
            raise WrongArguments(f'no worker knows the task {event.then.task}' if event.then else
                                 'nothing is to be done about its topic')
        kwargs: dict[str, Any] = {'site_code': self.site} if self.site else {}
        if event.then:
            kwargs.update(event.then.kwargs)
        paths = {action.key: action.key} if event.then and action.key in kwargs else {**event.paths, **self.arguments}
        for name, path in paths.items():
            kwargs[name] = (text_at if name == action.key else value_at)(event.content, path)
        if LINES in action.signature.parameters and LINES not in kwargs and not event.then:
            sold = self.source.sold(event)
            kwargs.update({} if sold is None else {LINES: [it.line(self.learner).message() for it in sold]})
        if SHOP in action.signature.parameters and SHOP not in kwargs and not event.then:
            reference = self.source.reference(event)
            kwargs.update({SHOP: {'intake': self.name, 'order': reference}} if reference else {})
        if self.site and kwargs['site_code'] != self.site:
            raise WrongArguments('it names another site than its intake has')
        if len(str(kwargs.get(action.key, ''))) > LONGEST_NUMBER:
            raise Undecodable(f'its {action.key} is longer than {LONGEST_NUMBER} characters')
        try:
            action.signature.bind(**kwargs)
        except TypeError as error:
            raise WrongArguments(f'the task does not take this: {error}') from None
        id_ = self.message_id(event.id)
        return Call(action.task, id_, kwargs=kwargs, origin=f'intake {self.name}', root_id=id_)

    def number(self, call: Call) -> str:
        """What people know the call by."""
        action = self.tasks.get(call.task) or next(each for each in self.events.values() if each.task == call.task)
        return str(call.kwargs.get(action.key, ''))


def names() -> list[str]:
    """The sources that come with this package."""
    return plugins.names(sources)


def brought(extension: Extension) -> dict[str, type[Source]]:
    """The kinds of intakes that an extension brings, by name."""
    return {cls.NAME: cls for cls in functions.of(extension.module)}


def _problems_of(extensions: Iterable[Extension]) -> Iterator[str]:
    for extension in extensions:
        for kind in brought(extension):
            if kind in names():
                yield f'extension {extension.name}: its kind of intake {kind} comes with the worker'
            elif not extension.owns(kind):
                yield (f'extension {extension.name}: its kind of intake {kind} must be called {extension.name}, or '
                       'begin with that and _')


def find(name: str, setting: str = 'INTAKES', extensions: Iterable[Extension] = ()) -> type[Source]:
    """The source of that name, of an extension, or of a module of somebody's own.

    Raises :class:`~ecommerce_worker.errors.Misconfigured`, which names the ``setting``.
    """
    kinds = {kind: cls for extension in extensions for kind, cls in brought(extension).items()}
    if name in kinds:
        return kinds[name]
    found = plugins.find(name, sources, CLASS, setting, kinds)
    if not (isinstance(found, type) and issubclass(found, Source)):
        raise Misconfigured([f'{setting} names {name}, whose {CLASS} is none of an intake'])
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
    """The intakes by name; ``tasks`` are those that workers have.

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
        problems.append('INTAKES need RabbitMQ, which confirms what it has taken; INTAKE_BROKER_URL names one')
    if problems:
        raise Misconfigured(problems)
    return found


def remarks(intakes: Mapping[str, Intake]) -> Iterator[str]:
    """What is no mistake but should be known."""
    for intake in intakes.values():
        if intake.state != 'live':
            yield f'INTAKES[{intake.name}] is {intake.state}'
        if not intake.source.REPEATS and not intake.spool and intake.state == 'live':
            yield (f'INTAKES[{intake.name}] loses what comes while RabbitMQ cannot be reached, for this sender never '
                   'delivers again; spool: true keeps it on disk')
        if not intake.source.REPEATS and intake.rate and intake.state == 'live':
            yield (f'INTAKES[{intake.name}] loses what comes faster than its rate, which is answered 429, for this '
                   'sender never delivers again; rate: 0 takes all')


class _Reader:
    """One entry of INTAKES while it is read; collects all that is wrong."""

    def __init__(self, name: str, given: Mapping[str, Any], settings: Settings, tasks: Mapping[str, Any]) -> None:
        self._name, self._given, self._settings, self._tasks = name, given, settings, tasks
        self._label = f'INTAKES[{name}]'
        self.problems: list[str] = []

    def _problem(self, option: str, text: str) -> None:
        self.problems.append(f'{self._label}{f"[{option}]" if option else ""} {text}')

    def read(self) -> Intake | None:
        """The intake, if it can be made."""
        if not NAME.fullmatch(self._name):
            self._problem('', 'must be called by letters of lower case, digits, - and _, for it is part of a URL')
        kind = self._given.get('kind')
        if not isinstance(kind, str) or not kind:
            self._problem('kind', f'is not set; there are {", ".join(names())}')
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
            self._problem('arguments', 'has no use, for this kind decides itself')
        self._look_at_arguments(options['arguments'], events)
        site = self._settings.for_site(options['site'])
        if any(LINES in action.signature.parameters for action in events.values()) and not site.PRODUCTS:
            self._problem('', 'enrols learners, and PRODUCTS is empty: no product would be known')
        tasks = {name: self._action(name) for name in self._tasks} if made.DECIDES else {}
        return Intake(self._name, made, secrets, events, kind=kind, tasks=tasks,
                      learner=options['learner'] or site.LEARNER, **{
            name: options[name] for name in ('site', 'arguments', 'queue', 'state', 'test_orders', 'max_bytes', 'rate',
                                             'spool')})

    def _queue(self, kind: str) -> dict[str, str]:
        """Where the orders of a kind go that an extension brings: to the queue of its name."""
        owner = next((it.name for it in self._settings.extensions.values() if kind in brought(it)), '')
        return {'queue': owner} if owner else {}

    def _action(self, task: str) -> Action:
        body = self._tasks[task]
        return Action(task, getattr(body, 'key', ''), inspect.signature(body.run))

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
                self._problem('events', 'has no use, for this kind decides itself')
            return {}
        if not given:
            self._problem('events', 'is not set: nothing would ever be done')
        by_name = {name.rpartition('.')[2]: name for name in self._tasks if not name.startswith('celery.')}
        for topic, task in given.items():
            if made.topics and topic not in (*made.topics, ANY):
                self._problem('events', f'has the topic {topic}, which this kind does not know'
                                        f'{hint(topic, made.topics)}')
            full = task if task in self._tasks else by_name.get(task, '')
            if not full:
                self._problem('events', f'leads {topic} to the task {task}, which no worker knows'
                                        f'{did_you_mean(task, by_name)}')
                continue
            found[topic] = self._action(full)
        return found

    def _look_at_places(self, options: Mapping[str, Any]) -> None:
        site, queue = options.get('site'), options.get('queue')
        if site and site not in self._settings.site_codes:
            self._problem('site', f'is {site}, which SITE_OVERRIDES does not have'
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
                    self._problem('arguments', f'has {name}, which the task {action.task} does not take'
                                               f'{did_you_mean(name, taken)}')
