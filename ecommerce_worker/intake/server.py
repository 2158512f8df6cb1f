"""The intake's process: one server, some threads, one connection to the broker; no database."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ecommerce_worker import web
from ecommerce_worker.broker.confirming import PATIENCE, Confirming
from ecommerce_worker.errors import Misconfigured
from ecommerce_worker.intake import intakes
from ecommerce_worker.intake.application import Application, Publisher
from ecommerce_worker.intake.counts import Counts
from ecommerce_worker.intake.spool import Spool, directory_of
from ecommerce_worker.settings import Settings
from ecommerce_worker.telemetry import serving
from ecommerce_worker.words import counted

if TYPE_CHECKING:
    from celery import Celery

#: Deliveries that wait for the broker's confirmation at once, unless the command line says otherwise.
THREADS: Final = 32

#: Seconds within which a request must be complete.
READING_SECONDS: Final = 10.0


def run(app: Celery, settings: Settings, say: Callable[[str], None], *, threads: int = THREADS) -> None:
    """Serve until SIGTERM or SIGINT; ``say`` gets a few lines for the operator.

    Raises :class:`~ecommerce_worker.errors.WorkerError` if it cannot begin.
    """
    found = intakes.read(settings, app.tasks)
    if not found:
        raise Misconfigured(['INTAKES is empty, so there is nothing to serve: add a shop to it'])
    listener = web.listener_at(settings.INTAKE_ADDRESS, 'the intake', 'INTAKE_ADDRESS', shared=True)
    broker = Confirming(partial(_connection, app, settings), {it.queue for it in found.values()},
                        lambda *what: metrics.published(*what) if metrics else None)
    spooled = any(it.spool for it in found.values())
    # A missing queue does not make the intake unready for supervisors: the worker that declares it may start later.
    # Nor does a broker that is away if there is a spool: what no request is led to can keep none.
    metrics = serving.begin('intake', settings, lambda: ('' if broker.ready or spooled else broker.hindrance,
                                                         broker.hindrance or counted(len(found), 'intake')))
    counts = Counts(broker.tell if settings.PUBLISH_FACTS else None, {
        it.name: {'kind': it.kind, 'url': url_of(settings) + it.path, 'state': it.state, 'test_orders': it.test_orders}
        for it in found.values()}, *([metrics.delivered] if metrics else ()))
    spool = Spool(broker, directory_of(settings)) if spooled else None
    publishers: Mapping[str, Publisher] = {
        name: spool if spool and intake.spool else broker for name, intake in found.items()}
    application = Application(found, publishers, counts, lambda: not broker.hindrance, facts=settings.PUBLISH_FACTS)
    parts = [part for part in (broker, counts, spool) if part]
    for part in parts:
        part.start()
    try:
        web.serve(application, listener, threads=threads, https=settings.INTAKE_URL.startswith('https:'),
                  reading=READING_SECONDS, begun=lambda: _greet(say, settings, found))
    finally:
        for part in reversed(parts):
            part.end()


def url_of(settings: Settings) -> str:
    """The URL of the intake, without a trailing slash."""
    return str(settings.INTAKE_URL or f'http://{settings.INTAKE_ADDRESS}')


def _connection(app: Celery, settings: Settings) -> Any:
    return app.connection_for_write(
        settings.INTAKE_BROKER_URL or None,
        transport_options={'confirm_publish': False, 'connect_timeout': PATIENCE, 'read_timeout': PATIENCE,
                           'write_timeout': PATIENCE})


def _greet(say: Callable[[str], None], settings: Settings, found: Mapping[str, intakes.Intake]) -> None:
    for remark in intakes.remarks(found, settings):
        say(f'note: {remark}')
    say(f'accepting deliveries at {url_of(settings)}/in/ for {", ".join(found)}')
