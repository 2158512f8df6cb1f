"""The Admin API of a Shopify shop, as far as missed orders, refunds and reports of fulfilment need it.

It is GraphQL, whose orders have another form than those of webhooks; they are converted here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from ecommerce_worker.clients.http import Api
from ecommerce_worker.clients.shops import MOST_PAGES, Webhook, is_between
from ecommerce_worker.errors import NotFound, PeerFailure, Rejected, Throttled, Transient
from ecommerce_worker.words import printable

#: The version of the API; one that has expired is answered by the oldest that has not.
VERSION: Final = '2026-07'

#: The fields of an order; each is a separate query.
STATUSES: Final = ('paid', 'partially_refunded', 'refunded')

#: Orders and lines of each that are asked for at once: a question may cost 1000 points, whatever is found.
ORDERS, LINES = 10, 50

#: Lines of one order, its fulfilment orders, and the lines of each of those, that are asked for at once.
LINES_OF_ONE, FULFILLMENTS, LINES_OF_FULFILLMENT = 250, 5, 50

#: The states in which a fulfilment order may be fulfilled, and those that pass.
_OPEN: Final = ('OPEN', 'IN_PROGRESS')
_LATER: Final = ('ON_HOLD', 'SCHEDULED')

_OTHER: Final = 'answered with unexpected JSON'

_LINE: Final = """pageInfo { hasNextPage endCursor } nodes {
        id sku quantity currentQuantity variant { id } customAttributes { key value } }"""

_ORDER: Final = """id name email displayFinancialStatus cancelledAt test updatedAt
      customAttributes { key value }"""

_QUERY: Final = f"""query ($search: String!, $after: String) {{
  orders(first: {ORDERS}, after: $after, query: $search, sortKey: UPDATED_AT) {{
    pageInfo {{ hasNextPage endCursor }}
    nodes {{ {_ORDER}
      lineItems(first: {LINES}) {{ {_LINE} }} }} }} }}"""

_QUERY_ONE: Final = f"""query ($id: ID!, $after: String) {{
  order(id: $id) {{ {_ORDER}
      lineItems(first: {LINES_OF_ONE}, after: $after) {{ {_LINE} }} }} }}"""

_QUERY_FULFILLMENTS: Final = f"""query ($id: ID!, $after: String) {{
  order(id: $id) {{
    fulfillmentOrders(first: {FULFILLMENTS}, after: $after) {{
      pageInfo {{ hasNextPage endCursor }}
      nodes {{ id status lineItems(first: {LINES_OF_FULFILLMENT}) {{ pageInfo {{ hasNextPage }}
        nodes {{ id remainingQuantity lineItem {{ id }} }} }} }} }} }} }}"""

_FULFILL: Final = """mutation ($fulfillment: FulfillmentInput!) {
  fulfillmentCreate(fulfillment: $fulfillment) { fulfillment { id status } userErrors { field message } } }"""


@dataclass(frozen=True)
class FulfillmentOrder:
    """The fulfilment order of a location: its state, and the remaining quantities by line.

    ``left`` has the lines of the fulfilment order by their own ids, each with the number of the order's line and how
    many are left.
    """

    id: str
    status: str
    left: Mapping[str, tuple[str, int]]


class Shopify:
    """One shop; raises :class:`~ecommerce_worker.errors.ApiError`."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def orders(self, since: float, until: float) -> Iterator[Mapping[str, Any]]:
        """The paid and refunded orders changed in between (epoch seconds), in the form of webhooks.

        The search is loose, so that what it finds is looked at again.
        """
        begin = datetime.fromtimestamp(since, UTC).strftime('%Y-%m-%dT%H:%M:%SZ')
        for status in STATUSES:
            after: str | None = None
            for _ in range(MOST_PAGES):
                found = self._asked(_QUERY, 'orders', search=f"financial_status:{status} updated_at:>='{begin}'",
                                    after=after)
                for it in _nodes(found, self._api.peer):
                    if (str(it.get('displayFinancialStatus')).lower() == status
                            and is_between(since, it.get('updatedAt'), until)):
                        yield self._whole(it)
                after = _following(found)
                if after is None:
                    break
            else:
                raise PeerFailure(f'{self._api.peer} returned too many pages', status=200)

    def order(self, number: str) -> Mapping[str, Any] | None:
        """The order with this ``id`` in the form of webhooks; None if the shop does not return it."""
        found = self._one(number)
        return None if found is None else self._whole(found)

    def fulfillment_orders(self, number: str) -> list[FulfillmentOrder]:
        """The fulfilment orders of an order; raises :class:`~ecommerce_worker.errors.NotFound`."""
        found, after = [], None
        for _ in range(MOST_PAGES):
            order = self._asked(_QUERY_FULFILLMENTS, 'order', id=_gid(number), after=after)
            if order is None:
                raise NotFound(f'{self._api.peer} does not return this order', status=200)
            page = order.get('fulfillmentOrders')
            found += [self._fulfillment_order(it) for it in _nodes(page, self._api.peer)]
            after = _following(page)
            if after is None:
                return found
        raise PeerFailure(f'{self._api.peer} returned too many pages', status=200)

    def unfulfilled(self, number: str, lines: Collection[str]) -> list[FulfillmentOrder]:
        """What is left to fulfil of these lines of an order; raises ``Transient`` while the shop has it on hold."""
        ours = [FulfillmentOrder(it.id, it.status, left) for it in self.fulfillment_orders(number)
                if (left := {id_: (line, count) for id_, (line, count) in it.left.items() if count and line in lines})]
        if [it for it in ours if it.status in _LATER]:
            raise Transient(f'{self._api.peer} has put the fulfilment of this order on hold')
        return [it for it in ours if it.status in _OPEN]

    def fulfill(self, order: FulfillmentOrder) -> None:
        """Mark everything left in it as fulfilled, without notifying the buyer."""
        answer = self._asked(_FULFILL, 'fulfillmentCreate', fulfillment={
            'notifyCustomer': False, 'lineItemsByFulfillmentOrder': [{
                'fulfillmentOrderId': order.id,
                'fulfillmentOrderLineItems': [{'id': id_, 'quantity': count}
                                              for id_, (_, count) in order.left.items()]}]})
        errors = answer.get('userErrors') if isinstance(answer, dict) else None
        if not isinstance(errors, list):
            raise PeerFailure(f'{self._api.peer} answered with JSON that is not a fulfilment', status=200,
                              maybe_done=True)
        if errors:
            said = '; '.join(str(it.get('message')) for it in errors if isinstance(it, dict))
            raise Rejected(f'{self._api.peer} refuses the fulfilment: {printable(said)[:200]}', status=200)

    def webhooks(self) -> None:
        """Always unknown: the API does not list webhooks created in the shop's admin."""

    def switch_on(self, webhook: Webhook) -> None:
        """Webhooks that Shopify gave up are deleted, and must be created again."""
        raise NotImplementedError(webhook)

    def _one(self, number: str, after: str | None = None) -> Any:
        return self._asked(_QUERY_ONE, 'order', id=_gid(number), after=after)

    def _asked(self, query: str, what: str, **variables: Any) -> Any:
        """The member of that name in the answer."""
        answer = self._api.request('POST', f'admin/api/{VERSION}/graphql.json',
                                   json={'query': query, 'variables': variables})
        if isinstance(answer, dict) and (errors := answer.get('errors')):
            raise self._error(errors, answer.get('extensions'))
        try:
            found = answer['data'][what]
            if not (found is None or isinstance(found, dict)):
                raise TypeError
        except (LookupError, TypeError):
            raise PeerFailure(f'{self._api.peer} {_OTHER}', status=200) from None
        return found

    def _error(self, errors: Any, extensions: Any) -> Exception:
        """The error for errors within a 200."""
        codes = [str(it['extensions'].get('code')) for it in (errors if isinstance(errors, list) else ())
                 if isinstance(it, dict) and isinstance(it.get('extensions'), dict)]
        if 'THROTTLED' in codes:
            return Throttled(f'{self._api.peer} asks us to slow down', status=200, retry_after=_wait(extensions))
        if 'INTERNAL_SERVER_ERROR' in codes:
            return PeerFailure(f'{self._api.peer} failed', status=200, maybe_done=True)
        return Rejected(f'{self._api.peer} refuses it ({printable(", ".join(codes)[:100]) or "without a code"}): does '
                        'its app have the scopes that it needs?', status=200)

    def _whole(self, found: Mapping[str, Any]) -> Mapping[str, Any]:
        """An order in the form of webhooks, with all of its lines, however many there are."""
        lines, page = [], found.get('lineItems')
        for _ in range(MOST_PAGES):
            lines += [self._line(it) for it in _nodes(page, self._api.peer)]
            after = _following(page)
            if after is None:
                break
            rest = self._one(_number(found.get('id')), after)
            page = rest.get('lineItems') if rest else None
        else:
            raise PeerFailure(f'{self._api.peer} returned too many pages', status=200)
        return {'id': _number(found.get('id')), 'name': found.get('name'), 'email': found.get('email'),
                'financial_status': str(found.get('displayFinancialStatus')).lower(),
                'cancelled_at': found.get('cancelledAt'), 'test': found.get('test'),
                'note_attributes': _fields(found.get('customAttributes')), 'line_items': lines}

    def _line(self, found: Mapping[str, Any]) -> dict[str, Any]:
        variant = found.get('variant')
        return {'id': _number(found.get('id')), 'sku': found.get('sku'), 'quantity': found.get('quantity'),
                'current_quantity': found.get('currentQuantity'),
                'variant_id': _number(variant.get('id') if isinstance(variant, dict) else None),
                'properties': _fields(found.get('customAttributes'))}

    def _fulfillment_order(self, found: Mapping[str, Any]) -> FulfillmentOrder:
        page = found.get('lineItems')
        left: dict[str, tuple[str, int]] = {}
        for it in _nodes(page, self._api.peer):
            line, count = it.get('lineItem'), it.get('remainingQuantity')
            if not isinstance(line, dict) or isinstance(count, bool) or not isinstance(count, int):
                raise PeerFailure(f'{self._api.peer} answered with JSON that is not a fulfilment order', status=200)
            left[str(it.get('id'))] = _number(line.get('id')), count
        if _has_more(page):
            raise Rejected(f'a fulfilment order of {self._api.peer} has more than {LINES_OF_FULFILLMENT} lines: '
                           'fulfil it there', status=200)
        return FulfillmentOrder(str(found.get('id')), str(found.get('status')), left)


def _nodes(page: Any, peer: str) -> list[Mapping[str, Any]]:
    """The nodes of a page; raises ``PeerFailure`` for anything else."""
    nodes = page.get('nodes') if isinstance(page, dict) and isinstance(page.get('pageInfo'), dict) else None
    if not isinstance(nodes, list) or not all(isinstance(it, dict) for it in nodes):
        raise PeerFailure(f'{peer} {_OTHER}', status=200)
    return nodes


def _has_more(page: Any) -> bool:
    return page['pageInfo'].get('hasNextPage') is True


def _following(page: Any) -> str | None:
    """Where the next page begins; None if this is the last one."""
    return str(page['pageInfo'].get('endCursor')) if _has_more(page) else None


def _gid(number: str) -> str:
    return f'gid://shopify/Order/{number}'


def _number(id_: Any) -> str:
    """The number in ``gid://shopify/Order/1``, by which webhooks call it."""
    return str(id_ or '').rpartition('/')[2]


def _fields(found: Any) -> list[dict[str, Any]]:
    return [{'name': it.get('key'), 'value': it.get('value')} for it in (found if isinstance(found, list) else ())
            if isinstance(it, dict)]


def _wait(extensions: Any) -> float | None:
    """The seconds until there are points enough; None if it does not tell."""
    try:
        cost = extensions['cost']
        status = cost['throttleStatus']
        return max(1.0, float((cost['requestedQueryCost'] - status['currentlyAvailable']) / status['restoreRate']))
    except (LookupError, TypeError, ZeroDivisionError):
        return None
