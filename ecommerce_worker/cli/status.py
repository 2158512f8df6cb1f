"""Looking at workers, queues, ledger and beat."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from ecommerce_worker import runtime, settings
from ecommerce_worker.cli.options import DURATION, JSON
from ecommerce_worker.cli.output import counted, plainly, print_json, say, table
from ecommerce_worker.cli.resources import connected, opened_ledger
from ecommerce_worker.cli.root import main
from ecommerce_worker.errors import Misconfigured, WorkerError
from ecommerce_worker.schedule import checks

if TYPE_CHECKING:
    from celery import Celery

    from ecommerce_worker.broker.topology import Depth
    from ecommerce_worker.schedule.claims import Firings


@dataclass(frozen=True)
class Ledger:
    """How the ledger is; ``problem`` says why it cannot be read, and then nothing else is known of it."""

    problem: str = ''
    parked: int = 0
    overdue: int = 0
    lost: int = 0
    lost_days: int = 0

    @property
    def is_read(self) -> bool:
        """Whether it could be read."""
        return not self.problem


@dataclass(frozen=True)
class Beat:
    """How long ago a beat gave the last sign of life, in seconds; ``problem`` says why that is not known."""

    age: float | None = None
    problem: str = ''

    @property
    def is_alive(self) -> bool:
        """Whether there is one."""
        return self.age is not None and self.age <= checks.ALIVE_SECONDS


@dataclass
class Standing:
    """How things stand, and all that is wrong with that."""

    broker: str
    takes_messages: bool
    workers: list[str]
    waiting: int
    parked: int
    queues: list[Depth]
    recorders: int | None
    unrecorded: int
    ledger: Ledger | None
    beat: Beat | None
    troubles: list[str]

    def as_json(self) -> dict[str, Any]:
        """As programs read it; see the reference of commands."""
        ledger, beat = self.ledger, self.beat
        return {
            'broker': self.broker, 'takes_messages': self.takes_messages, 'workers': self.workers,
            'waiting': self.waiting, 'parked': self.parked,
            'queues': [{'name': it.name, 'messages': it.messages, 'consumers': it.consumers} for it in self.queues],
            'ledger': ledger and {
                'problem': ledger.problem or None, 'recorders': self.recorders, 'unrecorded': self.unrecorded,
                'overdue': ledger.overdue, 'lost_reports': ledger.lost},
            'beat': beat and {'problem': beat.problem or None, 'alive': beat.is_alive,
                              'seconds_ago': None if beat.age is None else round(beat.age, 1)},
            'troubles': self.troubles}


@main.command()
@click.option('--timeout', default='1s', show_default=True, type=DURATION,
              help='Wait so long for the answers of workers.')
@click.option('--fail-on-parked', is_flag=True, help='Parked messages are trouble too, for a monitor that should tell.')
@JSON
@plainly
def status(timeout: float, fail_on_parked: bool, as_json: bool) -> None:
    """Show workers, queues, and what waits or is parked.

    Exit status: 1 if a queue holds messages that nobody consumes, or is gone, no worker answers, the broker takes no
    messages, there is a ledger without a recorder, orders are overdue, a schedule of yours without a beat, or an entry
    of it that is overdue; with --fail-on-parked, also if messages are parked.
    """
    found = _standing(timeout)
    if found.parked and fail_on_parked:
        found.troubles.append(f'{counted(found.parked, "parked message")} for a person to look at')
    if as_json:
        print_json(found.as_json())
    else:
        _show(found)
    sys.exit(1 if found.troubles else 0)


def _standing(timeout: float) -> Standing:
    """How things stand; workers have so many seconds to answer."""
    from ecommerce_worker.broker import topology
    from ecommerce_worker.operations import queues
    from ecommerce_worker.operations import workers as keeper

    conf = runtime.current().settings
    with connected() as (app, connection):
        sound = queues.takes_messages(connection)
        workers = _workers(app, timeout) if sound else []
        held = keeper.kept(app, timeout) if workers else {}
        found = topology.depths(connection, (*conf.QUEUES, *queues.ELSEWHERE))
        waiting = topology.waiting(connection)
        parked = depth.messages if (depth := topology.depth(connection, topology.PARKED)) else 0
        facts = topology.depth(connection, topology.LEDGER)
        missing = topology.missing(connection, conf.QUEUES)
        begun = bool(workers or topology.depth(connection, topology.PARKED))
    ledger = _ledger(conf)
    beat, troubles = _beat(app, conf)
    if facts and facts.consumers == 0 and ledger:
        troubles.append('there is a ledger, and no recorder writes into it: ecommerce-worker recorder')
    if ledger and ledger.overdue:
        troubles.append(f'nothing was heard of {counted(ledger.overdue, "order")} when it was time (ecommerce-worker '
                        'orders list --overdue): `ecommerce-worker resubmit` asks the shop')
    # On brokers where a queue is there once it is asked for, the others are only looked for.
    shown = [it for it in found if it.messages or it.name in conf.QUEUES]
    troubles += [f'{it.name} holds {counted(it.messages, "message")} and nobody consumes it: start a worker with it in '
                 f'QUEUES (or -Q {it.name})' for it in shown if _is_alone(it)]
    if missing and begun:
        troubles.append(f'{", ".join(missing)} should be there and cannot be had: a worker declares what is missing '
                        'within a minute; is a node of RabbitMQ down (rabbitmq-diagnostics cluster_status)?')
    if not sound:
        troubles.append('the broker takes no messages, so workers cannot be asked: its memory or its disk is short '
                        '(rabbitmq-diagnostics alarms)')
    elif not workers:
        troubles.append(f'no worker answered within {timeout:g} s')
    troubles += [f'{counted(number, "message")} cannot be {what}: RabbitMQ does not take what follows from them; the '
                 'workers keep them and go on trying, see their log' for what, number in held.items()]
    return Standing(
        settings.mask('BROKER_URL', conf.BROKER_URL), sound, workers, waiting,
        parked + (ledger.parked if ledger else 0), shown, facts.consumers if facts else 0,
        facts.messages if facts else 0, ledger, beat, troubles)


def _is_alone(queue: Depth) -> bool:
    """Whether it holds messages that nobody takes."""
    return queue.messages > 0 and queue.consumers == 0


def _show(found: Standing) -> None:
    """As people read it."""
    say(f'broker    {found.broker}')
    say('workers   ' + (', '.join(found.workers) or ('none' if found.takes_messages else '?')))
    say(f'waiting   {found.waiting} for their next try')
    say(f'parked    {found.parked} for a person (ecommerce-worker parked list)')
    if ledger := found.ledger:
        recorders = '?' if found.recorders is None else found.recorders
        say(f'ledger    {ledger.problem or "in use"}; recorders: {recorders}; {found.unrecorded} facts to record')
        if ledger.is_read:
            say(f'unknown   {counted(ledger.overdue, "order")} overdue; {counted(ledger.lost, "report")} of '
                       f'runs lost in the last {ledger.lost_days} days')
    if beat := found.beat:
        say(f'beat      {beat.problem or (f"alive {beat.age:.0f} s ago" if beat.is_alive else "none")}')
    say()
    if found.queues:
        table(('QUEUE', 'MESSAGES', 'CONSUMERS', ''), [
            (it.name, it.messages, '?' if it.consumers is None else it.consumers,
             '<- nobody consumes it' if _is_alone(it) else '') for it in found.queues])
    else:
        say('There are no queues yet; the first worker declares them.')
    for trouble in found.troubles:
        say(f'trouble: {trouble}')


def _ledger(conf: settings.Settings) -> Ledger | None:
    """How the ledger is; None if there is none."""
    from ecommerce_worker.ledger import database

    if not database.is_kept(conf):
        return None
    try:
        queries = opened_ledger()
        unknown = queries.unknown()
        return Ledger('', queries.count_parked(), unknown.overdue, unknown.lost, queries.LOST_DAYS)
    except WorkerError as error:
        return Ledger(str(error))


def _beat(app: Celery, conf: settings.Settings) -> tuple[Beat | None, list[str]]:
    """When a beat gave the last sign of life, and all that is wrong with that; None where nobody asked for one."""
    from ecommerce_worker.ledger import stores

    if not checks.is_wanted(conf, began=True):
        return None, []
    wanted = checks.is_wanted(conf, began=False)
    try:
        firings = stores.firings_of(conf)
        ticked = firings.ticked()
        if ticked is None and not wanted:
            return None, []
        # Where there never was a beat nothing was fired, and there may be no file to look into.
        troubles = _overdue(app, conf, firings) if ticked else []
    except Misconfigured as error:  # no file to look into
        return (Beat(problem=str(error)), []) if wanted else (None, [])
    except WorkerError as error:
        return Beat(problem=str(error)), []
    beat = Beat(None if ticked is None else time.time() - ticked)
    if not beat.is_alive:
        troubles.insert(0, 'there is a SCHEDULE, and no beat publishes its jobs: ecommerce-worker beat')
    return beat, troubles


def _overdue(app: Celery, conf: settings.Settings, firings: Firings) -> list[str]:
    """A line for each entry that should have been fired by now."""
    try:
        timings = checks.timings(app, conf)
    except Misconfigured as error:
        return [f'no beat can start: {problem}' for problem in error.problems]
    return [f'SCHEDULE[{entry.name}] is overdue since {datetime.fromtimestamp(since, UTC):%Y-%m-%d %H:%M} UTC: nobody '
            'has fired it' for entry, timing in timings
            if (since := checks.overdue(timing, firings.last(entry.key), time.time())) is not None]


def _workers(app: Celery, timeout: float) -> list[str]:
    """The workers that have tasks of ours; those of other services on the virtual host answer too."""
    from ecommerce_worker.broker.mailbox import answers

    ours = {name for name in app.tasks if not name.startswith('celery.')}
    return sorted(name for name, tasks in answers(app, 'registered', timeout=timeout).items()
                  if isinstance(tasks, list) and not ours.isdisjoint(str(task).partition(' ')[0] for task in tasks))
