"""Firings in a SQLite file on this machine, for beats without a ledger."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from ecommerce_worker.errors import WorkerError
from ecommerce_worker.schedule.claims import CLAIM_SECONDS
from ecommerce_worker.settings import in_home


class StateUnusable(WorkerError):
    """The file of the firings cannot be read or written: set SCHEDULE_STATE to one that can."""


class FileFirings:
    """The firings in a SQLite file, for beats of one machine; every method may raise :class:`StateUnusable`.

    Making one raises ``Misconfigured`` for a file in a home directory that does not exist.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = in_home(path, 'SCHEDULE_STATE')

    def last(self, entry: str) -> float | None:
        """See :class:`Firings`."""
        if not self._path.exists():
            return None
        found = self._run('SELECT fired FROM firing WHERE entry = ?', entry)[1]
        return found[0] if found else None

    def begin(self, entry: str, due: float) -> None:
        """See :class:`Firings`."""
        self._run('INSERT INTO firing (entry, fired) VALUES (?, ?) '
                  "ON CONFLICT (entry) DO UPDATE SET fired = excluded.fired, claimed_by = '', claimed_until = 0",
                  entry, due)

    def claim(self, entry: str, due: float, beat: str, now: float) -> bool:
        """See :class:`Firings`."""
        return self._run('UPDATE firing SET claimed_by = ?, claimed_until = ? '
                         'WHERE entry = ? AND fired < ? AND (claimed_until < ? OR claimed_by = ?)',
                         beat, now + CLAIM_SECONDS, entry, due, now, beat)[0] == 1

    def fired(self, entry: str, due: float, beat: str, missed: int) -> None:  # noqa: ARG002
        """See :class:`Firings`; missed firings are only logged, since no page shows this file."""
        self._run("UPDATE firing SET fired = ?, claimed_by = '', claimed_until = 0 "
                  'WHERE entry = ? AND claimed_by = ? AND fired < ?', due, entry, beat, due)

    expired = fired

    def release(self, entry: str, beat: str) -> None:
        """See :class:`Firings`."""
        self._run("UPDATE firing SET claimed_by = '', claimed_until = 0 WHERE entry = ? AND claimed_by = ?",
                  entry, beat)

    def tick(self, beat: str, now: float) -> None:
        """See :class:`Firings`."""
        self._run('INSERT OR REPLACE INTO beat (name, at) VALUES (?, ?)', beat, now)
        # Names hold a process number, so they are never used again.
        self._run('DELETE FROM beat WHERE at < ?', now - 7 * 86_400)

    def ticked(self) -> float | None:
        """See :class:`Firings`."""
        if not self._path.exists():
            return None
        found: float | None = self._run('SELECT max(at) FROM beat')[1][0]
        return found

    def _run(self, statement: str, *values: Any) -> tuple[int, Any]:
        """The number of changed rows, and the first row found."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self._path, timeout=10, isolation_level=None)) as database:
                database.execute("CREATE TABLE IF NOT EXISTS firing (entry TEXT PRIMARY KEY, fired REAL NOT NULL, "
                                 "claimed_by TEXT NOT NULL DEFAULT '', claimed_until REAL NOT NULL DEFAULT 0)")
                database.execute('CREATE TABLE IF NOT EXISTS beat (name TEXT PRIMARY KEY, at REAL NOT NULL)')
                cursor = database.execute(statement, values)
                return cursor.rowcount, cursor.fetchone()
        except (OSError, sqlite3.Error) as error:
            reason = getattr(error, 'strerror', None) or error
            raise StateUnusable(f'SCHEDULE_STATE {self._path} cannot be used: {reason}') from None
