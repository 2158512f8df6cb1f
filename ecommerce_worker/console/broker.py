"""What RabbitMQ says of our queues, asked with little patience: a page must not wait for a broker that is away."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ecommerce_worker.broker import preflight, topology
from ecommerce_worker.broker.app import Application, celery_settings
from ecommerce_worker.broker.topology import Depth
from ecommerce_worker.settings import Settings, broker_scheme

logger = logging.getLogger(__name__)

#: Seconds for each step of asking.
PATIENCE: Final = 1.0

#: Seconds for which an answer is good enough, and after which it is no answer any more.
FRESH: Final = 5.0
STALE: Final = 30.0

#: Seconds that a page waits for an answer.
MOMENT: Final = 0.3


@dataclass(frozen=True)
class Standing:
    """How the queues are; ``trouble`` says why they are not known.

    ``recorders`` is how many take facts from their queue; None where the broker does not tell.
    """

    queues: tuple[Depth, ...] = ()
    waiting: int = 0
    unrecorded: int = 0
    recorders: int | None = None
    trouble: str = ''

    @property
    def workers(self) -> int:
        """How many workers there are, at least: the consumers of the queue that has the most."""
        return max((queue.consumers or 0 for queue in self.queues), default=0)

    @property
    def without_consumers(self) -> tuple[Depth, ...]:
        """The queues that nobody takes anything from."""
        return tuple(queue for queue in self.queues if queue.consumers == 0)


def ask(settings: Settings) -> Standing:
    """How they are now."""
    patient = celery_settings(settings)
    options = {**patient['broker_transport_options'], 'connect_timeout': PATIENCE, 'read_timeout': PATIENCE,
               'write_timeout': PATIENCE}
    app = Application('console', set_as_current=False)
    app.config_from_object({**patient, 'broker_transport_options':
                            options if broker_scheme(settings) == 'amqp' else {},
                            'broker_connection_timeout': PATIENCE})
    try:
        with preflight.connect(app, settings) as connection:
            try:
                facts = topology.depth(connection, topology.LEDGER) or Depth(topology.LEDGER, 0, 0)
                return Standing(tuple(topology.depths(connection, settings.QUEUES)), topology.waiting(connection),
                                facts.messages, facts.consumers)
            except (OSError, *connection.connection_errors, *connection.channel_errors) as error:
                return Standing(trouble=f'RabbitMQ does not answer ({type(error).__name__})')
    except preflight.BrokerUnusable as error:
        return Standing(trouble=str(error))


class Watch:
    """Asks no more often than need be, in a thread of its own, for which a page waits for a moment only."""

    def __init__(self, ask: Callable[[], Standing]) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._standing = Standing(trouble='RabbitMQ has not answered yet')
        self._at: float | None = None
        self._asking: threading.Thread | None = None

    def look(self) -> Standing:
        """How the queues are, or were less than half a minute ago."""
        with self._lock:
            if self._age() >= FRESH and not self._asking:
                self._asking = threading.Thread(target=self._refresh, name='asks RabbitMQ', daemon=True)
                self._asking.start()
            asking = self._asking
        if asking:
            asking.join(MOMENT)
        with self._lock:
            return self._standing if self._age() < STALE else Standing(trouble='RabbitMQ has not answered yet')

    def _age(self) -> float:
        return math.inf if self._at is None else time.monotonic() - self._at

    def _refresh(self) -> None:
        try:
            standing = self._ask()
        except Exception as error:
            logger.exception('the broker could not be asked')
            standing = Standing(trouble=f'RabbitMQ could not be asked ({type(error).__name__})')
        with self._lock:
            self._standing, self._at, self._asking = standing, time.monotonic(), None
