"""The command ``smoke``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ecommerce_worker import runtime
from ecommerce_worker.broker import topology
from ecommerce_worker.cli.intake import intake_named, url_of
from ecommerce_worker.cli.options import DURATION, JSON
from ecommerce_worker.cli.output import fail, plainly, print_json, say
from ecommerce_worker.cli.resources import connected
from ecommerce_worker.cli.root import main

if TYPE_CHECKING:
    from ecommerce_worker.smoke.through import Send


@main.command()
@click.option('--order', default='', help='Order of the shop to send through the running workers.')
@click.option('--site', default='', help='Site code of its shop.')
@click.option('--intake', 'name', default='', metavar='NAME', help='Send it to this running intake.')
@click.option('--file', type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help='Body that the shop would post to that intake; required unless its kind is submit.')
@click.option('--wait', default='60s', show_default=True, type=DURATION, help='How long to wait for all steps '
                                                                              'together.')
@JSON
@plainly
def smoke(order: str, site: str, name: str, file: Path | None, wait: float, as_json: bool) -> None:
    """Send a test order and print each step with its time.

    Without --order, a temporary intake, queue and worker send it to a stand-in shop, through the real RabbitMQ and its
    waiting room; orders, running workers and the ledger are not touched.  With --order, it goes through the running
    workers to the shop itself; an order that is complete there is not fulfilled again.  With --intake, it is signed and
    posted to that intake as its shop would.

    Exit status: 1 if a step fails or does not happen in time.
    """
    from ecommerce_worker.intake.posting import NotAnswered
    from ecommerce_worker.smoke import apart, through
    from ecommerce_worker.smoke.steps import NotPassed

    steps: list[dict[str, Any]] = []

    def tell(seconds: float, what: str) -> None:
        steps.append({'seconds': round(seconds, 3), 'step': what})
        if not as_json:
            say(f'{seconds:6.2f} s  {what}')

    if file and not name:
        fail('--file needs --intake', 2)
    if file and (order or site):
        fail('--file contains the order: omit --order and --site', 2)
    conf, problem = runtime.current().settings, ''
    with connected() as (app, connection):
        if not topology.is_rabbitmq(connection):
            fail('smoke needs RabbitMQ')
        try:
            if name:
                through.run(connection, conf, _posting(name, order, site, file), tell, wait)
            elif order:
                through.run(connection, conf, through.by_queue(app, conf, order, site), tell, wait)
            else:
                apart.run(app, connection, conf, tell, wait)
        except (NotPassed, NotAnswered) as error:
            problem = str(error)
    if as_json:
        print_json({'passed': not problem, 'problem': problem or None, 'steps': steps})
    if problem:
        fail(problem)
    if not as_json:
        say('passed')


def _posting(name: str, order: str, site: str, file: Path | None) -> Send:
    """How to send an order to the intake of that name."""
    from ecommerce_worker.smoke import through

    it = intake_named(name)
    if file:
        body = file.read_bytes()
    elif it.kind != 'submit':
        fail(f'the intake {name} is of kind {it.kind}: --file must name a body as its shop posts it', 2)
    elif not order:
        fail('specify an order of the shop with --order, or a body with --file', 2)
    else:
        body = json.dumps({'order_number': order, **({'site_code': site} if site else {})}).encode()
    return through.by_intake(it, url_of(it), body)
