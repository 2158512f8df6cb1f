"""Reports as rows of the ledger, and back: the fields that have a column are kept."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any, Final

from ecommerce_worker.ledger.models import Attempt, Order
from ecommerce_worker.telemetry.run import TIMES, RunReport

#: The column of each field that is kept, by the field's name.  An order has task, key and site.
COLUMNS: Final[Mapping[str, str]] = {
    name: column for name, column in ((it.name, {'id': 'message_id'}.get(it.name, it.name)) for it in fields(RunReport))
    if column in {it.name for it in Attempt._meta.concrete_fields}}  # noqa: SLF001 - documented by Django


def written(report: RunReport, order: Order) -> Attempt:
    """The row of a report."""
    return Attempt(order=order, **{column: _value(name, getattr(report, name)) for name, column in COLUMNS.items()})


def read(row: Attempt) -> RunReport:
    """The report of a row."""
    return RunReport(**{name: _plain(getattr(row, column)) for name, column in COLUMNS.items()})


def _value(name: str, value: Any) -> Any:
    if name == 'fact':
        return uuid.UUID(value)
    return datetime.fromtimestamp(value, UTC) if name in TIMES and value is not None else value


def _plain(value: Any) -> Any:
    if isinstance(value, uuid.UUID):
        return value.hex
    return value.timestamp() if isinstance(value, datetime) else value
