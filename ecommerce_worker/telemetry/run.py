"""The report of a run or message, and its form on the wire; ids and reasons, never contents.

A field is declared in :class:`RunReport`, with what bounds it, and shown where people are to see it; the ledger keeps
it once :class:`~ecommerce_worker.ledger.models.Attempt` has a column of its name, which takes a migration.  All that
lies between follows from that.
"""

from __future__ import annotations

import json
import math
import os
import random
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from ecommerce_worker.bounds import bounded_json
from ecommerce_worker.errors import Undecodable
from ecommerce_worker.words import printable

#: The version of the form; a reader sets other versions aside.
VERSION: Final = 1

#: The form on the wire.
CONTENT_TYPE: Final = 'application/json'

#: Publishing a message (``accepted``), the ways in which a run ends (``returned``: given back to its queue), and what
#: a person does with a parked message.
OUTCOMES: Final = ('accepted', 'done', 'skipped', 'retrying', 'parked', 'returned', 'resent', 'discarded')

#: Further events for listeners only: a run begins, and one was put off without a try.
STARTED: Final = 'started'
DEFERRED: Final = 'deferred'

#: Outcomes after which nothing more is to come of the message.
ENDS: Final = ('done', 'skipped')

#: A parked message that is in the ledger; never reported.
IN_LEDGER: Final = 'kept'

#: What may follow from one and the same try, in this order.
_FOLLOWS: Final = ('accepted', 'retrying', 'parked', 'returned', IN_LEDGER, 'resent', 'discarded')

#: The end of the year 9999, the last that databases know, in epoch seconds.
LAST_SECOND: Final = 253_402_300_799

#: When this worker was first released (2015-09-22), in epoch seconds: no run is older.
FIRST_SECOND: Final = 1_442_880_000

#: The longest that RabbitMQ holds a message back for its next try, in seconds.
LONGEST_WAIT: Final = 2 ** 28


def plausible(seconds: float, now: float) -> float:
    """The time if it is plausible ``now``; else ``now``: the other clock was wrong."""
    return seconds if FIRST_SECOND <= seconds <= now else now


def standing(outcome: str, attempt: int) -> tuple[bool, int, int]:
    """The order of reports of one message: of two reports the greater one counts.

    It does not depend on clocks, since those of two workers differ: the message counts its tries, and final states stay
    final.
    """
    return outcome in ENDS, attempt, -1 if outcome in ENDS else _FOLLOWS.index(outcome)


def one_line(value: Any, length: int) -> str:
    """The text on one line, safe for a database; '' for anything else."""
    return printable(value[:length]) if isinstance(value, str) else ''


#: Where ids come from: not from the generator that all share, which an extension may seed with a number of its own, for
#: then a report would be taken for another. A forked process starts again.
_random: Final = random.Random()  # noqa: S311 - ids are not secret
os.register_at_fork(after_in_child=_random.seed)


#: The bits of a UUID that say of which kind it is, and what they are in one of version 4 (RFC 9562): MariaDB takes no
#: other for a UUID.
_KIND: Final = 0xF000 << 64 | 0xC000 << 48
_RANDOM: Final = 0x4000 << 64 | 0x8000 << 48


def new_id() -> str:
    """A new id for a report or a run: a random UUID, as text of 32 hexadecimal digits."""
    # Unlike uuid4 it asks the system for nothing, in which a thread would give up Python's lock.
    return f'{_random.getrandbits(128) & ~_KIND | _RANDOM:032x}'


def by_intake(name: str) -> str:
    """The beginning of the reason of an order accepted by this intake; more may follow after a colon."""
    return f'by the intake {name}'


def _id(value: Any) -> str:
    try:
        found = uuid.UUID(value)
    except (ValueError, TypeError, AttributeError):
        raise Undecodable('is not an id') from None
    # Whatever else has 128 bits: MariaDB takes no such UUID, and the recorder would try it again for ever.
    if found.variant != uuid.RFC_4122 or found.version not in range(1, 9):
        raise Undecodable('is not the id of any version')
    return found.hex


def _text(most: int) -> Any:
    """A string of limited length, on one line; other values are read as ''."""
    return field(default='', metadata={'most': most, 'read': lambda value: one_line(value, most)})


def _number(most: float, *, whole: bool = False, default: float | None = 0) -> Any:
    """A number from 0 to a maximum; a report with any other is refused, except None if that is the default."""
    def read(value: Any) -> float | None:
        if value is None and default is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise Undecodable('is not a number')
        if not 0 <= value <= most:
            raise Undecodable('is out of range')
        return int(value) if whole else value

    return field(default=default, metadata={'read': read})


def _time(**default: Any) -> Any:
    """A time in epoch seconds."""
    declared = _number(LAST_SECOND, default=None if 'default' in default else 0)
    return field(**default, metadata={**declared.metadata, 'is_time': True})


@dataclass(frozen=True)
class RunReport:
    """One run that ended, or one message that was parked or taken out.

    ``cause`` is why it was not done, one of :data:`~ecommerce_worker.errors.CAUSES`, '' if it was done, or if unknown.
    ``started`` and ``next_try`` are epoch seconds, ``status`` is the HTTP status that decided it, ``fact`` tells this
    report from any other however often it arrives, ``root_id`` is the id of the request that everything began with.
    ``queued`` is for how many seconds the message had been published when its first run began; None if unknown
    when it was, and of later runs.
    Of a line of an order that is enrolled, ``order_number``, ``product`` (its SKU), ``course`` and ``mode`` say what
    was bought; ``learner`` is a pseudonym of who learns, '' without a key for it, and ``mask`` a few letters for
    people; see :mod:`ecommerce_worker.enrolment.learner`.
    ``teller`` is the process that published it and ``number`` how many it had published by then, so that a gap shows;
    '' and 0 if reports are not counted.
    """

    outcome: str = field(metadata={'read': lambda value: value})
    _: KW_ONLY
    started: float = _time(default_factory=time.time)
    seconds: float = _number(LAST_SECOND)
    attempt: int = _number(2 ** 31 - 1, whole=True)
    task: str = _text(255)
    id: str = _text(255)
    key: str = _text(128)
    site: str = _text(128)
    queue: str = _text(255)
    reason: str = _text(1000)
    cause: str = _text(32)
    status: int | None = _number(999, whole=True, default=None)
    next_try: float | None = _time(default=None)
    queued: float | None = _number(LAST_SECOND, default=None)
    worker: str = _text(255)
    root_id: str = _text(255)
    order_number: str = _text(128)
    product: str = _text(254)
    course: str = _text(255)
    mode: str = _text(100)
    learner: str = _text(32)
    mask: str = _text(32)
    teller: str = _text(32)
    number: int = _number(2 ** 53, whole=True)
    fact: str = field(default_factory=new_id, metadata={'read': _id})

    @classmethod
    def read(cls, body: bytes) -> RunReport:
        """The report that a body holds; raises :class:`~ecommerce_worker.errors.Undecodable`, whatever it is.

        Unknown names, as a later worker may add, are ignored.
        """
        try:
            found = json.loads(bounded_json(body))
        except (ValueError, RecursionError):
            raise Undecodable('not JSON') from None
        if not isinstance(found, dict):
            raise Undecodable('not a mapping')
        if found.get('version') != VERSION or isinstance(found['version'], bool):
            raise Undecodable(f'its version is {str(found.get("version"))[:20]}; this worker reads version {VERSION}')
        if found.get('outcome') not in OUTCOMES:
            raise Undecodable(f'there is no outcome {str(found.get("outcome"))[:40]!r}')
        return cls(**{name: _read(name, read, found) for name, read in _READ.items() if name in found or name in _MUST})

    def as_body(self) -> bytes:
        """The report in JSON, without empty fields."""
        said = {name: value[:LENGTHS[name]] if name in LENGTHS else value for name, value in vars(self).items()
                if value not in ('', None) and (name, value) != ('number', 0)}
        return json.dumps({'version': VERSION, **said}, separators=(',', ':')).encode()

    @property
    def standing(self) -> tuple[bool, int, int]:
        """See :func:`standing`."""
        return standing(self.outcome, self.attempt)

    @property
    def routing_key(self) -> str:
        """``<outcome>.<task>``, which AMQP limits to 255 bytes."""
        return f'{self.outcome}.{self.task or "unknown"}'.encode(errors='replace')[:255].decode(errors='ignore')

    @property
    def ended(self) -> float:
        """When the run ended, in epoch seconds."""
        return min(self.started + self.seconds, LAST_SECOND)

    @property
    def wait(self) -> float | None:
        """How many seconds after its end the next try is to be, to the thousandth; None if none is."""
        return None if self.next_try is None else round(self.next_try - self.ended, 3)

    @property
    def started_at(self) -> datetime:
        """When the run began."""
        return datetime.fromtimestamp(self.started, UTC)

    @property
    def next_try_at(self) -> datetime | None:
        """When the next try is to be."""
        return None if self.next_try is None else datetime.fromtimestamp(self.next_try, UTC)

    def in_time(self, now: float) -> RunReport:
        """The report with implausible times corrected, as from a wrong clock or a forger; ``now`` is when it arrived.

        A run that ends later than that is taken to end then, with the same duration and delay
        of its next try.
        """
        ended = plausible(self.ended, now)
        started = plausible(ended - self.seconds, ended)
        next_try = self.next_try
        if next_try is not None:
            next_try = min(max(next_try - self.ended + ended, started), now + LONGEST_WAIT)
        return replace(self, started=started, seconds=min(self.seconds, ended - started), next_try=next_try)


def _read(name: str, read: Callable[[Any], Any], found: Mapping[str, Any]) -> Any:
    try:
        return read(found.get(name))
    except Undecodable as error:
        raise Undecodable(f'its {name} {error}') from None


_READ: Final[Mapping[str, Callable[[Any], Any]]] = {it.name: it.metadata['read'] for it in fields(RunReport)}

#: The fields that say what a line of an order is; the ledger keeps them with the order.
SEAT: Final = ('order_number', 'product', 'course', 'mode', 'learner', 'mask')

#: What every report has to have.
_MUST: Final = ('outcome', 'fact')

#: The most letters of each text.
LENGTHS: Final[Mapping[str, int]] = {
    it.name: it.metadata['most'] for it in fields(RunReport) if 'most' in it.metadata}

#: The fields that are times.
TIMES: Final = frozenset(it.name for it in fields(RunReport) if 'is_time' in it.metadata)


class Fact(Protocol):
    """A message to the ledger: a report of a run, or a :class:`~ecommerce_worker.telemetry.tally.Tally`."""

    @property
    def routing_key(self) -> str:
        """The routing key of the message."""

    def as_body(self) -> bytes:
        """Its form on the wire."""


class Safety(Protocol):
    """Knows whether reports are safe with the broker."""

    def holds(self, id_: str, act: Callable[[], None], most: int) -> bool:
        """Whether the message must be held because its report is not safe yet; ``act`` is called when it is.

        If more than ``most`` are held, the oldest is released.
        """

    def flush(self) -> None:
        """Return when all reports of ended runs are safe, or after a short time."""
