"""Options that several commands have."""

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
        """The seconds of what was given."""
        try:
            return durations.seconds(str(value))
        except ValueError as error:
            self.fail(f'this must be {error}; it is {value!r}', param, ctx)


DURATION = _Duration()


#: The command can print JSON, for programs.
JSON = click.option('--json', 'as_json', is_flag=True, help='Print JSON, and nothing else.')


def leveled(command: Callable[[str | None], Any]) -> Callable[..., Any]:
    """The command takes what it logs: a level, or None for what is configured."""
    @click.option('--debug', is_flag=True, help='Log everything.')
    @click.option('--loglevel', metavar='LEVEL', type=click.Choice(LEVELS, case_sensitive=False),
                  help=f'Log this and what is worse: {", ".join(LEVELS)}.  LOG_LEVEL if not given.')
    @wraps(command)
    def run(debug: bool, loglevel: str | None) -> Any:
        return command('DEBUG' if debug else loglevel)

    return run
