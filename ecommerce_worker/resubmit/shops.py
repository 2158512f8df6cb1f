"""What the shops have as paid and unfulfilled."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Final, TypeVar

from ecommerce_worker import durations, runtime
from ecommerce_worker.clients.ecommerce import FULFILLABLE, Ecommerce, Order, Page
from ecommerce_worker.errors import ApiError, NotFound, PeerFailure
from ecommerce_worker.resubmit.names import Found, NoSuchSite, Tell, Wanted
from ecommerce_worker.resubmit.report import Report, Row
from ecommerce_worker.retry import Policy

if TYPE_CHECKING:
    from ecommerce_worker.settings import Settings

#: Pages of one shop that are read at most: 200,000 orders.
MOST_PAGES: Final = 10_000

#: With a shop that is busy or away for a moment.
PATIENCE: Final = Policy(refusals=0, give_up_after=30, shortest=1, longest=10)

Answer = TypeVar('Answer')


def sites_of(settings: Settings, codes: Iterable[str] = ()) -> dict[str, str]:
    """The codes of the sites to ask, each with the root of its API; no root twice, for that is one shop.

    Without codes: the site without one, if it is configured, and every site that has a root of its own.
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


def shop_of(code: str) -> Ecommerce:
    """The API of the shop of this site."""
    return runtime.site(code or None).ecommerce


def by_age(wanted: Wanted, sites: Mapping[str, str], report: Report, tell: Tell,
           still_alone: Callable[[], None]) -> Iterator[Found]:
    """The unfulfilled orders of these sites that were placed within the window."""
    for code, root in sites.items():
        looked_at, orders, now = 0, dict[str, Order](), time.time()
        try:
            for number, page in enumerate(pages(shop_of(code), since=now - wanted.since, tell=tell), 1):
                still_alone()
                looked_at += len(page.orders)
                orders.update((order.number, order) for order in unfulfilled(page, wanted, now))
                if number % 10 == 0:
                    tell(f'{_name(code)}: {looked_at} of {page.count} orders checked, {len(orders)} unfulfilled')
        except ApiError as error:
            report.blame(_name(code), error)
        else:
            if not looked_at:
                report.troubles.append(f'{_name(code)}: the shop lists no orders at all, as it does for a user who is '
                                       'not staff there')
        old = [order for order in orders.values() if not is_young(order, wanted, now)]
        young = len(orders) - len(old)
        tell(f'{_name(code)}: {looked_at} orders checked, {len(old)} unfulfilled'
             + (f'; {young} younger than {durations.text(wanted.grace)}, left to the shop' if young else ''))
        for order in old:
            yield Found(code, root, order.number, order.status, order.placed)


def by_number(wanted: Wanted, sites: Mapping[str, str], report: Report, tell: Tell) -> Iterator[Found]:
    """Those of the wanted numbers that some shop knows and lets be fulfilled."""
    for number in dict.fromkeys(wanted.numbers):
        troubles = list[tuple[str, ApiError]]()
        for code, root in sites.items():
            try:
                status = patiently(partial(shop_of(code).status, number), tell=tell)
            except NotFound:
                continue
            except ApiError as error:
                troubles.append((f'{number}: {_name(code)}', error))
                continue
            found = Found(code, root, number, status)
            if status in FULFILLABLE:
                yield found
            else:
                report.rows.append(Row(found, f'left: it is {status}'))
            break
        else:
            for place, trouble in troubles:
                report.blame(place, trouble)
            if not troubles:
                report.troubles.append(f'{number}: no shop knows it (404)')


def pages(shop: Ecommerce, *, since: float, patience: Policy = PATIENCE,
          tell: Tell = lambda line: None) -> Iterator[Page]:  # noqa: ARG005
    """The pages of a shop's orders, until one is all older than ``since`` (epoch seconds) if the newest come first.

    Raises :class:`~ecommerce_worker.errors.ApiError`.
    """
    following: Mapping[str, str] | None = None
    asked: set[frozenset[tuple[str, str]]] = set()
    first: Order | None = None
    while True:
        try:
            page = patiently(partial(shop.orders, following), patience, tell)
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
            raise PeerFailure('the list of orders does not end; the rest was not checked', status=200)
        asked.add(frozenset(following.items()))


def unfulfilled(page: Page, wanted: Wanted, now: float) -> Iterator[Order]:
    """The orders of a page that the shop lets be fulfilled, and that are not too old."""
    for order in page.orders:
        if order.status in FULFILLABLE and now - order.placed.timestamp() <= wanted.since:
            yield order


def is_young(order: Order, wanted: Wanted, now: float) -> bool:
    """Whether the shop may be about to publish it."""
    return now - order.placed.timestamp() < wanted.grace


def patiently(ask: Callable[[], Answer], patience: Policy = PATIENCE,
              tell: Tell = lambda line: None) -> Answer:  # noqa: ARG005
    """The result of ``ask``; it is repeated while the shop does not answer, with a line to ``tell``."""
    began = time.monotonic()
    for attempt in count(1):
        try:
            return ask()
        except ApiError as error:
            age = time.monotonic() - began
            delay = patience.next_delay(error, attempt, age)
            if delay is None or age + delay > patience.give_up_after:
                raise
            if attempt == 1:
                tell(f'waiting up to {patience.give_up_after - age:.0f} s: {error}')
        time.sleep(delay)
    raise AssertionError('not reached')


def _name(code: str) -> str:
    return f'site {code}' if code else 'the shop'
