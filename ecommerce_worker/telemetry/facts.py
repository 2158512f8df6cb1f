"""What is told of one run, or of one message, and its form on the wire; ids and reasons, never contents."""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from ecommerce_worker.bounds import bounded_json
from ecommerce_worker.errors import Undecodable

#: The version of the form; who reads another one keeps it aside.
VERSION: Final = 1

#: The form on the wire.
CONTENT_TYPE: Final = 'application/json'

#: That a message was published for somebody else, how a run ends (``returned``: given back to its queue), and what a
#: person does with a parked message.
OUTCOMES: Final = ('accepted', 'done', 'skipped', 'retrying', 'parked', 'returned', 'resent', 'discarded')

#: The most letters of each text.
LENGTHS: Final[Mapping[str, int]] = {
    'task': 255, 'id': 255, 'key': 128, 'site': 128, 'queue': 255, 'reason': 1000, 'worker': 255, 'root_id': 255,
    'teller': 32}

#: Outcomes after which nothing more is to come of the message.
ENDS: Final = ('done', 'skipped')

#: That a parked message is in the ledger; nobody tells it, it is there.
KEPT: Final = 'kept'

#: What may follow from one and the same try, in this order.
_FOLLOWS: Final = ('accepted', 'retrying', 'parked', 'returned', KEPT, 'resent', 'discarded')

#: The end of the year 9999, the last that databases know, in epoch seconds.
LAST_SECOND: Final = 253_402_300_799

#: When this worker was first released (2015-09-22), in epoch seconds: no run is older.
FIRST_SECOND: Final = 1_442_880_000

#: The longest that RabbitMQ holds a message back for its next try, in seconds.
LONGEST_WAIT: Final = 2 ** 28


def plausible(seconds: float, now: float) -> float:
    """The time, if something can have happened then that is known ``now``; else ``now``: the clock there was wrong."""
    return seconds if FIRST_SECOND <= seconds <= now else now


def standing(outcome: str, attempt: int) -> tuple[bool, int, int]:
    """How late in the life of its message this is: of two facts of one message the greater one has the say.

    No clock is asked, for those of two workers differ: tries are counted by the message itself, and what has ended has
    ended.
    """
    return outcome in ENDS, attempt, -1 if outcome in ENDS else _FOLLOWS.index(outcome)


def new_id() -> str:
    """An id for a fact."""
    return uuid.uuid4().hex


@dataclass(frozen=True)
class Fact:
    """One run that ended, or one message that was parked or taken out.

    ``started`` and ``next_try`` are epoch seconds, ``status`` is the HTTP status that decided it, ``fact`` tells this
    fact from any other however often it arrives, ``root_id`` is the id of the request that everything began with.
    ``teller`` is the process that published it and ``number`` how many it had published by then, so that a gap shows;
    '' and 0 where nobody counts.
    """

    outcome: str
    started: float
    seconds: float = 0.0
    attempt: int = 0
    task: str = ''
    id: str = ''
    key: str = ''
    site: str = ''
    queue: str = ''
    reason: str = ''
    status: int | None = None
    next_try: float | None = None
    worker: str = ''
    root_id: str = ''
    teller: str = ''
    number: int = 0
    fact: str = field(default_factory=new_id)

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

    def in_time(self, now: float) -> Fact:
        """The fact with times that can be, where a wrong clock or a forger wrote others; ``now`` is when it came.

        A run that would end later than that ended then, and took as long as it says; its next try is as much later as
        it was to be.
        """
        ended = plausible(self.ended, now)
        started = plausible(ended - self.seconds, ended)
        next_try = self.next_try
        if next_try is not None:
            next_try = min(max(next_try - self.ended + ended, started), now + LONGEST_WAIT)
        return replace(self, started=started, seconds=min(self.seconds, ended - started), next_try=next_try)

    def as_body(self) -> bytes:
        """The fact in JSON, without what is not there."""
        said = {name: value for name, value in vars(self).items()
                if value not in ('', None) and (name, value) != ('number', 0)}
        return json.dumps({'version': VERSION, **said}, separators=(',', ':')).encode()


def read(body: bytes) -> Fact:
    """The fact that a body holds; raises :class:`~ecommerce_worker.errors.Undecodable`, whatever it is.

    Names that are not known are what a later worker adds; they are left out.
    """
    try:
        found = json.loads(bounded_json(body))
    except (ValueError, RecursionError):
        raise Undecodable('it is no JSON') from None
    if not isinstance(found, dict):
        raise Undecodable('it is no mapping')
    if found.get('version') != VERSION or isinstance(found['version'], bool):
        raise Undecodable(f'its version is {str(found.get("version"))[:20]}; this worker reads version {VERSION}')
    outcome = found.get('outcome')
    if outcome not in OUTCOMES:
        raise Undecodable(f'there is no outcome {str(outcome)[:40]!r}')
    return Fact(
        outcome=outcome, fact=_fact_id(found.get('fact')),
        started=_number(found, 'started', LAST_SECOND), seconds=_number(found, 'seconds', LAST_SECOND),
        next_try=None if found.get('next_try') is None else _number(found, 'next_try', LAST_SECOND),
        attempt=int(_number(found, 'attempt', 2 ** 31 - 1)), number=int(_number(found, 'number', 2 ** 53)),
        status=None if found.get('status') is None else int(_number(found, 'status', 999)),
        **{name: one_line(found.get(name, ''), length) for name, length in LENGTHS.items()})


def one_line(value: Any, length: int) -> str:
    """The text, on one line, fit for a database whatever it holds; '' for anything else."""
    if not isinstance(value, str):
        return ''
    value = value[:length]
    return value if value.isprintable() else ''.join(letter if letter.isprintable() else '?' for letter in value)


def _number(found: Mapping[str, Any], name: str, most: float) -> float:
    value = found.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise Undecodable(f'its {name} is no number')
    if not 0 <= value <= most:
        raise Undecodable(f'its {name} is out of range')
    return value


def _fact_id(value: Any) -> str:
    try:
        return uuid.UUID(value).hex
    except (ValueError, TypeError, AttributeError):
        raise Undecodable('it has no id of its own') from None
