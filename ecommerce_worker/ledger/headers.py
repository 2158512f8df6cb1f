"""The headers of a message as text, and back: AMQP knows bytes, decimals and times, which plain JSON does not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kombu.utils.json import dumps, loads


def written(headers: Mapping[str, Any]) -> str:
    """The headers as text, without those that would not be restored unchanged."""
    return str(dumps({name: value for name, value in headers.items() if _comes_back(value)}))


def read(text: str) -> dict[str, Any]:
    """The headers in such a text."""
    return dict(loads(text))


def _comes_back(value: Any) -> bool:
    """Nearly all do, but one may be made up."""
    try:
        return bool(loads(dumps(value)) == value)
    except (TypeError, ValueError, RecursionError, ArithmeticError):
        return False
