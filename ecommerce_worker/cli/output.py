"""What commands print, and how they fail."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, NoReturn

import click

from ecommerce_worker.errors import Misconfigured, WorkerError

LEVELS = ('DEBUG', 'INFO', 'WARNING', 'ERROR', 'CRITICAL')


def fail(message: str, status: int = 1) -> NoReturn:
    """End with one plain line and this exit status."""
    click.echo(f'ecommerce-worker: {message}', err=True)
    sys.exit(status)


def plainly(command: Callable[..., Any]) -> Callable[..., Any]:
    """Our own errors end a command with their text; a traceback is for what nobody foresaw."""
    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except Misconfigured as error:
            for problem in error.problems:
                click.echo(f'ecommerce-worker: {problem}', err=True)
            fail(f'{counted(len(error.problems), "problem")} in the configuration; '
                 '`ecommerce-worker check` shows all of it')
        except WorkerError as error:
            fail(str(error), getattr(error, 'status', 1))

    return run


def leveled(command: Callable[[str | None], Any]) -> Callable[..., Any]:
    """The command takes what it logs: a level, or None for what is configured."""
    @click.option('--debug', is_flag=True, help='Log everything.')
    @click.option('--loglevel', metavar='LEVEL', type=click.Choice(LEVELS, case_sensitive=False),
                  help=f'Log this and what is worse: {", ".join(LEVELS)}.  LOG_LEVEL if not given.')
    @wraps(command)
    def run(debug: bool, loglevel: str | None) -> Any:
        return command('DEBUG' if debug else loglevel)

    return run


@contextmanager
def answered(options: str) -> Iterator[None]:
    """Ask something in here; where nobody answers, nothing is done, and these options would have."""
    try:
        yield
    except click.Abort:
        click.echo()
        fail(f'nothing was done, for nobody answered: {options} answers beforehand')


def counted(number: int, noun: str) -> str:
    """So many of them, in words: ``1 order``, ``2 orders``."""
    return f'{number} {noun}{"" if number == 1 else "s"}'


def table(head: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> None:
    """A table whose columns are as wide as they need to be; the last one may be as long as it likes."""
    lines = [tuple(str(cell) for cell in row) for row in rows]
    widths = [max(len(line[column]) for line in (head, *lines)) for column in range(len(head))]
    for line in (head, *lines):
        click.echo('  '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
