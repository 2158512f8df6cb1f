"""What all signatures of deliveries have in common: codes over raw bytes, compared in constant time."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable, Sequence
from typing import Final

from ecommerce_worker.intake.source import Refused

#: Seconds that the clock of a sender who signs it may differ from ours, both ways; as their own libraries have it.
TOLERANCE: Final = 300

#: Digests by name, as far as senders use them for HMAC.
DIGESTS: Final = ('sha256', 'sha512', 'sha1')


def code(key: bytes, *parts: bytes, digest: str = 'sha256', encoding: str = 'base64') -> str:
    """The HMAC over these parts, in ``base64`` or in ``hex`` of lower case."""
    made = hmac.new(key, digestmod=getattr(hashlib, digest))
    for part in parts:
        made.update(part)
    return made.hexdigest() if encoding == 'hex' else base64.b64encode(made.digest()).decode()


def require(given: Iterable[str], expected: Sequence[str]) -> None:
    """Raise :class:`Refused` unless one of those given is one of those expected.

    Texts are compared, for Base64 has several of one code; and all of them, for time must not tell which one differs.
    """
    pairs = [(one.encode(errors='replace'), other.encode()) for one in given for other in expected]
    if not pairs:
        raise Refused('no signature')
    if not any([hmac.compare_digest(one, other) for one, other in pairs]):  # noqa: C419 - not only until one fits
        raise Refused('signature')


def require_now(stamp: str, now: float) -> None:
    """Raise :class:`Refused` unless this time, in epoch seconds, is within :data:`TOLERANCE` of ours."""
    if not re.fullmatch(r'[0-9]{1,12}', stamp):
        raise Refused('no time')
    if abs(now - int(stamp)) > TOLERANCE:
        raise Refused('stale')
