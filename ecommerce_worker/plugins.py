"""Variants that are files: found by a short name among those that come with the package, or by a module's path.

Vendors of mail are such.  Each is a class of one name in a module of its own, made from options that its module
describes.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from functools import cache
from types import ModuleType
from typing import Any

from ecommerce_worker.errors import Misconfigured
from ecommerce_worker.settings.kinds import Kind
from ecommerce_worker.words import hint


@cache
def names(shipped: ModuleType) -> list[str]:
    """Those that come with this package, which are the modules of ``shipped``."""
    return sorted(module.name for module in pkgutil.iter_modules(shipped.__path__))


def find(name: str, shipped: ModuleType, cls: str, setting: str, others: Iterable[str] = ()) -> Any:
    """The class of that name, ``cls``, of the module that :func:`module_of` finds.

    Raises :class:`~ecommerce_worker.errors.Misconfigured`, which names the ``setting``.
    """
    try:
        return getattr(module_of(name, shipped, setting, others), cls)
    except AttributeError:
        raise Misconfigured([f'{setting} names {name}, which has no class {cls}']) from None


def module_of(name: str, shipped: ModuleType, setting: str, others: Iterable[str] = ()) -> ModuleType:
    """The module of that name: one of ``shipped``, or another by its full path.

    ``others`` are names that there are too.

    Raises :class:`~ecommerce_worker.errors.Misconfigured`, which names the ``setting``.
    """
    module = f'{shipped.__name__}.{name}' if name in names(shipped) else name
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and (module == error.name or module.startswith(error.name + '.')):
            there = hint(name, {*names(shipped), *others})
            raise Misconfigured([f'{setting} names {name}, which does not exist{there}']) from None
        raise Misconfigured([f'{setting} {name} needs the module {error.name}, which is not installed']) from None
    except (AttributeError, TypeError, ValueError):  # for invalid names, such as '' and '.x'
        raise Misconfigured([f'{setting} names {name}, which is not a module']) from None


def read_options(given: Mapping[str, Any], kinds: Mapping[str, Kind], defaults: Mapping[str, Any],
                 setting: str = 'EMAIL_OPTIONS') -> dict[str, Any]:
    """The options in force: what was given, of the right kind, over the defaults.

    An option without a default must be given.  Raises :class:`~ecommerce_worker.errors.Misconfigured` with all that
    is wrong.
    """
    found, problems = dict(defaults), []
    for name, value in given.items():
        if value is None:  # takes back what stands for all sites, maybe for another vendor
            continue
        if name not in kinds:
            problems.append(f'{setting}[{name}] is not a known option{hint(name, kinds)}')
            continue
        try:
            found[name] = kinds[name].read(value)
        except (ValueError, TypeError, AttributeError):
            problems.append(f'{setting}[{name}] must be {kinds[name].wants}')
    problems += [f'{setting}[{name}] is not set' for name in kinds if found.get(name) in (None, '')
                 and given.get(name) in (None, '') and name not in defaults]
    if problems:
        raise Misconfigured(problems)
    return found
