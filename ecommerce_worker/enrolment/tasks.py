"""The tasks of enrolment.

::

    enroll ──┬─► enroll_line ──► set_mode          for a learner who has no account yet
             └─► report_back                       for an intake that reports to its shop
    revoke ────► revoke_line

An order is split into its lines, each for one learner and one course, and each retried separately: a line is found,
parked and resent alone, under the number of the order and its own.

A message shows the order as it was when it was sent.  Before acting on it the shop is asked for its present state, if
the intake has a key to it (``shop``, see :class:`~ecommerce_worker.enrolment.origin.Origin`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final, NoReturn

from ecommerce_worker import runtime
from ecommerce_worker.clients.lms import Account, Enrolment, NotRegistered, checked
from ecommerce_worker.enrolment.cover import REFUNDED, STILL_PAID, Products
from ecommerce_worker.enrolment.learner import masked, pseudonym
from ecommerce_worker.enrolment.lines import LONGEST, Line, addresses_in, read
from ecommerce_worker.enrolment.origin import Origin
from ecommerce_worker.errors import Misconfigured, Rejected, Skip, Transient, WrongArguments
from ecommerce_worker.execution.outcomes import Then
from ecommerce_worker.execution.task import Task, task
from ecommerce_worker.words import counted, item_of, printable

if TYPE_CHECKING:
    from ecommerce_worker.broker.wire import Call
    from ecommerce_worker.site import Site

#: Free modes, which any paid mode replaces.
FREE: Final = frozenset({'audit', 'honor'})

#: Seconds by which the clocks of a shop and an LMS may differ.
CLOCK_SKEW: Final = 600.0

#: What a learner keeps where REFUND says so.
AUDIT: Final = 'audit'


def lane(site: Site) -> str:
    """The lane of a task: its LMS."""
    return runtime.host_of(site.settings.LMS_ROOT_URL)


def about(call: Call) -> dict[str, str]:
    """The fields of a line for the ledger: what was bought, and for whom, without the address."""
    given = {name: call.kwargs.get(name) for name in ('order_number', 'product', 'course_id', 'mode', 'learner')}
    found = {name: printable(value[:LONGEST]) if isinstance(value, str) else '' for name, value in given.items()}
    address, key = found['learner'], runtime.current().settings.LEARNER_KEY
    return {'order_number': found['order_number'], 'product': found['product'], 'course': found['course_id'],
            'mode': found['mode'], 'learner': pseudonym(key, address) if key and address else '',
            'mask': masked(address) if address else ''}


@task(policy=lambda site: site.enrolment_policy, key='order_number')
def enroll(self: Task, order_number: str, lines: Any, site_code: str | None = None, shop: Any = None) -> Iterable[Then]:
    """Enrol the learners of a paid order, each line by a task of its own.

    ``lines`` is a list of mappings: ``product`` (the SKU), ``learner`` (an address, or a list of them), ``quantity``
    (1 if not given) and ``line``, its id in the order.  ``shop`` says which order of which intake's shop it is.
    """
    del self
    order_number, origin, lines = _number(order_number), Origin.read(shop), read(lines)
    site = runtime.site(site_code)
    parted = _parted(enroll_line, order_number, lines, site_code, origin, site.settings.PRODUCTS, lacking=True)
    if origin and origin.reports(site):
        parted += _report(order_number, lines, parted, site_code, origin)
    return parted


@task(policy=lambda site: site.enrolment_policy, key='order_number')
def revoke(self: Task, order_number: str, lines: Any, site_code: str | None = None, shop: Any = None) -> Iterable[Then]:
    """Take back what the refunded lines of an order paid for, each by a task of its own; see :func:`enroll`.

    Its products are the courses that they were when it came, if ``COVERED_BY`` knows them, and not what ``PRODUCTS``
    says now.
    """
    del self
    order_number, origin, lines, site = _number(order_number), Origin.read(shop), read(lines), runtime.site(site_code)
    bought = site.covers.bought if site.covers else None
    products = bought(order_number, site_code) if bought and any(line.quantity for line in lines) else {}
    products = {**site.settings.PRODUCTS, **products}
    return _parted(revoke_line, order_number, lines, site_code, origin, products, lacking=False)


@task(policy=lambda site: site.enrolment_policy, key='item', lane=lane, about=about)
def enroll_line(self: Task, item: str, order_number: str, product: str, learner: str, course_id: str | None = None,
                mode: str | None = None, site_code: str | None = None, problem: str = '',
                shop: Any = None) -> Iterable[Then]:
    """Enrol one learner in one course, in the mode that was paid for.

    ``item`` is what people know the line by: the number of the order, and the line's id.
    Without ``course_id`` the product was not known when the order came, and is looked up again.  ``problem`` says why a
    line is for people to see to.
    """
    site, origin = runtime.site(site_code), Origin.read(shop)
    if problem or course_id is None:
        return _unsettled(enroll_line, item, order_number, product, learner, site, site_code, problem, origin)
    wanted, learner = _wanted(course_id, mode, learner)
    with _turn(self, site, course_id, learner):
        account, found = None, None
        try:
            account = site.lms.account(learner)
            found = site.lms.enrolment(account.username, course_id)
        except NotRegistered:
            pass
        if found == wanted:
            raise Skip(f'the learner is already enrolled as {wanted} in {course_id}')
        _refuse_refunded(self, site, origin, found, wanted, order_number, learner, course_id, site_code,
                         account=account)
        if account is not None:
            try:
                _enrol(site, account.username, course_id, found, wanted, order_number)
                return ()
            except NotRegistered:
                pass  # the LMS, which has a name for the learner, does not enrol them yet
            except Transient as error:
                error.maybe_done = False  # the next try sees whether they are enrolled; see _refuse_refunded
                raise
        site.lms.allow(learner, course_id)
    return [Then(set_mode.name, _arguments(item, order_number, product, learner, course_id, mode, site_code, origin))]


@task(policy=lambda site: site.registration_policy, key='item', lane=lane, about=about)
def set_mode(self: Task, item: str, order_number: str, product: str, learner: str, course_id: str, mode: str,
             site_code: str | None = None, shop: Any = None) -> Iterable[Then]:
    """Wait for a learner who has no account yet, and enrol them in the mode that was paid for when they have.

    The LMS opens the course to them as soon as they have confirmed the address of their account, in the mode that it
    begins with: it keeps no other.
    """
    del item, product
    site, origin = runtime.site(site_code), Origin.read(shop)
    wanted, learner = _wanted(course_id, mode, learner)
    with _turn(self, site, course_id, learner):
        account = site.lms.account(learner)
        found = site.lms.enrolment(account.username, course_id)
        if found == wanted:
            raise Skip(f'the learner is already enrolled as {wanted} in {course_id}')
        refunded = _is_refunded(site, origin, order_number, learner, course_id, site_code)
        if refunded:
            _close_again(site, account, order_number, learner, course_id, found, site_code)
            raise Skip(REFUNDED)
        if found is None and not account.active:
            raise NotRegistered('the learner has not confirmed the address of their account yet')
        # Whoever is out again may have been put out by people; who never was in may have been refunded before that.
        is_doubtful = not found.active if found else refunded is None
        if is_doubtful and not self.resent:
            raise Rejected(f'the learner has an account now, and is not enrolled in {course_id}: was it '
                           'refunded? If not, resend it')
        _enrol(site, account.username, course_id, found, wanted, order_number)
    return ()


@task(policy=lambda site: site.enrolment_policy, key='item', lane=lane, about=about)
def revoke_line(self: Task, item: str, order_number: str, product: str, learner: str, course_id: str | None = None,
                mode: str | None = None, site_code: str | None = None, problem: str = '',
                shop: Any = None) -> Iterable[Then]:
    """Take one learner's course back, as ``REFUND`` has it, unless another paid order covers it; see ``COVERED_BY``."""
    site, origin = runtime.site(site_code), Origin.read(shop)
    if problem or course_id is None:
        return _unsettled(revoke_line, item, order_number, product, learner, site, site_code, problem, origin)
    paid, learner = _wanted(course_id, mode, learner)
    with _turn(self, site, course_id, learner):
        account, found = None, None
        try:
            account = site.lms.account(learner)
            found = site.lms.enrolment(account.username, course_id)
        except NotRegistered:
            pass
        if found and not found.active:
            raise Skip(f'the learner is no longer enrolled in {course_id}')
        is_paid = origin.is_paid(site) if origin else None
        if is_paid and not self.resent:
            # It may have read what it knew before, or the refund was a mistake and is undone by now.
            raise Transient(STILL_PAID)
        if found is None and (account is None or (site.covers and not account.active)):
            # They may have been let in: an account whose address is not confirmed is in no course yet.
            _look_for_cover(site, order_number, learner, course_id, site_code)
            if site.lms.disallow(learner, course_id):
                return ()
            if self.unanswered and site.covers and site.covers.taken_back:
                return ()  # an earlier try did it; or it came too early, and the enrolment will ask about it
        if account is None or found is None or (found.mode != paid.mode and found.mode in FREE):
            if self.unanswered and found and site.settings.REFUND == AUDIT:
                raise Skip(f'the learner is already enrolled as {found} in {course_id}')
            _wait_for_enrolment(site, is_paid, order_number, learner, course_id, site_code)
        if found.mode != paid.mode:
            raise Rejected(f'the learner is enrolled as {found} in {course_id}, but {paid} was refunded: '
                           f'where does {found} come from?')
        _look_for_cover(site, order_number, learner, course_id, site_code)
        if not account.active:
            site.lms.disallow(learner, course_id)  # else they would be enrolled again on confirming their address
        if site.settings.REFUND == AUDIT:
            if found.mode == AUDIT:
                raise Skip(f'the learner is already enrolled as {found} in {course_id}')
            site.lms.put(account.username, course_id, Enrolment(AUDIT, active=True))
        else:
            site.lms.put(account.username, course_id, Enrolment(found.mode, active=False))
    return ()


@task(policy=lambda site: site.report_policy, key='order_number')
def report_back(self: Task, order_number: str, shop: Any, seats: Any, whole: bool,
                site_code: str | None = None) -> None:
    """Tell the shop that the lines of an order are done, when all of them are.

    ``seats`` are what has to be seen in the LMS before that: mappings of ``line``, ``learner``, ``course_id`` and
    ``mode``.  ``whole`` means that the order has nothing else.  No enrolment depends on this.
    """
    del order_number
    site, origin = runtime.site(site_code), Origin.read(shop)
    if origin is None:
        raise WrongArguments('shop is missing')
    found = [_seat(it) for it in seats] if isinstance(seats, list | tuple) else []
    if not found:
        raise WrongArguments('seats are missing or invalid')
    with runtime.current().turn(f'report {origin.intake} {origin.order}', put_off=self.put_off,
                                lease=site.longest_enrolment):
        untold = origin.untold(site, {line for line, *_ in found}, whole=whole)
        if untold is None:
            raise Skip('the shop has this already, or no longer needs it')
        for line, learner, course_id, wanted in found:
            if line in untold.lines and site.lms.enrolment(site.lms.username(learner), course_id) != wanted:
                raise Transient(f'the line {printable(line)} is not done yet, or was taken back')
        untold.tell()


def _seat(given: Any) -> tuple[str, str, str, Enrolment]:
    """Line, learner, course, and how they are to stand there."""
    found = given if isinstance(given, Mapping) else {}
    line, learner, course_id, mode = (found.get(name) for name in ('line', 'learner', 'course_id', 'mode'))
    if not isinstance(line, str) or not isinstance(learner, str):
        raise WrongArguments('a seat is not valid')
    wanted, learner = _wanted(course_id, mode, learner)  # type: ignore[arg-type]  # whatever it is, it is looked at
    return line, learner, str(course_id), wanted


def _report(order_number: str, lines: Sequence[Line], parted: Sequence[Then], site_code: str | None,
            origin: Origin) -> list[Then]:
    """The task that reports to the shop; none if all lines wait for people."""
    ours = [it.kwargs for it in parted]
    left = {it['shop']['line'] for it in ours if it.get('problem') or it['course_id'] is None}
    seats = [{'line': it['shop']['line'], **{name: it[name] for name in ('learner', 'course_id', 'mode')}}
             for it in ours if it['shop']['line'] not in left]
    if not seats:
        return []
    bought = {line.id for line in lines if line.quantity}
    return [Then(report_back.name, {'order_number': order_number, 'shop': origin.message(), 'seats': seats,
                                    'whole': bought == {it['line'] for it in seats}, 'site_code': site_code})]


def _parted(follow: Task, order_number: str, lines: list[Line], site_code: str | None, origin: Origin | None,
            products: Products, *, lacking: bool) -> list[Then]:
    """What follows from an order: a task for each line, learner and course."""
    site = runtime.site(site_code)
    wanted = [line for line in lines if line.quantity]
    if not wanted:
        raise Skip('the order has no lines')
    known = [line for line in wanted if line.product in products]
    if not known and site.settings.UNKNOWN_PRODUCT == 'skip':
        raise Skip('none of its products is a course')
    if site.settings.UNKNOWN_PRODUCT == 'skip':
        wanted = known
    return [then for line in wanted
            for then in _of_line(follow, item_of(order_number, line.id), order_number, line, products, site_code,
                                 origin and origin.of_line(line.id), lacking=lacking)]


def _of_line(follow: Task, item: str, order_number: str, line: Line, products: Products, site_code: str | None,
             origin: Origin | None, *, lacking: bool) -> list[Then]:
    """A task for each learner and course, and one for what a person must decide."""
    count, seats = len(line.learners), counted(line.quantity, 'seat')
    found: list[dict[str, Any]] = []
    if count > line.quantity:
        found.append({'learner': '', 'problem': f'{_learners(count)} for {seats}: which of them is it for?'})
    else:
        courses: Sequence[Mapping[str, str | None]] = products.get(line.product) or [{'course': None, 'mode': None}]
        found += [{'learner': learner, 'course_id': it['course'], 'mode': it['mode']}
                  for learner in line.learners for it in courses]
        if count < line.quantity and (lacking or not count):
            problem = (f'{seats}, {_learners(count)}: the order has no mail address for the '
                       'others (see LEARNER)')
            found.append({'learner': '', 'problem': problem})
    items = [item] if len(found) == 1 else [f'{item}.{number}' for number in range(1, len(found) + 1)]
    return [Then(follow.name, {'item': name, 'order_number': order_number, 'product': line.product,
                               'course_id': None, 'mode': None, 'site_code': site_code, **_of(origin), **it})
            for name, it in zip(items, found, strict=True)]


def _of(origin: Origin | None) -> dict[str, Any]:
    return {'shop': origin.message()} if origin else {}


def _unsettled(follow: Task, item: str, order_number: str, product: str, learner: str, site: Site,
               site_code: str | None, problem: str, origin: Origin | None) -> list[Then]:
    """What becomes of a line that did not name its course: what follows from it by now."""
    if not isinstance(product, str):
        raise WrongArguments('product is not a SKU')
    sku = printable(product[:LONGEST]) or 'a product without a SKU'
    if problem:
        raise WrongArguments(printable(f'{sku}: {problem}'[:500]))
    if product not in site.settings.PRODUCTS:
        if site.settings.UNKNOWN_PRODUCT == 'skip':
            raise Skip('its product is not a course')
        raise Misconfigured((f'{sku} is not in PRODUCTS; add it there, then resend this',))
    return _of_line(follow, item, order_number, Line('', product, 1, (_address(learner),)),
                    site.settings.PRODUCTS, site_code, origin, lacking=True)


def _arguments(item: str, order_number: str, product: str, learner: str, course_id: str, mode: str | None,
               site_code: str | None, origin: Origin | None) -> dict[str, Any]:
    return {'item': item, 'order_number': order_number, 'product': product, 'learner': learner,
            'course_id': course_id, 'mode': mode, 'site_code': site_code, **_of(origin)}


def _number(given: Any) -> str:
    """The number of an order, by which its lines are known in the ledger."""
    if isinstance(given, bool) or not isinstance(given, str | int) or given == '':
        raise WrongArguments('order_number is not a string or an integer')
    return str(given)


def _address(learner: str) -> str:
    if addresses_in(learner) != (learner,):
        raise WrongArguments('learner is not a mail address')
    return learner


def _wanted(course_id: str, mode: str | None, learner: str) -> tuple[Enrolment, str]:
    """What was paid for, and the learner's address."""
    checked(course_id, mode or '')
    return Enrolment(str(mode), active=True), _address(learner)


def _turn(run: Task, site: Site, course_id: str, learner: str) -> AbstractContextManager[None]:
    """Hold the lock of a learner's course, so that no two runs work on it, whatever their orders."""
    who = hashlib.sha256(learner.casefold().encode()).hexdigest()
    return runtime.current().turn(f'{site.settings.LMS_ROOT_URL} {course_id} {who}', put_off=run.put_off,
                                  lease=site.longest_enrolment)


def _refuse_refunded(run: Task, site: Site, origin: Origin | None, found: Enrolment | None, wanted: Enrolment,
                     order_number: str, learner: str, course_id: str, site_code: str | None, *,
                     account: Account | None) -> None:
    """Raise ``Skip`` if it has been refunded since; park it if that is likely but unknown.

    An order may be delivered late, again, or after its refund; so the shop decides, then ``COVERED_BY``, and then
    whoever resends it.  ``COVERED_BY`` takes seconds: it is asked only where the learner stands as after a refund, who
    may be someone who had no account when the order came.
    """
    paid = origin.is_paid(site) if origin else None
    if paid is False:
        raise Skip(REFUNDED)
    left = Enrolment(AUDIT, active=True) if site.settings.REFUND == AUDIT else Enrolment(wanted.mode, active=False)
    if paid or (account and found != left and not _may_be_younger(account, origin)):
        return
    if site.covers and site.covers.taken_back:
        if site.covers.taken_back(order_number, learner, course_id, site_code):
            raise Skip(REFUNDED)
    elif found == left and not run.resent and not run.unanswered:
        # Not if an earlier try may have admitted them before they had an account, so that the LMS has enrolled them.
        reason = (f'the learner is {found} in {course_id}, as after a refund, and it is unknown whether this order was '
                  'refunded: if not, resend it; an API key of the shop in INTAKES, or COVERED_BY: ledger, lets the '
                  'worker find out')
        raise Misconfigured([reason])


def _may_be_younger(account: Account, origin: Origin | None) -> bool:
    """Whether the account may have been made after the order; not if either does not say when that was."""
    joined, placed = account.joined, origin.placed if origin else None
    return joined is not None and placed is not None and joined + CLOCK_SKEW > placed


def _is_refunded(site: Site, origin: Origin | None, order_number: str, learner: str, course_id: str,
                 site_code: str | None) -> bool | None:
    """Whether the order was refunded, according to the shop, or else to ``COVERED_BY``; None if unknown."""
    paid = origin.is_paid(site) if origin else None
    if paid is None and site.covers and site.covers.taken_back:
        return site.covers.taken_back(order_number, learner, course_id, site_code)
    return None if paid is None else not paid


def _close_again(site: Site, account: Account, order_number: str, learner: str, course_id: str,
                 found: Enrolment | None, site_code: str | None) -> None:
    """Undo an enrolment that the LMS made on registration, if the order is older than the account and was refunded."""
    if site.covers is None or site.covers.covers(order_number, learner, course_id, site_code):
        return
    if found is None:
        if not account.active:
            site.lms.disallow(learner, course_id)
    elif found.active and found.mode in FREE and site.settings.REFUND != AUDIT:
        site.lms.put(account.username, course_id, Enrolment(found.mode, active=False))


def _enrol(site: Site, username: str, course_id: str, found: Enrolment | None, wanted: Enrolment,
           order_number: str) -> None:
    """Enrol the learner, without lowering a mode that another order paid for."""
    if found and found.active and found.mode not in FREE:
        raise Rejected(f'the learner is enrolled as {found} in {course_id}, but {wanted} was paid for: which one is '
                       'right?')
    site.lms.put(username, course_id, wanted, order_number=order_number, force=site.settings.FORCE_ENROLLMENT)


def _look_for_cover(site: Site, order_number: str, learner: str, course_id: str, site_code: str | None) -> None:
    """Raise ``Skip`` if another paid order covers the course; park it if that is unknown."""
    if site.covers is None:
        reason = (f'{course_id} was refunded, and it is unknown whether another paid order covers the learner: decide '
                  'by hand, or set COVERED_BY and resend this')
        raise Misconfigured([reason])
    if site.covers.covers(order_number, learner, course_id, site_code):
        raise Skip('another paid order covers the learner')


def _wait_for_enrolment(site: Site, is_paid: bool | None, order_number: str, learner: str, course_id: str,
                        site_code: str | None) -> NoReturn:
    """Retry a refund that finds no enrolment, unless it is known that none will follow.

    A refund may arrive before its enrolment is done; if that is parked, it may be resent much later.
    """
    if is_paid is False:
        # An enrolment that comes later asks the shop, too.
        raise Skip(f'the learner has nothing in {course_id} that this order paid for')
    if site.covers and site.covers.taken_back and site.covers.taken_back(order_number, learner, course_id, site_code):
        raise Skip(f'the refund is already done: the learner has nothing in {course_id} that this order paid for')
    raise Transient(f'the refunded enrolment in {course_id} does not exist: it may still be in progress, or already '
                    'be cancelled')


def _learners(count: int) -> str:
    return counted(count, 'learner') if count else 'no learner'
