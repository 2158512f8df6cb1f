"""The configuration in force: read in layers, checked as a whole, never changed afterwards.

::

    configuration.base  ←  settings module  ←  YAML file  ←  environment   ═►  Settings  ←  SITE_OVERRIDES[code]
                           WORKER_CONFIG-      ECOMMERCE_    ECOMMERCE_                     Settings.for_site(code)
                           URATION_MODULE      WORKER_CFG    WORKER_<NAME>

What each setting means is told in ``configuration.base``; ``SETTINGS`` below tells what it may be.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import importlib
import logging
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import FunctionType, MappingProxyType, ModuleType
from typing import Any
from urllib.parse import urlsplit

import yaml

from ecommerce_worker.configuration import CONFIGURATION_MODULE, base
from ecommerce_worker.configuration.logger import without_missing_handlers
from ecommerce_worker.errors import Misconfigured

logger = logging.getLogger(__name__)

DEFAULT_MODULE = 'ecommerce_worker.configuration.local'
OWN_MODULES = tuple(f'ecommerce_worker.configuration.{name}' for name in ('devstack', 'local', 'production', 'test'))
YAML_FILE = 'ECOMMERCE_WORKER_CFG'
PREFIX = 'ECOMMERCE_WORKER_'

Names = tuple[str, ...]  # where a value stands: ('SITE_OVERRIDES', 'edx', 'BRAZE', 'FROM_EMAIL')


# --- What a setting may be ------------------------------------------------------------------------------------------


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


class _Unusable(ValueError):
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
            given = _literal(given) if given.lstrip()[:1] in ('[', '(') else given.split(',')
        if not isinstance(given, (list, tuple)):
            raise ValueError
        found = tuple(_text(word).strip() for word in given)
        if not found or not all(found) or (choices and not set(found) <= set(choices)):
            raise ValueError
        return found

    return Kind('a list of one or more of ' + ', '.join(choices) if choices else 'a list of one or more names', read)


def _literal(given: str) -> Any:
    """What Python or, failing that, YAML reads from a text: templates write both."""
    try:
        return ast.literal_eval(given.strip())
    except (ValueError, SyntaxError):
        try:
            return yaml.safe_load(given)
        except yaml.YAMLError:
            raise ValueError from None


def _mapping(given: Any) -> dict[str, Any]:
    found = _literal(given) if isinstance(given, str) else given
    if not isinstance(found, Mapping):
        raise ValueError
    return {str(name): _copy(value) for name, value in found.items()}


def _copy(value: Any) -> Any:
    """The same containers anew; what they hold stays as it is, for not everything can be copied."""
    if isinstance(value, Mapping):
        return {name: _copy(item) for name, item in value.items()}
    return type(value)(map(_copy, value)) if type(value) in (list, tuple) else value


def members(kinds: Mapping[str, Kind]) -> Kind:
    """A mapping of which each member has a kind of its own."""
    return Kind('a mapping', _mapping, kinds.get, kinds, Secrecy.PASSWORD)


def each(kind: Kind) -> Kind:
    """A mapping of which all members are of one kind."""
    return Kind('a mapping', _mapping, lambda _: kind, secrecy=Secrecy.PASSWORD)


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


def _origin(given: Any) -> str:
    if _text(given) and urlsplit(_url(given))[2:] not in (('', '', ''), ('/', '', '')):
        raise ValueError
    return str(given).rstrip('/')


def _address(given: Any) -> str:
    host, _, port = _text(given).rpartition(':')
    if not re.fullmatch(r'[\w.-]+|\[[0-9A-Fa-f:.]+\]', host) or not re.fullmatch(r'[1-9]\d{0,4}', port):
        raise ValueError
    if int(port) > 65_535:
        raise ValueError
    return str(given)


def _broker(given: Any) -> str | list[str]:
    if isinstance(given, str) and given.lstrip().startswith('['):
        given = _literal(given)
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


def _logging(given: Any) -> dict[str, Any]:
    found = without_missing_handlers(_mapping(given))
    if found.get('version') != 1:
        raise ValueError
    return found


def _sequence(given: Any) -> list[Any]:
    found = _literal(given) if isinstance(given, str) else given
    if not isinstance(found, (list, tuple)):
        raise ValueError
    return [_copy(item) for item in found]


def _names(given: Any) -> list[str]:
    found = given.split(',') if isinstance(given, str) and given.lstrip()[:1] not in ('[', '(') else _sequence(given)
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


def _redis(given: Any) -> str:
    if _text(given):
        parts = urlsplit(given)
        if parts.scheme not in ('redis', 'rediss', 'unix') or parts.port == 0:
            raise ValueError
    return str(given)


def _as_it_is(given: Any) -> Any:
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

# Settings that SITE_OVERRIDES may change: whatever is said to the services of one shop, and how patiently.
SITE_SETTINGS: Mapping[str, Kind] = {
    'ECOMMERCE_API_ROOT': URL,
    'MAX_FULFILLMENT_RETRIES': whole(0, 20),  # the wait doubles each time: twelve days before the 20th
    'FULFILLMENT_GIVE_UP_AFTER': SECONDS,
    'RETRY_DELAY_MIN': SECONDS,
    'RETRY_DELAY_MAX': SECONDS,
    'FULFILLMENT_READ_TIMEOUT': PATIENCE,
    'HTTP_CONNECT_TIMEOUT': PATIENCE,
    'HTTP_READ_TIMEOUT': PATIENCE,
    'AUTHENTICATION': one_of('auto', 'oauth2', 'jwt'),
    'BACKEND_SERVICE_EDX_OAUTH2_PROVIDER_URL': URL,
    'BACKEND_SERVICE_EDX_OAUTH2_KEY': TEXT,
    'BACKEND_SERVICE_EDX_OAUTH2_SECRET': SECRET,
    'JWT_SECRET_KEY': SECRET,
    'JWT_ISSUER': TEXT,
    'ECOMMERCE_SERVICE_USERNAME': TEXT,
    'EMAIL_VENDOR': TEXT,
    'EMAIL_OPTIONS': each(Kind('a value', _as_it_is, secrecy=Secrecy.PASSWORD, takes_none=True, takes_blank=True)),
    'EMAIL_WITHOUT_VENDOR': one_of('refuse', 'park', 'outbox'),
    'EMAIL_GIVE_UP_AFTER': SECONDS,
    'EMAIL_TEMPLATES': TEXT,
    'BRAZE': members({
        'BRAZE_ENABLE': FLAG,
        'BRAZE_REST_API_KEY': SECRET,
        'BRAZE_WEBAPP_API_KEY': SECRET,
        'REST_API_URL': URL,
        **dict.fromkeys(('MESSAGES_SEND_ENDPOINT', 'EMAIL_BOUNCE_ENDPOINT', 'NEW_ALIAS_ENDPOINT',
                         'USERS_TRACK_ENDPOINT', 'EXPORT_ID_ENDPOINT', 'CAMPAIGN_SEND_ENDPOINT', 'FROM_EMAIL'), TEXT),
        **dict.fromkeys((name for name in base.BRAZE if name.startswith('ENTERPRISE_')), text(takes_none=True)),
        'BRAZE_RETRY_SECONDS': SECONDS,
        'BRAZE_RETRY_ATTEMPTS': whole(0, 1000),
    }),
    'SAILTHRU': members({
        'SAILTHRU_ENABLE': FLAG,
        'SAILTHRU_API_URL': URL,
        'SAILTHRU_KEY': SECRET,
        'SAILTHRU_SECRET': SECRET,
        **dict.fromkeys(('SAILTHRU_UPGRADE_TEMPLATE', 'SAILTHRU_PURCHASE_TEMPLATE', 'SAILTHRU_ENROLL_TEMPLATE',
                         'SAILTHRU_ABANDONED_CART_TEMPLATE'), text(takes_none=True)),
        'SAILTHRU_ABANDONED_CART_DELAY': whole(0, 1_000_000),
        'SAILTHRU_MINIMUM_COST': whole(0, 100_000_000),
        'SAILTHRU_RETRY_SECONDS': SECONDS,
        'SAILTHRU_RETRY_ATTEMPTS': whole(0, 1000),
        'SAILTHRU_CACHE_TTL_SECONDS': SECONDS,
        'templates': each(text(takes_none=True)),
    }),
}

SETTINGS: Mapping[str, Kind] = {
    'BROKER_URL': BROKER,
    'BROKER_POOL_LIMIT': optional(whole(0, 10_000)),
    'BROKER_CONNECTION_TIMEOUT': PATIENCE,
    'BROKER_HEARTBEAT': number(0, 3600),
    'BROKER_HEARTBEAT_CHECKRATE': number(1, 100),
    'BROKER_TRANSPORT_OPTIONS': Kind('a mapping', _mapping, secrecy=Secrecy.PASSWORD),
    'ALLOW_UNSAFE_BROKER': FLAG,
    'QUEUES': words(),
    'QUEUE_TYPE': one_of('classic', 'quorum'),
    'DEFAULT_PRIORITY_QUEUE': TEXT,
    'CELERY_DEFAULT_QUEUE': TEXT,
    'CELERY_DEFAULT_EXCHANGE': TEXT,
    'CELERY_DEFAULT_ROUTING_KEY': TEXT,
    'WORKER_POOL': one_of('threads', 'prefork', 'solo'),
    'WORKER_CONCURRENCY': whole(1, 10_000),
    'SHUTDOWN_SECONDS': number(0, 86_400),
    'PUBLISH_FACTS': FLAG,
    'DATABASES': members({'default': each(Kind('a value', _as_it_is, secrecy=Secrecy.PASSWORD, takes_none=True,
                                               takes_blank=True))}),
    'LEDGER_KEEP_DAYS': whole(1, 36_500),
    'LEDGER_KEEP_PARKED_DAYS': whole(0, 36_500),
    'CONSOLE_ADDRESS': Kind('a host and a port such as 127.0.0.1:8130', _address),
    'CONSOLE_URL': Kind('a URL without a path, such as https://orders.example.com', _origin, takes_blank=True),
    'CONSOLE_SECRET_KEY': SECRET,
    'CONSOLE_SESSION_SECONDS': whole(60, 2_592_000),
    'CONSOLE_RESENDS_PER_HOUR': whole(0, 1000),
    **dict.fromkeys(('CELERY_TASK_SERIALIZER', 'CELERY_RESULT_SERIALIZER', 'CELERY_EVENT_SERIALIZER'),
                    one_of('json', 'pickle', 'yaml')),
    'CELERY_ACCEPT_CONTENT': words('json', 'pickle', 'yaml'),
    'CELERY_IMPORTS': words(),
    'CELERY_ALWAYS_EAGER': FLAG,
    'CELERYD_HIJACK_ROOT_LOGGER': FLAG,
    'CELERY_RESULT_BACKEND': text(takes_none=True),
    'SCHEDULE': each(members({
        'task': TEXT,
        'crontab': text(takes_none=True),
        'interval': optional(DURATION),
        'args': Kind('a list', _sequence),
        'kwargs': Kind('a mapping', _mapping),
        'queue': TEXT,
        'expires': optional(DURATION),
        'enabled': FLAG,
    })),
    'SCHEDULE_STATE': TEXT,
    'DJANGO_PROJECT_SETTINGS': TEXT,
    'DJANGO_PROJECT_DIRECTORY': TEXT,
    'DJANGO_PROJECT_PYTHON': TEXT,
    'DJANGO_PROJECT_ENVIRONMENT': each(TEXT),
    'MANAGEMENT_COMMANDS': Kind('a list of names', _names),
    'MANAGEMENT_COMMAND_TIMEOUT': number(0.1, 86_400),
    'WAKE_UP_URL': Kind('a URL such as redis://:password@host:6379/0', _redis, secrecy=Secrecy.PASSWORD,
                        takes_blank=True),
    'WAKE_UP': each(members({'channel': TEXT, 'message': TEXT})),
    'REDELIVERY_DELAY': SECONDS,
    'REDELIVERY_LIMIT': whole(1, 1000),
    'ALLOW_INSECURE_SECRETS': FLAG,
    'LOG_LEVEL': one_of('DEBUG', 'INFO', 'WARNING', 'ERROR', 'CRITICAL'),
    'LOGGING': Kind('a mapping for logging.config.dictConfig, with version 1', _logging, secrecy=Secrecy.PASSWORD,
                    verbatim=True),
    **SITE_SETTINGS,
    'SITE_OVERRIDES': each(members(SITE_SETTINGS)),
}

# A copy, taken before any settings module could write into the mappings that it got from base.
DEFAULTS: Mapping[str, Any] = {name: _copy(value) for name, value in vars(base).items() if name in SETTINGS}


# --- Names ----------------------------------------------------------------------------------------------------------

# Celery's newer spellings of settings listed here: broker_url, task_serializer, CELERY_BROKER_URL …
_SPELLINGS = {
    spelling: name
    for name in SETTINGS if name.startswith(('BROKER_', 'CELERY_', 'CELERYD_'))
    for area, _, rest in [name.lower().partition('_')]
    for lower in ([f'broker_{rest}'] if area == 'broker' else
                  [f'worker_{rest}'] if area == 'celeryd' else [rest, f'task_{rest}'])
    for spelling in (lower, f'CELERY_{lower.upper()}') if spelling != name
}

# Settings of Celery that are not listed here, in its old names and its new ones.
_CELERY_STYLE = re.compile(
    r'(CELERY|CELERYD|CELERYBEAT|BROKER)_[A-Z0-9_]+|include|timezone|enable_utc'
    r'|(beat|broker|cache|control|database|event|mongodb|redis|result|security|task|worker)_[a-z0-9_]+',
)

# Kubernetes describes a service named "ecommerce-worker" in variables like these; they are not meant for us.
_KUBERNETES = re.compile(PREFIX + r'(SERVICE_HOST|SERVICE_PORT|PORT)(_\w+)?')


def _setting(name: str) -> str:
    return _SPELLINGS.get(name, name)


def _label(names: Names) -> str:
    """A place as people read it: ``SITE_OVERRIDES[edx].BRAZE[FROM_EMAIL]``."""
    if names[0] == 'SITE_OVERRIDES' and len(names) > 2:  # a setting of a site, not a site
        return f'SITE_OVERRIDES[{names[1]}].{_label(names[2:])}'
    return names[0] + ''.join(f'[{name}]' for name in names[1:])


def _did_you_mean(name: str, names: Iterable[str], likeness: float = 0.6) -> str:
    by_spelling = {known.casefold(): known for known in names}
    close = difflib.get_close_matches(name.casefold(), by_spelling, 1, likeness)
    return f'; did you mean {by_spelling[close[0]]}?' if close else ''


# --- Secrets --------------------------------------------------------------------------------------------------------

_SECRET_NAME = re.compile(r'secret|passw|token|credential|dsn|(?<!routing)_key$|^key$', re.IGNORECASE)

# The password of a URL reaches to the last '@' before the next URL: unencoded, it may hold anything else.
_URL_PASSWORD = re.compile(r'(://[^:/@\s]*:)(?:(?!://).)*?(@[^@;]*(?:;|$))', re.DOTALL)
_QUERY_PASSWORD = re.compile(r'([?&][\w-]*(?:password|passwd|secret|token|key)=)[^&;\s]+', re.IGNORECASE)


def mask(name: str, value: object) -> str:
    """The value of a setting as text that anybody may see: secrets and the passwords within URLs are ``***``."""
    shown = _masked(name, value)
    return shown if isinstance(shown, str) and shown else repr(shown)


def _masked(name: str, value: object) -> object:
    kind = SETTINGS.get(name)
    if (kind.secrecy is Secrecy.WHOLE if kind else _SECRET_NAME.search(name)) and value not in (None, ''):
        return '***'
    if isinstance(value, str):
        return _QUERY_PASSWORD.sub(r'\1***', _URL_PASSWORD.sub(r'\1***\2', value))
    if isinstance(value, Mapping):
        return {key: _masked(str(key), item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_masked('', item) for item in value]
    return value


def _cut(shown: str, length: int) -> str:
    return shown if len(shown) <= length else shown[:length - 1] + '…'


# --- The settings in force ------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, repr=False)
class Settings:
    """The settings in force, each an attribute of its own name: ``settings.BROKER_URL``."""

    #: Settings of Celery that ``configuration.base`` does not list, as they were given.
    extra: Mapping[str, Any]
    #: Where each value came from: ``default``, ``/etc/worker.yml:3``, ``environment ECOMMERCE_WORKER_BROKER_URL``.
    sources: Mapping[str, str]
    #: What is no mistake but should be known.
    remarks: tuple[str, ...]
    _values: Mapping[str, Any]
    _sites: dict[str, Settings] = field(default_factory=dict)
    _strangers: set[str] = field(default_factory=set)

    def __getattr__(self, name: str) -> Any:
        if name.startswith('_') or name not in self._values:
            message = f'there is no setting {name}' + _did_you_mean(name, SETTINGS)
            raise AttributeError(message)
        return self._values[name]

    def __repr__(self) -> str:
        return f'<Settings {self.authentication}, sites: {", ".join(self.site_codes) or "none"}>'

    @property
    def site_codes(self) -> tuple[str, ...]:
        """The sites with settings of their own."""
        return tuple(self._sites)

    @property
    def authentication(self) -> str:
        """How the worker proves who it is: ``oauth2`` or ``jwt``."""
        if self.AUTHENTICATION != 'auto':
            return str(self.AUTHENTICATION)
        ours = (self.BACKEND_SERVICE_EDX_OAUTH2_KEY, self.BACKEND_SERVICE_EDX_OAUTH2_SECRET)
        if all(value and value not in _SHIPPED for value in ours):
            return 'oauth2'
        return 'jwt' if self.JWT_SECRET_KEY else 'oauth2'

    @property
    def email_vendor(self) -> str:
        """Who sends mail; '' if nobody does and it is parked."""
        if self.EMAIL_VENDOR:
            return str(self.EMAIL_VENDOR)
        if self.BRAZE['BRAZE_ENABLE']:
            return 'braze'
        if self.SAILTHRU['SAILTHRU_ENABLE']:
            return 'sailthru'
        return 'outbox' if self.EMAIL_WITHOUT_VENDOR == 'outbox' else ''

    def for_site(self, code: str | None) -> Settings:
        """The settings for one site's messages; these here for no site, and for one without settings of its own."""
        if not code:
            return self
        if code in self._sites:
            return self._sites[code]
        # Codes come with messages, so what is remembered of them is limited.
        if code not in self._strangers and len(self._strangers) < 1000:
            self._strangers.add(code)
            logger.info('A site without settings of its own uses the defaults', extra={'site_code': code})
        return self

    def rows(self) -> list[tuple[str, str, str]]:
        """Name, value without secrets, and source of everything in force, in the order of the reference page."""
        listed = sorted(_leaves(self._values), key=lambda leaf: _ORDER[leaf[0][0]])
        extra = [((name,), value) for name, value in self.extra.items()]
        return [(_label(names), _cut(mask(names[-1], value), 200), self.sources[_label(names)])
                for names, value in (*listed, *extra)]


_ORDER = {name: position for position, name in enumerate(DEFAULTS)}

# Known to everybody: those of base, and that of the workers before.
_SHIPPED = (base.BACKEND_SERVICE_EDX_OAUTH2_KEY, base.BACKEND_SERVICE_EDX_OAUTH2_SECRET, 'insecure-secret-key')


def _leaves(values: Mapping[str, Any], names: Names = ()) -> Iterator[tuple[Names, Any]]:
    for name, value in values.items():
        if isinstance(value, MappingProxyType):
            yield from _leaves(value, (*names, name))
        else:
            yield (*names, name), value


def _frozen(values: Mapping[str, Any], kind: Kind) -> Mapping[str, Any]:
    """Mappings that are merged key by key become read-only; the others stay what logging and Celery insist on."""
    return MappingProxyType({
        name: _frozen(value, inner) if (inner := kind.of(name)) and inner.member else value
        for name, value in values.items()
    })


def _laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> Mapping[str, Any]:
    """The last word of two, key by key where a mapping is merged."""
    return MappingProxyType({**below, **{
        name: _laid_over(below.get(name, {}), value) if isinstance(value, MappingProxyType) else value
        for name, value in above.items()
    }})


# --- Layers ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Layer:
    """Values from one place, and where exactly each stands."""

    values: Mapping[str, Any]
    where: Callable[[Names], str]
    #: Everything in it is meant for us, so a name we do not know is a mistake.
    ours: bool = True


class _Unreadable(Exception):
    """A layer that cannot be read at all."""


def _in_file(path: str, lines: Mapping[Names, int]) -> Callable[[Names], str]:
    def where(names: Names) -> str:
        """``path:line`` of the innermost name whose line is known."""
        for end in range(len(names), 0, -1):
            if names[:end] in lines:
                return f'{path}:{lines[names[:end]]}'
        return path

    return where


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:  # it may be somebody else's code, which may raise anything
        guess = _did_you_mean(name, OWN_MODULES) if isinstance(error, ModuleNotFoundError) else ''
        cause = f'{type(error).__name__}: {error}'
        raise _Unreadable(f'{CONFIGURATION_MODULE} names {name}, which cannot be imported: {cause}{guess}') from error


def _module_layer(module: ModuleType) -> _Layer:
    """What a settings module says differently from base, or says again."""
    lines = _assignments(module)
    values = {
        _setting(name): value for name, value in vars(module).items()
        if not isinstance(value, (ModuleType, FunctionType, type))
        and (_setting(name) in SETTINGS or _CELERY_STYLE.fullmatch(name))
        and ((_setting(name),) in lines or name not in DEFAULTS or value != DEFAULTS[name])
    }
    return _Layer(values, _in_file(module.__file__ or module.__name__, lines), ours=False)


def _assignments(module: ModuleType) -> dict[Names, int]:
    """The last line that gives each name a value; nothing where there is no source to look into."""
    try:
        tree = ast.parse(Path(str(module.__file__)).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return {}
    lines: dict[Names, int] = {}
    for node in ast.walk(tree):
        if isinstance(node, (ast.Name, ast.Subscript)) and isinstance(node.ctx, ast.Store):
            target: ast.expr = node
            while isinstance(target, ast.Subscript):  # BRAZE['FROM_EMAIL'] = … changes BRAZE
                target = target.value
            if isinstance(target, ast.Name):
                name = _setting(target.id)
                lines[name,] = max(node.lineno, lines.get((name,), 0))
    return lines


def _yaml_layer(path: str) -> _Layer:
    try:
        loader = yaml.SafeLoader(Path(path).read_text(encoding='utf-8'))
        node = loader.get_single_node()
        values = {} if node is None else _copy(loader.construct_document(node))
    except OSError as error:
        raise _Unreadable(f'{path}: {error.strerror} ({YAML_FILE} names this file)') from error
    except yaml.MarkedYAMLError as error:
        # Not str(error): it quotes the line, and a line may hold a secret.
        mark = error.problem_mark or error.context_mark
        place = f'{path}:{mark.line + 1}:{mark.column + 1}' if mark else path
        raise _Unreadable(f'{place}: this is no YAML: {error.problem or error.context}') from error
    except (yaml.YAMLError, ValueError) as error:
        reason = getattr(error, 'reason', None) or 'a value cannot be read'
        raise _Unreadable(f'{path}: this is no YAML: {reason}') from error
    except RecursionError as error:
        raise _Unreadable(f'{path}: a part of it contains itself') from error
    if not isinstance(values, dict):
        raise _Unreadable(f'{path}: this must be a mapping of settings, not a {type(values).__name__}')
    return _Layer({_setting(str(name)): value for name, value in values.items()}, _in_file(path, dict(_lines(node))))


def _lines(node: yaml.Node | None, names: Names = ()) -> Iterator[tuple[Names, int]]:
    """The line of each key, no deeper than settings go: an alias may refer to what it stands in."""
    if isinstance(node, yaml.MappingNode) and len(names) < 5:
        for key, value in node.value:
            inner = (*names, str(key.value)) if names else (_setting(str(key.value)),)
            yield inner, key.start_mark.line + 1
            yield from _lines(value, inner)


def _plain(given: str) -> Any:
    """The number or truth that a text for Celery stands for, else the text itself: Celery does not read texts."""
    with contextlib.suppress(ValueError):
        return _literal(given)
    return given


def _environment_layer(environ: Mapping[str, str]) -> _Layer:
    variables = {
        _setting(variable.removeprefix(PREFIX)): variable for variable in environ
        if variable.startswith(PREFIX) and variable != YAML_FILE and not _KUBERNETES.fullmatch(variable)
    }
    values = {name: environ[variable] if name in SETTINGS else _plain(environ[variable])
              for name, variable in variables.items()}
    return _Layer(values, lambda names: f'environment {variables[names[0]]}')


# --- Laying one over the other --------------------------------------------------------------------------------------

_REFERENCE = re.compile(r'(\$?)\$\{(\w+)\}')


class _Draft:
    """Settings while they are put together; collects all that is wrong."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.values: dict[str, Any] = {}
        self.extra: dict[str, Any] = {}
        self.sources: dict[str, str] = {}
        self.problems: list[str] = []
        self.remarks: list[str] = []
        self.complete = True  # every layer could be read
        self.spoiled: set[str] = set()  # names of settings whose value in force is not what somebody meant

    @contextlib.contextmanager
    def noting(self) -> Iterator[None]:
        """Note a layer that cannot be read as a problem, and go on."""
        try:
            yield
        except _Unreadable as unreadable:
            self.problems.append(str(unreadable))
            self.complete = False

    def lay(self, layer: _Layer) -> None:
        """Let one layer have its say over those laid before."""
        for name, given in layer.values.items():
            if kind := SETTINGS.get(name):
                self._put(self.values, kind, given, (name,), layer.where)
            elif _CELERY_STYLE.fullmatch(name):
                self._hand_on(name, given, layer)
            elif layer.ours:
                self._unknown((name,), SETTINGS, layer.where((name,)))

    def _put(self, values: dict[str, Any], kind: Kind, given: Any, names: Names, where: Callable[[Names], str]) -> None:
        name, label = names[-1], _label(names)
        if kind.member:
            values.setdefault(name, {})  # a site may be named and left empty
        try:
            given = self._resolved(given, kind)
            if (given is None and not kind.takes_none) or (given == '' and not kind.takes_blank):
                return
            value: Any = None if given is None else kind.read(given)
        except _Unusable as error:
            self._refuse(names, f'{where(names)}: {label} {error}')
        except (ValueError, TypeError, AttributeError):
            shown = _cut(repr(_masked(name, given)), 60) if kind.secrecy is Secrecy.NONE else '***'
            self._refuse(names, f'{where(names)}: {label} must be {kind.wants}; this is {shown}')
        else:
            self.sources[label] = where(names)
            if kind.member:
                self._put_each(values[name], kind, value, names, where)
            else:
                values[name] = value

    def _put_each(self, values: dict[str, Any], kind: Kind, given: Mapping[str, Any], names: Names,
                  where: Callable[[Names], str]) -> None:
        for name, value in given.items():
            inner = (*names, name)
            if member := kind.of(name):
                self._put(values, member, value, inner, where)
            else:
                self._unknown(inner, kind.names, where(inner))

    def _hand_on(self, name: str, given: Any, layer: _Layer) -> None:
        self.extra[name] = _copy(given)
        self.sources[name] = layer.where((name,))
        guess = _did_you_mean(name, (known for known in SETTINGS if abs(len(known) - len(name)) < 3), 0.85)
        if guess and layer.ours:
            self.remarks.append(f'{layer.where((name,))}: {name} is handed to Celery as it is{guess}')

    def _resolved(self, given: Any, kind: Kind) -> Any:
        """The value with its references followed: ``${NAME}`` everywhere, ``file:`` where secrets stand."""
        if kind.verbatim or kind.member:
            return given
        if isinstance(given, (list, tuple)):
            return [self._resolved(item, kind) for item in given]
        if isinstance(given, Mapping):
            return {name: self._resolved(item, kind) for name, item in given.items()}
        if not isinstance(given, str):
            return given
        found = _REFERENCE.sub(self._variable, given)
        if kind.secrecy is Secrecy.NONE or not found.startswith('file:'):
            return found
        path = found.removeprefix('file:')
        try:
            return Path(path).read_text(encoding='utf-8').strip()
        except (OSError, ValueError) as error:
            reason = getattr(error, 'strerror', None) or 'not a text file'
            raise _Unusable(f'cannot be read from {path}: {reason}') from error

    def _variable(self, reference: re.Match[str]) -> str:
        if reference[1]:
            return reference[0][1:]
        try:
            return self.environ[reference[2]]
        except KeyError:
            raise _Unusable(f'refers to the environment variable {reference[2]}, which is not set') from None

    def _unknown(self, names: Names, known: Collection[str], where: str) -> None:
        name = names[-1]
        groups = [group for group in ('BRAZE', 'SAILTHRU') if name in SETTINGS[group].names and group not in names]
        if known is SITE_SETTINGS and _setting(name) in SETTINGS:
            self._refuse(names, f'{where}: {_label(names)}: {name} cannot differ from site to site')
        elif groups:
            self._refuse(names, f'{where}: {_label(names)} belongs into {groups[0]}')
        else:
            self._refuse(names, f'{where}: there is no setting {_label(names)}{_did_you_mean(name, known)}')

    def _refuse(self, names: Names, problem: str) -> None:
        self.problems.append(problem)
        self.spoiled.add(names[-1])

    def narrow(self) -> None:
        """Take out what older workers could do and this one does not."""
        for name in ('CELERY_TASK_SERIALIZER', 'CELERY_RESULT_SERIALIZER', 'CELERY_EVENT_SERIALIZER'):
            if self.values[name] != 'json':
                self._remark(name, f'{self.values[name]} is not used: the worker writes JSON only')
                self.values[name] = 'json'
        name = 'CELERY_ACCEPT_CONTENT'
        if 'yaml' in self.values[name]:
            self._remark(name, 'yaml is not read: no shop sends it')
            self.values[name] = tuple(content for content in self.values[name] if content != 'yaml')
        if 'json' not in self.values[name]:
            self._refuse((name,), f'{self.sources[name]}: {name} must list json, in which the worker retries')

    def _remark(self, name: str, remark: str) -> None:
        self.remarks.append(f'{self.sources[name]}: {name}: {remark}')

    def check(self) -> None:
        """Find what is wrong with values together that are right one by one, at each site too."""
        if not self.complete:  # what a layer that could not be read says may well put it right
            return
        settings = self.settings()
        self._check_together(settings, set(SETTINGS))
        for code, overrides in settings.SITE_OVERRIDES.items():
            self._check_together(settings.for_site(code), set(overrides), f'site {code}: ')

    def _check_together(self, settings: Settings, given: set[str], site: str = '') -> None:
        """Of the settings that belong together, look at those of which any was given here, unless one is spoiled."""
        def line(name: str, text: str) -> str:
            source = settings.sources[name]
            return f'{"" if source == "default" else f"{source}: "}{site}{name} {text}'

        for names, complaints in ((_CREDENTIALS, _credential_problems), (_DELAYS, _delay_problems),
                                  (_MAIL, _mail_problems)):
            if names & given and not names & self.spoiled:
                self.problems += [line(*complaint) for complaint in complaints(settings)]
        if not self.spoiled:
            self.remarks += [line(*remark) for remark in _remarks(settings, given)]

    def settings(self) -> Settings:
        """The result, with one of its kind for each site."""
        values, extra = _frozen(self.values, members(SETTINGS)), MappingProxyType(self.extra)
        sites: dict[str, Settings] = {}
        settings = Settings(extra, MappingProxyType(self.sources), tuple(self.remarks), values, sites)
        for code, overrides in settings.SITE_OVERRIDES.items():
            prefix = f'SITE_OVERRIDES[{code}].'
            own = {label.removeprefix(prefix): source for label, source in self.sources.items()
                   if label.startswith(prefix)}
            sources = MappingProxyType({**self.sources, **own})
            sites[code] = Settings(extra, sources, (), _laid_over(values, overrides), sites)
        return settings


# --- What settings must be together ---------------------------------------------------------------------------------

_OAUTH2 = ('BACKEND_SERVICE_EDX_OAUTH2_KEY', 'BACKEND_SERVICE_EDX_OAUTH2_SECRET')
_CREDENTIALS = {'AUTHENTICATION', 'JWT_SECRET_KEY', 'ALLOW_INSECURE_SECRETS', *_OAUTH2}
_DELAYS = {'RETRY_DELAY_MIN', 'RETRY_DELAY_MAX'}
_MAIL = {'EMAIL_VENDOR', 'EMAIL_WITHOUT_VENDOR', 'BRAZE', 'SAILTHRU'}
_GOOD_KEY = 32  # bytes, as many as an HS256 signature


def _credential_problems(settings: Settings) -> Iterator[tuple[str, str]]:
    way = settings.authentication
    remedy = (f' (AUTHENTICATION is {way})' if settings.AUTHENTICATION != 'auto' else
              f'; set {" and ".join(_OAUTH2)} for oauth2, or JWT_SECRET_KEY for jwt')
    for name in ('JWT_SECRET_KEY',) if way == 'jwt' else _OAUTH2:
        value = getattr(settings, name)
        if not value:
            if settings.AUTHENTICATION != 'auto' or not settings.ALLOW_INSECURE_SECRETS:
                yield name, f'is not set, but {way} authentication needs it{remedy}'
        elif value in _SHIPPED and SETTINGS[name].secrecy is Secrecy.WHOLE and not settings.ALLOW_INSECURE_SECRETS:
            yield name, f'is the one shipped with the software: anybody knows it, so production refuses it{remedy}'


def _delay_problems(settings: Settings) -> Iterator[tuple[str, str]]:
    least, most = settings.RETRY_DELAY_MIN, settings.RETRY_DELAY_MAX
    if least > most:
        yield 'RETRY_DELAY_MIN', f'({least}) is more than RETRY_DELAY_MAX ({most})'


def _mail_problems(settings: Settings) -> Iterator[tuple[str, str]]:
    if not settings.email_vendor and settings.EMAIL_WITHOUT_VENDOR == 'refuse':
        yield 'EMAIL_VENDOR', ('is not set, and neither Braze nor Sailthru is enabled: nobody would send the mail; set '
                               'it (smtp, say), or EMAIL_WITHOUT_VENDOR: park')


def _remarks(settings: Settings, given: set[str]) -> Iterator[tuple[str, str]]:
    way = settings.authentication
    if 'JWT_SECRET_KEY' in given and settings.JWT_SECRET_KEY:
        if way == 'jwt' and len(settings.JWT_SECRET_KEY.encode()) < _GOOD_KEY:
            yield 'JWT_SECRET_KEY', f'is shorter than {_GOOD_KEY} bytes, which makes it easier to guess'
        if way == 'oauth2' and not given & set(_OAUTH2):
            yield 'JWT_SECRET_KEY', 'is not used, for oauth2 is in force; AUTHENTICATION: jwt would use it'
    if not settings.email_vendor and _MAIL & given:
        yield 'EMAIL_VENDOR', 'is not set, and neither Braze nor Sailthru is enabled: mail is parked'
    if settings.ALLOW_INSECURE_SECRETS:
        return
    for name in ('ECOMMERCE_API_ROOT', *(['BACKEND_SERVICE_EDX_OAUTH2_PROVIDER_URL'] if way == 'oauth2' else [])):
        url = getattr(settings, name)
        if name in given and urlsplit(url).hostname in ('127.0.0.1', 'localhost', '::1'):
            yield name, f'is {mask(name, url)}, on this machine itself'


# --- For other programs ---------------------------------------------------------------------------------------------

_HANDED_ON = re.compile(r'PATH|HOME|USER|LOGNAME|SHELL|LANG|LANGUAGE|LC_\w+|TZ|TMPDIR|LD_LIBRARY_PATH')


def environment_for_others(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """What programs of other projects may see of this process's environment: nothing that could be a secret of ours."""
    environ = os.environ if environ is None else environ
    return {name: value for name, value in environ.items() if _HANDED_ON.fullmatch(name)}


# --- Loading --------------------------------------------------------------------------------------------------------


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """The settings in force, read anew; raises Misconfigured with everything that is wrong with them.

    ``environ`` stands in for the process's environment.
    """
    environ = os.environ if environ is None else environ
    draft = _Draft(environ)
    draft.lay(_Layer(DEFAULTS, lambda _: 'default'))
    module: ModuleType = base  # stands in for one that cannot be imported, so that the rest can be looked at
    with draft.noting():
        module = _import(environ.get(CONFIGURATION_MODULE) or DEFAULT_MODULE)
        draft.lay(_module_layer(module))
    with draft.noting():
        if path := _yaml_file(environ, module):
            draft.lay(_yaml_layer(path))
    draft.lay(_environment_layer(environ))
    draft.narrow()
    draft.check()
    if draft.problems:
        raise Misconfigured(draft.problems)
    return draft.settings()


def _yaml_file(environ: Mapping[str, str], module: ModuleType) -> str:
    """Path of the YAML file to read; empty if the settings module can do without and none is named."""
    opt_out = getattr(module, 'YAML_OPT_OUT', '')
    if opt_out and environ.get(opt_out):
        return ''
    path = environ.get(YAML_FILE, '')
    if not path and getattr(module, 'YAML_REQUIRED', False):
        raise _Unreadable(f'{YAML_FILE} is not set: with {module.__name__} it must name the YAML file of settings')
    return path
