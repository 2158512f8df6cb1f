"""Shared by the APIs of shops."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final

from ecommerce_worker.durations import moment

#: Pages that are read at most, of a hundred orders each.
MOST_PAGES: Final = 10_000


@dataclass(frozen=True)
class Webhook:
    """A webhook of a shop: its id, its URL, and whether it is enabled."""

    id: str
    url: str
    active: bool


def is_between(since: float, text: Any, until: float) -> bool:
    """Whether that time of an order is between these; one that cannot be read counts as now, lest it be missed."""
    found = moment(text)
    return since <= (time.time() if found is None else found) <= until
