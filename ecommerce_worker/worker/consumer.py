"""A consumer that loses nothing: every message becomes a task that can be settled, or is parked as it came."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

from amqp.exceptions import PreconditionFailed
from celery import bootsteps
from celery.exceptions import WorkerShutdown
from celery.worker import consumer, state
from celery.worker.consumer.tasks import Tasks

from ecommerce_worker import runtime
from ecommerce_worker.broker import preflight, publishing, topology
from ecommerce_worker.broker.notes import Notes
from ecommerce_worker.broker.wire import CONTENT_TYPES, Call, Raw, read, shortened
from ecommerce_worker.errors import NotPublished, Undecodable
from ecommerce_worker.execution.delivery import DELIVERY, Delivery
from ecommerce_worker.execution.parking import key_of, site_of
from ecommerce_worker.execution.task import GIVE_BACK_SECONDS
from ecommerce_worker.telemetry.log import quoted, word
from ecommerce_worker.telemetry.run import Told
from ecommerce_worker.worker import inspect  # noqa: F401 - tells what is in hand
from ecommerce_worker.worker.acknowledging import Acknowledging
from ecommerce_worker.worker.control import Control
from ecommerce_worker.worker.nodes import Watch

logger = logging.getLogger(__name__)


class Topology(bootsteps.StartStopStep):
    """Declares all that this worker has in the broker, on each connection: RabbitMQ may have lost its data."""

    requires = (Tasks,)

    def __init__(self, c: Consumer, **options: Any) -> None:
        self._watch = Watch()
        super().__init__(c, **options)

    def start(self, c: Consumer) -> None:
        """Declare on a connection of its own, before the first message comes."""
        self._watch.begin(c)


class Heartbeat(bootsteps.StartStopStep):
    """Heartbeats after the end of Celery's event loop, which sends them until then.

    Without them RabbitMQ would close the connection of a stopping worker and deliver again what it is about to finish.
    """

    requires = (Tasks,)

    def __init__(self, c: Consumer, **options: Any) -> None:
        self._ended = threading.Event()
        super().__init__(c, **options)

    def stop(self, c: Consumer) -> None:
        """Begin to beat, unless the connection is gone and another will come."""
        interval = c.connection.get_heartbeat_interval() if c.connection else 0
        if interval:
            beat = threading.Thread(target=_beat, args=(c.connection.connection, interval / 2, self._ended))
            beat.daemon = True
            beat.start()

    def shutdown(self, c: Consumer) -> None:  # noqa: ARG002
        """Stop beating: all has ended."""
        self._ended.set()


def _beat(connection: Any, every: float, ended: threading.Event) -> None:
    while not ended.wait(every):
        try:
            connection.send_heartbeat()
        except Exception:  # noqa: BLE001 - it is cut, and who acknowledges next will say so
            return


class Consumer(consumer.Consumer):
    """Reads every message before Celery does and hands on only what Celery cannot fail on."""

    loop: Callable[..., None]

    class Blueprint(consumer.Consumer.Blueprint):
        """Celery's steps and ours, with our own remote control, and without a second waiting room that Celery would
        make beside quorum queues.
        """

        default_steps = (*(step for step in consumer.Consumer.Blueprint.default_steps
                           if not step.endswith((':DelayedDelivery', ':Control'))), Control, Topology, Heartbeat)

    def __init__(self, *args: Any, worker_options: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        self._accept = [CONTENT_TYPES[name] for name in runtime.current().settings.CELERY_ACCEPT_CONTENT
                        if name in CONTENT_TYPES]
        self._known = runtime.current().settings.known_queues
        # Two broadcast to every worker of the virtual host, other services' included, and cost more than they give.
        # The third publishes every two seconds for who watches events (-E), and on the thread that heartbeats are sent
        # from: a broker that takes no messages for a while would have them late, and the connection cut.
        options = {**(worker_options or {}), 'without_gossip': True, 'without_mingle': True,
                   'without_heartbeat': not kwargs.get('task_events')}
        super().__init__(*args, worker_options=options, **kwargs)
        self._acknowledging = Acknowledging(self)
        self._parking = ThreadPoolExecutor(1, 'parking')
        self.loop = partial(_until_late, self.loop)
        preflight.refuse_unsafe(self.conninfo, runtime.current().settings)
        for limit in preflight.limits(self.conninfo):
            logger.warning('%s', limit)

    def start(self) -> None:
        """Consume until told to stop; one line, and the exit status of it, for what the broker does not permit."""
        try:
            with preflight.permitted():
                super().start()
        except preflight.BrokerUnusable as error:
            logger.critical('%s', error)
            raise WorkerShutdown(error.exit_status) from None

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], None]:
        """What is called with each message."""
        receive = super().create_task_handler(*args, **kwargs)

        def on_message(message: Any) -> None:
            call = None
            try:
                delivery = self._delivery(message)
                call = delivery.call
                self._admit(delivery)
            except Undecodable as error:
                self._park(message, str(error), call)
                return
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the message's and not the connection's
                self._park(message, f'the message cannot be read ({type(error).__name__})', call)
                return
            _present(message, delivery, keep_eta=self._holds(call))
            self._acknowledging.see_to(message, call.id)
            receive(message)

        return on_message

    def _holds(self, call: Call) -> bool:
        """Whether this worker is to hold the call until its time, for a broker that cannot, and not for too long."""
        if topology.has_waiting_room(self.connection):
            return False
        return call.eta is None or call.eta.timestamp() - time.time() <= publishing.LONGEST_HELD

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """A body that cannot even be decompressed."""
        self._park(message, f'the body cannot be read ({type(exc).__name__})')

    def on_unknown_message(self, body: Any, message: Any) -> None:  # noqa: ARG002
        """Not reached by way of :meth:`create_task_handler`; kept shut all the same."""
        self._park(message, 'the message is not of Celery')

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:  # noqa: ARG002
        """As above."""
        self._park(message, 'there is no such task in this version of the worker')

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:  # noqa: ARG002
        """As above."""
        self._park(message, f'the message is not valid ({type(exc).__name__})')

    def _delivery(self, message: Any) -> Delivery:
        raw = Raw.of(message)
        redelivered = bool(message.delivery_info.get('redelivered'))
        return Delivery(read(raw, self._accept), raw, self._notes(message, raw), redelivered)

    def _admit(self, delivery: Delivery) -> None:
        """Refuse, with the reason for parking, what no task of this worker is to run."""
        call = delivery.call
        if delivery.raw.unreadable:
            raise Undecodable(f'not all of it can be read: {", ".join(sorted(delivery.raw.unreadable))}')
        if call.task not in self.strategies:
            raise Undecodable(f'there is no task {call.task[:200]!r} in this version of the worker')
        if call.id in state.revoked:
            raise Undecodable('it was revoked by remote control')

    def _notes(self, message: Any, raw: Raw) -> Notes:
        notes = Notes.of(raw.headers)
        info = message.delivery_info
        # What a message says of itself anybody may have written: from a queue of ours it came, or it did not.
        noted = notes.queue if notes.queue in (self.app.amqp.queues.keys() | self._known) else ''
        queue = (self._consumed(info.get('consumer_tag')) or noted
                 or topology.queue_of(info.get('exchange', ''), info.get('routing_key', '')))
        return replace(notes, queue=queue, since=notes.since or time.time())

    def _consumed(self, tag: str | None) -> str | None:
        """The queue that this consumer tag stands for; None for a broker that does not tell.

        Where the waiting room is to bring a message back: it keeps for ever what it has no way for, and neither a
        binding of the operator's nor who moved a message by hand need have named the queue in the routing key.
        """
        tags = self.task_consumer._active_tags if tag and self.task_consumer else {}  # noqa: SLF001
        return next((queue for queue, known in list(tags.items()) if known == tag), None)

    def _park(self, message: Any, reason: str, call: Call | None = None) -> None:
        """Park it on a thread of its own: a broker that takes nothing for a while must not hold up our heartbeats."""
        self._parking.submit(self._park_now, message, reason, call)

    def _park_now(self, message: Any, reason: str, call: Call | None) -> None:
        raw = Raw.of(message)
        notes = self._notes(message, raw).having({'at': time.time(), 'reason': reason})
        task, id_, key = '', str(uuid.uuid4()), ''
        if call:
            task, id_, key = shortened(call.task, 255), call.id, key_of(self.app, call)
        told = Told(
            outcome='parked', task=task, id=id_, key=key, site=site_of(self.app, call) if call else '', attempt=0,
            seconds=0.0, reason=reason, queue=notes.queue, root_id=call.root_id or id_ if call else '',
            started=time.time(), worker=self.hostname)
        try:
            publishing.park(self.app, raw, notes, task=task, id=id_, key=key, reason=reason, fact=told.as_fact())
        except Exception as error:  # noqa: BLE001 - whatever it is, the message must be settled
            logger.warning('could not be parked, given back to its queue: task=%s key=%s id=%s reason=%s error=%s',
                           word(task), word(key), word(id_), quoted(reason),
                           quoted(str(error) if isinstance(error, NotPublished) else type(error).__name__))
            time.sleep(GIVE_BACK_SECONDS)
            self.call_soon(message.reject_log_error, logger, self.connection_errors, True)
            return
        runtime.current().tell(told)
        self.call_soon(message.ack_log_error, logger, self.connection_errors)


def _until_late(loop: Callable[..., None], *args: Any) -> None:
    """Consume; a message that RabbitMQ has taken back, since it was in hand for too long, costs the connection only.

    RabbitMQ closes the channel then (``consumer_timeout``), and Celery would end the worker.
    """
    try:
        loop(*args)
    except PreconditionFailed as error:
        if 'acknowledgement' not in str(error):
            raise
        raise ConnectionResetError(f'RabbitMQ took messages back that were in hand for too long: {error}') from None


def _present(message: Any, delivery: Delivery, *, keep_eta: bool) -> None:
    """Make the message one that Celery takes without decoding it again.

    Only what it needs is handed on: an order does not expire, time limits and revocations are not the producer's,
    and the arguments are shown to nobody.  An eta is waited for in the broker, where it can.
    """
    call: Call = delivery.call
    if hasattr(message, 'serializable'):
        # Brokers that kombu plays itself give a message back in this form, in which the delivery has no place.
        as_it_came = message.serializable()
        message.serializable = lambda: as_it_came
    message.headers = {
        'lang': 'py', 'task': call.task, 'id': call.id, 'root_id': call.root_id, 'parent_id': call.parent_id,
        'retries': call.retries, 'origin': call.origin, 'argsrepr': '', 'kwargsrepr': '',
        'eta': call.eta.isoformat() if keep_eta and call.eta else None,
        DELIVERY: delivery,
    }
    # What `Message.payload` keeps: a mapping makes Celery take it as decoded.
    message._decoded_cache = {'args': call.args, 'kwargs': call.kwargs, **call.embed}  # noqa: SLF001
