"""The webhooks of the demonstration: what shops post to the intake, signed as they sign."""

from __future__ import annotations

import http.client
import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from typing import Any, Final

from ecommerce_worker.demo.orders import ACADEMY
from ecommerce_worker.intake import intakes

#: A secret of all these shops, of this process alone.
SECRET: Final = secrets.token_hex(32)

#: The intakes, as ``INTAKES`` has them.
INTAKES: Final[Mapping[str, Any]] = {
    'acme': {'kind': 'shopify', 'secrets': [SECRET], 'events': {'orders/paid': 'fulfill_order'}},
    'blog': {'kind': 'woocommerce', 'secrets': [SECRET], 'events': {'order.updated': 'fulfill_order'}, 'spool': True},
    'academy': {'kind': 'shopify', 'secrets': [SECRET], 'site': ACADEMY}}


@dataclass(frozen=True)
class Webhook:
    """An order as a shop delivers it to this intake, the same each time.

    ``topic`` is that of the intake's only event if not given, ``order`` what it takes to name the order.
    """

    intake: str
    number: str
    topic: str = ''
    order: Mapping[str, Any] | None = None

    @cached_property
    def body(self) -> bytes:
        """The body as the shop writes it: the fields that are read, and some that must never be shown."""
        if self.order:
            return json.dumps(self.order).encode()
        person = {'email': 'learner@acme.example'}
        order = {
            'acme': {'id': 820_982_911, 'name': self.number, 'financial_status': 'paid', 'test': False, **person},
            'blog': {'id': 727, 'number': self.number, 'status': 'processing', 'date_paid_gmt': '2026-01-01T00:00:00',
                     'billing': person}}[self.intake]
        return json.dumps(order).encode()

    @cached_property
    def headers(self) -> Mapping[str, str]:
        """The headers, with the signature."""
        cls = intakes.find(INTAKES[self.intake]['kind'])
        source = cls(cls.DEFAULTS)
        topic = self.topic or next(iter(INTAKES[self.intake]['events']))
        return source.signed(self.body, source.key(SECRET), topic, time.time())

    def posted(self, address: str, *, forged: bool = False) -> tuple[int, Mapping[str, Any]]:
        """Post it; returns status and content. With ``forged`` the body is not the one that was signed."""
        connection = http.client.HTTPConnection(address, timeout=20)
        try:
            body = self.body.replace(self.number.encode(), b'EDX-66666') if forged else self.body
            connection.request('POST', f'/in/{self.intake}', body, dict(self.headers))
            answer = connection.getresponse()
            said = answer.read()
            return answer.status, json.loads(said) if said else {}
        finally:
            connection.close()


def said(status: int, content: Mapping[str, Any]) -> str:
    """An answer in a word or two."""
    return str(content.get('state') or HTTPStatus(status).phrase.lower())


def is_ready(address: str) -> bool:
    """Whether the intake at this address is ready."""
    connection = http.client.HTTPConnection(address, timeout=5)
    try:
        connection.request('GET', '/readyz')
        return connection.getresponse().status == HTTPStatus.OK
    except OSError:
        return False
    finally:
        connection.close()
