"""Finding a vendor by its name, and reading its options."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from ecommerce_worker.clients.http import Api
from ecommerce_worker.email import vendors
from ecommerce_worker.email.message import Email, Receipt
from ecommerce_worker.errors import Misconfigured
from ecommerce_worker.retry import Regular
from ecommerce_worker.settings.kinds import Kind
from ecommerce_worker.words import did_you_mean

#: Makes an :class:`~ecommerce_worker.clients.http.Api` with the time-outs and as many connections as fit the process.
Connect = Callable[..., Api]

#: What a vendor's class is called in its module; it is made from its options and a :data:`Connect`.
CLASS: Final = 'Vendor'


class Mailer(Protocol):
    """Who sends mail: every vendor is one."""

    #: How patiently it is asked; None as any service that is down, by time.
    policy: Regular | None

    def send(self, email: Email) -> Receipt:
        """Hand over one mail.

        Raises :class:`~ecommerce_worker.errors.ApiError` if nobody was mailed: ``Transient`` if it may work later,
        ``Rejected`` with the vendor's reason if not; ``Misconfigured`` if this kind of mail is not set up.
        """

    def bounced(self, address: str) -> bool:
        """Whether mail to this address came back for good; False where the vendor cannot tell.

        Raises :class:`~ecommerce_worker.errors.ApiError`.
        """


def names() -> list[str]:
    """The vendors that come with this package."""
    return sorted(module.name for module in pkgutil.iter_modules(vendors.__path__))


def find(name: str) -> Callable[[Mapping[str, Any], Connect], Mailer]:
    """The class of the vendor of that name, or of a module of somebody's own.

    Raises :class:`~ecommerce_worker.errors.Misconfigured`.
    """
    module = f'{vendors.__name__}.{name}' if name in names() else name
    try:
        found: Callable[[Mapping[str, Any], Connect], Mailer] = getattr(importlib.import_module(module), CLASS)
    except ModuleNotFoundError as error:
        if error.name and (module == error.name or module.startswith(error.name + '.')):
            guess = did_you_mean(name, names()) or f'; there are {", ".join(names())}'
            raise Misconfigured([f'EMAIL_VENDOR names {name}, which does not exist{guess}']) from None
        raise Misconfigured([f'EMAIL_VENDOR {name} needs the module {error.name}, which is not installed']) from None
    except AttributeError:
        raise Misconfigured([f'EMAIL_VENDOR names {name}, which has no class {CLASS}']) from None
    return found


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
            guess = did_you_mean(name, kinds) or f'; there are {", ".join(sorted(kinds))}'
            problems.append(f'{setting}[{name}] is no option of this vendor{guess}')
            continue
        try:
            found[name] = kinds[name].read(value)
        except (ValueError, TypeError, AttributeError):
            problems.append(f'{setting}[{name}] must be {kinds[name].wants}')
    problems += [f'{setting}[{name}] is not set' for name in kinds if found.get(name) in (None, '')
                 and name not in defaults]
    if problems:
        raise Misconfigured(problems)
    return found
