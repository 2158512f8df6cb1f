"""Findings: problems as values, which ``status``, the console and JSON show alike."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """The severity of a finding."""

    #: Worth a look within a day or two; orders are still fulfilled.
    WARNING = 'warning'
    #: Orders, mails or jobs are not done, or it is unknown whether they are.
    TROUBLE = 'trouble'


@dataclass(frozen=True)
class Finding:
    """A problem in one sentence, and what to do about it; commands and names are in backticks.

    ``subject`` is one of ``broker``, ``queues``, ``workers``, ``messages``, ``parked``, ``spool``, ``recorder``,
    ``ledger``, ``orders``, ``reports``, ``intakes``, ``beat`` and ``schedule``; of a machine, ``disk``, ``files`` and
    ``supervisor``.
    """

    subject: str
    severity: Severity
    sentence: str
    remedy: str = ''

    @property
    def text(self) -> str:
        """Sentence and remedy on one line."""
        return f'{self.sentence} {self.remedy}'.strip()
