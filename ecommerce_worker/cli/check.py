"""Looking at the configuration."""

from __future__ import annotations

import sys

import click

from ecommerce_worker import runtime
from ecommerce_worker.cli.output import counted, table
from ecommerce_worker.cli.resources import application
from ecommerce_worker.cli.root import main
from ecommerce_worker.errors import Misconfigured


@main.command()
def check() -> None:
    """Print the configuration in force, secrets masked, and everything that is wrong with it."""
    from ecommerce_worker.schedule import checks as beats

    try:
        conf = runtime.current().settings
        runtime.current().check()
        beats.check(application(), conf)
    except Misconfigured as error:
        for problem in error.problems:
            click.echo(f'problem: {problem}')
        click.echo(counted(len(error.problems), 'problem') + ' found; a worker would not start')
        sys.exit(1)
    table(('SETTING', 'FROM', 'VALUE'), [(name, source, value) for name, value, source in conf.rows()])
    for remark in conf.remarks:
        click.echo(f'note: {remark}')
    click.echo('no problem found')
