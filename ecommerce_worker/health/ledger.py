"""The state of the ledger: overdue orders, lost reports and parked messages; and what it knows of intakes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
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
    #: For how many seconds nothing has come by an intake, where that is longer than usual.
    silent: Mapping[str, float] = field(default_factory=dict)
    #: What is wrong with the webhook of an intake by which nothing is delivered, with the time at which that was seen.
    webhooks: Mapping[str, str] = field(default_factory=dict)


def look(settings: Settings) -> Ledger | None:
    """Open the ledger and read its state; None if no ledger is kept."""
    if not database.is_kept(settings):
        return None
    try:
        extras.require_django()
        from ecommerce_worker.ledger import setup

        setup.open_current_ledger()
        return read(settings)
    except WorkerError as error:
        return Ledger(str(error))


def read(settings: Settings) -> Ledger:
    """The state of the ledger, which must be open."""
    from ecommerce_worker.ledger import intakes, queries

    unknown = queries.unknown()
    # An intake that was removed from the configuration is not reported any more.
    live = {name for name, given in settings.INTAKES.items() if given.get('state', 'live') == 'live'}
    silences = intakes.silences(datetime.now(UTC))
    return Ledger(
        '', queries.count_parked(), unknown.overdue, unknown.lost, queries.LOST_DAYS,
        {name: silence.total_seconds() for name, silence in silences.items() if name in live},
        {name: f'{problem} (seen {seen:%Y-%m-%d %H:%M} UTC)' for name, problem, seen in intakes.dead_webhooks()
         if name in live})
