"""The WSGI application: verifies, maps and publishes a delivery, and answers with success only once it is confirmed.

::

    size, content type ──► signature ──► event ──► of interest? ──► task ──► confirmed by RabbitMQ ──► 200 accepted
         413, 415            401           │           │ no                        │ not in time
                                           │           └──► 200 ignored            └──► 503, the sender comes again
                                           └── cannot be read ──► parked ──► 200 parked          (or: kept on disk, 200)

4xx makes senders disable a webhook, and some never retry: whatever is genuine and need not be sent again is answered
200.
"""

from __future__ import annotations

import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any, Final, Protocol

from ecommerce_worker import correlation, logs
from ecommerce_worker.broker import publishing
from ecommerce_worker.broker.notes import Notes, ParkingNote
from ecommerce_worker.broker.publishing import Publication
from ecommerce_worker.broker.wire import Call, Raw
from ecommerce_worker.errors import NotPublished, Undecodable, WrongArguments, where
from ecommerce_worker.intake import again
from ecommerce_worker.intake.counts import NOBODY, Counts
from ecommerce_worker.intake.intakes import Intake
from ecommerce_worker.intake.source import Delivery, Event, Objection, Refused
from ecommerce_worker.telemetry.run import RunReport, by_intake

logger = logs.of(__name__)

#: Seconds after which a sender should retry.
RETRY_AFTER: Final = 30

#: The number of recent events remembered to recognize repeated deliveries.
REMEMBERED: Final = 10_000

#: Milliseconds for which a parked body is kept: it may hold personal data, so it is not kept longer than needed.
KEPT_PARKED: Final = 30 * 24 * 3600 * 1000

_PATH: Final = '/in/'


class Publisher(Protocol):
    """Where messages go: to the broker or, while that is unreachable, to disk."""

    def publish(self, publication: Publication, fact: RunReport | None = None) -> None:
        """Return when the message is safe; raises :class:`~ecommerce_worker.errors.NotPublished`."""


@dataclass(frozen=True)
class Answer:
    """The response to a sender."""

    status: int
    content: Mapping[str, Any] = field(default_factory=dict)
    headers: tuple[tuple[str, str], ...] = ()


@dataclass
class _Remembered:
    """A recent event: the digest of its body for senders that read answers; its answer, None while it is processed."""

    digest: str
    answer: Answer | None = None


class Bucket:
    """A rate limit of this process, in deliveries per second, with bursts of one second's worth."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._left, self._at = max(1.0, rate), time.monotonic()
        self._lock = threading.Lock()

    def takes(self) -> bool:
        """Whether one more delivery is allowed now."""
        with self._lock:
            now = time.monotonic()
            self._left = min(max(1.0, self._rate), self._left + (now - self._at) * self._rate)
            self._at = now
            if self._left < 1:
                return False
            self._left -= 1
            return True


class Application:
    """The intakes, as a WSGI application; ``ready`` returns whether they can accept deliveries."""

    def __init__(self, intakes: Mapping[str, Intake], publishers: Mapping[str, Publisher], counts: Counts,
                 ready: Callable[[], bool], *, facts: bool = True) -> None:
        # A closed intake is answered as if it did not exist.
        self._intakes = {name: intake for name, intake in intakes.items() if intake.state != 'closed'}
        self._publishers = publishers
        self._counts = counts
        self._ready = ready
        self._facts = facts
        self._buckets = {name: Bucket(intake.rate) for name, intake in intakes.items() if intake.rate}
        self._lately: OrderedDict[str, _Remembered] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer one request."""
        try:
            answer = self._answer(environ)
        except Exception as error:  # noqa: BLE001 - the server would log what it quotes, and answer for good
            logger.error('an intake has a programming error', reason=_bug(error))
            answer = _unavailable()
        problem = answer.status >= HTTPStatus.BAD_REQUEST and 'title' in answer.content
        body = json.dumps(answer.content).encode() if answer.content else b''
        start_response(f'{answer.status} {HTTPStatus(answer.status).phrase}', [
            ('Content-Type', 'application/problem+json' if problem else 'application/json'),
            ('Content-Length', str(len(body))), ('Cache-Control', 'no-store'), *answer.headers])
        return [body]

    def _answer(self, environ: dict[str, Any]) -> Answer:
        path = environ.get('PATH_INFO', '')
        if path == '/healthz':
            return Answer(200, {'state': 'alive'})
        if path == '/readyz':
            return Answer(200, {'state': 'ready'}) if self._ready() else _unavailable()
        intake = self._intakes.get(path.removeprefix(_PATH)) if path.startswith(_PATH) else None
        if intake is None:
            self._counts.add(NOBODY, 'refused', 'no such intake')
            return Answer(404)
        if environ.get('REQUEST_METHOD') != 'POST':
            return self._refused(intake, Answer(405, headers=(('Allow', 'POST'),)), 'method')
        return self._posted(intake, environ)

    def _posted(self, intake: Intake, environ: dict[str, Any]) -> Answer:
        if intake.state == 'retired':
            return self._refused(intake, Answer(410), 'retired')
        if answer := self._unfit(intake, environ):
            return answer
        headers = {name[5:].replace('_', '-').lower(): value for name, value in environ.items()
                   if name.startswith('HTTP_')}
        headers['content-type'] = environ.get('CONTENT_TYPE', '').lower()
        delivery = Delivery(headers, environ['wsgi.input'].read(intake.max_bytes + 1), time.time())
        if intake.source.greets(delivery):
            self._counts.add(intake.name, 'ignored', 'greeting')
            return Answer(200, {'state': 'ignored', 'reason': 'greeting'})
        try:
            intake.verify(delivery)
        except Refused as refused:
            return self._refused(intake, Answer(401), refused.reason)
        if (bucket := self._buckets.get(intake.name)) and not bucket.takes():
            return self._refused(intake, Answer(429, headers=(('Retry-After', '1'),)), 'rate')
        began = time.monotonic()
        try:
            return self._genuine(intake, delivery)
        finally:
            self._counts.answered(intake.name, time.monotonic() - began)

    def _unfit(self, intake: Intake, environ: dict[str, Any]) -> Answer | None:
        """The answer to a request whose headers alone rule it out; None for any other."""
        length = environ.get('CONTENT_LENGTH')
        if not length:
            return self._refused(intake, Answer(411), 'no length')
        if int(length) > intake.max_bytes:
            return self._refused(intake, Answer(413), 'too large')
        form = environ.get('CONTENT_TYPE', '').partition(';')[0].strip().lower()
        if form not in intake.source.FORMS or environ.get('HTTP_CONTENT_ENCODING', 'identity').lower() != 'identity':
            return self._refused(intake, Answer(415), 'content type')
        return None

    def _refused(self, intake: Intake, answer: Answer, reason: str) -> Answer:
        self._counts.add(intake.name, 'refused', reason)
        return answer

    def _genuine(self, intake: Intake, delivery: Delivery) -> Answer:
        """Answer a delivery whose signature is valid."""
        event, began = None, time.monotonic()
        try:
            try:
                event = intake.source.event(delivery)
                if reason := intake.ignores(event):
                    return self._ignored(intake, reason)
                call = intake.call(event, correlation.current())
            finally:
                self._counts.mapped(intake.name, time.monotonic() - began)
            publication = publishing.new_call(call, Notes(
                queue=intake.queue, ask=True, published=time.time()))
        except Objection as objection:
            return self._objected(intake, objection.status, str(objection))
        except (Undecodable, WrongArguments) as error:
            if intake.source.ANSWERS:
                return self._objected(intake, 422, str(error))
            return self._park(intake, delivery, event, str(error))
        except Exception as error:  # noqa: BLE001 - a bug must not cost the shop its webhook
            reason = _bug(error)
            logger.error('an intake has a programming error', intake=intake.name, reason=reason)
            return self._park(intake, delivery, event, reason)
        if intake.state == 'dry':
            return self._ignored(intake, 'dry run')
        return self._accept(intake, delivery, event, call, publication)

    def _ignored(self, intake: Intake, reason: str) -> Answer:
        self._counts.add(intake.name, 'ignored', reason)
        return Answer(200, {'state': 'ignored', 'reason': reason})

    def _objected(self, intake: Intake, status: int, reason: str) -> Answer:
        self._counts.add(intake.name, 'refused', 'request')
        return Answer(status, {'title': HTTPStatus(status).phrase, 'status': status, 'detail': reason})

    def _accept(self, intake: Intake, delivery: Delivery, event: Event, call: Call, publication: Publication) -> Answer:
        answers = intake.source.ANSWERS
        # Not with the lock: whoever hashes lets others run, all of which would wait for it.
        this = _Remembered(delivery.digest if answers else '')
        with self._lock:
            before = self._lately.get(call.id)
            if before is None:
                self._lately[call.id] = this
                while len(self._lately) > REMEMBERED:
                    self._lately.popitem(last=False)
        if before and answers and before.digest != this.digest:
            return self._objected(intake, 422, 'this Idempotency-Key was already used for a different request')
        if before and before.answer is None and answers:
            return self._objected(intake, 409, 'a request with this Idempotency-Key is still being processed')
        if before and before.answer:
            self._counts.add(intake.name, 'repeated')
            return before.answer if answers else Answer(200, {'id': call.id, 'state': 'repeated'})
        # Published even while another delivery of the event is being processed, since that one may still fail.  The
        # worker that runs the second message asks the shop first.
        fact = intake.accepted(call, f'{by_intake(intake.name)}{_came_from(event)}') if self._facts else None
        try:
            self._publishers[intake.name].publish(publication, fact)
        except NotPublished as error:
            with self._lock:
                if before is None:
                    self._lately.pop(call.id, None)
            return self._unpublished(intake, error)
        answer = Answer(202 if answers else 200, {'id': call.id, 'state': 'accepted'})
        with self._lock:
            this.answer = answer
            self._lately[call.id] = this
        self._counts.add(intake.name, 'accepted')
        logger.info('accepted', intake=intake.name, task=call.task, key=intake.number(call), id=call.id,
                    also={'request_id': call.correlation, 'action': 'accepted'})
        return answer

    def _park(self, intake: Intake, delivery: Delivery, event: Event | None, reason: str) -> Answer:
        """Park a genuine delivery that cannot be turned into a task, unchanged."""
        id_ = intake.message_id(event.id if event else delivery.digest)
        if intake.state == 'dry':
            return self._ignored(intake, f'dry run; it would be parked: {reason}')
        request_id = correlation.current()
        raw = Raw(delivery.body, delivery.header('content-type')[:127] or None, None,
                  {**({correlation.HEADER: request_id} if request_id else {}), **again.kept(intake, delivery)},
                  {'correlation_id': id_})
        parked = publishing.parked_message(raw, ParkingNote(
            id=id_, site=intake.site, reason=f'intake {intake.name}: {reason}'))
        properties = {**parked.raw.properties, 'expiration': str(KEPT_PARKED)}
        try:
            self._publishers[intake.name].publish(replace(parked, raw=replace(parked.raw, properties=properties)))
        except NotPublished as error:
            return self._unpublished(intake, error)
        self._counts.add(intake.name, 'parked', reason)
        logger.error('parked', intake=intake.name, id=id_, reason=reason,
                     also={'request_id': request_id or id_, 'action': 'parked'})
        return Answer(200, {'id': id_, 'state': 'parked'})

    def _unpublished(self, intake: Intake, error: NotPublished) -> Answer:
        self._counts.add(intake.name, 'unavailable', str(error))
        return _unavailable()


def _came_from(event: Event) -> str:
    """The delivery that an order came from: its topic, and the sender's id unless that may be an email address."""
    id_ = event.id.removeprefix(f'{event.topic} ')[:64]
    parts = (event.topic, f'delivery {id_}' if id_ and '@' not in id_ else '')
    return f': {", ".join(filter(None, parts))}' if any(parts) else ''


def _bug(error: Exception) -> str:
    """The description of a programming error; without its text, which may quote personal data."""
    return f'a programming error in the intake: {type(error).__name__} at {where(error)}'


def _unavailable() -> Answer:
    return Answer(503, {'state': 'unavailable'}, (('Retry-After', str(RETRY_AFTER)),))
