"""The types of resubmitting: what is wanted, found and known."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from os import EX_TEMPFAIL
from typing import Final

from ecommerce_worker.errors import WorkerError

#: The remote control command by which workers tell which orders they have in hand.
IN_HAND: Final = 'ecommerce_orders_in_hand'

Tell = Callable[[str], None]

#: An order of a shop: the root of its API, and the order number.
Key = tuple[str, str]


class NotNow(WorkerError):
    """It is unknown which orders are here, so nothing is published; do what the text says, or try again."""

    exit_status = EX_TEMPFAIL


class NoSuchSite(WorkerError):
    """The configuration has no such site."""

    exit_status = 2


@dataclass(frozen=True)
class Wanted:
    """Which orders are looked for, and what is done about them.

    ``numbers`` asks for these orders only, whatever their age, and even if a person has discarded them; ``sites`` for
    these sites only, '' being the one without a code.  Orders placed within the last ``since`` seconds, but not within
    the last ``grace``, are published so that they run after ``delay`` seconds, by when any run that was overlooked has
    ended: a fulfilment is waited for twice FULFILLMENT_READ_TIMEOUT at most.
    """

    numbers: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()
    since: float = 2 * 24 * 3600.0
    grace: float = 15 * 60.0
    delay: float = 120.0
    limit: int | None = None
    dry_run: bool = False
    look_into_queues: bool = False


@dataclass(frozen=True)
class Found:
    """An order that the shop has as paid and unfulfilled, or that was asked for by its number."""

    site: str
    root: str
    number: str
    status: str
    placed: datetime | None = None

    @property
    def key(self) -> Key:
        """Distinguishes it from orders of other shops."""
        return self.root, self.number


@dataclass(frozen=True)
class Known:
    """Where an order is that RabbitMQ need not know of, in so many words: ``it is parked …``.

    One that a person has ``discarded`` is nowhere, and published only for who asks for it by its number.
    """

    site: str
    number: str
    where: str
    discarded: bool = False


#: A store of orders besides RabbitMQ: of some numbers, it returns those that it has, for any site.
#: Raises :class:`NotNow`.
Memory = Callable[[Collection[str]], Iterable[Known]]
