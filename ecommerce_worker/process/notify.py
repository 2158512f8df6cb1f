"""Notifying systemd: the protocol of sd_notify(3), a datagram of a few lines."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import MutableMapping
from typing import Final

#: Variables of systemd for a service, which its child processes must not see.
VARIABLES: Final = ('NOTIFY_SOCKET', 'WATCHDOG_USEC', 'WATCHDOG_PID')


class Supervisor:
    """The systemd that started this process; does nothing if there is none.

    ``watchdog`` are the seconds within which it expects a sign of life; None without a watchdog.
    """

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        """Remove its variables from the environment, so that children do not use them."""
        address, microseconds, pid = (environment.pop(name, '') for name in VARIABLES)
        # An abstract address begins with a zero byte, which is written as @.
        self._address = f'\0{address[1:]}' if address.startswith('@') else address
        self.watchdog: float | None = None
        if address and microseconds.isdigit() and pid in ('', str(os.getpid())):
            self.watchdog = int(microseconds) / 1e6

    def tell(self, **what: str | int) -> None:
        """Send these, such as ``READY=1``; never waits, and ignores errors."""
        if self._address:
            lines = '\n'.join(f'{name}={str(value).translate(_ONE_LINE)}' for name, value in what.items())
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as speaking:
                speaking.sendto(lines.encode(errors='replace'), socket.MSG_DONTWAIT, self._address)


_ONE_LINE: Final = dict.fromkeys(range(32), ' ')
