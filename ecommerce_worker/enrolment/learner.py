"""How a learner is known where no address may stand: by a pseudonym that a key makes, and by a few letters."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ecommerce_worker.settings import Settings

#: Letters of a pseudonym: 128 bits in hexadecimal.
LENGTH: Final = 32


def pseudonym(key: str, address: str) -> str:
    """What stands for the address, the same for upper and lower case; nobody makes it, or tries it, without the key."""
    return hmac.new(key.encode(), address.strip().casefold().encode(errors='replace'), hashlib.sha256).hexdigest()[
        :LENGTH]


def pseudonyms(settings: Settings, address: str) -> tuple[str, ...]:
    """What may stand for the address in the ledger: by the key in force, and by the one before; none without a key."""
    return tuple(pseudonym(key, address) for key in (settings.LEARNER_KEY, settings.LEARNER_KEY_BEFORE) if key)


def masked(address: str) -> str:
    """The address as people see it who need only tell two learners of an order apart: ``a…@e….com``."""
    name, _, host = address.rpartition('@')
    domain, _, end = host.rpartition('.')
    return f'{name[:1]}…@{domain[:1]}….{end}' if name and domain else '…'
