"""The task that runs management commands."""

from __future__ import annotations

import hashlib
import shlex
from typing import Any

from ecommerce_worker import logs, runtime
from ecommerce_worker.errors import Skip, WrongArguments
from ecommerce_worker.execution.task import JOBS, Task, task
from ecommerce_worker.locks.broker import turn
from ecommerce_worker.schedule import commands
from ecommerce_worker.schedule.entries import refuse_late

logger = logs.of(__name__)


class CommandFailed(WrongArguments):
    """A command that was requested once has failed and is not repeated: see the log, then resend it."""


@task(policy=lambda site: site.fulfillment_policy, key='name', lane=lambda _: JOBS,
      longest=lambda settings: settings.MANAGEMENT_COMMAND_TIMEOUT)
def run_management_command(self: Task, name: str = '', *args: str | float, not_after: float | None = None,
                           **options: Any) -> None:
    """Run a command of the Django project, one of ``MANAGEMENT_COMMANDS``, with ``--option=value`` for each option.

    ``not_after``, in epoch seconds, is for jobs that come again, such as those of beat: it is left
    out when it is late, and a failure is logged and not parked.  A command without it is parked if it fails.
    """
    settings = runtime.current().settings
    words = commands.arguments(name, args, options, settings.MANAGEMENT_COMMANDS)
    refuse_late(not_after)
    # The same command with other arguments is another job.
    job = f'{name[:60]}.{hashlib.sha256(shlex.join(words).encode()).hexdigest()[:12]}'
    with turn(self.app, job, not_after) as meanwhile:
        ended = commands.run(words, settings, meanwhile)
    if ended.status == 0:
        logger.debug('a command ended', command=name, seconds=ended.seconds, output=ended.tail)
        return
    logger.error('a command failed', command=name, seconds=ended.seconds, how=ended.how, output=ended.tail)
    if not_after is None:
        raise CommandFailed(f'{name} failed: {ended.how}; the end of its output is in the log')
    raise Skip(f'{name} failed: {ended.how}; it will run again as scheduled')
