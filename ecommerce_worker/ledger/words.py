"""What things in the ledger are called, wherever people read them; programs read the values of the models.  Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

#: What a row of the ledger's orders may be: the order of a customer, a mail, or something that the worker does by the
#: clock.
ORDER, MAIL, JOB = 'order', 'mail', 'job'

_MAILS: Final = ('ecommerce_worker.email.', 'ecommerce_worker.sailthru.')

#: What becomes of a run, and of a message after it.
_OUTCOMES: Final = {'accepted': 'accepted', 'done': 'done', 'skipped': 'left alone', 'retrying': 'to be tried again',
                    'parked': 'parked', 'returned': 'given back to its queue', 'resent': 'sent again',
                    'discarded': 'thrown away'}


def kind_of(task: str) -> str:
    """Which of the three it is, by the name of its task."""
    if task.rpartition('.')[2] == 'fulfill_order':
        return ORDER
    return MAIL if task.startswith(_MAILS) else JOB


def state_of(state: str, task: str) -> str:
    """The state in a word: orders are fulfilled, everything else is done."""
    return 'done' if state == 'fulfilled' and kind_of(task) != ORDER else state


def outcome_of(outcome: str, task: str) -> str:
    """How a run ended, in words: an order is fulfilled by it, or left alone since it was complete."""
    return 'fulfilled' if outcome == 'done' and kind_of(task) == ORDER else _OUTCOMES.get(outcome, outcome)


def counted(tasks: Iterable[str]) -> str:
    """So many orders, mails and jobs: ``2 orders, 1 mail``."""
    kinds = [kind_of(task) for task in tasks]
    numbers = {kind: kinds.count(kind) for kind in (ORDER, MAIL, JOB)}
    return ', '.join(f'{number} {kind}{"" if number == 1 else "s"}' for kind, number in numbers.items()
                     if number or kind == ORDER)
