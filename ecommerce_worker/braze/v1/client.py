"""What shops imported from February to May 2021; :mod:`ecommerce_worker.email.v1.api` took its place."""

from __future__ import annotations

from ecommerce_worker.email.v1.api import did_email_bounce

__all__ = ['BouncesOfSite', 'get_braze_client']


class BouncesOfSite:
    """Asks the mail vendor of one site about bounces, whichever vendor that is."""

    def __init__(self, site_code: str | None = None) -> None:
        self._site_code = site_code

    def did_email_bounce(self, email: str) -> bool:
        """See :func:`ecommerce_worker.email.v1.api.did_email_bounce`."""
        return did_email_bounce(email, site_code=self._site_code)


def get_braze_client(site_code: str | None = None, endpoint: str | None = None) -> BouncesOfSite:  # noqa: ARG001
    """What shops called for, to ask whether mail bounced; the ``endpoint`` of their first calls is not needed."""
    return BouncesOfSite(site_code)
