"""Queues whose only node is down or whose arguments differ: the worker logs them and carries on.

::

    connected ──► all that can be had is declared and consumed ──► the rest is looked for now and then ──► consumed too
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

from kombu import Queue
from kombu.exceptions import KombuError

from ecommerce_worker import logs, runtime
from ecommerce_worker.broker import preflight, publishing, topology
from ecommerce_worker.errors import WorkerError

if TYPE_CHECKING:
    from kombu import Connection

logger = logs.of(__name__)

#: Seconds between two checks for what is missing.
LOOK_SECONDS: Final = 15.0


class Upkeep:
    """Repairs what is missing or unavailable, on each connection.

    RabbitMQ notifies nobody when an unconsumed queue is deleted, or when a node is back.
    """

    def __init__(self) -> None:
        self._said: set[str] = set()

    def begin(self, c: Any) -> None:
        """Declare what the worker needs in the broker, and maintain it while the connection lasts."""
        with topology.asking(c.app) as connection:
            self._declare(c, connection)
            if topology.is_rabbitmq(connection):
                threading.Thread(target=self._look, args=(c, c.connection), name='upkeep', daemon=True).start()

    def _declare(self, c: Any, connection: Connection) -> topology.Declared:
        settings = runtime.current().settings
        declared = topology.declare(connection, c.app.amqp.queues.consume_from.values(), settings.QUEUE_TYPE)
        said = set(preflight.remarks(connection, declared, settings))
        for remark in sorted(said - self._said):
            logger.warning('a note on the queues', note=remark)
        self._said = said
        return declared

    def _look(self, c: Any, connection: Any) -> None:
        lacking: tuple[str, ...] = ()
        while c.connection is connection:
            doubted = publishing.missed.wait(LOOK_SECONDS)
            publishing.missed.clear()
            if c.connection is not connection:
                return
            try:
                with topology.asking(c.app) as asking:
                    lacking = self._look_once(c, connection, asking, lacking, doubted=doubted)
            except (WorkerError, OSError, KombuError, *c.connection_errors, *c.channel_errors) as error:
                # The broker may be unreachable; the worker's own connection will notice, and start all of this over.
                logger.debug('could not check for missing queues', error=type(error).__name__)

    def _look_once(self, c: Any, connection: Any, asking: Connection, lacking: tuple[str, ...], *,
                   doubted: bool) -> tuple[str, ...]:
        """Declare what is missing and consume what is back; returns what is unavailable."""
        missing = topology.missing(asking, c.app.amqp.queues.consume_from)
        if not (missing or doubted or lacking or self._unconsumed(c)):
            return ()
        lacking = self._declare(c, asking).unavailable
        if anew := [name for name in missing if name not in lacking]:
            logger.warning('queues were missing and have been declared again', queues=','.join(anew))
        for queue in self._unconsumed(c):
            if queue.name not in lacking:
                c.call_soon(_consume, c, connection, queue)
        return lacking

    def _unconsumed(self, c: Any) -> list[Queue]:
        consumed = {queue.name for queue in c.task_consumer.queues} if c.task_consumer else set()
        return [queue for name, queue in c.app.amqp.queues.consume_from.items() if name not in consumed]


def _consume(c: Any, connection: Any, queue: Queue) -> None:
    if c.connection is connection:
        c.task_consumer.add_queue(queue)
        c.task_consumer.consume()
        logger.warning('consuming a queue again', queue=queue.name)
