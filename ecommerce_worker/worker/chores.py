"""What the worker does for itself, by the clock: tasks of the entries of ``SCHEDULE`` that come with it."""

from __future__ import annotations

import logging

from ecommerce_worker.errors import Skip
from ecommerce_worker.observe import quoted
from ecommerce_worker.schedule.entries import refuse_late
from ecommerce_worker.task import Task, task
from ecommerce_worker.worker.preflight import BrokerUnusable
from ecommerce_worker.worker.resubmit import NotNow, Wanted, resubmit

logger = logging.getLogger(__name__)


@task(policy=lambda site: site.fulfillment_policy)
def resubmit_orders(self: Task, *, not_after: float | None = None) -> None:
    """Publish the orders that the shops have as paid and unfulfilled, and of which nothing is here.

    What stands in the way is told and not parked, for it comes again.  ``not_after``, in epoch seconds, is when the
    run is not wanted any more.
    """
    refuse_late(not_after)
    try:
        report = resubmit(self.app, Wanted())
    except NotNow as error:
        raise Skip(str(error)) from None
    except BrokerUnusable as error:
        logger.error('orders cannot be resubmitted: error=%s', quoted(str(error)))
        raise Skip(str(error)) from None
    for trouble in report.troubles:
        logger.error('orders could not all be resubmitted: error=%s', quoted(trouble))
    if report.published:
        # Each of them was lost on its way here: worth a look.
        logger.warning('orders were resubmitted of which nothing was here: count=%d', report.published)
