"""A safe way to read kombu's filesystem transport: files appear only when they are complete.

kombu reads a file as soon as it is there, also one that is only being written, and that ends the worker.  So who
publishes writes into one directory, who consumes reads another, and whole files are moved from the one to the other.
"""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

#: How often it is looked for new files, in seconds.
INTERVAL: Final = 0.02


class Mover:
    """Moves complete messages while its context is open."""

    def __init__(self, sent: Path, messages: Path) -> None:
        self._sent = sent
        self._messages = messages
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name='mover')

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(INTERVAL):
            for file in sorted(self._sent.iterdir()):
                if _is_whole(file):
                    file.rename(self._messages / file.name)


def settle(sent: Path) -> None:
    """Return when all sent or returned messages have been moved, or after two seconds."""
    for _ in range(100):
        if not any(sent.iterdir()):
            return
        time.sleep(INTERVAL)


def _is_whole(file: Path) -> bool:
    try:
        json.loads(file.read_bytes())
    except ValueError:
        return False
    return True
