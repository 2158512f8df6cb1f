"""Listeners to runs, calls and publishing in this process: the log, the ledger, and metrics.

::

    run begins ──► started ──► the body runs ──► ended ──┐
                                                         ├──► reported: log line, fact for the ledger
    parked unread, given back, discarded, sent away ─────┘
    circuit breaker: closed, open, half-open ──► circuit
    another service is called ──► called; a token is fetched ──► fetched; RabbitMQ confirms ──► published

A listener is added to :attr:`ecommerce_worker.runtime.Runtime.listeners` before the first message.  A report without
listeners is not even built.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from ecommerce_worker import logs
from ecommerce_worker.errors import where
from ecommerce_worker.telemetry.run import RunReport

logger = logs.of(__name__)


class Listener:
    """Base class of listeners; a subclass overrides the methods that it needs.

    Each is called at once, in the thread that it happens in: a thread that runs orders, the one that reads from
    RabbitMQ, or the keeper's.  It must not block.  Its errors are logged, once for each place that
    raises, and have no other effect.  In a pool of processes they are called in the child that runs the task.
    """

    def started(self, report: RunReport) -> None:
        """A run begins: its outcome is ``started``, and ``report.fact`` is that of its end.

        Each of them is followed by one :meth:`ended`, in the same thread, unless the process is killed.
        """

    def ended(self, report: RunReport) -> None:
        """A run is over, after ``report.seconds``.

        Its outcome is one of ``done``, ``skipped``, ``retrying``, ``parked`` or, of a run that stepped aside untried
        since it was not its turn, ``deferred``.
        """

    def reported(self, report: RunReport) -> None:
        """Something became of a message that people are to know: all that the log and the ledger have.

        Beside ends of runs that is what became of messages without a run: ``attempt`` is then 0, or ``seconds`` is.
        For a message that is put off repeatedly it is called once in five minutes.
        """

    def circuit(self, host: str, state: str, reason: str) -> None:
        """The circuit breaker of a host is ``open`` (it failed and is left alone), ``half-open`` (it is tried) or
        ``closed`` (all calls pass); ``reason`` is what it failed with last.
        """

    def called(self, host: str, method: str, status: int | None, seconds: float) -> None:
        """Another service was called by HTTP, and answered with this status after so many seconds; None: it did not."""

    def fetched(self, host: str, cause: str) -> None:
        """A token was fetched from a host; ``cause`` is one of :data:`~ecommerce_worker.errors.CAUSES`, why it was not,
        or ''.
        """

    def published(self, kind: str, seconds: float | None) -> None:
        """RabbitMQ has confirmed a message after so many seconds; None: it refused it, or the connection was lost.

        The kinds are those of :attr:`ecommerce_worker.broker.publishing.Publication.kind`, and ``fact`` for all reports
        that were published together.
        """


Kind = TypeVar('Kind', bound=Listener)


class Listeners:
    """All listeners; each attribute has the methods for one event, and is empty without any."""

    def __init__(self, *listeners: Listener) -> None:
        self._all: list[Listener] = []
        self._failed: set[str] = set()
        self.started: tuple[Callable[[RunReport], None], ...] = ()
        self.ended: tuple[Callable[[RunReport], None], ...] = ()
        self.reported: tuple[Callable[[RunReport], None], ...] = ()
        self.circuit: tuple[Callable[[str, str, str], None], ...] = ()
        self.called: tuple[Callable[[str, str, int | None, float], None], ...] = ()
        self.fetched: tuple[Callable[[str, str], None], ...] = ()
        self.published: tuple[Callable[[str, float | None], None], ...] = ()
        for listener in listeners:
            self.add(listener)

    def add(self, listener: Listener) -> None:
        """Add a listener."""
        self._all.append(listener)
        for name in ('started', 'ended', 'reported', 'circuit', 'called', 'fetched', 'published'):
            if getattr(type(listener), name) is not getattr(Listener, name):
                setattr(self, name, (*getattr(self, name), getattr(listener, name)))

    def of(self, kind: type[Kind]) -> list[Kind]:
        """The listeners of a class."""
        return [each for each in self._all if isinstance(each, kind)]

    def tell(self, hear: tuple[Callable[..., None], ...], *what: Any) -> None:
        """Call these listeners; one that raises does not affect the others, and is logged once."""
        for each in hear:
            try:
                each(*what)
            except Exception as error:  # noqa: BLE001 - whoever observes costs no order
                self._fails(each, error)

    def _fails(self, hear: Callable[..., None], error: Exception) -> None:
        place = f'{getattr(hear, "__qualname__", hear)} {type(error).__name__} {where(error)}'
        if place not in self._failed:
            self._failed.add(place)
            # Not its text, which may quote what it was given.
            logger.error('a listener failed; further failures are not logged',
                         listener=getattr(hear, '__qualname__', None), error=type(error).__name__, at=where(error))
