"""A consumer that loses nothing: every message becomes a task that can be settled, or is parked unchanged."""

from __future__ import annotations

import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from itertools import groupby
from typing import Any, Final

from amqp import spec
from amqp.exceptions import PreconditionFailed
from celery import bootsteps
from celery.concurrency import solo
from celery.exceptions import WorkerShutdown
from celery.worker import consumer, state
from celery.worker.consumer.tasks import Tasks
from kombu.exceptions import MessageStateError

from ecommerce_worker import logs, runtime
from ecommerce_worker.broker import preflight, publishing, topology
from ecommerce_worker.broker.notes import NOTES, Notes
from ecommerce_worker.broker.publishing import Publication
from ecommerce_worker.broker.transport import corked
from ecommerce_worker.broker.wire import CONTENT_TYPES, Call, Raw, published_at, read
from ecommerce_worker.errors import Taken, Undecodable, UnknownTask, WrongArguments
from ecommerce_worker.execution.delivery import Delivery
from ecommerce_worker.execution.outcomes import Handover
from ecommerce_worker.execution.parking import noted
from ecommerce_worker.fulfillment.names import FULFILL
from ecommerce_worker.locks.cluster import ClusterTurns, Leases, Neighbours, machine
from ecommerce_worker.locks.machine import Turns
from ecommerce_worker.process import pulse
from ecommerce_worker.resubmit import run
from ecommerce_worker.telemetry.run import RunReport
from ecommerce_worker.worker import (
    inspect,  # noqa: F401 - registers a command of remote control
    nodes,
)
from ecommerce_worker.worker.acknowledging import Acknowledging
from ecommerce_worker.worker.control import Control
from ecommerce_worker.worker.direct import Strategy
from ecommerce_worker.worker.keeper import KEEP_SECONDS, LAST_SECONDS, Keeper, Kept
from ecommerce_worker.worker.lanes import Lanes
from ecommerce_worker.worker.request import Request, headers_of
from ecommerce_worker.worker.watchdog import Watchdog

logger = logs.of(__name__)

#: By how many messages that cannot be published, or parked, the prefetch window is widened at most.
MOST_KEPT: Final = 1000

#: By how much, where RabbitMQ counts by queue, and the version from which on it does so for all queues.
STEPS: Final = (0, 10, 100)
SINCE: Final = 4

#: Seconds after which a waiting message is not started; normally it is sent away long before.
STALE_SECONDS: Final = 10.0

#: Seconds between two rounds of acknowledging, once the event loop has ended.
FLUSH_SECONDS: Final = 0.1

#: Seconds between two turns of an event loop that has nothing else to do.
TURN_SECONDS: Final = 1.0

#: The lane of redelivered messages: they are deferred, which takes no time, or their run has already ended.
AGAIN: Final = 'delivered again'


class Topology(bootsteps.StartStopStep):
    """Declares everything this worker needs in the broker, on each connection: RabbitMQ may have lost its data."""

    requires = (Tasks,)

    def __init__(self, c: Consumer, **options: Any) -> None:
        self._upkeep = nodes.Upkeep()
        super().__init__(c, **options)

    def start(self, c: Consumer) -> None:
        """Declare on a connection of its own, before the first message comes."""
        self._upkeep.begin(c)


class Join(bootsteps.StartStopStep):
    """Announces this worker to those on other machines before it takes its first message."""

    requires = (Tasks,)

    def start(self, c: Consumer) -> None:
        """Join once; nothing else keeps the connection alive during that time."""
        if c.neighbours:
            c.neighbours.join(partial(_alive, c))


class Window(bootsteps.StartStopStep):
    """Divides the prefetch limit among queues where RabbitMQ counts it by queue (quorum queues; all from 4.0 on).

    Otherwise five queues would hold five times as many messages.
    """

    requires = (Tasks,)

    def start(self, c: Consumer) -> None:
        """Request the share of each queue when it is consumed."""
        c.counts_by_queue = topology.is_rabbitmq(c.connection) and (
            c.qos_global is False or _major_version(c.connection) >= SINCE)
        if c.counts_by_queue:
            c.task_consumer._basic_consume = partial(  # noqa: SLF001 - where the queues are consumed one by one
                _consume_share, c, c.task_consumer._basic_consume)  # noqa: SLF001


def _consume_share(c: Consumer, consume: Callable[..., Any], queue: Any, *args: Any, **options: Any) -> Any:
    c.task_consumer.channel.basic_qos(0, c.share(queue.name), a_global=False)
    return consume(queue, *args, **options)


def _major_version(connection: Any) -> int:
    version = str(connection.connection.server_properties.get('version', ''))
    return int(number) if (number := version.partition('.')[0]).isdigit() else 0


def _alive(c: Consumer) -> bool:
    """Send a heartbeat; False once the worker is stopping."""
    c.connection.heartbeat_check()
    return state.should_stop is None and state.should_terminate is None


class Afterwards:
    """A connection after the end of Celery's event loop, while the pool stops: for heartbeats and acknowledgements.

    Without heartbeats RabbitMQ would close it and redeliver messages that are about to be
    finished; only unfinished ones should be redelivered.
    """

    def __init__(self, c: Consumer) -> None:
        self._hub = c.hub
        self._connection = c.connection.connection
        self._every = c.connection.get_heartbeat_interval() / 2
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name='afterwards', daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Acknowledge finished messages, without closing the connection."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        beaten = time.monotonic()
        ended = False
        while not ended:
            ended = self._ended.wait(FLUSH_SECONDS)
            for settle in self._hub._pop_ready():  # noqa: SLF001 - what the event loop would do
                settle()
            if self._every and time.monotonic() - beaten >= self._every:
                beaten = time.monotonic()
                try:
                    self._connection.send_heartbeat()
                except Exception:  # noqa: BLE001 - it is cut, and who acknowledges next will say so
                    return


class Consumer(consumer.Consumer):
    """Reads every message before Celery does and passes on only what Celery can handle."""

    loop: Callable[..., None]

    class Blueprint(consumer.Consumer.Blueprint):
        """Celery's steps and ours, with our own remote control, and without a second waiting room that Celery would
        make beside quorum queues.
        """

        default_steps = (*(step for step in consumer.Consumer.Blueprint.default_steps
                           if not step.endswith((':DelayedDelivery', ':Control'))), Control, Topology, Join, Window)

    def __init__(self, on_task_request: Callable[[Any], None], *args: Any,
                 worker_options: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        self._accept = [CONTENT_TYPES[name] for name in runtime.current().settings.CELERY_ACCEPT_CONTENT
                        if name in CONTENT_TYPES]
        self._known = runtime.current().settings.known_queues
        # Two broadcast to every worker of the virtual host, other services' included, and cost more than they give.
        # The third publishes every two seconds for who watches events (-E), and on the thread that heartbeats are sent
        # from: a broker that takes no messages for a while would have them late, and the connection cut.
        options = {**(worker_options or {}), 'without_gossip': True, 'without_mingle': True,
                   'without_heartbeat': not kwargs.get('task_events')}
        pool, concurrency = kwargs['pool'], kwargs.get('initial_prefetch_count') or 1
        self._run = on_task_request
        self._to_settle: deque[tuple[Any, bool]] = deque()
        self._settles = False
        #: The queues by the tags of their consumers.
        self._queues: dict[str, str] = {}
        self.keeper = Keeper(kwargs['app'], kept=self._widen, given_back=runtime.current().report,
                             published=runtime.current().published)
        #: As many threads as one lane may have and as many again; children are dear, of them a few are kept free.
        self.room = getattr(pool, 'room', concurrency)
        self.lanes: Lanes[Request] = Lanes(self.room, self._start, self._send_away,
                                           weight=1.0 if self.room > concurrency else 3.0)
        self._takes_from_any, self._loop_thread = hasattr(pool, 'room'), threading.get_ident()
        self._concurrency, self._wider, self.counts_by_queue = concurrency, 0, False
        self.neighbours = self._turns(kwargs['app'])
        self._watchdog = Watchdog(self, self.room)
        self._afterwards: Afterwards | None = None
        self._ticked, self._stood_still, self._patience = time.monotonic(), False, 0.0
        self._consumes, self._longest = False, _longest_turn(pool)
        #: How often it has begun to consume, which is once for each connection.
        self.connections = 0
        super().__init__(self._offer, *args, worker_options=options, **kwargs)
        self.initial_prefetch_count = self._window = max(self.room, concurrency + max(1, concurrency // 2))
        self._kept = 0
        #: Acknowledges messages whose runs have ended, once their ends are reported.
        self.acknowledging = Acknowledging(self, self._window - concurrency)
        if self.hub:
            self.hub.on_close.add(self._on_hub_closed)
            self.hub.on_tick.add(self._tick)
            # Not by each turn, of which there are thousands a second.
            self.hub.call_repeatedly(TURN_SECONDS, self._beat)
        self._watchdog.start()
        self.loop = partial(_until_late, self.loop)
        pulse.own.look = self.standing
        preflight.refuse_unsafe(self.conninfo, runtime.current().settings)
        for limit in preflight.limits(self.conninfo):
            logger.warning('this broker promises less than RabbitMQ', note=limit)

    def _turns(self, app: Any) -> Neighbours | None:
        """Set up the locks of orders as ``TURNS`` says, before children are forked."""
        current = runtime.current()
        if current.settings.TURNS == 'machine' or not topology.is_rabbitmq(app.connection_for_read()):
            return None
        neighbours = None
        if current.settings.TURNS == 'auto':
            neighbours = Neighbours(app, lambda: list(app.amqp.queues.consume_from), self._orders)
        turns = Turns(current.settings.BROKER_URL)
        leases = Leases(app, machine() if turns.exclude() else '')
        current.turn = ClusterTurns(turns, leases, lambda: neighbours is None or not neighbours.alone).turn
        return neighbours

    def _orders(self) -> list[Request]:
        """The orders that are running."""
        return [request for _, request, _ in self.lanes.running() if request.name == FULFILL]

    def start(self) -> None:
        """Consume until stopped; a missing permission ends with one line and its exit status."""
        try:
            with preflight.permitted():
                super().start()
        except preflight.BrokerUnusable as error:
            logger.critical('the broker cannot be used', reason=str(error))
            raise WorkerShutdown(error.exit_status) from None

    def standing(self) -> tuple[str, str]:
        """See :class:`~ecommerce_worker.process.pulse.Pulse`: queues, running messages, open circuit breakers."""
        consumed = self.task_consumer.queues if self.connection and self.task_consumer else ()
        reason = '' if consumed and self._consumes else 'it consumes nothing; is RabbitMQ unreachable?'
        left_alone = (f'{host} is not called for {seconds:.0f} s' for host, seconds in runtime.current().left_alone())
        return reason, '; '.join((f'{self.room} threads, {len(self.lanes.running())} in hand', *left_alone))

    def _beat(self) -> None:
        pulse.own.beat(self._longest)

    def perform_pending_operations(self) -> None:
        """What Celery calls in each turn of its loop where there is no event loop."""
        super().perform_pending_operations()
        self._beat()

    def ensure_connected(self, conn: Any) -> Any:
        """Connect, however long it takes; the process stays alive while it tries."""
        ensure = conn.ensure_connection

        def trying(*args: Any, callback: Callable[[], None], **options: Any) -> Any:
            def turn() -> None:
                pulse.own.beat(pulse.OUTSIDE_SECONDS)
                callback()

            pulse.own.beat(pulse.OUTSIDE_SECONDS)
            return ensure(*args, callback=turn, **options)

        conn.ensure_connection = trying
        try:
            return super().ensure_connected(conn)
        finally:
            del conn.ensure_connection

    def on_ready(self) -> None:
        """The queues are consumed."""
        self._consumes, self.connections = True, self.connections + 1
        self._beat()
        super().on_ready()

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], None]:
        """The handler of each message."""
        receive = super().create_task_handler(*args, **kwargs)
        # The event loop starts on a new connection.
        self._patience = self.connection.get_heartbeat_interval() if self.hub and self.connection else 0.0
        self._ticked, self._stood_still = time.monotonic(), False
        self._loop_thread = threading.get_ident()

        def on_message(message: Any) -> None:
            self._refuse_after_a_standstill()
            call = None
            try:
                delivery = self._delivery(message)
                call = delivery.call
                self._admit(delivery)
            except Undecodable as error:
                self._park(message, str(error), call, error.cause)
                return
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the message's and not the connection's
                self._park(message, f'the message cannot be read ({type(error).__name__})', call)
                return
            if delivery.redelivered and self.keeper.adopt(delivery.message, partial(self.settle, message)):
                return
            _remember_form(message)
            strategy, held = self.strategies[call.task], self._holds(call)
            if isinstance(strategy, Strategy) and not held and strategy.receive(message, delivery):
                return
            _present(message, delivery, keep_eta=held)
            self.acknowledging.see_to(message, call.id)
            receive(message)

        return on_message

    def _refuse_after_a_standstill(self) -> None:
        """Start nothing that arrived before the process was suspended: others have the messages of a lost connection.

        What is in the socket still would be run here too; raises what a lost connection raises.
        """
        self._tick()
        if self._stood_still:
            raise ConnectionResetError('the process was suspended for longer than RabbitMQ waits for heartbeats')

    def _tick(self) -> None:
        before, self._ticked = self._ticked, time.monotonic()
        self._stood_still |= bool(self._patience) and self._ticked - before > self._patience

    def _holds(self, call: Call) -> bool:
        """Whether this worker should hold the call until it is due, for a broker that cannot delay it."""
        if topology.is_rabbitmq(self.connection):
            return False
        return call.eta is None or call.eta.timestamp() - time.time() <= publishing.LONGEST_HELD

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Park a body that cannot be decompressed."""
        self._park(message, f'the body cannot be read ({type(exc).__name__})')

    def on_unknown_message(self, body: Any, message: Any) -> None:  # noqa: ARG002
        """Never called with :meth:`create_task_handler`; handled anyway."""
        self._park(message, 'not a Celery message')

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:  # noqa: ARG002
        """See :meth:`on_unknown_message`."""
        self._park(message, 'there is no such task in this version of the worker')

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:  # noqa: ARG002
        """See :meth:`on_unknown_message`."""
        self._park(message, f'the message is not valid ({type(exc).__name__})')

    def _delivery(self, message: Any) -> Delivery:
        raw = Raw.of(message)
        redelivered = bool(message.delivery_info.get('redelivered'))
        return Delivery(read(raw, self._accept), raw, self._notes(message, raw), redelivered)

    def _admit(self, delivery: Delivery) -> None:
        """Raise the reason to park a message that no task of this worker may run."""
        call = delivery.call
        if delivery.raw.unreadable:
            raise Undecodable(f'not all of it can be read: {", ".join(sorted(delivery.raw.unreadable))}')
        if call.task not in self.strategies:
            raise UnknownTask(f'there is no task {call.task[:200]!r} in this version of the worker')
        if call.id in state.revoked:
            raise Undecodable('it was revoked by remote control')

    def _notes(self, message: Any, raw: Raw) -> Notes:
        notes = Notes.of(raw.headers)
        info = message.delivery_info
        # Anyone may have written a message's headers: only its queue is certain.
        noted = notes.queue if notes.queue in (self.app.amqp.queues.keys() | self._known) else ''
        queue = (self._consumed(info.get('consumer_tag')) or noted
                 or topology.queue_of(info.get('exchange', ''), info.get('routing_key', '')))
        # What was moved by one of us says itself when it was first published.
        published = notes.published if NOTES in raw.headers else published_at(raw.headers, message.properties)
        return replace(notes, queue=queue, since=notes.since or time.time(), published=published)

    def _consumed(self, tag: str | None) -> str | None:
        """The queue of this consumer tag; None if the broker does not say.

        Where the waiting room is to bring a message back: it keeps for ever what it has no way for, and neither a
        binding of the operator's nor who moved a message by hand need have named the queue in the routing key.
        """
        if tag and self.task_consumer and tag not in self._queues:
            # No two consumers of a process have the same tag.
            self._queues = {known: queue for queue, known in list(self.task_consumer._active_tags.items())}  # noqa: SLF001
        return self._queues.get(tag or '')

    def _park(self, message: Any, reason: str, call: Call | None = None,
              cause: str = Undecodable.cause) -> None:
        try:
            publication, report = self._parked(message, reason, call, cause)
        except Exception as error:  # noqa: BLE001 - if its notes cannot be made, its body is kept anyway
            logger.error('a message is parked without its notes', error=type(error).__name__)
            notes = Notes(queue=self._consumed(message.delivery_info.get('consumer_tag')) or '')
            publication, report = publishing.parked_message(
                Raw(Raw.of(message).body, None, None), noted(self.app, None, notes, reason)), None

        def settle(done: bool) -> None:
            if done and report:
                runtime.current().report(report)
            self.settle(message, done)

        self.keeper.keep(Kept((str(uuid.uuid4()),), (publication,), settle, report))

    def _parked(self, message: Any, reason: str, call: Call | None, cause: str) -> tuple[Publication, RunReport]:
        """The parked form of a message that was not run, and the report of it."""
        raw = Raw.of(message)
        notes = self._notes(message, raw).having({'at': time.time(), 'reason': reason})
        note = noted(self.app, call, notes, reason)
        report = RunReport(
            'parked', task=note.task, id=note.id, key=note.key, site=note.site, reason=reason, cause=cause,
            queue=notes.queue, root_id=call.root_id or note.id if call else '', worker=self.hostname)
        return publishing.parked_message(raw, replace(note, report=report)), report

    def settle(self, message: Any, done: bool) -> None:
        """Acknowledge or requeue a message; from any thread."""
        self._to_settle.append((message, done))
        # Of many that are settled at about the same time, the first one wakes the event loop.
        if not self._settles:
            self._settles = True
            self.call_soon(self._settle)

    def _settle(self) -> None:
        """Acknowledge or return messages, all at once."""
        self._settles = False  # first: whoever comes from now on calls again
        batch = [self._to_settle.popleft() for _ in range(len(self._to_settle))]
        for channel, settled in groupby(batch, lambda it: it[0].channel):
            try:
                with corked(channel):
                    for message, done in settled:
                        _say(message.ack if done else partial(_nack, message), self.connection_errors)
            except self.connection_errors as error:
                logger.debug('the connection was lost before they were settled', error=type(error).__name__)

    # -- threads ------------------------------------------------------------------------------------------------------

    def hand_over(self, request: Request, handover: Handover) -> None:
        """Keep the message of a finished run until what follows from it is published."""
        def settle(done: bool) -> None:
            if done:
                current = runtime.current()
                current.runs.secured(handover.run)
                for report in handover.accepted:
                    current.report(report)
            request.settle(done)

        # RabbitMQ counts from the delivery on; a run that took very long leaves a moment for publishing all the same.
        since = max(request.offered, time.monotonic() - KEEP_SECONDS + 2 * LAST_SECONDS)
        self.keeper.keep(Kept(handover.message, handover.publications, settle, handover.report, since))

    def let_go(self, request: Request) -> None:
        """Return the message of a run that does not end, while its thread stays lost."""
        if request.acknowledged or getattr(request.message.channel, 'connection', None) is None:
            return  # requeued with its connection
        handover = request.task.let_go(request.delivery)
        if handover is None:
            return

        def settle(done: bool) -> None:
            if not request.acknowledged:  # it has not ended meanwhile
                request.acknowledged = True
                self.settle(request.message, done)

        self.keeper.keep(Kept(handover.message, handover.publications, settle, handover.report))

    def _offer(self, request: Request) -> None:
        """Start it if its lane has a free thread; a redelivered message is only counted."""
        request.consumer, request.offered = self, time.monotonic()
        delivery = request.delivery
        lane = AGAIN if delivery.redelivered else request.task.lane_of(delivery.call)
        self.lanes.offer(lane, request, stays=delivery.redelivered)

    def _start(self, request: Request) -> None:
        """Start it; a prefork pool gets work only from the event loop's thread."""
        if self.hub and not self._takes_from_any and threading.get_ident() != self._loop_thread:
            self.call_soon(self._begin, request)
        else:
            self._begin(request)

    def _begin(self, request: Request) -> None:
        if time.monotonic() - request.offered > STALE_SECONDS and not request.delivery.redelivered:
            # The process was suspended meanwhile: its connection may be lost, and another worker may have the message.
            request.settle(False)
            return
        try:
            if request.begin:
                request.begin(request.run)
            else:
                self._run(request)
        except Exception:
            # The pool is closing: the message is redelivered when the connection closes.
            logger.debug('not started: the pool is closing', id=request.id, exc_info=True)
            self.lanes.left(request)

    def _send_away(self, request: Request, delay: float) -> None:
        """Return a message later, as if it had not been delivered."""
        delivery = request.delivery
        outcome = request.task.deferred(delivery, 'it is not its turn yet: others wait for the same service', delay,
                                        Taken.cause)
        try:
            publication = publishing.waiting_call(delivery.call, outcome.notes, delay)
        except WrongArguments:
            self.lanes.offer(AGAIN, request, stays=True)
            return
        report = request.task.announce(delivery, outcome)
        self.hand_over(request, Handover((publication,), delivery.message, report))

    def _widen(self, kept: int) -> None:
        """Widen the prefetch window by the messages that cannot be published at present."""
        self.call_soon(self._set_window, min(kept, MOST_KEPT))

    def share(self, queue: str) -> int:
        """The prefetch of one queue if each has its own: orders have the most.

        These include messages whose acknowledgements wait for their reports.
        """
        return (self._window if queue in run.ORDER_QUEUES else max(1, self._concurrency // 4)) + self._wider

    def _set_window(self, kept: int) -> None:
        self._kept = kept
        self.widen()

    def widen(self) -> None:
        """Widen the prefetch window by kept and held messages, on the event loop."""
        self.initial_prefetch_count = self._window + self._kept
        if self.qos:
            self.qos.value = self.initial_prefetch_count + self.acknowledging.wider
        # Consumers keep the prefetch that they began with: they are restarted, but not at every change.
        wider = next((step for step in STEPS if step >= self._kept), MOST_KEPT)
        if self.counts_by_queue and wider != self._wider and self.task_consumer:
            self._wider = wider
            self.task_consumer.cancel()
            self.task_consumer.consume()

    def on_close(self) -> None:
        """The connection is lost, or the worker stops: forget messages that have not begun, or return them soon."""
        self._consumes = False
        if self.controller.blueprint.state == bootsteps.RUN:
            super().on_close()
            self.lanes.forget(lambda request: request in state.active_requests)
        else:
            self.lanes.close()
            super().on_close()

    def stop(self) -> None:
        """Stop consuming; running tasks continue and are acknowledged."""
        super().stop()
        if self.hub and self.connection and topology.is_rabbitmq(self.connection):
            self._afterwards = Afterwards(self)

    def finish(self) -> bool:
        """Acknowledge finished messages once consuming has stopped; returns whether it has."""
        if self._afterwards is None:
            return False
        self.acknowledging.flush()
        self._afterwards.end()
        return True

    def _on_hub_closed(self, hub: Any) -> None:  # noqa: ARG002
        """The pool has stopped: publish what follows from its last runs, and acknowledge their messages."""
        if self.controller.blueprint.state == bootsteps.RUN:
            return
        self.keeper.end(runtime.current().settings.SHUTDOWN_SECONDS)
        self.finish()


def _longest_turn(pool: Any) -> float:
    """How long a turn of the event loop may take, in seconds; 0 for no longer than anything else."""
    if not isinstance(pool, solo.TaskPool):
        return 0.0
    settings = runtime.current().settings
    return float(settings.LONGEST_RUN + settings.MANAGEMENT_COMMAND_TIMEOUT)


def _say(word: Callable[[], None], connection_errors: tuple[type[BaseException], ...]) -> None:
    """Acknowledge or return a message; if its connection is lost, it is redelivered anyway."""
    try:
        word()
    except MessageStateError:
        logger.debug('it has been settled already')
    except connection_errors as error:
        logger.debug('the connection was lost before it was settled', error=type(error).__name__)


def _nack(message: Any) -> None:
    """Return a message with the method that RabbitMQ since 4.3 does not count as a redelivery."""
    if message.channel is None or not hasattr(message.channel, 'send_method'):
        message.reject(requeue=True)
    else:
        message.channel.send_method(spec.Basic.Nack, 'Lbb', (message.delivery_tag, False, True))


def _until_late(loop: Callable[..., None], *args: Any) -> None:
    """Consume; a message that was held for too long, and that RabbitMQ has taken back, only costs the connection.

    RabbitMQ closes the channel then (``consumer_timeout``), and Celery would end the worker.
    """
    try:
        loop(*args)
    except PreconditionFailed as error:
        if 'acknowledgement' not in str(error):
            raise
        raise ConnectionResetError(f'RabbitMQ took back messages that were held for too long: {error}') from None


def _remember_form(message: Any) -> None:
    """Make a message return unchanged: kombu's virtual transports rewrite its headers."""
    if hasattr(message, 'serializable'):
        as_it_came = message.serializable()
        message.serializable = lambda: as_it_came


def _present(message: Any, delivery: Delivery, *, keep_eta: bool) -> None:
    """Make the message one that Celery accepts without decoding it again.

    An eta is waited for in the broker, if possible.
    """
    call: Call = delivery.call
    message.headers = headers_of(delivery, call.eta.isoformat() if keep_eta and call.eta else None)
    # What `Message.payload` keeps: a mapping makes Celery take it as decoded.
    message._decoded_cache = {'args': call.args, 'kwargs': call.kwargs, **call.embed}  # noqa: SLF001
