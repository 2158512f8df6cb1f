"""All that code in another repository may import to extend the worker; kept for a major version.

A vendor of mail is a class of these::

    Vendor(options, connect)   EMAIL_OPTIONS, read by read_options; connect makes an Api of an HTTP service
    send(email) -> Receipt     raise, and nobody was mailed
    bounced(address) -> bool
    policy                     None, or Regular(every, attempts)

``docs/how-to/add-a-vendor.rst`` shows one.  :mod:`ecommerce_worker.testing` has what such a package tests itself with.
Everything else of this package may change with any release, but for what shops import:
``ecommerce_worker.{fulfillment,email,sailthru}.v1`` and ``ecommerce_worker.configuration``.
"""

from ecommerce_worker.clients.auth import Bearer
from ecommerce_worker.clients.http import Api
from ecommerce_worker.clients.links import fetch_all
from ecommerce_worker.email.mailer import Connect, Mailer
from ecommerce_worker.email.message import Attachment, Email, Purpose, Receipt, one_line, sender, without_addresses
from ecommerce_worker.email.mime import ADDRESS, composed, reply_address, text_of, with_links
from ecommerce_worker.errors import (
    ApiError,
    Misconfigured,
    Rejected,
    Throttled,
    Transient,
    Unreachable,
)
from ecommerce_worker.plugins import read_options
from ecommerce_worker.retry import Policy, Regular
from ecommerce_worker.settings.kinds import DURATION, FLAG, PATIENCE, SECONDS, SECRET, TEXT, URL, Kind, one_of, whole

#: The version of this interface: grows by one when something here is taken away or means something else.
API = 1

__all__ = [
    'ADDRESS', 'API', 'DURATION', 'FLAG', 'PATIENCE', 'SECONDS', 'SECRET', 'TEXT', 'URL', 'Api', 'ApiError',
    'Attachment', 'Bearer', 'Connect', 'Email', 'Kind', 'Mailer', 'Misconfigured', 'Policy', 'Purpose', 'Receipt',
    'Regular', 'Rejected', 'Throttled', 'Transient', 'Unreachable', 'composed', 'fetch_all', 'one_line', 'one_of',
    'read_options', 'reply_address', 'sender', 'text_of', 'whole', 'with_links', 'without_addresses',
]
