"""Resending and discarding parked messages from the console, many at once, with a result for each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ecommerce_worker.console import queries
from ecommerce_worker.errors import NotPublished
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
    found = {number: queries.one_parked(number) for number in numbers}
    troubles = [decisions.no_longer_parked(number) for number, parked in found.items() if parked is None]
    count, left = 0, []
    for done in Desk(app, who=who, reason=reason).resend(parked for parked in found.values() if parked):
        if done.error is None:
            count += 1
            continue
        why = 'RabbitMQ did not accept it; it stays parked' if isinstance(done.error, NotPublished) else str(done.error)
        troubles.append(f'{_name(done.parked)}: {why}')
        left.append(done.parked.number)
    return Done(count, tuple(troubles), tuple(left))


def discard(numbers: Iterable[int], *, who: str, reason: str) -> Done:
    """Discard these parked messages permanently."""
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
