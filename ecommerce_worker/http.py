"""Requests to another service, and what its answers mean."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Protocol
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3.exceptions import NameResolutionError, NewConnectionError

from ecommerce_worker import __version__
from ecommerce_worker.errors import (
    ApiError,
    NotFound,
    PeerFailure,
    Rejected,
    Throttled,
    Transient,
    Unauthorized,
    Unreachable,
)

#: The longest answer that is read, in bytes; an order's JSON has some kilobytes.
LARGEST_ANSWER = 4 * 1024 * 1024


class Signer(Protocol):
    """What puts our identity on a request."""

    def credentials(self) -> AuthBase:
        """What signs the next request; raises :class:`~ecommerce_worker.errors.ApiError` if there is none."""

    def refused(self, credentials: AuthBase) -> bool:
        """Forget credentials that were answered with a 401; whether signing again may help."""


def seconds_to_wait(headers: Mapping[str, str]) -> float | None:
    """The seconds of a ``Retry-After`` in either of its forms (RFC 9110, 10.2.3); None if absent or unreadable.

    A date is compared with the answer's own ``Date``, so that the two clocks need not agree.
    """
    value = headers.get('Retry-After', '').strip()
    if value.isascii() and value.isdigit():
        return float(value)
    until = _date(value)
    if until is None:
        return None
    return max(0.0, (until - (_date(headers.get('Date', '')) or datetime.now(UTC))).total_seconds())


def _date(value: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)


def error_for(response: requests.Response, peer: str = 'the service') -> ApiError:
    """The error that an answer other than 2xx stands for."""
    status, wait = response.status_code, seconds_to_wait(response.headers)
    kind: type[ApiError]
    match status:
        case 401:
            kind, meaning = Unauthorized, 'does not accept our credentials'
        case 403:
            kind, meaning = Unauthorized, 'does not permit it'
        case 404:
            kind, meaning = NotFound, 'does not know it'
        case 429:
            kind, meaning = Throttled, 'asks us to slow down'
        case _ if status >= 500:
            kind, meaning = PeerFailure, 'failed'
        case _ if 300 <= status < 400:
            host = urlsplit(response.headers.get('Location', '')).netloc or 'another address'
            kind, meaning = Rejected, f'redirects to {host}; the configured address is not the right one'
        case _:
            kind, meaning = Rejected, 'refuses it'
    return kind(f'{peer} {meaning} ({status})', status=status, retry_after=wait)


def error_without_answer(error: requests.RequestException, peer: str = 'the service') -> Transient:
    """The error that a request without a (whole) answer stands for; its text names no URL, which may hold secrets."""
    cause = getattr(error.args[0] if error.args else None, 'reason', None)
    if isinstance(error, requests.ConnectTimeout):
        return Unreachable(f'{peer} could not be connected to in time')
    if isinstance(error, requests.Timeout):
        return Unreachable(f'{peer} did not answer in time', maybe_done=True)
    if isinstance(error, requests.exceptions.SSLError):
        return Unreachable(f'{peer}: no TLS connection, look at its certificate')
    if isinstance(cause, NameResolutionError):
        return Unreachable(f'{peer}: its host name could not be resolved')
    if isinstance(cause, NewConnectionError):
        return Unreachable(f'{peer} refused the connection')
    if isinstance(error, requests.exceptions.ProxyError):
        return Unreachable(f'{peer}: the proxy on the way there failed')
    return Unreachable(f'{peer} broke off the connection', maybe_done=True)


class Api:
    """One service at one root URL, over kept-alive connections, safe for as many threads as ``connections``.

    Raises only our own errors.  Never follows a redirect (a PUT would become a GET), never keeps a cookie (a
    session of one order must not sign the next).
    """

    def __init__(self, root: str, *, peer: str, signer: Signer | None = None, connections: int = 1,
                 connect_timeout: float = 3.05, read_timeout: float = 10.0) -> None:
        self.root = root.rstrip('/') + '/'
        self.peer = peer
        self._signer = signer
        self._connect_timeout = connect_timeout
        self._read_timeout = read_timeout
        self._session = _session(self.root, connections)

    def request(self, method: str, path: str, *, params: Mapping[str, str] | None = None, json: Any = None,
                read_timeout: float | None = None) -> Any:
        """The JSON value of a 2xx answer (None for an empty 204).

        ``read_timeout`` bounds, in seconds, the silence before and within the answer; twice that bounds the whole
        of it.  Raises :class:`~ecommerce_worker.errors.ApiError`.
        """
        response = self._send(method, path, params, json, read_timeout or self._read_timeout)
        if not 200 <= response.status_code < 300:
            raise error_for(response, self.peer)
        if response.status_code == 204:
            return None
        try:
            return response.json()
        except ValueError:
            kind = response.headers.get('Content-Type', 'nothing').partition(';')[0]
            raise PeerFailure(
                f'{self.peer} answered {response.status_code} with {kind} instead of JSON; is a proxy or a login '
                'page in between?', status=response.status_code, maybe_done=True) from None

    def _send(self, method: str, path: str, params: Mapping[str, str] | None, json: Any,
              read_timeout: float) -> requests.Response:
        credentials = self._signer.credentials() if self._signer else None
        response = self._send_signed(credentials, method, path, params, json, read_timeout)
        if response.status_code == 401 and self._signer and credentials and self._signer.refused(credentials):
            response = self._send_signed(self._signer.credentials(), method, path, params, json, read_timeout)
        return response

    def _send_signed(self, credentials: AuthBase | None, method: str, path: str,
                     params: Mapping[str, str] | None, json: Any, read_timeout: float) -> requests.Response:
        deadline = time.monotonic() + 2 * read_timeout
        try:
            response = self._session.request(
                method, self.root + path, params=params, json=json, auth=credentials, allow_redirects=False,
                stream=True, timeout=(self._connect_timeout, read_timeout))
            with response:
                _read(response, deadline, self.peer)
        except requests.RequestException as error:
            raise error_without_answer(error, self.peer) from None
        return response


def _session(root: str, connections: int) -> requests.Session:
    session = requests.Session()
    adapter = HTTPAdapter(pool_connections=1, pool_maxsize=connections)
    session.mount('http://', adapter)
    session.mount('https://', adapter)
    # Proxies and the CA bundle of the environment are looked up once here: on each call they cost measurable time.
    environment = session.merge_environment_settings(root, {}, None, None, None)
    session.proxies, session.verify, session.trust_env = environment['proxies'], environment['verify'], False
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    session.headers['User-Agent'] = f'ecommerce-worker/{__version__}'
    session.headers['Accept'] = 'application/json'
    return session


def _read(response: requests.Response, deadline: float, peer: str) -> None:
    """Read the body, bounded in size and time; a peer that sends a byte now and then never times out by itself."""
    parts, size = [], 0
    for part in response.iter_content(65536):
        parts.append(part)
        size += len(part)
        if size > LARGEST_ANSWER:
            raise PeerFailure(f'{peer} answers with more than {LARGEST_ANSWER} bytes', maybe_done=True,
                              status=response.status_code)
        if time.monotonic() > deadline:
            raise Unreachable(f'{peer} did not end its answer in time', maybe_done=True)
    response._content = b''.join(parts)  # noqa: SLF001 - where requests itself keeps what it has read
