"""Log lines: a constant sentence and fields, written so that nothing in a field can be mistaken for a field or a line.

::

    logger = logs.of(__name__)
    logger.warning('a job was not woken up', entry=entry.name, error=type(error).__name__)

    … - a job was not woken up: entry=nightly error=TimeoutError

A record has both: ``sentence`` and ``fields`` are its attributes, and what it says (``getMessage()``) is the line.  So
each formatter shows the fields, that of an operator's own ``LOGGING`` too, and one that writes JSON
(:mod:`ecommerce_worker.process.json_lines`) finds their values.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, MutableMapping
from typing import Any, Final

from typing_extensions import override

#: Fields that hold sentences: in quotes always, for whoever reads lines by a pattern.
SENTENCES: Final = frozenset(('reason', 'how', 'output', 'note', 'problem', 'remedy'))

#: What separates fields, or quotes them.
_ODD: Final = re.compile(r'[ "\\=]').search

# Made once: json.dumps makes another for each text.
_as_json, _as_ascii_json = json.JSONEncoder(ensure_ascii=False).encode, json.JSONEncoder().encode

#: What logging itself takes with a call.
_OURS: Final = ('exc_info', 'stack_info', 'stacklevel')


def of(name: str) -> Log:
    """The logger of a module."""
    return Log(logging.getLogger(name))


class Log(logging.LoggerAdapter):  # type: ignore[type-arg]  # generic for type checkers only
    """A logger whose calls take a sentence, and fields by their names.

    A text that has lines of its own, such as a stack, is given as ``detail``: each of them is indented.  ``also`` are
    fields that only machines read: JSON has them, in place of those of the same names.
    """

    @override
    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """The record's message, and what logging takes with it."""
        taken: dict[str, Any] = {name: kwargs.pop(name) for name in _OURS if name in kwargs}
        detail, also = kwargs.pop('detail', ''), kwargs.pop('also', {})
        taken['extra'] = {'sentence': msg, 'fields': kwargs, 'also': also, 'detail': detail}
        return Line(msg, kwargs, detail), taken


class Line:
    """A sentence and its fields, formatted only when needed."""

    __slots__ = ('_detail', '_fields', '_sentence')

    def __init__(self, sentence: str, fields: Mapping[str, Any], detail: str = '') -> None:
        self._sentence, self._fields, self._detail = sentence, fields, detail

    @override
    def __str__(self) -> str:
        line = self._sentence if self._sentence.isprintable() else quoted(self._sentence)
        if self._fields:
            line += ': ' + ' '.join([
                f'{name}={value if value.__class__ is int else _value(name, value)}'
                for name, value in self._fields.items()])
        return f'{line}\n{indented(self._detail)}' if self._detail else line


def _value(name: str, value: Any) -> str:
    if isinstance(value, str):
        return quoted(value) if name in SENTENCES else word(value)
    if value is None:
        return '-'
    return f'{value:.3f}' if isinstance(value, float) else word(str(value))


def quoted(value: str) -> str:
    """The text in quotes, as JSON has them, and on one line."""
    return _as_json(value) if value.isprintable() else _as_ascii_json(value)


def word(value: str) -> str:
    """The value of a field: in quotes only where it could be mistaken for more than one; ``-`` for none."""
    return (value or '-') if value.isprintable() and not _ODD(value) else quoted(value)


def indented(text: str) -> str:
    """The lines of a text so that none can be taken for the first one of a record, nor does a terminal obey it."""
    return '\n'.join(f'  {_shown(line)}' for line in text.rstrip('\n').split('\n'))


def one_record(text: str) -> str:
    """What a record of another library says: as it is, but for what could be taken for another record."""
    if text.isprintable():
        return text
    first, *others = text.split('\n')
    return '\n'.join((_shown(first), *(line if line.startswith(' ') else f'  {line}' for line in map(_shown, others))))


def _shown(line: str) -> str:
    return line if line.isprintable() else ''.join(
        letter if letter.isprintable() or letter == '\t' else ascii(letter)[1:-1] for letter in line)
