"""Opening the ledger: set Django up for it and check its schema, before anything is read or written."""

from __future__ import annotations

import importlib
from typing import Any, Final

import django
from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.db import DataError, Error, IntegrityError, connection
from django.db.migrations.loader import MigrationLoader

from ecommerce_worker.errors import WorkerError
from ecommerce_worker.ledger.database import path_of

#: The command that makes the ledger, and brings one of an older version up to date.
MIGRATE: Final = '`ecommerce-worker migrate`'

#: What to do if there is no ledger; without a recorder it stays empty.
MAKE: Final = f'{MIGRATE} creates it, and `ecommerce-worker recorder` records everything from then on'

_MODULE: Final = 'ecommerce_worker.ledger.settings'


class LedgerUnusable(WorkerError):
    """The ledger cannot be used: the text says why and what to do."""


class LedgerAway(LedgerUnusable):
    """The database is unreachable or fails: it may be back soon."""


def open_ledger(module: str = _MODULE) -> None:
    """Set Django up with the settings of that module; idempotent.

    Raises :class:`LedgerUnusable` in a process that has a Django of its own, such as the shop's.
    """
    if django_settings.configured:
        if getattr(django_settings, 'LEDGER_MODULE', None) == module:
            return
        raise LedgerUnusable('Django is already set up in this process with other settings: the ledger is kept and '
                             'read by separate processes (ecommerce-worker recorder)')
    found = importlib.import_module(module)
    django_settings.configure(
        LEDGER_MODULE=module, **{name: value for name, value in vars(found).items() if name.isupper()})
    try:
        django.setup()
        # Its driver is imported here.
        _ = connection.vendor
    except (ImproperlyConfigured, ImportError) as error:
        raise LedgerUnusable(f'DATABASES cannot be used: {said(error)}{_driver()}') from None


def migrate(module: str = _MODULE, *, target: str = '') -> None:
    """Create the ledger, or bring its schema up to date; to that migration (``0001``) if one is given.

    Raises :class:`LedgerUnusable`.
    """
    open_ledger(module)
    try:
        if path := path_of(django_settings.DATABASES['default']):
            path.parent.mkdir(parents=True, exist_ok=True)
            # It may hold what customers wrote.
            path.touch(mode=0o600, exist_ok=True)
        call_command('migrate', *(['ledger', target] if target else []), verbosity=0, interactive=False)
    except (Error, OSError) as error:
        raise away(error) from None


def open_current_ledger() -> None:
    """Open the ledger and make sure that it exists in this version; raises :class:`LedgerUnusable`."""
    open_ledger()
    require_schema()


def require_schema() -> None:
    """Raise :class:`LedgerUnusable` unless the ledger exists in this version."""
    path = path_of(django_settings.DATABASES['default'])
    if path and not path.exists():
        raise LedgerUnusable(f'there is no ledger yet ({_place()}): {MAKE}')
    try:
        loader = MigrationLoader(connection)
        applied = set(loader.applied_migrations)
    except Error as error:
        raise away(error) from None
    known = set(loader.disk_migrations)
    if not any(app == 'ledger' for app, _ in applied):
        raise LedgerUnusable(f'there is no ledger yet ({_place()}): {MAKE}')
    if newer := sorted(name for app, name in applied - known if app == 'ledger'):
        last = max(name for app, name in known if app == 'ledger')
        raise LedgerUnusable(f'the ledger has a newer version (migration {newer[-1]}): install that version here, '
                             f'or use it to migrate the ledger back with `ecommerce-worker migrate {last}`')
    if older := sorted(f'{app}.{name}' for app, name in known - applied):
        raise LedgerUnusable(f'the ledger has an older version (without {older[0]}): stop the recorder and run '
                             f'{MIGRATE}')


def away(error: BaseException) -> LedgerAway:
    """The error of a database that is unreachable or fails."""
    return LedgerAway(f'the ledger cannot be used ({_place()}): {said(error)}')


def said(error: BaseException) -> str:
    """The message of a database error, on one line and without the values of a row."""
    if isinstance(error, DataError | IntegrityError):
        return type(error).__name__
    # Of others the first line: the rest may quote the row.
    return str(error).partition('\n')[0][:200] or type(error).__name__


def _driver() -> str:
    """The extra with the driver of the database, if it needs one."""
    engine = str(django_settings.DATABASES['default']['ENGINE'])
    extra = next((extra for extra in ('postgresql', 'mysql') if extra in engine), '')
    return f"; `pip install 'edx-ecommerce-worker[{extra}]'` installs its driver" if extra else ''


def _place() -> str:
    found: dict[str, Any] = django_settings.DATABASES['default']
    where = f'{found["HOST"]} ' if found.get('HOST') else ''
    return f'{found["ENGINE"].rpartition(".")[2]} {where}{found["NAME"]}'
