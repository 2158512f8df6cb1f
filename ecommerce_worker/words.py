"""How names are told to people."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Final

#: Units of time that are longer than a second, in seconds.
UNITS: Final = ((86_400, 'day'), (3600, 'hour'), (60, 'minute'))

_OURS = 'ecommerce_worker.'


def did_you_mean(name: str, names: Iterable[str], likeness: float = 0.6) -> str:
    """A hint at the name that comes closest, as the end of a sentence; empty if none does.

    ``likeness`` is what it must come to at least, from 0 to 1, as :func:`difflib.get_close_matches` measures it.
    """
    by_spelling = {known.casefold(): known for known in names}
    close = difflib.get_close_matches(name.casefold(), by_spelling, 1, likeness)
    return f'; did you mean {by_spelling[close[0]]}?' if close else ''


def short_name(task: str) -> str:
    """A task as people know it: ours by its last word, another's in full."""
    return task.rpartition('.')[2] if task.startswith(_OURS) else task


def counted(number: int, noun: str) -> str:
    """So many of them: ``1 order``, ``2 orders``."""
    return f'{number} {noun}{"" if number == 1 else "s"}'


def span(seconds: float) -> str:
    """A time span in its largest unit: ``5 minutes``."""
    size, unit = next(((size, unit) for size, unit in UNITS if seconds >= size), (1, 'second'))
    return counted(int(max(0.0, seconds) // size), unit)
