"""The console, and who may use it."""

from __future__ import annotations

import click

from ecommerce_worker.cli.output import needs, plainly
from ecommerce_worker.cli.root import main


@main.command(context_settings={'ignore_unknown_options': True, 'help_option_names': ['--help']})
@click.option('--debug', is_flag=True, help='Log everything.')
@click.argument('options', nargs=-1, type=click.UNPROCESSED, metavar='[GUNICORN OPTIONS]...')
@needs('console', 'django', 'axes', 'gunicorn', 'whitenoise')
@plainly
def console(debug: bool, options: tuple[str, ...]) -> None:
    """Serve the pages for support staff and operators, until told to stop.

    Options that are not listed below go to gunicorn, the server, and overrule ours, such as `--threads 16` or
    `--access-logfile -` (see `gunicorn --help`).
    """
    from ecommerce_worker.console import server

    server.run(lambda line: click.echo(f'ecommerce-worker: {line}', err=True), options, debug=debug)


@main.command('console-user')
@click.argument('name')
@click.option('--role', type=click.Choice(['viewer', 'support', 'operator']),
              help='What the person may do; operator for who is not there yet and gets none.')
@needs('console', 'django', 'axes', 'whitenoise')
@plainly
def console_user(name: str, role: str | None) -> None:
    """Print a link, good once and for a day, by which NAME chooses a password for the console."""
    from ecommerce_worker.console import server

    click.echo(server.invite(name, role or ''))
