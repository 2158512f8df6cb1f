"""Looking at workers, queues, ledger and beat."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from ecommerce_worker import runtime, settings
from ecommerce_worker.cli.options import DURATION
from ecommerce_worker.cli.output import counted, plainly, table
from ecommerce_worker.cli.resources import connected, opened_ledger
from ecommerce_worker.cli.root import main
from ecommerce_worker.errors import Misconfigured, WorkerError

if TYPE_CHECKING:
    from celery import Celery

    from ecommerce_worker.schedule.claims import Firings


@main.command()
@click.option('--timeout', default='1s', show_default=True, type=DURATION,
              help='Wait so long for the answers of workers.')
@click.option('--fail-on-parked', is_flag=True, help='Parked messages are trouble too, for a monitor that should tell.')
@plainly
def status(timeout: float, fail_on_parked: bool) -> None:
    """Show workers, queues, and how many orders wait or are parked.

    Exit status: 1 if a queue holds messages that nobody consumes, or is gone, no worker answers, the broker takes no
    messages, there is a ledger without a recorder, a schedule of yours without a beat, or an entry of it that is
    overdue; with --fail-on-parked, also if messages are parked.
    """
    from ecommerce_worker.broker import topology
    from ecommerce_worker.operations import queues
    from ecommerce_worker.operations import workers as keeper

    conf = runtime.current().settings
    with connected() as (app, connection):
        sound = queues.takes_messages(connection)
        workers = _workers(app, timeout) if sound else []
        held = keeper.kept(app, timeout) if workers else {}
        found = queues.depths(connection, (*conf.QUEUES, *queues.ELSEWHERE))
        waiting = topology.waiting(connection)
        parked = depth.messages if (depth := topology.depth(connection, topology.PARKED)) else 0
        facts = topology.depth(connection, topology.LEDGER)
        missing = topology.missing(connection, conf.QUEUES)
        begun = bool(workers or topology.depth(connection, topology.PARKED))
    rows, troubles = [], list[str]()
    kept, of_ledger = _ledger_state(conf)
    parked += kept
    of_beat, beat_troubles = _beat_state(app, conf)
    troubles += beat_troubles
    recorders = facts.consumers if facts else 0
    if facts and not recorders and of_ledger:
        troubles.append('there is a ledger, and no recorder writes into it: ecommerce-worker recorder')
    # On brokers where a queue is there once it is asked for, the others are only looked for.
    for depth in (it for it in found if it.messages or it.name in conf.QUEUES):
        alone = depth.messages > 0 and depth.consumers == 0
        if alone:
            troubles.append(f'{depth.name} holds {counted(depth.messages, "message")} and nobody consumes it: start a '
                            f'worker with it in QUEUES (or -Q {depth.name})')
        rows.append((depth.name, depth.messages, '?' if depth.consumers is None else depth.consumers,
                     '<- nobody consumes it' if alone else ''))
    if missing and begun:
        troubles.append(f'{", ".join(missing)} should be there and cannot be had: a worker declares what is missing '
                        'within a minute; is a node of RabbitMQ down (rabbitmq-diagnostics cluster_status)?')
    if not sound:
        troubles.append('the broker takes no messages, so workers cannot be asked: its memory or its disk is short '
                        '(rabbitmq-diagnostics alarms)')
    elif not workers:
        troubles.append(f'no worker answered within {timeout:g} s')
    for what, number in held.items():
        troubles.append(f'{counted(number, "message")} cannot be {what}: RabbitMQ does not take what follows from '
                        'them; the workers keep them and go on trying, see their log')
    if parked and fail_on_parked:
        troubles.append(f'{counted(parked, "parked message")} for a person to look at')
    click.echo(f'broker    {settings.mask("BROKER_URL", conf.BROKER_URL)}')
    click.echo('workers   ' + (', '.join(workers) or ('none' if sound else '?')))
    click.echo(f'waiting   {waiting} for their next try')
    click.echo(f'parked    {parked} for a person (ecommerce-worker parked list)')
    if of_ledger:
        click.echo(f'ledger    {of_ledger}; recorders: {recorders}; {facts.messages if facts else 0} facts to record')
    if of_beat:
        click.echo(f'beat      {of_beat}')
    click.echo()
    if rows:
        table(('QUEUE', 'MESSAGES', 'CONSUMERS', ''), rows)
    else:
        click.echo('There are no queues yet; the first worker declares them.')
    for trouble in troubles:
        click.echo(f'trouble: {trouble}')
    sys.exit(1 if troubles else 0)


def _ledger_state(conf: settings.Settings) -> tuple[int, str]:
    """How many messages are parked in the ledger, and how it is; '' if there is none."""
    from ecommerce_worker.ledger import database

    if not database.is_kept(conf):
        return 0, ''
    try:
        return opened_ledger().count_parked(), 'in use'
    except WorkerError as error:
        return 0, str(error)


def _beat_state(app: Celery, conf: settings.Settings) -> tuple[str, list[str]]:
    """When a beat gave the last sign of life, and all that is wrong with that; '' where nobody asked for one."""
    from ecommerce_worker.ledger import stores
    from ecommerce_worker.schedule import checks
    from ecommerce_worker.schedule.entries import entries

    wanted = [entry for entry in entries(conf) if not entry.is_the_recorders]
    if not wanted:
        return '', []
    shipped = all(checks.is_shipped(conf, it.name) for it in wanted)
    try:
        firings = stores.firings_of(conf)
        ticked = firings.ticked()
        if ticked is None and shipped:
            return '', []
        # Where there never was a beat nothing was fired, and there may be no file to look into.
        troubles = _overdue(app, conf, firings) if ticked else []
    except Misconfigured as error:  # no file to look into
        return ('', []) if shipped else (str(error), [])
    except WorkerError as error:
        return str(error), []
    if ticked is None or time.time() - ticked > checks.ALIVE_SECONDS:
        return 'none', ['there is a SCHEDULE, and no beat publishes its jobs: ecommerce-worker beat', *troubles]
    return f'alive {time.time() - ticked:.0f} s ago', troubles


def _overdue(app: Celery, conf: settings.Settings, firings: Firings) -> list[str]:
    """A line for each entry that should have been fired by now."""
    from ecommerce_worker.schedule import checks as beats

    try:
        timings = beats.timings(app, conf)
    except Misconfigured as error:
        return [f'no beat can start: {problem}' for problem in error.problems]
    return [f'SCHEDULE[{entry.name}] is overdue since {datetime.fromtimestamp(since, UTC):%Y-%m-%d %H:%M} UTC: nobody '
            'has fired it' for entry, timing in timings
            if (since := beats.overdue(timing, firings.last(entry.key), time.time())) is not None]


def _workers(app: Celery, timeout: float) -> list[str]:
    """The workers that have tasks of ours; those of other services on the virtual host answer too."""
    from ecommerce_worker.broker.mailbox import answers

    ours = {name for name in app.tasks if not name.startswith('celery.')}
    return sorted(name for name, tasks in answers(app, 'registered', timeout=timeout).items()
                  if isinstance(tasks, list) and not ours.isdisjoint(str(task).partition(' ')[0] for task in tasks))
