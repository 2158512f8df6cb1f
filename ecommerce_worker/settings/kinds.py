"""What a value of a setting may be."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any
from urllib.parse import urlsplit

import yaml

from ecommerce_worker.configuration.logger import without_missing_handlers


class Secrecy(Enum):
    """How much of a value nobody may see."""

    NONE = 'shown'
    PASSWORD = 'shown without the passwords in it'  # noqa: S105 - a word about secrets, none itself
    WHOLE = 'never shown'


@dataclass(frozen=True)
class Kind:
    """What a value may be: ``read`` makes the value in force of the one given, or raises ValueError."""

    wants: str
    read: Callable[[Any], Any]
    #: For a mapping that is merged key by key: the kind of a member (None: no such member), and the names it may have.
    member: Callable[[str], Kind | None] | None = None
    names: Collection[str] = ()
    secrecy: Secrecy = Secrecy.NONE
    takes_none: bool = False
    takes_blank: bool = False
    #: No ``${NAME}`` is looked for: the value has a use for such texts itself.
    verbatim: bool = False

    def of(self, name: str) -> Kind | None:
        """The kind of a member; None if there is no such member, or if this is one value and not many."""
        return self.member(name) if self.member else None


class Unusable(ValueError):
    """What is wrong with a value, where it is more than being of another kind."""


def _quantity(wants: str, cast: type[int | float], low: float, high: float) -> Kind:
    def read(given: Any) -> int | float:
        found = cast(given) if isinstance(given, str) else given
        if isinstance(found, bool) or not isinstance(found, (int, cast)) or not low <= found <= high:
            raise ValueError
        return found

    return Kind(f'{wants} from {low:,} to {high:,}', read)


def whole(low: int, high: int) -> Kind:
    """A whole number within bounds."""
    return _quantity('a whole number', int, low, high)


def number(low: float, high: float) -> Kind:
    """A number within bounds."""
    return _quantity('a number', float, low, high)


def _text(given: Any) -> str:
    if not isinstance(given, str):  # a number, unquoted in YAML, may have lost leading zeros by now
        raise ValueError  # not TypeError: a setting of the wrong type is a wrong value
    return given


def text(secrecy: Secrecy = Secrecy.NONE, *, takes_none: bool = False) -> Kind:
    """Any text."""
    return Kind('a text (in YAML, put it in quotes)', _text, secrecy=secrecy, takes_none=takes_none, takes_blank=True)


def optional(kind: Kind) -> Kind:
    """The same, or None."""
    return Kind(f'{kind.wants}, or none', kind.read, takes_none=True)


def one_of(*choices: str) -> Kind:
    """One of a few words."""
    def read(given: Any) -> str:
        if given not in choices:
            raise ValueError
        return str(given)

    return Kind('one of ' + ', '.join(choices), read)


def words(*choices: str) -> Kind:
    """One or more words, as a list or separated by commas; only of ``choices``, if there are any."""
    def read(given: Any) -> tuple[str, ...]:
        if isinstance(given, str):
            given = literal(given) if given.lstrip()[:1] in ('[', '(') else given.split(',')
        if not isinstance(given, (list, tuple)):
            raise ValueError
        found = tuple(_text(word).strip() for word in given)
        if not found or not all(found) or (choices and not set(found) <= set(choices)):
            raise ValueError
        return found

    return Kind('a list of one or more of ' + ', '.join(choices) if choices else 'a list of one or more names', read)


def literal(given: str) -> Any:
    """What Python or, failing that, YAML reads from a text: templates write both."""
    try:
        return ast.literal_eval(given.strip())
    except (ValueError, SyntaxError):
        try:
            return yaml.safe_load(given)
        except yaml.YAMLError:
            raise ValueError from None


def read_mapping(given: Any) -> dict[str, Any]:
    """A mapping, or a text of one; copied."""
    found = literal(given) if isinstance(given, str) else given
    if not isinstance(found, Mapping):
        raise ValueError
    return {str(name): copied(value) for name, value in found.items()}


def copied(value: Any) -> Any:
    """The same containers anew; what they hold stays as it is, for not everything can be copied."""
    if isinstance(value, Mapping):
        return {name: copied(item) for name, item in value.items()}
    return type(value)(map(copied, value)) if type(value) in (list, tuple) else value


def members(kinds: Mapping[str, Kind]) -> Kind:
    """A mapping of which each member has a kind of its own."""
    return Kind('a mapping', read_mapping, kinds.get, kinds, Secrecy.PASSWORD)


def each(kind: Kind) -> Kind:
    """A mapping of which all members are of one kind."""
    return Kind('a mapping', read_mapping, lambda _: kind, secrecy=Secrecy.PASSWORD)


_TRUTH = {'true': True, 'yes': True, 'on': True, '1': True, 'false': False, 'no': False, 'off': False, '0': False}


def _flag(given: Any) -> bool:
    try:
        return _TRUTH[str(given).strip().lower()]
    except KeyError:
        raise ValueError from None


def _url(given: Any) -> str:
    parts = urlsplit(_text(given))
    if parts.scheme not in ('http', 'https') or not parts.hostname or parts.port == 0 or re.search(r'\s', given):
        raise ValueError
    return str(given)


def read_origin(given: Any) -> str:
    """A URL without a path, and without the slash at its end."""
    if _text(given) and urlsplit(_url(given))[2:] not in (('', '', ''), ('/', '', '')):
        raise ValueError
    return str(given).rstrip('/')


def read_address(given: Any) -> str:
    """A host and a port."""
    host, _, port = _text(given).rpartition(':')
    if not re.fullmatch(r'[\w.-]+|\[[0-9A-Fa-f:.]+\]', host) or not re.fullmatch(r'[1-9]\d{0,4}', port):
        raise ValueError
    if int(port) > 65_535:
        raise ValueError
    return str(given)


def _broker(given: Any) -> str | list[str]:
    if isinstance(given, str) and given.lstrip().startswith('['):
        given = literal(given)
    urls = given.split(';') if isinstance(given, str) else list(given)
    for url in urls:
        scheme = re.match(r'(\w[\w+.-]*)://', _text(url))
        if scheme is None:
            raise ValueError
        if scheme[1] in ('amqp', 'amqps', 'pyamqp', 'redis', 'rediss'):
            _ = urlsplit(url).port  # raises ValueError where a password was not percent-encoded
    if not urls:
        raise ValueError
    return given if isinstance(given, str) else urls


def read_logging(given: Any) -> dict[str, Any]:
    """A mapping for ``logging.config.dictConfig``, without handlers that cannot work here."""
    found = without_missing_handlers(read_mapping(given))
    if found.get('version') != 1:
        raise ValueError
    return found


def read_sequence(given: Any) -> list[Any]:
    """A list, or a text of one; copied."""
    found = literal(given) if isinstance(given, str) else given
    if not isinstance(found, (list, tuple)):
        raise ValueError
    return [copied(item) for item in found]


def read_names(given: Any) -> list[str]:
    """A list of names, or a text of one."""
    found = (given.split(',') if isinstance(given, str) and given.lstrip()[:1] not in ('[', '(')
             else read_sequence(given))
    return [_text(name).strip() for name in found]


_UNITS = {'s': 1, 'm': 60, 'h': 3600, 'd': 86_400}


def _duration(given: Any) -> float:
    found = given
    if isinstance(given, str):
        amount, unit = (given.strip()[:-1], given.strip()[-1:]) if given.strip()[-1:] in _UNITS else (given, 's')
        found = float(amount) * _UNITS[unit]
    if isinstance(found, bool) or not isinstance(found, (int, float)) or not 1 <= found <= 31_622_400:
        raise ValueError
    return float(found)


def read_redis(given: Any) -> str:
    """A URL of a Redis, or none."""
    if _text(given):
        parts = urlsplit(given)
        if parts.scheme not in ('redis', 'rediss', 'unix') or parts.port == 0:
            raise ValueError
    return str(given)


def as_it_is(given: Any) -> Any:
    """Whatever was given."""
    return given


FLAG = Kind('true or false', _flag)
TEXT = text()
SECRET = text(Secrecy.WHOLE, takes_none=True)
URL = Kind('a URL such as https://shop.example.com/api/v2/', _url)
BROKER = Kind(
    'a URL such as amqp://user:password@host:5672// with special characters of the password percent-encoded,'
    " or a list of them, or several joined by ';'",
    _broker, secrecy=Secrecy.PASSWORD,
)
SECONDS = number(0, 2_592_000)  # up to 30 days; RabbitMQ can hold a message back for eight years
PATIENCE = number(0.01, 3600)  # with another service, in seconds
DURATION = Kind('seconds, or a text such as 45s, 10m, 6h, 7d, from 1 second to 366 days', _duration)
