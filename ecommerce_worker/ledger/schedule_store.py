"""When scheduled jobs were fired, kept in the ledger for beats on several machines."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from django.db import Error, connection
from django.db.models import Max, Q, QuerySet

from ecommerce_worker.ledger.models import BeatTick, Firing
from ecommerce_worker.ledger.setup import away

#: Seconds for which the sign of life of a beat is kept; names hold a process number, so they are never used again.
KEEP_SECONDS: Final = 7 * 86_400.0

#: Characters of a name that the ledger shows.
LONGEST: Final = 200


@dataclass(frozen=True)
class Last:
    """The last firings of an entry; times are when they were due, in epoch seconds.

    ``due`` is that of the last firing, ``published`` that of the last that was not left out.  When some were left out
    last, there were ``missed`` of them until ``missed_at``.
    """

    due: float
    published: float | None
    missed: int
    missed_at: float | None


def last_of(entries: Iterable[str]) -> dict[str, Last]:
    """The last firings of those of these entries that a beat has started."""
    names = {_name(entry): entry for entry in entries}
    found = Firing.objects.filter(entry__in=list(names))
    return {names[name]: Last(fired, published, missed, missed_at)
            for name, fired, published, missed, missed_at in found.values_list(
                'entry', 'fired', 'published', 'missed', 'missed_at')}


class LedgerFirings:
    """The ``Firings`` of beat; a claim, in seconds, is longer than publishing may take.

    Each method raises :class:`~ecommerce_worker.ledger.setup.LedgerAway` while the database cannot be reached, and
    may be called again.
    """

    def __init__(self, claim_seconds: float) -> None:
        self._claim_seconds = claim_seconds

    def last(self, entry: str) -> float | None:
        """When the last firing was due; None for an unknown entry."""
        with _reached():
            found: float | None = _of(entry).values_list('fired', flat=True).first()
            return found

    def begin(self, entry: str, due: float) -> None:
        """Start an entry, as if it had been fired when it was due."""
        with _reached():
            Firing.objects.update_or_create(entry=_name(entry), defaults={
                'fired': due, 'claimed_by': '', 'claimed_until': 0, 'published': None, 'missed': 0, 'missed_at': None})

    def claim(self, entry: str, due: float, beat: str, now: float) -> bool:
        """Try to claim a firing for a while; returns whether it succeeded."""
        with _reached():
            # One statement: of two that come at once, the database lets the second see what the first has written.
            free = _of(entry).filter(Q(claimed_until__lt=now) | Q(claimed_by=beat), fired__lt=due)
            return int(free.update(claimed_by=beat, claimed_until=now + self._claim_seconds)) == 1

    def fired(self, entry: str, due: float, beat: str, missed: int) -> None:
        """Store that it was fired, and how many before it were missed; ends the claim."""
        self._over(entry, due, beat, missed, published=due)

    def expired(self, entry: str, due: float, beat: str, missed: int) -> None:
        """Store that it was skipped, and how many before it were missed; ends the claim."""
        self._over(entry, due, beat, missed + 1)

    def _over(self, entry: str, due: float, beat: str, missed: int, **more: Any) -> None:
        if missed:
            more |= {'missed': missed, 'missed_at': due}
        with _reached():
            _of(entry).filter(claimed_by=beat, fired__lt=due).update(
                fired=due, claimed_by='', claimed_until=0, **more)

    def release(self, entry: str, beat: str) -> None:
        """Release the claim: it was not fired."""
        with _reached():
            _of(entry).filter(claimed_by=beat).update(claimed_by='', claimed_until=0)

    def tick(self, beat: str, now: float) -> None:
        """Give a sign of life."""
        with _reached():
            BeatTick.objects.update_or_create(name=_name(beat), defaults={'at': now})
            BeatTick.objects.filter(at__lt=now - KEEP_SECONDS).delete()

    def ticked(self) -> float | None:
        """The time of the last sign of life of any beat; None if there was none."""
        with _reached():
            found: float | None = BeatTick.objects.aggregate(last=Max('at'))['last']
            return found


def _of(entry: str) -> QuerySet[Any]:
    return Firing.objects.filter(entry=_name(entry))


def _name(name: str) -> str:
    """The name of an entry in the ledger: of limited length and independent of the database's collation."""
    return f'{name[:LONGEST]} {hashlib.sha256(name.encode()).hexdigest()[:32]}'


@contextmanager
def _reached() -> Iterator[None]:
    """Drop a broken connection, so that the next query opens another."""
    try:
        yield
    except Error as error:
        connection.close()
        raise away(error) from None
