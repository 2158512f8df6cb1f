"""What commands work with: the application, the broker, the ledger."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ecommerce_worker import runtime
from ecommerce_worker.cli.output import is_installed
from ecommerce_worker.errors import WorkerError

if TYPE_CHECKING:
    from celery import Celery
    from kombu import Connection


class Lacking(WorkerError):
    """There is a ledger, and nothing is installed here to look into it."""


def require_django() -> None:
    """Raise :class:`Lacking` where only the wheel is installed; a ledger may be kept elsewhere."""
    if not is_installed('django'):
        raise Lacking("there is a ledger, and Django is not installed here to look into it: pip install "
                      "'edx-ecommerce-worker[ledger]'")


def opened_ledger() -> Any:
    """What reads the ledger; raises ``LedgerUnusable`` if there is none of this version, or :class:`Lacking`."""
    require_django()
    from ecommerce_worker.ledger import setup

    runtime.current()
    setup.open_ledger()
    setup.require_schema()
    from ecommerce_worker.ledger import queries

    return queries


def application() -> Celery:
    """The application with all its tasks; raises ``Misconfigured``."""
    from ecommerce_worker.broker import preflight
    from ecommerce_worker.celery_app import app

    preflight.import_tasks(app, runtime.current().settings)
    return app


@contextmanager
def connected() -> Iterator[tuple[Celery, Connection]]:
    """The application, and a connection by which queues may be looked at; ended afterwards."""
    from ecommerce_worker.broker import preflight

    app = application()
    with preflight.connect(app, runtime.current().settings) as connection, preflight.permitted():
        yield app, connection


def who() -> str:
    """Who gives this command, and where, for the record."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError, ImportError):  # a number without a name, as containers have it
        user = f'uid {os.getuid()}'
    return f'{user}@{socket.gethostname()}'
