"""The commands of the intake: serve it, list it, make secrets for it, and test it."""

from __future__ import annotations

import secrets
import time
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from ecommerce_worker import extras, runtime
from ecommerce_worker.cli.options import DURATION, JSON
from ecommerce_worker.cli.output import fail, needs, plainly, print_json, running, say, table
from ecommerce_worker.cli.resources import application, opened_ledger
from ecommerce_worker.cli.root import main
from ecommerce_worker.errors import WorkerError
from ecommerce_worker.words import hint

if TYPE_CHECKING:
    from ecommerce_worker.intake.intakes import Intake

#: Seconds between two looks into the ledger.
LOOK_SECONDS: Final = 0.5


@main.group(invoke_without_command=True)
@click.option('--debug', is_flag=True, help='Log at level DEBUG.')
@click.option('--threads', type=click.IntRange(1),
              help='Number of deliveries that wait for the broker at once [default: 32].')
@click.pass_context
def intake(context: click.Context, debug: bool, threads: int | None) -> None:
    """Accept the signed webhooks of the shops in INTAKES.

    Runs until stopped.  Several may run on one address.
    """
    if context.invoked_subcommand is None:
        _serve(debug, threads)


@needs('intake', 'waitress')
@running
def _serve(debug: bool, threads: int | None) -> None:
    from ecommerce_worker import celery_app
    from ecommerce_worker.intake import server

    app = application()
    celery_app.configure_logging('DEBUG' if debug else None)
    server.run(app, runtime.current().settings, lambda line: say(f'ecommerce-worker: {line}', err=True),
               threads=threads or server.THREADS)


def _found() -> Mapping[str, Any]:
    from ecommerce_worker.intake import intakes

    return intakes.read(runtime.current().settings, application().tasks)


def intake_named(name: str) -> Intake:
    """The intake of that name; ends the command if there is none."""
    found = _found()
    if name not in found:
        fail(f'there is no intake {name}{hint(name, found)}', 2)
    intake: Intake = found[name]
    return intake


def url_of(it: Intake) -> str:
    """Its URL on this machine."""
    return f'http://{runtime.current().settings.INTAKE_ADDRESS}{it.path}'


@intake.command('list')
@JSON
@needs('intake', 'waitress')
@plainly
def list_intakes(as_json: bool) -> None:
    """List the intakes, with the URL to paste into each shop."""
    from ecommerce_worker.intake import server

    root = server.url_of(runtime.current().settings)
    rows = [{'name': it.name, 'kind': it.kind, 'state': it.state,
             'events': {topic: action.task for topic, action in it.events.items()}, 'url': root + it.path}
            for it in _found().values()]
    if as_json:
        print_json({'intakes': rows})
        return
    table(('INTAKE', 'KIND', 'STATE', 'URL', 'EVENTS'), [
        (it['name'], it['kind'], it['state'], it['url'],
         ', '.join(f'{topic}: {task.rpartition(".")[2]}' for topic, task in it['events'].items())) for it in rows])


@intake.command('secret')
def make_secret() -> None:
    """Print a new secret for an intake of any kind."""
    say(f'whsec_{b64encode(secrets.token_bytes(32)).decode()}')


@intake.command('try')
@click.argument('name')
@click.argument('file', type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option('--topic', default='', help='Topic of the delivery [default: the first of its events].')
@click.option('--url', default='', help='URL to post it to [default: at INTAKE_ADDRESS].')
@click.option('--wait', default='30s', show_default=True, type=DURATION, help='How long to follow the order.')
@needs('intake', 'waitress')
@plainly
def try_intake(name: str, file: Path, topic: str, url: str, wait: float) -> None:
    """Sign an order as a shop would, post it, and follow it.

    FILE is the body, NAME the intake.  Prints each step.

    Exit status: 1 if it is not accepted, or not done within --wait.
    """
    from ecommerce_worker.intake import posting

    it = intake_named(name)
    topic = topic or posting.first_topic(it)
    url = url or url_of(it)
    say(f'signed{f" as {topic}" if topic else ""}, posting to {url}')
    answer = posting.post(it, file.read_bytes(), url, topic)
    say(answer.text)
    if not answer.id:
        fail(answer.advice(it))
    _follow(answer.id, wait)


def _follow(id_: str, seconds: float) -> None:
    """Print what the ledger records about a message until it is finished."""
    if not extras.is_installed('django'):
        say('there is no ledger in which to follow the order; see the log of the worker')
        return
    try:
        queries = opened_ledger()
    except WorkerError as error:
        say(f'the order cannot be followed: {error}')
        return
    from ecommerce_worker.ledger import words

    until, printed, state, key = time.monotonic() + seconds, set[str](), '', ''
    while time.monotonic() < until and state not in ('fulfilled', 'parked', 'discarded'):
        for entry in queries.search(id_)[:1]:
            for event in queries.story(entry.number).events:
                line = f'{words.outcome_of(getattr(event, "outcome", ""), entry.task)}: {event.reason or "-"}'
                if line not in printed:
                    printed.add(line)
                    say(f'{entry.key}  {line}')
            state, key = entry.state, entry.key
        time.sleep(LOOK_SECONDS)
    if state != 'fulfilled':
        fail('no report of it: are a worker and a recorder running?' if not printed else
             f'not done within --wait: {state}; see `ecommerce-worker orders show {key}`')
