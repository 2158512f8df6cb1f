"""All that code in another repository may import to extend the worker; kept for a major version.

An extension is a module that brings settings, a kind of intake, and tasks::

    API = 1                                            the version of this that it was made for
    ACME = Group('ACME', {'url': URL, ...})            settings of its own, checked, masked, and by site
    @intake('acme', scheme=Hmac('X-Acme-Signature'))   what is to be done about a delivery: a Then, or why nothing
    @task(key='order_number')                          a function that a worker runs until it is done, or parks
    site(site_code).service(ACME)                      the service at the url of these settings, as an Api

``docs/how-to/write-an-extension.rst`` shows one.  A vendor of mail is a class of these::

    Vendor(options, connect)   EMAIL_OPTIONS, read by read_options; connect makes an Api of an HTTP service
    send(email) -> Receipt     raise, and no mail was sent
    bounced(address) -> bool
    policy                     None, or Regular(every, attempts)

``docs/how-to/add-a-vendor.rst`` shows one.  :mod:`ecommerce_worker.testing` has what such packages test themselves
with.
Everything else of this package may change with any release, but for what shops import:
``ecommerce_worker.{fulfillment,email,sailthru}.v1`` and ``ecommerce_worker.configuration``.
"""

from collections.abc import Iterator as _Iterator
from collections.abc import Sequence as _Sequence
from contextlib import contextmanager as _contextmanager
from typing import Any as _Any

from ecommerce_worker import runtime as _runtime
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
    Skip,
    Throttled,
    Transient,
    Undecodable,
    Unreachable,
    WrongArguments,
)
from ecommerce_worker.execution.outcomes import Then
from ecommerce_worker.execution.task import Task, task
from ecommerce_worker.intake.functions import Hmac, Standard, Token, intake
from ecommerce_worker.intake.source import Delivery
from ecommerce_worker.plugins import read_options
from ecommerce_worker.retry import Policy, Regular
from ecommerce_worker.runtime import site
from ecommerce_worker.settings import API, Group
from ecommerce_worker.settings.kinds import DURATION, FLAG, PATIENCE, SECONDS, SECRET, TEXT, URL, Kind, one_of, whole


def application(*, queues: _Sequence[str]) -> _Any:
    """A Celery application for tasks of your own, of which ledger and console know; see *Write an extension*.

    A worker of it consumes these queues, and its tasks go to the first of them.  Waiting room, parking, and reports of
    what is published and of every run are set; the configuration is that of ``ecommerce-worker``.  Raises
    ``Misconfigured``.
    """
    from ecommerce_worker.standalone import made

    return made(queues)


@_contextmanager
def turn(run: Task, name: str, *, lease: float) -> _Iterator[None]:
    """Have no two runs of a task work on what is called so at the same time, of whichever messages.

    For tasks whose service does not tell repeats; ``run`` is the task, ``lease`` the seconds in which the work within
    has ended.  The run that comes second ends here, and its message comes again; ``run.repeated`` is true then, and the
    task asks how things stand before it does anything.
    """
    with _runtime.current().turn(f'{run.name} {name}', put_off=run.put_off, lease=lease):
        yield


__all__ = [
    'ADDRESS', 'API', 'DURATION', 'FLAG', 'PATIENCE', 'SECONDS', 'SECRET', 'TEXT', 'URL', 'Api', 'ApiError',
    'Attachment', 'Bearer', 'Connect', 'Delivery', 'Email', 'Group', 'Hmac', 'Kind', 'Mailer', 'Misconfigured',
    'Policy', 'Purpose', 'Receipt', 'Regular', 'Rejected', 'Skip', 'Standard', 'Task', 'Then', 'Throttled', 'Token',
    'Transient', 'Undecodable', 'Unreachable', 'WrongArguments', 'application', 'composed', 'fetch_all', 'intake',
    'one_line', 'one_of', 'read_options', 'reply_address', 'sender', 'site', 'task', 'text_of', 'turn', 'whole',
    'with_links', 'without_addresses',
]
