"""Whoever knows whether another paid order covers a learner: a module of ``coverage``, or one of somebody's own."""

from __future__ import annotations

from collections.abc import Callable

from ecommerce_worker import plugins
from ecommerce_worker.enrolment import coverage
from ecommerce_worker.errors import Misconfigured

#: ``covers(order_number, learner, course_id, site_code)``: whether an order other than that one pays for it.
Covers = Callable[[str, str, str, str | None], bool]


def find(name: str) -> Covers:
    """The function of the module of that name; raises :class:`~ecommerce_worker.errors.Misconfigured`."""
    found: Covers = plugins.find(name, coverage, 'covers', 'COVERED_BY')
    if not callable(found):
        raise Misconfigured([f'COVERED_BY names {name}, whose covers is no function'])
    return found
