"""Stand-ins for the APIs of shops: WooCommerce, Shopify, an account at Stripe."""

from __future__ import annotations

import json
import re
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
    """A shop with orders, in the form of webhooks; ``old`` is one that knows nothing of ``modified_after``.

    ``notes`` are those of each order, by its id as a text.
    """

    authorization: ClassVar = 'Basic ' + b64encode(f'{KEY}:{SECRET}'.encode()).decode()

    def __init__(self, *, old: bool = False, page: int = 100) -> None:
        self.orders: list[dict[str, Any]] = []
        self.notes: dict[str, list[str]] = {}
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
        if path.startswith('/wp-json/wc/v3/orders/'):
            return self._one(request, *path.removeprefix('/wp-json/wc/v3/orders/').split('/'))
        if request.method == 'PUT' and path.startswith('/wp-json/wc/v3/webhooks/'):
            found = [it for it in self.webhooks if str(it['id']) == path.rpartition('/')[2]]
            if found:
                found[0].update(json.loads(request.body))
                return _of(found[0])
        return _of({'code': 'rest_no_route'}, 404)


    def _one(self, request: Request, number: str, *what: str) -> Reply:
        order = next((it for it in self.orders if str(it['id']) == number), None)
        if order is None:
            return _of({'code': 'woocommerce_rest_shop_order_invalid_id'}, 400 if request.method == 'PUT' else 404)
        notes = self.notes.setdefault(number, [])
        match (request.method, *what):
            case ('GET',):
                return _of(order)
            case ('PUT',):
                given = json.loads(request.body)
                assert list(given) == ['status'], 'with anything else its totals would be reckoned anew'
                order.update(given)
                return _of(order)
            case ('GET', 'notes'):
                return _of([{'id': place, 'note': text} for place, text in enumerate(notes, 1)])
            case ('POST', 'notes'):
                given = json.loads(request.body)
                assert not given.get('customer_note'), 'the buyer would be told'
                notes.append(given['note'])
                return _of({'id': len(notes), 'note': given['note']}, 201)
        return _of({'code': 'rest_no_route'}, 404)


class Stripe(_Shop):
    """An account with events; ``charges`` are what sessions, payment intents and charges led to, by their ids."""

    authorization: ClassVar = f'Bearer {KEY}'

    def __init__(self, *, page: int = 100) -> None:
        self.events: list[dict[str, Any]] = []
        self.charges: dict[str, Any] = {}
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
        id_ = path.rpartition('/')[2]
        if id_ in self.charges:
            # What is not to be expanded is an id.
            found, wanted = self.charges[id_], query.get('expand[]', '')
            charge = found and (found if wanted.endswith('latest_charge') else found['id'])
            if id_.startswith('cs_'):
                intent = {'id': 'pi_1', 'latest_charge': charge} if wanted.startswith('payment_intent') else 'pi_1'
                return _of({'id': id_, 'payment_intent': found and intent})
            return _of({'id': id_, 'latest_charge': charge} if id_.startswith('pi_') else found)
        return _of({'error': {'type': 'invalid_request_error', 'code': 'resource_missing'}}, 404)


class Shopify(_Shop):
    """A shop with orders, in the form of webhooks.

    Lines are fulfilled from the ``location`` that they name, by fulfilment orders whose state is that of ``states``,
    by the location; ``fulfillments`` are those made: the order, and how many of which line.
    """

    authorization: ClassVar = ''

    def __init__(self, *, page: int = 10) -> None:
        self.orders: list[dict[str, Any]] = []
        self.states: dict[str, str] = {}
        self.fulfillments: list[tuple[str, dict[str, int]]] = []
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
        asked = json.loads(request.body)
        query, variables = asked['query'], asked['variables']
        if 'fulfillmentCreate' in query:
            return _of({'data': {'fulfillmentCreate': self._fulfilled(variables['fulfillment'])}})
        lines = int(re.findall(r'lineItems\(first: (\d+)', query)[0])
        if 'orders(' in query:
            return _of({'data': {'orders': self._found(variables, lines)}})
        order = next((it for it in self.orders if f'gid://shopify/Order/{it["id"]}' == variables['id']), None)
        if order is None:
            return _of({'data': {'order': None}})
        if 'fulfillmentOrders' in query:
            return _of({'data': {'order': {'fulfillmentOrders': self._fulfillment_orders(order)}}})
        return _of({'data': {'order': _in_graphql(order, lines, int(variables['after'] or 0))}})

    def _found(self, variables: dict[str, Any], lines: int) -> dict[str, Any]:
        status = variables['search'].partition('financial_status:')[2].partition(' ')[0]
        found = [it for it in self.orders if it['financial_status'] == status]
        first = int(variables['after'] or 0)
        return _page([_in_graphql(it, lines) for it in found], first, self.page)

    def _left(self, order: dict[str, Any]) -> dict[str, dict[str, int]]:
        """How many are left of which line, by location."""
        left: dict[str, dict[str, int]] = {}
        for it in order['line_items']:
            done = sum(made.get(str(it['id']), 0) for number, made in self.fulfillments if number == str(order['id']))
            count = 0 if order['financial_status'] == 'refunded' else it.get('current_quantity', it['quantity'])
            left.setdefault(it.get('location', 'here'), {})[str(it['id'])] = max(0, count - done)
        return left

    def _state(self, location: str, left: dict[str, int]) -> str:
        return self.states.get(location, 'OPEN') if any(left.values()) else 'CLOSED'

    def _fulfillment_orders(self, order: dict[str, Any]) -> dict[str, Any]:
        found = [{
            'id': f'gid://shopify/FulfillmentOrder/{order["id"]}-{location}', 'status': self._state(location, left),
            'lineItems': _page([{
                'id': f'gid://shopify/FulfillmentOrderLineItem/{line}', 'remainingQuantity': count,
                'lineItem': {'id': f'gid://shopify/LineItem/{line}'}} for line, count in left.items()], 0, 50)}
            for location, left in self._left(order).items()]
        return _page(found, 0, 50)

    def _fulfilled(self, given: dict[str, Any]) -> dict[str, Any]:
        assert given['notifyCustomer'] is False, 'the buyer would be told'
        wanted, = given['lineItemsByFulfillmentOrder']  # those of several locations are refused
        number, _, location = wanted['fulfillmentOrderId'].rpartition('/')[2].partition('-')
        order = next(it for it in self.orders if str(it['id']) == number)
        left = self._left(order)[location]
        made = {it['id'].rpartition('/')[2]: it['quantity'] for it in wanted['fulfillmentOrderLineItems']}
        state = self._state(location, left)
        if state != 'OPEN' or any(left[line] < count for line, count in made.items()):
            reason = f'Fulfillment order {number} has an unfulfillable status= {state}'
            return {'fulfillment': None, 'userErrors': [{'field': ['fulfillment'], 'message': reason}]}
        self.fulfillments.append((number, made))
        return {'fulfillment': {'id': 'gid://shopify/Fulfillment/1', 'status': 'SUCCESS'}, 'userErrors': []}


def _page(found: list[Any], first: int, size: int) -> dict[str, Any]:
    return {'pageInfo': {'hasNextPage': first + size < len(found), 'endCursor': str(first + size)},
            'nodes': found[first:first + size]}


def _in_graphql(order: dict[str, Any], lines: int, first: int = 0) -> dict[str, Any]:
    def fields(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{'key': it['name'], 'value': it['value']} for it in found]

    return {
        'id': f'gid://shopify/Order/{order["id"]}', 'name': order['name'], 'email': order['email'],
        'displayFinancialStatus': order['financial_status'].upper(), 'cancelledAt': order.get('cancelled_at'),
        'test': order['test'], 'updatedAt': order['updated_at'], 'customAttributes': fields(order['note_attributes']),
        'lineItems': _page([{
            'id': f'gid://shopify/LineItem/{it["id"]}', 'sku': it['sku'], 'quantity': it['quantity'],
            'currentQuantity': it.get('current_quantity', it['quantity']), 'variant': None,
            'customAttributes': fields(it.get('properties', []))} for it in order['line_items']], first, lines)}


def gmt(seconds: float) -> str:
    """A time as WooCommerce writes it, of epoch seconds."""
    return datetime.fromtimestamp(seconds, UTC).strftime('%Y-%m-%dT%H:%M:%S')


def _of(value: Any, status: int = 200) -> Reply:
    return reply(status, json.dumps(value).encode(), _JSON)
