"""The command ``smoke``."""

from __future__ import annotations

from typing import Any

import click

from ecommerce_worker import runtime
from ecommerce_worker.broker import topology
from ecommerce_worker.cli.options import DURATION, JSON
from ecommerce_worker.cli.output import fail, plainly, print_json, say
from ecommerce_worker.cli.resources import connected
from ecommerce_worker.cli.root import main


@main.command()
@click.option('--order', default='', help='Follow this order of the shop, through the workers that run.')
@click.option('--site', default='', help='The site code of its shop.')
@click.option('--wait', default='60s', show_default=True, type=DURATION, help='Wait so long for all steps together.')
@JSON
@plainly
def smoke(order: str, site: str, wait: float, as_json: bool) -> None:
    """Send an order of its own and tell each step, with its time.

    Without --order: by an intake, a queue and a worker of its own to a stand-in shop, through the real RabbitMQ and its
    waiting room; orders, workers and the ledger are not touched.  With it: through all that runs, to the shop itself;
    an order that is complete there is not fulfilled again.

    Exit status: 1 if a step does not come.
    """
    from ecommerce_worker.smoke import apart, through
    from ecommerce_worker.smoke.steps import NotPassed

    steps: list[dict[str, Any]] = []

    def tell(seconds: float, what: str) -> None:
        steps.append({'seconds': round(seconds, 3), 'step': what})
        if not as_json:
            say(f'{seconds:6.2f} s  {what}')

    conf, problem = runtime.current().settings, ''
    with connected() as (app, connection):
        if not topology.is_rabbitmq(connection):
            fail('this needs RabbitMQ')
        try:
            if order:
                through.run(app, connection, conf, order, site, tell, wait)
            else:
                apart.run(app, connection, conf, tell, wait)
        except NotPassed as error:
            problem = str(error)
    if as_json:
        print_json({'passed': not problem, 'problem': problem or None, 'steps': steps})
    if problem:
        fail(problem)
    if not as_json:
        say('passed')
