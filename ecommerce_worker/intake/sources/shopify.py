"""Shopify: webhooks of a shop's admin or of an app.

https://shopify.dev/docs/apps/build/webhooks.  Only the body is signed: topic and shop are headers that whoever has the
secret may write, so that the state of an order is read from the body.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar
from uuid import uuid4

from typing_extensions import override

from ecommerce_worker.enrolment.lines import Sold
from ecommerce_worker.errors import PeerFailure
from ecommerce_worker.intake import source
from ecommerce_worker.intake.signatures import code, require
from ecommerce_worker.intake.source import (
    Asked,
    Connect,
    Delivery,
    Event,
    Refused,
    count_of,
    fields_of,
    first_text,
    lines_at,
    optional,
    secret_of,
)
from ecommerce_worker.settings.kinds import SECRET, TEXT

#: Topics that tell of an order as it is, which may be unpaid.
_ORDERS = frozenset(f'orders/{event}' for event in ('create', 'paid', 'updated', 'edited', 'fulfilled',
                                                    'partially_fulfilled'))


#: The topic of an ``orders/updated`` that tells of a refund: ``refunds/create`` names neither the order nor its buyer.
REFUNDED = 'orders/refunded'


class Source(source.Source):
    """A Shopify shop."""

    OPTIONS: ClassVar = {'source': TEXT, 'api_token': SECRET, 'api_key': SECRET, 'api_secret': SECRET, 'api_url': TEXT}
    DEFAULTS: ClassVar = {'source': '', 'api_token': '', 'api_key': '', 'api_secret': '', 'api_url': ''}
    TOPICS: ClassVar = _ORDERS | {'orders/cancelled', 'orders/delete', 'refunds/create', 'customers/data_request',
                                  'customers/redact', 'shop/redact', 'app/uninstalled', REFUNDED}
    EVENTS: ClassVar = {'orders/paid': 'enroll', REFUNDED: 'revoke'}

    @override
    def verify(self, delivery: Delivery, keys: Sequence[bytes]) -> None:
        """Signature, and shop."""
        given = _header(delivery, 'hmac-sha256')
        require([given] if given else [], [code(key, delivery.body) for key in keys])
        wanted = self.options['source']
        if wanted and _header(delivery, 'shop-domain').lower() != wanted.lower():
            raise Refused('source')

    @override
    def event(self, delivery: Delivery) -> Event:
        """Its id is the merchant's action, of which several subscriptions tell, and the order: one may be of many."""
        topic, order = _header(delivery, 'topic'), delivery.object
        sent = _header(delivery, 'event-id') or _header(delivery, 'webhook-id') or delivery.digest
        ignored = ''
        if topic == 'orders/updated' and order.get('financial_status') in ('refunded', 'partially_refunded'):
            topic = REFUNDED
            refunds = order.get('refunds')
            if isinstance(refunds, list) and refunds:
                sent = f'{len(refunds)} refunds'  # whatever else changes in the order later
        elif topic in _ORDERS:
            if order.get('cancelled_at'):
                ignored = 'cancelled'
            elif order.get('financial_status') not in ('paid', 'partially_refunded'):
                ignored = 'not paid'
        number = 'order_id' if topic.startswith('refunds/') else 'name'
        return Event(topic, f'{topic} {sent} {order.get("id")}', order, {'order_number': number}, ignored,
                     order.get('test') is True)

    @override
    def sold(self, event: Event) -> list[Sold]:
        """Its line items: what is left of them, or what was taken out of them by refunds."""
        order = event.content
        buyer = first_text(order.get('email'), order.get('contact_email'), optional(order, 'customer.email'))
        meta, refunded = fields_of(order.get('note_attributes')), event.topic == REFUNDED
        wholly = order.get('financial_status') == 'refunded'
        found = []
        for number, it in enumerate(lines_at(order, 'line_items'), 1):
            bought = count_of(it, 'quantity')
            # Money may be given back without that lines are taken out.
            left = 0 if wholly else count_of(it, 'current_quantity', 'quantity')
            count = max(0, bought - left) if refunded else left
            found.append(Sold(first_text(it.get('id'), number), first_text(it.get('sku'), it.get('variant_id')), count,
                              fields_of(it.get('properties')), meta, buyer))
        return found

    @override
    def shop(self, connect: Connect) -> Asked | None:
        """The Admin API, for a token that does not change, or for the id and the secret of an app."""
        token, key, secret = (secret_of(self.options[f'api_{name}']) for name in ('token', 'key', 'secret'))
        root = self.options['api_url'] or f'https://{self.options["source"]}/'
        if not (token or (key and secret)) or root == 'https:///':
            return None
        from ecommerce_worker.clients.auth import Fixed
        from ecommerce_worker.clients.shopify import Shopify

        if not token:
            answer = connect(root, peer='Shopify').request('POST', 'admin/oauth/access_token', form={
                'grant_type': 'client_credentials', 'client_id': key, 'client_secret': secret})
            token = first_text(optional(answer, 'access_token'))
            if not token:
                raise PeerFailure('Shopify did not answer with a token', status=200)
        return Shopify(connect(root, peer='Shopify', signer=Fixed({'X-Shopify-Access-Token': token})))

    @override
    def missed(self, shop: Any, topics: Iterable[str], since: float, until: float) -> Iterator[Delivery]:
        """The paid orders, by whatever topic tells of them; and the refunds."""
        known = set(topics)
        paid = next((it for it in sorted(known & _ORDERS)), '')
        for order in shop.orders(since, until):
            refunded = order['financial_status'] != 'paid'
            # An order that was refunded in part was paid for first, and may never have come either.
            for topic in ([paid] if paid and order['financial_status'] != 'refunded' else []) + (
                    ['orders/updated'] if refunded and REFUNDED in known else []):
                yield Delivery({'x-shopify-topic': topic}, json.dumps(order).encode(), until)

    @override
    def signed(self, body: bytes, key: bytes, topic: str, now: float) -> dict[str, str]:
        """As Shopify would."""
        del now
        return {'Content-Type': 'application/json', 'X-Shopify-Topic': topic, 'X-Shopify-Hmac-Sha256': code(key, body),
                'X-Shopify-Shop-Domain': self.options['source'], 'X-Shopify-Event-Id': str(uuid4())}


def _header(delivery: Delivery, name: str) -> str:
    """One of its headers; in newer deliveries their names have no X- in front."""
    return delivery.header(f'x-shopify-{name}') or delivery.header(f'shopify-{name}')
