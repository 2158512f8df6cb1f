"""Finding the messages of orders: parked, waiting, queued, or held by a worker."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from ecommerce_worker import runtime
from ecommerce_worker.broker import topology
from ecommerce_worker.broker.lending import lent
from ecommerce_worker.broker.mailbox import answers
from ecommerce_worker.broker.wire import Raw
from ecommerce_worker.execution.parking import call_of, key_of, site_of
from ecommerce_worker.fulfillment.names import FULFILL
from ecommerce_worker.operations.parked import looked_through
from ecommerce_worker.resubmit.names import IN_HAND, Found, Key, Memory, NotNow, Tell, Wanted
from ecommerce_worker.resubmit.report import Report, Row
from ecommerce_worker.resubmit.shops import root_of

if TYPE_CHECKING:
    from celery import Celery
    from kombu import Connection

#: Seconds in which a worker answers, how often it is asked, and in which workers may empty their queues.
ANSWER_SECONDS, ANSWER_TRIES, EMPTY_SECONDS = 1.0, 3, 10.0

#: Seconds in which a recorder has as a rule written down what it took from RabbitMQ: it gathers for half a second.
RECORDING_SECONDS: Final = 2.0

#: Orders that a memory is asked about at once: databases limit the values of a question.
BATCH: Final = 500


def without_known(app: Celery, connection: Connection, wanted: Wanted, memory: Memory | None, found: list[Found],
                  report: Report, tell: Tell) -> Iterator[Found]:
    """The orders that are found nowhere; for each of the others, a row in the report states where it is.

    A message on its way from one place to the next may be missed by one look, but hardly by two.  The memory is asked
    last: a recorder commits before it acknowledges a message, and until then the message can be seen nowhere.
    """
    workers: set[str] = set()
    left, names = found, runtime.current().settings.QUEUES
    for look in range(2):
        if not left:
            return
        if look and memory:
            time.sleep(RECORDING_SECONDS)
        here = in_hand(app, connection, names, workers)
        if not wanted.look_into_queues:
            _refuse_queued(connection, names)
        into = names if wanted.look_into_queues else ()
        here |= _lying(app, connection, (*topology.waiting_room(connection), *into), tell)
        if not wanted.look_into_queues:
            _refuse_queued(connection, names)
        here |= in_hand(app, connection, names, workers)
        refuse_unrecorded(connection, memory)
        if memory:
            here = remembered(memory, wanted, left) | here
        report.rows += [Row(order, f'left: {here[order.key]}') for order in left if order.key in here]
        left = [order for order in left if order.key not in here]
    yield from left


def _depths(connection: Connection, names: Iterable[str]) -> list[topology.Depth]:
    """The depths of these queues; raises :class:`NotNow` if one is unavailable, since orders may be in it."""
    try:
        return topology.depths(connection, names, strict=True)
    except topology.Unavailable as error:
        raise NotNow(f'{error}; it is unknown which orders are in it: try again when it is back') from None


def _refuse_queued(connection: Connection, names: Iterable[str]) -> None:
    """Raise :class:`NotNow` if messages are queued; workers may take them first."""
    deadline = time.monotonic() + EMPTY_SECONDS
    while full := [depth for depth in _depths(connection, names) if depth.messages]:
        if time.monotonic() > deadline or any(depth.consumers == 0 for depth in full):
            total = sum(depth.messages for depth in full)
            raise NotNow(
                f'{total} message{"s are" if total > 1 else " is"} queued ({", ".join(it.name for it in full)}): let '
                'the workers finish first, or use --look-into-queues, which delays each of them by half a minute')
        time.sleep(0.2)


def refuse_unrecorded(connection: Connection, memory: Memory | None) -> None:
    """Raise :class:`NotNow` if a recorder knows, or has yet to learn, what the memory does not tell."""
    deadline = time.monotonic() + EMPTY_SECONDS
    while found := _depths(connection, [topology.LEDGER]):
        facts, = found
        if not memory and facts.consumers:
            raise NotNow('a recorder takes parked messages into a ledger that is not kept here, so it is unknown '
                         'which orders are parked: run resubmit where DATABASES names that ledger')
        if not memory or not facts.messages:
            return
        if facts.consumers == 0:
            raise NotNow(f'no recorder takes the reports of workers (facts: {facts.messages}), so it does not know '
                         'how orders stand: start a recorder (ecommerce-worker recorder)')
        if time.monotonic() > deadline:
            raise NotNow(f'the ledger is behind (facts: {facts.messages}): wait until the recorder has caught up')
        time.sleep(0.2)


def remembered(memory: Memory, wanted: Wanted, orders: Collection[Found]) -> dict[Key, str]:
    """Where these orders are according to the ledger, in words."""
    numbers = sorted({order.number for order in orders})
    known = [each for first in range(0, len(numbers), BATCH) for each in memory(numbers[first:first + BATCH])]
    discarded = {} if wanted.numbers else {
        (root_of(each.site), each.number): f'{each.where}; `--order {each.number}` publishes it anyway'
        for each in known if each.discarded}
    return discarded | {(root_of(each.site), each.number): each.where for each in known if not each.discarded}


def _lying(app: Celery, connection: Connection, names: Iterable[str], tell: Tell) -> dict[Key, str]:
    """Where the orders are in RabbitMQ, in words: parked, and in these queues."""
    here: dict[Key, str] = {}
    looked_at = 0
    if _depths(connection, [topology.PARKED]):
        with looked_through(connection) as messages:
            for message in messages:
                if key := _order_in(app, message.raw):
                    here[key] = f'it is parked here ({message.reason}); see `parked resend`'
    for depth in _depths(connection, names):
        if not depth.messages:
            continue
        waits = depth.name.startswith(f'{topology.PREFIX}_')
        try:
            with lent(connection, depth.name) as messages:
                for message in messages:
                    looked_at += 1
                    if looked_at % 1000 == 0:
                        tell(f'{looked_at} messages checked')
                    if key := _order_in(app, Raw.of(message)):
                        here[key] = 'it waits here for its next try' if waits else f'it is queued here ({depth.name})'
        except topology.Unavailable as error:
            raise NotNow(str(error)) from None
    return here


def _order_in(app: Celery, raw: Raw) -> Key | None:
    """The order that a message is about, if it asks for a fulfilment."""
    call = call_of(raw)
    return (root_of(site_of(app, call)), key_of(app, call)) if call and call.task == FULFILL else None


def in_hand(app: Celery, connection: Connection, names: Iterable[str], workers: set[str]) -> dict[Key, str]:
    """The orders that workers hold; ``workers`` are those known, and grows.  Raises :class:`NotNow`."""
    consumers = max((depth.consumers or 0 for depth in _depths(connection, names)), default=0)
    for _ in range(ANSWER_TRIES):
        if workers and len(workers) >= consumers:
            break
        said = answers(app, 'registered', timeout=ANSWER_SECONDS, connection=connection)
        workers.update(name for name, tasks in said.items() if isinstance(tasks, list)
                       and any(str(task).partition(' ')[0] == FULFILL for task in tasks))
        if not consumers:
            break
    replies: dict[str, Any] = {}
    for _ in range(ANSWER_TRIES):
        if silent := sorted(workers - set(replies)):
            replies.update(answers(app, IN_HAND, destination=silent, timeout=ANSWER_SECONDS, limit=len(silent),
                                connection=connection))
    found = [orders for orders in replies.values() if _are_orders(orders)]
    if len(found) < max(consumers, len(workers)):
        raise NotNow(f'of {max(consumers, len(workers))} workers only {len(found)} reported the orders they hold: '
                     'try again in a minute; workers of an older version, or with the solo pool while running a task, '
                     'do not report')
    return {(root_of(code), number): 'a worker holds it' for orders in found for code, number in orders}


def _are_orders(reply: Any) -> bool:
    """Whether it is an answer of :func:`orders_in_hand`; anyone may answer."""
    return isinstance(reply, list) and all(
        isinstance(order, list) and len(order) == 2 and all(isinstance(part, str) for part in order) for order in reply)
