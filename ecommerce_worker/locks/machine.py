"""The lock of an order on this machine: one run at a time among all its processes.

Linux keeps the names (abstract addresses of Unix sockets, within the network namespace: that of a container, or the
machine's); when a process dies, its names are free.  On another system, or where sockets are forbidden, nothing is
locked.  No run waits for a lock: one that finds it taken is retried later.
"""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import struct
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from ecommerce_worker import logs
from ecommerce_worker.errors import Taken

logger = logs.of(__name__)

#: A zero byte at the start makes it an abstract address: a name, and no file.
PREFIX: Final = b'\0ecommerce-worker/'

#: How many may ask whose a name is while one has it; its kernel answers for it.
BACKLOG: Final = 1000

#: Seconds after which a name that is always taken, and never answers, is not one of ours: ours
#: do not for the moment between taking a name and listening, and when they end.
SILENT_SECONDS: Final = 10.0


class Turns:
    """The locks of one installation: all workers of the same broker on this machine share them.

    Any user of the machine may take an abstract name, and sees those in use.  So ours are made of a secret, and a
    process of another user, recognised by its credentials, excludes nobody.
    """

    def __init__(self, secret: Any = '') -> None:
        self._key = hashlib.sha256(repr(secret).encode(errors='surrogatepass')).digest()

    @contextmanager
    def turn(self, name: str, *, lease: float, put_off: float = 0.0) -> Iterator[None]:
        """Hold the lock ``name``.

        Raises :class:`~ecommerce_worker.errors.Taken` if another run holds it.  A message that has been ``put_off``
        for more than ``lease`` seconds, the longest time for a run, starts anyway: the other run has stopped in the
        middle, and may never end.
        """
        try:
            mine = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        except OSError:
            yield
            return
        with mine:
            try:
                is_taken = _is_taken(self.address(name), mine, put_off)
            except OSError:
                is_taken = False
            if is_taken and put_off <= lease:
                raise Taken('another run is working on this order')
            yield

    def exclude(self) -> bool:
        """Whether this system has abstract socket addresses."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                probe.bind(self.address(uuid.uuid4().hex))
        except OSError:
            return False
        return True

    def address(self, name: str) -> bytes:
        """The socket address of the name."""
        digest = hashlib.blake2b(name.encode(errors='surrogatepass'), key=self._key, digest_size=24)
        return PREFIX + digest.hexdigest().encode()


def _is_taken(address: bytes, mine: socket.socket, put_off: float) -> bool:
    """Try to take the address; True if another process of this user holds it.

    A process whose user is unknown counts as ours, but not for as long as ``put_off`` may be.
    """
    try:
        mine.bind(address)
        mine.listen(BACKLOG)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
    else:
        return False
    user = _user_of(address)
    # If nothing listens it has just ended, or is just starting. Either way it was met, and a run that has met another
    # is to ask how things stand before doing anything.
    if user == os.geteuid() or (user is None and put_off <= SILENT_SECONDS):
        return True
    logger.warning('a process of another user holds one of our lock names, which is ignored', user=user)
    return False


def _user_of(address: bytes) -> int | None:
    """The user of the process listening there; None if none does."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
            asking.setblocking(False)
            asking.connect(address)
            user: int = struct.unpack('3i', asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1]
            return user
    except BlockingIOError:
        # So many asked before that it can only be one of ours that is at it for long.
        return os.geteuid()
    except OSError:
        return None
