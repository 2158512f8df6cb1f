"""Whose turn it is at an order: one thread of all processes of this machine.

Linux keeps the names (abstract addresses of Unix sockets, within the network namespace: that of a container, or the
machine's); a process that dies has none any more.  On another system, or where sockets are forbidden, nobody waits.
"""

from __future__ import annotations

import errno
import hashlib
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Final

#: A zero byte at the start makes it an abstract address: a name, and no file.
PREFIX: Final = b'\0ecommerce-worker/'

#: Seconds between two looks whether it is one's turn.
LOOK_SECONDS: Final = 0.05


@contextmanager
def turn(name: str, patience: float) -> Iterator[bool]:
    """Around what one does about ``name`` while nobody else does; gives whether another had to be waited for.

    After ``patience`` seconds it begins all the same: the other one has stopped in the middle, and may never end.
    """
    address = PREFIX + hashlib.sha256(name.encode(errors='surrogatepass')).hexdigest().encode()
    waited = False
    with ExitStack() as stack:
        with suppress(OSError):
            mine = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            begun = time.monotonic()
            while _is_anothers(address, mine) and time.monotonic() < begun + patience:
                waited = True
                time.sleep(LOOK_SECONDS)
        yield waited


def _is_anothers(address: bytes, mine: socket.socket) -> bool:
    """Whether somebody else has the address; from now on it is mine, if not."""
    try:
        mine.bind(address)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        return True
    return False
