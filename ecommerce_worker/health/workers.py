"""A look at the workers: which of them answer, and what they hold and cannot get rid of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ecommerce_worker.broker.mailbox import answers
from ecommerce_worker.operations import workers

if TYPE_CHECKING:
    from celery import Celery


@dataclass(frozen=True)
class Workers:
    """Those that answered within so many ``seconds``, and how many messages they hold that cannot be parked or sent
    on, by which of both.
    """

    seconds: float
    names: tuple[str, ...] = ()
    held: Mapping[str, int] | None = None


def ask(app: Celery, seconds: float) -> Workers:
    """Ask the workers that have tasks of ours; those of other services on the virtual host answer too."""
    ours = {name for name in app.tasks if not name.startswith('celery.')}
    names = sorted(name for name, tasks in answers(app, 'registered', timeout=seconds).items()
                   if isinstance(tasks, list) and not ours.isdisjoint(str(task).partition(' ')[0] for task in tasks))
    return Workers(seconds, tuple(names), workers.kept(app, seconds) if names else None)
