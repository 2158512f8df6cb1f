"""Extensions: third-party packages, found by their entry points, with settings of their own.

What an extension brings is what its module holds: groups of settings, which are read here; kinds of intakes, which
``intake.intakes`` looks for; and tasks, which Celery knows as soon as the module is imported.
"""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from ecommerce_worker.settings.kinds import Kind
from ecommerce_worker.words import hint

#: The group of entry points; each names a module.
ENTRY_POINTS: Final = 'ecommerce_worker.extensions'

#: The version of what ``ecommerce_worker.extension`` offers: grows by one when something is taken away from it or means
#: something else.
API: Final = 1

#: How extensions are called: their queue has the name too.
_NAME = re.compile(r'[a-z][a-z0-9_-]{0,40}')


@dataclass(frozen=True)
class Group:
    """Settings of an extension, merged key by key and by site: what each may be, and the values of those not given.

    One without a default must be given.
    """

    name: str
    kinds: Mapping[str, Kind]
    defaults: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Extension:
    """An enabled extension; ``package`` is the name and version of its package."""

    name: str
    package: str
    module: ModuleType

    @property
    def groups(self) -> tuple[Group, ...]:
        """Its settings."""
        return tuple({id(it): it for it in vars(self.module).values() if isinstance(it, Group)}.values())

    def owns(self, name: str) -> bool:
        """Whether this name belongs to it: its name, or one that begins with it and ``_`` or ``-``."""
        plain = name.lower().replace('-', '_')
        own = self.name.replace('-', '_')
        return plain == own or plain.startswith(f'{own}_')


def installed() -> list[str]:
    """The names of all extensions that are installed."""
    return sorted({point.name for point in entry_points(group=ENTRY_POINTS)})


def find(names: Iterable[str], known: Iterable[str]) -> tuple[dict[str, Extension], list[str]]:
    """The extensions of these names that can be loaded, and the problems of the others.

    ``known`` are the settings of the worker, which no extension may have.
    """
    found: dict[str, Extension] = {}
    problems: list[str] = []
    for name in dict.fromkeys(names):
        try:
            found[name] = _extension(name)
        except ValueError as error:
            problems.append(f'EXTENSIONS names {name}, {error}')
    taken = dict.fromkeys(known, '')
    for extension in found.values():
        problems += _problems(extension, taken)
    return found, problems


def _extension(name: str) -> Extension:
    """The extension; raises ValueError with the reason as the rest of a sentence."""
    points = {point.value: point for point in entry_points(group=ENTRY_POINTS) if point.name == name}
    if not points:
        raise ValueError(f'which is not installed{hint(name, installed()) or "; no extensions are installed"}')
    if not _NAME.fullmatch(name):
        raise ValueError('but the name of an extension must consist of lower-case letters, digits, - and _')
    if len(points) > 1:
        packages = ' and '.join(sorted(map(_package, points.values())))
        raise ValueError(f'which more than one package provides: {packages}')
    point = next(iter(points.values()))
    package = _package(point)
    if point.attr:
        raise ValueError(f'for which {package} names {point.value}: it must be a module')
    try:
        made_for = _made_for(point.module)
        if made_for is None:
            raise ValueError(f'whose module {point.module} ({package}) does not declare the version of the '
                             f'interface that it was made for: API = {API}')
        if made_for != API:
            raise ValueError(f'which {package} made for version {made_for} of the interface, but this worker '
                             f'has {API}: a {"newer worker" if made_for > API else "newer release of it"} is needed')
        return Extension(name, package, importlib.import_module(point.module))
    except ValueError:
        raise
    except Exception as error:  # third-party code, which may raise anything
        raise ValueError(f'which cannot be imported ({package}): {type(error).__name__}: {error}') from error


def _package(point: EntryPoint) -> str:
    return f'{point.dist.name} {point.dist.version}' if point.dist else point.value


def _made_for(module: str) -> int | None:
    """The version that a module says it was made for; by its text, for what is too new may fail to be imported."""
    spec = importlib.util.find_spec(module)
    if spec is None:
        raise ModuleNotFoundError(f'No module named {module!r}')
    if not spec.origin or not spec.origin.endswith('.py'):
        return None
    for node in ast.parse(Path(spec.origin).read_bytes()).body:
        targets = node.targets if isinstance(node, ast.Assign) else [
            node.target] if isinstance(node, ast.AnnAssign) else []
        if any(isinstance(it, ast.Name) and it.id == 'API' for it in targets):
            value = getattr(node, 'value', None)
            return value.value if isinstance(value, ast.Constant) and type(value.value) is int else None
    return None


def _problems(extension: Extension, taken: dict[str, str]) -> Iterator[str]:
    """Problems of its settings; those of earlier extensions are in ``taken``."""
    for group in extension.groups:
        label = f'extension {extension.name}: its setting {group.name}'
        if group.name in taken:
            yield f'{label} is one of {f"the extension {taken[group.name]}" if taken[group.name] else "the worker"}'
        elif not re.fullmatch(r'[A-Z][A-Z0-9_]*', group.name) or not extension.owns(group.name):
            yield f'{label} must be called {extension.name.upper().replace("-", "_")}, or begin with that and _'
        if strange := sorted(set(group.defaults) - set(group.kinds)):
            yield f'{label} has a default for {", ".join(strange)}, but no kind'
        taken.setdefault(group.name, extension.name)
