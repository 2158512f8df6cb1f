"""The only base class of tasks: perform → announce → settle.

A run ends in one of five outcomes, whatever its body raises; each has one way of settling the message, and the
message is acknowledged only after the broker has confirmed what follows from it.  No thread waits for that: what is to
be published is handed over (:class:`Handover`), and the worker's keeper acknowledges the message when it is.
"""

from __future__ import annotations

import inspect
import random
import time
import traceback
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Final

import celery
from celery import shared_task
from celery.exceptions import Ignore, SoftTimeLimitExceeded

from ecommerce_worker import correlation, logs, runtime
from ecommerce_worker.broker import publishing
from ecommerce_worker.broker.notes import Notes, ParkingNote
from ecommerce_worker.broker.publishing import Publication
from ecommerce_worker.broker.wire import Call
from ecommerce_worker.errors import (
    ApiError,
    Held,
    Misconfigured,
    Skip,
    Taken,
    Transient,
    WorkerError,
    WrongArguments,
    local_failure,
    where,
)
from ecommerce_worker.execution.delivery import DELIVERY, Delivery
from ecommerce_worker.execution.outcomes import Deferred, Done, Handover, Outcome, Parked, Retrying, Skipped, Then
from ecommerce_worker.retry import Patience, moment
from ecommerce_worker.settings import Settings
from ecommerce_worker.telemetry.run import DEFERRED, STARTED, RunReport, new_id
from ecommerce_worker.words import printable, short_name

if TYPE_CHECKING:
    from ecommerce_worker.site import Site

logger = logs.of(__name__)

#: The lane of all jobs that run by the clock.
JOBS: Final = 'jobs'

#: The longest delay, in seconds, of a message that met another run of its order.
LONGEST_MOMENT: Final = 30.0

#: Seconds between two tries of a task called as a function while another run is working on the order.
LOOK_SECONDS: Final = 0.2

#: Seconds after which a deferred message is reported again: less than the silence after which an order counts as
#: overdue.
REPORT_SECONDS: Final = 300.0

#: How often a task that is called in eager mode is tried again at once, where a service is unreachable or busy.
EAGER_OUTAGES: Final = 2


def accepted(body: Any, call: Call, queue: str, reason: str = '', *, began: float) -> RunReport:
    """The report that a call was published to this queue, ``began`` (epoch seconds) being when that was begun.

    It may be in the hands of a worker before its publisher is back.  ``body`` is its task; one that is not ours, or
    unknown here, has no key.
    """
    ours = isinstance(body, Task)
    return RunReport('accepted', started=began, task=call.task, id=call.id, queue=queue, reason=reason,
                     root_id=call.root_id or call.id, key=body.key_of(call) if ours else '',
                     site=body.site_of(call) if ours else '', **(body.about_of(call) if ours else {}))


class Task(celery.Task):
    """A task that never loses its message."""

    abstract = True
    acks_late = True
    reject_on_worker_lost = True
    ignore_result = True
    max_retries = None
    Request = 'ecommerce_worker.worker.request:Request'
    Strategy = 'ecommerce_worker.worker.direct:Strategy'

    #: The retry policy of the task at a site.
    policy: ClassVar[Callable[[Site], Patience]]

    #: The lane of the task at a site, such as the service it waits for: runs of one lane share its threads.
    lane: ClassVar[Callable[[Site], str]]

    #: The longest time in seconds that a normal run may take, if that is minutes; otherwise 0.
    longest: ClassVar[Callable[[Settings], float]]

    #: The name of the argument that identifies the task for people, such as the order number; '' if none does.
    key: ClassVar[str]

    #: The position of that argument; None: as in the signature of the body.
    position: ClassVar[int | None]

    #: What else is reported of a call, as fields of a :class:`~ecommerce_worker.telemetry.run.RunReport`.
    about: ClassVar[Callable[[Call], Mapping[str, Any]]]

    #: Returns the site of a call, for a body that parses its own arguments; None: the argument ``site_code``.
    site: ClassVar[Callable[[Call], Any] | None]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the body; called directly or eagerly it behaves like any function and raises its errors."""
        delivery: Delivery | None = self.request.get(DELIVERY)
        if delivery is None:
            self._called(*args, **kwargs)
            return None
        with correlation.of(delivery.call.correlation):
            self._delivered(delivery)
        return None

    def _delivered(self, delivery: Delivery) -> None:
        """Run it, unless it has run; raises what :meth:`settle` raises."""
        runs = runtime.current().runs
        run = runs.of(delivery.message, redelivered=delivery.redelivered, name=delivery.notes.run)
        if not run.lock.acquire(blocking=False):
            # It may be slow or hang: nothing waits for it, and the round is counted.
            self._come_back(delivery, run, 'redelivered while running')
            return
        try:
            if run.outcome is None:
                runs.begin(delivery.call.id)
                try:
                    run.outcome, report = self._heard(delivery)
                finally:
                    runs.end(delivery.call.id, acted=not isinstance(run.outcome, Deferred))
                run.report = self.announce(delivery, run.outcome, report)
            else:
                logger.info('redelivered after its run had ended', task=self.name, id=delivery.call.id)
            self.settle(delivery, run)
        finally:
            run.lock.release()

    def let_go(self, delivery: Delivery) -> Handover | None:
        """How to settle the message of a run that does not end, as if it was redelivered; None if it has ended.

        Not every RabbitMQ redelivers it on its own, however long it is unacknowledged.
        """
        run = runtime.current().runs.of(delivery.message, redelivered=True, name=delivery.notes.run)
        if run.outcome is None and run.lock.locked():
            try:
                self._come_back(delivery, run, 'the run does not end')
            except Handover as handover:
                return handover
        return None

    def _come_back(self, delivery: Delivery, run: runtime.Run, reason: str) -> None:
        """Return the message to its run later; raises :class:`Handover`."""
        runtime.current().runs.expect(run)
        again = runtime.Run(outcome=self._interrupted(delivery, reason, run=run.name))
        again.report = self.announce(delivery, again.outcome)
        self.settle(delivery, again)

    def _called(self, *args: Any, **kwargs: Any) -> None:
        """Run the body, and what follows, in the process of its caller; another run of the order is waited for.

        In eager mode it is tried again at once, for nothing else would: what is refused as often as an order, what is
        unreachable :data:`EAGER_OUTAGES` times more.
        """
        refusals = runtime.current().settings.MAX_FULFILLMENT_RETRIES if self.request.is_eager else 0
        while True:
            try:
                then = super().__call__(*args, **kwargs)
            except Taken:
                time.sleep(LOOK_SECONDS)
                continue
            except Skip:
                return
            except ApiError as error:
                most = refusals if not isinstance(error, Transient) else min(refusals, EAGER_OUTAGES)
                if self.request.retries >= most:
                    raise
                self.request.retries += 1
                continue
            for following in then or ():
                self.app.tasks[following.task](**following.kwargs)
            return

    @property
    def repeated(self) -> bool:
        """Whether to ask before acting: another run may already have taken effect."""
        delivery: Delivery | None = self.request.get(DELIVERY)
        if delivery is None:
            return bool(self.request.is_eager and self.request.retries)
        return delivery.repeated or runtime.current().runs.has_another(delivery.call.id)

    @property
    def unsure(self) -> bool:
        """Whether an earlier run may have taken effect without an answer; a refusal may then mean just that."""
        delivery: Delivery | None = self.request.get(DELIVERY)
        return delivery is not None and delivery.unsure

    @property
    def unanswered(self) -> bool:
        """Whether the answer to a change that an earlier try sent was lost; one that was killed may have sent none."""
        delivery: Delivery | None = self.request.get(DELIVERY)
        return delivery is not None and delivery.notes.unsure

    @property
    def resent(self) -> bool:
        """Whether a person has resent this message."""
        delivery: Delivery | None = self.request.get(DELIVERY)
        return delivery is not None and delivery.notes.resent

    @property
    def put_off(self) -> float:
        """Seconds for which this message has been deferred since its last try or its arrival."""
        delivery: Delivery | None = self.request.get(DELIVERY)
        return delivery.notes.deferred if delivery else 0.0

    def _heard(self, delivery: Delivery) -> tuple[Outcome, RunReport]:
        """Perform the run and notify the listeners."""
        listeners, fact, began, clock = runtime.current().listeners, new_id(), time.time(), time.monotonic()
        if listeners.started:
            listeners.tell(listeners.started, self._report(delivery, STARTED, fact=fact, started=began))
        outcome = self.perform(delivery)
        report = self._report_of(delivery, outcome, fact=fact, started=began,
                                 seconds=round(time.monotonic() - clock, 6), queued=_queued(delivery, outcome, began))
        if listeners.ended:
            listeners.tell(listeners.ended, report)
        return outcome, report

    def perform(self, delivery: Delivery) -> Outcome:
        """Run the body and return its outcome; raises nothing."""
        try:
            return self._too_early(delivery) or self._done(delivery)
        except (WrongArguments, Misconfigured) as error:
            return Parked(str(error), _noted(delivery, str(error), attempt=1), error.cause)
        except MemoryError:
            return self._interrupted(delivery, 'the run was interrupted (MemoryError)')
        except (OSError, SoftTimeLimitExceeded) as error:
            return self._hindered(delivery, error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the message must be settled
            logger.error('a task has a programming error', task=self.name, id=delivery.call.id,
                         error=type(error).__name__, detail=''.join(traceback.format_tb(error.__traceback__)))
            reason = f'a programming error in the worker: {type(error).__name__} at {where(error)}'
            return Parked(reason, _noted(delivery, reason, attempt=1), WorkerError.cause)
        except BaseException as error:  # noqa: BLE001 - SystemExit and the like say nothing about the message
            return self._hindered(delivery, error)

    def _hindered(self, delivery: Delivery, error: BaseException) -> Outcome:
        """The outcome if this process or machine ended the run; as after any outage, the message is retried."""
        failure = local_failure(error)
        try:
            return self._after(delivery, failure)
        except Exception:  # noqa: BLE001 - its site cannot be built either
            return self._interrupted(delivery, str(failure))

    def announce(self, delivery: Delivery, outcome: Outcome, report: RunReport | None = None) -> RunReport | None:
        """Report the outcome of the message, with or without a run; returns the report, None if there is none."""
        report = report or self._report_of(delivery, outcome)
        if isinstance(outcome, Deferred):
            before, after = (int(notes.deferred // REPORT_SECONDS) for notes in (delivery.notes, outcome.notes))
            if delivery.notes.deferred and before == after:
                return None
            report = replace(report, outcome='retrying')
        runtime.current().report(report)
        return report

    def _report_of(self, delivery: Delivery, outcome: Outcome, **found: Any) -> RunReport:
        """The report of an outcome."""
        report = self._report(delivery, DEFERRED if isinstance(outcome, Deferred) else type(outcome).__name__.lower(),
                              reason=outcome.reason, cause=getattr(outcome, 'cause', ''),
                              status=outcome.status if isinstance(outcome, Retrying | Parked) else None, **found)
        return (replace(report, next_try=report.ended + outcome.delay) if isinstance(outcome, Retrying | Deferred)
                else report)

    def _report(self, delivery: Delivery, outcome: str, **found: Any) -> RunReport:
        call = delivery.call
        return RunReport(
            outcome, task=self.name, id=call.id, key=self.key_of(call), site=self.site_of(call),
            attempt=delivery.earlier + 1, queue=delivery.queue, root_id=call.root_id or call.id,
            worker=self.request.hostname or '', **self.about_of(call), **found)

    def about_of(self, call: Call) -> Mapping[str, Any]:
        """See :attr:`about`; never fails, whatever the call holds."""
        try:
            return type(self).about(call)
        except Exception:  # noqa: BLE001 - what is wrong with it its run will say
            return {}

    def settle(self, delivery: Delivery, run: runtime.Run) -> None:
        """Tell Celery how to settle the message.

        Raises Celery's ``Ignore`` (acknowledge), or :class:`Handover` with what must be published before that.
        """
        if not run.secured:
            following = tuple(self._following(delivery, run.outcome))
            if publications := tuple(self._publications(delivery, run, following)):
                raise Handover(publications, delivery.message, run.report, run.name,
                               tuple(self._accepted_from(delivery, following)))
        if not isinstance(run.outcome, Done):
            raise Ignore(run.outcome.reason)

    def _publications(self, delivery: Delivery, run: runtime.Run, following: Iterable[Call]) -> Iterator[Publication]:
        """What is to be published after the run: the tasks that follow from it, or its own message."""
        for call in following:
            yield publishing.waiting_call(call, Notes(queue=delivery.queue, published=time.time()), 0)
        match outcome := run.outcome:
            case Retrying() | Deferred():
                try:
                    yield publishing.waiting_call(delivery.call, outcome.notes, outcome.delay)
                except WrongArguments as error:
                    yield self._parked(delivery, run, f'{outcome.reason}; {error}')
            case Parked():
                yield self._parked(delivery, run, outcome.reason)

    def _parked(self, delivery: Delivery, run: runtime.Run, reason: str) -> Publication:
        call = delivery.call
        return publishing.parked_message(delivery.raw, ParkingNote(
            id=call.id, task=self.name, key=self.key_of(call), site=self.site_of(call), reason=reason,
            notes=run.outcome.notes, report=run.report))

    def _following(self, delivery: Delivery, outcome: Outcome) -> Iterator[Call]:
        """The tasks that follow from this one; their ids stay the same when this run is repeated."""
        call = delivery.call
        for number, then in enumerate(outcome.then if isinstance(outcome, Done) else ()):
            id_ = str(uuid.uuid5(uuid.NAMESPACE_OID, f'{call.id} {number} {then.task}'))
            yield Call(then.task, id_, kwargs=then.kwargs, origin=call.origin, root_id=call.root_id or call.id,
                       parent_id=call.id, request_id=call.request_id)

    def _accepted_from(self, delivery: Delivery, following: Iterable[Call]) -> Iterator[RunReport]:
        """The reports that the tasks that follow from this one were accepted."""
        for call in following:
            reason = f'after {short_name(self.name)} {self.key_of(delivery.call)}'.rstrip()
            yield accepted(self.app.tasks.get(call.task), call, delivery.queue, reason, began=time.time())

    def lane_of(self, call: Call) -> str:
        """The lane of a run of this call; never fails, whatever the call holds."""
        try:
            return str(type(self).lane(runtime.site(self.site_of(call))))
        except Exception:  # noqa: BLE001 - what is wrong with it its run will say; without a lane it would never run
            return str(self.name)

    def key_of(self, call: Call) -> str:
        """The value of the argument named in :attr:`key`, shortened, if it is a string or a number."""
        position = self._positions.get(self.key) if self.position is None else self.position
        return _word(_argument(call, self.key, position))

    def site_of(self, call: Call) -> str:
        """The site code of this call, as the body sees it; '' if it has none."""
        find = type(self).site
        return _word(find(call) if find else _argument(call, 'site_code', self._positions.get('site_code')))

    def follows(self, returned: Iterable[Then] | None) -> tuple[Then, ...]:
        """The tasks that follow from this return value of the body."""
        return tuple(returned or ())

    def _done(self, delivery: Delivery) -> Outcome:
        args, kwargs = self._accepted(delivery.call)
        try:
            return Done(then=self.follows(self.run(*args, **kwargs)))
        except Skip as skip:
            return Skipped(skip.reason)
        except Taken as taken:
            return self.deferred(delivery, str(taken), 1 + moment(self.put_off, LONGEST_MOMENT), taken.cause, ask=True)
        except ApiError as error:
            return self._after(delivery, error)

    def deferred(self, delivery: Delivery, reason: str, delay: float, cause: str, *, ask: bool = False) -> Deferred:
        """Defer the message for so many seconds; with ``ask`` its next run asks before it acts.

        So is one that was redelivered, which will not be reported otherwise.
        """
        now, notes = time.time(), delivery.notes
        return Deferred(reason, delay, replace(notes, since=notes.since or now, deferred=notes.deferred + delay,
                                               ask=notes.ask or ask or delivery.redelivered), cause)

    def _too_early(self, delivery: Delivery) -> Outcome | None:
        """The outcome of a message that must not run yet; None if it may run."""
        if delivery.redelivered:
            return self._interrupted(delivery, 'redelivered: its worker or its connection was lost')
        due = delivery.notes.due or 0.0
        if due > time.time() + 1:
            return Retrying('not due yet', due - time.time(), delivery.notes, 'early')
        if delivery.call.eta:
            wait = (delivery.call.eta - datetime.now(UTC)).total_seconds()
            if wait > 1:
                return Retrying('not before the eta given by its producer', wait, delivery.notes, 'early')
        return None

    def _interrupted(self, delivery: Delivery, reason: str, *, run: str = '') -> Outcome:
        """The outcome of a run that never ended: it waits longer each round, to separate a culprit from its neighbours.

        ``run`` names one that goes on: the message comes back to that.
        """
        settings = runtime.current().settings
        rounds = delivery.notes.redelivered + 1
        notes = replace(_noted(delivery, reason, redelivered=1), run=run)
        if rounds > settings.REDELIVERY_LIMIT:
            return Parked(f'started {rounds} times and never finished; it may be crashing the worker', notes,
                          'interrupted')
        first = max(settings.REDELIVERY_DELAY, type(self).longest(settings) / max(1, settings.REDELIVERY_LIMIT))
        return Retrying(reason, first + random.uniform(0, first * rounds), notes, 'interrupted')  # noqa: S311 - no secret

    def _accepted(self, call: Call) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments that the body accepts; unknown names of a newer shop are dropped and logged."""
        if self._takes_any:
            return call.args, dict(call.kwargs)
        known = {name: value for name, value in call.kwargs.items() if name in self._parameters}
        if len(known) < len(call.kwargs):
            logger.warning('ignored unknown arguments', task=self.name, id=call.id,
                           names=','.join(sorted(name[:40] for name in set(call.kwargs) - set(known))))
        try:
            self._signature.bind(*call.args, **known)
        except TypeError as error:
            raise WrongArguments(f'the task does not accept these arguments: {error}') from None
        return call.args, known

    def _after(self, delivery: Delivery, error: ApiError) -> Outcome:
        """Retry or give up, according to the policy of the site."""
        policy = type(self).policy(runtime.site(self.site_of(delivery.call)))
        notes, reason = delivery.notes, str(error)
        counted = policy.counts(error)
        if isinstance(error, Held):
            delay = policy.next_delay(error, 0, self.put_off)
            assert delay is not None  # noqa: S101 - for the type checker: what is held is not given up
            return self.deferred(delivery, reason, delay, error.cause)
        tries = (notes.refusals + delivery.inherited if counted else notes.outages) + 1
        # The delays it was given, not the time that passed: the clocks of two workers differ, and may be adjusted.
        delay = policy.next_delay(error, tries, notes.waited)
        noted = _noted(delivery, reason, attempt=1, **{'refusals' if counted else 'outages': 1})
        noted = replace(noted, unsure=notes.unsure or error.maybe_done)
        if delay is None:
            tried = delivery.earlier + 1
            return Parked(reason if tried == 1 else f'{reason}; given up after {tried} tries', noted, error.cause,
                          error.status)
        return Retrying(reason, delay, replace(noted, waited=notes.waited + delay), error.cause, error.status)

    @cached_property
    def _signature(self) -> inspect.Signature:
        return inspect.signature(self.run)

    @cached_property
    def _parameters(self) -> Mapping[str, inspect.Parameter]:
        return self._signature.parameters

    @cached_property
    def _takes_any(self) -> bool:
        """Whether the body parses its own arguments (``*args``, ``**kwargs``)."""
        return any(parameter.kind is parameter.VAR_KEYWORD for parameter in self._parameters.values())

    @cached_property
    def _positions(self) -> Mapping[str, int]:
        return {name: position for position, name in enumerate(self._parameters)}


def task(*, policy: Callable[[Site], Patience] = lambda site: site.fulfillment_policy, key: str = '',
         position: int | None = None,
         site: Callable[[Call], Any] | None = None, lane: Callable[[Site], str] | None = None,
         longest: Callable[[Settings], float] = lambda _: 0.0,
         about: Callable[[Call], Mapping[str, Any]] = lambda _: {},
         ) -> Callable[[Callable[..., Iterable[Then] | None]], Task]:
    """Decorator: turn a function whose first parameter is the task into a task; tasks that it returns are published.

    ``policy`` returns the retry policy at a site,
    ``key`` names the argument that identifies the task to people.  For a body that
    sorts its arguments out itself, ``position`` tells where that one stands among the positional ones, and ``site``
    gives what a call names as its site.  ``lane`` names, for a site, whom a run waits for (the task itself if not
    given), ``longest`` the seconds that one may take if that is minutes.  ``about`` gives further fields of its
    reports.
    """
    def register(body: Callable[..., Iterable[Then] | None]) -> Task:
        if key and position is None and key not in inspect.signature(body).parameters:
            raise TypeError(f'key: {body.__name__} has no argument {key!r}')
        return shared_task(  # type: ignore[no-any-return]
            bind=True, base=Task, policy=staticmethod(policy), key=key, position=position,
            site=staticmethod(site) if site else None, lane=staticmethod(lane or (lambda _: body.__name__)),
            longest=staticmethod(longest), about=staticmethod(about))(body)

    return register


def site_code(call: Call) -> str:
    """The ``site_code`` of a call of an unknown task; '' if it has none.  See ``Task.site_of``."""
    return _word(call.kwargs.get('site_code'))


def _queued(delivery: Delivery, outcome: Outcome, began: float) -> float | None:
    """For how many seconds the message had been published when its first run began; see :class:`RunReport`.

    A message whose time had not come has not been run; one that names its own time was to wait.
    """
    published = delivery.notes.published
    if (published is None or delivery.earlier or delivery.redelivered or delivery.call.eta
            or isinstance(outcome, Deferred) or getattr(outcome, 'cause', '') == 'early'):
        return None
    return round(max(0.0, began - published), 3)


def _argument(call: Call, name: str, position: int | None) -> Any:
    """An argument by its name or else by its position; None if the call has neither."""
    value = call.kwargs.get(name)
    if value is None and position is not None and position < len(call.args):
        value = call.args[position]
    return value


def _word(value: Any) -> str:
    """A string or number of a message, made safe for a log line and a header; '' for anything else."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ''
    if isinstance(value, int) and abs(value) >= 2 ** 63:
        return ''  # Python refuses to write very long ones
    return printable(str(value)[:128])


def _noted(delivery: Delivery, reason: str, **counted: int) -> Notes:
    """The notes with the end of this run added and its counters incremented."""
    now = time.time()
    notes = delivery.notes
    changes = {name: getattr(notes, name) + step for name, step in counted.items()}
    return notes.having({'at': now, 'reason': reason}, since=notes.since or now, deferred=0.0, run='', **changes)
