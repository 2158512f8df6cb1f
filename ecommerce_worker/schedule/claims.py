"""Claims, by which one of several beats fires a due job."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Final, Protocol

from ecommerce_worker.schedule.entries import Entry
from ecommerce_worker.schedule.timing import Timing


def id_of(entry: Entry, due: float) -> str:
    """The id of the message of that firing, the same for any beat."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f'{entry.key} {due:.0f}'))


#: Seconds for which a firing is claimed: longer than publishing may take, to a broker that is short of disk.
CLAIM_SECONDS: Final = 900.0

#: Seconds by which the clock may have been ahead at the last firing; if more, the firing is ignored.
AHEAD_SECONDS: Final = 3600.0


class Firings(Protocol):
    """The store that beats share: when each entry was last fired, and which beat is about to; in epoch seconds."""

    def last(self, entry: str) -> float | None:
        """When the last firing was due; None for an unknown entry."""

    def begin(self, entry: str, due: float) -> None:
        """Start an entry, as if it had been fired when it was due, and forget its past."""

    def claim(self, entry: str, due: float, beat: str, now: float) -> bool:
        """Try to claim a firing for a while; False if it was fired or is claimed by another beat."""

    def fired(self, entry: str, due: float, beat: str, missed: int) -> None:
        """Store that it was fired, and how many before it were missed; ends the claim."""

    def expired(self, entry: str, due: float, beat: str, missed: int) -> None:
        """Store that it was skipped, and how many before it were missed; ends the claim."""

    def release(self, entry: str, beat: str) -> None:
        """Release the claim: it was not fired."""

    def tick(self, beat: str, now: float) -> None:
        """Give a sign of life."""

    def ticked(self) -> float | None:
        """The time of the last sign of life of any beat; None if there was none."""


@dataclass(frozen=True)
class Firing:
    """A firing: when it was due, when the last one was, and how many in between were missed."""

    due: float
    last: float
    missed: int


def claimed(firings: Firings, entry: Entry, timing: Timing, who: str, now: float) -> Firing | None:
    """The firing that this process has claimed; None if there is nothing to fire.  A new entry is started."""
    due, last = timing.latest(now), firings.last(entry.key)
    if due is None:
        return None
    if last is None or last > now + AHEAD_SECONDS:
        firings.begin(entry.key, due)
    elif last < due and firings.claim(entry.key, due, who, now):
        return Firing(due, last, timing.between(last, due))
    return None
