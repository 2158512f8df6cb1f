"""A look at the ledger: what it knows that it does not know, and what is parked in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ecommerce_worker import extras
from ecommerce_worker.errors import WorkerError
from ecommerce_worker.ledger import database

if TYPE_CHECKING:
    from ecommerce_worker.settings import Settings


@dataclass(frozen=True)
class Ledger:
    """What was seen of it; ``problem`` says why it cannot be read, and then nothing else is known."""

    problem: str = ''
    parked: int = 0
    #: Orders of which nothing was heard when it was time, and reports of runs that never came in so many days.
    overdue: int = 0
    lost: int = 0
    lost_days: int = 0


def look(settings: Settings) -> Ledger | None:
    """Open it and look; None if there is none."""
    if not database.is_kept(settings):
        return None
    try:
        extras.require_django()
        from ecommerce_worker.ledger import setup

        setup.open_current_ledger()
        return read()
    except WorkerError as error:
        return Ledger(str(error))


def read() -> Ledger:
    """What is in the ledger that is open."""
    from ecommerce_worker.ledger import queries

    unknown = queries.unknown()
    return Ledger('', queries.count_parked(), unknown.overdue, unknown.lost, queries.LOST_DAYS)
