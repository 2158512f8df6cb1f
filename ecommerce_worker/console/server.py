"""The console's process: one server with some threads, on loopback unless configured otherwise."""

from __future__ import annotations

import argparse
import logging
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from ecommerce_worker import runtime, web
from ecommerce_worker.console.address import url_of
from ecommerce_worker.console.setup import open_console
from ecommerce_worker.errors import Misconfigured
from ecommerce_worker.process import output
from ecommerce_worker.telemetry import serving

#: How many pages are rendered at once, unless the command line says otherwise.
THREADS: Final = 8

#: Seconds between two looks whether the database answers, and after how many without an answer it does not.
LOOK_SECONDS: Final = 5.0
SILENT_SECONDS: Final = 20.0


def run(say: Callable[[str], None] = print, options: Sequence[str] = (), *, debug: bool = False) -> None:
    """Serve until SIGTERM or SIGINT; ``say`` prints a line for the operator, ``options`` are those of the command.

    Raises :class:`~ecommerce_worker.errors.WorkerError` if it cannot start.
    """
    said = _options(options)
    settings = runtime.current().settings
    open_console()
    from django.core.wsgi import get_wsgi_application

    from ecommerce_worker.celery_app import configure_logging  # messages are resent through its application

    configure_logging('DEBUG' if debug else None)
    # It logs each login in four lines.
    logging.getLogger('axes').setLevel(logging.WARNING)
    application: web.Application = get_wsgi_application()
    if said.access_logfile:
        application = web.logged(application, _access_log(said.access_logfile))
    database = _Database()
    threading.Thread(target=database.watch, name='database', daemon=True).start()
    serving.begin('console', settings, database.standing)
    listener = web.listener_at(settings.CONSOLE_ADDRESS, 'the console', 'CONSOLE_ADDRESS')
    web.serve(application, listener, threads=said.threads, https=url_of(settings).startswith('https:'),
              proxy=settings.CONSOLE_PROXY, begun=lambda: _greet(say))


class _Database:
    """Whether the database answers: a thread asks, since the loop of a server must not wait."""

    def __init__(self) -> None:
        self._answered: float | None = None

    def standing(self) -> tuple[str, str]:
        """See :class:`~ecommerce_worker.process.pulse.Pulse`."""
        if self._answered is None or time.monotonic() - self._answered > SILENT_SECONDS:
            return 'the database does not answer', ''
        return '', 'serving'

    def watch(self) -> None:
        """Ask, again and again."""
        from django.db import Error, connection

        while True:
            try:
                with connection.cursor() as cursor:
                    cursor.execute('SELECT 1')
                self._answered = time.monotonic()
            except Error:
                connection.close()
            time.sleep(LOOK_SECONDS)


def _options(given: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser('ecommerce-worker console', add_help=False, allow_abbrev=False)
    parser.add_argument('--threads', type=int, default=THREADS)
    parser.add_argument('--access-logfile', default='')
    return parser.parse_args(given)


def _access_log(name: str) -> logging.Logger:
    """The access log: a file, or standard output for ``-``."""
    log = logging.getLogger('ecommerce_worker.console.access')
    try:
        handler = logging.StreamHandler(sys.stdout) if name == '-' else logging.FileHandler(name, encoding='utf-8')
    except OSError as error:
        raise Misconfigured([f'--access-logfile {name} cannot be written: {error.strerror}']) from None
    handler.setFormatter(logging.Formatter('%(asctime)s %(message)s'))
    log.handlers, log.propagate = [handler], False
    log.setLevel(logging.INFO)
    output.open_log()
    return log


def invite(name: str, role: str = '') -> str:
    """The URL at which this person chooses a password; see :func:`users.invite`."""
    open_console()
    from ecommerce_worker.console import users  # not before Django is set up

    return url_of(runtime.current().settings) + users.invite(name, role)


def _greet(say: Callable[[str], None]) -> None:
    from django.contrib.sessions.backends.db import SessionStore
    from django.db import connections

    from ecommerce_worker.console import users

    url = url_of(runtime.current().settings)
    say(f'console at {url}/')
    if not users.is_anybody_there():
        say('no operator has a password yet; choose one for "operator" within a day: '
            f'{url}{users.first_link()}')
    # Each login leaves a session, and nothing else deletes expired ones.
    SessionStore.clear_expired()
    connections.close_all()
