"""The lines of an order: what was bought, how often, and for whom; as sources deliver and messages carry them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from ecommerce_worker.errors import WrongArguments
from ecommerce_worker.words import printable

#: The lines that an order has, and the seats of a line, at most.
MOST: Final = 1000

#: Characters of a product, and of an address, at most.
LONGEST: Final = 254

#: Characters of what may have an address in it: a full stop, or brackets, may stand beside one.
_LONGEST_WORD: Final = LONGEST + 8

#: What no address has in it, unless it is quoted (RFC 5322, 3.2.3).
_BETWEEN = re.compile(r'[\s,;:<>()\[\]"]+')
_ADDRESS = re.compile(r'[^@]+@[^@]+\.[^@.]+')


def addresses_in(text: Any) -> tuple[str, ...]:
    """The mail addresses that a text holds, each once."""
    return _found_in(text) if isinstance(text, str) and len(text) <= MOST * LONGEST else ()


@lru_cache(8)  # a field of the order is looked into for each of its lines
def _found_in(text: str) -> tuple[str, ...]:
    # A buyer may write as much as they like: no word is looked into that is too long to be an address, since the time
    # for that grows with the square of its length.
    words = [it for it in _BETWEEN.split(text) if '@' in it and len(it) <= _LONGEST_WORD]
    usable = [it for word in words for it in _ADDRESS.findall(word) if len(it) <= LONGEST and it.isprintable()]
    return tuple({it.casefold(): it for it in reversed(usable)}.values())[::-1]


@dataclass(frozen=True)
class Line:
    """One line: its id in the order, its SKU ('' for none), how many were bought, and the addresses of learners."""

    id: str
    product: str
    quantity: int
    learners: tuple[str, ...]

    def message(self) -> dict[str, Any]:
        """As a message carries it."""
        return {'line': self.id, 'product': self.product, 'quantity': self.quantity, 'learner': list(self.learners)}


@dataclass(frozen=True)
class Sold:
    """A line as a shop delivers it, with all places that may contain a mail address."""

    id: str
    product: str
    quantity: int
    properties: Mapping[str, Any] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)
    buyer: Any = None

    def line(self, ways: Sequence[str]) -> Line:
        """The line with its learners: those in the first place of ``ways`` (see ``LEARNER``) that holds any."""
        for way in ways:
            kind, _, name = way.partition(':')
            place = {'property': self.properties, 'meta': self.meta}.get(kind)
            if found := addresses_in(self.buyer if place is None else place.get(name)):
                return Line(self.id, self.product, self.quantity, found)
        return Line(self.id, self.product, self.quantity, ())


def read(given: Any) -> list[Line]:
    """The lines that a message carries; raises :class:`~ecommerce_worker.errors.WrongArguments`."""
    if not isinstance(given, list | tuple):
        raise WrongArguments('lines is not a list')
    if len(given) > MOST:
        raise WrongArguments(f'there are more than {MOST} lines')
    lines = [_read(it, number) for number, it in enumerate(given, 1)]
    if len({line.id for line in lines}) < len(lines):
        raise WrongArguments('two lines have the same id')
    return lines


def _read(given: Any, number: int) -> Line:
    if not isinstance(given, Mapping):
        raise WrongArguments(f'line {number} is not a mapping')
    id_, product, quantity = given.get('line', number), given.get('product'), given.get('quantity', 1)
    learner = given.get('learner') or []
    id_ = str(id_) if isinstance(id_, int) else id_
    if not (isinstance(id_, str) and 0 < len(id_) <= LONGEST):
        raise WrongArguments(f'line {number} has an invalid id')
    if not (product is None or (isinstance(product, str) and len(product) <= LONGEST)):
        raise WrongArguments(f'line {number} has an invalid product')
    if isinstance(quantity, bool) or not isinstance(quantity, int) or not 0 <= quantity <= MOST:
        raise WrongArguments(f'line {number} has a quantity that is not between 0 and {MOST}')
    texts = [learner] if isinstance(learner, str) else learner
    if not isinstance(texts, list | tuple) or not all(isinstance(it, str) for it in texts):
        raise WrongArguments(f'line {number} has a learner that is not a mail address')
    return Line(printable(id_), (product or '').strip(), quantity, addresses_in(' '.join(texts)))
