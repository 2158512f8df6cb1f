"""The role of this process: its command, such as ``worker`` or ``recorder``."""

from __future__ import annotations

_name = 'worker'  # `celery worker` says nothing of it


def name() -> str:
    """The role of this process."""
    return _name


def be(name: str) -> None:
    """Take a role; to be called before the configuration is read and anything is logged."""
    global _name  # noqa: PLW0603 - a process has one
    _name = name
