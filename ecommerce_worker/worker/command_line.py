"""Compatibility with older deployments: options that Celery 3 and 4 took after ``celery worker``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from celery import Celery

DETACHED = ('-D', '--detach')


def admit(app: Celery) -> None:
    """Let ``celery worker`` accept ``--queue`` for ``--queues``, and an ``--app`` that repeats ``-A``.

    Does nothing in a process that Celery's command did not start.
    """
    module: Any = sys.modules.get('celery.bin.worker')
    if module is None:
        return
    queues = next(option for option in module.worker.params if option.name == 'queues')
    if '--queue' not in queues.opts:
        queues.opts.append('--queue')
    app.user_options['worker'].add(click.Option(['--app'], expose_value=False, hidden=True, help='The same as --app.'))


def starts_worker(arguments: Sequence[str]) -> bool:
    """Whether this process was started by ``celery worker`` with these arguments, or by ours, which calls that."""
    return 'celery.bin.worker' in sys.modules and 'worker' in arguments


def warn(arguments: Sequence[str]) -> None:
    """Warn on standard error if the log of ``celery worker`` would be lost with these arguments."""
    names = {argument.partition('=')[0] for argument in arguments}
    files = {'-f', '--logfile'}
    if 'worker' in names and names & {*DETACHED} and not names & files and not any(
            argument.startswith('-f') for argument in arguments):
        click.echo('ecommerce-worker: -D without --logfile FILE: a background worker has nowhere to log to',
                   err=True)
