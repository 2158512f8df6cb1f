"""The interface of a shop system: how it signs its deliveries, and what they mean.

::

    POST ──► Delivery ──verify──► genuine ──event──► Event ──► a call of the task that its topic is mapped to
                        │                    │
                     Refused            Undecodable: parked as it came
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol

from ecommerce_worker.bounds import bounded_json
from ecommerce_worker.clients.shops import Webhook
from ecommerce_worker.enrolment.lines import LONGEST, MOST, Sold
from ecommerce_worker.errors import Undecodable, WorkerError
from ecommerce_worker.execution.outcomes import Then
from ecommerce_worker.settings.kinds import Kind


class Refused(WorkerError):
    """A delivery could not be verified; ``reason`` is for the log and is not sent to the sender."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Objection(WorkerError):
    """A request is not valid: answered with this HTTP status and the reason, for senders that read answers."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True)
class Delivery:
    """A posted request: headers with lower-case names, the raw body, the time of receipt in epoch seconds."""

    headers: Mapping[str, str]
    body: bytes
    received: float

    def header(self, name: str) -> str:
        """The value of a header; '' if there is none."""
        return self.headers.get(name.lower(), '')

    @cached_property
    def json(self) -> Any:
        """The body as JSON; raises :class:`~ecommerce_worker.errors.Undecodable`."""
        try:
            return json.loads(bounded_json(self.body))
        except (ValueError, RecursionError):
            raise Undecodable('the body is not JSON') from None

    @cached_property
    def object(self) -> Mapping[str, Any]:
        """The body as a JSON object; raises :class:`~ecommerce_worker.errors.Undecodable`."""
        if not isinstance(self.json, dict):
            raise Undecodable('the body is not a JSON object')
        return self.json

    def value(self, path: str) -> Any:
        """The value at a path such as ``data.id`` or ``lines.0.sku``; raises ``Undecodable`` if there is none."""
        return value_at(self.object, path)

    def text(self, path: str) -> str:
        """The string or integer at a path, as a string; raises ``Undecodable`` for anything else."""
        return text_at(self.object, path)

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of the body, in hex."""
        return hashlib.sha256(self.body).hexdigest()


@dataclass(frozen=True)
class Event:
    """The content of a genuine delivery.

    ``id`` is the sender's own and the same for each repeat; ``ignored`` is the reason for ignoring the event, or '';
    ``paths`` are the places of the task's arguments in ``content``, unless the configuration names them; ``then`` is
    the task to run, for a source that chooses the task itself; ``unnumbered`` is what an order may be known by that
    has no number there, by a task that accepts ``lines`` and asks no other shop for it; '' for none.
    """

    topic: str
    id: str
    content: Any
    paths: Mapping[str, str] = field(default_factory=dict)
    ignored: str = ''
    test: bool = False
    then: Then | None = None
    unnumbered: str = ''


class Asked(Protocol):
    """The API of a shop."""

    def webhooks(self) -> list[Webhook] | None:
        """All of its webhooks; None if the API does not list them."""

    def switch_on(self, webhook: Webhook) -> None:
        """Enable the webhook again."""


@dataclass(frozen=True)
class Untold:
    """Lines to report to a shop as done; ``tell`` reports them, and raises ``ApiError``."""

    lines: Collection[str]
    tell: Callable[[], None]


class Connect(Protocol):
    """Makes a client of a service; see :meth:`ecommerce_worker.site.Site.connect`."""

    def __call__(self, root: str, *, peer: str, signer: Any = None) -> Any:
        """An ``Api`` at this root."""


class Source(ABC):
    """A shop system; each module of ``intake.sources``, or a custom module, defines a class of this name.

    It is constructed from its options, which are plain values, and must use neither network nor disk.
    """

    #: Its options in ``INTAKES`` in addition to the common ones: their kinds, and their defaults.
    OPTIONS: ClassVar[Mapping[str, Kind]] = {}
    DEFAULTS: ClassVar[Mapping[str, Any]] = {}

    #: The topics that it sends; empty if they are not known in advance.
    TOPICS: ClassVar[frozenset[str]] = frozenset()

    #: The default of ``events``.
    EVENTS: ClassVar[Mapping[str, str]] = {}

    #: The content types of its bodies.
    FORMS: ClassVar[tuple[str, ...]] = ('application/json',)

    #: Whether it retries a delivery that was answered 503.
    REPEATS: ClassVar[bool] = True

    #: Whether it chooses the task and its arguments itself.
    DECIDES: ClassVar[bool] = False

    #: Whether the sender is a program that reads and acts on answers: the submit API.
    ANSWERS: ClassVar[bool] = False

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = options

    @property
    def topics(self) -> frozenset[str]:
        """The topics that it sends with these options; see :attr:`TOPICS`."""
        return self.TOPICS

    def key(self, secret: str) -> bytes:
        """The key for a secret; raises ValueError, whose text says what the secret must be."""
        return secret.encode()

    def greets(self, delivery: Delivery) -> bool:
        """Whether the delivery is an unsigned ping, which is answered and otherwise ignored."""
        del delivery
        return False

    @abstractmethod
    def verify(self, delivery: Delivery, keys: Sequence[bytes]) -> None:
        """Raise :class:`Refused` unless it is signed with one of these keys; compares in constant time."""

    @abstractmethod
    def event(self, delivery: Delivery) -> Event:
        """The event of a delivery; raises :class:`~ecommerce_worker.errors.Undecodable`, or :class:`Objection`."""

    def sold(self, event: Event) -> list[Sold] | None:
        """The purchased lines, for a task that accepts ``lines``; None if only the configuration can name them.

        Raises :class:`~ecommerce_worker.errors.Undecodable`, which parks the delivery.
        """
        del event
        return None

    @property
    def has_key(self) -> bool:
        """Whether its options have a key to the shop's own API."""
        return False

    def shop(self, connect: Connect) -> Asked | None:
        """The shop's API, to look up what was never delivered; None without such an API or credentials for it.

        Nothing is asked of it yet.  Raises ValueError for a secret that cannot be read.
        """
        del connect
        return None

    def reference(self, event: Event) -> str:
        """What the shop's own API knows the order of an event by; '' where it cannot be asked about one."""
        del event
        return ''

    def placed(self, event: Event) -> float | None:
        """When the order of an event was placed or paid for, in epoch seconds; None if it does not say."""
        del event
        return None

    def is_paid(self, shop: Any, reference: str, line: str) -> bool | None:
        """Whether the line of an order is paid for at this moment; None where the shop does not tell.

        Raises :class:`~ecommerce_worker.errors.ApiError`.
        """
        raise NotImplementedError

    def untold(self, shop: Any, reference: str, lines: Collection[str], *, whole: bool) -> Untold | None:
        """What to report to the shop when these lines of an order are done; None if it has all of it.

        ``whole`` says that the order has no others.  Raises :class:`~ecommerce_worker.errors.ApiError`.
        """
        raise NotImplementedError

    def missed(self, shop: Any, topics: Iterable[str], since: float, until: float) -> Iterator[Delivery]:
        """The events of these topics in that period (epoch seconds) according to the API, as deliveries.

        Raises :class:`~ecommerce_worker.errors.ApiError`.
        """
        raise NotImplementedError

    @abstractmethod
    def signed(self, body: bytes, key: bytes, topic: str, now: float) -> dict[str, str]:
        """The headers with which it would deliver this body; to try out an intake, and for tests."""


def secret_of(given: str) -> str:
    """A secret of an intake, read from its file if it names one; raises ValueError if that cannot be read."""
    if not given.startswith('file:'):
        return given
    path = given.removeprefix('file:')
    try:
        return Path(path).read_text(encoding='utf-8').strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, 'strerror', None) or 'not a text file'
        raise ValueError(f'cannot be read from {path}: {reason}') from None


def lines_at(content: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """The lines of an order, as JSON objects; raises ``Undecodable`` for anything else."""
    found = content.get(name)
    if not isinstance(found, list) or len(found) > MOST or not all(isinstance(it, Mapping) for it in found):
        raise Undecodable(f'{name} is not a list of at most {MOST} JSON objects')
    return found


def count_of(line: Mapping[str, Any], *names: str) -> int:
    """The quantity: the first of these members that is set; raises ``Undecodable`` unless it is a valid number."""
    found = next((line[name] for name in names if line.get(name) is not None), None)
    if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found <= MOST:
        raise Undecodable(f'a line has no {names[-1]} between 0 and {MOST}')
    return found


def optional(content: Any, path: str) -> Any:
    """The value at a path; None if there is none."""
    try:
        return value_at(content, path)
    except Undecodable:
        return None


def fields_of(values: Any, name: str = 'name') -> dict[str, Any]:
    """Custom fields of an order or a line, which shops send as a list of names and values."""
    found = values if isinstance(values, list) else ()
    return {it[name]: it.get('value') for it in found if isinstance(it, Mapping) and isinstance(it.get(name), str)}


def first_text(*values: Any) -> str:
    """The first of these that is a non-empty string or a non-zero integer, as a string; '' if none is."""
    return next((str(it).strip()[:LONGEST] for it in values
                 if (isinstance(it, str) and it.strip()) or (isinstance(it, int) and not isinstance(it, bool) and it)),
                '')


def text_at(content: Any, path: str) -> str:
    """The string or integer at a path of a delivery, as a string; raises ``Undecodable``."""
    found = value_at(content, path)
    if isinstance(found, int) and not isinstance(found, bool):
        return str(found)
    if not isinstance(found, str) or not found.strip():
        raise Undecodable(f'{path} is not a string or an integer')
    return found.strip()


def value_at(content: Any, path: str) -> Any:
    """The value at a path such as ``data.object.id`` or ``line_items.0.sku``; raises ``Undecodable``."""
    found = content
    for name in path.split('.'):
        if isinstance(found, Mapping) and name in found:
            found = found[name]
        elif isinstance(found, list) and name.isdigit() and int(name) < len(found):
            found = found[int(name)]
        else:
            raise Undecodable(f'{path} is missing')
    return found
