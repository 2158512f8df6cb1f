"""The notes that this worker writes on a message that it moves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from time import time as now
from typing import Any, Final

from ecommerce_worker.errors import Undecodable
from ecommerce_worker.telemetry.run import LAST_SECOND, LENGTHS, RunReport, one_line
from ecommerce_worker.words import short_name

#: The header under which a message carries what this worker knows of it.
NOTES: Final = 'ecommerce'

#: Bytes for the history of a message, written as Python; in AMQP it may have twice as many.
HISTORY_BYTES: Final = 16 * 1024


@dataclass(frozen=True)
class Notes:
    """The notes on a message that this worker moves: how often and since when it has been tried.

    ``attempt`` counts runs begun before this one; ``refusals`` and ``outages`` what they ended in; ``redelivered``
    the deliveries that no run ended; ``since`` and ``at`` are epoch seconds, by the clock of whichever worker it was,
    and are shown only; ``unsure`` means that an earlier run may have taken effect although no answer came; ``resent``
    that a person sent it again; ``due``, in epoch seconds, when it is to run, if that is later than the broker can wait
    at once; ``published``, in epoch seconds, when it was first published, by the clock of its publisher or of RabbitMQ,
    where one of them says so.

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
    published: float | None = None
    history: tuple[Mapping[str, Any], ...] = ()

    #: The most entries of history that a message carries: its headers must fit in one frame of 128 KiB.
    LONGEST_HISTORY = 30

    @classmethod
    def of(cls, headers: Mapping[str, Any]) -> Notes:
        """The notes in these headers; anything unreadable is ignored."""
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
            since=time('since'), due=time('due'), published=time('published'),
            waited=time('waited') or 0.0, deferred=time('deferred') or 0.0,
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

    def resends(self, since: float) -> int:
        """How often a person has resent it since then (epoch seconds)."""
        return sum(entry.get('resent') is True and _time(entry.get('at'), -1) >= since for entry in self.history)

    def as_header(self) -> dict[str, Any]:
        """The notes as an AMQP table."""
        return {'queue': self.queue, 'attempt': self.attempt, 'refusals': self.refusals, 'outages': self.outages,
                'redelivered': self.redelivered, 'since': self.since, 'resent': self.resent, 'unsure': self.unsure,
                'due': self.due, 'waited': self.waited, 'deferred': self.deferred, 'ask': self.ask, 'run': self.run,
                'published': self.published, 'history': _fitting(self.history)}


@dataclass(frozen=True, kw_only=True)
class ParkingNote:
    """The note on a parked message: what identifies it to people, and why it is parked; no contents.

    ``at`` is when it was parked, in epoch seconds, ``content_type`` the one that it came with, and ``unreadable`` the
    parts of its properties and headers that are not what AMQP has in their places.  ``report`` tells of the run that
    it was parked after, as its worker reports it too unless it is killed before.
    """

    id: str
    task: str = ''
    key: str = ''
    site: str = ''
    reason: str = ''
    at: float = field(default_factory=now)
    content_type: str = ''
    notes: Notes = Notes()
    report: RunReport | None = None
    unreadable: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, headers: Mapping[str, Any]) -> ParkingNote | None:
        """The note in these headers; None if there is none, since another program has put the message there."""
        found = headers.get(NOTES)
        if not isinstance(found, Mapping) or not found.get('id') or (at := _time(found.get('parked_at'), -1)) < 0:
            return None
        texts = {name: one_line(found.get(name), LENGTHS[name]) for name in ('id', 'task', 'key', 'site', 'reason')}
        if not texts['id']:
            return None
        report, unreadable = _report(found.get('fact')), found.get('unreadable')
        return ParkingNote(
            **{**texts, 'site': texts['site'] or (report.site if report else '')}, at=at,
            content_type=one_line(found.get('content_type'), 255), notes=Notes.of(headers), report=report,
            unreadable=unreadable if isinstance(unreadable, Mapping) else {})

    def as_header(self) -> dict[str, Any]:
        """The note as an AMQP table."""
        return {**self.notes.as_header(), 'task': self.task, 'id': self.id, 'key': self.key, 'site': self.site,
                'reason': self.reason, 'parked_at': self.at, 'content_type': self.content_type,
                **({'fact': self.report.as_body().decode()} if self.report else {}),
                # Here, where no tool chokes on it.
                **({'unreadable': dict(self.unreadable)} if self.unreadable else {})}

    @property
    def queue(self) -> str:
        """The queue that it came from."""
        return one_line(self.notes.queue, LENGTHS['queue'])

    @property
    def tries(self) -> int:
        """The number of tries, by which the later of two reports is known."""
        return max(self.notes.attempt, self.report.attempt if self.report else 0)

    @property
    def history(self) -> tuple[Mapping[str, Any], ...]:
        """What happened to it: when, in epoch seconds (None if it does not say), why, and whether a person did it."""
        return tuple({'at': None if (at := _time(entry.get('at'), -1)) < 0 else at,
                      'reason': one_line(entry.get('reason'), LENGTHS['reason']),
                      **({'resent': True} if entry.get('resent') is True else {})} for entry in self.notes.history)

    @property
    def parked_at(self) -> datetime:
        """When it was parked."""
        return datetime.fromtimestamp(self.at, UTC)

    @property
    def short_task(self) -> str:
        """The task's name, without the package if it is ours."""
        return short_name(self.task)


def _time(value: Any, otherwise: float) -> float:
    """The value if it is a valid time, in epoch seconds."""
    is_one = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= LAST_SECOND
    return value if is_one else otherwise


def _report(found: Any) -> RunReport | None:
    try:
        return RunReport.read(found.encode(errors='replace')) if isinstance(found, str) else None
    except Undecodable:
        return None


def _fitting(history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The first entry and the newest ones, as far as there is room, since anyone may have written them."""
    kept: list[dict[str, Any]] = []
    left = HISTORY_BYTES
    for entry in (*history[:1], *history[:0:-1]):
        left -= len(repr(entry).encode(errors='replace'))
        if left < 0:
            break
        kept.append(dict(entry))
    return [*kept[:1], *kept[:0:-1]]
