"""Coverage from the ledger, which has the lines of orders, each with its course and a pseudonym of its learner.

The commands ``orders covering`` and ``orders bought`` look it up, on the machine of the worker, which itself does not
use the database.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ecommerce_worker import runtime
from ecommerce_worker.enrolment.cover import LOOKUP_SECONDS, Products
from ecommerce_worker.enrolment.learner import pseudonyms
from ecommerce_worker.errors import LocalFailure, local_failure
from ecommerce_worker.schedule import commands

if TYPE_CHECKING:
    from ecommerce_worker.settings import Settings


def problem(settings: Settings) -> str:
    """What is missing for it; '' if nothing is."""
    if not settings.LEARNER_KEY:
        return 'needs LEARNER_KEY: without it the ledger does not know the learner of an order'
    return '' if settings.PUBLISH_FACTS else 'needs PUBLISH_FACTS: without them nothing is recorded in the ledger'


def covers(order_number: str, learner: str, course_id: str, site_code: str | None) -> bool:
    """Whether the ledger has another order that pays for the course, in any state, and was not refunded."""
    return bool(_asked(order_number, learner, course_id, site_code)['covered_by'])


def taken_back(order_number: str, learner: str, course_id: str, site_code: str | None) -> bool:
    """Whether the refund of this order is done in the ledger."""
    return bool(_asked(order_number, learner, course_id, site_code)['taken_back'])


def bought(order_number: str, site_code: str | None) -> Products:
    """The courses of the order's products when it came, according to its lines in the ledger."""
    found: dict[str, list[Mapping[str, str]]] = {}
    answer = _answer('what the order paid for', {'lines'}, 'bought', f'--order={order_number}',
                     f'--site={site_code or ""}')
    for line in answer['lines']:
        found.setdefault(line['product'], []).append({'course': line['course'], 'mode': line['mode']})
    return found


def _asked(order_number: str, learner: str, course_id: str, site_code: str | None) -> dict[str, Any]:
    known_by = [f'--learner={it}' for it in pseudonyms(runtime.current().settings, learner)]
    return _answer('whether another order pays for the learner', {'covered_by', 'taken_back'}, 'covering',
                   f'--order={order_number}', f'--course={course_id}', f'--site={site_code or ""}', *known_by)


def _answer(question: str, members: set[str], command: str, *options: str) -> dict[str, Any]:
    """What a command of ``orders`` prints; raises :class:`~ecommerce_worker.errors.LocalFailure`."""
    try:
        ended, found = commands.run_ours(['orders', command, *options], LOOKUP_SECONDS)
    except OSError as error:
        raise LocalFailure(str(local_failure(error))) from None  # nothing was done
    if ended.status == 0 and isinstance(found, dict) and found.keys() >= members:
        return found
    said = ended.tail.rpartition('\n')[2].removeprefix('ecommerce-worker: ') or ended.how
    raise LocalFailure(f'the ledger cannot tell {question}: {said}')
