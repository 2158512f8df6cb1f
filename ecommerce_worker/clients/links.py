"""Downloading files from given URLs: never from the local network, never too large, never for too long."""

from __future__ import annotations

import http.client
import ipaddress
import re
import ssl
import time
from collections.abc import Callable, Container, Iterable
from contextlib import closing
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from ecommerce_worker import __version__
from ecommerce_worker.clients.exchange import (
    Plain,
    Response,
    Secure,
    TooMuch,
    connected,
    exchange,
    resolved,
    securing,
    whole,
)
from ecommerce_worker.errors import ApiError, PeerFailure, Rejected, Unreachable, WrongArguments

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

#: Whether we may connect to an address.
Allowed = Callable[[Address], bool]

REDIRECTS = 3

#: The most that a server may send besides the file, in bytes: heads, lengths of chunks.
OVERHEAD = 256 * 1024

#: IPv4 addresses as seen from networks that have IPv6 only (RFC 6052).
_NAT64 = ipaddress.IPv6Network('64:ff9b::/96')

#: Of IPv6 addresses, all that are given to anybody (RFC 4291, 2.4, and IANA's registry).
_UNICAST = ipaddress.IPv6Network('2000::/3')

#: What stays as it is in the path and the query of a URL.
_KEPT = "/?%:@!$&'()*+,;=~[]"


def is_global(address: Address) -> bool:
    """Whether the address is public; one that embeds an IPv4 address is judged by that."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner:
            return is_global(inner)
        if address.teredo or address not in _UNICAST:
            return False
    return address.is_global and not address.is_multicast


def fetch(url: str, *, limit: int, timeout: float, allowed: Allowed = is_global) -> bytes:
    """What there is at an http(s) URL: at most ``limit`` bytes, within ``timeout`` seconds (looking up names apart).

    Each address is looked at before it is connected to, those of redirects too, and a name is looked up only once, so
    that none can change its meaning in between.  Proxies are not used: they would resolve names themselves.
    Raises :class:`~ecommerce_worker.errors.WrongArguments` for a URL that must not be fetched, and
    :class:`~ecommerce_worker.errors.ApiError` for what cannot be fetched.  Neither contains the URL, which may be
    signed.
    """
    with exchange(timeout, limit + OVERHEAD):
        for _ in range(REDIRECTS + 1):
            found = _get(_parts(url), limit, allowed)
            if isinstance(found, bytes):
                return found
            try:
                url = urljoin(url, found)
            except ValueError:
                raise Rejected('the server of an attachment redirects to an invalid address') from None
    raise Rejected(f'the server of an attachment redirects more than {REDIRECTS} times')


def fetch_all(urls: Iterable[str], *, limit: int, timeout: float, allowed: Allowed = is_global) -> dict[str, bytes]:
    """Fetch several files, together within the limits; those that fail are left out.

    Raises :class:`~ecommerce_worker.errors.WrongArguments` for a URL that must not be fetched.
    """
    deadline, found = time.monotonic() + timeout, dict[str, bytes]()
    for url in dict.fromkeys(urls):
        try:
            found[url] = fetch(url, limit=limit, timeout=deadline - time.monotonic(), allowed=allowed)
        except ApiError:
            continue
        limit -= len(found[url])
    return found


def _parts(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        if parts.scheme not in ('http', 'https') or not parts.hostname or parts.port == 0:
            raise ValueError
    except ValueError:
        raise WrongArguments('the URL of an attachment is not an http(s) URL') from None
    if '@' in parts.netloc:
        raise WrongArguments('the URL of an attachment has a user name')
    if not re.fullmatch(r'[\w.:\[\]-]+', parts.netloc):
        raise WrongArguments('the URL of an attachment names no host')
    return parts


def _get(parts: SplitResult, limit: int, allowed: Allowed) -> bytes | str:
    """The content, or the URL of a redirect."""
    target = quote(parts.path or '/', safe=_KEPT) + ('?' + quote(parts.query, safe=_KEPT) if parts.query else '')
    host, port = parts.hostname or '', 443 if parts.scheme == 'https' else 80
    try:
        with closing(http.client.HTTPConnection(host, parts.port or port)) as link:
            link.response_class = Response
            link.default_port = port  # the one that `Host` does not name
            link.sock = _connected(parts.scheme, host, link.port, allowed)
            link.request('GET', target, headers={'User-Agent': f'ecommerce-worker/{__version__}',
                                                 'Accept-Encoding': 'identity', 'Connection': 'close'})
            with link.getresponse() as response:
                return _read(response, limit)
    except TimeoutError:
        raise Unreachable('the server of an attachment did not answer in time') from None
    except ssl.SSLError:
        raise Unreachable('the server of an attachment: TLS connection failed, check its certificate') from None
    except TooMuch:
        raise Rejected(f'an attachment is larger than the remaining {limit} bytes') from None
    except OSError:
        raise Unreachable('the server of an attachment could not be reached') from None
    # ValueError: an invalid chunk length.
    except (http.client.HTTPException, ValueError):
        raise Unreachable('the server of an attachment closed the connection early') from None


def _read(response: http.client.HTTPResponse, limit: int) -> bytes | str:
    status = response.status
    if status in (301, 302, 303, 307, 308) and (location := response.headers['Location']):
        return str(location)
    if status != 200:
        kind: type[ApiError] = PeerFailure if status >= 500 else Rejected
        raise kind(f'the server of an attachment answered {status}', status=status)
    if response.headers.get('Content-Encoding', 'identity') != 'identity':
        raise Rejected('the server of an attachment answered with a content encoding that was not requested')
    if (response.length or 0) <= limit:
        found = whole(response.read1, limit)
        if response.length:
            raise http.client.IncompleteRead(found, response.length)
        return found
    raise TooMuch


def _connected(scheme: str, host: str, port: int, allowed: Allowed) -> Plain | Secure:
    places = resolved(host, port)
    for _, address in places:
        if not allowed(ipaddress.ip_address(address[0])):
            raise WrongArguments('the URL of an attachment points into the local network')
    link = connected(places, None)
    if scheme == 'http':
        return link
    with link:  # what is not handed over is closed
        secure = securing(ssl.create_default_context()).wrap_socket(link, server_hostname=host)
    assert isinstance(secure, Secure)  # noqa: S101 - for the type checker
    return secure


def check_link(url: str, what: str, hosts: Container[str]) -> None:
    """Raise unless the link points to a public host: vendors follow it, and recipients may."""
    try:
        parts = urlsplit(url)
        host = (parts.hostname or '').encode('idna').decode().removesuffix('.')
        port = parts.port
    except ValueError:
        raise WrongArguments(f'{what} is not a URL') from None
    if parts.scheme not in ('http', 'https') or not host or port == 0:
        raise WrongArguments(f'{what} is not an http(s) URL')
    # Browsers read a backslash as a slash and drop line ends, so they would see another host.
    if not url.isprintable() or set(url) & {' ', '\\'}:
        raise WrongArguments(f'{what} has characters that are not allowed in a URL')
    if '@' in parts.netloc:
        raise WrongArguments(f'{what} has a user name or a password')
    if host not in hosts and not _is_public(host):
        raise WrongArguments(f'{what} points to a host that is not on the Internet')


def _is_public(host: str) -> bool:
    """Whether a host is not evidently local; what its name stands for is found out only by whoever connects to it.

    Of IPv4 addresses only the usual form is known: 127.1, 0x7f000001 and 017700000001 are names that no host has.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return (re.fullmatch(r'([a-z0-9_-]+\.)+[a-z][a-z0-9-]*', host) is not None
                and not host.endswith(('.localhost', '.localdomain', '.local', '.internal', '.home.arpa')))
    # One that stands for another is met where names are looked up; in a link it hides something.
    return is_global(address) and (address.version == 4 or (address in _UNICAST and not address.sixtofour))
