"""The file in which a process reports its state, and the conclusions: whether it is alive, ready, and has started.

::

    HEALTH_DIR/worker-4711.9f31c2.json   {"role": "worker", "pid": 4711, "pulse": …, "due": …, "ready": true, …}

A separate program reads it every few seconds, which must be cheap: so this imports little.
"""

from __future__ import annotations

import fcntl
import json
import os

TYPE_CHECKING = False  # as of `typing`, which takes long to import
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

#: What may be asked of a process.
ASKED = ('live', 'ready', 'started')

#: How the name of a file ends.
_END = '.json'

#: The file of this process, by device and inode, once there is one.
_own = None


class Vitals:
    """The file of this process, which stays locked while the process lives.

    ``directory`` is made if it does not exist, and may be shared by processes of any role, also of several containers.
    """

    def __init__(self, directory: str, role: str) -> None:
        os.makedirs(directory, mode=0o755, exist_ok=True)
        # In two containers both may have the same number.
        name = f'{role}-{os.getpid()}.{os.urandom(3).hex()}{_END}'
        self._directory, self._path = directory, os.path.join(directory, name)
        self._open: int | None = None
        for name in os.listdir(directory):
            if name.startswith(f'{role}-') and name.endswith(_END):
                _forget(os.path.join(directory, name))

    def write(self, vitals: Mapping[str, Any]) -> None:
        """Replace the content atomically. Raises OSError.

        If there is no room for a new file, the old one is overwritten: a full disk
        must not cause restarts.
        """
        text = json.dumps(vitals).encode()
        try:
            self._replace(text)
        except FileNotFoundError:
            # Somebody has cleared up.
            os.makedirs(self._directory, mode=0o755, exist_ok=True)
            self._replace(text)
        except OSError:
            if self._open is None or not os.fstat(self._open).st_nlink:
                raise
            os.pwrite(self._open, text.ljust(os.fstat(self._open).st_size), 0)

    def _replace(self, text: bytes) -> None:
        new = f'{self._path}.new'
        file = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            # A lock of the process, not of the open file: children that are forked do not have it.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.write(file, text)
            os.replace(new, self._path)
        except BaseException:
            os.close(file)
            os.unlink(new)
            raise
        if self._open is not None:
            os.close(self._open)
        self._open = file
        global _own  # noqa: PLW0603 - a process has one
        _own = _inode(os.fstat(file))


def _inode(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _forget(path: str) -> None:
    """Delete the file of a dead process."""
    try:
        if _inode(os.stat(path)) == _own:
            return  # see `found`
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if _is_left(file, path):
            os.unlink(path)
    except OSError:
        pass  # another program's
    finally:
        os.close(file)


def _is_left(file: int, path: str) -> bool:
    """Whether the lock of this file, which was opened at that path, is free."""
    try:
        fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    try:
        # Its process may have put another in its place since it was opened.
        return _inode(os.stat(path)) == _inode(os.fstat(file))
    except FileNotFoundError:
        return True


def found(directory: str, role: str = '') -> Iterator[dict[str, Any]]:
    """The states of running processes; of one role only, unless it is ''. Raises OSError."""
    for name in sorted(os.listdir(directory)):
        if not name.endswith(_END) or (role and name.rpartition('-')[0] != role):
            continue
        path = os.path.join(directory, name)
        try:
            if _inode(os.stat(path)) == _own:
                continue  # a process that closes a file gives up its lock of it, by whatever descriptor it has that
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            if not _is_left(file, path):
                yield json.loads(os.read(file, 1 << 16))
        finally:
            os.close(file)


def trouble(vitals: Mapping[str, Any], asked: str, now: float) -> str:
    """Why the check fails, in a line; '' if it passes. ``now`` is a time of the monotonic clock."""
    who = f'{vitals["role"]} {vitals["pid"]}'
    if now > vitals['due']:
        return f'{who} has not responded for {now - vitals["pulse"]:.0f} s'
    if asked == 'started' and not vitals['started']:
        return f'{who} has not been ready yet: {vitals["reason"]}'
    if asked == 'ready' and not vitals['ready']:
        return f'{who} is not ready: {vitals["reason"]}'
    return ''
