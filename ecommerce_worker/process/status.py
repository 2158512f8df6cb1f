"""What this process ends with, for who cuts its end short: a status that it gave itself is lost with the thread it ends
in.
"""

from __future__ import annotations

import os
from typing import NoReturn

_status = 0


def ends_with(status: int) -> None:
    """Note the exit status; the first one counts that is not 0."""
    global _status  # noqa: PLW0603 - a process has one
    _status = _status or status


def leave() -> NoReturn:
    """End here and now, with that status, whatever runs."""
    os._exit(_status)
