"""Running Flower."""

from __future__ import annotations

import sys

import click

from ecommerce_worker import runtime
from ecommerce_worker.cli.output import needs, plainly
from ecommerce_worker.cli.root import main


@main.command(context_settings={'ignore_unknown_options': True, 'help_option_names': ['--help']})
@click.argument('options', nargs=-1, type=click.UNPROCESSED, metavar='[FLOWER OPTIONS]...')
@needs('flower', 'flower')
@plainly
def flower(options: tuple[str, ...]) -> None:
    """Serve Flower, Celery's own monitor of workers.

    On loopback and read-only, until told to stop.  Flower is installed apart.  Options go to it and overrule ours:
    `--address=127.0.0.1`, `--read_only=true`, and `--enable_events=false`, for events show what tasks were called
    with, and that is personal data.
    """
    from celery.bin.celery import celery

    runtime.current()
    ours = ('--address=127.0.0.1', '--read_only=true', '--enable_events=false')
    sys.exit(celery.main(['-A', 'ecommerce_worker.celery_app:app', 'flower', *ours, *options], standalone_mode=False))
