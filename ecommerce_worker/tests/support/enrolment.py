"""Tasks of enrolment run to their end in this process: what follows from them too, and what is to be tried again."""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from ecommerce_worker.broker.notes import Notes
from ecommerce_worker.broker.wire import Call, Raw
from ecommerce_worker.enrolment import tasks
from ecommerce_worker.execution.delivery import DELIVERY, Delivery
from ecommerce_worker.execution.outcomes import Deferred, Done, Outcome, Parked, Retrying, Then
from ecommerce_worker.execution.task import Task

TASKS: dict[str, Task] = {it.name: it for it in (tasks.enroll, tasks.revoke, tasks.enroll_line, tasks.revoke_line,
                                                 tasks.set_mode, tasks.report_back)}


@dataclass
class Run:
    """One run: of which call, and how it ended."""

    call: Call
    notes: Notes
    outcome: Outcome


@dataclass
class Orders:
    """The messages of a worker."""

    runs: list[Run] = field(default_factory=list)
    waiting: list[Run] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._ready: deque[tuple[Call, Notes]] = deque()
        self._ids = itertools.count(1)

    def come(self, task: Task, *lines: dict[str, Any], number: str = '#1', **given: Any) -> None:
        """Have an order come, and run all that can be run."""
        self.publish(Then(task.name, {'order_number': number, 'lines': list(lines), **given}))

    def publish(self, then: Then) -> None:
        """Have a call come, and run all that can be run."""
        self._add(then)
        self.run()

    def wait(self) -> None:
        """Let the time pass for which messages wait, and run them."""
        again, self.waiting = self.waiting, []
        self._ready += [(it.call, it.outcome.notes) for it in again if isinstance(it.outcome, Retrying | Deferred)]
        self.run()

    def run(self) -> None:
        """Run all that is ready, and all that follows."""
        while self._ready:
            call, notes = self._ready.popleft()
            run = Run(call, notes, performed(call, notes))
            self.runs.append(run)
            match run.outcome:
                case Done(then=then):
                    for following in then:
                        self._add(following)
                case Retrying() | Deferred():
                    self.waiting.append(run)

    def resend(self) -> None:
        """Send all that is parked again."""
        again = [it for it in self.runs if isinstance(it.outcome, Parked)]
        self.runs = [it for it in self.runs if it not in again]
        self._ready += [(it.call, Notes(queue='q', ask=True, resent=True)) for it in again]
        self.run()

    @property
    def parked(self) -> list[str]:
        """Why what is parked is."""
        return [it.outcome.reason for it in self.runs if isinstance(it.outcome, Parked)]

    @property
    def ends(self) -> list[str]:
        """How the lines ended, each the last time that it was run."""
        found: dict[str, str] = {}
        for it in self.runs:
            found[it.call.id] = f'{it.call.task.rpartition(".")[2]} {type(it.outcome).__name__.lower()}'
        return list(found.values())

    def _add(self, then: Then) -> None:
        call = Call(then.task, f'id-{next(self._ids)}', kwargs=then.kwargs)
        self._ready.append((call, Notes(queue='q')))


def performed(call: Call, notes: Notes) -> Outcome:
    """How a run of the call ends."""
    task = TASKS[call.task]
    raw = Raw(b'[]', 'application/json', 'utf-8', {'task': call.task, 'id': call.id}, {'correlation_id': call.id})
    delivery = Delivery(call, raw, notes)
    task.push_request(**{DELIVERY: delivery, 'id': call.id})
    try:
        return task.perform(delivery)
    finally:
        task.pop_request()
