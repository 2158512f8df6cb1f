"""The tasks of enrolment.

::

    enroll ──► enroll_line ──► set_mode            of a learner who has no account yet
    revoke ──► revoke_line

An order is parted into its lines, each for one learner and one course, with a patience of its own: each is found,
parked and sent again alone, under the number of the order and its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final

from ecommerce_worker import runtime
from ecommerce_worker.clients.lms import Enrolment, NotRegistered, checked
from ecommerce_worker.enrolment.lines import LONGEST, Line, addresses_in, read
from ecommerce_worker.errors import Misconfigured, Rejected, Skip, Transient, WrongArguments
from ecommerce_worker.execution.outcomes import Then
from ecommerce_worker.execution.task import Task, task
from ecommerce_worker.words import counted, item_of, printable

if TYPE_CHECKING:
    from ecommerce_worker.site import Site

#: Modes that nobody pays for: whatever was paid takes their place.
FREE: Final = frozenset({'audit', 'honor'})

#: What a learner keeps where REFUND says so.
AUDIT: Final = 'audit'


def lane(site: Site) -> str:
    """Runs wait for the LMS."""
    return runtime.host_of(site.settings.LMS_ROOT_URL)


@task(policy=lambda site: site.enrolment_policy, key='order_number')
def enroll(self: Task, order_number: str, lines: Any, site_code: str | None = None) -> Iterable[Then]:
    """Enrol the learners of a paid order, each line by a task of its own.

    ``lines`` is a list of mappings: ``product`` (the SKU), ``learner`` (an address, or a list of them), ``quantity``
    (1 if not given) and ``line``, its id in the order.
    """
    del self
    return _parted(enroll_line, order_number, read(lines), site_code, lacking=True)


@task(policy=lambda site: site.enrolment_policy, key='order_number')
def revoke(self: Task, order_number: str, lines: Any, site_code: str | None = None) -> Iterable[Then]:
    """Take back what the refunded lines of an order paid for, each by a task of its own; see :func:`enroll`."""
    del self
    return _parted(revoke_line, order_number, read(lines), site_code, lacking=False)


@task(policy=lambda site: site.enrolment_policy, key='item', lane=lane)
def enroll_line(self: Task, item: str, order_number: str, product: str, learner: str, course_id: str | None = None,
                mode: str | None = None, site_code: str | None = None, problem: str = '') -> Iterable[Then]:
    """Enrol one learner in one course, in the mode that was paid for.

    ``item`` is what people know the line by: the number of the order, and the line's id.
    Without ``course_id`` the product was not known when the order came, and is looked up again.  ``problem`` says why a
    line is for people to see to.
    """
    site = runtime.site(site_code)
    if problem or course_id is None:
        return _unsettled(enroll_line, item, order_number, product, learner, site, site_code, problem)
    wanted, learner = _wanted(course_id, mode, learner)
    with _turn(self, site, course_id, learner):
        try:
            username = site.lms.username(learner)
            return _enrolled(site, username, course_id, wanted, order_number)
        except NotRegistered:
            site.lms.allow(learner, course_id)
    return [Then(set_mode.name, _arguments(item, order_number, product, learner, course_id, mode, site_code))]


@task(policy=lambda site: site.registration_policy, key='item', lane=lane)
def set_mode(self: Task, item: str, order_number: str, product: str, learner: str, course_id: str, mode: str,
             site_code: str | None = None) -> Iterable[Then]:
    """Wait for a learner who has no account yet, and enrol them in the mode that was paid for when they have.

    The LMS opens the course to them as soon as they register, in the mode that it begins with: it keeps no other.
    """
    del item, product
    site = runtime.site(site_code)
    wanted, learner = _wanted(course_id, mode, learner)
    with _turn(self, site, course_id, learner):
        username = site.lms.username(learner)
        found = site.lms.enrolment(username, course_id)
        if not (found and found.active):
            raise Rejected(f'the learner has an account by now, and is not enrolled in {course_id}: was it refunded?')
        return _enrolled(site, username, course_id, wanted, order_number)


@task(policy=lambda site: site.enrolment_policy, key='item', lane=lane)
def revoke_line(self: Task, item: str, order_number: str, product: str, learner: str, course_id: str | None = None,
                mode: str | None = None, site_code: str | None = None, problem: str = '') -> Iterable[Then]:
    """Take one learner's course back, as ``REFUND`` has it, unless another paid order covers it; see ``COVERED_BY``."""
    site = runtime.site(site_code)
    if problem or course_id is None:
        return _unsettled(revoke_line, item, order_number, product, learner, site, site_code, problem)
    paid, learner = _wanted(course_id, mode, learner)
    with _turn(self, site, course_id, learner):
        try:
            username = site.lms.username(learner)
        except NotRegistered:
            _look_for_cover(site, order_number, learner, course_id, site_code)
            if not site.lms.disallow(learner, course_id):
                raise _not_yet(course_id) from None
            return ()
        found = site.lms.enrolment(username, course_id)
        if found and not found.active:
            raise Skip(f'the learner is not enrolled in {course_id} any more')
        if found is None or (found.mode != paid.mode and found.mode in FREE):
            raise _not_yet(course_id)
        if found.mode != paid.mode:
            raise Rejected(f'the learner is enrolled as {found} in {course_id}, and {paid} was refunded: what gave '
                           'them the other?')
        _look_for_cover(site, order_number, learner, course_id, site_code)
        if site.settings.REFUND == AUDIT:
            if found.mode == AUDIT:
                raise Skip(f'the learner is enrolled as {found} in {course_id} already')
            site.lms.put(username, course_id, Enrolment(AUDIT, active=True))
        else:
            site.lms.put(username, course_id, Enrolment(found.mode, active=False))
    return ()


def _parted(follow: Task, order_number: str, lines: list[Line], site_code: str | None, *, lacking: bool) -> list[Then]:
    """What follows from an order: a task for each line, learner and course."""
    site = runtime.site(site_code)
    wanted = [line for line in lines if line.quantity]
    if not wanted:
        raise Skip('it has no lines')
    known = [line for line in wanted if line.product in site.settings.PRODUCTS]
    if not known and site.settings.UNKNOWN_PRODUCT == 'skip':
        raise Skip('none of its products is a course')
    if site.settings.UNKNOWN_PRODUCT == 'skip':
        wanted = known
    return [then for line in wanted
            for then in _of_line(follow, item_of(order_number, line.id), order_number, line, site, site_code,
                                 lacking=lacking)]


def _of_line(follow: Task, item: str, order_number: str, line: Line, site: Site, site_code: str | None, *,
             lacking: bool) -> list[Then]:
    """A task for each learner and course, and one for what is for people to see to."""
    count, seats = len(line.learners), counted(line.quantity, 'seat')
    found: list[dict[str, Any]] = []
    if count > line.quantity:
        found.append({'learner': '', 'problem': f'{_learners(count)} for {seats}: whose is it?'})
    else:
        courses = site.settings.PRODUCTS.get(line.product) or [{'course': None, 'mode': None}]
        found += [{'learner': learner, 'course_id': it['course'], 'mode': it['mode']}
                  for learner in line.learners for it in courses]
        if count < line.quantity and (lacking or not count):
            problem = f'{seats}, {_learners(count)}: for the rest the order has no address where LEARNER says'
            found.append({'learner': '', 'problem': problem})
    items = [item] if len(found) == 1 else [f'{item}.{number}' for number in range(1, len(found) + 1)]
    return [Then(follow.name, {'item': name, 'order_number': order_number, 'product': line.product,
                               'course_id': None, 'mode': None, 'site_code': site_code, **it})
            for name, it in zip(items, found, strict=True)]


def _unsettled(follow: Task, item: str, order_number: str, product: str, learner: str, site: Site,
               site_code: str | None, problem: str) -> list[Then]:
    """What becomes of a line that did not name its course: what follows from it by now."""
    if not isinstance(product, str):
        raise WrongArguments('product is no SKU')
    sku = printable(product[:LONGEST]) or 'a product without a SKU'
    if problem:
        raise WrongArguments(printable(f'{sku}: {problem}'[:500]))
    if product not in site.settings.PRODUCTS:
        if site.settings.UNKNOWN_PRODUCT == 'skip':
            raise Skip('its product is no course')
        raise Misconfigured((f'{sku} is none of PRODUCTS; add it there, and send this again',))
    return _of_line(follow, item, order_number, Line('', product, 1, (_address(learner),)), site, site_code,
                    lacking=True)


def _arguments(item: str, order_number: str, product: str, learner: str, course_id: str, mode: str | None,
               site_code: str | None) -> dict[str, Any]:
    return {'item': item, 'order_number': order_number, 'product': product, 'learner': learner,
            'course_id': course_id, 'mode': mode, 'site_code': site_code}


def _address(learner: str) -> str:
    if addresses_in(learner) != (learner,):
        raise WrongArguments('learner is no address')
    return learner


def _wanted(course_id: str, mode: str | None, learner: str) -> tuple[Enrolment, str]:
    """What was paid for, and the learner's address."""
    checked(course_id, mode or '')
    return Enrolment(str(mode), active=True), _address(learner)


def _turn(run: Task, site: Site, course_id: str, learner: str) -> AbstractContextManager[None]:
    """Have no two runs work on one learner's course, of whichever order."""
    who = hashlib.sha256(learner.casefold().encode()).hexdigest()
    return runtime.current().turn(f'{site.settings.LMS_ROOT_URL} {course_id} {who}', put_off=run.put_off,
                                  lease=site.longest_enrolment)


def _enrolled(site: Site, username: str, course_id: str, wanted: Enrolment, order_number: str) -> Iterable[Then]:
    """Enrol them, unless they are; what somebody else paid for is not put down."""
    found = site.lms.enrolment(username, course_id)
    if found == wanted:
        raise Skip(f'the learner is enrolled as {wanted} in {course_id} already')
    if found and found.active and found.mode not in FREE:
        raise Rejected(f'the learner is enrolled as {found} in {course_id}, and {wanted} was paid for: which of the '
                       'two holds?')
    site.lms.put(username, course_id, wanted, order_number=order_number, force=site.settings.FORCE_ENROLLMENT)
    return ()


def _look_for_cover(site: Site, order_number: str, learner: str, course_id: str, site_code: str | None) -> None:
    """Raise ``Skip`` if another paid order covers it, and what parks it if nobody knows."""
    if site.covers is None:
        reason = (f'{course_id} was refunded, and nobody knows whether another paid order covers the learner: decide '
                  'by hand, or set COVERED_BY and send this again')
        raise Misconfigured([reason])
    if site.covers(order_number, learner, course_id, site_code):
        raise Skip('another paid order covers the learner')


def _not_yet(course_id: str) -> Transient:
    """A refund may come before what it takes back is done; what is parked of it may even be sent again much later."""
    return Transient(f'what was refunded of {course_id} is not there: its enrolment may be under way, or was taken '
                     'back already')


def _learners(count: int) -> str:
    return counted(count, 'learner') if count else 'no learner'
