"""What the ledger stores unchanged: parked messages, and reports that this version cannot read."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass, replace
from typing import Final, Self

from ecommerce_worker.broker.notes import ParkingNote
from ecommerce_worker.broker.wire import Raw
from ecommerce_worker.telemetry.run import plausible

#: The most bytes kept of a body that is not a report; a report has some hundreds.
LARGEST_ASIDE: Final = 64 * 1024


@dataclass(frozen=True)
class Aside:
    """The beginning of a body that is not a report of this version, the reason, and the SHA-256 of the whole body."""

    body: bytes
    reason: str
    digest: str

    @classmethod
    def of(cls, body: bytes, reason: str) -> Self:
        """The part of a body that is kept."""
        return cls(body[:LARGEST_ASIDE], reason, hashlib.sha256(body).hexdigest())


@dataclass(frozen=True)
class Parcel:
    """One parked message with the note that is on it; ``identity`` is the same however often it comes."""

    identity: uuid.UUID
    note: ParkingNote
    raw: Raw

    @classmethod
    def of(cls, raw: Raw) -> Parcel | None:
        """The parcel of a parked message; None if another program put it there."""
        note = ParkingNote.read(raw.headers)
        if note is None:
            return None
        return cls(uuid.uuid5(uuid.NAMESPACE_OID, f'{note.at!r} {note.id}'), note, raw)

    def in_time(self, now: float) -> Parcel:
        """The same with a plausible time of parking; ``now`` is when it arrived."""
        return replace(self, note=replace(self.note, at=plausible(self.note.at, now)))
