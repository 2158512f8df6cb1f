"""What the APIs of shops have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

#: Pages that are read at most, of a hundred orders each.
MOST_PAGES: Final = 10_000


@dataclass(frozen=True)
class Webhook:
    """One that a shop has: its id there, where it delivers to, and whether it does."""

    id: str
    url: str
    active: bool
