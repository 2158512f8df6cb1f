"""The Admin API of a Shopify shop, as far as missed orders need it.

It is GraphQL, which tells orders in another form than webhooks do; they are put into that of webhooks here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from ecommerce_worker.clients.http import Api
from ecommerce_worker.clients.shops import MOST_PAGES, Webhook
from ecommerce_worker.errors import PeerFailure, Rejected, Throttled
from ecommerce_worker.words import printable

#: The version of the API; one that has expired is answered by the oldest that has not.
VERSION: Final = '2026-07'

#: What is told of an order that is acted on; each is a question of its own.
STATUSES: Final = ('paid', 'partially_refunded', 'refunded')

#: Orders and lines of each that are asked for at once: a question may cost 1000 points, whatever is found.
ORDERS, LINES = 10, 50

_QUERY: Final = f"""query ($search: String!, $after: String) {{
  orders(first: {ORDERS}, after: $after, query: $search, sortKey: UPDATED_AT) {{
    pageInfo {{ hasNextPage endCursor }}
    nodes {{ id name email displayFinancialStatus cancelledAt test updatedAt customAttributes {{ key value }}
      lineItems(first: {LINES}) {{ pageInfo {{ hasNextPage }} nodes {{
        id sku quantity currentQuantity variant {{ id }} customAttributes {{ key value }} }} }} }} }} }}"""


class Shopify:
    """One shop; raises :class:`~ecommerce_worker.errors.ApiError`."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def orders(self, since: float, until: float) -> Iterator[Mapping[str, Any]]:
        """The paid and the refunded orders that were changed in between (epoch seconds), as webhooks tell them.

        The search is loose, so that what it finds is looked at again.
        """
        begin = datetime.fromtimestamp(since, UTC).strftime('%Y-%m-%dT%H:%M:%SZ')
        for status in STATUSES:
            after: str | None = None
            for _ in range(MOST_PAGES):
                found = self._asked({'search': f"financial_status:{status} updated_at:>='{begin}'", 'after': after})
                for it in found['nodes']:
                    if (str(it.get('displayFinancialStatus')).lower() == status
                            and since <= _time_of(it.get('updatedAt')) <= until):
                        yield self._as_delivered(it)
                if found['pageInfo'].get('hasNextPage') is not True:
                    break
                after = str(found['pageInfo'].get('endCursor'))
            else:
                raise PeerFailure(f'{self._api.peer} has no end of pages', status=200)

    def webhooks(self) -> None:
        """Nobody knows: the API tells of none that were made in the shop's admin."""

    def switch_on(self, webhook: Webhook) -> None:
        """What Shopify has given up is gone, and must be made anew."""
        raise NotImplementedError(webhook)

    def _asked(self, variables: Mapping[str, Any]) -> Any:
        answer = self._api.request('POST', f'admin/api/{VERSION}/graphql.json',
                                   json={'query': _QUERY, 'variables': variables})
        if isinstance(answer, dict) and (errors := answer.get('errors')):
            raise self._error(errors, answer.get('extensions'))
        try:
            found = answer['data']['orders']
            if not (all(isinstance(it, dict) for it in found['nodes']) and isinstance(found['pageInfo'], dict)):
                raise TypeError
        except (LookupError, TypeError):
            raise PeerFailure(f'{self._api.peer} answered with JSON that is no list of orders', status=200) from None
        return found

    def _error(self, errors: Any, extensions: Any) -> Exception:
        """What errors inside of a 200 stand for."""
        codes = [str(it['extensions'].get('code')) for it in (errors if isinstance(errors, list) else ())
                 if isinstance(it, dict) and isinstance(it.get('extensions'), dict)]
        if 'THROTTLED' in codes:
            return Throttled(f'{self._api.peer} asks us to slow down', status=200, retry_after=_wait(extensions))
        if 'INTERNAL_SERVER_ERROR' in codes:
            return PeerFailure(f'{self._api.peer} failed', status=200)
        return Rejected(f'{self._api.peer} refuses it ({printable(", ".join(codes)[:100]) or "without a code"}): does '
                        'its app have read_orders?', status=200)

    def _as_delivered(self, found: Mapping[str, Any]) -> Mapping[str, Any]:
        lines = found.get('lineItems')
        try:
            more, nodes = lines['pageInfo'].get('hasNextPage'), lines['nodes']  # type: ignore[index]
            told = None if more else [{
                'id': _number(it.get('id')), 'sku': it.get('sku'), 'quantity': it.get('quantity'),
                'current_quantity': it.get('currentQuantity'),
                'variant_id': _number((it.get('variant') or {}).get('id')),
                'properties': _fields(it.get('customAttributes'))} for it in nodes]
        except (LookupError, TypeError, AttributeError):
            raise PeerFailure(f'{self._api.peer} answered with JSON that is no order', status=200) from None
        return {'id': _number(found.get('id')), 'name': found.get('name'), 'email': found.get('email'),
                'financial_status': str(found.get('displayFinancialStatus')).lower(),
                'cancelled_at': found.get('cancelledAt'), 'test': found.get('test'),
                'note_attributes': _fields(found.get('customAttributes')), 'line_items': told}


def _number(id_: Any) -> str:
    """The number in ``gid://shopify/Order/1``, by which webhooks call it."""
    return str(id_ or '').rpartition('/')[2]


def _fields(found: Any) -> list[dict[str, Any]]:
    return [{'name': it.get('key'), 'value': it.get('value')} for it in (found if isinstance(found, list) else ())
            if isinstance(it, dict)]


def _time_of(text: Any) -> float:
    """Epoch seconds; those of now for what is no time, so that it is seen."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except (TypeError, ValueError):
        return datetime.now(UTC).timestamp()


def _wait(extensions: Any) -> float | None:
    """The seconds until there are points enough; None if it does not tell."""
    try:
        cost = extensions['cost']
        status = cost['throttleStatus']
        return max(1.0, float((cost['requestedQueryCost'] - status['currentlyAvailable']) / status['restoreRate']))
    except (LookupError, TypeError, ZeroDivisionError):
        return None
