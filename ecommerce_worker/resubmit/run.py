"""Publishing orders that the shop lists as paid and unfulfilled, and that are nowhere in RabbitMQ.

::

    shop: GET orders/ ──► placed within the window, still fulfillable
                             │ not parked, waiting, queued or in a worker's hands, by two looks,
                             │ and nowhere else that the ledger knows of
                             ▼
          GET orders/<n>/ ──► still so ──► waiting room, marked as sent again ──► worker, who asks the shop first

Messages are only borrowed from the broker and return to their places; nothing is moved.
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from os import EX_CONFIG
from typing import TYPE_CHECKING, Final

from amqp.exceptions import ResourceLocked
from kombu import Queue

from ecommerce_worker import runtime
from ecommerce_worker.broker import facts, preflight, publishing, topology
from ecommerce_worker.broker.notes import Notes
from ecommerce_worker.broker.wire import Call
from ecommerce_worker.clients.ecommerce import FULFILLABLE
from ecommerce_worker.errors import ApiError, NotPublished
from ecommerce_worker.execution.task import accepted
from ecommerce_worker.fulfillment.names import FULFILL
from ecommerce_worker.resubmit.messages import refuse_unrecorded, without_known
from ecommerce_worker.resubmit.names import Found, Memory, NotNow, Tell, Wanted
from ecommerce_worker.resubmit.report import Report, Row
from ecommerce_worker.resubmit.shops import by_age, by_number, patiently, shop_of, sites_of

if TYPE_CHECKING:
    from celery import Celery
    from kombu import Connection

    from ecommerce_worker.settings import Settings

#: The exclusive queue that serves as the lock of resubmitting.
LOCK: Final = 'ecommerce.resubmit'

#: Where shops publish orders, the present way first.
ORDER_QUEUES: Final = ('ecommerce.fulfillment', 'fulfillment')

#: Seconds of silence that the broker tolerates: a slow page of the shop may take that long.
HEARTBEAT: Final = 60


def resubmit(app: Celery, wanted: Wanted, memory: Memory | None,
             tell: Tell = lambda line: None) -> Report:  # noqa: ARG005
    """Publish the wanted orders that are missing; ``tell`` is called with lines about the progress.

    ``memory`` is the ledger, None where none is kept.  Needs nothing of the command line: a task may call it, where
    there is no ledger.  Raises :class:`NotNow`, :class:`NoSuchSite`,
    :class:`~ecommerce_worker.broker.preflight.BrokerUnusable`.
    """
    settings = runtime.current().settings
    sites = sites_of(settings, wanted.sites)
    if wanted.dry_run:
        with preflight.connect(app, settings) as connection:
            _refuse_without_waiting_room(connection)
    else:
        preflight.check(app, settings)
    report = Report()
    with _connected(app, settings) as connection, _alone(connection) as still_alone:
        refuse_unrecorded(connection, memory)
        found = list(by_number(wanted, sites, report, tell) if wanted.numbers else
                     by_age(wanted, sites, report, tell, still_alone))
        # Those that wait longest first.
        found.sort(key=lambda order: order.placed or datetime.min.replace(tzinfo=UTC))
        left = list(without_known(app, connection, wanted, memory, found, report, tell))
        for order in left:
            still_alone()
            row = _handled(app, settings, wanted, order, report)
            report.rows.append(row)
            report.published += row.published
            if row.published and report.published % 100 == 0:
                tell(f'{report.published} of {len(left)} orders {"found missing" if wanted.dry_run else "published"}')
    return report


def _handled(app: Celery, settings: Settings, wanted: Wanted, order: Found, report: Report) -> Row:
    """Handle an order that is missing here; returns its row."""
    if wanted.limit is not None and report.published >= wanted.limit:
        return Row(order, f'left: beyond --limit {wanted.limit}')
    try:
        # It may have been fulfilled since the shop listed it: then its message was here, and is gone.
        status = patiently(partial(shop_of(order.site).status, order.number))
    except ApiError as error:
        report.blame(order.number, error)
        return Row(order, f'left: {error}')
    if status not in FULFILLABLE:
        return Row(order, f'left: it is {status} by now')
    if wanted.dry_run:
        return Row(order, 'would be published', published=True)
    try:
        _publish(app, settings, order, wanted.delay)
    except NotPublished as error:
        report.troubles.append(f'{order.number}: {error}')
        return Row(order, f'left: {error}')
    return Row(order, f'published, runs in {max(1, math.ceil(wanted.delay))} s', published=True)


def _publish(app: Celery, settings: Settings, order: Found, delay: float) -> None:
    """Publish the order as the shop would have, but for the learner's wish for mail, which the shop does not tell.

    Raises :class:`~ecommerce_worker.errors.NotPublished`.
    """
    queue = next((name for name in ORDER_QUEUES if name in settings.QUEUES), settings.QUEUES[0])
    kwargs = {'site_code': order.site or None, 'email_opt_in': False}
    call = Call(FULFILL, str(uuid.uuid4()), (order.number,), kwargs, origin='resubmit')
    reason = f'resubmitted: the shop had it as {order.status}, and no message of it was in RabbitMQ'
    notes = Notes(queue=queue, resent=True).having({'at': time.time(), 'reason': reason})
    began = time.time()
    publishing.wait(app, call, notes, delay)
    facts.tell(app, settings, accepted(app.tasks[FULFILL], call, queue, reason, began=began))


def _refuse_without_waiting_room(connection: Connection) -> None:
    if not topology.is_rabbitmq(connection):
        raise preflight.BrokerUnusable('resubmitting needs RabbitMQ: BROKER_URL names another kind of '
                                       'broker', EX_CONFIG)


@contextmanager
def _connected(app: Celery, settings: Settings) -> Iterator[Connection]:
    """A connection that bears with silence; raises :class:`~ecommerce_worker.broker.preflight.BrokerUnusable`."""
    with preflight.connect(app, settings) as found:
        _refuse_without_waiting_room(found)
        patient = found.clone(heartbeat=HEARTBEAT)
    with patient as connection:
        try:
            with preflight.permitted():
                yield connection
        except (OSError, *connection.connection_errors, *connection.channel_errors) as error:
            raise preflight.BrokerUnusable(
                f'the broker closed the connection ({type(error).__name__}): run it again when it is back') from None


@contextmanager
def _alone(connection: Connection) -> Iterator[Callable[[], None]]:
    """Hold the lock of resubmitting; yields a function that checks it is still held.  Raises :class:`NotNow`."""
    channel = connection.channel()
    try:
        Queue(LOCK, durable=False, exclusive=True).bind(channel).declare()
    except ResourceLocked:
        raise NotNow('another resubmit is running: wait until it has ended') from None
    # A question now and then also keeps the connection from being taken for dead.
    yield lambda: channel.queue_declare(queue=LOCK, passive=True) and None
