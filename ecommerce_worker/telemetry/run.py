"""What is told of one run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from ecommerce_worker.telemetry.facts import Fact, new_id


@dataclass(frozen=True)
class Told:
    """What is told of one run; ids and reasons, never contents."""

    outcome: str
    task: str
    id: str
    key: str
    site: str
    attempt: int
    seconds: float
    reason: str = ''
    next_try: float | None = None
    #: The HTTP status that decided it.
    status: int | None = None
    queue: str = ''
    root_id: str = ''
    #: When it began, in epoch seconds.
    started: float = 0.0
    #: The name of the worker's node.
    worker: str = ''
    #: The id of the fact that it is.
    fact: str = field(default_factory=new_id)

    def as_fact(self) -> Fact:
        """The fact that it is, for the ledger."""
        ended = self.started + self.seconds
        return Fact(
            outcome=self.outcome, started=self.started, seconds=round(self.seconds, 6), attempt=self.attempt,
            task=self.task, id=self.id, key=self.key, site=self.site, queue=self.queue, reason=self.reason[:1000],
            status=self.status, next_try=None if self.next_try is None else ended + self.next_try, worker=self.worker,
            root_id=self.root_id, fact=self.fact)


Listener = Callable[[Told], None]


class Safety(Protocol):
    """Who knows whether what was told is safe."""

    def holds(self, id_: str, act: Callable[[], None], most: int) -> bool:
        """Whether the message of that id is to be held, its end being told and not safe yet; ``act`` is called then.

        Of more than ``most`` that are held the oldest is let go.
        """

    def flush(self) -> None:
        """Return when all that was told of ends is safe, or soon."""
