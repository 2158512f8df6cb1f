"""Durations as people write them, such as ``45s``, ``15m``, ``1h30m`` or ``3d``, and back; moments as programs do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from ecommerce_worker.words import counted

#: The units of time, by their names, in seconds.
UNITS: Final[Mapping[str, int]] = {'day': 86_400, 'hour': 3600, 'minute': 60, 'second': 1}

_NUMBER = r'[0-9]{1,12}(?:\.[0-9]{1,9})?'
_SECONDS = re.compile(_NUMBER)
_PARTS = re.compile(r'\s*'.join(rf'(?:({_NUMBER})\s*{unit[0]})?' for unit in UNITS))

#: What :func:`seconds` reads, in words.
FORM: Final = 'seconds, or a duration such as 45s, 15m, 1h30m, 3d'


def seconds(given: str) -> float:
    """The seconds of a duration; a mere number is seconds.  Raises ValueError for anything else."""
    given = given.strip()
    if _SECONDS.fullmatch(given):
        return float(given)
    found = _PARTS.fullmatch(given)
    if not given or not found:
        raise ValueError(FORM)
    return sum(float(amount) * unit for amount, unit in zip(found.groups(), UNITS.values(), strict=True) if amount)


def text(given: float) -> str:
    """So many seconds as :func:`seconds` reads them: ``1h30m``, ``0.5s``."""
    parts, rest = [], given
    for unit, size in UNITS.items():
        amount = rest if size == 1 else rest // size
        rest -= amount * size
        if amount:
            parts.append(f'{amount:.12g}{unit[0]}')
    return ''.join(parts) or '0s'


def span(given: float) -> str:
    """So many seconds for people, in their largest unit: ``5 minutes``."""
    unit, size = next(((unit, size) for unit, size in UNITS.items() if given >= size), ('second', 1))
    return counted(int(max(0.0, given) // size), unit)


def every(given: float) -> str:
    """An interval in the largest unit that has no rest: ``every 90 seconds``, ``every minute``."""
    unit, size = next(((unit, size) for unit, size in UNITS.items() if given % size == 0), ('second', 1))
    count = given / size
    return f'every {unit}' if count == 1 else f'every {count:g} {unit}s'


def moment(value: Any) -> float | None:
    """Epoch seconds, of a time in ISO 8601 (UTC if it names no zone) or as they are; None for anything else."""
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else datetime.fromtimestamp(value, UTC)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (TypeError, ValueError, OverflowError, OSError):
        return None
