"""How commands print and fail."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import wraps
from typing import Any, NoReturn

import click

from ecommerce_worker import extras, runtime
from ecommerce_worker.errors import Misconfigured, WorkerError
from ecommerce_worker.process import output
from ecommerce_worker.settings import log_format
from ecommerce_worker.words import counted, printable


def say(line: str = '', *, err: bool = False) -> None:
    """Print a line.  All output of commands goes through this or :func:`print_json`."""
    click.echo(printable(line), err=err)


def fail(message: str, status: int = 1) -> NoReturn:
    """Exit with one plain line on standard error and this status."""
    _say_failure(message)
    sys.exit(status)


def _say_failure(message: str) -> None:
    if not output.failed(printable(message)):
        say(f'ecommerce-worker: {message}', err=True)


def plainly(command: Callable[..., Any]) -> Callable[..., Any]:
    """End the command with the text of our own errors; only unexpected ones leave a traceback."""
    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except Misconfigured as error:
            for problem in error.problems:
                _say_failure(problem)
            fail(f'{counted(len(error.problems), "problem")} in the configuration; '
                 '`ecommerce-worker check` shows all of them')
        except WorkerError as error:
            fail(str(error), error.exit_status)

    return run


def needs(extra: str, *modules: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """End the command with one line unless all of these modules are installed; ``extra`` provides them."""
    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(command)
        def run(*args: Any, **kwargs: Any) -> Any:
            if missing := [name for name in modules if not extras.is_installed(name)]:
                fail(f'this command needs {", ".join(missing)}, not installed here: {extras.install(extra)}')
            return command(*args, **kwargs)

        return run

    return decorate


def running(command: Callable[..., Any]) -> Callable[..., Any]:
    """A command that runs until stopped: it never blocks on output, and exits in time."""
    from ecommerce_worker.process import ending, status

    @plainly
    def guarded(*args: Any, **kwargs: Any) -> Any:
        settings = runtime.current().settings
        if settings.LOG_FORMAT == 'json':
            output.say_in_json()
        ending.within(settings.SHUTDOWN_SECONDS)
        return command(*args, **kwargs)

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        output.open_standard()
        if log_format() == 'json':
            output.say_in_json()
        ending.at_once()
        ending.with_parent()
        try:
            return guarded(*args, **kwargs)
        except SystemExit as error:
            status.ends_with(error.code if isinstance(error.code, int) else int(error.code is not None))
            raise
        except Exception:
            status.ends_with(1)
            raise

    return run


@contextmanager
def answered(options: str) -> Iterator[None]:
    """Prompt within this context; without a terminal the command fails and names these options."""
    try:
        yield
    except click.Abort:
        say()
        fail(f'nothing was done: no answer; use {options} instead')


def print_json(value: Any) -> None:
    """Print the JSON result of a command; times in UTC, ASCII only, since it may go through a terminal."""
    click.echo(json.dumps(value, indent=2, default=_in_json))


def _in_json(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec='milliseconds').replace('+00:00', 'Z')
    raise TypeError(type(value).__name__)


def table(head: tuple[str, ...], rows: Iterable[tuple[Any, ...]], *, err: bool = False) -> None:
    """Print a table; columns are as wide as their content, the last one is never cut."""
    lines = [tuple(printable(str(cell)) for cell in row) for row in rows]
    widths = [max(len(line[column]) for line in (head, *lines)) for column in range(len(head))]
    for line in (head, *lines):
        say('  '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip(), err=err)
