"""The report of resubmitting: the result for each order, and problems."""

from __future__ import annotations

from dataclasses import dataclass, field
from os import EX_TEMPFAIL
from typing import Any, Final

from ecommerce_worker.errors import ApiError, NotFound, Transient, Unauthorized
from ecommerce_worker.resubmit.names import Found


@dataclass(frozen=True)
class Row:
    """The result for one order."""

    found: Found
    result: str
    published: bool = False

    @property
    def cells(self) -> tuple[str, ...]:
        """The cells of the row; see :data:`HEAD`."""
        found = self.found
        placed = f'{found.placed:%Y-%m-%d %H:%M}' if found.placed else '-'
        return found.number, found.site or '-', found.status, placed, self.result


HEAD: Final = ('ORDER', 'SITE', 'STATUS', 'PLACED (UTC)', 'RESULT')


@dataclass
class Report:
    """What became of each order, what stood in the way, and how many were published, or would have been.

    ``settled`` are orders that the ledger had as unfulfilled, and the shop as complete.
    """

    rows: list[Row] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    published: int = 0
    settled: int = 0
    #: The number of temporary troubles: a service that does not answer now.
    passing: int = 0

    @property
    def status(self) -> int:
        """The exit status: 75 if nothing is wrong that does not pass."""
        if not self.troubles:
            return 0
        return EX_TEMPFAIL if self.passing == len(self.troubles) else 1

    def as_json(self) -> dict[str, Any]:
        """The JSON; see the reference of commands."""
        return {
            'orders': [{'order': row.found.number, 'site': row.found.site, 'status': row.found.status,
                        'placed': row.found.placed, 'result': row.result, 'published': row.published}
                       for row in self.rows],
            'published': self.published, 'settled': self.settled, 'troubles': self.troubles}

    def blame(self, place: str, error: ApiError) -> None:
        """Add an error to the troubles."""
        self.troubles.append(f'{place}: {advised(error)}')
        self.passing += isinstance(error, Transient)


def advised(error: ApiError) -> str:
    """The error, and what may be wrong with the configuration if it is one of access."""
    if isinstance(error, Unauthorized):
        return f'{error}: are the credentials right (AUTHENTICATION), and is their user staff there?'
    if isinstance(error, NotFound):
        return f'{error}: is ECOMMERCE_API_ROOT right?'
    return str(error)
