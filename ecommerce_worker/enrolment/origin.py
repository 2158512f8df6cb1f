"""The shop that an order came from: the order's state there, and reports to the shop."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ecommerce_worker import logs
from ecommerce_worker.errors import Misconfigured, Rejected, Transient, Unauthorized, Undecodable, WrongArguments

if TYPE_CHECKING:
    from ecommerce_worker.intake.source import Asked, Source, Untold
    from ecommerce_worker.site import Site

logger = logs.of(__name__)


@dataclass(frozen=True)
class Origin:
    """Where an order came from: the intake, what the API of its shop knows it by, and the line of it that is meant.

    ``placed`` is when it was placed or paid for, in epoch seconds; None if unknown.
    """

    intake: str
    order: str
    line: str = ''
    placed: int | None = None

    @classmethod
    def read(cls, given: Any) -> Origin | None:
        """The origin that a message carries, if any; raises :class:`~ecommerce_worker.errors.WrongArguments`."""
        if given is None:
            return None
        found = given if isinstance(given, Mapping) else {}
        intake, order, line = found.get('intake'), found.get('order'), found.get('line', '')
        if not (isinstance(intake, str) and intake and isinstance(order, str) and order and isinstance(line, str)):
            raise WrongArguments('shop is not one that orders can come from')
        placed = found.get('placed')
        return cls(intake, order, line, placed if isinstance(placed, int) and not isinstance(placed, bool) else None)

    def message(self) -> dict[str, str | int]:
        """As a message carries it."""
        return {name: value for name, value in vars(self).items() if value}

    def of_line(self, line: str) -> Origin:
        """The same, of a line of the order."""
        return replace(self, line=line)

    def is_paid(self, site: Site) -> bool | None:
        """Whether the line is paid for at this moment; None where the shop does not tell, or we have no key to it.

        Raises :class:`~ecommerce_worker.errors.Transient` while it cannot be asked, and ``Misconfigured``.
        """
        source = self._source(site)
        if source is None:
            return None
        try:
            try:
                return self._is_paid(site, source)
            except Unauthorized as error:
                if error.status != 401:
                    raise
                # Somebody may have changed the key, which is a file.
                site.forget(self._name_of_shop)
                return self._is_paid(site, source)
        except Transient as error:
            error.maybe_done = False  # it was only asked
            raise
        except (Rejected, Undecodable, ValueError) as error:
            # A key that may not read orders is as good as none.
            logger.warning('a shop does not report whether an order is still paid for', intake=self.intake,
                           error=str(error))
            return None

    def reports(self, site: Site) -> bool:
        """Whether done orders are reported to its shop; raises ``Misconfigured``."""
        source = self._source(site)
        return bool(source and source.options.get('report_back'))

    def untold(self, site: Site, lines: Collection[str], *, whole: bool) -> Untold | None:
        """What to report to the shop when these lines are done; None for nothing; see ``Source.untold``.

        Raises ``ApiError``, and ``Misconfigured`` if there is no key to it.
        """
        source = self._source(site)
        if source is None or not source.options.get('report_back'):
            return None
        try:
            shop = self._shop(site, source)
        except ValueError as error:
            raise Misconfigured([f'INTAKES[{self.intake}]: the API key of the shop {error}']) from None
        if shop is None:
            raise Misconfigured([f'INTAKES[{self.intake}] has no API key of the shop'])
        try:
            return source.untold(shop, self.order, lines, whole=whole)
        except Unauthorized:
            site.forget(self._name_of_shop)  # for the next try
            raise

    def _source(self, site: Site) -> Source | None:
        """The source of the intake; None if it no longer exists."""
        from ecommerce_worker.intake import intakes  # which shops, that import the tasks, need not have

        return site.kept(f'intake {self.intake}', lambda: intakes.source_of(site.settings, self.intake))

    def _is_paid(self, site: Site, source: Source) -> bool | None:
        shop = self._shop(site, source)
        return source.is_paid(shop, self.order, self.line) if shop else None

    @property
    def _name_of_shop(self) -> str:
        return f'shop of {self.intake}'

    def _shop(self, site: Site, source: Source) -> Asked | None:
        """The API of its shop, made once, of which nothing is asked yet; raises ValueError for a key in no file."""
        return site.kept(self._name_of_shop, lambda: source.shop(site.connect))
