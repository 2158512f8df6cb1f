"""The address of the console."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from ecommerce_worker.errors import Misconfigured
from ecommerce_worker.settings import Settings


def url_of(settings: Settings) -> str:
    """Its public URL, without a trailing slash.

    Raises :class:`~ecommerce_worker.errors.Misconfigured` for one over which passwords would be sent unencrypted.
    """
    url = settings.CONSOLE_URL or f'http://{settings.CONSOLE_ADDRESS}'
    if not url.startswith('https:') and not _on_this_machine(urlsplit(url).hostname or ''):
        raise Misconfigured([(f'the console would be at {url}, where passwords are sent unencrypted: put a proxy with '
                              'TLS in front of it and set CONSOLE_URL to its https address')])
    return url


def client_of(request: Any) -> str:
    """The client address of a request."""
    return str(request.META.get('REMOTE_ADDR', ''))


def _on_this_machine(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == 'localhost' or host.endswith('.localhost')
