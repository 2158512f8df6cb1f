"""Remote control: workers answer queries; commands are obeyed only if ``REMOTE_CONTROL`` lists them.

Anyone who may publish on the virtual host reaches every worker at once, through the fanout exchange ``celery.pidbox``.
Celery would obey anyone who sends ``cancel_consumer`` or ``revoke``, and search a worker's name with whatever regular
expression it is given.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from celery.worker import pidbox
from celery.worker.consumer import control

from ecommerce_worker import logs, runtime
from ecommerce_worker.broker.wire import CONTENT_TYPES, Raw, decode
from ecommerce_worker.errors import Undecodable

logger = logs.of(__name__)

#: Commands that only tell something, under their names and old ones.  Not ``hello``, with which others have their
#: revoked tasks revoked here too, nor those that look through the memory.
INSPECTION: Final = frozenset((
    'active', 'active_queues', 'clock', 'conf', 'ping', 'query_task', 'registered', 'report', 'reserved', 'revoked',
    'scheduled', 'stats', 'dump_active', 'dump_conf', 'dump_reserved', 'dump_revoked', 'dump_schedule', 'dump_tasks'))

#: How the names of our own commands begin.
OURS: Final = 'ecommerce_'

#: The largest command that is read, in bytes; genuine ones have some hundred, and forty more for each worker named.
LARGEST_COMMAND: Final = 16 * 1024

#: Seconds between two lines in the log about commands that were not obeyed.
QUIET_SECONDS: Final = 60.0


class Control(control.Control):
    """Celery's step, with a mailbox of ours."""

    def __init__(self, c: Any, **options: Any) -> None:
        super().__init__(c, **options)
        if not self.is_green:
            self.box = Mailbox(c)
            self.start, self.stop, self.shutdown = self.box.start, self.box.stop, self.box.shutdown


class Mailbox(pidbox.Pidbox):
    """Receives commands; anything else, or one that is not allowed, is dropped with a line in the log."""

    def __init__(self, c: Any) -> None:
        super().__init__(c)
        self._obeyed = frozenset(runtime.current().settings.REMOTE_CONTROL)
        self._refused = 0
        self._quiet_until = 0.0

    def start(self, c: Any) -> None:
        """Consume, each message as it came."""
        super().start(c)
        self.consumer.on_message = self.on_command
        self.consumer.on_decode_error = lambda message, error: self._refuse(type(error).__name__)  # noqa: ARG005

    def on_command(self, message: Any) -> None:
        """Run a command if it is allowed."""
        try:
            command = self.command(Raw.of(message))
        except Undecodable as error:
            self._refuse(str(error))
            return
        # Clocks are for workers that listen to each other, which ours do not; a high one would end all answers.
        message.headers = {}
        self.on_message(command, message)

    def command(self, raw: Raw) -> dict[str, Any]:
        """The command in a message; raises :class:`~ecommerce_worker.errors.Undecodable` if it is not allowed."""
        if raw.unreadable or len(raw.body) > LARGEST_COMMAND:
            raise Undecodable('not a command')
        found = decode(raw, [CONTENT_TYPES['json']])
        if not isinstance(found, Mapping):
            raise Undecodable('not a command')
        method, arguments, reply_to = found.get('method'), found.get('arguments') or {}, found.get('reply_to')
        if not isinstance(method, str) or not isinstance(arguments, Mapping):
            raise Undecodable('not a command')
        if method not in self.node.handlers or not self._obeys(method):
            raise Undecodable(f'{method[:80]} is not in REMOTE_CONTROL')
        if reply_to is not None:
            reply_to = self._address(reply_to)
        return {'method': method, 'arguments': arguments, 'reply_to': reply_to, 'ticket': _name(found.get('ticket')),
                'destination': _names(found.get('destination')), **_pattern(found)}

    def _obeys(self, method: str) -> bool:
        return (method in INSPECTION or method.startswith(OURS)
                or not self._obeyed.isdisjoint((method, 'all')))

    def _address(self, given: Any) -> dict[str, str]:
        """The reply address, which must be the exchange for replies."""
        exchange = self.node.mailbox.reply_exchange.name
        if not isinstance(given, Mapping) or given.get('exchange') != exchange:
            raise Undecodable('its reply address is not allowed')
        return {'exchange': exchange, 'routing_key': _name(given.get('routing_key')) or ''}

    def _refuse(self, reason: str) -> None:
        self._refused += 1
        if time.monotonic() >= self._quiet_until:
            self._quiet_until = time.monotonic() + QUIET_SECONDS
            logger.warning('a remote control message was ignored', count=self._refused, reason=reason)


def _name(given: Any) -> str | None:
    if given is None:
        return None
    if not isinstance(given, str) or len(given.encode(errors='replace')) > 255:
        raise Undecodable('not a command')
    return given


def _names(given: Any) -> list[str | None] | None:
    if given is None:
        return None
    if not isinstance(given, list):
        raise Undecodable('not a command')
    return [_name(each) for each in given]


def _pattern(found: Mapping[str, Any]) -> dict[str, Any]:
    """The workers' names as a shell pattern; a regular expression may take forever."""
    pattern, matcher = _name(found.get('pattern')), _name(found.get('matcher'))
    if pattern and matcher not in (None, 'glob'):
        raise Undecodable('its pattern is not a shell pattern')
    return {'pattern': pattern, 'matcher': matcher}
