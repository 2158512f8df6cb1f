"""Asking processes how they are, as those who look after them do."""

from __future__ import annotations

import contextlib
import http.client
import socket
import subprocess
import sys
from pathlib import Path


def probe(directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """What `python -m ecommerce_worker.health` says."""
    return subprocess.run([sys.executable, '-m', 'ecommerce_worker.health', '--dir', str(directory), *options],
                          capture_output=True, text=True, timeout=60, check=False)


def is_so(directory: Path, asked: str, *options: str) -> bool:
    """Whether it answers yes."""
    return probe(directory, f'--{asked}', *options).returncode == 0


def page(port: int, path: str, method: str = 'GET') -> tuple[int, str]:
    """The status and the text of a page; 0 where nobody listens."""
    with contextlib.closing(http.client.HTTPConnection('127.0.0.1', port, timeout=60)) as connection:
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except OSError:
            return 0, ''


class Listening:
    """Where systemd listens to a service."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f'\0{address[1:]}' if address.startswith('@') else address)
        self._socket.settimeout(60)
        self.said: list[dict[str, str]] = []

    def until(self, name: str) -> str:
        """The value of the first of these that is said from now on."""
        while True:
            self.said.append(dict(line.split('=', 1) for line in self._socket.recv(65536).decode().split('\n')))
            if name in self.said[-1]:
                return self.said[-1][name]

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()
