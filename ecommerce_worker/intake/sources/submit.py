"""Our own interface, for shops without webhooks: a token, and the arguments of a task as JSON.

``Idempotency-Key`` as in draft-ietf-httpapi-idempotency-key-header-07; quoted, or not, as most write it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import ClassVar
from uuid import uuid4

from typing_extensions import override

from ecommerce_worker.errors import Undecodable
from ecommerce_worker.intake import source
from ecommerce_worker.intake.signatures import require
from ecommerce_worker.intake.source import Delivery, Event, Objection

#: The only topic: what is submitted.
ORDER = 'order'

_LONGEST_KEY = 255


class Source(source.Source):
    """A program that submits orders."""

    TOPICS: ClassVar = frozenset({ORDER})
    EVENTS: ClassVar = {ORDER: 'fulfill_order'}
    ANSWERS: ClassVar = True

    @override
    def verify(self, delivery: Delivery, keys: Sequence[bytes]) -> None:
        """The token; digests are compared, since they have the same length."""
        scheme, _, token = delivery.header('authorization').partition(' ')
        given = [_digest(token.strip().encode(errors='replace'))] if scheme.lower() == 'bearer' and token else []
        require(given, [_digest(key) for key in keys])

    @override
    def event(self, delivery: Delivery) -> Event:
        """The event; the members of the JSON object are the arguments."""
        key = delivery.header('idempotency-key').strip()
        if len(key) > 1 and key[0] == key[-1] == '"':
            key = key[1:-1]
        if not 0 < len(key) <= _LONGEST_KEY:
            raise Objection(400, f'the Idempotency-Key header is missing or longer than {_LONGEST_KEY} characters')
        try:
            content = delivery.object
        except Undecodable as error:
            raise Objection(400, str(error)) from None
        return Event(ORDER, key, content, {name: name for name in content})

    @override
    def signed(self, body: bytes, key: bytes, topic: str, now: float) -> dict[str, str]:
        """As a program would."""
        del body, topic, now
        return {'Content-Type': 'application/json', 'Authorization': f'Bearer {key.decode()}',
                'Idempotency-Key': f'"{uuid4()}"'}


def _digest(token: bytes) -> str:
    return hashlib.sha256(token).hexdigest()
