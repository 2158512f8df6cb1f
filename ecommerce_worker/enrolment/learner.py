"""Learners without their mail addresses: a keyed pseudonym, and a masked address."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ecommerce_worker.settings import Settings

#: Letters of a pseudonym: 128 bits in hexadecimal.
LENGTH: Final = 32


def pseudonym(key: str, address: str) -> str:
    """The pseudonym of an address, the same for upper and lower case; it cannot be made or guessed without the key."""
    return hmac.new(key.encode(), address.strip().casefold().encode(errors='replace'), hashlib.sha256).hexdigest()[
        :LENGTH]


def pseudonyms(settings: Settings, address: str) -> tuple[str, ...]:
    """The possible pseudonyms of the address in the ledger: by the current and the previous key; none without a key."""
    return tuple(pseudonym(key, address) for key in (settings.LEARNER_KEY, settings.LEARNER_KEY_BEFORE) if key)


def masked(address: str) -> str:
    """The address masked, enough to distinguish the learners of an order: ``a…@e….com``."""
    name, _, host = address.rpartition('@')
    domain, _, end = host.rpartition('.')
    return f'{name[:1]}…@{domain[:1]}….{end}' if name and domain else '…'
