"""What a person chose and wrote and was not done: kept with the session, and shown again on the page that it was for.

Through a mistake, a shop that said no, the end of a login, and however often the page is loaded; until it is done.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from ecommerce_worker.console import queries

#: Where it is in the session.
_KEY: Final = 'draft'


@dataclass(frozen=True)
class Draft:
    """Messages that were chosen, why, and whether they were to be thrown away for good."""

    messages: Collection[int] = ()
    reason: str = ''
    sure: bool = False


def given(request: Any) -> Draft:
    """What the form holds that was sent."""
    return Draft(numbers(request, 'message'), queries.clean(request.POST.get('reason', '')),
                 bool(request.POST.get('sure')))


def numbers(request: Any, name: str) -> list[int]:
    """The numbers of messages in a field of the form."""
    return [int(each) for each in request.POST.getlist(name)[:queries.PAGE]
            if each.isascii() and each.isdigit() and len(each) < 19]


def keep(request: Any, draft: Draft, page: str) -> None:
    """Have it shown again on that page."""
    request.session[_KEY] = {'page': page, **vars(draft)}


def drop(request: Any) -> None:
    """It is done."""
    request.session.pop(_KEY, None)


def of(request: Any) -> Draft:
    """What is kept for the page that is asked for."""
    found = request.session.get(_KEY)
    if not found or found['page'] != request.get_full_path():
        return Draft()
    return Draft(found['messages'], found['reason'], found['sure'])
