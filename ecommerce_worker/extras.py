"""Optional dependencies, and the extras that install them."""

from __future__ import annotations

from importlib.util import find_spec

from ecommerce_worker.errors import WorkerError


class Lacking(WorkerError):
    """A ledger is kept, but what is needed to read it is not installed."""


def is_installed(module: str) -> bool:
    """Whether a module can be imported."""
    try:
        return find_spec(module) is not None
    except ValueError:  # in sys.modules, but nothing that was imported
        return False


def install(extra: str) -> str:
    """The command that installs it."""
    return f"pip install 'edx-ecommerce-worker[{extra}]'"


def require_django() -> None:
    """Raise :class:`Lacking` where only the wheel is installed; a ledger may be kept elsewhere."""
    if not is_installed('django'):
        raise Lacking(f'reading the ledger needs Django, which is not installed here: {install("ledger")}')
