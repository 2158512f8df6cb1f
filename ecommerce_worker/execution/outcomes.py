"""How a run ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ecommerce_worker.broker.notes import Notes


@dataclass(frozen=True)
class Then:
    """Another task that follows from one that is done: one outside effect each, each with retries of its own."""

    task: str
    kwargs: Mapping[str, Any]


@dataclass(frozen=True)
class Done:
    """The body returned: acknowledged, once what follows from it is published."""

    reason: str = ''
    then: tuple[Then, ...] = ()


@dataclass(frozen=True)
class Skipped:
    """Nothing was left to do: acknowledged."""

    reason: str


@dataclass(frozen=True)
class Retrying:
    """Tried again after ``delay`` seconds in the broker's waiting room, with these notes; then acknowledged."""

    reason: str
    delay: float
    notes: Notes
    #: The HTTP status that decided it; None if none did.
    status: int | None = None


@dataclass(frozen=True)
class Parked:
    """Kept for a person in the parked queue, as it came; then acknowledged."""

    reason: str
    notes: Notes
    #: The HTTP status that decided it; None if none did.
    status: int | None = None


Outcome = Done | Skipped | Retrying | Parked
