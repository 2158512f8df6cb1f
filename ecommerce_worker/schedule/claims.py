"""Who fires what is due, where several could: what they share, and how one of them comes to do it."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Final, Protocol

from ecommerce_worker.schedule.entries import Entry
from ecommerce_worker.schedule.timing import Timing


def id_of(entry: Entry, due: float) -> str:
    """The id of the message of that firing: the same, whoever fires it."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f'{entry.key} {due:.0f}'))


#: Seconds for which a firing is claimed: longer than publishing may take, to a broker that is short of disk.
CLAIM_SECONDS: Final = 900.0

#: Seconds by which the clock may have been ahead when something was fired last; more, and it begins anew.
AHEAD_SECONDS: Final = 3600.0


class Firings(Protocol):
    """What several beats share: when each entry was fired last, and who is about to fire it; times in epoch seconds."""

    def last(self, entry: str) -> float | None:
        """When the last firing was due; None for an entry that is not known yet."""

    def begin(self, entry: str, due: float) -> None:
        """Begin with an entry, as if it had been fired when it was due; what it was before is forgotten."""

    def claim(self, entry: str, due: float, beat: str, now: float) -> bool:
        """Claim a firing for a while; whether it was to be had: neither fired nor claimed by another one."""

    def fired(self, entry: str, due: float, beat: str, missed: int) -> None:
        """Remember that it was fired, and how many before it were missed; the claim is over."""

    def expired(self, entry: str, due: float, beat: str, missed: int) -> None:
        """Remember that it was left out, and how many before it were missed; the claim is over."""

    def release(self, entry: str, beat: str) -> None:
        """Give up the claim: it was not fired."""

    def tick(self, beat: str, now: float) -> None:
        """Give a sign of life."""

    def ticked(self) -> float | None:
        """When any beat gave the last sign of life; None: never."""


@dataclass(frozen=True)
class Firing:
    """What is to be fired now: when it was due, when the last one was, and how many in between were missed."""

    due: float
    last: float
    missed: int


def claimed(firings: Firings, entry: Entry, timing: Timing, who: str, now: float) -> Firing | None:
    """What this process is to fire now, and nobody else; None if there is nothing.  A new entry is begun with."""
    due, last = timing.latest(now), firings.last(entry.key)
    if due is None:
        return None
    if last is None or last > now + AHEAD_SECONDS:
        firings.begin(entry.key, due)
    elif last < due and firings.claim(entry.key, due, who, now):
        return Firing(due, last, timing.between(last, due))
    return None
