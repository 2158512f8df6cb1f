"""Stand-ins for the APIs of shops: WooCommerce, Shopify, an account at Stripe; what they tell of orders."""

from __future__ import annotations

import json
from base64 import b64encode
from datetime import UTC, datetime
from typing import Any, ClassVar, Final, Self
from urllib.parse import parse_qs, urlsplit

from typing_extensions import override

from ecommerce_worker.testing.peer import Peer, Reply, Request, reply

#: What the stand-ins let in.
KEY: Final = 'ck_key_of_a_test'
SECRET: Final = 'cs_secret_of_a_test'

_JSON: Final = ('Content-Type: application/json',)


class _Shop:
    """A server; ``answers`` come before its own, one for each request."""

    def __init__(self) -> None:
        self.answers: list[Reply] = []
        self.webhooks: list[dict[str, Any]] = []
        self.peer = Peer(self._answer)
        self.url = self.peer.url

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.peer.close()

    def _answer(self, request: Request) -> Reply:
        if self.answers:
            return self.answers.pop(0)
        if request.headers.get('authorization') != self.authorization:
            return _of({'code': 'woocommerce_rest_cannot_view'}, 401)
        parts = urlsplit(request.target)
        return self.told(request, parts.path, {name: values[-1] for name, values in parse_qs(parts.query).items()})

    authorization: ClassVar[str]

    def told(self, request: Request, path: str, query: dict[str, str]) -> Reply:
        """What it answers."""
        raise NotImplementedError


class WooCommerce(_Shop):
    """A shop with orders; ``old`` is one that knows nothing of ``modified_after``."""

    authorization: ClassVar = 'Basic ' + b64encode(f'{KEY}:{SECRET}'.encode()).decode()

    def __init__(self, *, old: bool = False, page: int = 100) -> None:
        self.orders: list[dict[str, Any]] = []
        self.old = old
        self.page = page
        super().__init__()

    @override
    def told(self, request: Request, path: str, query: dict[str, str]) -> Reply:
        """What it answers."""
        if path == '/wp-json/wc/v3/orders':
            found = [it for it in self.orders if it['status'] in query['status'].split(',')]
            if not self.old:
                assert query['dates_are_gmt'] == 'true'
                found = [it for it in found if it['date_modified_gmt'] > query['modified_after']]
            first = self.page * (int(query['page']) - 1)
            return _of(found[first:first + self.page])
        if path == '/wp-json/wc/v3/webhooks':
            return _of(self.webhooks)
        if request.method == 'PUT' and path.startswith('/wp-json/wc/v3/webhooks/'):
            found = [it for it in self.webhooks if str(it['id']) == path.rpartition('/')[2]]
            if found:
                found[0].update(json.loads(request.body))
                return _of(found[0])
        return _of({'code': 'rest_no_route'}, 404)


class Stripe(_Shop):
    """An account with events."""

    authorization: ClassVar = f'Bearer {KEY}'

    def __init__(self, *, page: int = 100) -> None:
        self.events: list[dict[str, Any]] = []
        self.page = page
        super().__init__()

    @override
    def told(self, request: Request, path: str, query: dict[str, str]) -> Reply:
        """What it answers."""
        assert request.headers['stripe-version']
        if path == '/v1/events':
            found = [it for it in self.events if it['type'] == query['type']
                     and int(query['created[gte]']) <= it['created'] <= int(query['created[lte]'])]
            ids = [it['id'] for it in found]
            first = ids.index(query['starting_after']) + 1 if 'starting_after' in query else 0
            return _of({'object': 'list', 'data': found[first:first + self.page],
                        'has_more': first + self.page < len(found)})
        if path == '/v1/webhook_endpoints':
            return _of({'object': 'list', 'data': self.webhooks, 'has_more': False})
        if request.method == 'POST' and path.startswith('/v1/webhook_endpoints/'):
            it = next(each for each in self.webhooks if each['id'] == path.rpartition('/')[2])
            it['status'] = 'enabled' if request.body == b'disabled=false' else 'disabled'
            return _of(it)
        return _of({'error': {'type': 'invalid_request_error'}}, 404)


class Shopify(_Shop):
    """A shop with orders, in the form of webhooks."""

    authorization: ClassVar = ''

    def __init__(self, *, page: int = 10) -> None:
        self.orders: list[dict[str, Any]] = []
        self.page = page
        super().__init__()

    @override
    def _answer(self, request: Request) -> Reply:
        if self.answers:
            return self.answers.pop(0)
        if request.target == '/admin/oauth/access_token':
            form = parse_qs(request.body.decode())
            good = (form['client_id'], form['client_secret']) == ([KEY], [SECRET])
            return _of({'access_token': SECRET, 'expires_in': 86_399}) if good else _of({'error': 'invalid'}, 401)
        if request.headers.get('x-shopify-access-token') != SECRET:
            return _of({'errors': '[API] Invalid API key or access token'}, 401)
        variables = json.loads(request.body)['variables']
        status = variables['search'].partition('financial_status:')[2].partition(' ')[0]
        found = [it for it in self.orders if it['financial_status'] == status]
        first = int(variables['after'] or 0)
        return _of({'data': {'orders': {
            'pageInfo': {'hasNextPage': first + self.page < len(found), 'endCursor': str(first + self.page)},
            'nodes': [_in_graphql(it) for it in found[first:first + self.page]]}}})


def _in_graphql(order: dict[str, Any]) -> dict[str, Any]:
    def fields(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{'key': it['name'], 'value': it['value']} for it in found]

    return {
        'id': f'gid://shopify/Order/{order["id"]}', 'name': order['name'], 'email': order['email'],
        'displayFinancialStatus': order['financial_status'].upper(), 'cancelledAt': None, 'test': order['test'],
        'updatedAt': order['updated_at'], 'customAttributes': fields(order['note_attributes']),
        'lineItems': {'pageInfo': {'hasNextPage': False}, 'nodes': [{
            'id': f'gid://shopify/LineItem/{it["id"]}', 'sku': it['sku'], 'quantity': it['quantity'],
            'currentQuantity': it.get('current_quantity', it['quantity']), 'variant': None,
            'customAttributes': fields(it.get('properties', []))} for it in order['line_items']]}}


def gmt(seconds: float) -> str:
    """A time as WooCommerce writes it, of epoch seconds."""
    return datetime.fromtimestamp(seconds, UTC).strftime('%Y-%m-%dT%H:%M:%S')


def _of(value: Any, status: int = 200) -> Reply:
    return reply(status, json.dumps(value).encode(), _JSON)
