"""The state of the ledger: overdue orders, lost reports and parked messages."""

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
    """The state of the ledger; if ``problem`` says why it cannot be read, the other fields mean nothing."""

    problem: str = ''
    parked: int = 0
    #: Orders without a report when one was due, and reports of runs lost in the last ``lost_days`` days.
    overdue: int = 0
    lost: int = 0
    lost_days: int = 0


def look(settings: Settings) -> Ledger | None:
    """Open the ledger and read its state; None if no ledger is kept."""
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
    """The state of the ledger, which must be open."""
    from ecommerce_worker.ledger import queries

    unknown = queries.unknown()
    return Ledger('', queries.count_parked(), unknown.overdue, unknown.lost, queries.LOST_DAYS)
