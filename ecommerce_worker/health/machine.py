"""Checks of this machine: disk space, permissions of our files, and the time that systemd gives workers to stop."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ecommerce_worker.errors import Misconfigured
from ecommerce_worker.health.findings import Finding, Severity
from ecommerce_worker.ledger import database
from ecommerce_worker.settings import environment_for_others, in_home, yaml_path

if TYPE_CHECKING:
    from ecommerce_worker.settings import Settings

WARNING, TROUBLE = Severity.WARNING, Severity.TROUBLE

#: Bytes that are free, below which a disk is about to be full, and below which it is as good as full.
LITTLE: Final = 512 * 1024 ** 2
NOTHING: Final = 32 * 1024 ** 2

#: Seconds that a supervisor has to give beyond SHUTDOWN_SECONDS.
GRACE: Final = 5.0


def findings(settings: Settings) -> Iterator[Finding]:
    """What is not well about files and disks; costs some calls of the system."""
    yield from _disks(settings)
    yield from _permissions(settings)


def files(settings: Settings) -> dict[str, Path]:
    """Where what we write is, by the setting that names it; only what is in use, and may be seen by this user."""
    found: dict[str, Path] = {}
    try:
        if (path := database.path_of(settings.DATABASES['default'])) and _seen(path):
            found['DATABASES'] = path
        if any(intake.get('spool') for intake in settings.INTAKES.values()):
            found['INTAKE_SPOOL'] = in_home(settings.INTAKE_SPOOL, 'INTAKE_SPOOL')
        if _seen(path := in_home(settings.SCHEDULE_STATE, 'SCHEDULE_STATE')):
            found['SCHEDULE_STATE'] = path
    except Misconfigured:
        pass  # in no home directory there is none of them
    return found


def _seen(path: Path) -> os.stat_result | None:
    """The status of a path; None if it does not exist, or this user may not see it."""
    try:
        return path.stat()
    except OSError:
        return None


def _disks(settings: Settings) -> Iterator[Finding]:
    for setting, path in files(settings).items():
        place = path if (seen := _seen(path)) and stat.S_ISDIR(seen.st_mode) else path.parent
        if not _seen(place):
            continue
        free = shutil.disk_usage(place).free
        if free < LITTLE:
            yield Finding('disk', TROUBLE if free < NOTHING else WARNING,
                          f'The disk of {setting} ({place}) has {free // 1024 ** 2} MiB left.',
                          'Free some disk space.')
        if not os.access(place, os.W_OK):
            yield Finding('files', TROUBLE, f'{setting}: this user cannot write to {place}.',
                          'Make it writable for the user of recorder, beat and intake, or run this as that user.')


def _permissions(settings: Settings) -> Iterator[Finding]:
    for what, path in (('the configuration, which may hold secrets', yaml_path()),
                       ('the ledger, which may hold what customers wrote', files(settings).get('DATABASES'))):
        if path and (seen := _seen(path)) and seen.st_mode & (stat.S_IROTH | stat.S_IWOTH):
            yield Finding('files', WARNING, f'Every user on this machine can read {path}: {what}.',
                          f'`chmod o-rwx {path}`')


def stop_times() -> dict[str, float | None]:
    """The units of systemd that run workers of ours here, and the seconds that each gives them to end.

    None where systemd does not tell, or waits for ever.
    """
    units = {unit for pid in _workers() if (unit := _unit_of(pid))}
    return {unit: _stop_time_of(unit) for unit in sorted(units)}


def too_short(settings: Settings, times: dict[str, float | None]) -> Iterator[Finding]:
    """The units that kill a worker before it has ended in good order."""
    for unit, seconds in times.items():
        if seconds is not None and seconds < settings.SHUTDOWN_SECONDS + GRACE:
            yield Finding('supervisor', WARNING, f'systemd kills {unit} after {seconds:g} s of stopping, but '
                          f'SHUTDOWN_SECONDS is {settings.SHUTDOWN_SECONDS:g}.',
                          f'Set TimeoutStopSec={settings.SHUTDOWN_SECONDS + GRACE:g} or more; otherwise unfinished '
                          'messages are delivered again at each restart.')


def _workers() -> Iterator[int]:
    for place in Path('/proc').glob('[0-9]*'):
        try:
            words = (place / 'cmdline').read_bytes().split(b'\0')
        except OSError:
            continue
        if b'worker' in words and any(b'ecommerce' in word for word in words):
            yield int(place.name)


def _unit_of(pid: int) -> str:
    try:
        return unit_in(Path(f'/proc/{pid}/cgroup').read_text(encoding='utf-8'))
    except OSError:
        return ''


def unit_in(cgroup: str) -> str:
    """The system's service that a control group belongs to; '' for a user's terminal, service or container."""
    parts = cgroup.strip().split('/')
    unit = next((part for part in reversed(parts) if part.endswith(('.service', '.scope'))), '')
    return unit if unit.endswith('.service') and not any(part.startswith('user@') for part in parts) else ''


def _stop_time_of(unit: str) -> float | None:
    try:
        done = subprocess.run(  # noqa: S603 - the name of a unit, and no option
            ['systemctl', 'show', '--property=TimeoutStopUSec', '--value', '--', unit],  # noqa: S607
            env=environment_for_others(), capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return seconds_in(done.stdout)


def seconds_in(text: str) -> float | None:
    """The seconds of a duration as systemd writes it, such as ``1min 30s``; None for ``infinity``."""
    units = {'us': 1e-6, 'ms': 1e-3, 's': 1.0, 'min': 60.0, 'h': 3600.0, 'd': 86_400.0, 'day': 86_400.0}
    total, known = 0.0, False
    for word in text.split():
        number = word.rstrip('abcdefghijklmnopqrstuvwxyz')
        unit = word[len(number):]
        try:
            total += float(number) * units[unit]
        except (ValueError, KeyError):
            return None
        known = True
    return total if known else None
