"""The interface of mail vendors, and how to find one by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from ecommerce_worker import plugins
from ecommerce_worker.clients.http import Api
from ecommerce_worker.email import vendors
from ecommerce_worker.email.message import Email, Receipt
from ecommerce_worker.retry import Regular

#: Makes an :class:`~ecommerce_worker.clients.http.Api` with the time-outs and as many connections as fit the process.
Connect = Callable[..., Api]

#: What a vendor's class is called in its module; it is made from its options and a :data:`Connect`.
CLASS: Final = 'Vendor'


class Mailer(Protocol):
    """The interface of a mail vendor."""

    #: How patiently it is asked; None as any service that is down, by time.
    policy: Regular | None

    def send(self, email: Email) -> Receipt:
        """Send one mail.

        Raises :class:`~ecommerce_worker.errors.ApiError` if no mail was sent: ``Transient`` if it may work later,
        ``Rejected`` with the vendor's reason if not; ``Misconfigured`` if this kind of mail is not set up.
        """

    def bounced(self, address: str) -> bool:
        """Whether mail to this address bounced permanently; False if the vendor does not know.

        Raises :class:`~ecommerce_worker.errors.ApiError`.
        """


def names() -> list[str]:
    """The vendors that come with this package."""
    return plugins.names(vendors)


def find(name: str) -> Callable[[Mapping[str, Any], Connect], Mailer]:
    """The class of the vendor of that name or dotted path.

    Raises :class:`~ecommerce_worker.errors.Misconfigured`.
    """
    found: Callable[[Mapping[str, Any], Connect], Mailer] = plugins.find(name, vendors, CLASS, 'EMAIL_VENDOR')
    return found
