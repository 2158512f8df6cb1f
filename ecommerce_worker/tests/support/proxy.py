"""A piece of network on loopback that freezes, drips, thaws, cuts and refuses as it is told to."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

#: Makes ``close`` send a reset at once.
_RESET = struct.pack('ii', 1, 0)


#: Seconds between two bytes of what drips.
_DRIP = 1.0


class Proxy:
    """Passes bytes between whoever connects to :attr:`port` and a port of loopback; either may be a Unix socket's path,
    which reaches into other network namespaces.
    """

    def __init__(self, target: int | Path, at: int | Path = 0) -> None:
        self.target = target
        self._flows = threading.Event()
        self._flows.set()
        self._drips = self._refuses = False
        self._ends: set[socket.socket] = set()
        self._orphans: list[socket.socket] = []
        self._fars: set[socket.socket] = set()
        self._lock = threading.Lock()
        if isinstance(at, Path):
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(str(at))
            self._listener.listen(128)
        else:
            self._listener = socket.create_server(('127.0.0.1', at), backlog=128)
        self.port: int = 0 if isinstance(at, Path) else self._listener.getsockname()[1]
        #: When somebody connected, refused or not, in epoch seconds.
        self.connected: list[float] = []
        threading.Thread(target=self._accept, name='proxy', daemon=True).start()

    def freeze(self) -> None:
        """Pass nothing on; connections stay open, and new ones get no answer."""
        self._flows.clear()

    def drip(self) -> None:
        """Pass answers on by one byte in a second."""
        self._drips = True

    def thaw(self) -> None:
        """Pass on what has been held back and what comes."""
        self._drips = False
        self._flows.set()

    def cut(self) -> None:
        """End all connections, in the middle of whatever passes."""
        with self._lock:
            ends, self._ends = self._ends, set()
            self._fars = set()
        for end in ends:
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                end.shutdown(socket.SHUT_RDWR)

    def fail_over(self) -> None:
        """End all connections on the side of who connected; the other side hears nothing of it, and answers nobody."""
        with self._lock:
            nears, self._ends = self._ends - self._fars, set()
            # Kept open by a second descriptor each, which nobody reads.
            self._orphans += [far.dup() for far in self._fars]
            self._fars = set()
        for near in nears:
            with contextlib.suppress(OSError):
                near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                near.shutdown(socket.SHUT_RDWR)

    def refuse(self) -> None:
        """End all connections, and new ones at once."""
        self._refuses = True
        self.cut()

    def accept(self) -> None:
        """Take connections again."""
        self._refuses = False

    @contextlib.contextmanager
    def interrupted(self) -> Iterator[None]:
        """Let nobody through, as if what is behind it had been stopped."""
        self.refuse()
        try:
            yield
        finally:
            self.accept()

    def close(self) -> None:
        """End for good."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.refuse()
        self.thaw()
        for orphan in self._orphans:
            orphan.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self.connected.append(time.time())
                if self._refuses:
                    near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                    near.close()
                else:
                    threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        self._flows.wait()
        with near, contextlib.suppress(OSError), self._connected() as far:
            with self._lock:
                self._ends |= {near, far}
                self._fars.add(far)
            if self._refuses:
                return
            back = threading.Thread(target=self._pass, args=(far, near), kwargs={'answers': True}, daemon=True)
            back.start()
            self._pass(near, far)
            back.join()
            with self._lock:
                self._ends -= {near, far}
                self._fars.discard(far)

    def _connected(self) -> socket.socket:
        if isinstance(self.target, int):
            return socket.create_connection(('127.0.0.1', self.target))
        far = socket.socket(socket.AF_UNIX)
        far.connect(str(self.target))
        return far

    def _pass(self, source: socket.socket, sink: socket.socket, *, answers: bool = False) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                self._flows.wait()
                while answers and self._drips and len(data) > 1:
                    sink.sendall(data[:1])
                    data = data[1:]
                    time.sleep(_DRIP)
                sink.sendall(data)
        # Whoever is at the other end is to know, unless this is what nobody tells.
        with self._lock:
            ends = {source, sink} & self._ends
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
