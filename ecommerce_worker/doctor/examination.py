"""All checks of the doctor, one after the other; a check that fails does not stop the others."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.client import HTTPException
from typing import TYPE_CHECKING, Final
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

from amqp.exceptions import PreconditionFailed

from ecommerce_worker.broker import preflight, topology
from ecommerce_worker.broker.preflight import BrokerUnusable
from ecommerce_worker.clients import looking
from ecommerce_worker.doctor import queues, services
from ecommerce_worker.doctor.lines import Line, bad, of, unknown, warning, well
from ecommerce_worker.durations import span
from ecommerce_worker.errors import WorkerError, where
from ecommerce_worker.health import machine
from ecommerce_worker.operations import trial
from ecommerce_worker.words import counted, full_stop

if TYPE_CHECKING:
    from celery import Celery
    from kombu import Connection

    from ecommerce_worker.health.standing import Standing
    from ecommerce_worker.settings import Settings

#: The oldest RabbitMQ whose quorum queues do what the waiting room needs.
OLDEST: Final = (3, 10)

#: The number of waiting facts above which the recorder does not keep up.
BEHIND: Final = 10_000

#: Days without an order after which a shop is worth a warning.
SILENT_DAYS: Final = 7


def examined(settings: Settings, app: Celery, connect: Callable[[], Connection],
             standing_of: Callable[[Connection], Standing]) -> Iterator[Line]:
    """Each line as soon as it is known.

    ``connect`` gives an open connection to the broker, or raises
    :class:`~ecommerce_worker.broker.preflight.BrokerUnusable`; ``standing_of`` gives how things stand.
    """
    yield from _tried('configuration', lambda: _configuration(settings))
    yield from _tried('machine', lambda: _machine(settings))
    yield from _tried('shop', lambda: services.look(settings))
    try:
        connection = connect()
    except BrokerUnusable as error:
        yield bad('broker', full_stop(str(error)))
        return
    with connection:
        standing: list[Standing] = []
        yield from _tried('broker', lambda: _standing(connection, standing_of, standing))
        yield from _tried('broker', lambda: _broker(settings, app, connection, standing[0] if standing else None))
        yield from _tried('policies', lambda: queues.look(connection, settings))
    yield from _tried('intake', lambda: _intakes(settings, is_kept=bool(
        standing and standing[0].ledger and not standing[0].ledger.problem)))


def _tried(subject: str, look: Callable[[], Iterator[Line]]) -> Iterator[Line]:
    try:
        yield from look()
    except WorkerError as error:
        yield bad(subject, full_stop(str(error)))
    except Exception as error:  # noqa: BLE001 - what cannot be looked at must not hide the rest
        # Not its text, which may quote what it was given.
        yield unknown(subject, f'The check failed: {type(error).__name__} at {where(error)}.',
                      'Please report this: it is a bug in the doctor.')


def _configuration(settings: Settings) -> Iterator[Line]:
    for remark in settings.remarks:
        yield warning('configuration', full_stop(remark))
    if not settings.remarks:
        yield well('configuration', 'A worker would start with this configuration.')


def _machine(settings: Settings) -> Iterator[Line]:
    found = [of(it) for it in machine.findings(settings)]
    yield from found or [well('machine', 'There is enough disk space, and other users cannot read our files.')]
    if os.geteuid() == 0:
        yield unknown('machine', 'This runs as root, which may read and write files that workers may not.',
                      'Run it as the user of the workers.')
    times = machine.stop_times()
    if not times:
        yield unknown('supervisor', 'systemd runs no worker on this machine, so it is unknown how long workers have to '
                      'shut down.', f'Allow more than SHUTDOWN_SECONDS ({settings.SHUTDOWN_SECONDS:g} s): `docker '
                      'stop -t`, terminationGracePeriodSeconds or stopwaitsecs.')
        return
    short = [of(it) for it in machine.too_short(settings, times)]
    yield from short or [well('supervisor', f'systemd gives {", ".join(times)} enough time to shut down.')]


def _standing(connection: Connection, standing_of: Callable[[Connection], Standing],
              found: list[Standing]) -> Iterator[Line]:
    """What ``status`` and the console show too."""
    standing = standing_of(connection)
    found.append(standing)
    yield from (of(it) for it in standing.findings)
    subjects = {it.subject for it in standing.findings}
    if 'workers' not in subjects and standing.workers:
        yield well('workers', f'{len(standing.workers.names)} answered within {standing.workers.seconds:g} s.')
    if standing.ledger is None:
        yield unknown('ledger', 'There is no ledger, so past runs cannot be looked up.',
                      'See docs/how-to/keep-a-ledger.rst.')
    elif 'ledger' not in subjects:
        behind = standing.broker.unrecorded
        said = f'The ledger can be read; {counted(behind, "fact")} waiting to be recorded'
        yield (warning('ledger', f'{said}.', 'Is the database slow? Is a recorder running?') if behind > BEHIND
               else well('ledger', f'{said}.'))
    if (beat := standing.schedule) and beat.is_alive:
        yield well('beat', f'The last sign of life was {beat.silent or 0:.0f} s ago.')


def _broker(settings: Settings, app: Celery, connection: Connection, standing: Standing | None) -> Iterator[Line]:
    for limit in preflight.limits(connection):
        yield warning('broker', full_stop(limit))
    if not topology.is_rabbitmq(connection):
        return
    version = topology.version(connection)
    shown = '.'.join(map(str, version)) or 'of an unknown version'
    if version and version < OLDEST:
        yield bad('broker', f'RabbitMQ {shown} is too old.', 'The waiting room needs 3.10 or newer.')
    else:
        yield well('broker', f'RabbitMQ {shown} accepts our credentials.')
    expires = looking.expiry_of(connection.connection.sock)
    if expires is not None:
        yield services.certificate('broker', f'{connection.hostname} answers', expires, 'no worker connects')
    if standing is None or not standing.broker.takes_messages:
        return
    if not standing.broker.is_declared:
        yield unknown('queues', 'No worker has declared the queues yet.', 'Start a worker.')
        return
    try:
        with topology.asking(app) as asking, preflight.permitted():
            # As each worker does it when it connects, and by that it is known what our user is permitted.
            declared = topology.declare(asking, app.amqp.queues.consume_from.values(), settings.QUEUE_TYPE)
            remarks = list(preflight.remarks(asking, declared, settings))
    except PreconditionFailed as error:
        yield bad('queues', full_stop(f'A queue exists with other arguments: {error.message}'), 'See QUEUE_TYPE.')
        return
    for remark in remarks:
        yield warning('queues', full_stop(remark))
    if not remarks:
        yield well('queues', 'The queues are as a worker declares them.')
    seconds = trial.through_the_room(app, connection)
    yield well('waiting room', f'A message with a delay of {trial.DELAY} s arrived after {seconds:.1f} s.')


def _intakes(settings: Settings, *, is_kept: bool) -> Iterator[Line]:
    if not settings.INTAKES:
        return
    yield answers(settings.INTAKE_ADDRESS)
    for name in settings.INTAKES:
        if settings.INTAKES[name].get('state', 'live') == 'live' and is_kept:
            yield _sends(name)


def answers(address: str) -> Line:
    """Whether an intake runs here, and reaches RabbitMQ."""
    try:
        with build_opener(ProxyHandler({})).open(f'http://{address}/readyz', timeout=5):
            return well('intake', f'The intake at {address} is ready to publish to RabbitMQ.')
    except HTTPError as error:
        error.close()
        return bad('intake', f'The intake at {address} is not ready ({error.code}).',
                   'See its log: can it reach RabbitMQ?')
    except (OSError, HTTPException):
        return unknown('intake', f'No intake answers at {address}.', 'If none runs on another machine, start one: '
                       '`ecommerce-worker intake`.')


def _sends(name: str) -> Line:
    """Whether the shop of an intake still sends."""
    from ecommerce_worker.ledger import queries

    last = queries.last_accepted_by(name)
    if last is None:
        return unknown(f'intake {name}', 'The ledger has no order from this intake.',
                       f'Does the shop have its URL? Try `ecommerce-worker intake try {name} FILE`.')
    ago = time.time() - last.timestamp()
    said = f'The last order came {span(ago)} ago ({last.astimezone(UTC):%Y-%m-%d %H:%M} UTC)'
    if ago > SILENT_DAYS * 86_400:
        return warning(f'intake {name}', f'{said}.', 'Is the webhook still enabled in the shop? Some shops disable it '
                       'after errors.')
    return well(f'intake {name}', f'{said}.')


def now() -> str:
    """The time, for what is handed on."""
    return datetime.now(UTC).isoformat(timespec='seconds').replace('+00:00', 'Z')
