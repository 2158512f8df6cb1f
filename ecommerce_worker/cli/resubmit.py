"""The command ``resubmit``."""

from __future__ import annotations

import sys
from os import EX_TEMPFAIL
from typing import TYPE_CHECKING

import click

from ecommerce_worker import extras, runtime
from ecommerce_worker.cli.options import DURATION, JSON
from ecommerce_worker.cli.output import fail, plainly, print_json, say, table
from ecommerce_worker.cli.resources import application
from ecommerce_worker.cli.root import main
from ecommerce_worker.errors import WorkerError
from ecommerce_worker.words import counted

if TYPE_CHECKING:
    from ecommerce_worker.resubmit.names import Memory


@main.command()
@click.option('--order', 'numbers', multiple=True, metavar='NUMBER',
              help='Only this order, whatever its age; repeatable.')
@click.option('--site', 'sites', multiple=True, metavar='CODE',
              help='Only orders of this site, - for the one without a code; repeatable.')
@click.option('--since', default='2d', show_default=True, type=DURATION,
              help='Only orders placed within this time.')
@click.option('--grace', default='15m', show_default=True, type=DURATION,
              help='Ignore orders younger than this.')
@click.option('--delay', default='2m', show_default=True, type=DURATION,
              help='How long published orders wait before they run.')
@click.option('--limit', type=click.IntRange(min=1), help='Maximum number to publish, the oldest first.')
@click.option('--look-into-queues', is_flag=True,
              help='Search queued messages too; each then counts as redelivered, and waits.')
@click.option('--dry-run', is_flag=True, help='Publish nothing; show what would be published.')
@JSON
@plainly
def resubmit(numbers: tuple[str, ...], sites: tuple[str, ...], since: float, grace: float, delay: float,
             limit: int | None, look_into_queues: bool, dry_run: bool, as_json: bool) -> None:
    """Publish paid orders that RabbitMQ has lost.

    These are orders that the shop lists as unfulfilled and that are nowhere in RabbitMQ.  Nothing is published twice,
    however often this runs.  Orders parked in the ledger are skipped, and so are discarded ones unless --order names
    them; the shop is asked about overdue ones.

    Exit status: 1 if a shop could not be asked or an order not published, 75 if it cannot run now, or not on this
    machine.  Waits up to half a minute for a shop or LMS that does not answer.
    """
    from ecommerce_worker.resubmit import run as resubmitting
    from ecommerce_worker.resubmit.names import Wanted
    from ecommerce_worker.resubmit.report import HEAD

    wanted = Wanted(numbers, sites, since, grace, delay, limit, dry_run, look_into_queues)
    memory = _memory()
    report = resubmitting.resubmit(application(), wanted, memory, lambda line: say(line, err=True))
    if memory and not dry_run:
        from ecommerce_worker.resubmit.known import settle_overdue

        settle_overdue(report, numbers)
    if as_json:
        print_json({**report.as_json(), 'dry_run': dry_run})
        sys.exit(report.status)
    if report.rows:
        table(HEAD, [row.cells for row in report.rows])
    for trouble in report.troubles:
        say(f'trouble: {trouble}')
    if report.settled:
        say(f'{counted(report.settled, "overdue order")} complete at the shop, recorded in the ledger')
    say(f'{counted(report.published, "order")} {"would be " if dry_run else ""}published')
    sys.exit(report.status)


def _memory() -> Memory | None:
    """What the ledger knows about orders; None if no ledger is kept (then no extra needs to be installed)."""
    from ecommerce_worker.ledger import database

    settings = runtime.current().settings
    if not extras.is_installed('django') and not database.is_kept(settings):
        return None
    try:
        extras.require_django()
    except WorkerError as error:
        fail(str(error), EX_TEMPFAIL)
    from ecommerce_worker.resubmit.known import memory_of

    return memory_of(settings)
