"""The support bundle: one file with what a helper needs, without secrets or personal data."""

from __future__ import annotations

import json
import os
import platform
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecommerce_worker import __version__
from ecommerce_worker.email.message import without_addresses
from ecommerce_worker.errors import WorkerError

if TYPE_CHECKING:
    from ecommerce_worker.operations.parked import InQueue
    from ecommerce_worker.settings import Settings


class NotWritten(WorkerError):
    """The file cannot be written, or exists already."""


def write(path: Path, doctor: Mapping[str, Any], settings: Settings | None, status: Mapping[str, Any] | None,
          parked: Iterable[InQueue]) -> None:
    """Write it, readable by this user only; raises :class:`NotWritten`.

    It holds no message, no order number and no address: of what is parked, how many there are for each reason.
    """
    parts: dict[str, Any] = {
        'doctor.json': doctor, 'versions.json': _versions(), 'status.json': status,
        'settings.json': [{'name': name, 'from': source, 'value': value} for name, value, source in settings.rows()]
        if settings else None,
        'parked.json': [{'task': task, 'reason': reason, 'messages': number} for (task, reason), number in Counter(
            (it.short_task, _reason(it)) for it in parked).most_common()]}
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), 'wb') as file, \
                zipfile.ZipFile(file, 'w', zipfile.ZIP_DEFLATED) as bundle:
            for name, value in parts.items():
                if value is not None:
                    bundle.writestr(name, json.dumps(value, indent=2, default=str))
    except FileExistsError:
        raise NotWritten(f'{path} already exists') from None
    except OSError as error:
        with suppress(OSError):
            path.unlink()  # an incomplete archive is useless
        raise NotWritten(f'{path} cannot be written: {error.strerror}') from None


def _reason(parked: InQueue) -> str:
    """Why it is parked, in which a shop or a vendor may have named the order and people."""
    return without_addresses(parked.reason.replace(parked.key, '<order>') if parked.key else parked.reason)


def _versions() -> dict[str, Any]:
    return {'ecommerce-worker': __version__, 'python': platform.python_version(), 'system': platform.platform(),
            'packages': dict(sorted((it.name, it.version) for it in distributions() if it.name))}
