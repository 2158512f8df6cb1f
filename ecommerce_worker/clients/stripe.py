"""The API of Stripe, as far as missed orders and refunds need it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote

from ecommerce_worker.clients.http import Api
from ecommerce_worker.clients.shops import MOST_PAGES, Webhook
from ecommerce_worker.errors import NotFound, PeerFailure

#: How to find the charge that an object of a payment led to.  By the prefix of the object's id: the path of the object,
#: what to expand in the answer, and the way to the charge in it.
_CHARGES: Final[Mapping[str, tuple[str, str, tuple[str, ...]]]] = {
    'cs': ('checkout/sessions', 'payment_intent.latest_charge', ('payment_intent', 'latest_charge')),
    'pi': ('payment_intents', 'latest_charge', ('latest_charge',)),
    'ch': ('charges', '', ()), 'py': ('charges', '', ())}

#: The version of the API that this was written for; without one the account's own would count.
VERSION: Final = '2026-06-24.dahlia'


class Stripe:
    """One account; raises :class:`~ecommerce_worker.errors.ApiError`."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def events(self, types: Iterable[str], since: float, until: float) -> Iterator[Mapping[str, Any]]:
        """The events of these types created in between (epoch seconds, up to 30 days ago), as delivered.

        The newest come first; one that comes twice is the same event.
        """
        for name in types:
            yield from self._all('v1/events', {'type': name, 'created[gte]': str(int(since)),
                                               'created[lte]': str(int(until))})

    def charge(self, id_: str) -> Mapping[str, Any] | None:
        """The charge that a session, a payment intent or a charge of this id led to; None if it led to none.

        A session for which nothing was to be paid leads to none, nor does what Stripe does not show to us.
        """
        if (kind := id_.partition('_')[0]) not in _CHARGES:
            return None
        place, expanded, way = _CHARGES[kind]
        try:
            found = self._api.request('GET', f'v1/{place}/{quote(id_, safe="")}',
                                      params={'expand[]': expanded} if expanded else {})
        except NotFound:
            return None
        if not isinstance(found, dict) or found.get('id') != id_:
            raise PeerFailure(f'{self._api.peer} answered with JSON that is not this payment', status=200)
        for name in way:
            found = found.get(name) if isinstance(found, dict) else None
        if not (found is None or (isinstance(found, dict) and isinstance(found.get('refunded'), bool))):
            raise PeerFailure(f'{self._api.peer} answered with JSON that is not a charge', status=200)
        return found

    def webhooks(self) -> list[Webhook]:
        """All of its endpoints."""
        return [Webhook(str(it.get('id')), str(it.get('url')), it.get('status') == 'enabled')
                for it in self._all('v1/webhook_endpoints', {})]

    def switch_on(self, webhook: Webhook) -> None:
        """Enable it again."""
        path = f'v1/webhook_endpoints/{quote(webhook.id, safe="")}'
        found = self._api.request('POST', path, form={'disabled': 'false'})
        if not isinstance(found, dict) or found.get('status') != 'enabled':
            raise PeerFailure(f'{self._api.peer} did not enable the endpoint', status=200)

    def _all(self, path: str, params: Mapping[str, str]) -> Iterator[Mapping[str, Any]]:
        after: dict[str, str] = {}
        for _ in range(MOST_PAGES):
            page = self._api.request('GET', path, params={**params, 'limit': '100', **after})
            found = page.get('data') if isinstance(page, dict) else None
            if not isinstance(found, list) or not all(isinstance(it, dict) for it in found):
                raise PeerFailure(f'{self._api.peer} answered with JSON that is not a list', status=200)
            yield from found
            if page.get('has_more') is not True or not found:
                return
            after = {'starting_after': str(found[-1].get('id'))}
        raise PeerFailure(f'{self._api.peer} returned too many pages', status=200)
