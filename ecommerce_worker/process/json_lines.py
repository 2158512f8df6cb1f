"""Log lines as JSON: one object per line, with the names of the Elastic Common Schema.

Fields without a name in ECS begin with ``ecommerce.`` or ``labels.``.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from typing_extensions import override

from ecommerce_worker import __version__, correlation
from ecommerce_worker.process import role

#: The longest line, in bytes: what container engines and syslogs take as one.
LONGEST: Final = 16 * 1024

#: The most characters of each text, tried in this order until the line is short enough.
_LENGTHS: Final = (6000, 1500, 300, 60, 10)

#: Fields of our lines that have a name of their own; all others are labels.
NAMES: Final[Mapping[str, str]] = {
    'action': 'event.action', 'outcome': 'event.outcome', 'seconds': 'event.duration', 'reason': 'event.reason',
    'error': 'error.type', 'request_id': 'ecommerce.request_id',
    'method': 'http.request.method', 'path': 'url.path', 'response': 'http.response.status_code',
    'client': 'client.address',
    **{name: f'ecommerce.{name}' for name in (
        'task', 'key', 'site', 'queue', 'id', 'root_id', 'attempt', 'next_try', 'status', 'intake')},
}

_unicode, _ascii = (json.JSONEncoder(ensure_ascii=escaped, separators=(',', ':')).encode for escaped in (False, True))


class JsonLines(logging.Formatter):
    """Writes a record as one JSON object on one line, :data:`LONGEST` bytes at most."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        # Ours has the sentence apart from its fields, another library's is one text.
        sentence = getattr(record, 'sentence', None)
        return line(
            record.levelname.lower(), record.getMessage() if sentence is None else sentence, created=record.created,
            process=record.process, logger=record.name, fields={
                'request_id': getattr(record, 'request_id', None) or correlation.current() or None,
                **getattr(record, 'fields', {}), **getattr(record, 'also', {}),
                **self._error(record)})

    def _error(self, record: logging.LogRecord) -> dict[str, Any]:
        text, kind = record.exc_text, getattr(record, 'error_type', None)
        if record.exc_info and not text:
            text, kind = self.formatException(record.exc_info), getattr(record.exc_info[0], '__name__', None)
        found: dict[str, Any] = {'error': kind} if kind else {}
        if trace := text or record.stack_info or getattr(record, 'detail', ''):
            found['trace'] = trace
        return found


def line(level: str, sentence: str, *, created: float, process: int | None = None, logger: str = '',
         fields: Mapping[str, Any] = {}, by: str = '') -> str:
    """A sentence and fields as one line; ``by`` is the role of the process, if it is another one."""
    named = {NAMES.get(name, f'labels.{name}'): _value(name, value) for name, value in fields.items()
             if value is not None and value != '' and name != 'trace'}
    said = {
        '@timestamp': _time(created), 'log.level': level, 'message': str(sentence), 'service.name': 'ecommerce-worker',
        'service.version': __version__, 'service.role': by or role.name(), 'process.pid': process, 'log.logger': logger,
        **named, 'error.stack_trace': str(fields['trace']) if 'trace' in fields else None}
    said = {name: value for name, value in said.items() if value not in (None, '')}
    for most in _LENGTHS:
        text = _encoded({name: _cut(value, most) for name, value in said.items()})
        if len(text.encode()) <= LONGEST:
            return text
    return _encoded({name: _cut(value, most) for name, value in said.items() if not name.startswith('labels.')})


def _cut(value: Any, most: int) -> Any:
    """The value, a long text without its middle: both ends of a traceback matter most."""
    if not isinstance(value, str) or len(value) <= most:
        return value
    return f'{value[:most // 2]} … {value[-(most // 2):]}'


def _encoded(said: Mapping[str, Any]) -> str:
    text = _unicode(said)
    # Half a surrogate pair is no UTF-8, and what does not show may be obeyed by a terminal.
    return text if text.isprintable() else _ascii(
        {name: value.encode(errors='backslashreplace').decode() if isinstance(value, str) else value
         for name, value in said.items()})


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec='milliseconds').replace('+00:00', 'Z')


def _value(name: str, value: Any) -> Any:
    if name == 'seconds' and isinstance(value, int | float) and math.isfinite(value):
        return round(value * 1e9)  # ECS has nanoseconds
    if isinstance(value, datetime):
        return _time(value.timestamp())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, bool | int | float) else str(value)
