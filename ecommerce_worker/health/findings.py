"""What is not well, as values that ``status``, the console and programs show alike."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How bad a finding is."""

    #: To be looked at, today or tomorrow; orders are fulfilled all the same.
    WARNING = 'warning'
    #: Orders, mails or jobs are not done, or nobody knows whether they are.
    TROUBLE = 'trouble'


@dataclass(frozen=True)
class Finding:
    """A sentence about what is not well, and what to do about it; commands and names are in backticks.

    ``subject`` is one of ``broker``, ``queues``, ``workers``, ``messages``, ``parked``, ``recorder``, ``ledger``,
    ``orders``, ``reports``, ``beat`` and ``schedule``.
    """

    subject: str
    severity: Severity
    sentence: str
    remedy: str = ''

    @property
    def text(self) -> str:
        """Both, on one line."""
        return f'{self.sentence} {self.remedy}'.strip()
