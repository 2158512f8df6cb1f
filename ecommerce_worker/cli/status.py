"""The command ``status``."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from ecommerce_worker import runtime, settings
from ecommerce_worker.cli.options import DURATION, JSON
from ecommerce_worker.cli.output import plainly, print_json, say, table
from ecommerce_worker.cli.resources import connected
from ecommerce_worker.cli.root import main
from ecommerce_worker.words import counted

if TYPE_CHECKING:
    from celery import Celery
    from kombu import Connection

    from ecommerce_worker.health.findings import Finding
    from ecommerce_worker.health.standing import Standing


@main.command()
@click.option('--timeout', default='1s', show_default=True, type=DURATION,
              help='How long to wait for workers to answer.')
@click.option('--fail-on-parked', is_flag=True, help='Exit with status 1 if messages are parked.')
@JSON
@plainly
def status(timeout: float, fail_on_parked: bool, as_json: bool) -> None:
    """Show the state of workers, queues, ledger and beat.

    Exit status: 1 if a queue with messages has no consumer, a queue is missing, no worker answers, the broker accepts
    no messages, a ledger has no recorder, orders are overdue, SCHEDULE has entries of your own and no beat is running,
    or an entry is overdue; with --fail-on-parked, also if messages are parked.  Warnings do not change it.
    """
    from ecommerce_worker.health.findings import Severity

    found = _looked(timeout)
    findings = [replace(it, severity=Severity.TROUBLE) if fail_on_parked and it.subject == 'parked' else it
                for it in found.findings]
    troubles = [it for it in findings if it.severity is Severity.TROUBLE]
    if as_json:
        print_json({**described(found), 'troubles': [it.text for it in troubles],
                    'findings': [{'subject': it.subject, 'severity': it.severity, 'sentence': it.sentence,
                                  'remedy': it.remedy} for it in findings]})
    else:
        _show(found, findings)
    sys.exit(1 if troubles else 0)


def _looked(timeout: float) -> Standing:
    with connected() as (app, connection):
        return looked_by(app, connection, timeout)


def looked_by(app: Celery, connection: Connection, timeout: float) -> Standing:
    """The standing; workers are given so many seconds to answer."""
    from ecommerce_worker.health import broker, ledger, schedule, spool, workers
    from ecommerce_worker.health.standing import Standing
    from ecommerce_worker.ledger import stores

    conf = runtime.current().settings
    seen = broker.look(connection, conf)
    # A broker that accepts no messages accepts no question to workers either.
    answered = workers.ask(app, seen.queues, timeout) if seen.takes_messages else None
    return Standing(tuple(conf.QUEUES), seen, answered, ledger.look(conf),
                    schedule.look(app, conf, lambda: stores.firings_of(conf), time.time()), spool.look(conf))


def described(found: Standing) -> dict[str, Any]:
    """The JSON; see the reference of commands."""
    broker, ledger, beat = found.broker, found.ledger, found.schedule
    return {
        'broker': _url(), 'takes_messages': broker.takes_messages,
        'workers': list(found.workers.names) if found.workers else [],
        'waiting': broker.waiting, 'parked': found.parked,
        'queues': [{'name': it.name, 'messages': it.messages, 'consumers': it.consumers} for it in broker.queues],
        'ledger': ledger and {
            'problem': ledger.problem or None, 'recorders': broker.recorders, 'unrecorded': broker.unrecorded,
            'overdue': ledger.overdue, 'lost_reports': ledger.lost},
        'beat': {'problem': beat.problem or None, 'alive': beat.is_alive,
                 'seconds_ago': None if beat.silent is None else round(beat.silent, 1)}
                if beat and beat.is_wanted else None}


def _show(found: Standing, findings: Iterable[Finding]) -> None:
    """Print it for people."""
    broker = found.broker
    say(f'broker    {_url()}')
    say('workers   ' + ('?' if found.workers is None else ', '.join(found.workers.names) or 'none'))
    say(f'waiting   {broker.waiting} for their next try')
    say(f'parked    {found.parked} for a person (ecommerce-worker parked list)')
    if ledger := found.ledger:
        recorders = '?' if broker.recorders is None else broker.recorders
        say(f'ledger    {ledger.problem or "in use"}; recorders: {recorders}; '
            f'{counted(broker.unrecorded, "report")} to record')
        if not ledger.problem:
            say(f'unknown   {counted(ledger.overdue, "order")} overdue; {counted(ledger.lost, "report")} of '
                f'runs lost in the last {ledger.lost_days} days')
    if (beat := found.schedule) and beat.is_wanted:
        say(f'beat      {beat.problem or (f"alive {beat.silent:.0f} s ago" if beat.is_alive else "none")}')
    say()
    if broker.queues:
        table(('QUEUE', 'MESSAGES', 'CONSUMERS', ''), [
            (it.name, it.messages, '?' if it.consumers is None else it.consumers,
             '<- no consumer' if it.messages and it.consumers == 0 else '') for it in broker.queues])
    else:
        say('No queues yet; the first worker declares them.')
    for finding in findings:
        say(f'{finding.severity}: {finding.text}')


def _url() -> Any:
    conf = runtime.current().settings
    return settings.mask('BROKER_URL', conf.BROKER_URL)
