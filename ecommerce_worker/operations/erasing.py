"""Removing a person: everything the worker keeps that contains their mail address.

::

    parked in RabbitMQ ─┐
    waiting room ───────┤
    spool of the intake ├──► contains the address? ──► discarded
    parked in the ledger┘
    other texts of the ledger ────────────────────► *** replaces the address
    lines of orders in the ledger ────────────────► the pseudonym is removed

Messages are decoded before they are searched: neither pickle nor an escape in JSON hides an address.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ecommerce_worker import runtime
from ecommerce_worker.broker import facts, topology
from ecommerce_worker.broker.bodies import load_json
from ecommerce_worker.broker.lending import lent
from ecommerce_worker.broker.wire import Raw, decode
from ecommerce_worker.enrolment.learner import pseudonyms
from ecommerce_worker.errors import Undecodable, WorkerError
from ecommerce_worker.execution.parking import call_of, key_of
from ecommerce_worker.intake import spool
from ecommerce_worker.ledger import database
from ecommerce_worker.operations.parked import Chosen, Desk, InQueue, in_ledger, looked_through
from ecommerce_worker.operations.queues import discarded
from ecommerce_worker.words import counted, short_name

if TYPE_CHECKING:
    from celery import Celery
    from kombu import Connection

#: What replaces an address in a text.
GONE: Final = '***'

#: No character of an address may stand before or behind a match, except a full stop that ends a sentence.
_BEFORE, _BEHIND = r'(?<![\w.+%-])', r'(?![\w-]|\.\w)'


class NoAddress(WorkerError):
    """Not a mail address: something before and after one @, without blanks."""


@dataclass(frozen=True)
class Found:
    """Something that contains the address: its place, id, task and key."""

    place: str
    id: str = ''
    task: str = ''
    key: str = ''

    @property
    def what(self) -> str:
        """A short description, without the address."""
        return ' '.join(filter(None, (self.id[:8], self.key, short_name(self.task))))


class Person:
    """The person to remove; raises :class:`NoAddress`."""

    def __init__(self, address: str) -> None:
        if not re.fullmatch(r'[^@\s]+@[^@\s]+', address):
            raise NoAddress('not a mail address')
        self.address = address
        self._pattern = re.compile(_BEFORE + re.escape(address) + _BEHIND, re.IGNORECASE)

    def named_in(self, text: str) -> bool:
        """Whether a text contains the address."""
        return self._pattern.search(text) is not None

    def without(self, text: str) -> str:
        """The text without the address."""
        return self._pattern.sub(GONE, text)

    def named_by(self, raw: Raw) -> bool:
        """Whether a message contains the address: in its body, raw or decoded, or in its headers."""
        return (self.named_in(raw.body.decode(errors='replace'))
                or any(self.named_in(text) for value in (_decoded(raw), raw.headers, raw.unreadable)
                       for text in _texts(value)))


def _decoded(raw: Raw) -> Any:
    """The decoded body; None if it cannot be decoded."""
    try:
        return decode(raw)
    except Undecodable:
        pass
    try:
        # Whatever its content type says, such as the body of a delivery.
        return load_json(raw.body)
    except Exception:  # noqa: BLE001 - not JSON, for whatever reason
        return None


def _texts(value: Any) -> Iterator[str]:
    """All strings within a value."""
    left = [value]
    while left:
        it = left.pop()
        if isinstance(it, str):
            yield it
        elif isinstance(it, bytes):
            yield it.decode(errors='replace')
        elif isinstance(it, Mapping):
            left += [*it, *it.values()]
        elif isinstance(it, list | tuple | set | frozenset):
            left += it


class Eraser:
    """Finds what contains a person's address, and erases it unless ``dry``."""

    def __init__(self, app: Celery, person: Person, *, who: str, reason: str = '', dry: bool = False) -> None:
        self._app = app
        self._person = person
        self._who = who
        self._reason = person.without(reason)
        self._dry = dry
        self._desk = Desk(app, who=who, reason=f'a person was erased{f": {self._reason}" if self._reason else ""}')

    def run(self, connection: Connection) -> Iterator[Found]:
        """Each item that contains the address, erased when the next one is requested.

        Raises :class:`~ecommerce_worker.broker.topology.Unavailable` for a queue that cannot be read, and
        ``LedgerUnusable``.
        """
        count = 0
        for found in self._all(connection):
            count += 1
            yield found
        if not self._dry and database.is_kept(runtime.current().settings):
            from ecommerce_worker.ledger import decisions  # not before the ledger is open

            decisions.write_down(self._who, 'erased', f'a person: {count} found'
                                 + (f'; {self._reason}' if self._reason else ''))

    def _all(self, connection: Connection) -> Iterator[Found]:
        yield from self._parked(connection)
        for name in topology.waiting_room(connection):
            if any(depth.messages for depth in topology.depths(connection, [name], strict=True)):
                yield from self._waiting(connection, name)
        yield from self._spooled(spool.directory_of(runtime.current().settings))
        if database.is_kept(runtime.current().settings):
            yield from self._recorded()

    def _parked(self, connection: Connection) -> Iterator[Found]:
        topology.depths(connection, [topology.PARKED, topology.PARKED_LARGE], strict=True)
        with looked_through(connection) as messages:
            for parked in messages:
                if self._person.named_by(parked.raw):
                    yield self._found('parked', parked)
                    if not self._dry:
                        self._desk.discard(self._nameless(parked))

    def _nameless(self, parked: InQueue) -> InQueue:
        """The message without key or id if these contain the address, so that neither gets into the ledger."""
        return parked if not self._person.named_in(f'{parked.key} {parked.id}') else replace(
            parked, key='', id=self._person.without(parked.id), report=None)

    def _waiting(self, connection: Connection, name: str) -> Iterator[Found]:
        with lent(connection, name) as messages:
            for message in messages:
                raw = Raw.of(message)
                if not self._person.named_by(raw):
                    continue
                call = call_of(raw)
                yield Found('waiting room', call.id if call else '', call.task if call else '',
                            self._person.without(key_of(self._app, call)) if call else '')
                if self._dry:
                    continue
                report = discarded(self._app, message, name)
                message.ack()
                if report and not self._person.named_in(f'{report.key} {report.id}'):
                    facts.tell(self._app, runtime.current().settings, replace(report, reason='a person was erased'))

    def _spooled(self, directory: Path) -> Iterator[Found]:
        for path, raw in spool.lying(directory):
            if self._person.named_by(raw):
                yield Found('spool', self._person.without(path.name))
                if not self._dry:
                    path.unlink(missing_ok=True)

    def _recorded(self) -> Iterator[Found]:
        """Texts, lines and parked messages in the ledger."""
        from ecommerce_worker.ledger import setup

        setup.open_current_ledger()
        from ecommerce_worker.ledger import decisions, erasing  # not before the ledger is open

        # Texts first, so that messages are then discarded under their new names.
        for table, count in erasing.rewrite(self._person.address, self._person.without, dry=self._dry):
            yield Found(f'ledger, {counted(count, "text")} of {table}')
        if count := erasing.forget(pseudonyms(runtime.current().settings, self._person.address), dry=self._dry):
            yield Found(f'ledger, {counted(count, "line")} of orders for this learner')
        for parked in in_ledger(Chosen()):
            if self._person.named_by(decisions.raw_of_number(parked.number)):
                yield self._found('ledger', parked)
                if not self._dry:
                    self._desk.discard(parked)

    def _found(self, place: str, parked: Any) -> Found:
        return Found(place, self._person.without(parked.id), parked.task, self._person.without(parked.key))
