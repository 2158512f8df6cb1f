"""The command ``reconcile``."""

from __future__ import annotations

import sys
from os import EX_TEMPFAIL

import click

from ecommerce_worker import runtime
from ecommerce_worker.cli.options import DURATION, JSON
from ecommerce_worker.cli.output import fail, needs, plainly, print_json, say, table
from ecommerce_worker.cli.resources import application, opened_ledger
from ecommerce_worker.cli.root import main
from ecommerce_worker.errors import WorkerError
from ecommerce_worker.words import counted, hint


@main.command()
@click.argument('names', nargs=-1, metavar='[INTAKE]...')
@click.option('--since', default='2d', show_default=True, type=DURATION,
              help='Only orders changed within this time.')
@click.option('--grace', default='15m', show_default=True, type=DURATION,
              help='Ignore orders changed within this time; their webhooks may still come.')
@click.option('--repair', is_flag=True, help='Enable webhooks that the shop has disabled.')
@click.option('--dry-run', is_flag=True, help='Publish and repair nothing; show what would be published.')
@JSON
@needs('intake', 'waitress')
@plainly
def reconcile(names: tuple[str, ...], since: float, grace: float, repair: bool, dry_run: bool, as_json: bool) -> None:
    """Publish orders whose webhooks were never delivered.

    Asks the shops of INTAKES that have an API key, and publishes orders that the ledger does not have.  Also reports
    webhooks that are missing or disabled.

    Exit status: 1 if something is wrong, 75 if it cannot run now.
    """
    from ecommerce_worker.intake import intakes, server
    from ecommerce_worker.resubmit import missed
    from ecommerce_worker.resubmit.messages import refuse_unrecorded

    app, settings = application(), runtime.current().settings
    found = intakes.read(settings, app.tasks)
    for name in names:
        if name not in found:
            fail(f'there is no intake {name}{hint(name, found)}', 2)
    if since > settings.LEDGER_KEEP_DAYS * 86_400:
        fail(f'--since reaches further back than the ledger (LEDGER_KEEP_DAYS: {settings.LEDGER_KEEP_DAYS})', 2)
    try:
        opened_ledger()
    except WorkerError as error:
        fail(f'reconcile needs the ledger, to know which orders have arrived: {error}', EX_TEMPFAIL)
    from ecommerce_worker.resubmit.known import came, known, saw

    with app.connection_for_read() as connection:
        refuse_unrecorded(connection, known)
    report = missed.reconcile(app, found, came, missed.Wish(since, grace, names, dry_run, repair),
                              server.url_of(settings))
    if not dry_run:
        saw(report.webhooks)
    if as_json:
        print_json({**report.as_json(), 'dry_run': dry_run})
        sys.exit(report.status)
    if report.missed:
        table(('ORDER', 'INTAKE', 'RESULT'), [(it.number, it.intake, it.result) for it in report.missed])
    for trouble in report.troubles:
        say(f'trouble: {trouble}')
    say(f'{counted(report.looked_at, "order")} checked, {report.published} {"would be " if dry_run else ""}published')
    sys.exit(report.status)
