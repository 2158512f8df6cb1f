"""Words for the contents of the ledger, for people; programs read the values of the models. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ecommerce_worker import words
from ecommerce_worker.fulfillment.names import SHORT_NAME

#: The kinds of entries in the ledger: an order that a shop fulfils, one that is enrolled from here or a line of it, a
#: mail, a scheduled job, or any other task.
ORDER, ENROLMENT, MAIL, JOB, TASK = 'order', 'enrolment', 'mail', 'job', 'task'
KINDS: Final = (ORDER, ENROLMENT, MAIL, JOB, TASK)

_MAILS: Final = ('ecommerce_worker.email.', 'ecommerce_worker.sailthru.')
_JOBS: Final = ('ecommerce_worker.schedule.', 'ecommerce_worker.resubmit.', 'ecommerce_worker.ledger.')

#: The outcomes of runs and the decisions about messages, in words.
_OUTCOMES: Final = {'accepted': 'accepted', 'done': 'done', 'skipped': 'skipped', 'retrying': 'to be retried',
                    'parked': 'parked', 'returned': 'returned to its queue', 'resent': 'resent',
                    'discarded': 'discarded'}


def kind_of(task: str) -> str:
    """The kind of an entry, by the name of its task."""
    if task.rpartition('.')[2] == SHORT_NAME:
        return ORDER
    if task.startswith('ecommerce_worker.enrolment.'):
        return ENROLMENT
    if task.startswith(_MAILS):
        return MAIL
    return JOB if task.startswith(_JOBS) else TASK


def state_of(state: str, task: str) -> str:
    """The state in a word: orders are fulfilled, everything else is done."""
    return 'done' if state == 'fulfilled' and kind_of(task) != ORDER else state


def outcome_of(outcome: str, task: str) -> str:
    """How a run ended, in words: a done order is fulfilled."""
    return 'fulfilled' if outcome == 'done' and kind_of(task) == ORDER else _OUTCOMES.get(outcome, outcome)


def counted(tasks: Iterable[str]) -> str:
    """So many orders, enrolments, mails, jobs and tasks: ``2 orders, 1 mail``."""
    kinds = [kind_of(task) for task in tasks]
    numbers = {kind: kinds.count(kind) for kind in KINDS}
    return ', '.join(words.counted(number, kind) for kind, number in numbers.items()
                     if number or kind == ORDER)
