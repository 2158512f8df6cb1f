"""What this process ends with, for who cuts its end short: a status that it gave itself is lost with the thread it ends
in.
"""

from __future__ import annotations

import os
from typing import NoReturn

_status = 0


def ends_with(status: int) -> None:
    """Set the exit status; the first one that is not 0 counts."""
    global _status  # noqa: PLW0603 - a process has one
    _status = _status or status


def leave() -> NoReturn:
    """Exit immediately with that status."""
    os._exit(_status)
