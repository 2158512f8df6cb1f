"""Shopify: webhooks of a shop's admin or of an app.

https://shopify.dev/docs/apps/build/webhooks.  Only the body is signed: topic and shop are headers that anyone with the
secret can set, so the state of an order is read from the body.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar
from uuid import uuid4

from typing_extensions import override

from ecommerce_worker.durations import moment
from ecommerce_worker.enrolment.lines import Sold
from ecommerce_worker.errors import Rejected
from ecommerce_worker.intake import source
from ecommerce_worker.intake.signatures import code, require
from ecommerce_worker.intake.source import (
    Asked,
    Connect,
    Delivery,
    Event,
    Refused,
    Untold,
    count_of,
    fields_of,
    first_text,
    lines_at,
    optional,
    secret_of,
)
from ecommerce_worker.settings.kinds import FLAG, SECRET, TEXT

#: Topics that carry the current state of an order, which may be unpaid.
_ORDERS = frozenset(f'orders/{event}' for event in ('create', 'paid', 'updated', 'edited', 'fulfilled',
                                                    'partially_fulfilled'))


#: Our topic for an ``orders/updated`` with a refund: ``refunds/create`` names neither the order nor its buyer.
REFUNDED = 'orders/refunded'


class Source(source.Source):
    """A Shopify shop."""

    OPTIONS: ClassVar = {'source': TEXT, 'api_token': SECRET, 'api_key': SECRET, 'api_secret': SECRET, 'api_url': TEXT,
                         'report_back': FLAG}
    DEFAULTS: ClassVar = {'source': '', 'api_token': '', 'api_key': '', 'api_secret': '', 'api_url': '',
                          'report_back': False}
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
        """Its id combines the merchant's action, which several subscriptions report, and the order."""
        topic, order = _header(delivery, 'topic'), delivery.object
        sent = _header(delivery, 'event-id') or _header(delivery, 'webhook-id') or delivery.digest
        ignored = ''
        if topic == 'orders/updated' and order.get('financial_status') in ('refunded', 'partially_refunded'):
            topic = REFUNDED
            refunds = order.get('refunds')
            if isinstance(refunds, list) and refunds:
                sent = f'{len(refunds)} refunds'  # the same however else the order changes later
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
        """Its line items: the remaining quantities, or the refunded ones."""
        order = event.content
        buyer = first_text(order.get('email'), order.get('contact_email'), optional(order, 'customer.email'))
        meta, refunded = fields_of(order.get('note_attributes')), event.topic == REFUNDED
        wholly = order.get('financial_status') == 'refunded'
        found = []
        for number, it in enumerate(lines_at(order, 'line_items'), 1):
            bought = count_of(it, 'quantity')
            # Money may be refunded without removing lines.
            left = 0 if wholly else count_of(it, 'current_quantity', 'quantity')
            count = max(0, bought - left) if refunded else left
            found.append(Sold(first_text(it.get('id'), number), first_text(it.get('sku'), it.get('variant_id')), count,
                              fields_of(it.get('properties')), meta, buyer))
        return found

    @property
    @override
    def has_key(self) -> bool:
        """A token, or the id and the secret of an app; and where the shop is."""
        return bool((self.options['api_token'] or (self.options['api_key'] and self.options['api_secret']))
                    and (self.options['api_url'] or self.options['source']))

    @override
    def shop(self, connect: Connect) -> Asked | None:
        """The Admin API, with a fixed token, or with the id and secret of an app."""
        if not self.has_key:
            return None
        from ecommerce_worker.clients.auth import ClientCredentials, Fixed
        from ecommerce_worker.clients.shopify import Shopify

        def signed(token: str) -> Fixed:
            return Fixed({'X-Shopify-Access-Token': token})

        root = self.options['api_url'] or f'https://{self.options["source"]}/'
        token, key, secret = (secret_of(self.options[f'api_{name}']) for name in ('token', 'key', 'secret'))
        return Shopify(connect(root, peer='Shopify', signer=signed(token) if token else ClientCredentials(
            root.rstrip('/') + '/admin/oauth', key, secret, peer="Shopify's token endpoint",
            path='access_token', auth=signed)))

    @override
    def reference(self, event: Event) -> str:
        """Its id; that of a refund is its own."""
        return '' if event.topic.startswith('refunds/') else first_text(event.content.get('id'))

    @override
    def placed(self, event: Event) -> float | None:
        """When it was created."""
        return moment(event.content.get('created_at'))

    @override
    def is_paid(self, shop: Any, reference: str, line: str) -> bool | None:
        """As far as lines were taken out of it; money may be given back without that, and for a part of a line."""
        order: Mapping[str, Any] | None = shop.order(reference)
        if order is None:
            return None
        if order['cancelled_at'] or order['financial_status'] in ('refunded', 'voided'):
            return False
        if order['financial_status'] not in ('paid', 'partially_refunded'):
            return None
        found = next((it for it in order['line_items'] if it['id'] == line), None)
        if found is None:
            return None
        bought, left = count_of(found, 'quantity'), count_of(found, 'current_quantity', 'quantity')
        return (left > 0) if left in (0, bought) else None

    @override
    def untold(self, shop: Any, reference: str, lines: Collection[str], *, whole: bool) -> Untold | None:
        """A fulfilment of these lines; others are the shop's own to fulfil."""
        left = shop.unfulfilled(reference, lines)
        if not left:
            return None

        def tell() -> None:
            for it in left:
                try:
                    shop.fulfill(it)
                except Rejected:
                    # Somebody may just have done so, which has no code of its own.
                    if it.id in {each.id for each in shop.unfulfilled(reference, lines)}:
                        raise

        return Untold({line for it in left for line, _ in it.left.values()}, tell)

    @override
    def missed(self, shop: Any, topics: Iterable[str], since: float, until: float) -> Iterator[Delivery]:
        """The paid orders, as deliveries of one of the subscribed topics, and the refunds."""
        known = set(topics)
        paid = next((it for it in sorted(known & _ORDERS)), '')
        for order in shop.orders(since, until):
            refunded = order['financial_status'] != 'paid'
            # A partially refunded order was paid for first, and its payment may have been missed too.
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
    """One of its headers; newer deliveries omit the X- prefix."""
    return delivery.header(f'x-shopify-{name}') or delivery.header(f'shopify-{name}')
