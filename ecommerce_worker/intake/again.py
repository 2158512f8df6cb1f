"""Resending a parked delivery: it is mapped again, by the intake's current configuration and code."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ecommerce_worker import correlation, runtime
from ecommerce_worker.broker import batches, facts, preflight, publishing
from ecommerce_worker.broker.notes import Notes, ParkingNote
from ecommerce_worker.broker.publishing import Publication
from ecommerce_worker.broker.wire import Call, Raw
from ecommerce_worker.errors import Misconfigured, Undecodable, WorkerError, WrongArguments, where
from ecommerce_worker.execution.task import accepted
from ecommerce_worker.intake import intakes
from ecommerce_worker.intake.source import Delivery, Objection
from ecommerce_worker.telemetry.run import RunReport, by_intake

if TYPE_CHECKING:
    from celery import Celery

    from ecommerce_worker.intake.intakes import Intake

#: The header of a parked message that says which intake it came by, when, and with which headers.
HEADER: Final = 'delivery'

#: The maximum number of bytes kept of its headers; headers with one of these words in their names are never kept.
MOST: Final = 8 * 1024
SECRET: Final = ('auth', 'cookie', 'signature', 'hmac', 'token', 'secret', 'api-key', 'apikey', 'access-key',
                 'password', 'credential', 'session', 'jwt', 'forwarded', '-ip')


class NotMapped(WorkerError):
    """The intake cannot turn the delivery into a task: the text says why."""


def kept(intake: Intake, delivery: Delivery) -> dict[str, Any]:
    """The header of a parked delivery; without credentials, signatures, or addresses of the sender."""
    left, headers = MOST, {}
    signature = str(intake.source.options.get('header', '')).lower()
    for name, value in delivery.headers.items():
        left -= len(name) + len(value.encode(errors='replace'))
        if left >= 0 and name != signature and not any(part in name for part in SECRET):
            headers[name] = value
    return {HEADER: {'intake': intake.name, 'at': delivery.received, 'headers': headers}}


def is_delivery(headers: Mapping[str, Any]) -> bool:
    """Whether a parked message is a delivery that was not turned into a call yet."""
    found = headers.get(HEADER)
    return isinstance(found, Mapping) and isinstance(found.get('intake'), str)


def send(app: Celery, messages: Sequence[tuple[ParkingNote, Raw]]) -> list[str | WorkerError]:
    """Return parked messages to their original queues, and deliveries to the current queue of their intake.

    For each the queue, once the broker has confirmed, or why it was not sent:
    :class:`~ecommerce_worker.broker.publishing.UnknownQueue`, :class:`~ecommerce_worker.errors.NotPublished` or
    :class:`NotMapped`.
    """
    began = time.time()
    found: list[Sending | WorkerError] = []
    for note, raw in messages:
        try:
            found.append(_sending(app, note, raw, began))
        except WorkerError as error:
            found.append(error)
    troubles = iter(batches.publish_all(app, [it.publication for it in found if isinstance(it, Sending)]))
    outcomes: list[str | WorkerError] = []
    for it in found:
        if isinstance(it, WorkerError):
            outcomes.append(it)
            continue
        trouble = next(troubles)
        outcomes.append(trouble or it.publication.queue)
        if it.accepted and not trouble:
            facts.tell(app, runtime.current().settings, it.accepted)
    return outcomes


@dataclass(frozen=True)
class Sending:
    """A resent message, and the report about the order of a delivery."""

    publication: Publication
    accepted: RunReport | None = None


def _sending(app: Celery, note: ParkingNote, raw: Raw, began: float) -> Sending:
    settings = runtime.current().settings
    if not is_delivery(raw.headers):
        return Sending(publishing.unparked(raw, note, settings.known_queues))
    preflight.import_tasks(app, settings)
    name, delivery = _delivery(raw)
    try:
        intake = intakes.read(settings, app.tasks).get(name)
    except Misconfigured as error:
        raise NotMapped(f'the configuration of its intake is not valid: {error.problems[0]}') from None
    if intake is None:
        raise NotMapped(f'there is no intake {name} in INTAKES; the delivery stays parked')
    call = _call(intake, delivery, correlation.of_message(raw.headers))
    notes = Notes(queue=intake.queue, ask=True, resent=True, history=note.notes.history).having(
        {'at': began, 'reason': 'sent again by hand', 'resent': True})
    return Sending(publishing.new_call(call, notes), accepted(
        app.tasks.get(call.task), call, intake.queue, f'{by_intake(name)}, of a delivery that was parked', began=began))


def _delivery(raw: Raw) -> tuple[str, Delivery]:
    found = raw.headers[HEADER]
    headers, at = found.get('headers'), found.get('at')
    texts = {str(name): value for name, value in headers.items() if isinstance(value, str)} if isinstance(
        headers, Mapping) else {}
    return found['intake'], Delivery(texts, raw.body, float(at) if isinstance(at, int | float) else 0.0)


def _call(intake: intakes.Intake, delivery: Delivery, request_id: str) -> Call:
    if intake.state == 'dry':
        raise NotMapped(f'INTAKES[{intake.name}] has state: dry, so nothing is published')
    try:
        event = intake.source.event(delivery)
        if reason := intake.ignores(event):
            raise NotMapped(f'the intake ignores it ({reason}); you may discard it')
        return intake.call(event, request_id)
    except (Undecodable, WrongArguments, Objection) as error:
        raise NotMapped(f'the intake {intake.name} still cannot read it: {error}') from None
    except NotMapped:
        raise
    except Exception as error:  # noqa: BLE001 - third-party code; the error's text may quote the body
        raise NotMapped(f'the intake {intake.name} still has a programming error: {type(error).__name__} at '
                        f'{where(error)}') from None
