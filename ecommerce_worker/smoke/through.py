"""With a given order: through the running processes, optionally an intake, to the shop itself.

Workers publish a report of each run; the test listens to these beside the recorder.
"""

from __future__ import annotations

import secrets
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from kombu import Exchange, Queue

from ecommerce_worker.broker import publishing, topology
from ecommerce_worker.broker.notes import Notes
from ecommerce_worker.broker.wire import Call
from ecommerce_worker.errors import Undecodable
from ecommerce_worker.fulfillment.names import FULFILL
from ecommerce_worker.intake import posting
from ecommerce_worker.smoke.steps import NotPassed, Steps, Tell
from ecommerce_worker.telemetry.run import RunReport

if TYPE_CHECKING:
    from celery import Celery
    from kombu import Connection

    from ecommerce_worker.intake.intakes import Intake
    from ecommerce_worker.settings import Settings

#: Where shops publish orders.
QUEUE: Final = 'ecommerce.fulfillment'

#: Facts that are kept for a listener that is slow.
MOST: Final = 10_000


#: Sends an order on its way; returns the id and the queue of its message, and says what it did.
Send = Callable[[], tuple[str, str, str]]


def by_queue(app: Celery, settings: Settings, number: str, site: str) -> Send:
    """Publish the order as a shop does."""
    def send() -> tuple[str, str, str]:
        id_ = str(uuid.uuid4())
        queue = QUEUE if QUEUE in settings.QUEUES else settings.QUEUES[0]
        call = Call(FULFILL, id_, (number,), {'site_code': site} if site else {}, origin='smoke', root_id=id_)
        # It may have been fulfilled long ago: the worker asks before it does anything.
        publishing.publish(app, publishing.new_call(call, Notes(queue=queue, ask=True, published=time.time())))
        return id_, queue, f'{number} is published to {queue} and confirmed, as message {id_}'

    return send


def by_intake(intake: Intake, url: str, body: bytes) -> Send:
    """Post a signed delivery to an intake that runs; what it publishes is asked about before anything is done, too."""
    def send() -> tuple[str, str, str]:
        answer = posting.post(intake, body, url)
        if not answer.id:
            raise NotPassed(f'the intake {intake.name} answered {answer.text}; {answer.advice(intake)}')
        if answer.is_repeated:
            raise NotPassed(f'the intake {intake.name} answered {answer.text}: this delivery was received before '
                            'and is not run again; give it another id')
        return answer.id, intake.queue, f'the intake {intake.name} answered {answer.text}, as message {answer.id}'

    return send


def run(connection: Connection, settings: Settings, send: Send, tell: Tell, seconds: float) -> None:
    """Send an order and follow it; raises :class:`~ecommerce_worker.smoke.steps.NotPassed`.

    A shop that has it as complete is not asked to fulfil it.
    """
    if not settings.PUBLISH_FACTS:
        raise NotPassed('PUBLISH_FACTS is off, so the order cannot be followed')
    steps = Steps(tell, seconds)
    topology.require_facts(connection, settings.QUEUE_TYPE)
    with _facts(connection) as facts:
        id_, queue, said = send()
        steps.done(said)
        while True:
            report = steps.until(lambda: _next(facts, id_), lambda: 'no worker has reported it: does one consume '
                                 f'{queue}, with PUBLISH_FACTS?  See `ecommerce-worker status`')
            if report.outcome == 'accepted':
                continue  # the intake says so itself
            steps.done(f'{report.outcome} by {report.worker or "?"} in try {report.attempt}, which took '
                       f'{report.seconds:.2f} s{f": {report.reason}" if report.reason else ""}')
            match report.outcome:
                case 'done' | 'skipped':
                    return
                case 'parked' | 'discarded':
                    raise NotPassed(f'the order is {report.outcome}: {report.reason}')


@contextmanager
def _facts(connection: Connection) -> Iterator[Any]:
    """An exclusive queue of all reports published from now on."""
    with connection.channel() as channel:
        queue = Queue(f'ecommerce.smoke.{secrets.token_hex(6)}', Exchange(topology.FACTS, 'topic'), routing_key='#',
                      exclusive=True, auto_delete=True, durable=False,
                      queue_arguments={'x-max-length': MOST}).bind(channel)
        queue.declare()
        yield queue
        queue.delete()


def _next(facts: Any, id_: str) -> RunReport | None:
    """The next fact of this message, if there is one."""
    while message := facts.get(no_ack=True):
        try:
            report = RunReport.read(bytes(message.body if isinstance(message.body, bytes) else message.body.encode()))
        except Undecodable:
            continue
        if report.id == id_:
            return report
    return None
