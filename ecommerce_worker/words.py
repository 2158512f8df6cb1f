"""How names, numbers and what others wrote are shown to people."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_OURS = 'ecommerce_worker.'


def did_you_mean(name: str, names: Iterable[str], likeness: float = 0.6) -> str:
    """A hint at the name that comes closest, as the end of a sentence; empty if none does.

    ``likeness`` is what it must come to at least, from 0 to 1, as :func:`difflib.get_close_matches` measures it.
    """
    by_spelling = {known.casefold(): known for known in names}
    close = difflib.get_close_matches(name.casefold(), by_spelling, 1, likeness)
    return f'; did you mean {by_spelling[close[0]]}?' if close else ''


def hint(name: str, names: Iterable[str]) -> str:
    """A hint at the name that comes closest, or else at all that there are, as the end of a sentence."""
    known = sorted(names)
    return did_you_mean(name, known) or (f'; there are {", ".join(known)}' if known else '')


def printable(text: str, instead: str = '?') -> str:
    """The text on one line, in letters that only show: what is in a message anybody may have written.

    ``instead`` is written for each other one, such as a line break, a control character or half a surrogate pair.
    """
    return text if text.isprintable() else ''.join(letter if letter.isprintable() else instead for letter in text)


def item_of(number: str, line: str) -> str:
    """What people know a line of an order by."""
    return f'{number} {line}'


def is_about(key: str, number: str) -> bool:
    """Whether what has this key is the order of that number, or a line of it; see :func:`item_of`."""
    return key == number or key.startswith(f'{number} ')


def short_name(task: str) -> str:
    """A task as people know it: ours by its last word, another's in full."""
    return task.rpartition('.')[2] if task.startswith(_OURS) else task


def counted(number: int, noun: str) -> str:
    """So many of them: ``1 order``, ``2 orders``."""
    return f'{number} {noun}{"" if number == 1 else "s"}'
