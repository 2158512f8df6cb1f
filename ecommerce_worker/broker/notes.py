"""What this worker writes on a message that it moves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

#: The header under which a message carries what this worker knows of it.
NOTES: Final = 'ecommerce'

#: Bytes for the history of a message, written as Python; in AMQP it may have twice as many.
HISTORY_BYTES: Final = 16 * 1024


@dataclass(frozen=True)
class Notes:
    """What this worker writes on a message that it moves: how often and since when it has been tried.

    ``attempt`` counts runs begun before this one; ``refusals`` and ``outages`` what they ended in; ``redelivered``
    the deliveries that no run ended; ``since`` and ``at`` are epoch seconds, by the clock of whichever worker it was,
    and are shown only; ``unsure`` tells that an earlier run may have had its effect though no answer came; ``resent``
    that a person sent it again; ``due``, in epoch seconds, when it is to run, if that is later than the broker can wait
    at once.

    ``waited`` is for how many seconds it was to wait for its next tries in all, ``deferred`` for how many it has been
    put off since without being tried; ``ask`` tells to ask how things stand before anything is done; ``run`` names a
    run of it that was still under way in the process that wrote this.
    """

    queue: str = ''
    attempt: int = 0
    refusals: int = 0
    outages: int = 0
    redelivered: int = 0
    since: float | None = None
    waited: float = 0.0
    resent: bool = False
    unsure: bool = False
    due: float | None = None
    deferred: float = 0.0
    ask: bool = False
    run: str = ''
    history: tuple[Mapping[str, Any], ...] = ()

    #: The most entries of history that a message carries: its headers must fit in one frame of 128 KiB.
    LONGEST_HISTORY = 30

    @classmethod
    def of(cls, headers: Mapping[str, Any]) -> Notes:
        """The notes in these headers; anything unreadable in them is as if it were not there."""
        found = headers.get(NOTES)
        if not isinstance(found, Mapping):
            return cls()

        def number(name: str) -> int:
            value = found.get(name)
            return value if isinstance(value, int) and 0 <= value < 2 ** 31 else 0

        def time(name: str) -> float | None:
            value = found.get(name)
            return float(value) if isinstance(value, int | float) and 0 <= value < 2 ** 40 else None

        history, queue, run = found.get('history'), found.get('queue'), found.get('run')
        return cls(
            queue=queue if isinstance(queue, str) and len(queue.encode(errors='replace')) <= 255 else '',
            attempt=number('attempt'), refusals=number('refusals'), outages=number('outages'),
            redelivered=number('redelivered'),
            since=time('since'), due=time('due'), waited=time('waited') or 0.0, deferred=time('deferred') or 0.0,
            resent=found.get('resent') is True,
            unsure=found.get('unsure') is True,
            ask=found.get('ask') is True,
            run=run[:64] if isinstance(run, str) else '',
            history=tuple(entry for entry in history if isinstance(entry, Mapping))
            if isinstance(history, list | tuple) else ())

    def having(self, entry: Mapping[str, Any], **changes: Any) -> Notes:
        """These notes with one more entry of history; the first and the newest ones are kept."""
        history = (*self.history, entry)
        if len(history) > self.LONGEST_HISTORY:
            history = (history[0], *history[1 - self.LONGEST_HISTORY:])
        return replace(self, history=history, **changes)

    def as_header(self) -> dict[str, Any]:
        """The notes as an AMQP table."""
        return {'queue': self.queue, 'attempt': self.attempt, 'refusals': self.refusals, 'outages': self.outages,
                'redelivered': self.redelivered, 'since': self.since, 'resent': self.resent, 'unsure': self.unsure,
                'due': self.due, 'waited': self.waited, 'deferred': self.deferred, 'ask': self.ask, 'run': self.run,
                'history': _fitting(self.history)}


def _fitting(history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The first entry and the newest ones, as far as there is room: somebody else may have written them."""
    kept: list[dict[str, Any]] = []
    left = HISTORY_BYTES
    for entry in (*history[:1], *history[:0:-1]):
        left -= len(repr(entry).encode(errors='replace'))
        if left < 0:
            break
        kept.append(dict(entry))
    return [*kept[:1], *kept[:0:-1]]
