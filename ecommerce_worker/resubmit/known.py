"""What the ledger knows about orders, for resubmitting."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Final

from django.db import Error, close_old_connections, connection

from ecommerce_worker.clients.ecommerce import COMPLETE
from ecommerce_worker.errors import ApiError, Transient
from ecommerce_worker.fulfillment.names import FULFILL
from ecommerce_worker.ledger import database, setup
from ecommerce_worker.resubmit.messages import RECORDING_SECONDS
from ecommerce_worker.resubmit.names import Known, Memory, NotNow
from ecommerce_worker.resubmit.report import Report
from ecommerce_worker.resubmit.shops import patiently, shop_of
from ecommerce_worker.telemetry.run import RunReport

if TYPE_CHECKING:
    from ecommerce_worker.ledger.queries import Covering, Entry, InLedger
    from ecommerce_worker.settings import Settings

#: Seconds for which a reported order is left alone: its message may be in transit, with a recorder.
#: Not longer: what RabbitMQ has lost is to be made good.
RECENTLY: Final = 300

#: Order numbers that a database is asked for in one question.
AT_ONCE: Final = 500

#: Overdue orders that are asked about in one run, at most; a shop answers some twenty in a second.
OVERDUE: Final = 10_000


def memory_of(settings: Settings) -> Memory | None:
    """The ledger's memory; None where no ledger is kept.

    Raises :class:`~ecommerce_worker.resubmit.names.NotNow` if it cannot be looked into.
    """
    with _looking():
        if not database.is_kept(settings):
            return None
        setup.open_current_ledger()
    return known


def known(numbers: Collection[str]) -> list[Known]:
    """Which of these orders the ledger knows to be somewhere, or to have been discarded.

    Raises :class:`~ecommerce_worker.resubmit.names.NotNow` if it cannot be asked.
    """
    from ecommerce_worker.ledger import queries  # not before the ledger is open

    with _looking():
        # A long time may have passed since the last question.
        close_old_connections()
        # In this order: one that is resent in between has just been reported.
        parked = queries.parked_of(numbers, FULFILL)
        orders = queries.entries_of(numbers, FULFILL)
        lately = queries.heard_lately(numbers, FULFILL, RECENTLY)
    standing = (_standing(order, lately=order.number in lately) for order in orders)
    return [*filter(None, standing), *map(_lying, parked)]


def _standing(order: Entry, *, lately: bool) -> Known | None:
    """What the ledger knows of an order without its message: a person's decision, or that it was seen a moment ago."""
    if order.state == 'discarded':
        return Known(order.site, order.key, f'it was {order.reason or "discarded"}, {order.last_seen:%Y-%m-%d %H:%M} '
                                            'UTC', discarded=True)
    if order.state != 'fulfilled' and lately:
        return Known(order.site, order.key, f'it may be in transit ({order.state} at {order.last_seen:%H:%M:%S} '
                                            'UTC')
    return None


def _lying(parked: InLedger) -> Known:
    return Known(parked.site, parked.key, f'it has been parked here since {parked.parked_at:%Y-%m-%d %H:%M} UTC '
                                          f'({parked.reason}); see `parked resend`')


def came(numbers: Collection[str], task: str) -> set[str]:
    """Which of these orders the ledger has, for this task.

    Raises :class:`~ecommerce_worker.resubmit.names.NotNow` if it cannot be asked.
    """
    from ecommerce_worker.ledger import queries  # not before the ledger is open

    with _looking():
        close_old_connections()
        listed = sorted(numbers)
        return {entry.key for first in range(0, len(listed), AT_ONCE)
                for entry in queries.entries_of(listed[first:first + AT_ONCE], task)}


def saw(webhooks: Mapping[str, str]) -> None:
    """Keep how the webhooks of intakes were found; see ``Reconciled.webhooks``.

    Raises :class:`~ecommerce_worker.resubmit.names.NotNow` if it cannot be kept.
    """
    from ecommerce_worker.ledger import intakes  # not before the ledger is open

    with _looking():
        close_old_connections()
        intakes.write_webhooks(webhooks, datetime.now(UTC))


def covering(order_number: str, course: str, learners: Collection[str], site: str,
             refuse_behind: Callable[[Memory], None]) -> Covering:
    """Who else paid for a learner's course; ``refuse_behind`` raises where the ledger has yet to learn something.

    Raises :class:`~ecommerce_worker.resubmit.names.NotNow` if it cannot be asked.
    """
    with _looking():
        setup.open_current_ledger()
    refuse_behind(known)
    # What a recorder has taken, and not written yet, is nowhere to be seen.
    time.sleep(RECORDING_SECONDS)
    from ecommerce_worker.ledger import queries  # not before the ledger is open

    with _looking():
        return queries.covering(order_number, course, learners, site)


def bought(order_number: str, site: str, refuse_behind: Callable[[Memory], None]) -> list[dict[str, str]]:
    """Which courses the products of an order were when it came; raises as :func:`covering` does.

    What a recorder has taken and not written yet came with the products of now, and is not waited for.
    """
    with _looking():
        setup.open_current_ledger()
    refuse_behind(known)
    from ecommerce_worker.ledger import queries  # not before the ledger is open

    with _looking():
        return queries.bought(order_number, site)


def settle_overdue(report: Report, numbers: Collection[str] = ()) -> None:
    """Ask the shops about orders without a report when one was due, and write down those that are complete.

    The report of their end was lost.  ``numbers`` asks for these orders only.
    """
    from ecommerce_worker.ledger import queries, recording  # not before the ledger is open

    with _looking():
        close_old_connections()
        overdue = [it for it in queries.orders(overdue=True, task=FULFILL, limit=OVERDUE)
                   if not numbers or it.key in numbers]
    away: set[str] = set()
    for order in overdue:
        if order.site in away:
            continue
        try:
            status = patiently(partial(shop_of(order.site).status, order.key))
        except ApiError as error:
            report.blame(order.key, error)
            if isinstance(error, Transient):
                away.add(order.site)  # it was waited for, and is not again for each of its orders
            continue
        if status == COMPLETE:
            with _looking():
                recording.record([RunReport(
                    'skipped', task=order.task, id=str(uuid.uuid4()), key=order.key, site=order.site,
                    reason='the shop has it as complete; the report of its end was lost')])
            report.settled += 1


@contextmanager
def _looking() -> Iterator[None]:
    """Raise :class:`NotNow` if the ledger cannot be read: nothing is published then."""
    try:
        yield
    except setup.LedgerUnusable as error:
        raise NotNow(_so(error)) from None
    except OSError as error:
        raise NotNow(_so(f'its file cannot be read ({type(error).__name__})')) from None
    except Error as error:
        connection.close()
        raise NotNow(_so(setup.away(error))) from None


def _so(reason: object) -> str:
    return f'it is unknown which orders are parked in the ledger: {reason}'
