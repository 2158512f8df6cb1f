"""The state of the workers: which of them answer, and how many messages they hold back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ecommerce_worker.operations import workers

if TYPE_CHECKING:
    from celery import Celery

    from ecommerce_worker.broker.topology import Depth


@dataclass(frozen=True)
class Workers:
    """The workers that answered within ``seconds``, and how many messages they hold that cannot be ``parked`` or
    ``sent on``.
    """

    seconds: float
    names: tuple[str, ...] = ()
    held: Mapping[str, int] | None = None


def ask(app: Celery, queues: Iterable[Depth], seconds: float) -> Workers:
    """Ask those that consume these queues; workers of other services on the virtual host do not answer."""
    found = workers.ask(app, queues, seconds)
    return Workers(seconds, tuple(sorted(found)), workers.held(found.values()))
