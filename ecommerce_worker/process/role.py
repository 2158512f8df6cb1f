"""What this process is: ``worker``, ``recorder``, ``beat``, ``console``, ``intake``, or ``up``, which runs them all."""

from __future__ import annotations

_name = 'worker'  # `celery worker` says nothing of it


def name() -> str:
    """The role of this process."""
    return _name


def be(name: str) -> None:
    """Take a role; to be called before anything is logged."""
    global _name  # noqa: PLW0603 - a process has one
    _name = name
