"""The shop's REST API, as far as the tasks need it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, NoReturn
from urllib.parse import parse_qsl, quote, urlsplit

from ecommerce_worker.clients.http import Api
from ecommerce_worker.errors import PeerFailure, Rejected, Skip, WrongArguments
from ecommerce_worker.settings.kinds import COURSE_ID
from ecommerce_worker.words import printable

#: The status of an order to which nothing remains to be done.
COMPLETE: Final = 'Complete'

#: The statuses in which the shop lets an order be fulfilled.  It is paid for by then: the shop places an order only
#: once its payment went through.
FULFILLABLE: Final = ('Open', 'Fulfillment Error')

#: What the shop's URL patterns admit as an order number; its database column holds 128 characters.
ORDER_NUMBER = re.compile(r'[-\w]{1,128}')


@dataclass(frozen=True)
class Order:
    """An order as the shop lists it; ``placed`` is in UTC."""

    number: str
    status: str
    placed: datetime


@dataclass(frozen=True)
class Page:
    """Some of the shop's orders; ``following`` asks for the next ones, None after the last."""

    orders: tuple[Order, ...]
    count: int
    following: Mapping[str, str] | None = None


class Ecommerce:
    """The orders of one shop."""

    def __init__(self, api: Api, *, fulfillment_read_timeout: float = 30.0) -> None:
        self._api = api
        self._fulfillment_read_timeout = fulfillment_read_timeout

    def status(self, number: str) -> str:
        """The order's status, such as ``Open`` or ``Complete``; raises :class:`~ecommerce_worker.errors.ApiError`."""
        return self._status_in(self._api.request('GET', f'orders/{_in_path(number)}/'), number)

    def orders(self, following: Mapping[str, str] | None = None) -> Page:
        """A page of the orders that we may see: all of this site if our user is staff, otherwise none.

        The newest come first, as Oscar has it, with 20 to a page.  Raises :class:`~ecommerce_worker.errors.ApiError`.
        """
        # Each order on a page costs the shop a handful of queries.
        answer = self._api.request('GET', 'orders/', params=following, read_timeout=self._fulfillment_read_timeout)
        try:
            # The next page is asked for where this one was: its address may name a host that only the shop knows.
            query = dict(parse_qsl(urlsplit(answer['next'] or '').query))
            return Page(tuple(_order(found) for found in answer['results']), int(answer['count']), query or None)
        except (LookupError, TypeError, ValueError, AttributeError):
            raise PeerFailure(f'{self._api.peer} answered with JSON that is not a list of orders', status=200) from None

    def fulfill(self, number: str, *, email_opt_in: bool) -> None:
        """Fulfil the order; raises :class:`~ecommerce_worker.errors.Skip` if there is nothing to fulfil.

        Only the shop's own word counts: an answer with this order in it, and its status.  Anything else, whatever the
        HTTP status, is a :class:`~ecommerce_worker.errors.PeerFailure`.
        The shop calls the LMS up to 7 seconds for each line of the order before it answers, so this call waits
        longer than others.
        """
        try:
            answer = self._api.request(
                'PUT', f'orders/{_in_path(number)}/fulfill/',
                params={'email_opt_in': str(bool(email_opt_in))},  # the shop compares with the exact text 'True'
                read_timeout=self._fulfillment_read_timeout)
        except Rejected as error:
            if error.status == 406:
                self._settled(number)
            raise
        if (status := self._status_in(answer, number)) != COMPLETE:
            raise PeerFailure(f'{self._api.peer} answered 200, but has the order as {status}', status=200,
                              maybe_done=True)

    def _settled(self, number: str) -> NoReturn:
        """Find out what a 406 to a fulfilment means: a proxy may answer one, too, so the shop is asked."""
        try:
            status = self.status(number)
        except Rejected as error:
            raise PeerFailure(f'{self._api.peer} answered 406, and the status of the order is unknown: {error}',
                              status=406, retry_after=error.retry_after, maybe_done=True) from None
        if status in FULFILLABLE:
            raise PeerFailure(f'{self._api.peer} answered 406, but has the order as {status}; is a firewall or a proxy '
                              'in between?', status=406, maybe_done=True)
        raise Skip('the shop has nothing left to fulfil in it (406)'
                   + ('' if status == COMPLETE else f': it is {status}'))

    def report_assignment_email(self, offer_assignment_id: int | str, send_id: str) -> None:
        """Report to the shop that the mail of an assignment was accepted; ``send_id`` is the vendor's id of it.

        The shop answers 500 if it already has a report with that id.
        """
        answer = self._api.request('POST', 'assignment-email/status/', json={
            'offer_assignment_id': offer_assignment_id, 'send_id': send_id, 'status': 'success'})
        if not isinstance(answer, dict) or answer.get('status') != 'updated':
            raise PeerFailure(f'{self._api.peer} did not confirm that it recorded the mail', status=200,
                              maybe_done=True)

    def course(self, course_id: str) -> dict[str, Any]:
        """The course in the shop: ``name``, ``verification_deadline`` and more.

        Raises :class:`~ecommerce_worker.errors.ApiError`, or WrongArguments for an invalid course id.
        """
        if not COURSE_ID.fullmatch(course_id):
            raise WrongArguments('not a valid course id')
        # Slashes of the older form stay: servers in front of a shop refuse them encoded.
        found = self._api.request('GET', f'courses/{quote(course_id, safe=":+/")}/')
        if not isinstance(found, dict):
            raise PeerFailure(f'{self._api.peer} answered with JSON that is not a course', status=200)
        return found

    def _status_in(self, answer: Any, number: str) -> str:
        """The status in the shop's JSON of this order; anything else is not the shop's own answer."""
        if not isinstance(answer, dict) or answer.get('number') != number:
            raise PeerFailure(f'{self._api.peer} answered with JSON that is not this order', status=200,
                              maybe_done=True)
        status = answer.get('status')
        if not isinstance(status, str) or not status:
            raise PeerFailure(f'{self._api.peer} answered with an order without a status', status=200, maybe_done=True)
        return printable(status[:50])


def _order(found: Any) -> Order:
    number, status, placed = found['number'], found['status'], datetime.fromisoformat(found['date_placed'])
    if not (isinstance(number, str) and ORDER_NUMBER.fullmatch(number) and isinstance(status, str)):
        raise ValueError('this is not an order')
    # A shop without time zones means UTC, Django's default.
    return Order(number, status, placed.astimezone(UTC) if placed.tzinfo else placed.replace(tzinfo=UTC))


def _in_path(number: str) -> str:
    if not isinstance(number, str) or not ORDER_NUMBER.fullmatch(number):
        raise WrongArguments('not a valid order number: letters, digits, "-" and "_" only')
    return quote(number, safe='')
