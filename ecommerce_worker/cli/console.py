"""The console, and who may use it."""

from __future__ import annotations

import click

from ecommerce_worker.cli.output import needs, plainly, running, say
from ecommerce_worker.cli.root import main


@main.command()
@click.option('--debug', is_flag=True, help='Log everything.')
@click.option('--threads', type=click.IntRange(1), help='Make so many pages at once; 8 if not given.')
@click.option('--access-logfile', metavar='FILE', help='Write a line for each request there; - is standard output.')
@needs('console', 'django', 'axes', 'waitress', 'whitenoise')
@running
def console(debug: bool, threads: int | None, access_logfile: str | None) -> None:
    """Serve the pages for support staff and operators.

    Until it is told to stop.
    """
    from ecommerce_worker.console import server

    options = [f'--threads={threads}'] * bool(threads) + [f'--access-logfile={access_logfile}'] * bool(access_logfile)
    server.run(lambda line: say(f'ecommerce-worker: {line}', err=True), options, debug=debug)


@main.command('console-user')
@click.argument('name')
@click.option('--role', type=click.Choice(['viewer', 'support', 'operator']),
              help='What the person may do; operator for who is not there yet and gets none.')
@needs('console', 'django', 'axes', 'whitenoise')
@plainly
def console_user(name: str, role: str | None) -> None:
    """Print a link by which NAME chooses a password.

    It is for the console, and good once and for a day.
    """
    from ecommerce_worker.console import server

    say(server.invite(name, role or ''))
