"""The arguments of mail tasks, read into the types of an email."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from ecommerce_worker.email.message import Attachment, Email, Purpose
from ecommerce_worker.errors import WrongArguments

#: What a refund's template is filled with; the mail has neither a subject nor a body of its own.
REFUND: Final = ('refund_id', 'amount', 'course_name', 'order_number', 'order_url')

#: How deep variables may be nested.
DEEPEST: Final = 10


def is_blank(value: Any) -> bool:
    """Whether an argument is blank, which is how older shops leave one out."""
    return value is None or (isinstance(value, str) and not value)


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
    """The addresses in order, without blanks and repetitions; the domain is case-insensitive."""
    found: dict[tuple[str, str], str] = {}
    for address in filter(None, map(str.strip, addresses)):
        found.setdefault(_key(address), address)
    return tuple(found.values())


def _key(address: str) -> tuple[str, str]:
    local, _, domain = address.rpartition('@')
    return local, domain.lower()


def _ids(value: Any) -> dict[str, int | str | None]:
    """The recipients, and the LMS ids of those who have one."""
    if not isinstance(value, Mapping):
        raise ValueError
    ids = {_key(_text(address).strip()): _lms_id(id_) for address, id_ in value.items() if not is_blank(id_)}
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
    """The type of an argument, as described to support staff; ``read`` raises ``ValueError`` for anything else."""

    wants: str
    read: Callable[[Any], Any]


_TEXT = _Kind('text', _text)

_KINDS: Mapping[str, _Kind] = {
    'user_email': _Kind('a mail address', _address),
    'email': _Kind('a mail address', _address),
    'emails': _Kind('a string of comma-separated mail addresses', _addresses),
    'lms_user_ids_by_email': _Kind('a mapping of mail addresses to LMS user ids', _ids),
    'offer_assignment_id': _Kind('a number or a string', _id),
    'subject': _TEXT,
    'email_body': _TEXT,
    'email_body_variables': _Kind('a mapping of names to values that JSON can hold', _variables),
    'sender_alias': _TEXT,
    'reply_to': _Kind('text', lambda value: _text(value).strip()),
    'attachments': _Kind('a list of attachments, each with its file_name and url', _attachments),
    'site_code': _TEXT,
    'base_enterprise_url': _TEXT,
    'campaign_id': _TEXT,
    'refund_id': _Kind('a number or a string', _id),
    'amount': _Kind('text', _amount),
    'course_name': _TEXT,
    'order_number': _TEXT,
    'order_url': _TEXT,
}

#: The fields of an :class:`~ecommerce_worker.email.message.Email` that are called otherwise than the arguments.
_FIELDS: Mapping[str, str] = {'user_email': 'to', 'email': 'to', 'emails': 'to', 'email_body': 'body',
                              'email_body_variables': 'variables'}


def read_argument(name: str, value: Any) -> Any:
    """The value of an argument; raises :class:`~ecommerce_worker.errors.WrongArguments`."""
    try:
        return _KINDS[name].read(value)
    except ValueError:
        raise WrongArguments(f'{name} is not {_KINDS[name].wants}') from None


def email_of(purpose: Purpose, values: Mapping[str, Any]) -> Email:
    """The mail that these arguments describe."""
    fields = {_FIELDS.get(name, name): value for name, value in values.items()
              if name not in (*REFUND, 'lms_user_ids_by_email')}
    if 'lms_user_ids_by_email' in values:
        ids = values['lms_user_ids_by_email']
        fields |= {'to': tuple(ids), 'lms_user_ids': {it: id_ for it, id_ in ids.items() if id_ is not None}}
    if purpose is Purpose.REFUND:
        fields['variables'] = {name: values[name] for name in REFUND}
    return Email(purpose=purpose, **fields)
