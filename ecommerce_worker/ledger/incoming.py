"""What the ledger takes over as it is: parked messages, and facts that nobody here can read."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Self

from ecommerce_worker.broker.notes import NOTES, Notes
from ecommerce_worker.broker.publishing import fact_of
from ecommerce_worker.broker.wire import Raw
from ecommerce_worker.execution.parking import site_of_message
from ecommerce_worker.telemetry.facts import LAST_SECOND, LENGTHS, Fact, one_line, plausible

#: The most that is kept of what is no fact, in bytes; a fact has some hundreds.
LARGEST_ASIDE: Final = 64 * 1024


@dataclass(frozen=True)
class Aside:
    """The beginning of a body that is no fact of this version, why it is none, and the SHA-256 of the whole body."""

    body: bytes
    reason: str
    digest: str

    @classmethod
    def of(cls, body: bytes, reason: str) -> Self:
        """What is kept of a body."""
        return cls(body[:LARGEST_ASIDE], reason, hashlib.sha256(body).hexdigest())


@dataclass(frozen=True)
class Parcel:
    """One parked message, and what its worker wrote on it; ``parked_at`` in epoch seconds.

    ``fact`` tells of the run that it was parked after, as the worker tells it too unless it is killed before.
    """

    identity: uuid.UUID
    id: str
    task: str
    key: str
    site: str
    queue: str
    reason: str
    parked_at: float
    tries: int
    history: tuple[Mapping[str, Any], ...]
    raw: Raw
    fact: Fact | None

    @classmethod
    def of(cls, raw: Raw) -> Parcel | None:
        """What :func:`ecommerce_worker.broker.publishing.park` wrote; None for what somebody else put there."""
        header = raw.headers.get(NOTES)
        if not isinstance(header, Mapping):
            return None
        id_, parked_at = header.get('id'), header.get('parked_at')
        if not isinstance(id_, str) or not id_ or isinstance(parked_at, bool):
            return None
        if not isinstance(parked_at, int | float) or not 0 <= parked_at <= LAST_SECOND:
            return None
        notes, fact = Notes.of(raw.headers), fact_of(raw)

        def text(name: str, value: Any) -> str:
            return one_line(value, LENGTHS[name])

        return cls(
            identity=uuid.uuid5(uuid.NAMESPACE_OID, f'{parked_at!r} {id_}'), id=text('id', id_),
            task=text('task', header.get('task')), key=text('key', header.get('key')),
            # As its facts have it: they are of one order.
            site=fact.site if fact else site_of_message(raw),
            queue=text('queue', notes.queue), reason=text('reason', header.get('reason')), parked_at=parked_at,
            tries=notes.attempt, history=tuple(map(_entry, notes.history)), raw=raw, fact=fact)

    def in_time(self, now: float) -> Parcel:
        """The same, parked at a time that can be; ``now`` is when it came."""
        return replace(self, parked_at=plausible(self.parked_at, now))


def _entry(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    at = entry.get('at')
    return {'at': at if isinstance(at, int | float) and 0 <= at <= LAST_SECOND else None,
            'reason': one_line(entry.get('reason'), LENGTHS['reason'])}
