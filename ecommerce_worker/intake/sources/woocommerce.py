"""WooCommerce: webhooks of a shop on WordPress.

``class-wc-webhook.php`` of woocommerce/woocommerce.  It never retries, whatever the answer; and it sends an unsigned
ping when a webhook is activated.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, ClassVar, Final

from typing_extensions import override

from ecommerce_worker.durations import moment
from ecommerce_worker.enrolment.lines import Sold
from ecommerce_worker.errors import NotFound, Undecodable
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
from ecommerce_worker.words import counted

_PING = re.compile(rb'webhook_id=[0-9]{1,20}')

#: Topics that carry the current state of an order, which may be unpaid.
_ORDERS = frozenset({'order.created', 'order.updated', 'order.restored'})


#: Our topic for an order in one of these that was fully refunded.
REFUNDED = 'order.refunded'

#: The state of an order that is paid for and not completed, and those in which nothing of it is paid for.
_PROCESSING: Final = 'processing'
_UNPAID: Final = ('pending', 'cancelled', 'refunded', 'failed', 'trash')

#: What the note begins with that is left at an order.
_MARK: Final = 'ecommerce-worker: '


class Source(source.Source):
    """A WooCommerce shop."""

    OPTIONS: ClassVar = {'source': TEXT, 'api_key': SECRET, 'api_secret': SECRET, 'report_back': FLAG}
    DEFAULTS: ClassVar = {'source': '', 'api_key': '', 'api_secret': '', 'report_back': False}
    TOPICS: ClassVar = _ORDERS | {'order.deleted', REFUNDED}
    EVENTS: ClassVar = {'order.created': 'enroll', 'order.updated': 'enroll', REFUNDED: 'revoke'}
    FORMS: ClassVar = ('application/json', 'application/x-www-form-urlencoded')
    REPEATS: ClassVar = False

    @override
    def key(self, secret: str) -> bytes:
        """WordPress stores a secret with quotes and ampersands escaped, but signs with the unescaped secret."""
        return html.unescape(secret).encode()

    @override
    def greets(self, delivery: Delivery) -> bool:
        """Whether this is exactly WooCommerce's ping."""
        return (delivery.header('content-type').partition(';')[0].strip() == 'application/x-www-form-urlencoded'
                and not delivery.header('x-wc-webhook-signature') and _PING.fullmatch(delivery.body) is not None)

    @override
    def verify(self, delivery: Delivery, keys: Sequence[bytes]) -> None:
        """Signature, and shop."""
        given = delivery.header('x-wc-webhook-signature')
        require([given] if given else [], [code(key, delivery.body) for key in keys])
        wanted = self.options['source'].rstrip('/')
        if wanted and delivery.header('x-wc-webhook-source').rstrip('/') != wanted:
            raise Refused('source')

    @override
    def event(self, delivery: Delivery) -> Event:
        """Its id is the same for each delivery of the same state of an order."""
        topic, order = delivery.header('x-wc-webhook-topic'), delivery.object
        ignored, sent_topic = '', topic
        if topic in _ORDERS and order.get('status') == 'refunded':
            topic = REFUNDED
        if topic in _ORDERS and not (order.get('status') in ('processing', 'completed') and order.get('date_paid_gmt')):
            # Cash on delivery is processed before it is paid.
            ignored = 'not paid'
        sent = (sent_topic, delivery.header('x-wc-webhook-id'), order.get('id'), order.get('date_modified_gmt'),
                delivery.digest)
        number = 'id' if topic == 'order.deleted' else 'number'
        return Event(topic, ' '.join(str(part) for part in sent), order, {'order_number': number}, ignored)

    @override
    def sold(self, event: Event) -> list[Sold]:
        """Its line items; a partial refund does not say which of them it covers."""
        order = event.content
        if event.topic != REFUNDED and order.get('refunds'):
            raise Undecodable('it was partially refunded, and WooCommerce does not say for which lines')
        meta, buyer = fields_of(order.get('meta_data'), 'key'), optional(order, 'billing.email')
        return [Sold(first_text(it.get('id'), number),
                     first_text(it.get('sku'), it.get('variation_id'), it.get('product_id')), count_of(it, 'quantity'),
                     fields_of(it.get('meta_data'), 'key'), meta, buyer)
                for number, it in enumerate(lines_at(order, 'line_items'), 1)]

    @property
    @override
    def has_key(self) -> bool:
        """Both parts of it, and where the shop is."""
        return bool(self.options['api_key'] and self.options['api_secret'] and self.options['source'])

    @override
    def shop(self, connect: Connect) -> Asked | None:
        """The API at the address given as ``source``."""
        if not self.has_key:
            return None
        from ecommerce_worker.clients.auth import Basic
        from ecommerce_worker.clients.woocommerce import WooCommerce

        return WooCommerce(connect(self.options['source'], peer='WooCommerce', signer=Basic(
            secret_of(self.options['api_key']), secret_of(self.options['api_secret']))))

    @override
    def reference(self, event: Event) -> str:
        """Its id, which is not its number where a plugin numbers orders."""
        return first_text(event.content.get('id'))

    @override
    def placed(self, event: Event) -> float | None:
        """When it was paid."""
        return moment(event.content.get('date_paid_gmt'))

    @override
    def is_paid(self, shop: Any, reference: str, line: str) -> bool | None:
        """All or nothing: what a partial refund was for is unknown."""
        order = shop.order(reference)
        if order is None:
            return None
        if order['status'] in _UNPAID:
            return False
        return None if order.get('refunds') or not order.get('date_paid_gmt') else True

    @override
    def untold(self, shop: Any, reference: str, lines: Collection[str], *, whole: bool) -> Untold | None:
        """A note, and the state *completed* if there is nothing else in the order."""
        def is_open() -> bool:
            order = shop.order(reference)
            if order is None:
                raise NotFound('WooCommerce does not return this order', status=404)
            return bool(order['status'] == _PROCESSING)

        def is_noted() -> bool:
            return any(text.startswith(_MARK) for text in shop.notes(reference))

        if not is_open() or (not whole and is_noted()):
            return None

        def tell() -> None:
            if not is_noted():
                rest = '' if whole else '; the order is left as it is, for it has other lines'
                shop.add_note(reference, f'{_MARK}the learners of {counted(len(lines), "line")} are enrolled{rest}')
            if whole and is_open():  # it may have been refunded meanwhile
                shop.complete(reference)

        return Untold(lines, tell)

    @override
    def missed(self, shop: Any, topics: Iterable[str], since: float, until: float) -> Iterator[Delivery]:
        """The paid orders, as deliveries of one of the subscribed topics."""
        topic = next((it for it in topics if it in _ORDERS), '')
        for order in shop.orders(since, until) if topic else ():
            yield Delivery({'x-wc-webhook-topic': topic}, json.dumps(order).encode(), until)

    @override
    def signed(self, body: bytes, key: bytes, topic: str, now: float) -> dict[str, str]:
        """As WooCommerce would."""
        del now
        return {'Content-Type': 'application/json', 'X-WC-Webhook-Topic': topic, 'X-WC-Webhook-ID': '1',
                'X-WC-Webhook-Source': self.options['source'], 'X-WC-Webhook-Signature': code(key, body)}
