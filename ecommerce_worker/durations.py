"""Durations as people write them: ``15m``, ``2d``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

_UNITS: Final[Mapping[str, int]] = {'s': 1, 'm': 60, 'h': 3600, 'd': 86_400}


def seconds(given: str) -> float:
    """The seconds of ``90s``, ``15m``, ``1.5h`` or ``2d``; of a mere number too.  Raises ValueError."""
    found = re.fullmatch(r'(\d{1,9}(?:\.\d{1,9})?)([smhd]?)', given.strip())
    if not found:
        raise ValueError('a number and one of s, m, h, d, such as 15m or 2d')
    return float(found[1]) * _UNITS[found[2] or 's']


def duration(given: float) -> str:
    """So many seconds as :func:`seconds` reads them: ``15m``."""
    unit = next((unit for unit in 'dhm' if given and given % _UNITS[unit] == 0), 's')
    return f'{given / _UNITS[unit]:g}{unit}'
