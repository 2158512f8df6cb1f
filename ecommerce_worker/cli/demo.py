"""The command ``demo``."""

from __future__ import annotations

import sys

import click

from ecommerce_worker.cli.output import plainly
from ecommerce_worker.cli.root import main


@main.command()
@click.option('--keep', is_flag=True, help='Leave broker, shop and worker running at the end, until Ctrl-C.')
@click.option('--files', is_flag=True, help='Use files instead of RabbitMQ, even if it is installed.')
@plainly
def demo(keep: bool, files: bool) -> None:
    """Demonstrate the worker through every kind of trouble.

    Everything runs on this machine: no order or mail leaves it.
    """
    from ecommerce_worker.demo.story import run

    sys.exit(run(keep, rabbitmq=not files))
