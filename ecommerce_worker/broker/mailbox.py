"""Remote control over queues that no other connection can block.

::

    who controls ──► celery.pidbox ──► ecommerce-7@host.0f3c….celery.pidbox ──► the worker, on this one connection
                                 └───► ecommerce-7@host.91ad….celery.pidbox     one that the broker takes for alive yet

Celery's queues of remote control are exclusive, as RabbitMQ wants such queues to be, and named after the worker.  A
load balancer that fails over cuts the worker's side of a connection only: until RabbitMQ misses its heartbeats, the
queue is locked, and the worker would end (``405 RESOURCE_LOCKED``).  So would the second of two workers of one name.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from celery.app import control
from kombu import Connection, Queue, pidbox
from kombu.exceptions import KombuError

from ecommerce_worker import logs

if TYPE_CHECKING:
    from celery import Celery

logger = logs.of(__name__)


class Mailbox(pidbox.Mailbox):
    """A mailbox whose exclusive queues have unique names."""

    _reply_id = ''

    def __call__(self, connection: Connection) -> Mailbox:
        """The mailbox on this connection, with a queue of its own for answers."""
        bound: Mailbox = super().__call__(connection)
        # A copy has what was cached in the original.
        bound.__dict__.pop('reply_queue', None)
        bound._reply_id = uuid.uuid4().hex
        return bound

    @property
    def oid(self) -> str:
        """The reply address."""
        return self._reply_id if self.queue_exclusive and self._reply_id else str(super().oid)

    def get_queue(self, hostname: str) -> Queue:
        """The queue in which a worker gets commands, which the exchange of all workers copies them to."""
        if self.queue_exclusive:
            hostname = f'{hostname}.{uuid.uuid4().hex}'
        return super().get_queue(hostname)


class Control(control.Control):
    """Celery's remote control with such mailboxes."""

    Mailbox: Any = Mailbox


def answers(app: Celery, command: str, **options: Any) -> dict[str, Any]:
    """The answer of each worker, by name; invalid answers are left out."""
    try:
        found = app.control.broadcast(command, reply=True, **options)
    except (TypeError, ValueError, ArithmeticError, AttributeError, KombuError) as error:
        logger.warning('the replies of workers cannot be read', error=type(error).__name__)
        return {}
    return {name: said for answer in found or () if isinstance(answer, Mapping) for name, said in answer.items()}
