"""The historic shapes of mail tasks: what each call that a shop has ever published asks for.

One name carried several orders of arguments over the years, and shops of any year may be at the other end.  So the
arguments of a call are named first, by the tables below, and only then read:

::

    args, kwargs ──named──► {'user_email': …, 'sender_alias': …} ──read──► Email ──checked──► fit to be sent
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, Final
from urllib.parse import urlsplit

from ecommerce_worker.email.message import Attachment, Email, Purpose, is_address, one_line, without_addresses
from ecommerce_worker.errors import WrongArguments

SAILTHRU: Final = 'ecommerce_worker.sailthru.v1.tasks.'
EMAIL: Final = 'ecommerce_worker.email.v1.tasks.'


@dataclass(frozen=True)
class Shape:
    """What a task is called with: arguments by their names, in the order of their positions.

    ``head`` is what every call has.  ``signatures`` tells what may follow it, by the first version that took it so,
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
        """What any version took by keyword."""
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

#: What a refund's template is filled with; the mail has neither a subject nor a body of its own.
REFUND: Final = ('refund_id', 'amount', 'course_name', 'order_number', 'order_url')

#: What can be nothing else, and what nothing else can be.
UNMISTAKABLE: Final = frozenset({'attachments', 'base_enterprise_url'})

#: How deep variables may be nested.
DEEPEST: Final = 10


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
    shape, *others = SHAPES[task]
    for other in others:
        if other.head.split()[0] in kwargs or (args and isinstance(args[0], Mapping)):
            shape = other
    given, remarks = _named(shape, args, kwargs, sites)
    missing = [name for name in shape.head.split() if name not in given]
    if missing:
        raise WrongArguments(f'the call lacks {", ".join(missing)}')
    values = {name: _read(name, value) for name, value in given.items()}
    if values.get('reply_to') and not is_address(values['reply_to']):
        # The mail matters more than where an answer goes.
        del values['reply_to']
        remarks.append('left out reply_to, which is no mail address')
    return Resolved(_email(shape.purpose, values), tuple(remarks))


def checked(email: Email) -> tuple[Email, tuple[str, ...]]:
    """The mail for those of its recipients whose address is one, and the others, whom it must not sink with them.

    Raises :class:`~ecommerce_worker.errors.WrongArguments` for a mail that nobody could be sent.
    """
    if not email.to:
        raise WrongArguments('the mail has no recipient')
    good = tuple(address for address in email.to if is_address(address))
    if not good:
        raise WrongArguments('no recipient of the mail is a mail address')
    if not one_line(email.subject) and email.purpose is not Purpose.REFUND:
        raise WrongArguments('the mail has no subject')
    if not (email.body.strip() or email.variables):
        raise WrongArguments('the mail is empty: it has neither a body nor variables')
    for number, attachment in enumerate(email.attachments, 1):
        _check_link(attachment.url, f'the link of attachment {number}')
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


# -- naming -----------------------------------------------------------------------------------------------------------

def _named(shape: Shape, args: Sequence[Any], kwargs: Mapping[str, Any],
           sites: Container[str]) -> tuple[dict[str, Any], list[str]]:
    """The arguments of a call by their names of today, without those that are left blank; and remarks."""
    head = shape.head.split()
    tail, remarks = _tail(shape, args[len(head):], sites)
    named = list(zip([*head, *tail], args, strict=False))
    today = {name: ALSO_CALLED.get(name, name) for name in kwargs}
    named += [(today[name], value) for name, value in kwargs.items() if today[name] in shape.keywords]
    unknown = [name for name in kwargs if today[name] not in shape.keywords]
    if unknown:
        names = ', '.join(without_addresses(name[:200])[:40] for name in unknown[:10])
        remarks.append(f'ignored arguments of unknown names: {names}')
    given: dict[str, Any] = {}
    for name, value in named:
        if _is_blank(value) and name not in head:
            continue  # a place-holder, or the default said aloud
        if name in given:
            raise WrongArguments(f'the call has two values for {name}')
        given[name] = value
    return given, remarks


def _tail(shape: Shape, values: Sequence[Any], sites: Container[str]) -> tuple[list[str], list[str]]:
    """The names of positional arguments that follow the head, and remarks on what may have been meant otherwise.

    As the shop sent them, if they look it.  It never sent the code of a site to a mail task, so none is looked for in
    its calls.  Other callers are believed to have read a signature: what each position has meant in any of them that
    is long enough is told apart by what the value looks like, and if it could be anything, the newest counts.
    """
    rows = [row for row in map(str.split, reversed([*shape.signatures.values()])) if len(row) >= len(values)]
    if not rows:
        raise WrongArguments('the call has more arguments than the task ever took')
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
            name, doubtful = possible[0], len(possible) > 1 and not _is_blank(value)
        names.append(name)
        if doubtful:
            number = len(shape.head.split()) + position + 1
            remarks.append(f'argument {number} may mean several things: it was taken as {name}')
    return names, remarks


def _look(value: Any, sites: Container[str]) -> str:
    """The argument that a value looks like, wherever it stands; '' if like nothing in particular."""
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
    """Whether the shop can have sent this as that."""
    if name == 'sender_alias' and isinstance(value, str):
        return '://' not in value
    return _is_blank(value) or _look(value, ()) == name


def _is_blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value)


# -- reading ----------------------------------------------------------------------------------------------------------

def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError
    value.encode()  # half a surrogate pair, which JSON can bring, can be sent nowhere
    return value


def _number(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 2 ** 63:
        raise ValueError
    return value


def _id(value: Any) -> int | str:
    return _number(value) if isinstance(value, int) else _filled(value)


def _filled(value: Any) -> str:
    if not _text(value).strip():
        raise ValueError
    return str(value).strip()


def _amount(value: Any) -> str:
    """An amount as the shop formatted it, with its currency, or the bare one."""
    return str(value) if isinstance(value, Decimal) else _text(value)


def _address(value: Any) -> tuple[str, ...]:
    return _once([_text(value)])


def _addresses(value: Any) -> tuple[str, ...]:
    return _once(_text(value).split(','))


def _once(addresses: Iterable[str]) -> tuple[str, ...]:
    """The addresses in their order, without blanks and repetitions; in the domain, case means nothing."""
    found: dict[tuple[str, str], str] = {}
    for address in filter(None, map(str.strip, addresses)):
        found.setdefault(_key(address), address)
    return tuple(found.values())


def _key(address: str) -> tuple[str, str]:
    local, _, domain = address.rpartition('@')
    return local, domain.lower()


def _ids(value: Any) -> dict[str, int | str | None]:
    """The recipients, and the id in the LMS of those who have one."""
    if not isinstance(value, Mapping):
        raise ValueError
    ids = {_key(_text(address).strip()): _lms_id(id_) for address, id_ in value.items() if not _is_blank(id_)}
    return {address: ids.get(_key(address)) for address in _once(map(_text, value))}


def _lms_id(value: Any) -> int | str:
    id_ = _id(value)
    if not re.fullmatch('[0-9]+', str(id_)):
        raise ValueError
    return id_


def _variables(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError
    return {_text(name): _variable(item, 1) for name, item in value.items()}


def _variable(value: Any, depth: int) -> Any:
    """A variable as JSON has it."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return _number(value)
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, Decimal):
        return str(value)
    if depth < DEEPEST and isinstance(value, Mapping):
        return {_text(name): _variable(item, depth + 1) for name, item in value.items()}
    if depth < DEEPEST and isinstance(value, list | tuple):
        return [_variable(item, depth + 1) for item in value]
    return _text(value)


def _attachments(value: Any) -> tuple[Attachment, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(it, Mapping) for it in value):
        raise ValueError
    return tuple(Attachment(_text(it.get('file_name')), _text(it.get('url')).strip()) for it in value)


@dataclass(frozen=True)
class _Kind:
    """What an argument holds, as a support person is told; ``read`` raises ``ValueError`` for anything else."""

    wants: str
    read: Callable[[Any], Any]


_TEXT = _Kind('text', _text)

_KINDS: Mapping[str, _Kind] = {
    'user_email': _Kind('a mail address', _address),
    'email': _Kind('a mail address', _address),
    'emails': _Kind('a text of mail addresses with commas between them', _addresses),
    'lms_user_ids_by_email': _Kind('a mapping of mail addresses to LMS user ids', _ids),
    'offer_assignment_id': _Kind('a number or a text', _id),
    'subject': _TEXT,
    'email_body': _TEXT,
    'email_body_variables': _Kind('a mapping of names to values that JSON can hold', _variables),
    'sender_alias': _TEXT,
    'reply_to': _Kind('text', lambda value: _text(value).strip()),
    'attachments': _Kind('a list of attachments, each with its file_name and url', _attachments),
    'site_code': _TEXT,
    'base_enterprise_url': _TEXT,
    'campaign_id': _TEXT,
    'refund_id': _Kind('a number or a text', _id),
    'amount': _Kind('text', _amount),
    'course_name': _TEXT,
    'order_number': _TEXT,
    'order_url': _TEXT,
}

#: The fields of an :class:`~ecommerce_worker.email.message.Email` that are called otherwise than the arguments.
_FIELDS: Mapping[str, str] = {'user_email': 'to', 'email': 'to', 'emails': 'to', 'email_body': 'body',
                              'email_body_variables': 'variables'}


def _read(name: str, value: Any) -> Any:
    try:
        return _KINDS[name].read(value)
    except ValueError:
        raise WrongArguments(f'{name} is not {_KINDS[name].wants}') from None


def _email(purpose: Purpose, values: Mapping[str, Any]) -> Email:
    fields = {_FIELDS.get(name, name): value for name, value in values.items()
              if name not in (*REFUND, 'lms_user_ids_by_email')}
    if 'lms_user_ids_by_email' in values:
        ids = values['lms_user_ids_by_email']
        fields |= {'to': tuple(ids), 'lms_user_ids': {it: id_ for it, id_ in ids.items() if id_ is not None}}
    if purpose is Purpose.REFUND:
        fields['variables'] = {name: values[name] for name in REFUND}
    return Email(purpose=purpose, **fields)


# -- checking ---------------------------------------------------------------------------------------------------------

def _only(email: Email, to: tuple[str, ...]) -> Email:
    ids = {address: email.lms_user_ids[address] for address in to if address in email.lms_user_ids}
    return replace(email, to=to, lms_user_ids=ids)


def _check_link(url: str, what: str) -> None:
    """Raise for a link that is none to a public host: vendors follow it, and its receivers may."""
    try:
        parts = urlsplit(url)
        host = (parts.hostname or '').encode('idna').decode().removesuffix('.')
        port = parts.port
    except ValueError:
        raise WrongArguments(f'{what} is no URL') from None
    if parts.scheme not in ('http', 'https') or not host or port == 0:
        raise WrongArguments(f'{what} is no http(s) URL')
    # Browsers read a backslash as a slash and drop line ends, so they would see another host.
    if not url.isprintable() or set(url) & {' ', '\\'}:
        raise WrongArguments(f'{what} holds characters that no URL has')
    if '@' in parts.netloc:
        raise WrongArguments(f'{what} holds a user name or a password')
    if not _is_public(host):
        raise WrongArguments(f'{what} leads to a host that is not on the Internet')


def _is_public(host: str) -> bool:
    """Whether a host is not evidently local; what its name stands for is found out only by whoever connects to it.

    Of IPv4 addresses only the usual form is known: 127.1, 0x7f000001 and 017700000001 are names that no host has.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return (re.fullmatch(r'([a-z0-9_-]+\.)+[a-z][a-z0-9-]*', host) is not None
                and not host.endswith(('.localhost', '.localdomain', '.local', '.internal', '.home.arpa')))
    if address.version == 6 and (address.sixtofour or address not in ipaddress.IPv6Network('2000::/3')):
        return False  # within it is everything that is public and stands for no other address
    return address.is_global and not address.is_multicast
