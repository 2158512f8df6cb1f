"""One shop: its clients, made from settings."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeVar

from typing_extensions import override

from ecommerce_worker.clients.auth import Bearer, ClientCredentials, SelfSigned
from ecommerce_worker.clients.circuit import CircuitBreaker
from ecommerce_worker.clients.ecommerce import Ecommerce
from ecommerce_worker.clients.http import Api, Signer
from ecommerce_worker.clients.lms import Lms
from ecommerce_worker.email.mailer import Mailer, find
from ecommerce_worker.enrolment import cover
from ecommerce_worker.enrolment.cover import LOOKUP_SECONDS
from ecommerce_worker.errors import Misconfigured
from ecommerce_worker.retry import LONGEST_WAIT, Patience, Policy, Regular
from ecommerce_worker.sailthru.client import Sailthru
from ecommerce_worker.sailthru.purchase import Purchases
from ecommerce_worker.settings import Group, Settings

_T = TypeVar('_T')


class once(cached_property[_T]):  # noqa: N801 - reads as the decorator that it is
    """A cached property that is computed once however many threads are the first to ask."""

    @override
    def __get__(self, site: Any, owner: type[Any] | None = None) -> _T:  # type: ignore[override]
        with site.lock:
            value: _T = super().__get__(site, owner)
            return value


class Site:
    """One shop with its clients and policies, each created once when first needed."""

    def __init__(self, settings: Settings, circuit: Callable[[str], CircuitBreaker]) -> None:
        self.settings = settings
        self._circuit = circuit
        self.lock = threading.RLock()
        self._services: dict[str, Api] = {}
        self._kept: dict[str, Any] = {}

    def connect(self, root: str, *, peer: str, signer: Signer | None = None, correlated: bool = False) -> Api:
        """A client of a service, with the time-outs of this site and a connection per thread."""
        settings = self.settings
        return Api(root, peer=peer, signer=signer, circuit=self._circuit(root), connections=settings.WORKER_CONCURRENCY,
                   connect_timeout=settings.HTTP_CONNECT_TIMEOUT, read_timeout=settings.HTTP_READ_TIMEOUT,
                   correlated=correlated)

    def service(self, group: Group) -> Api:
        """The client of an extension's service, created once: at the ``url`` of its settings, with their ``token``."""
        with self.lock:
            if group.name not in self._services:
                given = getattr(self.settings, group.name)
                token = given.get('token')
                self._services[group.name] = self.connect(given['url'], peer=group.name.capitalize(),
                                                          signer=Bearer(token) if token else None)
            return self._services[group.name]

    def kept(self, name: str, make: Callable[[], _T]) -> _T:
        """The result of ``make``, which must not use the network: created once under this name."""
        with self.lock:
            if name not in self._kept:
                self._kept[name] = make()
            made: _T = self._kept[name]
            return made

    def forget(self, name: str) -> None:
        """Drop what is kept under this name; it is made again when next needed. One of its keys may have changed."""
        with self.lock:
            self._kept.pop(name, None)

    def close(self) -> None:
        """Close idle connections to services of extensions."""
        with self.lock:
            for service in self._services.values():
                service.close()

    @once
    def ecommerce(self) -> Ecommerce:
        """The shop's API."""
        api = self.connect(self.settings.ECOMMERCE_API_ROOT, peer='the shop', signer=self.signer, correlated=True)
        return Ecommerce(api, fulfillment_read_timeout=self.settings.FULFILLMENT_READ_TIMEOUT)

    @property
    def longest_fulfillment(self) -> float:
        """The maximum seconds until the last call of a run that fulfils an order has ended.

        It asks for a token, the status of the order, another token, and the fulfilment, each once more if
        a token was refused; each of these exchanges may take two read time-outs.
        """
        settings = self.settings
        return 2 * (6 * settings.HTTP_READ_TIMEOUT + 2 * settings.FULFILLMENT_READ_TIMEOUT)

    @once
    def signer(self) -> Signer:
        """Our credentials at this shop."""
        settings = self.settings
        if settings.authentication == 'jwt':
            return SelfSigned(settings.JWT_SECRET_KEY or '', settings.JWT_ISSUER, settings.ECOMMERCE_SERVICE_USERNAME)
        return self.tokens

    @once
    def tokens(self) -> ClientCredentials:
        """Our credentials at the LMS, which issues tokens, and at shops that accept them."""
        settings = self.settings
        provider = settings.BACKEND_SERVICE_EDX_OAUTH2_PROVIDER_URL
        return ClientCredentials(provider, settings.BACKEND_SERVICE_EDX_OAUTH2_KEY,
                                 settings.BACKEND_SERVICE_EDX_OAUTH2_SECRET or '', circuit=self._circuit(provider),
                                 connect_timeout=settings.HTTP_CONNECT_TIMEOUT,
                                 read_timeout=settings.HTTP_READ_TIMEOUT)

    @once
    def fulfillment_policy(self) -> Policy:
        """The retry policy of orders of this shop."""
        settings = self.settings
        return Policy(refusals=settings.MAX_FULFILLMENT_RETRIES, give_up_after=settings.FULFILLMENT_GIVE_UP_AFTER,
                      shortest=settings.RETRY_DELAY_MIN, longest=settings.RETRY_DELAY_MAX)

    @once
    def lms(self) -> Lms:
        """The LMS's API."""
        return Lms(self.connect(self.settings.LMS_ROOT_URL, peer='the LMS', signer=self.tokens))

    @property
    def longest_enrolment(self) -> float:
        """The maximum seconds until the last call of a run that enrols or unenrols a learner has ended.

        It asks for a token, and then the LMS at most eight times, each once more if a token was refused;
        also the shop, and maybe the ledger.
        """
        return 2 * 22 * self.settings.HTTP_READ_TIMEOUT + LOOKUP_SECONDS

    @once
    def enrolment_policy(self) -> Policy:
        """The retry policy of enrolments: refusals of the LMS are for people, everything else is retried."""
        settings = self.settings
        return Policy(refusals=0, give_up_after=settings.FULFILLMENT_GIVE_UP_AFTER, shortest=settings.RETRY_DELAY_MIN,
                      longest=settings.RETRY_DELAY_MAX, counts_500=False)

    @once
    def registration_policy(self) -> Policy:
        """The retry policy for learners without an account: soon after the order, then a few times a day."""
        settings = self.settings
        return Policy(refusals=0, give_up_after=settings.LEARNER_GIVE_UP_AFTER, shortest=settings.RETRY_DELAY_MIN,
                      longest=max(settings.RETRY_DELAY_MAX, LONGEST_WAIT / 4), counts_500=False)

    @once
    def report_policy(self) -> Policy:
        """The retry policy for reports to the shop: as long as the worker waits for learners."""
        settings = self.settings
        return Policy(refusals=settings.MAX_FULFILLMENT_RETRIES, give_up_after=settings.LEARNER_GIVE_UP_AFTER,
                      shortest=settings.RETRY_DELAY_MIN, longest=max(settings.RETRY_DELAY_MAX, LONGEST_WAIT / 4),
                      counts_500=False)

    @once
    def covers(self) -> cover.Cover | None:
        """How to find out whether a learner is covered by another order; None if unknown.

        Raises :class:`~ecommerce_worker.errors.Misconfigured`.
        """
        return cover.find(self.settings.COVERED_BY, self.settings) if self.settings.COVERED_BY else None

    @once
    def mailer(self) -> Mailer:
        """The mailer of this shop; raises :class:`~ecommerce_worker.errors.Misconfigured` if it has none."""
        settings = self.settings
        name = settings.email_vendor
        if not name:
            raise Misconfigured(['no mail vendor is configured: set EMAIL_VENDOR, then resend this message'])
        return find(name)(settings.email_options, self.connect)

    @once
    def mail_policy(self) -> Patience:
        """The retry policy of mails of this shop: that of its vendor, or else by time."""
        settings = self.settings
        return self.mailer.policy or Policy(
            refusals=0, give_up_after=settings.EMAIL_GIVE_UP_AFTER,
            shortest=settings.RETRY_DELAY_MIN, longest=settings.RETRY_DELAY_MAX)

    @once
    def purchases(self) -> Purchases | None:
        """The client for reports of purchases; None if they are not reported."""
        options = self.settings.SAILTHRU
        if not options['SAILTHRU_ENABLE']:
            return None
        return Purchases(Sailthru.of(options, self.connect), options, self.ecommerce.course)

    @once
    def purchase_policy(self) -> Regular:
        """The retry policy of reports of purchases."""
        options = self.settings.SAILTHRU
        return Regular(options['SAILTHRU_RETRY_SECONDS'], options['SAILTHRU_RETRY_ATTEMPTS'])
