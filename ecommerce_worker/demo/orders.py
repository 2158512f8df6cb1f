"""Orders and mails of the demonstration: what happens to each, and how it has to end.  Pure: no clock, no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby, pairwise
from typing import Any, ClassVar, Final

from ecommerce_worker.fulfillment.names import FULFILL
from ecommerce_worker.testing.shop import Answer, Call, Order

ASSIGN: Final = 'ecommerce_worker.email.v1.tasks.send_offer_assignment_email'

#: The site with a shop and a token endpoint of its own, the one that signs its own tokens, and the one that sells
#: courses of an LMS by Shopify, with no Open edX shop in between.
CAMPUS, VINTAGE, ACADEMY = 'campus', 'vintage', 'academy'

#: Tries after the first when the shop refuses; the expectations below count on it.
REFUSALS: Final = 3


class End(StrEnum):
    """The place of an order or a mail at the end."""

    FULFILLED = 'fulfilled'
    ENROLLED = 'enrolled'
    SENT = 'sent'
    LEFT_ALONE = 'left alone'
    PARKED = 'parked'
    OPEN = 'open'
    UNKNOWN = 'unknown'


class Shape(StrEnum):
    """How a shop writes its messages."""

    PICKLE = 'Celery 5, pickle'
    JSON = 'Celery 5, JSON'
    OLD = 'Celery 3.1'


@dataclass(frozen=True)
class Story:
    """One order: the answers of the shop, and the facts that must hold afterwards."""

    number: str
    title: str
    answers: tuple[Answer, ...] = ()  # the shop's script of PUTs
    status: str = 'Open'
    hidden: int = 0  # calls that do not find it yet
    site: str | None = None
    opt_in: bool = False
    shape: Shape = Shape.PICKLE
    task: str = FULFILL
    queue: str = 'ecommerce.fulfillment'
    end: End = End.FULFILLED
    puts: int = 1
    pause: float = 0  # seconds that must lie between two PUTs
    reason: str = ''  # within the reason for which it is parked

    done: ClassVar = 'fulfilled'
    runs: ClassVar = 1  # how many messages of it are settled at the end

    @property
    def call(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of the task, as the shop gives them."""
        return (self.number,), {'site_code': self.site, 'email_opt_in': self.opt_in}

    def order(self) -> Order:
        """The order as it is at first in the shop's book."""
        return Order(self.number, self.status, answers=list(self.answers), hidden=self.hidden)


@dataclass(frozen=True)
class Letter:
    """One mail about a code: the answers of the mail service, and the facts that must hold afterwards."""

    assignment: int  # the id in the shop's table of who was given which code
    title: str
    to: str
    end: End = End.SENT
    tries: int = 1
    pause: float = 0  # seconds, from the first try on, in which the service takes no mail to that address
    reason: str = ''  # within the reason for which it is parked

    done: ClassVar = 'sent'
    task: ClassVar = ASSIGN
    queue: ClassVar = 'ecommerce.email_marketing'
    shape: ClassVar = Shape.PICKLE
    site: ClassVar = None

    @property
    def number(self) -> str:
        """The number that identifies it to people."""
        return f'mail {self.assignment}'

    @property
    def runs(self) -> int:
        """The number of its messages settled at the end: once it is sent, a second one reports it to the shop."""
        return 2 if self.end is End.SENT else 1

    @property
    def call(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of the task, as the shop gives them."""
        args = (self.to, self.assignment, 'Your course awaits', '<p>Your code: DEMO</p>', 'Acme', 'help@acme.example')
        return args, {'attachments': [], 'base_enterprise_url': ''}


@dataclass(frozen=True)
class Purchase:
    """An order of the academy: the SKUs that were bought and for whom, and how the learner must stand afterwards."""

    number: str
    title: str
    skus: tuple[str, ...]
    learner: str
    runs: int  # how many messages of it are settled at the end: of the order, its lines, and what follows from these
    end: End = End.ENROLLED
    refunded: bool = False
    reason: str = ''  # within the reason for which a line of it is parked

    done: ClassVar = 'enrolled'
    site: ClassVar = ACADEMY

    @property
    def courses(self) -> tuple[str, ...]:
        """The courses that it pays for."""
        return tuple(COURSES[sku] for sku in self.skus if sku in COURSES)

    def delivery(self, *, refunded: bool = False) -> dict[str, Any]:
        """The order as Shopify delivers it."""
        state = {'financial_status': 'refunded', 'refunds': [{'id': 1}]} if refunded else {'financial_status': 'paid'}
        return {'id': int(self.number.rpartition('-')[2]), 'name': self.number, 'test': False, 'email': self.learner,
                **state, 'line_items': [{'id': place, 'sku': sku, 'quantity': 1}
                                        for place, sku in enumerate(self.skus, 1)]}


TROUBLES = (
    Story('EDX-10001', 'nothing special', opt_in=True),
    Story('EDX-10002', 'a shop that writes JSON', shape=Shape.JSON, opt_in=True),
    Story('EDX-10003', 'a shop of 2015', shape=Shape.OLD, queue='fulfillment'),
    Story('EDX-10004', 'a slow answer', (Answer.slow(3),)),
    Story('EDX-10005', 'the shop is busy, twice', (Answer(503), Answer(503)), puts=3),
    Story('EDX-10006', 'published before committed', hidden=2, opt_in=True, puts=2),
    Story('EDX-10007', 'already fulfilled by another', status='Complete', end=End.LEFT_ALONE),
    Story('EDX-10008', 'too many requests: wait 4 s', (Answer(429, {'Retry-After': '4'}),), puts=2, pause=4),
    Story('EDX-10009', 'done, but the answer is lost', (Answer.lost(),)),
    Story('EDX-10010', 'a web page as the answer', (Answer.html(),), puts=2),
    Story('EDX-10011', 'another site with its LMS down', site=CAMPUS, opt_in=True),
    Story('EDX-10012', 'an older site, signed tokens', site=VINTAGE),
    Story('EDX-10013', 'an unknown task', task='ecommerce_worker.loyalty.v1.tasks.add_points',
          queue='ecommerce.default', end=End.PARKED, puts=0, reason='there is no task'),
)

#: Cannot be fulfilled, until a person repairs it and sends it again.
HOPELESS = Story('EDX-10014', 'cannot be fulfilled until repaired', (Answer(500).always(),), puts=REFUSALS + 2)

#: What the campus's token endpoint answers before it works.
TOKENS_AT_FIRST = (Answer(503), Answer(500))

#: In the hands of a worker that is killed.  The shop goes on with the first after its caller is gone, and drops the
#: second; both are over before the first redelivery can come back.
IN_MID_FLIGHT = (
    Story('EDX-10015', 'worker killed, the shop went on', (Answer.slow(2),), opt_in=True),
    Story('EDX-10016', 'worker killed, the shop gave up', (Answer(delay=2, drop=True),), puts=2),
)

#: Delivered over HTTP; while the second and the third are, RabbitMQ is away, if it is ours.
DELIVERED = (
    Story('EDX-10017', 'Shopify, delivered twice'),
    Story('EDX-10018', 'WooCommerce, which sends once'),
    Story('EDX-10019', 'Shopify, which retries'),
)

#: What the academy sells, by SKU, in the mode that is paid for.
COURSES: Final[Mapping[str, str]] = {'PY101': 'course-v1:Pretend+PY101+2027', 'PY102': 'course-v1:Pretend+PY102+2027'}
PAID_MODE: Final = 'verified'

#: A learner without an account; two products, the second of which is unknown; and a course that was bought twice, by
#: two orders, one of which is refunded.
NEWCOMER = Purchase('EDX-10020', 'a learner without an account', ('PY101',), 'newcomer@acme.example', 3)
MUG = Purchase('EDX-10021', 'an unknown product', ('PY101', 'MUG'), 'ann@acme.example', 3, End.PARKED,
               reason='MUG is not in PRODUCTS')
TWICE = (
    Purchase('EDX-10022', 'bought twice, refunded once', ('PY102',), 'bob@acme.example', 4, refunded=True),
    Purchase('EDX-10023', 'the other one still pays for it', ('PY102',), 'bob@acme.example', 2),
)
PURCHASES = (NEWCOMER, MUG, *TWICE)


LETTERS = (
    Letter(7001, 'a code is assigned', 'ann@acme.example'),
    Letter(7002, 'too many mails: wait 3 s', 'bob@acme.example', tries=2, pause=3),
    Letter(7003, 'refused: two dots in a row', 'eve..doe@acme.example', End.PARKED,
           reason='SendGrid refuses it (400): Does not contain a valid address.'),
)


@dataclass(frozen=True)
class Outcome:
    """The worker's log line about one run."""

    word: str
    reason: str = ''
    attempt: int = 0
    seconds: float = 0
    next_try: str = '-'

    @classmethod
    def of(cls, word: str, fields: Mapping[str, str]) -> Outcome:
        """Parse the fields of a log line."""
        return cls(word, fields.get('reason', ''), int(fields.get('attempt', 0)), float(fields.get('seconds', 0)),
                   fields.get('next_try', '-'))

    @property
    def final(self) -> bool:
        """Whether the worker has finished it."""
        return self.word in ('done', 'skipped', 'parked')

    def told(self, done: str = 'fulfilled') -> str:
        """A description in plain words; `done` is the verb for success."""
        if self.word != 'done':
            return self.reason
        which = f' at try {self.attempt}' if self.attempt > 1 else ''
        took = f' after {self.seconds:.1f} s' if self.seconds >= 1 else ''
        return f'{done}{which}{took}'


@dataclass(frozen=True)
class Seen:
    """The facts about one order or mail at the end, from the shop's book, the logs of calls and the broker."""

    order: Order | None = None
    calls: tuple[Call, ...] = ()
    parked: tuple[str, ...] = ()  # the reasons of its messages in ecommerce.parked
    told: tuple[str, ...] = ()  # remarks of worker and people, for display
    modes: tuple[str, ...] = ()  # how the learner stands in the courses that it pays for, '' for not at all

    @property
    def puts(self) -> list[Call]:
        """The calls that ask for fulfilment."""
        return [call for call in self.calls if call.is_put]

    @property
    def mails(self) -> list[Call]:
        """The calls that hand the mail over."""
        return [call for call in self.calls if call.mail]

    @property
    def accepted(self) -> int:
        """How often the mail service accepted it."""
        return sum(call.status == 202 for call in self.mails)

    @property
    def end(self) -> End:
        """Its place at the end."""
        if self.parked:
            return End.PARKED
        if self.accepted:
            return End.SENT
        if self.modes:
            return End.ENROLLED if all(self.modes) else End.OPEN
        if self.order is None:
            return End.UNKNOWN
        if self.order.status != 'Complete':
            return End.OPEN
        return End.FULFILLED if self.order.fulfilments else End.LEFT_ALONE


def faults(story: Story | Purchase | Letter, seen: Seen) -> list[str]:
    """Everything that is wrong."""
    found = []
    if seen.end is not story.end:
        found.append(f'it is {seen.end}, not {story.end}')
    match story:
        case Letter():
            found += _faults_of_mail(story, seen)
        case Purchase():
            found += [f'the learner is {mode or "not"} enrolled in {course}'
                      for course, mode in zip(story.courses, seen.modes, strict=False) if mode != PAID_MODE]
        case Story():
            found += _faults_of_order(story, seen)
    if story.end is End.PARKED and [reason for reason in seen.parked if story.reason not in reason]:
        found.append(f'it is parked for another reason: {seen.parked[0]}')
    if len(seen.parked) > 1:
        found.append(f'it is parked {len(seen.parked)} times')
    return found


def _faults_of_order(story: Story, seen: Seen) -> list[str]:
    found = []
    times = seen.order.fulfilments if seen.order else 0
    if times != (story.end is End.FULFILLED):
        found.append(f'the shop fulfilled it {times} times')
    if len(seen.puts) != story.puts:
        found.append(f'the shop was asked {len(seen.puts)} times, not {story.puts}')
    if any(call.overlapping for call in seen.puts):
        found.append('the shop was asked again during the first call')
    if any(later.time - earlier.time < story.pause for earlier, later in pairwise(seen.puts)):
        found.append(f'the shop was asked again before {story.pause:g} s had passed')
    if seen.order and times and seen.order.email_opt_in is not story.opt_in:
        found.append(f'the shop received email_opt_in={seen.order.email_opt_in}')
    return found


def _faults_of_mail(letter: Letter, seen: Seen) -> list[str]:
    found = []
    times = int(letter.end is End.SENT)
    if seen.accepted != times:
        found.append(f'the mail service accepted it {seen.accepted} times')
    if len(seen.mails) != letter.tries:
        found.append(f'the mail service was asked {len(seen.mails)} times, not {letter.tries}')
    if any(later.time - earlier.time < letter.pause for earlier, later in pairwise(seen.mails)):
        found.append(f'the mail service was asked again before {letter.pause:g} s had passed')
    reports = sum(call.assignment is not None and call.status == 200 for call in seen.calls)
    if reports != times:
        found.append(f'it was reported to the shop {reports} times')
    return found


def kind_of(call: Call) -> str:
    """The purpose of a call, in one word."""
    return 'mail' if call.mail else 'report' if call.assignment else call.method if call.order else 'token'


def counted(calls: Iterable[Call]) -> str:
    """The number of calls to shop, LMS and mail service, abbreviated."""
    kinds = list(map(kind_of, calls))
    shown = ('PUT', 'GET', 'token', 'mail', 'report')
    return ' '.join(f'{kinds.count(kind)} {kind}' for kind in shown if kind in kinds) or 'none'


def retold(told: Iterable[str]) -> str:
    """Join remarks to one sentence, without immediate repetitions."""
    parts = []
    for text, same in groupby(told):
        times = len(list(same))
        parts.append(text + {1: '', 2: ', twice'}.get(times, f', {times} times'))
    return '; '.join(parts)
