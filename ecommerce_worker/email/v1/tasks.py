"""The mail tasks, under the names that shops publish since 2021.

Their positional arguments meant different things over the years: :mod:`ecommerce_worker.email.calls` tells the
shapes apart.  The signatures below are the newest.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ecommerce_worker import runtime
from ecommerce_worker.email.delivery import deliver, lane, patience, site_of
from ecommerce_worker.errors import ApiError, Skip
from ecommerce_worker.execution.outcomes import Then
from ecommerce_worker.execution.task import Task, task


@task(policy=patience, site=site_of, lane=lane, key='offer_assignment_id', position=1)
def send_offer_assignment_email(self: Task, *args: Any, **kwargs: Any) -> Iterable[Then]:
    """Mail a code to the learner to whom it was assigned, then report that to the shop.

    ``(user_email, offer_assignment_id, subject, email_body, sender_alias, reply_to='', attachments=None,
    site_code=None, base_enterprise_url='')``
    """
    return deliver(self, args, kwargs)


@task(policy=patience, site=site_of, lane=lane)
def send_offer_update_email(self: Task, *args: Any, **kwargs: Any) -> Iterable[Then]:
    """Mail a learner that a code was revoked, or a reminder of it.

    ``(user_email, subject, email_body, sender_alias, reply_to='', attachments=None, site_code=None,
    base_enterprise_url='')``
    """
    return deliver(self, args, kwargs)


@task(policy=patience, site=site_of, lane=lane)
def send_offer_usage_email(self: Task, *args: Any, **kwargs: Any) -> Iterable[Then]:
    """Mail people of an enterprise about the usage of an offer.

    ``(emails, subject, email_body, reply_to='', attachments=None, site_code=None, base_enterprise_url='')``, where
    ``emails`` are separated by commas.
    """
    return deliver(self, args, kwargs)


@task(policy=patience, site=site_of, lane=lane)
def send_code_assignment_nudge_email(self: Task, *args: Any, **kwargs: Any) -> Iterable[Then]:
    """Nudge a learner who has not used a code.

    ``(email, subject, email_body, sender_alias, reply_to='', attachments=None, site_code=None,
    base_enterprise_url='')``
    """
    return deliver(self, args, kwargs)


@task(policy=patience, site=site_of, lane=lane)
def send_api_triggered_offer_usage_email(self: Task, *args: Any, **kwargs: Any) -> Iterable[Then]:
    """As :func:`send_offer_usage_email`, with the text stored by the vendor: in Braze, a campaign.

    ``(lms_user_ids_by_email, subject, email_body_variables, site_code=None, campaign_id=None)``
    """
    return deliver(self, args, kwargs)


@task(policy=lambda site: site.fulfillment_policy, key='offer_assignment_id',
      lane=lambda site: f'reports {runtime.host_of(site.settings.ECOMMERCE_API_ROOT)}')
def report_assignment_email(self: Task, offer_assignment_id: int | str, send_id: str,
                            site_code: str | None = None) -> None:
    """Report to the shop that an assignment mail was accepted; the worker publishes this to itself.

    The shop answers 500 to a report that it already has, so after a lost answer that counts as success.
    """
    try:
        runtime.site(site_code).ecommerce.report_assignment_email(offer_assignment_id, send_id)
    except ApiError as error:
        if error.status == 500 and self.unsure:
            raise Skip('the shop refuses it (500), most likely because it already has it: an earlier answer was '
                       'lost') from None
        raise
