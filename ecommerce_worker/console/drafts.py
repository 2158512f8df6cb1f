"""A form that was not carried out, kept in the session and shown again on its page until it is.

It survives a mistake, a refusal by the shop, an expired login, and a reload.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from ecommerce_worker.console import queries

#: Its key in the session.
_KEY: Final = 'draft'


@dataclass(frozen=True)
class Draft:
    """The selected messages, the reason given, and whether discarding was confirmed."""

    messages: Collection[int] = ()
    reason: str = ''
    sure: bool = False


def given(request: Any) -> Draft:
    """The draft in the posted form."""
    return Draft(numbers(request, 'message'), queries.clean(request.POST.get('reason', '')),
                 bool(request.POST.get('sure')))


def numbers(request: Any, name: str) -> list[int]:
    """The message numbers in a field of the posted form."""
    return [int(each) for each in request.POST.getlist(name)[:queries.PAGE]
            if each.isascii() and each.isdigit() and len(each) < 19]


def keep(request: Any, draft: Draft, page: str) -> None:
    """Keep the draft, to be shown again on ``page``."""
    request.session[_KEY] = {'page': page, **vars(draft)}


def drop(request: Any) -> None:
    """Forget the draft: it was carried out."""
    request.session.pop(_KEY, None)


def of(request: Any) -> Draft:
    """The draft kept for the requested page."""
    found = request.session.get(_KEY)
    if not found or found['page'] != request.get_full_path():
        return Draft()
    return Draft(found['messages'], found['reason'], found['sure'])
