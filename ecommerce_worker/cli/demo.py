"""The demonstration."""

from __future__ import annotations

import sys

import click

from ecommerce_worker.cli.output import plainly
from ecommerce_worker.cli.root import main


@main.command()
@click.option('--keep', is_flag=True, help='Leave broker, shop and worker running at the end, until Ctrl-C.')
@click.option('--files', is_flag=True, help='Do without RabbitMQ even where there is one: orders travel in files.')
@plainly
def demo(keep: bool, files: bool) -> None:
    """Show all of it at work, through every kind of trouble.

    Orders are fulfilled and mails sent on this machine alone.
    """
    from ecommerce_worker.demo.story import run

    sys.exit(run(keep, rabbitmq=not files))
