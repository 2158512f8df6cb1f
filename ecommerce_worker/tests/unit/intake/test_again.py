"""What is kept of a delivery that is parked."""

from types import SimpleNamespace
from typing import Any

from ecommerce_worker.intake.again import HEADER, kept
from ecommerce_worker.intake.source import Delivery

HARMLESS = {'content-type': 'application/json', 'x-wc-webhook-topic': 'order.updated', 'idempotency-key': 'a',
            'webhook-id': 'msg_1', 'x-github-event': 'ping'}
SECRET = ('authorization', 'proxy-authorization', 'x-auth-key', 'cookie', 'x-api-key', 'x-shopify-hmac-sha256',
          'stripe-signature', 'x-access-token', 'x-seal', 'x-forwarded-for', 'x-real-ip', 'cf-connecting-ip',
          'true-client-ip', 'x-client-ip')


def test_credentials_signatures_and_addresses_are_not_kept_with_it():
    intake: Any = SimpleNamespace(name='shop', source=SimpleNamespace(options={'header': 'X-Seal'}))
    delivery = Delivery({**HARMLESS, **dict.fromkeys(SECRET, 's3cr3t')}, b'{}', 1.0)
    assert kept(intake, delivery)[HEADER] == {'intake': 'shop', 'at': 1.0, 'headers': HARMLESS}
