"""The historic shapes of mail tasks: what each call that a shop has ever published asks for.

One name carried several orders of arguments over the years, and shops of any year may be at the other end.  So the
arguments of a call are named first, by the tables below, and only then read:

::

    args, kwargs ──named──► {'user_email': …, 'sender_alias': …} ──read──► Email ──checked──► fit to be sent
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from ecommerce_worker.clients.links import check_link
from ecommerce_worker.email.arguments import REFUND, email_of, is_blank, read_argument
from ecommerce_worker.email.message import Email, Purpose, is_address, one_line, without_addresses
from ecommerce_worker.errors import WrongArguments

SAILTHRU: Final = 'ecommerce_worker.sailthru.v1.tasks.'
EMAIL: Final = 'ecommerce_worker.email.v1.tasks.'


@dataclass(frozen=True)
class Shape:
    """What a task is called with: arguments by their names, in the order of their positions.

    ``head`` is what every call has.  ``signatures`` has what may follow it, by the first version with that signature,
    oldest first; ``sent`` what the shop did send after it by position, by the day that it began to.
    """

    purpose: Purpose
    head: str
    signatures: Mapping[str, str]
    sent: Mapping[str, str] = field(default_factory=dict)

    @property
    def newest(self) -> tuple[str, ...]:
        """The newest signature."""
        return (*self.head.split(), *list(self.signatures.values())[-1].split())

    @property
    def keywords(self) -> frozenset[str]:
        """The keywords of all versions."""
        return frozenset(' '.join([self.head, *self.signatures.values()]).split())


#: The text is a campaign's, and the recipients come with their ids in the LMS.
_TRIGGERED = Shape(
    Purpose.USAGE, 'lms_user_ids_by_email subject email_body_variables',
    signatures={'3.3.0': 'site_code campaign_id'},
    sent={'2022-06-23': ''},
)

#: Every mail task.  Where there are two shapes, the second is that of calls whose recipients come with ids.
SHAPES: Final[Mapping[str, tuple[Shape, ...]]] = {
    SAILTHRU + 'send_course_refund_email': (Shape(
        Purpose.REFUND, 'email refund_id amount course_name order_number order_url',
        signatures={'0.6.0': 'site_code'},
        sent={'2017-02-02': ''},
    ),),
    SAILTHRU + 'send_offer_assignment_email': (Shape(
        Purpose.ASSIGNMENT, 'user_email offer_assignment_id subject email_body',
        signatures={
            '0.7.1': 'site_code',
            '0.8.7': 'site_code base_enterprise_url',
            '1.1.5': 'sender_alias site_code base_enterprise_url',
        },
        sent={
            '2018-11-27': '',
            # Where the signature of the day had the site code: the shop's mistake.
            '2020-10-06': 'base_enterprise_url',
            # None for a site code.
            '2020-10-09': 'site_code base_enterprise_url',
            '2021-01-22': 'sender_alias site_code base_enterprise_url',
        },
    ),),
    SAILTHRU + 'send_offer_update_email': (Shape(
        Purpose.UPDATE, 'user_email subject email_body',
        signatures={
            '0.7.1': 'site_code',
            '1.1.5': 'sender_alias site_code',
            '1.1.12': 'sender_alias site_code base_enterprise_url',
        },
        sent={
            '2019-01-03': '',
            '2021-01-22': 'sender_alias',
            # Reminders: the same mistake again.
            '2021-03-19': 'sender_alias base_enterprise_url',
        },
    ),),
    SAILTHRU + 'send_offer_usage_email': (Shape(
        Purpose.USAGE, 'emails subject email_body',
        signatures={
            '0.7.3': 'site_code',
            '1.1.12': 'site_code base_enterprise_url',
        },
        sent={'2020-07-13': ''},
    ),),
    SAILTHRU + 'send_code_assignment_nudge_email': (Shape(
        Purpose.NUDGE, 'email subject email_body',
        signatures={
            '0.10.0': 'site_code',
            '1.1.10': 'sender_alias site_code',
            '1.1.12': 'sender_alias site_code base_enterprise_url',
        },
        sent={
            '2020-10-26': '',
            '2021-03-04': 'sender_alias',
        },
    ),),
    EMAIL + 'send_offer_assignment_email': (Shape(
        Purpose.ASSIGNMENT, 'user_email offer_assignment_id subject email_body',
        signatures={
            '2.0.0': 'sender_alias site_code base_enterprise_url',
            '2.1.0': 'sender_alias reply_to site_code base_enterprise_url',
            '2.2.0': 'sender_alias reply_to attachments site_code base_enterprise_url',
        },
        sent={
            '2021-05-07': 'sender_alias',
            '2021-05-27': 'sender_alias reply_to',
        },
    ),),
    EMAIL + 'send_offer_update_email': (Shape(
        Purpose.UPDATE, 'user_email subject email_body',
        signatures={
            '2.0.0': 'sender_alias site_code base_enterprise_url',
            '2.1.0': 'sender_alias reply_to site_code base_enterprise_url',
            '2.2.0': 'sender_alias reply_to attachments site_code base_enterprise_url',
        },
        sent={
            '2021-05-07': 'sender_alias',
            '2021-05-27': 'sender_alias reply_to',
        },
    ),),
    EMAIL + 'send_code_assignment_nudge_email': (Shape(
        Purpose.NUDGE, 'email subject email_body',
        signatures={
            '2.0.0': 'sender_alias site_code base_enterprise_url',
            '2.1.0': 'sender_alias reply_to site_code base_enterprise_url',
            '2.2.0': 'sender_alias reply_to attachments site_code base_enterprise_url',
        },
        sent={
            '2021-05-07': 'sender_alias',
            '2021-05-27': 'sender_alias reply_to',
        },
    ),),
    EMAIL + 'send_offer_usage_email': (Shape(
        Purpose.USAGE, 'emails subject email_body',
        signatures={
            '2.0.0': 'site_code base_enterprise_url',
            '2.1.0': 'reply_to site_code base_enterprise_url',
            '2.2.0': 'reply_to attachments site_code base_enterprise_url',
        },
        sent={'2021-05-07': ''},
    ), _TRIGGERED),  # in 3.2.0 only, and from 2022-06-23 to 2022-06-30
    EMAIL + 'send_api_triggered_offer_usage_email': (_TRIGGERED,),
}

#: What arguments were also called: before the first release, and by a slip of the pen.
ALSO_CALLED: Final[Mapping[str, str]] = {
    'offer_id': 'offer_assignment_id',
    'base_enteprise_url': 'base_enterprise_url',
}

#: What can be nothing else, and what nothing else can be.
UNMISTAKABLE: Final = frozenset({'attachments', 'base_enterprise_url'})


@dataclass(frozen=True)
class Resolved:
    """The mail that a call asks for, and what is to be said of the call: names of arguments, never values."""

    email: Email
    remarks: tuple[str, ...] = ()


def resolve(task: str, args: Sequence[Any], kwargs: Mapping[str, Any], sites: Container[str] = ()) -> Resolved:
    """The mail that a call of a mail task asks for, whatever year's shop published it.

    ``task`` is a full name in :data:`SHAPES`, ``sites`` are the codes of the sites that have settings of their own.
    Raises :class:`~ecommerce_worker.errors.WrongArguments`.
    """
    shape = _shape(task, args, kwargs)
    given, remarks = _named(shape, args, kwargs, sites)
    missing = [name for name in shape.head.split() if name not in given]
    if missing:
        raise WrongArguments(f'the call lacks {", ".join(missing)}')
    values = {name: read_argument(name, value) for name, value in given.items()}
    if values.get('reply_to') and not is_address(values['reply_to']):
        # The mail matters more than where an answer goes.
        del values['reply_to']
        remarks.append('left out reply_to, which is not a mail address')
    return Resolved(email_of(shape.purpose, values), tuple(remarks))


def site_of(task: str, args: Sequence[Any], kwargs: Mapping[str, Any], sites: Container[str] = ()) -> Any:
    """The site code that :func:`resolve` finds, as given; None if there is none or it is unknown."""
    try:
        return _named(_shape(task, args, kwargs), args, kwargs, sites)[0].get('site_code')
    except WrongArguments:
        return None


def checked(email: Email, hosts: Container[str] = ()) -> tuple[Email, tuple[str, ...]]:
    """The mail for its recipients with valid addresses, and the other recipients, which must not prevent it.

    Links to attachments must lead to a host of the Internet, or to one of ``hosts`` (in lower case).

    Raises :class:`~ecommerce_worker.errors.WrongArguments` for a mail that cannot be sent to anyone.
    """
    if not email.to:
        raise WrongArguments('the mail has no recipient')
    good = tuple(address for address in email.to if is_address(address))
    if not good:
        raise WrongArguments('no recipient is a valid mail address')
    if not one_line(email.subject) and email.purpose is not Purpose.REFUND:
        raise WrongArguments('the mail has no subject')
    if not (email.body.strip() or email.variables):
        raise WrongArguments('the mail is empty: it has neither a body nor variables')
    for number, attachment in enumerate(email.attachments, 1):
        check_link(attachment.url, f'the link of attachment {number}', hosts)
    return _only(email, good), tuple(address for address in email.to if not is_address(address))


def for_others(email: Email, task: str, to: tuple[str, ...]) -> dict[str, Any]:
    """Keyword arguments, ready for JSON, with which the same task sends the same mail to these recipients only."""
    recipients = ','.join(to)
    values = {
        'user_email': recipients, 'email': recipients, 'emails': recipients,
        'lms_user_ids_by_email': {address: email.lms_user_ids.get(address) for address in to},
        'subject': email.subject, 'email_body': email.body, 'email_body_variables': dict(email.variables),
        'sender_alias': email.sender_alias, 'reply_to': email.reply_to,
        'attachments': [{'file_name': file.name, 'url': file.url} for file in email.attachments],
        'site_code': email.site_code, 'base_enterprise_url': email.base_enterprise_url,
        'offer_assignment_id': email.offer_assignment_id, 'campaign_id': email.campaign_id,
        **{name: email.variables.get(name) for name in REFUND},
    }
    shape = SHAPES[task][-1 if email.variables else 0]
    return {name: values[name] for name in shape.newest if values[name] or name in shape.head.split()}


def _shape(task: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Shape:
    """The shape that a call has of those of its task."""
    shape, *others = SHAPES[task]
    for other in others:
        if other.head.split()[0] in kwargs or (args and isinstance(args[0], Mapping)):
            shape = other
    return shape


def _named(shape: Shape, args: Sequence[Any], kwargs: Mapping[str, Any],
           sites: Container[str]) -> tuple[dict[str, Any], list[str]]:
    """The arguments of a call by their current names, without blank ones; and remarks."""
    head = shape.head.split()
    tail, remarks = _tail(shape, args[len(head):], sites)
    named = list(zip([*head, *tail], args, strict=False))
    today = {name: ALSO_CALLED.get(name, name) for name in kwargs}
    named += [(today[name], value) for name, value in kwargs.items() if today[name] in shape.keywords]
    unknown = [name for name in kwargs if today[name] not in shape.keywords]
    if unknown:
        names = ', '.join(without_addresses(name[:200])[:40] for name in unknown[:10])
        remarks.append(f'ignored unknown arguments: {names}')
    given: dict[str, Any] = {}
    for name, value in named:
        if is_blank(value) and name not in head:
            continue  # a place-holder, or the default said aloud
        if name in given:
            raise WrongArguments(f'the call has two values for {name}')
        given[name] = value
    return given, remarks


def _tail(shape: Shape, values: Sequence[Any], sites: Container[str]) -> tuple[list[str], list[str]]:
    """The names of positional arguments that follow the head, and remarks on what may have been meant otherwise.

    As the shop sent them, if they look it.  It never sent the code of a site to a mail task, so none is looked for in
    its calls.  Other callers are believed to have read a signature: what each position has meant in any of them that
    is long enough is recognized by the value, and if it could be anything, the newest counts.
    """
    rows = [row for row in map(str.split, reversed([*shape.signatures.values()])) if len(row) >= len(values)]
    if not rows:
        raise WrongArguments('the call has too many arguments')
    sent = next((row for row in map(str.split, shape.sent.values())
                 if len(row) == len(values) and all(map(_fits, row, values))), None)
    names, remarks = [], []
    for position, value in enumerate(values):
        meanings = list(dict.fromkeys(row[position] for row in rows))
        if 'site_code' in meanings:
            meanings.append('base_enterprise_url')  # others may have made the shop's mistake
        look = _look(value, sites)
        if sent:
            name, doubtful = sent[position], look == 'site_code' and look in meanings
        elif look in meanings:
            name, doubtful = look, False
        else:
            possible = [it for it in meanings if it not in UNMISTAKABLE] or meanings
            name, doubtful = possible[0], len(possible) > 1 and not is_blank(value)
        names.append(name)
        if doubtful:
            number = len(shape.head.split()) + position + 1
            remarks.append(f'argument {number} is ambiguous: it was taken as {name}')
    return names, remarks


def _look(value: Any, sites: Container[str]) -> str:
    """The argument that a value looks like, whatever its position; '' if unknown."""
    if isinstance(value, list | tuple):
        return 'attachments'
    if not isinstance(value, str):
        return ''
    if '://' in value:
        return 'base_enterprise_url'
    if '@' in value:
        return 'reply_to'
    return 'site_code' if value in sites else ''


def _fits(name: str, value: Any) -> bool:
    """Whether the shop can have sent this value as that argument."""
    if name == 'sender_alias' and isinstance(value, str):
        return '://' not in value
    return is_blank(value) or _look(value, ()) == name


def _only(email: Email, to: tuple[str, ...]) -> Email:
    ids = {address: email.lms_user_ids[address] for address in to if address in email.lms_user_ids}
    return replace(email, to=to, lms_user_ids=ids)
