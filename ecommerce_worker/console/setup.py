"""Opening the console: set Django up, check the ledger, create our own tables and roles."""

from __future__ import annotations

import contextlib
from typing import Final

from django.conf import settings as django_settings
from django.core.management import call_command
from django.db import Error, connection
from django.db.migrations.executor import MigrationExecutor

from ecommerce_worker.ledger import setup as ledger
from ecommerce_worker.ledger.database import path_of

MODULE: Final = 'ecommerce_worker.console.settings'


def open_console() -> None:
    """Raises :class:`~ecommerce_worker.ledger.setup.LedgerUnusable` for a ledger that is not of this version."""
    ledger.open_ledger(MODULE)
    try:
        if _only_ours_is_missing():
            call_command('migrate', verbosity=0, interactive=False)
        ledger.require_schema()
        from ecommerce_worker.console import roles  # not before Django is set up

        roles.make()
    except Error as error:
        raise ledger.away(error) from None


def _only_ours_is_missing() -> bool:
    """Whether the ledger itself is current and only our tables need migrating."""
    path = path_of(django_settings.DATABASES['default'])
    if path and not path.exists():
        return False
    with contextlib.suppress(Error):  # the ledger itself says what is wrong
        executor = MigrationExecutor(connection)
        plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
        return bool(plan) and all(migration.app_label != 'ledger' for migration, _ in plan)
    return False
