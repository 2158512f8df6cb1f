"""Django's ``DATABASES`` made of ours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from ecommerce_worker.settings import Settings

SQLITE: Final = 'django.db.backends.sqlite3'
MYSQL: Final = 'django.db.backends.mysql'

#: Seconds for which one writer of a SQLite file waits for another.
LOCK_SECONDS: Final = 20


def path_of(database: Mapping[str, Any]) -> Path | None:
    """The file of a SQLite database; None for others, and for one in memory."""
    name = str(database['NAME'])
    if database['ENGINE'] != SQLITE or name.startswith((':memory:', 'file:')):
        return None
    return Path(name).expanduser().absolute()


def database(given: Mapping[str, Any]) -> dict[str, Any]:
    """The database as Django is to have it: what was given, and what a ledger needs where nothing else is said."""
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
    """Whether there may be a ledger: anything but a file that was never made."""
    path = path_of(settings.DATABASES['default'])
    return path is None or path.exists()
