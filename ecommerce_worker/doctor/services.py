"""Shop and LMS of each site: the way there, their clocks, our token, and whether they let our user fulfil orders."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from ecommerce_worker import runtime
from ecommerce_worker.clients import looking
from ecommerce_worker.clients.http import CLOCKS_AGREE
from ecommerce_worker.doctor.lines import Line, bad, unknown, warning, well
from ecommerce_worker.errors import ApiError, NotFound, Throttled, Unauthorized
from ecommerce_worker.resubmit.shops import sites_of
from ecommerce_worker.words import full_stop

if TYPE_CHECKING:
    from ecommerce_worker.settings import Settings
    from ecommerce_worker.site import Site

#: Days before the end of a certificate from which on it is a warning.
EXPIRES_SOON: Final = 14

#: Seconds by which clocks may differ at most, for tokens carry times.
CLOCKS_DIFFER: Final = 30.0


def look(settings: Settings) -> Iterator[Line]:
    """Each shop once, and each token service."""
    seen: set[str] = set()
    for code in sites_of(settings):
        site = runtime.site(code or None)
        subject = f'shop {code}' if code else 'shop'
        urls = {site.settings.ECOMMERCE_API_ROOT: subject}
        if site.settings.authentication == 'oauth2':
            urls[site.settings.BACKEND_SERVICE_EDX_OAUTH2_PROVIDER_URL] = f'LMS {code}' if code else 'LMS'
        for url, who in urls.items():
            if url not in seen:
                seen.add(url)
                yield from way(who, url, site.settings.HTTP_CONNECT_TIMEOUT)
        yield from permission(subject, site)


def way(who: str, url: str, seconds: float) -> Iterator[Line]:
    """The name, the connection, the certificate and the clock of a service."""
    host = runtime.host_of(url)
    found = looking.look(url, seconds)
    if found.proxy:
        yield unknown(who, f'{host} is reached through a proxy, so its certificate and clock cannot be checked.')
        return
    if found.problem:
        yield bad(who, full_stop(found.problem), 'Check the URL in the configuration, DNS, firewall and TLS.')
        return
    yield (well(who, f'{host} answers.') if found.expires is None else
           certificate(who, f'{host} answers', found.expires, 'nothing is fulfilled'))
    yield from _clock(who, found.ahead)


def certificate(who: str, said: str, expires: float, otherwise: str) -> Line:
    """The line on when a peer's certificate expires.

    ``said`` begins the sentence; ``otherwise`` says what happens once the certificate has expired.
    """
    said += f'; its certificate is valid until {datetime.fromtimestamp(expires, UTC):%Y-%m-%d}.'
    if expires - time.time() < EXPIRES_SOON * 86_400:
        return warning(who, said, f'Renew it; {otherwise} once it has expired.')
    return well(who, said)


def _clock(who: str, ahead: float | None) -> Iterator[Line]:
    if ahead is None:
        return
    said = f'Our clock is {abs(ahead):.0f} s {"ahead of" if ahead > 0 else "behind"} that of the {who}'
    if abs(ahead) > CLOCKS_DIFFER:
        yield bad('clock', f'{said}, so tokens are refused as expired or not yet valid.',
                  'Synchronize both clocks with NTP.')
    elif abs(ahead) > CLOCKS_AGREE:
        yield warning('clock', f'{said}.', 'Synchronize both clocks with NTP.')
    else:
        yield well('clock', f'Our clock agrees with that of the {who}.')


def permission(subject: str, site: Site) -> Iterator[Line]:
    """Our token, and whether it may read and fulfil orders; asks about one that does not exist, so none changes."""
    number = f'DOCTOR-{secrets.token_hex(8)}'
    try:
        site.signer.credentials()
    except ApiError as error:
        yield bad('token', full_stop(f'There is no token for the {subject}: {error}'), _about(error))
        return
    how = 'issued by the LMS' if site.settings.authentication == 'oauth2' else 'signed by the worker'
    yield well('token', f'The token for the {subject} is {how}.')
    for what, ask in (('read', lambda: site.ecommerce.status(number)),
                      ('fulfil', lambda: site.ecommerce.fulfill(number, email_opt_in=False))):
        try:
            ask()
        except NotFound:
            continue
        except ApiError as error:
            yield bad(subject, full_stop(f'The check whether our user may {what} orders failed: {error}'),
                      _about(error))
            return
        yield warning(subject, f'The shop reports an order {number}, which does not exist.', 'Does ECOMMERCE_API_ROOT '
                      'point to the shop itself?')
        return
    yield well(subject, 'Our user may read and fulfil orders (checked with an order that does not exist).')


def _about(error: ApiError) -> str:
    """What to do about what a service answered."""
    match error:
        case Throttled():
            return 'Wait and try again: the service limits the rate of requests.'
        case Unauthorized(status=403):
            return 'Make the user of this token staff in the shop, or give it the permission to change orders.'
        case Unauthorized():
            return ('Check AUTHENTICATION, BACKEND_SERVICE_EDX_OAUTH2_KEY and _SECRET, or JWT_SECRET_KEY and '
                    'JWT_ISSUER.')
        case _:
            return "See the service's own log."
