"""Stripe: events of Checkout and payments.

https://docs.stripe.com/webhooks.  The key is the whole secret, including ``whsec_``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from typing_extensions import override

from ecommerce_worker.durations import moment
from ecommerce_worker.enrolment.lines import Sold
from ecommerce_worker.errors import Undecodable
from ecommerce_worker.intake import source
from ecommerce_worker.intake.signatures import code, require, require_now
from ecommerce_worker.intake.source import Asked, Connect, Delivery, Event, first_text, optional, secret_of, text_at
from ecommerce_worker.settings.kinds import SECRET, URL

_SESSION = 'checkout.session.'
_NUMBER_OF_SESSION = 'data.object.client_reference_id'
_BUYER = ('customer_details.email', 'customer_email', 'billing_details.email', 'receipt_email')
_NUMBER_OF_OTHERS = 'data.object.metadata.order_number'


class Source(source.Source):
    """An endpoint of a Stripe account."""

    OPTIONS: ClassVar = {'api_key': SECRET, 'api_url': URL}
    DEFAULTS: ClassVar = {'api_key': '', 'api_url': 'https://api.stripe.com/'}
    TOPICS: ClassVar = frozenset({
        *(_SESSION + event for event in ('completed', 'async_payment_succeeded', 'async_payment_failed', 'expired')),
        'payment_intent.succeeded', 'payment_intent.payment_failed', 'payment_intent.canceled', 'charge.succeeded',
        'charge.refunded', 'charge.dispute.created', 'charge.dispute.closed', 'refund.created', 'refund.updated',
        'invoice.paid'})
    EVENTS: ClassVar = {_SESSION + 'completed': 'enroll', _SESSION + 'async_payment_succeeded': 'enroll',
                        'charge.refunded': 'revoke'}

    @override
    def verify(self, delivery: Delivery, keys: Sequence[bytes]) -> None:
        """Signature, then its time: each retry has a new signature."""
        pairs = [part.strip().partition('=')[::2] for part in delivery.header('stripe-signature').split(',')]
        stamp = next((value for name, value in pairs if name == 't'), '')
        require([value for name, value in pairs if name == 'v1'],
                [code(key, stamp.encode(errors='replace'), b'.', delivery.body, encoding='hex') for key in keys])
        require_now(stamp, delivery.received)

    @override
    def event(self, delivery: Delivery) -> Event:
        """The event; it contains neither line items nor the state of other objects, which the task has to fetch."""
        event = delivery.object
        topic = text_at(event, 'type')
        found = event.get('data')
        content: Any = found.get('object') if isinstance(found, Mapping) else None
        if not isinstance(content, Mapping):
            raise Undecodable('data.object is missing; thin events are not supported')
        ignored = ''
        if topic == _SESSION + 'completed' and content.get('payment_status') not in ('paid', 'no_payment_required'):
            # Paid later; another event reports that.
            ignored = 'not paid'
        number = _NUMBER_OF_SESSION if topic.startswith(_SESSION) else _NUMBER_OF_OTHERS
        # A refund is of a charge: its id would not lead to the order, so that its metadata must.
        return Event(topic, text_at(event, 'id'), event, {'order_number': number}, ignored,
                     event.get('livemode') is False,
                     unnumbered=first_text(content.get('id')) if topic.startswith(_SESSION) else '')

    @override
    def sold(self, event: Event) -> list[Sold]:
        """The products in ``metadata.sku``, one or several, since events contain no line items."""
        content = event.content['data']['object']
        if event.topic == 'charge.refunded' and content.get('refunded') is not True:
            raise Undecodable('it was partially refunded, and Stripe does not say for which products')
        skus = first_text(optional(content, 'metadata.sku')).replace(',', ' ').split()
        if not skus:
            raise Undecodable('metadata.sku is missing')
        custom = content.get('custom_fields')
        fields = {it['key']: optional(it, f'{it.get("type")}.value')
                  for it in (custom if isinstance(custom, list) else ())
                  if isinstance(it, Mapping) and isinstance(it.get('key'), str)}
        meta, buyer = content.get('metadata'), first_text(*(optional(content, it) for it in _BUYER))
        return [Sold(str(number), sku, 1, fields, meta if isinstance(meta, Mapping) else {}, buyer)
                for number, sku in enumerate(skus, 1)]

    @property
    @override
    def has_key(self) -> bool:
        """A key is enough."""
        return bool(self.options['api_key'])

    @override
    def shop(self, connect: Connect) -> Asked | None:
        """The API of the account."""
        if not self.has_key:
            return None
        from ecommerce_worker.clients.auth import Bearer
        from ecommerce_worker.clients.stripe import VERSION, Stripe

        signer = Bearer(secret_of(self.options['api_key']), {'Stripe-Version': VERSION})
        return Stripe(connect(self.options['api_url'], peer='Stripe', signer=signer))

    @override
    def reference(self, event: Event) -> str:
        """The id of the session, the payment intent or the charge."""
        return first_text(optional(event.content, 'data.object.id'))

    @override
    def placed(self, event: Event) -> float | None:
        """When the session, the payment intent or the charge was created."""
        return moment(optional(event.content, 'data.object.created'))

    @override
    def is_paid(self, shop: Any, reference: str, line: str) -> bool | None:
        """All or nothing: what a partial refund was for is unknown."""
        charge = shop.charge(reference)
        if charge is None:
            return None
        if charge['refunded']:
            return False
        return None if charge.get('amount_refunded') else True

    @override
    def missed(self, shop: Any, topics: Iterable[str], since: float, until: float) -> Iterator[Delivery]:
        """Its events, with the ids that deliveries have."""
        for event in shop.events((it for it in topics if it in self.TOPICS), since, until):
            yield Delivery({}, json.dumps(event).encode(), until)

    @override
    def signed(self, body: bytes, key: bytes, topic: str, now: float) -> dict[str, str]:
        """As Stripe would."""
        del topic
        stamp = str(int(now))
        made = code(key, stamp.encode(), b'.', body, encoding='hex')
        return {'Content-Type': 'application/json', 'Stripe-Signature': f't={stamp},v1={made}'}
