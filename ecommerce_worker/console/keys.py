"""The key that signs sessions and links."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Final

from ecommerce_worker.errors import Misconfigured
from ecommerce_worker.ledger.database import path_of
from ecommerce_worker.settings import Settings, in_home

#: Where it is kept if the ledger is not a file.
STATE: Final = Path('~/.local/state/ecommerce-worker')

_LENGTH: Final = 32  # bytes


def secret_key(settings: Settings) -> str:
    """The configured key, or the one kept beside the ledger, created if needed and readable by its owner only.

    Raises :class:`~ecommerce_worker.errors.Misconfigured` if it is too short or cannot be stored.
    """
    if settings.CONSOLE_SECRET_KEY:
        if len(settings.CONSOLE_SECRET_KEY.encode()) < _LENGTH:
            raise Misconfigured([(f'CONSOLE_SECRET_KEY is shorter than {_LENGTH} bytes: generate one with '
                                  '`openssl rand -hex 32`')])
        return settings.CONSOLE_SECRET_KEY
    ledger = path_of(settings.DATABASES['default'])
    if ledger and not ledger.parent.is_dir():
        # No ledger yet, so nothing to sign.
        return secrets.token_hex(_LENGTH)
    directory = ledger.parent if ledger else in_home(STATE, 'CONSOLE_SECRET_KEY is not set, and its file')
    try:
        return _kept(directory / 'console-secret-key')
    except OSError as error:
        raise Misconfigured([(f"the console's secret key cannot be stored in {directory} ({error.strerror}): set "
                              'CONSOLE_SECRET_KEY')]) from None


def _kept(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        # Created atomically: another console may start at the same moment.
        draft = path.with_name(f'{path.name}.{secrets.token_hex(8)}')
        draft.touch(mode=0o600, exist_ok=False)
        draft.write_text(secrets.token_hex(_LENGTH))
        try:
            path.hardlink_to(draft)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path.read_text().strip()
