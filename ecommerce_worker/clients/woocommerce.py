"""The REST API of a WooCommerce shop, version 3, as far as missed orders, refunds and reports of fulfilment need it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

from ecommerce_worker.clients.http import Api
from ecommerce_worker.clients.shops import MOST_PAGES, Webhook, is_between
from ecommerce_worker.errors import NotFound, PeerFailure

_API: Final = 'wp-json/wc/v3'


class WooCommerce:
    """One shop; raises :class:`~ecommerce_worker.errors.ApiError`."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def orders(self, since: float, until: float) -> Iterator[Mapping[str, Any]]:
        """The paid or refunded orders changed in between, in the form of webhooks.

        Old shops know nothing of the window and tell all that they have, and a page of fewer orders is not the last
        one: those that our user may not see are left out of it.
        """
        after = datetime.fromtimestamp(since, UTC).strftime('%Y-%m-%dT%H:%M:%S')
        for page in range(1, MOST_PAGES):
            found = self._list('orders', {
                'status': 'processing,completed,refunded', 'modified_after': after, 'dates_are_gmt': 'true',
                'orderby': 'id', 'order': 'asc', 'per_page': '100', 'page': str(page)})
            if not found:
                return
            yield from (it for it in found if is_between(since, it.get('date_modified_gmt'), until))
        raise PeerFailure(f'{self._api.peer} returned too many pages', status=200)

    def order(self, number: str) -> Mapping[str, Any] | None:
        """The order with this ``id`` in the form of webhooks; None if the shop does not return it."""
        try:
            found = self._api.request('GET', _order(number))
        except NotFound:
            return None
        return self._checked(found, number)

    def complete(self, number: str) -> None:
        """Mark the order as completed; the shop notifies the buyer.

        Nothing else is sent: items or addresses would recalculate the totals.  Only what is *processing* is to be
        completed; a refunded order would come to life again.
        """
        found = self._checked(self._api.request('PUT', _order(number), json={'status': 'completed'}), number)
        if found.get('status') != 'completed':
            raise PeerFailure(f'{self._api.peer} did not complete the order', status=200)

    def notes(self, number: str) -> list[str]:
        """The texts of the order's notes that the buyer does not see."""
        found = self._list(f'orders/{quote(number, safe="")}/notes', {'type': 'internal'})
        return [str(it.get('note')) for it in found]

    def add_note(self, number: str, text: str) -> None:
        """Add a note that the buyer does not see."""
        found = self._api.request('POST', f'{_order(number)}/notes', json={'note': text})
        if not isinstance(found, dict) or 'id' not in found:
            raise PeerFailure(f'{self._api.peer} answered with JSON that is not a note', status=200, maybe_done=True)

    def webhooks(self) -> list[Webhook]:
        """All of its webhooks."""
        return [Webhook(str(it.get('id')), str(it.get('delivery_url')), it.get('status') == 'active')
                for it in self._list('webhooks', {'status': 'all', 'per_page': '100'})]

    def switch_on(self, webhook: Webhook) -> None:
        """Enable it again; its count of failures stays, so the next one disables it again."""
        found = self._api.request('PUT', f'{_API}/webhooks/{quote(webhook.id, safe="")}', json={'status': 'active'})
        if not isinstance(found, dict) or found.get('status') != 'active':
            raise PeerFailure(f'{self._api.peer} did not enable the webhook', status=200)

    def _checked(self, found: Any, number: str) -> Mapping[str, Any]:
        if not isinstance(found, dict) or str(found.get('id')) != number or not isinstance(found.get('status'), str):
            raise PeerFailure(f'{self._api.peer} answered with JSON that is not this order', status=200)
        return found

    def _list(self, what: str, params: Mapping[str, str]) -> list[Mapping[str, Any]]:
        found = self._api.request('GET', f'{_API}/{what}', params=params)
        if not isinstance(found, list) or not all(isinstance(it, dict) for it in found):
            raise PeerFailure(f'{self._api.peer} answered with JSON that is not a list of {what}', status=200)
        return found


def _order(number: str) -> str:
    return f'{_API}/orders/{quote(number, safe="")}'
