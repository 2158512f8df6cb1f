"""The store of firings for beat: the ledger, or a file on this machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ecommerce_worker import extras, logs
from ecommerce_worker.ledger import database
from ecommerce_worker.schedule.claims import CLAIM_SECONDS, Firings
from ecommerce_worker.schedule.file_store import FileFirings

if TYPE_CHECKING:
    from ecommerce_worker.settings import Settings

logger = logs.of(__name__)


def firings_of(settings: Settings, tell: Callable[[str], object] = lambda reason: None) -> Firings:  # noqa: ARG005
    """The firings in the ledger, if there is one; in a file of this machine if there is none that can be used.

    ``tell`` is called with the reason why the ledger cannot be used.

    Raises :class:`~ecommerce_worker.ledger.setup.LedgerAway` if the database cannot be reached: beats of other
    machines may go on with it, and would fire the same; and
    :class:`~ecommerce_worker.extras.Lacking` if there is a ledger, and no Django here.
    """
    if database.is_kept(settings):
        extras.require_django()
        from ecommerce_worker.ledger import setup

        try:
            setup.open_current_ledger()
        except setup.LedgerAway:
            raise
        except setup.LedgerUnusable as error:
            tell(str(error))
        else:
            from ecommerce_worker.ledger.schedule_store import LedgerFirings

            return LedgerFirings(CLAIM_SECONDS)
    return FileFirings(settings.SCHEDULE_STATE)


def ledger_unused(reason: str) -> None:
    """Say in the log that the ledger is not used, and why."""
    logger.warning('firings are kept in a file on this machine, not in the ledger', reason=reason)
