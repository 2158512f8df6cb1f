"""Options shared by several commands."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import click
from typing_extensions import override

from ecommerce_worker import durations

LEVELS = ('DEBUG', 'INFO', 'WARNING', 'ERROR', 'CRITICAL')


class _Duration(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.3
    """A duration such as 15m, as seconds."""

    name = 'duration'

    @override
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse the duration into seconds."""
        try:
            return durations.seconds(str(value))
        except ValueError as error:
            self.fail(f'must be {error}, not {value!r}', param, ctx)


DURATION = _Duration()


#: The option of commands that can print JSON, for programs.
JSON = click.option('--json', 'as_json', is_flag=True, help='Print JSON only.')


def leveled(command: Callable[[str | None], Any]) -> Callable[..., Any]:
    """Add an option for the log level; None means the configured one."""
    @click.option('--debug', is_flag=True, help='Log at level DEBUG.')
    @click.option('--loglevel', metavar='LEVEL', type=click.Choice(LEVELS, case_sensitive=False),
                  help=f'Log level: {", ".join(LEVELS)} [default: LOG_LEVEL].')
    @wraps(command)
    def run(debug: bool, loglevel: str | None) -> Any:
        return command('DEBUG' if debug else loglevel)

    return run
