"""Purchases as reported to Sailthru: courses in a learner's cart, bought, or free.

::

    Enrolment ──► course: Sailthru's content, else the shop's ──► payload ──► POST purchase
                  (kept for a while)                                ▲
                  a new enrolment is taken off the user's list ─────┘
                  of courses left, before it is reported

What is known of it: https://getstarted.meetmarigold.com/engagebysailthru/Content/developers/api/purchase.html
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from typing_extensions import override

from ecommerce_worker import logs
from ecommerce_worker.email.message import is_address
from ecommerce_worker.errors import Rejected, Skip, Unauthorized, WrongArguments
from ecommerce_worker.sailthru.client import Sailthru, is_unknown

logger = logs.of(__name__)

#: More than any course costs, in units of its currency; what is above is a mistake (or an attempt on our memory).
MOST: Final = 10**9

#: The mode that a learner upgrades to, and those that cost nothing.
UPGRADED: Final = 'verified'
FREE: Final = ('audit', 'honor')

#: Courses that are remembered at most, and locks that the users share.
_COURSES: Final = 1024
_LOCKS: Final = 64


# --- What the shop says ---------------------------------------------------------------------------------------------


def cents(unit_cost: object) -> int:
    """Hundredths of what something costs, exactly; halves of a cent are rounded up.

    A Decimal, a whole number, or the text of either.  None is nothing: the shop always says what a seat costs, and
    the purchase counts more than its price.  Raises :class:`~ecommerce_worker.errors.WrongArguments`.
    """
    if unit_cost is None:
        return 0
    # A JSON number that is not an integer: its shortest text is what was written.
    given = str(unit_cost) if isinstance(unit_cost, float) else unit_cost
    if isinstance(given, bool) or not isinstance(given, Decimal | int | str):
        raise WrongArguments('the unit cost is not an amount')
    try:
        cost = Decimal(given)
        if not 0 <= cost <= MOST:
            raise WrongArguments(f'the unit cost is not between 0 and {MOST}')
        return int(cost.quantize(Decimal('0.01'), ROUND_HALF_UP).scaleb(2))
    except (InvalidOperation, ValueError):
        raise WrongArguments('the unit cost is not an amount') from None


def course_in(url: str) -> str:
    """The course that a page of the LMS, ``…/courses/<course id>/info``, belongs to; empty if it does not say."""
    found = re.search(r'/courses/(.+?)(?:/(?:info|about|course))?/?$', urlsplit(url).path)
    return unquote(found[1]) if found else ''


@dataclass(frozen=True, repr=False)
class Enrolment:
    """What the shop says happened: ``purchase_incomplete`` of a cart, else of what was bought or enrolled in.

    The fields are those of the historic call, in its order.  Raises
    :class:`~ecommerce_worker.errors.WrongArguments` for what cannot be reported.
    """

    email: str
    #: The course's page at the LMS: Sailthru knows the course by it.
    course_url: str
    purchase_incomplete: bool
    #: ``verified``, ``audit``, ``professional`` …
    mode: str
    #: In units of the currency; see :func:`cents`.
    unit_cost: Decimal | int | str | None = None
    course_id: str | None = None
    currency: str | None = None
    #: The mail that led to the purchase: Sailthru's cookie ``sailthru_bid``.
    message_id: str | None = None
    sku: str | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be reported."""
        if not isinstance(self.email, str) or not is_address(self.email):
            raise WrongArguments('the learner has no valid email address')
        if not _is_url(self.course_url):
            raise WrongArguments('the course has no http(s) URL')
        if not isinstance(self.purchase_incomplete, bool):
            raise WrongArguments('purchase_incomplete must be true or false')
        for name in ('course_id', 'currency', 'message_id', 'sku'):
            if not isinstance(getattr(self, name), str | None):
                raise WrongArguments(f'{name} is not a string')
        if not isinstance(self.mode, str) or not self.mode.strip():
            raise WrongArguments('the enrolment has no mode')
        if not self.course:
            raise WrongArguments('neither the course id nor the URL identifies the course')
        cents(self.unit_cost)

    @override
    def __repr__(self) -> str:
        """Without the learner: it may get into a traceback."""
        return f'<Enrolment in {self.course} {self.mode}{" (cart)" if self.purchase_incomplete else ""}>'

    @property
    def course(self) -> str:
        """The id of the course, such as ``course-v1:edX+Demo+2016``."""
        return self.course_id or course_in(self.course_url)

    @property
    def is_new(self) -> bool:
        """Whether the learner is new in the course: not for an upgrade or a cart."""
        return not self.purchase_incomplete and self.mode != UPGRADED


def _is_url(given: object) -> bool:
    if not isinstance(given, str) or re.search(r'\s', given):
        return False
    try:
        parts = urlsplit(given)
    except ValueError:
        return False
    return parts.scheme in ('http', 'https') and bool(parts.netloc)


# --- What is known of the course ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Course:
    """What a report says of a course beyond its id."""

    title: str = ''
    tags: Any = None
    vars: Mapping[str, Any] = field(default_factory=dict)


def course_of_sailthru(content: Mapping[str, Any]) -> Course:
    """The course in Sailthru's library of content; its empty mappings come as empty lists."""
    known = content.get('vars')
    return Course(str(content.get('title') or ''), content.get('tags') or None,
                  known if isinstance(known, Mapping) else {})


def course_of_shop(course: Mapping[str, Any]) -> Course:
    """The course in the shop's API."""
    deadline = course.get('verification_deadline')
    return Course(str(course.get('name') or ''), vars={'verification_deadline': deadline} if deadline else {})


class Courses:
    """Courses by their URLs, kept for some seconds, the oldest given up first; safe for threads."""

    def __init__(self, seconds: float, clock: Callable[[], float], most: int = _COURSES) -> None:
        self._seconds = seconds
        self._clock = clock
        self._most = most
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[float, Course]] = {}

    def get(self, url: str) -> Course | None:
        """The course, unless it was never kept or for too long."""
        with self._lock:
            until, course = self._kept.get(url, (float('-inf'), None))
            return course if self._clock() < until else None

    def keep(self, url: str, course: Course) -> None:
        """Keep a course from now on."""
        with self._lock:
            self._kept.pop(url, None)
            while len(self._kept) >= self._most:
                del self._kept[next(iter(self._kept))]
            self._kept[url] = (self._clock() + self._seconds, course)


# --- Reports to Sailthru ---------------------------------------------------------------------------------------------


def payload(enrolment: Enrolment, course: Course, options: Mapping[str, Any], extid: str = '') -> dict[str, Any]:
    """The report of an enrolment; ``options`` are the setting ``SAILTHRU``."""
    item = {
        'id': f'{enrolment.course}-{enrolment.mode}',
        'url': enrolment.course_url,
        'price': cents(enrolment.unit_cost),
        'qty': 1,
        'title': course.title or f'Course {enrolment.course} mode: {enrolment.mode}',
        **({'tags': course.tags} if course.tags else {}),
        'vars': {**course.vars, 'mode': enrolment.mode, 'course_run_id': enrolment.course,
                 'purchase_sku': enrolment.sku},
    }
    return {
        'email': enrolment.email,
        'items': [item],
        'incomplete': enrolment.purchase_incomplete,
        **({'message_id': enrolment.message_id} if enrolment.message_id else {}),
        **_mail_after(enrolment, options),
        **({'purchase_keys': {'extid': extid}} if extid else {}),
    }


def _mail_after(enrolment: Enrolment, options: Mapping[str, Any]) -> dict[str, str]:
    """The mail that Sailthru is to send because of it; none where its template is not configured."""
    if enrolment.purchase_incomplete:
        template = options.get('SAILTHRU_ABANDONED_CART_TEMPLATE')
        minutes = options.get('SAILTHRU_ABANDONED_CART_DELAY')
        return {'reminder_template': template, 'reminder_time': f'+{minutes} minutes'} if template else {}
    kind = 'UPGRADE' if enrolment.mode == UPGRADED else 'ENROLL' if enrolment.mode in FREE else 'PURCHASE'
    template = options.get(f'SAILTHRU_{kind}_TEMPLATE')
    return {'send_template': template} if template else {}


class Purchases:
    """Reports purchases of one site; ``course`` asks its shop for a course by id."""

    def __init__(self, sailthru: Sailthru, options: Mapping[str, Any], course: Callable[[str], Mapping[str, Any]], *,
                 clock: Callable[[], float] = time.monotonic) -> None:
        self._sailthru = sailthru
        self._options = options
        self._ask_shop = course
        self._courses = Courses(options['SAILTHRU_CACHE_TTL_SECONDS'], clock)
        self._locks = [threading.Lock() for _ in range(_LOCKS)]

    def report(self, enrolment: Enrolment, extid: str = '', *, repeated: bool = False) -> None:
        """Tell Sailthru of it.

        ``extid`` is our own name for the purchase, the same whenever it is tried again.  Where it may have been
        reported before (``repeated``) Sailthru is asked first, for it would count the purchase twice; raises
        :class:`~ecommerce_worker.errors.Skip` if it was.  A cart needs no such care: it replaces what was there.
        Raises :class:`~ecommerce_worker.errors.ApiError` otherwise; all before the report may be done again.
        """
        if enrolment.purchase_incomplete:
            extid = ''
        if extid and repeated and self._is_known(extid):
            raise Skip('Sailthru already has this purchase')
        course = self._course(enrolment)
        if enrolment.is_new:
            self._take_off_unenrolled(enrolment.email, enrolment.course_url)
        self._sailthru.post('purchase', payload(enrolment, course, self._options, extid))

    def _is_known(self, extid: str) -> bool:
        try:
            self._sailthru.get('purchase', {'purchase_id': extid, 'purchase_key': 'extid'})
        except Rejected as refusal:
            if is_unknown(refusal):
                return False
            raise
        return True

    def _course(self, enrolment: Enrolment) -> Course:
        kept = self._courses.get(enrolment.course_url)
        if kept:
            return kept
        course = self._look_up(enrolment)
        if course.title:
            self._courses.keep(enrolment.course_url, course)
        return course

    def _look_up(self, enrolment: Enrolment) -> Course:
        """The course as Sailthru knows it, else the shop; an outage of either is waited out, not reported around."""
        try:
            content = course_of_sailthru(self._sailthru.get('content', {'id': enrolment.course_url}))
        except Unauthorized:
            raise
        except Rejected:
            content = Course()
        if content.title:
            return content
        try:
            known = course_of_shop(self._ask_shop(enrolment.course))
        except (Rejected, WrongArguments) as refusal:
            logger.warning('reporting a course without its name', course=enrolment.course, reason=str(refusal))
            return content
        return Course(known.title, content.tags, {**known.vars, **content.vars})

    def _take_off_unenrolled(self, email: str, course_url: str) -> None:
        """The learner is in the course again: no longer list it among those left.

        Sailthru takes the list as a whole, so of two changes at the same time one would be lost: within this process
        they go one after the other.
        """
        with self._locks[hash(email.lower()) % _LOCKS]:
            try:
                known = self._sailthru.get('user', {'id': email, 'fields': {'vars': 1}}).get('vars')
            except Rejected as refusal:
                if is_unknown(refusal):
                    return
                raise
            left = known.get('unenrolled') if isinstance(known, Mapping) else None
            if isinstance(left, list) and course_url in left:
                staying = [url for url in left if url != course_url]
                self._sailthru.post('user', {'id': email, 'key': 'email', 'vars': {'unenrolled': staying}})
