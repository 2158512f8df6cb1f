"""Django's ``DATABASES``, made from our settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ecommerce_worker.errors import Misconfigured
from ecommerce_worker.settings import in_home

if TYPE_CHECKING:
    from ecommerce_worker.settings import Settings

SQLITE: Final = 'django.db.backends.sqlite3'
MYSQL: Final = 'django.db.backends.mysql'

#: Seconds for which one writer of a SQLite file waits for another.
LOCK_SECONDS: Final = 20


def path_of(database: Mapping[str, Any]) -> Path | None:
    """The file of a SQLite database; None for others, and for one in memory.

    Raises :class:`~ecommerce_worker.errors.Misconfigured` for one in a home directory that does not exist.
    """
    name = str(database['NAME'])
    if database['ENGINE'] != SQLITE or name.startswith((':memory:', 'file:')):
        return None
    return in_home(name, 'DATABASES').absolute()


def database(given: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of the database for Django: the given one, with the defaults that a ledger needs."""
    options = dict(given.get('OPTIONS') or {})
    if given['ENGINE'] != SQLITE:
        engine = 'ecommerce_worker.ledger.mysql' if given['ENGINE'] == MYSQL else given['ENGINE']
        return {'CONN_MAX_AGE': None, 'CONN_HEALTH_CHECKS': True, **given, 'ENGINE': engine, 'OPTIONS': options}
    return {
        'CONN_MAX_AGE': None, **given, 'NAME': str(path_of(given) or given['NAME']),
        'OPTIONS': {
            # The lock at the beginning: one that is only wanted in mid-transaction fails at once instead of waiting.
            'transaction_mode': 'IMMEDIATE', 'timeout': LOCK_SECONDS,
            # Readers do not wait for the writer.  Each commit is on the disk: parked messages are acknowledged for it.
            'init_command': 'PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL',
            **options},
    }


def is_kept(settings: Settings) -> bool:
    """Whether a ledger may exist: anything but a SQLite file that was never created."""
    try:
        path = path_of(settings.DATABASES['default'])
    except Misconfigured:
        return False  # without a home directory there is no ledger
    return path is None or path.exists()
