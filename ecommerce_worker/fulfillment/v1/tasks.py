"""The task of the shop's fulfilment."""

from __future__ import annotations

from ecommerce_worker import runtime
from ecommerce_worker.clients.ecommerce import COMPLETE
from ecommerce_worker.errors import Skip, WrongArguments
from ecommerce_worker.execution.task import Task, task


@task(policy=lambda site: site.fulfillment_policy, key='order_number',
      lane=lambda site: runtime.host_of(site.settings.ECOMMERCE_API_ROOT))
def fulfill_order(self: Task, order_number: str, site_code: str | None = None, email_opt_in: bool = False) -> None:
    """Have the shop fulfil a paid order.

    ``site_code`` names the shop (the short code of a partner); ``email_opt_in`` is whether the learner wants
    mail of the organisation.  The shop's fulfilment is not idempotent while the order is open: each call mails a
    receipt again.  So every run but the first asks how the order stands before it does anything, and of two runs of one
    order, of which there may be two messages, the second comes again when the first is over.
    """
    if not (email_opt_in is None or isinstance(email_opt_in, bool)):
        raise WrongArguments('email_opt_in must be true or false')
    site = runtime.site(site_code)
    shop = site.ecommerce
    # Whatever else it may be is refused before anything is done.
    number = order_number if isinstance(order_number, str) else ''
    current = runtime.current()
    with current.turn(f'{current.shop(site)} {number}', put_off=self.put_off, lease=site.longest_fulfillment):
        if self.repeated and shop.status(order_number) == COMPLETE:
            raise Skip('the order is already complete')
        shop.fulfill(order_number, email_opt_in=bool(email_opt_in))
