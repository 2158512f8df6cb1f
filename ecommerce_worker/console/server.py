"""The console's process: one server, some threads, on loopback unless it is told otherwise."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from ecommerce_worker import runtime
from ecommerce_worker.console.address import url_of
from ecommerce_worker.console.setup import open_console
from ecommerce_worker.errors import WorkerError

#: As many pages as are made at once.
THREADS: Final = 8

#: Seconds for the pages under way when it is told to stop.
GRACE: Final = 10


class AddressUnusable(WorkerError):
    """Nobody can listen there: somebody else does, or it is no address of this machine."""


def run(say: Callable[[str], None] = print, options: Sequence[str] = (), *, debug: bool = False) -> None:
    """Serve until SIGTERM or SIGINT; ``say`` gets a line or two for the operator, ``options`` go to gunicorn.

    Raises :class:`~ecommerce_worker.errors.WorkerError` if it cannot begin.
    """
    settings = runtime.current().settings
    open_console()
    from ecommerce_worker.celery_app import configure_logging  # its application is what messages are sent again by

    configure_logging('DEBUG' if debug else None)
    # It tells each login in four lines.
    logging.getLogger('axes').setLevel(logging.WARNING)
    server = _server({
        'bind': settings.CONSOLE_ADDRESS, 'worker_class': 'gthread', 'threads': THREADS, 'workers': 1,
        'graceful_timeout': GRACE, 'control_socket_disable': True, 'proc_name': 'ecommerce-console',
        'loglevel': 'debug' if debug else 'warning', 'when_ready': lambda _: _greet(say)}, options)
    _require_free(server.cfg.address)
    server.run()


def invite(name: str, role: str = '') -> str:
    """The address of a link by which this person chooses a password; see :func:`accounts.invite`."""
    open_console()
    from ecommerce_worker.console import users  # not before Django is set up

    return url_of(runtime.current().settings) + users.invite(name, role)


def _greet(say: Callable[[str], None]) -> None:
    from django.contrib.sessions.backends.db import SessionStore
    from django.db import connections

    from ecommerce_worker.console import users

    url = url_of(runtime.current().settings)
    say(f'the console is at {url}/')
    if not users.is_anybody_there():
        say('nobody can log in yet; choose the password of "operator" within a day: '
            f'{url}{users.first_link()}')
    # Each login leaves one, and nothing else deletes them.
    SessionStore.clear_expired()
    # The processes that serve are made next; they must not share a connection with this one.
    connections.close_all()


def _require_free(addresses: Iterable[Any]) -> None:
    """Gunicorn would try for five seconds, and tell each time."""
    for address in addresses:
        if isinstance(address, tuple):
            try:
                socket.create_server(address, family=socket.AF_INET6 if ':' in address[0] else socket.AF_INET).close()
            except OSError as error:
                why = str(error.strerror).partition(' (')[0]
                raise AddressUnusable(f'the console cannot listen on {":".join(map(str, address))} ({why}); '
                                      'CONSOLE_ADDRESS names another') from None


def _server(ours: Mapping[str, Any], options: Sequence[str]) -> Any:
    from django.core.wsgi import get_wsgi_application
    from gunicorn.app.base import BaseApplication  # type: ignore[import-untyped]

    class Server(BaseApplication):
        """Gunicorn, told by us and by no file or environment variable."""

        def load_config(self) -> None:
            """Take ours, then what the command line says."""
            parser = self.cfg.parser()
            said = vars(parser.parse_args(options))
            if stray := said.pop('args'):
                parser.error(f'unrecognized arguments: {" ".join(stray)}')
            if said.pop('bind'):
                # It would be printed, and looked at for passwords that travel readable, as it is configured.
                parser.error('where it listens is set by CONSOLE_ADDRESS')
            if said.pop('config'):
                parser.error('no file is read here: give its settings as options')
            for name, value in {**ours, **{name: value for name, value in said.items() if value is not None}}.items():
                self.cfg.set(name, value)

        def load(self) -> Any:
            """The pages, in the process that serves them."""
            return get_wsgi_application()

    return Server('%(prog)s [--debug] [GUNICORN OPTIONS]...', prog='ecommerce-worker console')
