"""Parked messages wherever they are: in the broker's queue still, or in the ledger; for both the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ecommerce_worker.operations import parked as queue_room
from ecommerce_worker.words import short_name

if TYPE_CHECKING:
    from celery import Celery


@dataclass(frozen=True)
class Parked:
    """One parked message, and what can be done about it; nothing here shows its contents but ``body``."""

    id: str
    key: str
    task: str
    queue: str
    parked_at: datetime
    reason: str
    tries: int
    history: tuple[Mapping[str, Any], ...]
    content_type: str
    size: int
    body: Callable[[], bytes]
    resend: Callable[[], None]
    discard: Callable[[], None]

    @property
    def short_task(self) -> str:
        """The task's name, without the package if it is ours."""
        return short_name(self.task)


@dataclass(frozen=True)
class Chosen:
    """Which parked messages: of this order, of this task, of these ids; parts of names and ids will do."""

    order: str | None = None
    task: str | None = None
    ids: tuple[str, ...] = ()


def in_queue(app: Celery, messages: Iterable[queue_room.ParkedMessage], chosen: Chosen) -> Iterator[Parked]:
    """Those among the messages of the queue, which no recorder has taken yet."""
    for it in messages:
        if it.matches(order=chosen.order, task=chosen.task, ids=chosen.ids):
            yield Parked(
                it.id, it.key, it.task, it.queue, it.parked_at, it.reason, it.notes.attempt, it.notes.history,
                it.raw.content_type or '', len(it.raw.body), body=lambda it=it: it.raw.body,  # type: ignore[misc]
                resend=lambda it=it: queue_room.resend(app, it),  # type: ignore[misc]
                discard=lambda it=it: queue_room.discard(it))  # type: ignore[misc]


def in_ledger(app: Celery, chosen: Chosen, *, who: str, reason: str) -> Iterator[Parked]:
    """Those that a recorder has written down; ``who`` and ``reason`` go on record with what is done about them.

    Raises :class:`~ecommerce_worker.ledger.setup.LedgerUnusable`.
    """
    from ecommerce_worker.ledger import setup

    setup.open_ledger()
    setup.require_schema()
    from ecommerce_worker.ledger import decisions, queries

    for it in queries.parked(key=chosen.order, task=chosen.task, ids=chosen.ids):
        yield Parked(
            it.id, it.key, it.task, it.queue, it.parked_at, it.reason, it.tries, it.history, it.content_type, it.size,
            body=lambda it=it: queries.body_of(it.number) or b'',  # type: ignore[misc]
            resend=lambda it=it: _resend(app, it.number, who, reason),  # type: ignore[misc]
            discard=lambda it=it: decisions.discard(it.number, who=who, reason=reason))  # type: ignore[misc]


def _resend(app: Celery, number: int, who: str, reason: str) -> None:
    from ecommerce_worker.ledger import decisions

    decisions.resend(app, number, who=who, reason=reason)
