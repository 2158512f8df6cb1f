"""Orders that the shop has as paid and unfulfilled, and of which nothing is here, are published anew.

::

    shop: GET orders/ ──► placed within the window, still fulfillable
                             │ not parked, waiting, queued or in a worker's hands, by two looks,
                             │ and nowhere else that the ledger knows of
                             ▼
          GET orders/<n>/ ──► still so ──► waiting room, marked as sent again ──► worker, who asks the shop first

Messages that are looked at are lent by the broker and go back to their places; nothing is moved.
"""

from __future__ import annotations

import math
import re
import time
import uuid
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, Final, TypeVar

from amqp.exceptions import ResourceLocked
from celery.worker import state
from celery.worker.control import inspect_command
from kombu import Consumer, Queue

from ecommerce_worker import runtime, topology
from ecommerce_worker.clients.ecommerce import FULFILLABLE, Ecommerce, Order, Page
from ecommerce_worker.errors import (
    ApiError,
    NotFound,
    NotPublished,
    PeerFailure,
    Unauthorized,
    Undecodable,
    WorkerError,
)
from ecommerce_worker.retry import Policy
from ecommerce_worker.task import DELIVERY, Delivery, site_code
from ecommerce_worker.wire import Call, Notes, Raw, read
from ecommerce_worker.worker import preflight, queues
from ecommerce_worker.worker.parked import key_of, looked_through

if TYPE_CHECKING:
    from celery import Celery
    from kombu import Connection

    from ecommerce_worker.settings import Settings

#: The task of an order; by name, since a worker that tells of its orders need not have it.
FULFILL: Final = 'ecommerce_worker.fulfillment.v1.tasks.fulfill_order'

#: Exit status of sysexits.h: nothing is wrong, but it cannot be done now.
EX_TEMPFAIL: Final = 75

#: The queue that whoever resubmits has to itself: the broker gives it to one connection only.
LOCK: Final = 'ecommerce.resubmit'

#: The remote control command by which workers tell which orders they have in hand.
IN_HAND: Final = 'ecommerce_orders_in_hand'

#: Where shops publish orders, the present way first.
ORDER_QUEUES: Final = ('ecommerce.fulfillment', 'fulfillment')

#: Seconds of silence that the broker bears with: a slow page of the shop takes one.
HEARTBEAT: Final = 60

#: Seconds in which a worker answers, how often it is asked, and in which workers may empty their queues.
ANSWER_SECONDS, ANSWER_TRIES, EMPTY_SECONDS = 1.0, 3, 10.0

#: Pages of one shop that are read at most: 200,000 orders.
MOST_PAGES: Final = 10_000

#: With a shop that is busy or away for a moment.
PATIENCE: Final = Policy(refusals=0, give_up_after=60, shortest=1, longest=15)

#: Seconds in which a recorder has as a rule written down what it took from RabbitMQ: it gathers for half a second.
RECORDING_SECONDS: Final = 2.0

#: Orders that a memory is asked about at once: databases limit the values of a question.
BATCH: Final = 500

#: Seconds without a message after which a queue may be empty, and how many such silences are borne with if it is not.
SILENCE_SECONDS, MOST_SILENCES = 1.0, 30

Tell = Callable[[str], None]

Answer = TypeVar('Answer')

#: An order of a shop: the root of its API, and the order number.
Key = tuple[str, str]


class NotNow(WorkerError):
    """It cannot be known now what is here already, so nothing is published; do what the text says, or try again."""

    status = EX_TEMPFAIL


class NoSuchSite(WorkerError):
    """A site that the configuration does not name."""

    status = 2


@dataclass(frozen=True)
class Wanted:
    """Which orders are looked for, and what is done about them.

    ``numbers`` asks for these orders only, whatever their age, and even if a person has discarded them; ``sites`` for
    these sites only, '' being the one without a code.  Orders placed within the last ``since`` seconds, but not within
    the last ``grace``, are published so that they run after ``delay`` seconds, by when a run that nobody knew of has
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
        """What tells it from the orders of other shops."""
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


#: What keeps orders besides RabbitMQ: told some numbers, it tells which of these orders it knows, of whatever site.
#: Raises :class:`NotNow`.
Memory = Callable[[Collection[str]], Iterable[Known]]


@dataclass(frozen=True)
class Row:
    """What became of one order."""

    found: Found
    result: str
    published: bool = False

    @property
    def cells(self) -> tuple[str, ...]:
        """The row as people read it; see :data:`HEAD`."""
        found = self.found
        placed = f'{found.placed:%Y-%m-%d %H:%M}' if found.placed else '-'
        return found.number, found.site or '-', found.status, placed, self.result


HEAD: Final = ('ORDER', 'SITE', 'STATUS', 'PLACED (UTC)', 'RESULT')


@dataclass
class Report:
    """What became of each order, what stood in the way, and how many were published, or would have been."""

    rows: list[Row] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    published: int = 0


def resubmit(app: Celery, wanted: Wanted, memory: Memory | None,
             tell: Tell = lambda line: None) -> Report:  # noqa: ARG005
    """Publish the orders that are wanted and of which nothing is here; ``tell`` hears how it goes on.

    ``memory`` is the ledger, None where none is kept.  Needs nothing of the command line: a task may call it, where
    there is no ledger.  Raises :class:`NotNow`, :class:`NoSuchSite`,
    :class:`~ecommerce_worker.worker.preflight.BrokerUnusable`.
    """
    settings = runtime.current().settings
    sites = sites_of(settings, wanted.sites)
    if wanted.dry_run:
        with preflight.connect(app, settings) as connection:
            _refuse_without_waiting_room(connection)
    else:
        preflight.check(app, settings)
    report = Report()
    with _connected(app, settings) as connection, _alone(connection) as still_alone:
        _refuse_unrecorded(connection, memory)
        found = list(_by_number(wanted, sites, report) if wanted.numbers else
                     _by_age(wanted, sites, report, tell, still_alone))
        # Those that wait longest first.
        found.sort(key=lambda order: order.placed or datetime.min.replace(tzinfo=UTC))
        left = list(_without_known(app, connection, wanted, memory, found, report, tell))
        for order in left:
            still_alone()
            row = _handled(app, settings, wanted, order, report)
            report.rows.append(row)
            report.published += row.published
            if row.published and report.published % 100 == 0:
                tell(f'{report.published} of {len(left)} orders {"found missing" if wanted.dry_run else "published"}')
    return report


# -- what the shops have ----------------------------------------------------------------------------------------------

def sites_of(settings: Settings, codes: Iterable[str] = ()) -> dict[str, str]:
    """The codes of the sites to ask, each with the root of its API; no root twice, for that is one shop.

    Without codes: the site without one, unless nobody configured it, and every site that has a root of its own.
    ``-`` is the site without one too.  Raises :class:`NoSuchSite`.
    """
    codes = ['' if code == '-' else code for code in codes]
    own = [code for code, given in settings.SITE_OVERRIDES.items() if 'ECOMMERCE_API_ROOT' in given]
    unknown = sorted(code for code in codes if code and code not in settings.SITE_OVERRIDES)
    if unknown:
        raise NoSuchSite(f'SITE_OVERRIDES has no site {unknown[0]!r}; the sites are: '
                         + ', '.join(['-', *sorted(settings.SITE_OVERRIDES)]))
    nobodys = settings.sources.get('ECOMMERCE_API_ROOT', 'default') == 'default' and own
    sites: dict[str, str] = {}
    for code in codes or (*(() if nobodys else ('',)), *own):
        root = root_of(code)
        if root not in sites.values():
            sites[code] = root
    return sites


def root_of(code: str) -> str:
    """The root of the API that the orders of this site are fulfilled at."""
    return str(runtime.site(code or None).settings.ECOMMERCE_API_ROOT).rstrip('/')


def _shop(code: str) -> Ecommerce:
    return runtime.site(code or None).ecommerce


def _by_age(wanted: Wanted, sites: Mapping[str, str], report: Report, tell: Tell,
            still_alone: Callable[[], None]) -> Iterator[Found]:
    for code, root in sites.items():
        looked_at, orders, now = 0, dict[str, Order](), time.time()
        try:
            for number, page in enumerate(pages(_shop(code), since=now - wanted.since), 1):
                still_alone()
                looked_at += len(page.orders)
                orders.update((order.number, order) for order in unfulfilled(page, wanted, now))
                if number % 10 == 0:
                    tell(f'{_name(code)}: {looked_at} of {page.count} orders looked at, {len(orders)} unfulfilled')
        except ApiError as error:
            report.troubles.append(f'{_name(code)}: {_advised(error)}')
        else:
            if not looked_at:
                report.troubles.append(f'{_name(code)}: the shop shows no order at all; so it does to a user who is '
                                       'not staff there')
        old = [order for order in orders.values() if not is_young(order, wanted, now)]
        young = len(orders) - len(old)
        tell(f'{_name(code)}: {looked_at} orders looked at, {len(old)} unfulfilled'
             + (f'; {young} younger than {duration(wanted.grace)}, left to the shop' if young else ''))
        for order in old:
            yield Found(code, root, order.number, order.status, order.placed)


def _by_number(wanted: Wanted, sites: Mapping[str, str], report: Report) -> Iterator[Found]:
    for number in dict.fromkeys(wanted.numbers):
        troubles = []
        for code, root in sites.items():
            try:
                status = _patiently(partial(_shop(code).status, number))
            except NotFound:
                continue
            except ApiError as error:
                troubles.append(f'{number}: {_name(code)}: {_advised(error)}')
                continue
            found = Found(code, root, number, status)
            if status in FULFILLABLE:
                yield found
            else:
                report.rows.append(Row(found, f'left: it is {status}'))
            break
        else:
            report.troubles += troubles or [f'{number}: no shop knows it (404)']


def pages(shop: Ecommerce, *, since: float, patience: Policy = PATIENCE) -> Iterator[Page]:
    """The pages of a shop's orders, until one is all older than ``since`` (epoch seconds) if the newest come first.

    Raises :class:`~ecommerce_worker.errors.ApiError`.
    """
    following: Mapping[str, str] | None = None
    asked: set[frozenset[tuple[str, str]]] = set()
    first: Order | None = None
    while True:
        try:
            page = _patiently(partial(shop.orders, following), patience)
        except NotFound:
            if following is None:
                raise
            return  # fewer pages than there were a moment ago
        yield page
        first = first or next(iter(page.orders), None)
        if first and page.orders and page.orders[-1].placed < first.placed and all(
                order.placed.timestamp() < since for order in page.orders):
            return
        if page.following is None:
            return
        following = page.following
        if frozenset(following.items()) in asked or len(asked) >= MOST_PAGES:
            raise PeerFailure('the shop has no end of pages; the rest was not looked at', status=200)
        asked.add(frozenset(following.items()))


def unfulfilled(page: Page, wanted: Wanted, now: float) -> Iterator[Order]:
    """The orders of a page that the shop lets be fulfilled, and that are not too old."""
    for order in page.orders:
        if order.status in FULFILLABLE and now - order.placed.timestamp() <= wanted.since:
            yield order


def is_young(order: Order, wanted: Wanted, now: float) -> bool:
    """Whether the shop may be about to publish it."""
    return now - order.placed.timestamp() < wanted.grace


def _patiently(ask: Callable[[], Answer], patience: Policy = PATIENCE) -> Answer:
    """What ``ask`` answers; a shop that is away for a moment is asked again."""
    began = time.monotonic()
    for attempt in count(1):
        try:
            return ask()
        except ApiError as error:
            delay = patience.next_delay(error, attempt, time.monotonic() - began)
            if delay is None or delay > patience.give_up_after:
                raise
        time.sleep(delay)
    raise AssertionError('not reached')


def _advised(error: ApiError) -> str:
    if isinstance(error, Unauthorized):
        return f'{error}: are the credentials right (AUTHENTICATION), and is their user staff there?'
    if isinstance(error, NotFound):
        return f'{error}: is ECOMMERCE_API_ROOT right?'
    return str(error)


def _name(code: str) -> str:
    return f'site {code}' if code else 'the shop'


# -- what is here -----------------------------------------------------------------------------------------------------

def _without_known(app: Celery, connection: Connection, wanted: Wanted, memory: Memory | None, found: list[Found],
                   report: Report, tell: Tell) -> Iterator[Found]:
    """The orders of which nothing is here; of the others, a row in the report tells where they are.

    A message on its way from one place to the next may be missed by one look; hardly by two.  The memory is asked
    last: a recorder commits before it lets go of a message, and what it holds meanwhile is to be seen nowhere.
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
        here |= _lying(app, connection, (*queues.waiting_room(connection), *into), tell)
        if not wanted.look_into_queues:
            _refuse_queued(connection, names)
        here |= in_hand(app, connection, names, workers)
        _refuse_unrecorded(connection, memory)
        if memory:
            here = remembered(memory, wanted, left) | here
        report.rows += [Row(order, f'left: {here[order.key]}') for order in left if order.key in here]
        left = [order for order in left if order.key not in here]
    yield from left


def _refuse_queued(connection: Connection, names: Iterable[str]) -> None:
    """Raise :class:`NotNow` if messages are queued; workers may take them first."""
    deadline = time.monotonic() + EMPTY_SECONDS
    while full := [depth for depth in queues.depths(connection, names) if depth.messages]:
        if time.monotonic() > deadline or not all(depth.consumers for depth in full):
            total = sum(depth.messages for depth in full)
            raise NotNow(
                f'{total} message{"s are" if total > 1 else " is"} queued ({", ".join(it.name for it in full)}): let '
                'the workers finish first, or say --look-into-queues, which makes each of them wait half a minute')
        time.sleep(0.2)


def _refuse_unrecorded(connection: Connection, memory: Memory | None) -> None:
    """Raise :class:`NotNow` if a recorder knows, or has yet to learn, what the memory does not tell."""
    deadline = time.monotonic() + EMPTY_SECONDS
    while facts := topology.depth(connection, topology.LEDGER):
        if not memory and facts.consumers:
            raise NotNow('a recorder takes parked messages into a ledger that is not kept here, so it cannot be known '
                         'which orders are parked: run resubmit where DATABASES names that ledger')
        if not memory or not facts.messages:
            return
        if not facts.consumers:
            raise NotNow(f'nobody records what workers told the ledger (facts: {facts.messages}), so it does not know '
                         'how orders stand: start a recorder (ecommerce-worker recorder)')
        if time.monotonic() > deadline:
            raise NotNow(f'the ledger is behind (facts: {facts.messages}): wait until the recorder is done with them')
        time.sleep(0.2)


def remembered(memory: Memory, wanted: Wanted, orders: Collection[Found]) -> dict[Key, str]:
    """Where the memory knows these orders to be, in so many words."""
    numbers = sorted({order.number for order in orders})
    known = [each for first in range(0, len(numbers), BATCH) for each in memory(numbers[first:first + BATCH])]
    discarded = {} if wanted.numbers else {
        (root_of(each.site), each.number): f'{each.where}; `--order {each.number}` publishes it all the same'
        for each in known if each.discarded}
    return discarded | {(root_of(each.site), each.number): each.where for each in known if not each.discarded}


def _lying(app: Celery, connection: Connection, names: Iterable[str], tell: Tell) -> dict[Key, str]:
    """Where the orders are that lie in RabbitMQ, in so many words: parked, and in these queues."""
    here: dict[Key, str] = {}
    looked_at = 0
    if topology.depth(connection, topology.PARKED):
        with looked_through(connection) as messages:
            for message in messages:
                if key := _order_in(app, message.raw):
                    here[key] = f'it is parked here ({message.reason}); see `parked resend`'
    for depth in queues.depths(connection, names):
        if not depth.messages:
            continue
        waits = depth.name.startswith(f'{topology.PREFIX}_')
        with lent(connection, depth.name) as messages:
            for raw in messages:
                looked_at += 1
                if looked_at % 1000 == 0:
                    tell(f'{looked_at} messages looked at')
                if key := _order_in(app, raw):
                    here[key] = 'it waits here for its next try' if waits else f'it is queued here ({depth.name})'
    return here


@contextmanager
def lent(connection: Connection, name: str) -> Iterator[Iterator[Raw]]:
    """The messages that are in a queue now; all go back to their places at the end, or if this process ends.

    They are consumed and the channel is closed: measured on RabbitMQ 3.10, a quorum queue then has them back in front
    and in their order, on which the time of those behind them depends.  Those that are rejected one by one go to its
    end, and those that were got one by one come back in any order.
    """
    channel, taken = connection.channel(), list[int]()
    try:
        yield _consumed(connection, channel, name, taken)
    finally:
        channel.close()
        _await_return(connection, name, len(taken))


def _await_return(connection: Connection, name: str, taken: int) -> None:
    """Return when so many messages are back, or soon: the time of some may have come."""
    deadline = time.monotonic() + SILENCE_SECONDS
    while (found := topology.depth(connection, name)) and found.messages < taken and time.monotonic() < deadline:
        time.sleep(0.01)


def _consumed(connection: Connection, channel: Any, name: str, taken: list[int]) -> Iterator[Raw]:
    def ready() -> int:
        return int(channel.queue_declare(queue=name, passive=True).message_count)

    def on_message(message: Any) -> None:
        taken.append(message.delivery_tag)
        come.append(message)

    missing, come = ready(), deque[Any]()
    if not missing:
        return
    consumer = Consumer(channel, [Queue(name)], on_message=on_message, auto_declare=False)
    consumer.qos(prefetch_count=missing if missing < 2 ** 16 else 0)
    consumer.consume()
    silences = 0
    while missing > 0:
        try:
            connection.drain_events(timeout=SILENCE_SECONDS)
        except TimeoutError:
            silences += 1
            # The time of some came first; twice, since what was handed out may be on its way.
            if silences > 1 and not ready():
                return
            if silences > MOST_SILENCES:
                raise NotNow(f'the broker does not hand out the messages of {name}: look at it') from None
            continue
        silences = 0
        while come:
            missing -= 1
            yield Raw.of(come.popleft())


def _order_in(app: Celery, raw: Raw) -> Key | None:
    """The order that a message is about, if it asks for a fulfilment."""
    try:
        call = read(raw)
    except Undecodable:
        return None
    return (root_of(site_code(call)), key_of(app, call)) if call.task == FULFILL else None


# -- what the workers have in hand ------------------------------------------------------------------------------------

@inspect_command(name=IN_HAND)
def orders_in_hand(panel: Any) -> list[tuple[str, str]]:
    """Tell which orders this worker has in hand: site and order number of each."""
    # A list of references first, which takes no turn of another thread.
    requests = [reference() for reference in list(state.reserved_requests.data)]
    deliveries = [request.message.headers.get(DELIVERY) for request in requests if request is not None]
    return [(site_code(delivery.call), key_of(panel.app, delivery.call)) for delivery in deliveries
            if isinstance(delivery, Delivery) and delivery.call.task == FULFILL]


def in_hand(app: Celery, connection: Connection, names: Iterable[str], workers: set[str]) -> dict[Key, str]:
    """The orders that workers have in hand; ``workers`` are those known, and grows.  Raises :class:`NotNow`."""
    consumers = max((depth.consumers or 0 for depth in queues.depths(connection, names)), default=0)
    for _ in range(ANSWER_TRIES):
        if workers and len(workers) >= consumers:
            break
        answers = app.control.broadcast('registered', reply=True, timeout=ANSWER_SECONDS,
                                        connection=connection)
        workers.update(name for answer in answers for name, tasks in answer.items() if isinstance(tasks, list)
                       and any(str(task).partition(' ')[0] == FULFILL for task in tasks))
        if not consumers:
            break
    told: dict[str, Any] = {}
    for _ in range(ANSWER_TRIES):
        if silent := sorted(workers - set(told)):
            for answer in app.control.broadcast(IN_HAND, destination=silent, reply=True, timeout=ANSWER_SECONDS,
                                                limit=len(silent), connection=connection):
                told.update(answer)
    tellers = [orders for orders in told.values() if isinstance(orders, list)]
    if len(tellers) < max(consumers, len(workers)):
        raise NotNow(f'of {max(consumers, len(workers))} workers only {len(tellers)} told what they have in hand: try '
                     'again in a minute; workers of an older version, or of the pool solo while they run, do not tell')
    return {(root_of(code), number): 'a worker has it in hand' for orders in tellers for code, number in orders}


# -- publishing -------------------------------------------------------------------------------------------------------

def _handled(app: Celery, settings: Settings, wanted: Wanted, order: Found, report: Report) -> Row:
    """What becomes of an order of which nothing is here."""
    if wanted.limit is not None and report.published >= wanted.limit:
        return Row(order, f'left: beyond --limit {wanted.limit}')
    try:
        # It may have been fulfilled since the shop listed it: then its message was here, and is gone.
        status = _patiently(partial(_shop(order.site).status, order.number))
    except ApiError as error:
        report.troubles.append(f'{order.number}: {_advised(error)}')
        return Row(order, f'left: {error}')
    if status not in FULFILLABLE:
        return Row(order, f'left: it is {status} by now')
    if wanted.dry_run:
        return Row(order, 'would be published', published=True)
    try:
        _publish(app, settings, order, wanted.delay)
    except NotPublished as error:
        report.troubles.append(f'{order.number}: {error}')
        return Row(order, f'left: {error}')
    return Row(order, f'published, runs in {max(1, math.ceil(wanted.delay))} s', published=True)


def _publish(app: Celery, settings: Settings, order: Found, delay: float) -> None:
    """Publish the order as the shop would have, but for the learner's wish for mail, which the shop does not tell.

    Raises :class:`~ecommerce_worker.errors.NotPublished`.
    """
    queue = next((name for name in ORDER_QUEUES if name in settings.QUEUES), settings.QUEUES[0])
    kwargs = {'site_code': order.site or None, 'email_opt_in': False}
    call = Call(FULFILL, str(uuid.uuid4()), (order.number,), kwargs, origin='resubmit')
    reason = f'resubmitted: the shop had it as {order.status}, and nothing of it was here'
    notes = Notes(queue=queue, resent=True).having({'at': time.time(), 'reason': reason})
    topology.wait(app, call, notes, delay)


# -- the broker -------------------------------------------------------------------------------------------------------

def _refuse_without_waiting_room(connection: Connection) -> None:
    if not topology.has_waiting_room(connection):
        raise preflight.BrokerUnusable('only RabbitMQ can tell what is here already: BROKER_URL names another kind of '
                                       'broker', preflight.EX_CONFIG)


@contextmanager
def _connected(app: Celery, settings: Settings) -> Iterator[Connection]:
    """A connection that bears with silence; raises :class:`~ecommerce_worker.worker.preflight.BrokerUnusable`."""
    with preflight.connect(app, settings) as found:
        _refuse_without_waiting_room(found)
        patient = found.clone(heartbeat=HEARTBEAT)
    with patient as connection:
        try:
            with preflight.permitted():
                yield connection
        except (OSError, *connection.connection_errors, *connection.channel_errors) as error:
            raise preflight.BrokerUnusable(
                f'the broker broke off ({type(error).__name__}): run it again when it is back') from None


@contextmanager
def _alone(connection: Connection) -> Iterator[Callable[[], None]]:
    """Nobody else resubmits in between; what is given makes sure that this is still so.  Raises :class:`NotNow`."""
    channel = connection.channel()
    try:
        Queue(LOCK, durable=False, exclusive=True).bind(channel).declare()
    except ResourceLocked:
        raise NotNow('somebody else is resubmitting at this moment: wait until that has ended') from None
    # A question now and then also keeps the connection from being taken for dead.
    yield lambda: channel.queue_declare(queue=LOCK, passive=True) and None


_UNITS: Final[Mapping[str, int]] = {'s': 1, 'm': 60, 'h': 3600, 'd': 86_400}


def seconds(given: str) -> float:
    """The seconds of ``90s``, ``15m``, ``1.5h`` or ``2d``; of a mere number too.  Raises ValueError."""
    found = re.fullmatch(r'(\d{1,9}(?:\.\d{1,9})?)([smhd]?)', given.strip())
    if not found:
        raise ValueError('a number and one of s, m, h, d, such as 15m or 2d')
    return float(found[1]) * _UNITS[found[2] or 's']


def duration(given: float) -> str:
    """So many seconds as :func:`seconds` reads them: ``15m``."""
    unit = next((unit for unit in 'dhm' if given and given % _UNITS[unit] == 0), 's')
    return f'{given / _UNITS[unit]:g}{unit}'
