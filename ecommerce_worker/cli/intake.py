"""The intake: taking deliveries of shops, and trying whether it does."""

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
              help='Wait for the broker with so many deliveries at once; 32 if not given.')
@click.pass_context
def intake(context: click.Context, debug: bool, threads: int | None) -> None:
    """Take signed deliveries of shops, as INTAKES says.

    Until it is told to stop.  Several may run on one address.
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
    """Where it answers on this machine."""
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
    """Print a new secret, good for an intake of any kind."""
    say(f'whsec_{b64encode(secrets.token_bytes(32)).decode()}')


@intake.command('try')
@click.argument('name')
@click.argument('file', type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option('--topic', default='', help='The topic that it is about; the first of its events if not given.')
@click.option('--url', default='', help='Post it there; to INTAKE_ADDRESS if not given.')
@click.option('--wait', default='30s', show_default=True, type=DURATION, help='Follow the order for so long.')
@needs('intake', 'waitress')
@plainly
def try_intake(name: str, file: Path, topic: str, url: str, wait: float) -> None:
    """Sign an order as a shop would, post it, and follow it.

    FILE is the body, and NAME the intake whose shop it is from.  Each step is shown.  Status 1 if it is not accepted,
    or not done in the end.
    """
    from ecommerce_worker.intake import posting

    it = intake_named(name)
    topic = topic or posting.first_topic(it)
    url = url or url_of(it)
    say(f'signed{f" as {topic}" if topic else ""}, posting it to {url}')
    answer = posting.post(it, file.read_bytes(), url, topic)
    say(answer.text)
    if not answer.id:
        fail(answer.advice(it))
    _follow(answer.id, wait)


def _follow(id_: str, seconds: float) -> None:
    """Tell what the ledger learns of a message until it is over."""
    if not extras.is_installed('django'):
        say('there is no ledger here to follow it in; the log of the worker tells the rest')
        return
    try:
        queries = opened_ledger()
    except WorkerError as error:
        say(f'it cannot be followed: {error}')
        return
    from ecommerce_worker.ledger import words

    until, told, state, key = time.monotonic() + seconds, set[str](), '', ''
    while time.monotonic() < until and state not in ('fulfilled', 'parked', 'discarded'):
        for entry in queries.search(id_)[:1]:
            for event in queries.story(entry.number).events:
                line = f'{words.outcome_of(getattr(event, "outcome", ""), entry.task)}: {event.reason or "-"}'
                if line not in told:
                    told.add(line)
                    say(f'{entry.key}  {line}')
            state, key = entry.state, entry.key
        time.sleep(LOOK_SECONDS)
    if state != 'fulfilled':
        fail('nothing was heard of it: do a worker and a recorder run?' if not told else
             f'it is not done: {state}; `ecommerce-worker orders show {key}` tells how it goes on')
