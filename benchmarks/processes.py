"""The environment of our programs, and what processes have used, as Linux has it in /proc."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def environment(module: str = 'local', **settings: object) -> dict[str, str]:
    """That of a program of ours, with these settings, and none that are in force here."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith('ECOMMERCE_WORKER')}
    return {**kept, 'WORKER_CONFIGURATION_MODULE': f'ecommerce_worker.configuration.{module}',
            **{f'ECOMMERCE_WORKER_{name}': str(value) for name, value in settings.items()}}


def processes(pid: int) -> list[int]:
    """The process and its descendants (children of a prefork pool)."""
    with suppress(OSError):
        children = Path(f'/proc/{pid}/task/{pid}/children').read_text().split()
        return [pid, *(found for child in children for found in processes(int(child)))]
    return []


def cpu_seconds(pid: int) -> float:
    """User and system time that the process and its descendants have used, those that have ended included."""
    ticks = 0
    for each in processes(pid):
        with suppress(OSError):
            fields = Path(f'/proc/{each}/stat').read_text().rpartition(')')[2].split()
            # utime, stime and, of children that were waited for, cutime and cstime.
            ticks += sum(int(field) for field in fields[11:15])
    return ticks / os.sysconf('SC_CLK_TCK')


def resident_megabytes(pid: int) -> float:
    """Memory in use; a page that processes share is divided among them."""
    return sum(_proportional(each) for each in processes(pid)) / 1024


def _proportional(pid: int) -> int:
    for name, field in (('smaps_rollup', 'Pss:'), ('status', 'VmRSS:')):
        for line in _lines(Path(f'/proc/{pid}/{name}')):
            if line.startswith(field):
                return int(line.split()[1])
    return 0


def _lines(path: Path) -> Iterator[str]:
    with suppress(OSError):
        yield from path.read_text().splitlines()
