"""What the doctor says of one thing that was tried."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from ecommerce_worker.health.findings import Finding, Severity


class State(StrEnum):
    """How it is."""

    WELL = 'well'
    #: It could not be looked at from here, which says nothing about it.
    UNKNOWN = 'unknown'
    WARNING = 'warning'
    BAD = 'bad'


@dataclass(frozen=True)
class Line:
    """A subject (a word, as in findings), how it is, what was seen, and what to do about it."""

    subject: str
    state: State
    sentence: str
    remedy: str = ''


_STATES: Final = {Severity.WARNING: State.WARNING, Severity.TROUBLE: State.BAD}

#: The exit status for the worst of all lines.
STATUS: Final = {State.WELL: 0, State.UNKNOWN: 0, State.WARNING: 1, State.BAD: 2}


def of(finding: Finding) -> Line:
    """A finding as a line."""
    return Line(finding.subject, _STATES[finding.severity], finding.sentence, finding.remedy)


def well(subject: str, sentence: str) -> Line:
    """It is as it should be."""
    return Line(subject, State.WELL, sentence)


def unknown(subject: str, sentence: str, remedy: str = '') -> Line:
    """It could not be looked at."""
    return Line(subject, State.UNKNOWN, sentence, remedy)


def warning(subject: str, sentence: str, remedy: str = '') -> Line:
    """To be looked at; orders are fulfilled all the same."""
    return Line(subject, State.WARNING, sentence, remedy)


def bad(subject: str, sentence: str, remedy: str = '') -> Line:
    """Orders are not fulfilled, or may be lost."""
    return Line(subject, State.BAD, sentence, remedy)
