"""The order book of the stand-in shop: orders, scripted answers, and the calls that came in."""

from __future__ import annotations

import io
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from ecommerce_worker.testing.shop.server import JSON, Reply

CLIENT_ID = 'demo-worker'
CLIENT_SECRET = 'demo-client-secret'
JWT_SECRET = 'demo-jwt-secret-of-at-least-32-bytes'
JWT_ISSUER = 'ecommerce_worker'

# The statuses in which the shop lets an order be fulfilled; in any other it answers 406.
FULFILLABLE = ('Open', 'Fulfillment Error')

# Longer than any client waits.
FOR_EVER = 3600.0


@dataclass(frozen=True)
class Answer:
    """One step of a script: what is to differ from what the shop does of itself in one call."""

    status: int | None = None  # None: do and answer as the shop does
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ''
    delay: float = 0  # seconds before anything else
    held: bool = False  # nothing is done before the verb release
    effect: bool = False  # the order is fulfilled, whatever the answer says
    cut: bool = False  # the connection ends in the middle of the body
    drop: bool = False  # the connection ends without an answer
    forever: bool = False  # the step is never used up

    @classmethod
    def slow(cls, seconds: float) -> Self:
        """Take your time, then do as the shop does."""
        return cls(delay=seconds)

    @classmethod
    def until_released(cls) -> Self:
        """Wait for the word to go on, then do as the shop does."""
        return cls(held=True)

    @classmethod
    def hanging(cls) -> Self:
        """Let the client wait longer than it can, and do nothing."""
        return cls(delay=FOR_EVER, drop=True)

    @classmethod
    def dropped(cls) -> Self:
        """Hang up without an answer, and do nothing."""
        return cls(drop=True)

    @classmethod
    def lost(cls) -> Self:
        """Fulfil the order, then hang up without an answer."""
        return cls(effect=True, drop=True)

    @classmethod
    def truncated(cls) -> Self:
        """Hang up in the middle of a body that looked well, and do nothing."""
        return cls(status=200, headers=dict(JSON), body='{"number": "EDX-', cut=True)

    @classmethod
    def html(cls, status: int = 200) -> Self:
        """Answer with a page for people, as a proxy or a login wall does, and do nothing."""
        return cls(status=status, headers={'Content-Type': 'text/html'}, body='<html>Welcome!</html>')

    @classmethod
    def garbled(cls) -> Self:
        """Answer 200 with something that only claims to be JSON, and do nothing."""
        return cls(status=200, headers=dict(JSON), body='{"number": ')

    def always(self) -> Self:
        """The same step, never used up."""
        return replace(self, forever=True)

    def as_json(self) -> dict[str, Any]:
        """The step as a script file holds it: only what differs from the defaults."""
        return {name: value for name, value in asdict(self).items() if value}


@dataclass
class Order:
    """One order of the book, and what happened to it."""

    number: str
    status: str = 'Open'
    lines: int = 1
    answers: list[Answer] = field(default_factory=list)  # the script of PUT
    reads: list[Answer] = field(default_factory=list)  # the script of GET
    hidden: int = 0  # calls of either kind that still do not find the order: it is not yet committed
    email_opt_in: bool | None = None  # what the last fulfilment said
    puts: int = 0
    fulfilments: int = 0  # more than one: the customer got it twice
    placed: float = field(default_factory=time.time, compare=False)  # seconds since the epoch

    def as_json(self) -> dict[str, Any]:
        """The order as the book and a script file hold it."""
        answers = [step.as_json() for step in self.answers]
        reads = [step.as_json() for step in self.reads]
        return self.__dict__ | {'answers': answers, 'reads': reads}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The order of such a line; all but the number may be left out."""
        scripts = {name: [Answer(**step) for step in value.get(name, ())] for name in ('answers', 'reads')}
        return cls(**{**value, **scripts})

    def shown(self) -> Reply:
        """The order as the shop's API shows it."""
        line = {'status': 'Complete' if self.status == 'Complete' else 'Open'}
        return Reply.of(self.summary() | {'lines': [line] * self.lines})

    def summary(self) -> dict[str, Any]:
        """The order as shown in the list."""
        placed = datetime.fromtimestamp(self.placed, UTC).strftime('%Y-%m-%dT%H:%M:%SZ')
        return {'number': self.number, 'status': self.status, 'date_placed': placed}


@dataclass
class Call:
    """A call in the log; without a status it got no answer (yet)."""

    id: str
    time: float  # seconds since the epoch
    method: str
    path: str
    query: str = ''
    order: str | None = None
    assignment: str | None = None  # the id of the one whose mail is reported
    mail: str | None = None  # the worker's id of a mail, at the stand-in for who sends it
    scheme: str | None = None  # of the Authorization header; never the token
    user_agent: str | None = None
    request_id: str | None = None
    overlapping: bool = False  # another PUT of the same order was in progress
    repeated: bool = False  # a PUT of an order that is complete
    status: int | None = None
    duration: float | None = None  # seconds; None while in progress, or when the shop was killed meanwhile

    @property
    def is_put(self) -> bool:
        """Whether the call asks for fulfilment."""
        return self.method in ('PUT', 'PATCH')


class ShopControl(ABC):
    """The verbs that control a stand-in shop, in this process or another; all of them call `tell`."""

    @abstractmethod
    def tell(self, verb: str, value: Any) -> None:
        """Pass on one verb and its value, in words of JSON."""

    def add_order(
        self,
        number: str,
        *answers: Answer,
        reads: Iterable[Answer] = (),
        status: str = 'Open',
        lines: int = 1,
        hidden: int = 0,
        age: float = 0,
    ) -> None:
        """Enter an order, placed `age` seconds ago; `answers` is the script of its PUTs, `reads` that of its GETs."""
        self.add_orders([Order(number, status, lines, list(answers), list(reads), hidden, placed=time.time() - age)])

    def add_orders(self, orders: Iterable[Order]) -> None:
        """Enter many orders at once."""
        self.tell('add', [order.as_json() for order in orders])

    def fault(self, number: str, *answers: Answer) -> None:
        """Add steps to the script of an order's PUTs."""
        self.tell('fault', {'order': number, 'answers': [step.as_json() for step in answers]})

    def fault_tokens(self, *answers: Answer) -> None:
        """Add steps to the script of the token endpoint."""
        self.tell('fault_tokens', [step.as_json() for step in answers])

    def fault_reports(self, *answers: Answer) -> None:
        """Add steps to the script of reports of mail."""
        self.tell('fault_reports', [step.as_json() for step in answers])

    def repair(self, number: str) -> None:
        """End all scripts of an order; a number that is not in the book is entered."""
        self.tell('repair', number)

    def repair_tokens(self) -> None:
        """End the script of the token endpoint."""
        self.tell('repair_tokens', None)

    def repair_reports(self) -> None:
        """End the script of reports of mail."""
        self.tell('repair_reports', None)

    def release(self) -> None:
        """Go on with all calls whose step is held, now and from now on."""
        self.tell('release', None)

    def revoke_tokens(self) -> None:
        """Forget all tokens: whoever comes with one of them gets 401."""
        self.tell('revoke_tokens', None)


def read_calls(log: Path) -> list[Call]:
    """The calls in a log file, in the order in which they began."""
    # A call has one line or two; the second one, with the status, replaces the first.
    return list({call.id: call for call in (Call(**line) for line in Journal(log).lines())}.values())


class Journal:
    """A file of JSON lines, each appended by one write: it is whole even after kill -9 of the writer."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file: io.FileIO | None = None

    def lines(self) -> list[Any]:
        """The values so far."""
        if self._path is None or not self._path.exists():
            return []
        return [json.loads(line) for line in self._path.read_bytes().splitlines()]

    def write(self, value: Mapping[str, Any]) -> None:
        """Append a value; nothing, where there is no file."""
        if self._path is None:
            return
        if self._file is None:
            self._file = self._path.open('ab', buffering=0)
        self._file.write(json.dumps(value).encode() + b'\n')

    def close(self) -> None:
        """Close the file; writing opens it again."""
        file, self._file = self._file, None
        if file is not None:
            file.close()
