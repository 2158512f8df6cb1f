"""The task of the default entry ``resubmit`` in ``SCHEDULE``."""

from __future__ import annotations

from os import EX_TEMPFAIL

from ecommerce_worker import logs, runtime
from ecommerce_worker.errors import Skip
from ecommerce_worker.execution.task import JOBS, Task, task
from ecommerce_worker.schedule import commands
from ecommerce_worker.schedule.entries import refuse_late

logger = logs.of(__name__)


@task(policy=lambda site: site.fulfillment_policy, lane=lambda _: JOBS,
      longest=lambda settings: settings.MANAGEMENT_COMMAND_TIMEOUT)
def resubmit_orders(self: Task, *, not_after: float | None = None) -> None:  # noqa: ARG001
    """Publish paid orders that RabbitMQ has lost.

    It is the command `resubmit` that does so: it looks into the ledger too, which no worker does.  What stands in the
    way is told and not parked, for it comes again.  ``not_after``, in epoch seconds, is when the run is not wanted
    any more.
    """
    refuse_late(not_after)
    try:
        ended, found = commands.run_ours(['resubmit'], runtime.current().settings.MANAGEMENT_COMMAND_TIMEOUT)
    except OSError as error:
        logger.error('orders cannot be resubmitted', error=type(error).__name__)
        raise Skip(f'resubmit cannot be started ({type(error).__name__})') from None
    report = found or {}
    if published := report.get('published'):
        # Each of them was lost on its way here: worth a look.
        logger.warning('resubmitted orders that were lost on their way to RabbitMQ', count=published)
    if settled := report.get('settled'):
        logger.warning('recorded complete orders whose reports had been lost', count=settled)
    troubles = report.get('troubles') or [ended.tail.rpartition('\n')[2].removeprefix('ecommerce-worker: ')]
    if ended.status == EX_TEMPFAIL:
        raise Skip(troubles[-1])
    if ended.status != 0:
        output = '\n'.join(report.get('troubles') or [ended.tail])
        logger.error('not all orders could be resubmitted', how=ended.how, output=output)
        raise Skip(f'resubmit failed: {ended.how}; it runs again by itself')
