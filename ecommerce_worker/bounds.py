"""Bounds of JSON that others wrote, looked at before anything is built of it."""

from __future__ import annotations

from typing import Final

from ecommerce_worker.errors import Undecodable

#: The largest body that is read, in bytes.  The largest genuine ones, mails with their text, have some hundred kB.
LARGEST_BODY: Final = 4 * 1024 * 1024

#: How deep arrays and objects of JSON may nest.
DEEPEST: Final = 64

#: The size from which on the parts of JSON are counted, and the most objects, arrays, members of these, escaped letters
#: and digits of one number.  For an object kombu calls a function that looks for dates and decimals: a microsecond.
FROM_BYTES: Final = 64 * 1024
MOST_OBJECTS: Final = 10_000
MOST_ARRAYS: Final = 50_000
MOST_MEMBERS: Final = 50_000
MOST_BACKSLASHES: Final = 500_000
MOST_DIGITS: Final = 500

_NO_BRACKETS: Final = bytes(set(range(256)) - set(b'[]{}'))
_AS_BRACKETS: Final = bytes.maketrans(b'{}', b'[]')
_DIGITS_AS_0: Final = bytes.maketrans(b'123456789', b'0' * 9)


def bounded_json(body: bytes) -> bytes:
    """The body; raises :class:`~ecommerce_worker.errors.Undecodable` if it may cost too much as JSON."""
    if len(body) > LARGEST_BODY:
        raise Undecodable(f'the body has {len(body)} bytes, more than {LARGEST_BODY}')
    if body.count(b'{') + body.count(b'[') <= DEEPEST and not _is_rich(body):
        return body
    # Characters in strings were counted, too, which is faster than excluding them.
    rest = _outside_of_texts(body)
    if _is_rich(rest):
        raise Undecodable('the JSON has too many parts')
    if _is_deep(rest):
        raise Undecodable(f'the JSON is nested deeper than {DEEPEST}')
    return body


def _is_rich(body: bytes) -> bool:
    """Whether there may be more in it than is decoded in time."""
    return len(body) > FROM_BYTES and (
        body.count(b'{') > MOST_OBJECTS or body.count(b'[') > MOST_ARRAYS or body.count(b',') > MOST_MEMBERS
        or b'0' * MOST_DIGITS in body.translate(_DIGITS_AS_0))


def _outside_of_texts(body: bytes) -> bytes:
    if body.count(b'\\') > MOST_BACKSLASHES:
        raise Undecodable('the JSON has too many parts')
    body = body.replace(b'\\\\', b'').replace(b'\\"', b'')
    if body.count(b'"') > 2 * MOST_MEMBERS:
        raise Undecodable('the JSON has too many parts')
    return b''.join(body.split(b'"')[::2])


def _is_deep(rest: bytes) -> bool:
    """Whether arrays and objects nest deeper than they may."""
    brackets = rest.translate(_AS_BRACKETS, _NO_BRACKETS)
    for _ in range(DEEPEST):
        # One level less, from within.
        brackets = brackets.replace(b'[]', b'')
        if not brackets:
            return False
    return True
