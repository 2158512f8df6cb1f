"""Durations as people write them, such as ``45s``, ``15m``, ``1h30m`` or ``3d``, and back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

_UNITS: Final[Mapping[str, int]] = {'d': 86_400, 'h': 3600, 'm': 60, 's': 1}

_NUMBER = r'[0-9]{1,12}(?:\.[0-9]{1,9})?'
_SECONDS = re.compile(_NUMBER)
_PARTS = re.compile(r'\s*'.join(rf'(?:({_NUMBER})\s*{unit})?' for unit in _UNITS))

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
    return sum(float(amount) * unit for amount, unit in zip(found.groups(), _UNITS.values(), strict=True) if amount)


def text(given: float) -> str:
    """So many seconds as :func:`seconds` reads them: ``1h30m``, ``0.5s``."""
    parts, rest = [], given
    for unit, size in _UNITS.items():
        amount = rest if size == 1 else rest // size
        rest -= amount * size
        if amount:
            parts.append(f'{amount:.12g}{unit}')
    return ''.join(parts) or '0s'
