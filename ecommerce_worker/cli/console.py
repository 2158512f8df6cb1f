"""The console and its users."""

from __future__ import annotations

import click

from ecommerce_worker.cli.output import needs, plainly, running, say
from ecommerce_worker.cli.root import main


@main.command()
@click.option('--debug', is_flag=True, help='Log at level DEBUG.')
@click.option('--threads', type=click.IntRange(1), help='Number of threads that serve pages [default: 8].')
@click.option('--access-logfile', metavar='FILE', help='Log each request to FILE; - is standard output.')
@needs('console', 'django', 'axes', 'waitress', 'whitenoise')
@running
def console(debug: bool, threads: int | None, access_logfile: str | None) -> None:
    """Serve the web console for support staff and operators.

    Runs until stopped.
    """
    from ecommerce_worker.console import server

    options = [f'--threads={threads}'] * bool(threads) + [f'--access-logfile={access_logfile}'] * bool(access_logfile)
    server.run(lambda line: say(f'ecommerce-worker: {line}', err=True), options, debug=debug)


@main.command('console-user')
@click.argument('name')
@click.option('--role', type=click.Choice(['viewer', 'support', 'operator']),
              help='Role of the user; a new user is an operator unless given.')
@needs('console', 'django', 'axes', 'whitenoise')
@plainly
def console_user(name: str, role: str | None) -> None:
    """Print a link at which NAME chooses a password.

    Creates the user of the console if needed.  The link can be used once, within a day.
    """
    from ecommerce_worker.console import server

    say(server.invite(name, role or ''))
