"""The only place where settings meet clients."""

from __future__ import annotations

import threading
from functools import cached_property
from typing import Any

from ecommerce_worker.auth import ClientCredentials, SelfSigned
from ecommerce_worker.clients.ecommerce import Ecommerce
from ecommerce_worker.http import Api, Signer
from ecommerce_worker.retry import Policy
from ecommerce_worker.settings import Settings


class once(cached_property[Any]):  # noqa: N801 - reads as the decorator that it is
    """A cached property that is computed once however many threads are the first to ask."""

    def __get__(self, site: Any, owner: type[Any] | None = None) -> Any:
        with site.lock:
            return super().__get__(site, owner)


class Site:
    """One shop and what belongs to it, each built once and when it is first needed."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.lock = threading.RLock()

    @once
    def ecommerce(self) -> Ecommerce:
        """The shop's API."""
        settings = self.settings
        api = Api(settings.ECOMMERCE_API_ROOT, peer='the shop', signer=self.signer,
                  connections=settings.WORKER_CONCURRENCY,
                  connect_timeout=settings.HTTP_CONNECT_TIMEOUT, read_timeout=settings.HTTP_READ_TIMEOUT)
        return Ecommerce(api, fulfillment_read_timeout=settings.FULFILLMENT_READ_TIMEOUT)

    @once
    def signer(self) -> Signer:
        """Our identity at this shop."""
        settings = self.settings
        if settings.authentication == 'jwt':
            return SelfSigned(settings.JWT_SECRET_KEY, settings.JWT_ISSUER, settings.ECOMMERCE_SERVICE_USERNAME)
        return ClientCredentials(settings.BACKEND_SERVICE_EDX_OAUTH2_PROVIDER_URL,
                                 settings.BACKEND_SERVICE_EDX_OAUTH2_KEY,
                                 settings.BACKEND_SERVICE_EDX_OAUTH2_SECRET)

    @once
    def fulfillment_policy(self) -> Policy:
        """How patiently an order of this shop is tried."""
        settings = self.settings
        return Policy(refusals=settings.MAX_FULFILLMENT_RETRIES, give_up_after=settings.FULFILLMENT_GIVE_UP_AFTER,
                      shortest=settings.RETRY_DELAY_MIN, longest=settings.RETRY_DELAY_MAX)
