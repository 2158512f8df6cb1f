"""What people do about parked messages from here; the shop has a say before an order is sent again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ecommerce_worker import runtime
from ecommerce_worker.clients.ecommerce import COMPLETE, FULFILLABLE
from ecommerce_worker.console import queries
from ecommerce_worker.errors import ApiError, NotPublished, Transient, WorkerError
from ecommerce_worker.ledger import decisions
from ecommerce_worker.ledger.queries import Parked
from ecommerce_worker.ledger.words import ORDER, kind_of

if TYPE_CHECKING:
    from celery import Celery


class NotNow(WorkerError):
    """It is not sent again: the text says why."""


@dataclass(frozen=True)
class Done:
    """What became of some messages: how many went well, and why each of the others did not, in plain words.

    ``left`` are the numbers of those that are still parked.
    """

    count: int
    troubles: tuple[str, ...]
    left: tuple[int, ...] = ()


def resend(app: Celery, numbers: Iterable[int], *, who: str, reason: str) -> Done:
    """Send these parked messages again, as far as the shop and the limit let them."""
    count, troubles, left = 0, [], []
    away: dict[str, Transient] = {}
    for number in numbers:
        parked = queries.one_parked(number)
        if parked is None:
            troubles.append(f'message {number} is not parked any more')
            continue
        try:
            # A shop that is away is not asked for each of fifty.
            if parked.site in away and kind_of(parked.task) == ORDER:
                raise away[parked.site]
            _ask_the_shop(parked)
            decisions.resend(app, number, who=who, reason=reason)
            count += 1
            continue
        except Transient as error:
            away[parked.site] = error
            troubles.append(f'{_name(parked)}: not sent, for {error}')
        except NotPublished:
            troubles.append(f'{_name(parked)}: RabbitMQ did not take it; it stays parked')
        except WorkerError as error:
            troubles.append(f'{_name(parked)}: {error}')
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


def _ask_the_shop(parked: Parked) -> None:
    """Raise what speaks against sending it again; only the fulfilment of an order is asked about."""
    if kind_of(parked.task) != ORDER or not parked.key:
        return
    try:
        status = runtime.site(parked.site or None).ecommerce.status(parked.key)
    except Transient:
        raise
    except (ApiError, WorkerError) as error:
        raise NotNow(f'not sent, for {error}') from None
    if status == COMPLETE:
        raise NotNow('not sent, for the shop has fulfilled it already (Complete); it may be discarded')
    if status not in FULFILLABLE:
        raise NotNow(f'not sent, for the shop would refuse to fulfil it: its status there is {status[:50]}')


def _name(parked: Parked) -> str:
    return parked.key or parked.id[:8]
