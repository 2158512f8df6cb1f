"""The resources of commands: the application, the broker, the ledger."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ecommerce_worker import extras, runtime

if TYPE_CHECKING:
    from celery import Celery
    from kombu import Connection


def opened_ledger() -> Any:
    """The queries of the opened ledger; raises ``LedgerUnusable`` if it is not of this version, or
    :class:`~ecommerce_worker.extras.Lacking`.
    """
    extras.require_django()
    from ecommerce_worker.ledger import setup

    runtime.current()
    setup.open_current_ledger()
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
    """The application, and a connection to the broker, closed afterwards."""
    from ecommerce_worker.broker import preflight

    app = application()
    with preflight.connect(app, runtime.current().settings) as connection, preflight.permitted():
        yield app, connection


def who() -> str:
    """The user and host of this command, for the audit log."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError, ImportError):  # a number without a name, as containers have it
        user = f'uid {os.getuid()}'
    return f'{user}@{socket.gethostname()}'
