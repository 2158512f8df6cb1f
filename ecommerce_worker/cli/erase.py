"""The command ``erase``."""

from __future__ import annotations

import sys

import click

from ecommerce_worker import extras, runtime
from ecommerce_worker.cli.options import JSON
from ecommerce_worker.cli.output import answered, fail, plainly, print_json, say, table
from ecommerce_worker.cli.resources import connected, who
from ecommerce_worker.cli.root import main
from ecommerce_worker.words import counted


@main.command()
@click.argument('address')
@click.option('--dry-run', is_flag=True, help='Change nothing; show what would be removed.')
@click.option('--yes', is_flag=True, help='Do not prompt.')
@click.option('--reason', default='', help='Why, such as the number of a ticket; recorded in the ledger.')
@JSON
@plainly
def erase(address: str, dry_run: bool, yes: bool, reason: str, as_json: bool) -> None:
    """Remove a person from messages and ledger.

    ADDRESS is a mail address; - reads it from standard input.  Messages that contain it are discarded: parked ones,
    those in the waiting room, and those in the intake's spool if it is on this machine.  Their orders are not fulfilled
    and their mails not sent.  Elsewhere in the ledger the address is replaced by ***.  Messages that are queued,
    or that
    a worker holds, are not touched.
    """
    from ecommerce_worker.broker import topology
    from ecommerce_worker.ledger import database
    from ecommerce_worker.operations.erasing import Eraser, Person

    if as_json and not (yes or dry_run):
        fail('--json cannot prompt: add --yes or --dry-run', 2)
    person = Person((sys.stdin.readline() if address == '-' else address).strip())
    settings = runtime.current().settings
    if database.is_kept(settings):
        extras.require_django()
    with connected() as (app, connection):
        found = list(Eraser(app, person, who=who(), dry=True).run(connection))
        if not as_json and found:
            table(('WHERE', 'WHAT'), [(it.place, it.what or '-') for it in found])
        if not dry_run:
            if found and not yes:
                with answered('--yes'):
                    if not click.confirm(f'Erase {counted(len(found), "item")} permanently?'):
                        fail('nothing was erased')
            found = list(Eraser(app, person, who=who(), reason=reason).run(connection))
        queued = sum(depth.messages for depth in topology.depths(connection, settings.QUEUES))
    if as_json:
        print_json({'erased' if not dry_run else 'found': [vars(it) for it in found], 'queued': queued})
        return
    say(f'{counted(len(found), "item")} {"found, nothing was changed" if dry_run else "erased"}')
    if queued:
        say(f'{counted(queued, "message")} queued for workers {"was" if queued == 1 else "were"} not searched: run '
            'this '
            'again when they are done')
    say('not searched: the shop, mail vendors, logs and backups')
