"""The tasks of the years with Sailthru, under the names that shops published until 2021.

The mail goes through whatever vendor the site has, and purchases are reported where Sailthru is enabled.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ecommerce_worker import runtime
from ecommerce_worker.email.delivery import deliver, lane, patience, site_of
from ecommerce_worker.errors import Skip
from ecommerce_worker.execution.outcomes import Then
from ecommerce_worker.execution.task import Task, task
from ecommerce_worker.sailthru.purchase import Enrolment


@task(policy=lambda site: site.purchase_policy, key='course_id')
def update_course_enrollment(
        self: Task, email: str, course_url: str, purchase_incomplete: bool, mode: str, unit_cost: Any = None,
        course_id: str | None = None, currency: str | None = None, message_id: str | None = None,
        site_code: str | None = None, sku: str | None = None) -> None:
    """Report to Sailthru what a learner put into the cart (``purchase_incomplete``) or bought.

    ``unit_cost`` is a Decimal, or its text, in units of ``currency``; ``message_id`` is Sailthru's cookie.
    """
    purchases = runtime.site(site_code).purchases
    if purchases is None:
        raise Skip('purchases are not reported: SAILTHRU_ENABLE is off')
    enrolment = Enrolment(email=email, course_url=course_url, purchase_incomplete=purchase_incomplete, mode=mode,
                          unit_cost=unit_cost, course_id=course_id, currency=currency, message_id=message_id, sku=sku)
    purchases.report(enrolment, self.request.id or '', repeated=self.repeated)


@task(policy=patience, site=site_of, lane=lane, key='order_number', position=4)
def send_course_refund_email(self: Task, *args: Any, **kwargs: Any) -> Iterable[Then]:
    """Mail a learner that a course was refunded.

    ``(email, refund_id, amount, course_name, order_number, order_url, site_code=None)``
    """
    return deliver(self, args, kwargs)


@task(policy=patience, site=site_of, lane=lane, key='offer_assignment_id', position=1)
def send_offer_assignment_email(self: Task, *args: Any, **kwargs: Any) -> Iterable[Then]:
    """Mail a code to the learner to whom it was assigned, then report that to the shop.

    ``(user_email, offer_assignment_id, subject, email_body, sender_alias, site_code=None, base_enterprise_url='')``
    """
    return deliver(self, args, kwargs)


@task(policy=patience, site=site_of, lane=lane)
def send_offer_update_email(self: Task, *args: Any, **kwargs: Any) -> Iterable[Then]:
    """Mail a learner that a code was revoked, or a reminder of it.

    ``(user_email, subject, email_body, sender_alias, site_code=None, base_enterprise_url='')``
    """
    return deliver(self, args, kwargs)


@task(policy=patience, site=site_of, lane=lane)
def send_offer_usage_email(self: Task, *args: Any, **kwargs: Any) -> Iterable[Then]:
    """Mail people of an enterprise about the usage of an offer.

    ``(emails, subject, email_body, site_code=None, base_enterprise_url='')``
    """
    return deliver(self, args, kwargs)


@task(policy=patience, site=site_of, lane=lane)
def send_code_assignment_nudge_email(self: Task, *args: Any, **kwargs: Any) -> Iterable[Then]:
    """Nudge a learner who has not used a code.

    ``(email, subject, email_body, sender_alias, site_code=None, base_enterprise_url='')``
    """
    return deliver(self, args, kwargs)
