"""What is wrong and must be seen: at the top of every page, whichever it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ecommerce_worker.console.broker import Standing
from ecommerce_worker.console.schedule import Schedule
from ecommerce_worker.console.text import span
from ecommerce_worker.ledger.queries import Unknown


@dataclass(frozen=True)
class Alarm:
    """A sentence; a command that helps, and where more is to be seen, if there is such."""

    text: str
    command: str = ''
    path: str = ''


def alarms(standing: Standing, planned: Schedule, unknown: Unknown, orders: str) -> Iterator[Alarm]:
    """All of them; ``orders`` is where orders are listed that are overdue."""
    if standing.trouble:
        yield Alarm(f'RabbitMQ cannot be asked; what is shown is what the ledger knows. {standing.trouble}')
    elif not standing.workers:
        yield Alarm('No worker is alive: nothing is fulfilled until one is started.', 'ecommerce-worker worker')
    else:
        for queue in standing.without_consumers:
            yield Alarm(f'Nobody takes anything from {queue.name}.')
    if standing.recorders == 0 and not standing.trouble:
        yield Alarm('No recorder is alive: this page does not move until one is started.', 'ecommerce-worker recorder')
    if unknown.overdue:
        number = unknown.overdue
        yield Alarm(f'Nothing was heard of {number} order{"" if number == 1 else "s"} when it was time.',
                    'ecommerce-worker resubmit', orders)
    if planned.is_missed:
        last = f'the last sign of life was {span(planned.silent)} ago' if planned.silent else 'there has never been one'
        yield Alarm(f'No beat is alive: {last}. No job but those of the recorder is run until one is started, and '
                    'orders that were lost on their way to RabbitMQ are not resubmitted.', 'ecommerce-worker beat')
    for problem in planned.problems:
        yield Alarm(f'With these settings no beat can start: {problem}')
    if planned.overdue:
        yield Alarm(f'Overdue, and done by nobody: {", ".join(job.name for job in planned.overdue)}.')
    if planned.is_alive and planned.unknown:
        yield Alarm(f'No beat knows {", ".join(job.name for job in planned.unknown)}: start all beats anew after a '
                    'change of SCHEDULE.')
