"""How a run ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from celery.exceptions import Reject
from typing_extensions import override

from ecommerce_worker.broker.notes import Notes
from ecommerce_worker.broker.publishing import Publication
from ecommerce_worker.execution.delivery import Message
from ecommerce_worker.telemetry.run import RunReport


@dataclass(frozen=True)
class Then:
    """A task that follows from a finished one: each has one outside effect and its own retries."""

    task: str
    kwargs: Mapping[str, Any]


@dataclass(frozen=True)
class Done:
    """The body returned: acknowledged, once what follows from it is published."""

    reason: str = ''
    then: tuple[Then, ...] = ()


@dataclass(frozen=True)
class Skipped:
    """Nothing was left to do: acknowledged."""

    reason: str


@dataclass(frozen=True)
class Retrying:
    """Retried after ``delay`` seconds in the broker's waiting room, with these notes; then acknowledged."""

    reason: str
    delay: float
    notes: Notes
    #: One of :data:`~ecommerce_worker.errors.CAUSES`.
    cause: str
    #: The HTTP status that decided it; None if none did.
    status: int | None = None


@dataclass(frozen=True)
class Parked:
    """Kept for a person in the parked queue, unchanged; then acknowledged."""

    reason: str
    notes: Notes
    #: One of :data:`~ecommerce_worker.errors.CAUSES`.
    cause: str
    #: The HTTP status that decided it; None if none did.
    status: int | None = None


@dataclass(frozen=True)
class Deferred:
    """Not tried, since another run holds the lock: it returns after ``delay`` seconds in the waiting room.

    It does not count as a try or add to the age of the message, and is reported at most once in five minutes.
    """

    reason: str
    delay: float
    notes: Notes
    #: One of :data:`~ecommerce_worker.errors.CAUSES`.
    cause: str


Outcome = Done | Skipped | Retrying | Parked | Deferred


class Handover(Reject):
    """A run has ended: its message is acknowledged once all of these publications are confirmed by the broker.

    Celery itself takes it as a request to requeue the message.
    """

    #: The name of the run; '' if nothing ran.
    run: str

    #: What is reported once they are confirmed: the tasks that follow, each as accepted.
    accepted: tuple[RunReport, ...]

    def __init__(self, publications: tuple[Publication, ...], message: Message, report: RunReport | None,
                 run: str = '', accepted: tuple[RunReport, ...] = ()) -> None:
        super().__init__('the messages that follow from it are not published yet', requeue=True)
        self.publications = publications
        self.message = message
        self.report = report
        self.run = run
        self.accepted = accepted

    @override
    def __reduce__(self) -> tuple[type[Handover], tuple[Any, ...]]:
        return Handover, (self.publications, self.message, self.report, self.run, self.accepted)
