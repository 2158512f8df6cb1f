"""Standard Webhooks 1.0.0, which Svix and many others send.

https://github.com/standard-webhooks/standard-webhooks.  Of its signatures the symmetric one, ``v1``.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import ClassVar
from uuid import uuid4

from typing_extensions import override

from ecommerce_worker.intake import source
from ecommerce_worker.intake.signatures import code, require, require_now
from ecommerce_worker.intake.source import Delivery, Event, Refused, text_at
from ecommerce_worker.settings.kinds import TEXT


class Source(source.Source):
    """A sender of Standard Webhooks; ``topic`` is the path of the topic in its bodies."""

    OPTIONS: ClassVar = {'topic': TEXT}
    DEFAULTS: ClassVar = {'topic': 'type'}

    @override
    def key(self, secret: str) -> bytes:
        """The decoded part after ``whsec_``."""
        try:
            return base64.b64decode(secret.removeprefix('whsec_'), validate=True)
        except (binascii.Error, ValueError):
            raise ValueError('whsec_ and Base64') from None

    @override
    def verify(self, delivery: Delivery, keys: Sequence[bytes]) -> None:
        """Signature, then its time, since each retry has a new signature; and an id, to distinguish deliveries."""
        stamp = _header(delivery, 'timestamp')
        parts = [_header(delivery, 'id').encode(errors='replace'), b'.', stamp.encode(errors='replace'), b'.']
        given = [one.removeprefix('v1,') for one in _header(delivery, 'signature').split() if one.startswith('v1,')]
        require(given, [code(key, *parts, delivery.body) for key in keys])
        require_now(stamp, delivery.received)
        if not _header(delivery, 'id'):
            raise Refused('no id')

    @override
    def event(self, delivery: Delivery) -> Event:
        """Its id is signed."""
        topic = text_at(delivery.object, self.options['topic'])
        return Event(topic, _header(delivery, 'id'), delivery.object, {'order_number': 'data.order_number'})

    @override
    def signed(self, body: bytes, key: bytes, topic: str, now: float) -> dict[str, str]:
        """As defined by the standard."""
        del topic
        name, stamp = f'msg_{uuid4().hex}', str(int(now))
        made = code(key, f'{name}.{stamp}.'.encode(), body)
        return {'Content-Type': 'application/json', 'Webhook-Id': name, 'Webhook-Timestamp': stamp,
                'Webhook-Signature': f'v1,{made}'}


def _header(delivery: Delivery, name: str) -> str:
    return delivery.header(f'webhook-{name}') or delivery.header(f'svix-{name}')
