"""``doctor``: check a deployment thoroughly."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from ecommerce_worker import __version__, runtime
from ecommerce_worker.cli.options import DURATION, JSON
from ecommerce_worker.cli.output import plainly, print_json, say
from ecommerce_worker.cli.resources import application
from ecommerce_worker.cli.root import main
from ecommerce_worker.cli.status import described, looked_by
from ecommerce_worker.errors import Misconfigured, WorkerError
from ecommerce_worker.words import full_stop

if TYPE_CHECKING:
    from kombu import Connection

    from ecommerce_worker.doctor.lines import Line
    from ecommerce_worker.health.standing import Standing


#: Parked messages that are counted for a bundle, at most.
MOST_PARKED: Final = 1000


@main.command()
@click.option('--timeout', default='1s', show_default=True, type=DURATION,
              help='How long to wait for workers to answer.')
@click.option('--bundle', type=click.Path(dir_okay=False, path_type=Path), metavar='FILE',
              help='Also write the results, and the configuration without secrets, to a zip file for a bug report.')
@JSON
@plainly
def doctor(timeout: float, bundle: Path | None, as_json: bool) -> None:
    """Check this deployment thoroughly and suggest fixes.

    Checks names, certificates, clocks, token and permissions of shop and LMS; RabbitMQ, its queues and policies; a
    message through the waiting room; intakes, ledger, beat; and this machine.  Changes nothing.

    Exit status: 0 if no problem is found, 1 for warnings, 2 if orders are not fulfilled or may be lost.
    """
    from ecommerce_worker.doctor import bundle as bundles
    from ecommerce_worker.doctor.examination import now
    from ecommerce_worker.doctor.lines import STATUS

    lines: list[Line] = []
    standing: list[Standing] = []
    for line in _examined(timeout, standing):
        lines.append(line)
        if not as_json:
            _show(line)
    status = max((STATUS[it.state] for it in lines), default=0)
    found = {'version': __version__, 'at': now(), 'status': status, 'lines': [
        {'subject': it.subject, 'state': it.state, 'sentence': it.sentence, 'remedy': it.remedy} for it in lines]}
    if bundle:
        bundles.write(bundle, found, _settings(), described(standing[0]) if standing else None, _parked())
        say(f'written to {bundle}; check its contents before you share it', err=True)
    if as_json:
        print_json(found)
    elif not status:
        say('no problems found')
    sys.exit(status)


def _examined(timeout: float, standing: list[Standing]) -> Iterator[Line]:
    from ecommerce_worker.broker import preflight
    from ecommerce_worker.doctor.examination import examined
    from ecommerce_worker.doctor.lines import bad

    try:
        current = runtime.current()
        current.check()
        app = application()
    except Misconfigured as error:
        for problem in error.problems:
            yield bad('configuration', full_stop(problem), 'A worker would not start with this configuration.')
        return

    def look(connection: Connection) -> Standing:
        standing.append(looked_by(app, connection, timeout))
        return standing[0]

    yield from examined(current.settings, app, lambda: preflight.connect(app, current.settings), look)


def _show(line: Line) -> None:
    say(f'{line.state:8} {line.subject}: {line.sentence}')
    if line.remedy:
        say(f'{"":8} -> {line.remedy}')


def _settings() -> Any:
    with suppress(Misconfigured):
        return runtime.current().settings
    return None


def _parked() -> list[Any]:
    from ecommerce_worker.cli.resources import connected
    from ecommerce_worker.operations.parked import looked_through

    try:
        with connected() as (_, connection), looked_through(connection) as found:
            return list(islice(found, MOST_PARKED))
    except WorkerError:
        return []
