"""The task of the default entry ``resubmit`` in ``SCHEDULE``."""

from __future__ import annotations

from os import EX_TEMPFAIL
from typing import Any, Final

from ecommerce_worker import logs, runtime
from ecommerce_worker.errors import Skip
from ecommerce_worker.execution.task import JOBS, Task, task
from ecommerce_worker.schedule import commands
from ecommerce_worker.schedule.entries import refuse_late

logger = logs.of(__name__)

#: What is logged of a command that cannot be started, and of one that fails.
_NOT_STARTED: Final = {'resubmit': 'orders cannot be resubmitted', 'reconcile': 'orders cannot be reconciled'}
_NOT_ALL: Final = {'resubmit': 'not all orders could be resubmitted',
                   'reconcile': 'not all orders could be reconciled'}


@task(policy=lambda site: site.fulfillment_policy, lane=lambda _: JOBS,
      longest=lambda settings: settings.MANAGEMENT_COMMAND_TIMEOUT)
def resubmit_orders(self: Task, *, not_after: float | None = None) -> None:  # noqa: ARG001
    """Publish paid orders that RabbitMQ has lost.

    The command `resubmit` does so, since it looks into the ledger too, which no worker does.  Obstacles are logged,
    and the message is not parked, since the next one follows soon.  After ``not_after``, in epoch seconds, the run is
    skipped.
    """
    refuse_late(not_after)
    ended, report = _ran('resubmit')
    if published := report.get('published'):
        # Each of them was lost on its way here: worth a look.
        logger.warning('resubmitted orders that were lost on their way to RabbitMQ', count=published)
    if settled := report.get('settled'):
        logger.warning('recorded complete orders whose reports had been lost', count=settled)
    _end('resubmit', ended, report)


@task(policy=lambda site: site.fulfillment_policy, lane=lambda _: JOBS,
      longest=lambda settings: settings.MANAGEMENT_COMMAND_TIMEOUT)
def reconcile_orders(self: Task, *, repair: bool = False, not_after: float | None = None) -> None:  # noqa: ARG001
    """Publish the orders of shops whose deliveries never came, as the command `reconcile` does.

    ``repair`` has webhooks switched on again that a shop has switched off; see :func:`resubmit_orders` for the rest.
    """
    refuse_late(not_after)
    ended, report = _ran('reconcile', *(['--repair'] if repair else []))
    if published := report.get('published'):
        logger.warning('published orders whose webhooks were never delivered', count=published)
    _end('reconcile', ended, report)


def _ran(command: str, *options: str) -> tuple[commands.Ended, dict[str, Any]]:
    """How a command of ours ended, and its report; raises ``Skip`` if it cannot be started."""
    try:
        ended, report = commands.run_ours([command, *options], runtime.current().settings.MANAGEMENT_COMMAND_TIMEOUT)
    except OSError as error:
        logger.error(_NOT_STARTED[command], error=type(error).__name__)
        raise Skip(f'{command} cannot be started ({type(error).__name__})') from None
    return ended, report or {}


def _end(command: str, ended: commands.Ended, report: dict[str, Any]) -> None:
    """Tell what stood in its way; raises ``Skip`` for anything but success."""
    troubles = report.get('troubles') or [ended.tail.rpartition('\n')[2].removeprefix('ecommerce-worker: ')]
    if ended.status == EX_TEMPFAIL:
        raise Skip(troubles[-1])
    if ended.status != 0:
        output = '\n'.join(report.get('troubles') or [ended.tail])
        logger.error(_NOT_ALL[command], how=ended.how, output=output)
        raise Skip(f'{command} failed: {ended.how}; it will run again as scheduled')
