"""The settings in force."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from typing_extensions import override

from ecommerce_worker import logs
from ecommerce_worker.configuration import base
from ecommerce_worker.settings.extensions import Extension
from ecommerce_worker.settings.kinds import Kind, cut
from ecommerce_worker.settings.masking import mask
from ecommerce_worker.settings.names import Names, label_of
from ecommerce_worker.settings.schema import DEFAULTS, SETTINGS, VENDORS
from ecommerce_worker.words import did_you_mean

logger = logs.of(__name__)


@dataclass(frozen=True, eq=False, repr=False)
class Settings:
    """The settings in force, as attributes: ``settings.BROKER_URL``."""

    #: Settings of Celery that ``configuration.base`` does not list, as they were given.
    extra: Mapping[str, Any]
    #: Where each value came from: ``default``, ``/etc/worker.yml:3``, ``environment ECOMMERCE_WORKER_BROKER_URL``.
    sources: Mapping[str, str]
    #: Remarks: not mistakes, but worth knowing.
    remarks: tuple[str, ...]
    _values: Mapping[str, Any]
    _sites: dict[str, Settings] = field(default_factory=dict)
    _strangers: set[str] = field(default_factory=set)
    #: The extensions that are switched on, by name.
    extensions: Mapping[str, Extension] = field(default_factory=dict)
    #: The kinds of all settings, those of extensions too.
    kinds: Mapping[str, Kind] = field(default_factory=lambda: SETTINGS)

    def __getattr__(self, name: str) -> Any:
        if name.startswith('_') or name not in self._values:
            message = f'there is no setting {name}' + did_you_mean(name, self.kinds)
            raise AttributeError(message)
        return self._values[name]

    @override
    def __repr__(self) -> str:
        return f'<Settings {self.authentication}, sites: {", ".join(self.site_codes) or "none"}>'

    @property
    def site_codes(self) -> tuple[str, ...]:
        """The sites with settings of their own."""
        return tuple(self._sites)

    @property
    def authentication(self) -> str:
        """How the worker authenticates: ``oauth2`` or ``jwt``."""
        if self.AUTHENTICATION != 'auto':
            return self.AUTHENTICATION
        ours = (self.BACKEND_SERVICE_EDX_OAUTH2_KEY, self.BACKEND_SERVICE_EDX_OAUTH2_SECRET)
        if all(value and value not in SHIPPED for value in ours):
            return 'oauth2'
        return 'jwt' if self.JWT_SECRET_KEY else 'oauth2'

    @property
    def email_vendor(self) -> str:
        """The vendor that sends mail; '' if there is none and mail is parked."""
        if self.EMAIL_VENDOR:
            return self.EMAIL_VENDOR
        enabled = (vendor for group, vendor in VENDORS.items() if getattr(self, group)[f'{group}_ENABLE'])
        without = self.EMAIL_WITHOUT_VENDOR
        return next(enabled, '' if without in ('refuse', 'park') else without)

    @property
    def email_options(self) -> Mapping[str, Any]:
        """The options of the vendor."""
        groups = (group for group, vendor in VENDORS.items() if vendor == self.email_vendor)
        options: Mapping[str, Any] = getattr(self, next(groups, 'EMAIL_OPTIONS'))
        return options

    @property
    def known_queues(self) -> frozenset[str]:
        """The queues that this configuration names: those consumed, and those that tasks are published to."""
        return frozenset(filter(None, (*self.QUEUES, self.DEFAULT_PRIORITY_QUEUE, self.CELERY_DEFAULT_QUEUE,
                                       *self.EXTENSIONS,
                                       *(entry.get('queue') for entry in self.SCHEDULE.values()))))

    def for_site(self, code: str | None) -> Settings:
        """The settings for one site's messages; these here for no site, and for one without settings of its own."""
        if not code:
            return self
        if code in self._sites:
            return self._sites[code]
        # Codes come with messages, so what is remembered of them is limited.
        if code not in self._strangers and len(self._strangers) < 1000:
            self._strangers.add(code)
            logger.info('a site without settings of its own uses the defaults', site=code)
        return self

    def rows(self) -> list[tuple[str, str, str]]:
        """Name, value without secrets, and source of everything in force, in the order of the reference page."""
        listed = sorted(_leaves(self._values), key=lambda leaf: _ORDER.get(leaf[0][0], len(_ORDER)))
        extra = [((name,), value) for name, value in self.extra.items()]
        return [(label_of(names), cut(mask(names[-1], value, _kind_at(self.kinds, names)), 200),
                 self.sources[label_of(names)]) for names, value in (*listed, *extra)]


_ORDER = {name: position for position, name in enumerate(DEFAULTS)}

# Publicly known: those of base, and that of earlier workers.
SHIPPED = (base.BACKEND_SERVICE_EDX_OAUTH2_KEY, base.BACKEND_SERVICE_EDX_OAUTH2_SECRET, 'insecure-secret-key')


def _kind_at(kinds: Mapping[str, Kind], names: Names) -> Kind | None:
    """The kind of what stands there."""
    kind = kinds.get(names[0])
    for name in names[1:]:
        kind = kind.of(name) if kind else None
    return kind


def _leaves(values: Mapping[str, Any], names: Names = ()) -> Iterator[tuple[Names, Any]]:
    for name, value in values.items():
        if isinstance(value, MappingProxyType):
            yield from _leaves(value, (*names, name))
        else:
            yield (*names, name), value


def frozen(values: Mapping[str, Any], kind: Kind) -> Mapping[str, Any]:
    """Make mappings that are merged key by key read-only; the others stay dicts, as logging and Celery require."""
    return MappingProxyType({
        name: frozen(value, inner) if (inner := kind.of(name)) and inner.member else value
        for name, value in values.items()
    })


def laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> Mapping[str, Any]:
    """The second value over the first, key by key for merged mappings."""
    return MappingProxyType({**below, **{
        name: laid_over(below.get(name, {}), value) if isinstance(value, MappingProxyType) else value
        for name, value in above.items()
    }})


def broker_scheme(settings: Settings) -> str:
    """The scheme of the first URL of the broker; see :func:`scheme_of`."""
    return scheme_of(broker_urls(settings)[0])


def scheme_of(url: str) -> str:
    """The scheme of a broker's URL, without TLS: ``amqp`` for RabbitMQ, ``redis``, ``sentinel``."""
    scheme = url.partition(':')[0].partition('+')[0]
    return {'amqps': 'amqp', 'pyamqp': 'amqp', 'rediss': 'redis'}.get(scheme, scheme)


def broker_urls(settings: Settings) -> list[str]:
    """The URLs of the broker: one, or several to fall back on."""
    given = settings.BROKER_URL
    return given.split(';') if isinstance(given, str) else [*given]
