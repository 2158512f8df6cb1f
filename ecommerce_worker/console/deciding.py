"""Resending and discarding parked messages from the console, many at once, with a result for each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ecommerce_worker.console import queries
from ecommerce_worker.errors import NotPublished, WorkerError
from ecommerce_worker.ledger import decisions
from ecommerce_worker.ledger.queries import InLedger
from ecommerce_worker.operations.parked import Desk

if TYPE_CHECKING:
    from celery import Celery


@dataclass(frozen=True)
class Done:
    """The result for some messages: how many succeeded, and why each of the others did not, in plain words.

    ``left`` are the numbers of those that are still parked.
    """

    count: int
    troubles: tuple[str, ...]
    left: tuple[int, ...] = ()


def resend(app: Celery, numbers: Iterable[int], *, who: str, reason: str) -> Done:
    """Resend these parked messages, as far as the shop and the hourly limit allow."""
    count, troubles, left = 0, [], []
    desk = Desk(app, who=who, reason=reason)
    for number in numbers:
        parked = queries.one_parked(number)
        if parked is None:
            troubles.append(decisions.no_longer_parked(number))
            continue
        try:
            desk.resend(parked)
        except NotPublished:
            troubles.append(f'{_name(parked)}: RabbitMQ did not take it; it stays parked')
        except WorkerError as error:
            troubles.append(f'{_name(parked)}: {error}')
        else:
            count += 1
            continue
        left.append(number)
    return Done(count, tuple(troubles), tuple(left))


def discard(numbers: Iterable[int], *, who: str, reason: str) -> Done:
    """Throw these parked messages away for good."""
    count, troubles = 0, []
    for number in numbers:
        try:
            decisions.discard(number, who=who, reason=reason)
            count += 1
        except decisions.AlreadySettled as error:
            troubles.append(str(error))
    return Done(count, tuple(troubles))


def _name(parked: InLedger) -> str:
    return parked.key or parked.id[:8]
