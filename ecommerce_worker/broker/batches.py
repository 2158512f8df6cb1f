"""Publishing many messages at once, each confirmed by the broker."""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from kombu.exceptions import KombuError

from ecommerce_worker.broker import publishing, topology
from ecommerce_worker.broker.publishing import FULL, MISSING, NotTaken, Publication
from ecommerce_worker.broker.transport import corked
from ecommerce_worker.errors import NotPublished

if TYPE_CHECKING:
    from celery import Celery
    from kombu import Connection


def publish_all(app: Celery, publications: Sequence[Publication]) -> list[NotPublished | None]:
    """Publish all of them at once and return when the broker has confirmed them; for each None, or why it did not.

    That is ``NotTaken`` if it is about this message or its queue.

    What was on its way when a connection was lost may have been published all the same.
    """
    if len(publications) > 1:
        try:
            with app.producer_or_acquire() as producer:
                if topology.is_rabbitmq(producer.connection):
                    return _published(producer.connection, publications)
        except (KombuError, OSError, *publishing.broker_errors(app)) as error:
            return [NotPublished(publishing.unconfirmed(error))] * len(publications)
    return [_published_alone(app, publication) for publication in publications]


def _published_alone(app: Celery, publication: Publication) -> NotPublished | None:
    try:
        publishing.publish(app, publication)
    except NotPublished as error:
        return error
    return None


def _published(connection: Connection, publications: Sequence[Publication]) -> list[NotPublished | None]:
    connection.ensure_connection(max_retries=3, interval_start=0.2, interval_step=0.5)
    batch = _Batch(connection.channel())
    try:
        batch.write(connection, publications)
        until = time.monotonic() + publishing.CONFIRM_SECONDS
        while batch.unconfirmed:
            connection.drain_events(timeout=max(0.01, until - time.monotonic()))
        batch.channel.close()
    except (KombuError, OSError, *connection.connection_errors, *connection.channel_errors) as error:
        connection.collect()
        for place in batch.unconfirmed.values():
            batch.troubles[place] = NotPublished(publishing.unconfirmed(error))
    except BaseException:
        # Confirmations may still be on their way, and be taken for those of the next messages.
        connection.collect()
        raise
    return [batch.troubles.get(place) for place in range(len(publications))]


class _Batch:
    """Messages that are published at once on a channel of their own, and what became of them, by their places."""

    def __init__(self, channel: Any) -> None:
        self.channel = channel
        #: The places of those that are on their way, by their tags.
        self.unconfirmed: dict[int, int] = {}
        self.troubles: dict[int, NotPublished] = {}
        #: Whom the broker names them to by where there is no route for them; some have one name.
        self._places: dict[tuple[str, Any], list[int]] = defaultdict(list)
        channel.confirm_select()
        channel.events['basic_ack'].add(partial(self._on_confirm, True))
        channel.events['basic_nack'].add(partial(self._on_confirm, False))
        channel.events['basic_return'].add(self._on_return)

    def write(self, connection: Connection, publications: Sequence[Publication]) -> None:
        """Write all of them, but for those that the broker would not bear."""
        tags = itertools.count(1)
        with corked(self.channel):
            for place, publication in enumerate(publications):
                exchange, routing_key = publication.address(connection)
                correlation_id = publication.raw.properties.get('correlation_id')
                try:
                    message = publishing.prepared(publication, connection, self.channel,
                                                  **({'correlation_id': correlation_id} if correlation_id else {}))
                except publishing.Unfit as error:
                    self.troubles[place] = NotTaken(str(error))
                    continue
                self.unconfirmed[next(tags)] = place
                self._places[routing_key, correlation_id or None].append(place)
                publishing.send(self.channel, message, exchange, routing_key, mandatory=True)

    def _on_confirm(self, taken: bool, tag: int, multiple: bool) -> None:
        for place in publishing.confirmed(self.unconfirmed, tag, multiple=multiple):
            if not taken:
                self.troubles.setdefault(place, NotTaken(FULL))

    def _on_return(self, error: Exception, exchange: str, routing_key: str, message: Any) -> None:  # noqa: ARG002
        # What is not routed is confirmed as well, after this.
        for place in self._places[routing_key, message.properties.get('correlation_id') or None]:
            self.troubles[place] = NotTaken(MISSING)
        publishing.missed.set()
