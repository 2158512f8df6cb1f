"""The interface that the shop imports for mail."""

from __future__ import annotations

from ecommerce_worker import runtime
from ecommerce_worker.email.v1.tasks import (
    send_api_triggered_offer_usage_email,
    send_code_assignment_nudge_email,
    send_offer_assignment_email,
    send_offer_update_email,
    send_offer_usage_email,
)

__all__ = [
    'did_email_bounce',
    'send_api_triggered_offer_usage_email',
    'send_code_assignment_nudge_email',
    'send_offer_assignment_email',
    'send_offer_update_email',
    'send_offer_usage_email',
]


def did_email_bounce(user_email: str, site_code: str | None = None) -> bool:
    """Whether mail to this address bounced permanently; False if the site's vendor does not know.

    Asks the vendor at once.  Raises :class:`~ecommerce_worker.errors.ApiError` if it does not answer, and
    :class:`~ecommerce_worker.errors.Misconfigured` if there is no vendor.
    """
    return runtime.site(site_code).mailer.bounced(user_email)
