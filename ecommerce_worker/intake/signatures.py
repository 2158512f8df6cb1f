"""Shared by all signatures of deliveries: HMACs over raw bytes, compared in constant time."""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Iterable, Sequence
from typing import Final

from ecommerce_worker.intake.source import Refused

#: Seconds by which a signed timestamp may differ from our clock, as in the senders' own libraries.
TOLERANCE: Final = 300

#: The names of the digests that senders use for HMAC.
DIGESTS: Final = ('sha256', 'sha512', 'sha1')


def code(key: bytes, *parts: bytes, digest: str = 'sha256', encoding: str = 'base64') -> str:
    """The HMAC over these parts, in ``base64`` or in ``hex`` of lower case."""
    made = hmac.digest(key, b''.join(parts), digest)
    return made.hex() if encoding == 'hex' else base64.b64encode(made).decode()


def require(given: Iterable[str], expected: Sequence[str]) -> None:
    """Raise :class:`Refused` unless one of those given is one of those expected.

    The encoded strings are compared, since Base64 may spell one code in several ways; and all of them, since the timing
    must not reveal which one differs.
    """
    pairs = [(one.encode(errors='replace'), other.encode()) for one in given for other in expected]
    if not pairs:
        raise Refused('no signature')
    if not any([hmac.compare_digest(one, other) for one, other in pairs]):  # noqa: C419 - not only until one matches
        raise Refused('signature')


def require_now(stamp: str, now: float) -> None:
    """Raise :class:`Refused` unless this time, in epoch seconds, is within :data:`TOLERANCE` of ours."""
    if not re.fullmatch(r'[0-9]{1,12}', stamp):
        raise Refused('no time')
    if abs(now - int(stamp)) > TOLERANCE:
        raise Refused('stale')
