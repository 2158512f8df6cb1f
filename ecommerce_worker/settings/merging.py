"""Merging the layers into the settings in force; problems are collected."""

from __future__ import annotations

import contextlib
import os
import re
from collections import ChainMap
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

from ecommerce_worker.configuration import CONFIGURATION_MODULE, base
from ecommerce_worker.errors import Misconfigured
from ecommerce_worker.settings import extensions
from ecommerce_worker.settings.checks import (
    BROKER_TLS,
    CREDENTIALS,
    DELAYS,
    MAIL,
    credential_problems,
    delay_problems,
    mail_problems,
    remarks_on,
    tls_problems,
)
from ecommerce_worker.settings.files import unreadable_certificates
from ecommerce_worker.settings.kinds import Kind, Secrecy, Unavailable, Unusable, copied, cut, each, members
from ecommerce_worker.settings.layers import (
    DEFAULT_MODULE,
    Layer,
    Unreadable,
    environment_layer,
    imported,
    module_layer,
    yaml_file,
    yaml_layer,
)
from ecommerce_worker.settings.masking import masked
from ecommerce_worker.settings.names import CELERY_STYLE, PREFIX, Names, label_of, setting_of
from ecommerce_worker.settings.schema import DEFAULTS, SETTINGS, SITE_SETTINGS, VENDORS
from ecommerce_worker.settings.uses import unused
from ecommerce_worker.settings.values import Settings, frozen, laid_over
from ecommerce_worker.words import did_you_mean

_REFERENCE = re.compile(r'(\$?)\$\{(\w+)\}')


class _Draft:
    """Settings while they are merged; collects all problems."""

    def __init__(self, environ: Mapping[str, str], command: str = '') -> None:
        self.environ = environ
        #: Settings whose secrets need not be there.
        self.unused = unused(command)
        #: What there may be: settings of extensions come on top.
        self.kinds: dict[str, Kind] = {**SETTINGS}
        self.extensions: dict[str, extensions.Extension] = {}
        self.wanted: tuple[str, ...] = ()  # extensions that are named, whether they can be had or not
        self.values: dict[str, Any] = {}
        self.extra: dict[str, Any] = {}
        self.sources: dict[str, str] = {}
        self.problems: list[str] = []
        self.remarks: list[str] = []
        self.complete = True  # every layer could be read
        self.spoiled: set[str] = set()  # names of settings whose value in force is not the given one
        self.places: set[Names] = set()  # where exactly those stand

    @contextlib.contextmanager
    def noting(self) -> Iterator[None]:
        """Record a layer that cannot be read as a problem, and continue."""
        try:
            yield
        except Unreadable as unreadable:
            self.problems.append(str(unreadable))
            self.complete = False

    def extend(self, given: Any) -> None:
        """Add the settings of extensions; ``given`` is the value that EXTENSIONS will have."""
        kind = SETTINGS['EXTENSIONS']
        try:
            names = kind.read(self._resolved(given, kind))
        except (ValueError, TypeError, AttributeError):
            return  # reported where it is merged
        self.wanted = tuple(names)
        self.extensions, problems = extensions.find(names, SETTINGS)
        self.problems += problems
        if problems:
            self.spoiled.add('EXTENSIONS')
            self.places.add(('EXTENSIONS',))
        groups = {group.name: members(group.kinds) for group in self._groups() if group.name not in SETTINGS}
        self.kinds |= {**groups, 'SITE_OVERRIDES': each(members({**SITE_SETTINGS, **groups}))}

    def _groups(self) -> list[extensions.Group]:
        return [group for extension in self.extensions.values() for group in extension.groups]

    def defaults(self) -> dict[str, Any]:
        """The lowest layer."""
        return {**DEFAULTS, **{group.name: group.defaults for group in self._groups() if group.name not in SETTINGS}}

    def lay(self, layer: Layer) -> None:
        """Apply a layer over those applied before."""
        for names, problem in layer.problems:
            self._refuse(names, problem)
        for name, given in layer.values.items():
            if kind := self.kinds.get(name):
                self._put(self.values, kind, given, (name,), layer.where)
            elif CELERY_STYLE.fullmatch(name):
                self._hand_on(name, given, layer)
            elif layer.ours:
                self._unknown((name,), self.kinds, layer.where((name,)))

    def _put(self, values: dict[str, Any], kind: Kind, given: Any, names: Names, where: Callable[[Names], str]) -> None:
        name, label = names[-1], label_of(names)
        if kind.member:
            values.setdefault(name, {})  # a site may be named and left empty
        try:
            given = self._resolved(given, kind)
            if (given is None and not kind.takes_none) or (given == '' and not kind.takes_blank):
                return
            value: Any = None if given is None else kind.read(given)
        except Unavailable as error:
            if _setting(names) not in self.unused:
                self._refuse(names, f'{where(names)}: {label} {error}')
        except Unusable as error:
            self._refuse(names, f'{where(names)}: {label} {error}')
        except (ValueError, TypeError, AttributeError):
            shown = cut(repr(masked(name, given)), 60) if kind.secrecy is Secrecy.NONE else '***'
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

    def _hand_on(self, name: str, given: Any, layer: Layer) -> None:
        self.extra[name] = copied(given)
        self.sources[name] = layer.where((name,))
        guess = did_you_mean(name, (known for known in self.kinds if abs(len(known) - len(name)) < 3), 0.85)
        if guess and layer.ours:
            self.remarks.append(f'{layer.where((name,))}: {name} is passed on to Celery unchanged{guess}')

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
            raise Unavailable(f'cannot be read from {path}: {reason}') from error

    def _variable(self, reference: re.Match[str]) -> str:
        if reference[1]:
            return reference[0][1:]
        try:
            return self.environ[reference[2]]
        except KeyError:
            raise Unavailable(f'refers to the environment variable {reference[2]}, which is not set') from None

    def _unknown(self, names: Names, known: Collection[str], where: str) -> None:
        name = names[-1]
        groups = [group for group in VENDORS if name in SETTINGS[group].names and group not in names]
        if names[0] == 'SITE_OVERRIDES' and len(names) == 3 and setting_of(name) in self.kinds:
            self._refuse(names, f'{where}: {label_of(names)}: {name} cannot differ from site to site')
        elif groups:
            self._refuse(names, f'{where}: {label_of(names)} belongs in {groups[0]}')
        elif owner := self._owner(name):
            if owner not in self.wanted:  # else its error has been reported already
                self._refuse(names, f'{where}: there is no setting {label_of(names)}: it looks like one of the '
                                    f'extension {owner}, which is not in EXTENSIONS')
        else:
            self._refuse(names, f'{where}: there is no setting {label_of(names)}{did_you_mean(name, known)}')

    def _owner(self, name: str) -> str:
        """The extension that is not loaded, but listed or installed, to which a setting of this name may belong.

        '' if there is none.
        """
        plain = name.lower()
        return next((it for it in (*self.wanted, *extensions.installed()) if it not in self.extensions
                     and f'{plain}_'.startswith(f'{it.replace("-", "_")}_')), '')

    def _refuse(self, names: Names, problem: str) -> None:
        self.problems.append(problem)
        self.spoiled |= {names[-1], names[0]}
        self.places.add(names)

    def narrow(self) -> None:
        """Remove values that older workers supported and this one does not."""
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
        """Check values that are valid on their own against each other, at each site too."""
        if not self.complete:  # what a layer that could not be read says may well put it right
            return
        self._look_for_missing()
        settings = self.settings()
        self._check_together(settings, set(SETTINGS))
        for code, overrides in settings.SITE_OVERRIDES.items():
            self._check_together(settings.for_site(code), set(overrides), f'site {code}: ')

    def _look_for_missing(self) -> None:
        """Note the settings of extensions that have no default and are not given."""
        for group in self._groups():
            given = self.values.get(group.name) or {}
            for name in group.kinds:
                if name not in group.defaults and given.get(name) in (None, '') and (
                        group.name, name) not in self.places:
                    self._refuse((group.name, name), f'{group.name}[{name}] is not set')

    def consume(self) -> None:
        """Make workers consume the queues of extensions, unless ``QUEUES`` is set."""
        if self.extensions and self.sources['QUEUES'] == 'default':
            self.values['QUEUES'] = (*self.values['QUEUES'], *self.extensions)

    def _check_together(self, settings: Settings, given: set[str], site: str = '') -> None:
        """Of the settings that belong together, look at those of which any was given here, unless one is spoiled."""
        def line(name: str, text: str) -> str:
            source = settings.sources[name]
            return f'{"" if source == "default" else f"{source}: "}{site}{name} {text}'

        for names, complaints in ((CREDENTIALS, credential_problems), (DELAYS, delay_problems),
                                  (MAIL, mail_problems), (BROKER_TLS, tls_problems)):
            if names & given and not names & self.spoiled and not names <= self.unused:
                self.problems += [line(*complaint) for complaint in complaints(settings)]
        if not self.spoiled:
            self.remarks += [line(*remark) for remark in remarks_on(settings, given)]

    def settings(self) -> Settings:
        """The resulting settings, with those of each site."""
        values, extra = frozen(self.values, members(self.kinds)), MappingProxyType(self.extra)
        sites: dict[str, Settings] = {}
        more: dict[str, Any] = {'extensions': self.extensions, 'kinds': self.kinds}
        settings = Settings(extra, MappingProxyType(self.sources), tuple(self.remarks), values, sites, **more)
        own: dict[str, dict[str, str]] = {}
        for label, source in self.sources.items():
            code, ends, name = label.removeprefix('SITE_OVERRIDES[').partition('].')
            if ends and label.startswith('SITE_OVERRIDES['):
                own.setdefault(code, {})[name] = source
        for code, overrides in settings.SITE_OVERRIDES.items():
            # Not a copy of all for each: there may be thousands of sites.
            sources = MappingProxyType(ChainMap(own.get(code, {}), self.sources))
            sites[code] = Settings(extra, sources, (), laid_over(values, overrides), sites, **more)
        return settings


def _setting(names: Names) -> str:
    """The setting that stands there, which may be one of a site."""
    return names[2] if names[0] == 'SITE_OVERRIDES' and len(names) > 2 else names[0]


@dataclass(frozen=True)
class Examined:
    """A configuration with all its problems; its settings are for display, not for work."""

    settings: Settings
    problems: tuple[str, ...]
    #: The places of invalid values: ``('SCHEDULE', 'my-job', 'interval')``.
    spoiled: frozenset[Names]
    #: Every layer could be read: what is missing is missing.
    complete: bool


def load(environ: Mapping[str, str] | None = None, command: str = '') -> Settings:
    """Read the settings in force; raises Misconfigured with all problems.

    ``environ`` stands in for the process's environment.  Secrets that the ``command`` does not use may be missing; if
    none is named, all are used.
    """
    found = examine(environ, command)
    if found.problems:
        raise Misconfigured(found.problems)
    return found.settings


def examine(environ: Mapping[str, str] | None = None, command: str = '') -> Examined:
    """Read the settings and their problems, for further checks; raises nothing.  See :func:`load`."""
    environ = os.environ if environ is None else environ
    draft = _Draft(environ, command)
    module: ModuleType | None = None
    file: Layer | None = None
    with draft.noting():
        module = imported(environ.get(CONFIGURATION_MODULE) or DEFAULT_MODULE)
    with draft.noting():
        if path := yaml_file(environ, base if module is None else module):
            file = yaml_layer(path)
    # Which settings there are depends on one of them.
    draft.extend(environ.get(f'{PREFIX}EXTENSIONS') or (file and file.values.get('EXTENSIONS'))
                 or getattr(module, 'EXTENSIONS', ()) or ())
    draft.lay(Layer(draft.defaults(), lambda _: 'default'))
    if module is not None:
        draft.lay(module_layer(module, draft.kinds))
    if file:
        draft.lay(file)
    draft.lay(environment_layer(environ, draft.kinds))
    draft.consume()
    draft.narrow()
    # Mail by SMTP and attachments go by OpenSSL's own certificates.
    draft.remarks += [remark for name in ('SSL_CERT_FILE', 'SSL_CERT_DIR')
                      for remark in unreadable_certificates(environ, name)]
    draft.check()
    return Examined(draft.settings(), tuple(draft.problems), frozenset(draft.places), draft.complete)
