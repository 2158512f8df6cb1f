"""A look at the spool of an intake, where that is on this machine: what RabbitMQ has not got yet."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ecommerce_worker.errors import Misconfigured
from ecommerce_worker.intake import spool

if TYPE_CHECKING:
    from ecommerce_worker.settings import Settings


@dataclass(frozen=True)
class Spooled:
    """What lies there: deliveries that wait for RabbitMQ, and for how many seconds the oldest has; what was put aside
    since it cannot be read; and drafts of killed processes.
    """

    waiting: int = 0
    oldest: float = 0.0
    unreadable: int = 0
    drafts: int = 0


def look(settings: Settings, now: float | None = None) -> Spooled | None:
    """Look at the names of its files; None if it is not here, or not to be looked into by this user."""
    now = time.time() if now is None else now
    files = []
    try:
        for path in spool.directory_of(settings).iterdir():
            with suppress(FileNotFoundError):  # it was published meanwhile
                files.append((path, path.stat().st_mtime))
    except (OSError, Misconfigured):  # in no home directory there is none
        return None
    waiting = [at for path, at in files if path.suffix == '.json' and not path.name.startswith('.')]
    return Spooled(
        len(waiting), max(0.0, now - min(waiting, default=now)), sum(path.suffix == '.unreadable' for path, _ in files),
        # A file that is being written now is not a draft of a killed process.
        sum(path.name.startswith('.') and now - at > spool.DRAFT_SECONDS for path, at in files))
