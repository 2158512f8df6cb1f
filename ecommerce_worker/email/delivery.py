"""How a mail task sends its mail: the common body of all of them.

::

    historic call ──resolve──► Email ──checked──► rendered ──► Mailer.send ──► Receipt
                                                                                  │ then, as separate tasks
                                             the same for the recipients left ◄───┤
                                       an assignment reported to the shop ◄───────┘
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from ecommerce_worker import logs, runtime
from ecommerce_worker.broker.wire import Call
from ecommerce_worker.email import calls
from ecommerce_worker.email.calls import checked, for_others, resolve
from ecommerce_worker.email.message import Email, Purpose
from ecommerce_worker.email.rendering import rendered
from ecommerce_worker.execution.outcomes import Then
from ecommerce_worker.execution.task import Task
from ecommerce_worker.retry import Patience
from ecommerce_worker.site import Site

logger = logs.of(__name__)

#: The task that reports an accepted assignment mail to the shop.
REPORT: Final = 'ecommerce_worker.email.v1.tasks.report_assignment_email'

#: What is logged of a mail that reached some of its recipients.
NOT_ALL: Final = 'not all were mailed, the others are retried separately'


def patience(site: Site) -> Patience:
    """The retry policy of a mail task."""
    return site.mail_policy


def site_of(call: Call) -> Any:
    """The site code of a call of a mail task, wherever it stands among its arguments."""
    return calls.site_of(call.task, call.args, call.kwargs, runtime.current().settings.site_codes)


def lane(site: Site) -> str:
    """The lane of a mail task: the vendor of this site with its options."""
    settings = site.settings
    return f'mail {settings.email_vendor} {zlib.crc32(repr(settings.email_options).encode(errors="surrogatepass")):x}'


def deliver(task: Task, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterator[Then]:
    """Send the mail of this call; yields the tasks that follow from it.

    Raises :class:`~ecommerce_worker.errors.WrongArguments`, :class:`~ecommerce_worker.errors.Misconfigured` or
    :class:`~ecommerce_worker.errors.ApiError`, in each case before any mail was sent.
    """
    found = resolve(task.name, args, kwargs, runtime.current().settings.site_codes)
    for remark in found.remarks:
        logger.warning('the arguments of a mail are unusual', note=remark, task=task.name, id=task.request.id)
    site = runtime.site(found.email.site_code)
    email, bad = checked(replace(found.email, id=task.request.id or ''), site.settings.ATTACHMENT_HOSTS)
    receipt = site.mailer.send(rendered(email, site.settings.EMAIL_TEMPLATES))
    for others in filter(None, (receipt.left, bad)):
        logger.warning(NOT_ALL, task=task.name, id=task.request.id,
                       others=len(others))
        yield Then(task.name, for_others(email, task.name, others))
    if email.purpose is Purpose.ASSIGNMENT:
        yield Then(REPORT, _report(email, receipt.id))


def _report(email: Email, send_id: str) -> dict[str, Any]:
    return {'offer_assignment_id': email.offer_assignment_id, 'send_id': send_id, 'site_code': email.site_code}
