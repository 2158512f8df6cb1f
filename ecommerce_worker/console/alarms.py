"""The findings at the top of every page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe

from ecommerce_worker.health.findings import Finding, Severity


@dataclass(frozen=True)
class Alarm:
    """A finding; ``path`` is the page with more about it, if any."""

    text: str
    remedy: SafeString
    path: str
    is_trouble: bool


def alarms(findings: Iterable[Finding], paths: Mapping[str, str]) -> Iterator[Alarm]:
    """The alarms for these findings; ``paths`` are the pages by subject."""
    for it in findings:
        yield Alarm(it.sentence, _with_code(it.remedy), paths.get(it.subject, ''), it.severity is Severity.TROUBLE)


def _with_code(text: str) -> SafeString:
    """The text as HTML, with what is in backticks as ``<code>``."""
    parts = (f'<code>{escape(part)}</code>' if number % 2 else escape(part)
             for number, part in enumerate(text.split('`')))
    return mark_safe(''.join(parts))  # noqa: S308  # each part is escaped
