"""Inspecting another service from outside: its name, certificate and clock, without credentials."""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import requests
from requests.certs import where  # type: ignore[attr-defined]  # it comes from certifi


@dataclass(frozen=True)
class Seen:
    """What was seen of a service; ``problem`` says what is wrong with the way there, and then nothing else is known.

    ``expires`` is when its certificate does, in epoch seconds; None without TLS.  ``ahead`` is by how many seconds our
    clock is ahead of its, to the second; None if it does not say.  ``proxy`` means that a proxy is in between, so that
    none of this can be seen.
    """

    problem: str = ''
    expires: float | None = None
    ahead: float | None = None
    proxy: bool = False


def look(url: str, seconds: float) -> Seen:
    """What there is at this URL; each step takes so many seconds at most."""
    parts = urlsplit(url)
    host, port = parts.hostname or '', parts.port or (443 if parts.scheme == 'https' else 80)
    if parts.scheme in getproxies() and not proxy_bypass(host):
        return Seen(proxy=True)
    try:
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        return Seen(f'the name {host} cannot be resolved')
    connection = http.client.HTTPConnection(host, port, timeout=seconds)
    if parts.scheme == 'https':
        connection = http.client.HTTPSConnection(host, port, timeout=seconds, context=_context(url))
    try:
        connection.connect()
        expires = expiry_of(connection.sock)
        connection.request('HEAD', parts.path or '/', headers={'User-Agent': 'ecommerce-worker doctor'})
        asked = time.time()
        date = connection.getresponse().getheader('Date', '')
        return Seen(expires=expires, ahead=_ahead(date, asked))
    except ssl.SSLCertVerificationError as error:
        return Seen(f'the certificate of {host} is not accepted: {error.verify_message}')
    except (OSError, http.client.HTTPException, ValueError) as error:
        return Seen(f'cannot connect to {host}:{port} ({type(error).__name__})')
    finally:
        connection.close()


def expiry_of(connected: Any) -> float | None:
    """When the certificate of the peer of a socket expires, in epoch seconds; None without TLS, and for one that was
    not verified, which is not kept.
    """
    found = connected.getpeercert() if isinstance(connected, ssl.SSLSocket) else None
    return float(ssl.cert_time_to_seconds(str(found['notAfter']))) if found else None


def _context(url: str) -> ssl.SSLContext:
    """A context that trusts the same authorities as our requests."""
    with requests.Session() as session:
        verify = session.merge_environment_settings(url, {}, None, None, None)['verify']
    bundle = str(verify if isinstance(verify, str) else where())
    context = ssl.create_default_context()
    context.load_verify_locations(bundle)
    return context


def _ahead(date: str, now: float) -> float | None:
    try:
        return round(now - parsedate_to_datetime(date).timestamp())
    except (ValueError, TypeError, OverflowError):
        return None
