"""A machine of its own, as far as two workers can tell: a network namespace, whose loopback leads to ours.

    python -m ecommerce_worker.tests.chaos.machine DIRECTORY ARGUMENTS OF PYTHON ...

For each socket in the directory, named after a port, that port of its loopback leads there. Only root may make one.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import socket
import struct
import sys
from pathlib import Path

from ecommerce_worker.tests.support.proxy import Proxy

#: From Linux's headers.
_CLONE_NEWNET, _PR_SET_PDEATHSIG = 0x40000000, 1
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1


def command(directory: Path, *arguments: str) -> tuple[str, ...]:
    """Arguments of Python that run others of them on a machine of its own."""
    return ('-m', __name__, str(directory), *arguments)


def main() -> None:
    """Become what is to run there; what passes its connections on ends with it."""
    directory, arguments = Path(sys.argv[1]), sys.argv[2:]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), 'only root may make a network namespace')
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack('16sh14x', b'lo', _IFF_UP))
    ready, listening = os.pipe()
    if not os.fork():
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        wires = [Proxy(path, int(path.name)) for path in directory.iterdir()]
        os.write(listening, bytes([len(wires)]))
        signal.pause()
    os.read(ready, 1)
    os.execv(sys.executable, [sys.executable, *arguments])


if __name__ == '__main__':
    main()
