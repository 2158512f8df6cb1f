"""How to find out whether another paid order covers a learner: a module of ``coverage``, or a third-party one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ecommerce_worker import plugins
from ecommerce_worker.enrolment import coverage
from ecommerce_worker.errors import Misconfigured

if TYPE_CHECKING:
    from ecommerce_worker.settings import Settings

#: The seconds that they are given to answer.
LOOKUP_SECONDS: Final = 60.0

#: How a line ends that the shop says was refunded before it was enrolled.
REFUNDED: Final = 'it has been refunded since'

#: What the refund of a line waits for, and then a person decides, that the shop has as paid for at that moment.
STILL_PAID: Final = 'the shop reported a refund, but has the order as paid: which one is right?'

#: A function of ``(order_number, learner, course_id, site_code)``.
Question = Callable[[str, str, str, str | None], bool]

#: The courses of products, as in ``PRODUCTS``: mappings of ``course`` and ``mode``.
Products = Mapping[str, Sequence[Mapping[str, str]]]


@dataclass(frozen=True)
class Cover:
    """The functions of the module that COVERED_BY names; all but the first are optional.

    ``covers`` answers whether another order pays for the course, ``taken_back`` whether this order was refunded and its
    refund is done, ``bought`` which courses the products of an order were when it came: a function of ``(order_number,
    site_code)``.
    """

    covers: Question
    taken_back: Question | None = None
    bought: Callable[[str, str | None], Products] | None = None


def find(name: str, settings: Settings) -> Cover:
    """The functions of the module of that name; raises :class:`~ecommerce_worker.errors.Misconfigured`.

    The module may have a function ``problem(settings)``, which returns what it lacks, or ''.
    """
    module = plugins.module_of(name, coverage, 'COVERED_BY')
    covers, *others = (getattr(module, name, None) for name in ('covers', 'taken_back', 'bought'))
    if not callable(covers) or not all(it is None or callable(it) for it in others):
        raise Misconfigured([f'COVERED_BY names {name}, which has no function covers'])
    if problem := getattr(module, 'problem', lambda _: '')(settings):
        raise Misconfigured([f'COVERED_BY: {name} {problem}'])
    return Cover(covers, *others)
