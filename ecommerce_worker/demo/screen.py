"""The output of the demonstration: a line for each event as it happens, and a table at the end."""

from __future__ import annotations

import io
import os
import shutil
import sys
import textwrap
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TextIO

PLAIN, BOLD, DIM, RED, GREEN, YELLOW, BLUE = '0', '1', '2', '31', '32', '33', '36'

#: The narrowest and the widest table.
NARROW, WIDE = 100, 150


class Screen:
    """Prints lines, in colour if the stream is a terminal and ``NO_COLOR`` is not set."""

    def __init__(self, stream: TextIO = sys.stdout) -> None:
        self._stream = stream
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors='replace')
        self._colour = stream.isatty() and not os.environ.get('NO_COLOR') and os.environ.get('TERM') != 'dumb'
        self._started = time.monotonic()
        self._width = min(WIDE, max(NARROW, shutil.get_terminal_size((120, 24)).columns))

    def say(self, text: str = '', colour: str = PLAIN) -> None:
        """Print one line immediately."""
        print(self._painted(text, colour), file=self._stream, flush=True)

    def heading(self, text: str) -> None:
        """Print a heading."""
        self.say()
        self.say(text, BOLD)

    def event(self, who: str, what: str, text: str = '', colour: str = PLAIN) -> None:
        """Print an event."""
        when = self._painted(f'{time.monotonic() - self._started:6.1f}', DIM)
        self.say(f'{when}  {who:10} {self._painted(f"{what:10}", colour)} {text}'.rstrip())

    def table(self, head: Sequence[str], rows: Iterable[Sequence[str]], *, flexible: int) -> None:
        """Print a table; the column `flexible` gets the remaining width and is wrapped."""
        lines = [head, *rows]
        widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
        rest = self._width - sum(widths) + widths[flexible] - 2 * (len(widths) - 1)
        widths[flexible] = min(widths[flexible], max(rest, 30))
        for number, line in enumerate(lines):
            cells = [textwrap.wrap(cell, width) if column == flexible else [cell]
                     for column, (cell, width) in enumerate(zip(line, widths, strict=True))]
            for part in range(max(map(len, cells))):
                shown = [cell[part] if part < len(cell) else '' for cell in cells]
                text = '  '.join(cell.ljust(width) for cell, width in zip(shown, widths, strict=True)).rstrip()
                self.say(text, RED if line[-1] == '✗' else BOLD if number == 0 else PLAIN)

    def _painted(self, text: str, colour: str) -> str:
        return f'\033[{colour}m{text}\033[0m' if self._colour and colour != PLAIN else text


class Tail:
    """Reads a file line by line while it is being written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def lines(self) -> list[str]:
        """The complete lines added since the last call."""
        if not self._path.exists():
            return []
        with self._path.open('rb') as file:
            file.seek(self._offset)
            added, newline, _ = file.read().rpartition(b'\n')
        self._offset += len(added) + len(newline)
        return added.decode(errors='replace').splitlines()
