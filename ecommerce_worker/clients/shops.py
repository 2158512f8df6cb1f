"""Shared by the APIs of shops."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

#: Pages that are read at most, of a hundred orders each.
MOST_PAGES: Final = 10_000


@dataclass(frozen=True)
class Webhook:
    """A webhook of a shop: its id, its URL, and whether it is enabled."""

    id: str
    url: str
    active: bool
