"""The key that signs sessions and links."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Final

from ecommerce_worker.errors import Misconfigured
from ecommerce_worker.ledger.database import path_of
from ecommerce_worker.settings import Settings, in_home

#: Where it is kept for a ledger that is no file.
STATE: Final = Path('~/.local/state/ecommerce-worker')

_LENGTH: Final = 32  # bytes


def secret_key(settings: Settings) -> str:
    """The configured one; else the one kept beside the ledger, which is made if need be, readable for its owner only.

    Raises :class:`~ecommerce_worker.errors.Misconfigured` for one that is too short or cannot be kept.
    """
    if settings.CONSOLE_SECRET_KEY:
        if len(settings.CONSOLE_SECRET_KEY.encode()) < _LENGTH:
            raise Misconfigured([f'CONSOLE_SECRET_KEY is shorter than {_LENGTH} bytes: take `openssl rand -hex 32`'])
        return settings.CONSOLE_SECRET_KEY
    ledger = path_of(settings.DATABASES['default'])
    if ledger and not ledger.parent.is_dir():
        # There is no ledger yet: nothing to be signed.
        return secrets.token_hex(_LENGTH)
    directory = ledger.parent if ledger else in_home(STATE, 'CONSOLE_SECRET_KEY is not set, and its place')
    try:
        return _kept(directory / 'console-secret-key')
    except OSError as error:
        raise Misconfigured([(f'the secret key of the console cannot be kept in {directory} ({error.strerror}): set '
                              'CONSOLE_SECRET_KEY')]) from None


def _kept(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        # Whole or not at all, for another console may begin at the same moment.
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
