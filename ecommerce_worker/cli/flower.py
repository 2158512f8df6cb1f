"""The command ``flower``."""

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

    Runs on loopback and read-only, until stopped.  Flower is installed separately.  Options are passed on to it and
    override ours: `--address=127.0.0.1`, `--read_only=true`, and `--enable_events=false`, because events show task
    arguments, which are personal data.
    """
    from celery.bin.celery import celery

    runtime.current()
    ours = ('--address=127.0.0.1', '--read_only=true', '--enable_events=false')
    sys.exit(celery.main(['-A', 'ecommerce_worker.celery_app:app', 'flower', *ours, *options], standalone_mode=False))
