"""The API of Stripe, as far as missed orders need it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote

from ecommerce_worker.clients.http import Api
from ecommerce_worker.clients.shops import MOST_PAGES, Webhook
from ecommerce_worker.errors import PeerFailure

#: The version of the API that this was written for; without one the account's own would count.
VERSION: Final = '2026-06-24.dahlia'


class Stripe:
    """One account; raises :class:`~ecommerce_worker.errors.ApiError`."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def events(self, types: Iterable[str], since: float, until: float) -> Iterator[Mapping[str, Any]]:
        """The events of these types that were made in between (epoch seconds, 30 days ago at most), as delivered.

        The newest come first; one that comes twice is the same event.
        """
        for name in types:
            yield from self._all('v1/events', {'type': name, 'created[gte]': str(int(since)),
                                               'created[lte]': str(int(until))})

    def webhooks(self) -> list[Webhook]:
        """All of its endpoints."""
        return [Webhook(str(it.get('id')), str(it.get('url')), it.get('status') == 'enabled')
                for it in self._all('v1/webhook_endpoints', {})]

    def switch_on(self, webhook: Webhook) -> None:
        """Have it deliver again."""
        path = f'v1/webhook_endpoints/{quote(webhook.id, safe="")}'
        found = self._api.request('POST', path, form={'disabled': 'false'})
        if not isinstance(found, dict) or found.get('status') != 'enabled':
            raise PeerFailure(f'{self._api.peer} did not switch the endpoint on', status=200)

    def _all(self, path: str, params: Mapping[str, str]) -> Iterator[Mapping[str, Any]]:
        after: dict[str, str] = {}
        for _ in range(MOST_PAGES):
            page = self._api.request('GET', path, params={**params, 'limit': '100', **after})
            found = page.get('data') if isinstance(page, dict) else None
            if not isinstance(found, list) or not all(isinstance(it, dict) for it in found):
                raise PeerFailure(f'{self._api.peer} answered with JSON that is no list', status=200)
            yield from found
            if page.get('has_more') is not True or not found:
                return
            after = {'starting_after': str(found[-1].get('id'))}
        raise PeerFailure(f'{self._api.peer} has no end of pages', status=200)
