"""Any sender that signs the body with an HMAC in a header: GitHub, Gitea, most custom shops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar
from uuid import uuid4

from typing_extensions import override

from ecommerce_worker.intake import source
from ecommerce_worker.intake.signatures import DIGESTS, code, require
from ecommerce_worker.intake.source import Delivery, Event
from ecommerce_worker.settings.kinds import TEXT, one_of

#: The topic of all deliveries if the sender has no topics.
ANY = '*'


class Source(source.Source):
    """A sender whose signature is in ``header``, after ``prefix``; ``id`` and ``topic`` name headers, if any.

    Without an id header the body identifies a delivery: equal bodies count as the same delivery.
    """

    OPTIONS: ClassVar = {'header': TEXT, 'prefix': TEXT, 'encoding': one_of('hex', 'base64'),
                         'digest': one_of(*DIGESTS), 'id': TEXT, 'topic': TEXT}
    DEFAULTS: ClassVar = {'header': 'X-Hub-Signature-256', 'prefix': '', 'encoding': 'hex', 'digest': 'sha256',
                          'id': '', 'topic': ''}

    @property
    @override
    def topics(self) -> frozenset[str]:
        """Without a topic header there is only one topic, ``*``; any other in ``INTAKES`` would never match."""
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
        """The event; the place of the order number in the body comes from the configuration."""
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
        """The prefix of the signature; GitHub's header always has one."""
        header, prefix = self.options['header'].lower(), self.options['prefix']
        return str(prefix or ('sha256=' if header == 'x-hub-signature-256' else ''))

    def _code(self, key: bytes, body: bytes) -> str:
        return code(key, body, digest=self.options['digest'], encoding=self.options['encoding'])
