"""Any sender that signs the body with an HMAC in a header: GitHub, Gitea, most shops of somebody's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar
from uuid import uuid4

from typing_extensions import override

from ecommerce_worker.intake import source
from ecommerce_worker.intake.signatures import DIGESTS, code, require
from ecommerce_worker.intake.source import Delivery, Event
from ecommerce_worker.settings.kinds import TEXT, one_of

#: The topic of all deliveries of a sender that has none.
ANY = '*'


class Source(source.Source):
    """A sender whose signature is in ``header``, behind ``prefix``; ``id`` and ``topic`` name headers, if any.

    Without an id the body is its own: two that are equal are taken for one.
    """

    OPTIONS: ClassVar = {'header': TEXT, 'prefix': TEXT, 'encoding': one_of('hex', 'base64'),
                         'digest': one_of(*DIGESTS), 'id': TEXT, 'topic': TEXT}
    DEFAULTS: ClassVar = {'header': 'X-Hub-Signature-256', 'prefix': '', 'encoding': 'hex', 'digest': 'sha256',
                          'id': '', 'topic': ''}

    @property
    @override
    def topics(self) -> frozenset[str]:
        """Without a header for them there is one; whatever else ``INTAKES`` named would never come."""
        return self.TOPICS if self.options['topic'] else frozenset({ANY})

    @override
    def verify(self, delivery: Delivery, keys: Sequence[bytes]) -> None:
        """Signature."""
        given, prefix = delivery.header(self.options['header']), self._prefix
        if not given.startswith(prefix):
            given = ''
        given = given.removeprefix(prefix)
        if self.options['encoding'] == 'hex':
            given = given.lower()
        require([given] if given else [], [self._code(key, delivery.body) for key in keys])

    @override
    def event(self, delivery: Delivery) -> Event:
        """Where the order number stands in the body only the configuration can tell."""
        topic = delivery.header(self.options['topic']) if self.options['topic'] else ANY
        sent = delivery.header(self.options['id']) if self.options['id'] else ''
        return Event(topic, f'{topic} {sent or delivery.digest}', delivery.object, {'order_number': 'order_number'})

    @override
    def signed(self, body: bytes, key: bytes, topic: str, now: float) -> dict[str, str]:
        """As it is configured."""
        del now
        headers = {'Content-Type': 'application/json', self.options['header']: self._prefix + self._code(key, body)}
        if self.options['id']:
            headers[self.options['id']] = str(uuid4())
        if self.options['topic']:
            headers[self.options['topic']] = topic
        return headers

    @property
    def _prefix(self) -> str:
        """What stands before the code; GitHub's header has always one."""
        header, prefix = self.options['header'].lower(), self.options['prefix']
        return str(prefix or ('sha256=' if header == 'x-hub-signature-256' else ''))

    def _code(self, key: bytes, body: bytes) -> str:
        return code(key, body, digest=self.options['digest'], encoding=self.options['encoding'])
