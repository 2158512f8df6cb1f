"""One id from the shop's request to what it leads to: in messages, in log lines, in calls of the shop's and LMS's API.

It is the ``X-Request-ID`` that the shop gave, with the message or with its call of the intake; else the id of the
message that everything began with.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

#: The header of a request, and of a message, that has the id.
HEADER: Final = 'X-Request-ID'

#: Nobody's address or name, and nothing that a header or a line could not bear.
_ID: Final = re.compile(r'[A-Za-z0-9][A-Za-z0-9._:/+=-]{0,127}')

_current: Final[ContextVar[str]] = ContextVar('correlation', default='')


def read(value: Any) -> str:
    """The id, if it is one: 128 letters, digits and ``._:/+=-`` at most; else ''."""
    return value if isinstance(value, str) and _ID.fullmatch(value) else ''


def of_message(headers: Mapping[str, Any]) -> str:
    """The id that a message carries, in either spelling of the header; '' if none."""
    return read(headers.get(HEADER, headers.get(HEADER.lower())))


def current() -> str:
    """The request id of this thread; '' if there is none."""
    return _current.get()


@contextmanager
def of(id_: str) -> Iterator[None]:
    """What is done in here is done for the sake of that id."""
    token = _current.set(id_)
    try:
        yield
    finally:
        _current.reset(token)
