"""Kinds of values of settings."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from ecommerce_worker import durations
from ecommerce_worker.configuration.logger import without_missing_handlers
from ecommerce_worker.settings.pitfalls import pitfalls_in

#: Characters of a secret that makes others, at least.
LONG = 32


class Secrecy(Enum):
    """How much of a value is masked."""

    NONE = 'shown'
    PASSWORD = 'shown without the passwords in it'  # noqa: S105 - a word about secrets, none itself
    WHOLE = 'never shown'


@dataclass(frozen=True)
class Kind:
    """A kind of value: ``read`` converts the given value, or raises ValueError."""

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
    """A more specific problem of a value than being of another kind."""


class Unavailable(Unusable):
    """The file or variable that a value refers to does not exist."""


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


def seconds_of(low: float, high: float, *, whole: bool = False) -> Kind:
    """Seconds within bounds, or a duration such as 15m."""
    def read(given: Any) -> int | float:
        found = durations.seconds(given) if isinstance(given, str) else given
        if isinstance(found, bool) or not isinstance(found, (int, float)) or not low <= found <= high:
            raise ValueError
        if whole and found != int(found):
            raise ValueError
        return int(found) if whole else found

    return Kind(f'{durations.FORM}, from {durations.text(low)} to {durations.text(high)}', read)


def text(secrecy: Secrecy = Secrecy.NONE, *, takes_none: bool = False) -> Kind:
    """Any string."""
    return Kind('a string (in YAML, put it in quotes)', _text, secrecy=secrecy, takes_none=takes_none, takes_blank=True)


def optional(kind: Kind) -> Kind:
    """The same kind, or None."""
    return replace(kind, wants=f'{kind.wants}, or none', takes_none=True)


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
    """A literal of Python or, failing that, of YAML: templates write both."""
    try:
        found = ast.literal_eval(given.strip())
    except (ValueError, SyntaxError):
        return _yaml_literal(given)
    for node in ast.walk(ast.parse(given.strip(), mode='eval')):
        keys = [ast.unparse(key) for key in node.keys if key] if isinstance(node, ast.Dict) else []
        if twice := next((key for key in keys if keys.count(key) > 1), ''):
            raise Unusable(f'has the key {twice} twice')
    return found


def _yaml_literal(given: str) -> Any:
    try:
        loader = yaml.SafeLoader(given)
        node = loader.get_single_node()
        for _, _, problem in pitfalls_in(node):
            raise Unusable(f'cannot be used: {problem}')
        return None if node is None else loader.construct_document(node)
    except yaml.YAMLError:
        raise ValueError from None


def read_mapping(given: Any) -> dict[str, Any]:
    """A mapping, or a string of one; copied."""
    found = literal(given) if isinstance(given, str) else given
    if not isinstance(found, Mapping):
        raise ValueError
    for name in found:
        if not isinstance(name, str):
            raise Unusable(f'has the key {name!r}, which is not a string: put it in quotes')
    return {name: copied(value) for name, value in found.items()}


def copied(value: Any) -> Any:
    """A copy of the containers; other values are shared, since not everything can be copied."""
    if isinstance(value, Mapping):
        return {name: copied(item) for name, item in value.items()}
    return type(value)(map(copied, value)) if type(value) in (list, tuple) else value


def read_products(given: Any) -> dict[str, Any]:
    """A mapping, or one in a file of YAML that is named ``file:/path``."""
    if not isinstance(given, str) or not given.startswith('file:'):
        return read_mapping(given)
    path = given.removeprefix('file:')
    try:
        return read_mapping(_yaml_literal(Path(path).read_text(encoding='utf-8')))
    except Unusable as error:
        raise Unusable(f'in {path}: {error}') from None
    except OSError as error:
        raise Unusable(f'cannot be read from {path}: {error.strerror}') from None
    except ValueError:
        raise Unusable(f'cannot be read from {path}: it is not a mapping in YAML') from None


def _long_secret(given: Any) -> str:
    if len(_text(given)) < LONG:
        raise Unusable(f'must be {LONG} random characters or more; this has {len(given)}')
    return str(given)


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


def read_management(given: Any) -> str:
    """A URL of RabbitMQ's management plugin, with user and password, or none."""
    return _url(given) if _text(given) else ''


def read_ip_address(given: Any) -> str:
    """An IP address, or nothing."""
    return str(ip_address(given)) if _text(given) else ''


def read_address(given: Any) -> str:
    """A host and a port."""
    host, _, port = _text(given).rpartition(':')
    if not re.fullmatch(r'[\w.-]+|\[[0-9A-Fa-f:.]+\]', host) or not re.fullmatch(r'[1-9]\d{0,4}', port):
        raise ValueError
    if int(port) > 65_535:
        raise ValueError
    return str(given)


def read_addresses(given: Any) -> str:
    """A host and a port, or the first and the last of a range of ports; or nothing."""
    if _text(given):
        address, is_range, last = given.rpartition('-') if re.search(r':\d+-\d+$', given) else (given, '', '')
        read_address(address)
        if is_range and (read_address(f'{address.rpartition(":")[0]}:{last}')
                         and int(last) < int(address.rpartition(':')[2])):
            raise ValueError
    return str(given)


def read_processes(given: Any) -> int | str:
    """A number of processes, or ``auto``."""
    return 'auto' if given == 'auto' else int(whole(1, 256).read(given))


def read_absolute(given: Any) -> str:
    """An absolute path, or nothing."""
    if _text(given) and not Path(given).is_absolute():
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
    """A list, or a string of one; copied."""
    found = literal(given) if isinstance(given, str) else given
    if not isinstance(found, (list, tuple)):
        raise ValueError
    return [copied(item) for item in found]


def read_names(given: Any) -> list[str]:
    """A list of names, or a string of one."""
    found = (given.split(',') if isinstance(given, str) and given.lstrip()[:1] not in ('[', '(')
             else read_sequence(given))
    return [_text(name).strip() for name in found]


_VERIFYING = ('none', 'optional', 'required')


def _cert_reqs(given: Any) -> str:
    """How Celery, kombu and redis spell it: 'required', CERT_REQUIRED, 'ssl.CERT_REQUIRED', ssl.CERT_REQUIRED, 2."""
    if isinstance(given, int) and not isinstance(given, bool):
        return _VERIFYING[given] if 0 <= given < len(_VERIFYING) else one_of(*_VERIFYING).read(given)
    word = str(given).rpartition('.')[2].lower().removeprefix('cert_')
    return str(one_of(*_VERIFYING).read(word))


def _readable(given: Any) -> str:
    try:
        with Path(_text(given)).open('rb'):
            return str(given)
    except OSError as error:
        raise Unusable(f'{given} cannot be read: {error.strerror}') from None


def read_hosts(given: Any) -> tuple[str, ...]:
    """Names of hosts, in lower case."""
    found = tuple(name.lower().removesuffix('.') for name in read_names(given))
    if not all(re.fullmatch(r'[\w.-]+|[0-9a-f:.]+', name) for name in found):
        raise ValueError
    return found


_PART = r'\.*[\w~-][\w.~-]*'  # not only dots, which would lead elsewhere in a URL

#: Course ids of both forms: ``course-v1:edX+Demo+2016`` and ``edX/Demo/2016``.
COURSE_ID = re.compile(f'(course-v1:)?{_PART}([+/]{_PART}){{2}}')

#: How a mode of an enrolment is spelt: ``audit``, ``verified``, ``no-id-professional``.
MODE = re.compile('[a-z][a-z-]{0,99}')


def read_courses(given: Any) -> tuple[dict[str, str], ...]:
    """The courses that a product stands for, each with the mode that is paid for: one, or a list of them."""
    found = tuple(read_mapping(it) for it in ([given] if isinstance(given, Mapping) else read_sequence(given)))
    for it in found:
        if set(it) != {'course', 'mode'} or not all(isinstance(value, str) for value in it.values()):
            raise ValueError
        if not COURSE_ID.fullmatch(it['course']):
            raise Unusable(f'has the course {cut(it["course"], 60)}, which is not the id of a course')
        if not MODE.fullmatch(it['mode']):
            raise Unusable(f'has the mode {cut(it["mode"], 60)}; modes are verified, audit, honor and the like')
    if not found:
        raise ValueError
    return found


def read_ways(given: Any) -> tuple[str, ...]:
    """The places of learners' mail addresses in an order."""
    found = tuple(read_names(given))
    if not found or not all(re.fullmatch(r'buyer|(property|meta):.+', way) for way in found):
        raise ValueError
    return found


def read_tls(given: Any) -> bool | dict[str, Any]:
    """Whether TLS is used, or with which options."""
    if isinstance(given, bool) or (isinstance(given, str) and given.strip().lower() in _TRUTH):
        return _flag(given)
    found: dict[str, Any] = {}
    for name, value in read_mapping(given).items():
        option = name.removeprefix('ssl_')
        if option not in _TLS:
            raise Unusable(f'has no option {name}; there are {", ".join(sorted(_TLS))}')
        if value in (None, ''):
            continue
        try:
            found[option] = _TLS[option].read(value)
        except Unusable as error:
            raise Unusable(f'[{name}] {error}') from None
        except (ValueError, TypeError):
            raise Unusable(f'[{name}] must be {_TLS[option].wants}; this is {cut(repr(value), 60)}') from None
    if 'keyfile' in found and 'certfile' not in found:
        raise Unusable('names a keyfile without its certfile')
    return found


def read_redis(given: Any) -> str:
    """A URL of a Redis, or none."""
    if _text(given):
        parts = urlsplit(given)
        if parts.scheme not in ('redis', 'rediss', 'unix') or parts.port == 0:
            raise ValueError
    return str(given)


def as_it_is(given: Any) -> Any:
    """The value unchanged."""
    return given


FLAG = Kind('true or false', _flag)
TEXT = text()
SECRET = text(Secrecy.WHOLE, takes_none=True)
LONG_SECRET = Kind(f'a string of {LONG} random characters or more', _long_secret, secrecy=Secrecy.WHOLE,
                   takes_none=True)
URL = Kind('a URL such as https://shop.example.com/api/v2/', _url)
BROKER = Kind(
    'a URL such as amqp://user:password@host:5672// with special characters of the password percent-encoded,'
    " or a list of them, or several joined by ';'",
    _broker, secrecy=Secrecy.PASSWORD,
)
_TLS = {
    **dict.fromkeys(('ca_certs', 'certfile', 'keyfile'), Kind('the path of a file', _readable)),
    'cert_reqs': Kind('one of required, optional, none', _cert_reqs),
    'check_hostname': FLAG,
    'server_hostname': TEXT,
    'ciphers': TEXT,
}
SECONDS = seconds_of(0, 2_592_000)  # up to 30 days; RabbitMQ can hold a message back for eight years
PATIENCE = seconds_of(0.01, 3600)  # with another service
DURATION = seconds_of(1, 31_622_400)


def cut(shown: str, length: int) -> str:
    """The text, cut to a maximum length."""
    return shown if len(shown) <= length else shown[:length - 1] + '…'
