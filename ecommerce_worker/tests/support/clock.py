"""A clock for what must not depend on the real one."""

from dataclasses import dataclass


@dataclass
class Clock:
    """Seconds that pass when a test says so."""

    now: float = 1000.0

    def __call__(self) -> float:
        """The time."""
        return self.now
