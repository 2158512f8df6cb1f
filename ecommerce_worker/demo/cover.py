"""Whether another order of the academy pays for a learner's course: a module for ``COVERED_BY``."""

from __future__ import annotations

from ecommerce_worker.demo.orders import PURCHASES


def covers(order_number: str, learner: str, course_id: str, site_code: str | None) -> bool:
    """Whether another order that was not refunded pays for it."""
    del site_code
    return any(it.learner == learner and course_id in it.courses and not it.refunded and it.number != order_number
               for it in PURCHASES)
