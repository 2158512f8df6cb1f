"""Names of older workers that third-party packages may import."""

from __future__ import annotations

import string

from ecommerce_worker import runtime
from ecommerce_worker.email.v1.api import did_email_bounce
from ecommerce_worker.errors import ApiError

__all__ = ['did_email_bounce', 'remove_special_characters_from_string', 'update_assignment_email_status']


def remove_special_characters_from_string(text: str) -> str:
    """The text without ASCII punctuation, as sender names once required."""
    return text.translate(str.maketrans('', '', string.punctuation))


def update_assignment_email_status(offer_assignment_id: int | str, send_id: str, status: str,
                                   site_code: str | None = None) -> bool:
    """Report to the shop that an assignment mail was sent; returns whether it recorded that.

    ``status`` must be ``success``: the shop accepts no other.
    """
    if status != 'success':
        return False
    try:
        runtime.site(site_code).ecommerce.report_assignment_email(offer_assignment_id, send_id)
    except ApiError:
        return False
    return True
