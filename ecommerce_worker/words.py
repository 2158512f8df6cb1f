"""How names, numbers and what others wrote are shown to people."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_OURS = 'ecommerce_worker.'


def did_you_mean(name: str, names: Iterable[str], likeness: float = 0.6) -> str:
    """A hint at the most similar name, as the end of a sentence; empty if there is none.

    ``likeness`` is what it must come to at least, from 0 to 1, as :func:`difflib.get_close_matches` measures it.
    """
    by_spelling = {known.casefold(): known for known in names}
    close = difflib.get_close_matches(name.casefold(), by_spelling, 1, likeness)
    return f'; did you mean {by_spelling[close[0]]}?' if close else ''


def hint(name: str, names: Iterable[str]) -> str:
    """A hint at the most similar name, or else at all names, as the end of a sentence."""
    known = sorted(names)
    return did_you_mean(name, known) or (f'; there are {", ".join(known)}' if known else '')


def printable(text: str, instead: str = '?') -> str:
    """The text on one line and without control characters, since anyone may have written it.

    ``instead`` is written for each other one, such as a line break, a control character or half a surrogate pair.
    """
    return text if text.isprintable() else ''.join(letter if letter.isprintable() else instead for letter in text)


def full_stop(text: str) -> str:
    """The text with a full stop, unless it ends in a mark of its own."""
    return text if text.endswith(('.', '?', '!')) else f'{text}.'


def item_of(number: str, line: str) -> str:
    """What people know a line of an order by."""
    return f'{number} {line}'


def is_about(key: str, number: str) -> bool:
    """Whether what has this key is the order of that number, or a line of it; see :func:`item_of`."""
    return key == number or key.startswith(f'{number} ')


def short_name(task: str) -> str:
    """The short name of a task: the last part of our own names, others in full."""
    return task.rpartition('.')[2] if task.startswith(_OURS) else task


def counted(number: int, noun: str) -> str:
    """A number with its noun: ``1 order``, ``2 orders``."""
    return f'{number} {noun}{"" if number == 1 else "s"}'
