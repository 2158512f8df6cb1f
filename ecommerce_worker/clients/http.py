"""Requests to another service, and the meaning of its answers."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import requests
from requests.auth import AuthBase
from requests.structures import CaseInsensitiveDict
from urllib3.exceptions import HTTPError, NewConnectionError, ReadTimeoutError

from ecommerce_worker import __version__
from ecommerce_worker.clients.circuit import CircuitBreaker
from ecommerce_worker.clients.exchange import TooMuch, exchange, whole
from ecommerce_worker.clients.kept import KEPT, lack_of_files
from ecommerce_worker.clients.transport import NameNotResolved, Transport
from ecommerce_worker.correlation import HEADER, current
from ecommerce_worker.errors import (
    ApiError,
    LocalFailure,
    NotFound,
    PeerFailure,
    Rejected,
    Throttled,
    Transient,
    Unauthorized,
    Unreachable,
    lack_behind,
)

#: The longest answer that is read, in bytes; an order's JSON has some kilobytes.
LARGEST_ANSWER = 4 * 1024 * 1024

_NO_CERTIFICATES = 'its certificates cannot be read (REQUESTS_CA_BUNDLE; `ecommerce-worker check`)'
#: The most that is read before the answer itself, in bytes: its head, and interim answers (100 Continue).
LARGEST_HEAD = 256 * 1024

#: Clocks that differ by more seconds than this are worth a hint where credentials are refused.
CLOCKS_AGREE = 10.0

#: How a peer says that the time in a token does not fit its clock.
_ABOUT_TIME = re.compile(r'not yet valid|\biat\b|\bnbf\b|immature|expired', re.IGNORECASE)
#: Whether a part of a URL stands in it as it is.
_needs_no_quoting: Final = re.compile(r'[A-Za-z0-9_/-]*').fullmatch
#: Seconds after which a call is made again for which there was no file.
LACK_SECONDS = 2.0


#: Makes a request with these credentials.
Prepared = Callable[[AuthBase | None], requests.PreparedRequest]


class Signer(Protocol):
    """Authenticates requests."""

    def credentials(self) -> AuthBase:
        """The credentials for the next request; raises :class:`~ecommerce_worker.errors.ApiError` if there is none."""

    def refused(self, credentials: AuthBase) -> bool:
        """Forget credentials that were answered with a 401; whether signing again may help."""


def seconds_to_wait(headers: Mapping[str, str]) -> float | None:
    """The seconds of a ``Retry-After`` in either of its forms (RFC 9110, 10.2.3); None if absent or unreadable.

    A date is compared with the answer's own ``Date``, so that the two clocks need not agree.
    """
    value = headers.get('Retry-After', '').strip()
    if _is_number(value):
        return float(value)
    until = _date(value)
    if until is None:
        return None
    return max(0.0, (until - (_date(headers.get('Date', '')) or datetime.now(UTC))).total_seconds())


def seconds_to_reset(headers: Mapping[str, str]) -> float | None:
    """The seconds until a rate limit is lifted, as Braze, SendGrid and Sailthru report it; None if absent."""
    value = headers.get('X-RateLimit-Reset', headers.get('X-Rate-Limit-Reset', '')).strip()
    if not _is_number(value) or float(value) == 0:
        return None
    # It is an epoch second.
    now = _date(headers.get('Date', '')) or datetime.now(UTC)
    return max(0.0, float(value) - now.timestamp())


def _is_number(value: str) -> bool:
    return value.isascii() and value.isdigit() and len(value) < 16


def _date(value: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)


def error_for(response: requests.Response, peer: str = 'the service') -> ApiError:
    """The error for an answer other than 2xx; its JSON becomes the error's ``answer``."""
    status, wait = response.status_code, seconds_to_wait(response.headers)
    if status == 429:
        wait = max(wait or 0.0, seconds_to_reset(response.headers) or 0.0) or wait
    kind: type[ApiError]
    hint = ''
    match status:
        case 401:
            kind, meaning = Unauthorized, 'does not accept our credentials'
            hint = _clock_hint(response)
        case 403:
            kind, meaning = Unauthorized, 'does not permit it'
        case 404:
            kind, meaning = NotFound, 'does not know it'
        case 429:
            kind, meaning = Throttled, 'asks us to slow down'
        case _ if status >= 500 or status < 200:
            kind, meaning = PeerFailure, 'failed'
        case 302 | 303 | 307 if not _is_moved(response):
            place = _place(response.headers.get('Location', '')) or 'another page'
            kind, meaning = PeerFailure, f'redirects to {place} temporarily, as during maintenance'
        case _ if 300 <= status < 400:
            place = _place(response.headers.get('Location', '')) or 'another address'
            kind, meaning = Rejected, f'redirects to {place}; the configured address is not the right one'
        case _:
            kind, meaning = Rejected, 'refuses it'
    answer = _json(response)
    if issubclass(kind, Rejected) and status >= 400 and answer is None and response.content:
        return _of_another(response, peer, wait)
    return kind(f'{peer} {meaning} ({status}){hint}', status=status, retry_after=wait, answer=answer)


def _of_another(response: requests.Response, peer: str, wait: float | None = None) -> PeerFailure:
    """The error for the answer of a firewall, a proxy or a maintenance page, whatever its status.

    The service itself answers with JSON, or an empty body.
    """
    kind = response.headers.get('Content-Type', 'something').partition(';')[0]
    return PeerFailure(
        f'{peer} answered {response.status_code} with {kind} instead of JSON; is a proxy, a firewall or a login page '
        'in between?', status=response.status_code, retry_after=wait, maybe_done=True)


def _is_moved(response: requests.Response) -> bool:
    """Whether the same path is redirected to elsewhere (https, say); a maintenance page has one of its own."""
    try:
        return urlsplit(response.headers.get('Location', '')).path == urlsplit(response.url or '').path != ''
    except ValueError:
        return False


def _place(url: str) -> str:
    """Scheme, host and port of a URL, without the credentials that may stand before them; empty if it has no host."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ''
    host = parts.netloc.rpartition('@')[2]
    return f'{parts.scheme}://{host}' if parts.scheme and host else host


def _clock_hint(response: requests.Response) -> str:
    """A hint at clock skew where credentials were refused; empty if there is none."""
    theirs = _date(response.headers.get('Date', ''))
    apart = (datetime.now(UTC) - theirs).total_seconds() if theirs else 0.0
    if abs(apart) > CLOCKS_AGREE:
        return f'; our clock is {abs(apart):.0f} s {"ahead of" if apart > 0 else "behind"} its clock: set both by NTP'
    said = f'{_json(response) or ""} {response.headers.get("WWW-Authenticate", "")}'
    if _ABOUT_TIME.search(said[:4096]):
        return '; it rejects the time in the token: compare the clocks of both machines'
    return ''


def _json(response: requests.Response) -> Any:
    try:
        return response.json()
    except (ValueError, RecursionError):
        return None


def error_without_answer(error: requests.RequestException, peer: str = 'the service') -> Transient:
    """The error for a request without a complete answer; its text has no URL, which may contain secrets."""
    if lack := lack_behind(error) or lack_of_files():
        KEPT.give_up()
        return LocalFailure(f'{peer} was not called: {lack}', retry_after=LACK_SECONDS)
    causes = tuple(_causes(error))

    def is_due_to(*kinds: type[BaseException]) -> bool:
        return any(isinstance(cause, kinds) for cause in causes)

    if isinstance(error, requests.ConnectTimeout):
        return Unreachable(f'{peer} did not accept the connection in time')
    if is_due_to(TooMuch):
        return Unreachable(f'{peer} sent more than {LARGEST_HEAD} bytes of headers', maybe_done=True)
    if isinstance(error, requests.exceptions.SSLError) and not is_due_to(TimeoutError):
        if isinstance(_origin(error), FileNotFoundError | PermissionError | IsADirectoryError):
            return LocalFailure(f'{peer} was not called: {_NO_CERTIFICATES}')
        return Unreachable(f'{peer}: TLS connection failed, check its certificate')
    if is_due_to(NameNotResolved):
        return Unreachable(f'{peer}: its host name could not be resolved')
    if is_due_to(NewConnectionError):
        return Unreachable(f'{peer} refused the connection')
    if isinstance(error, requests.exceptions.ProxyError):
        return Unreachable(f'{peer}: the proxy in front of it failed')
    if is_due_to(requests.Timeout, ReadTimeoutError, TimeoutError):
        return Unreachable(f'{peer} did not answer in time', maybe_done=True)
    return Unreachable(f'{peer} closed the connection early', maybe_done=True)


def _origin(error: BaseException) -> BaseException:
    """What was raised first, where others were raised from it; urllib3 before 2 has no class for a name not found."""
    while found := error.__cause__ or error.__context__:
        error = found
    return error


def _causes(error: BaseException, depth: int = 5) -> Iterator[BaseException]:
    """An error and what it wraps, as requests and urllib3 do it: among its arguments, or as its reason."""
    yield error
    for inner in (*error.args, getattr(error, 'reason', None)):
        if depth and isinstance(inner, BaseException):
            yield from _causes(inner, depth - 1)


#: The error that an answer other than 2xx stands for, and the peer's name in its text.
Refusal = Callable[[requests.Response, str], ApiError]


class Api:
    """One service at one root URL, over kept-alive connections, safe for as many threads as ``connections``.

    Raises only our own errors.  Never follows a redirect (a PUT would become a GET), never keeps a cookie (a
    session of one order must not sign the next).  A ``correlated`` peer gets the id of the request, in the
    header ``X-Request-ID``.
    """

    def __init__(self, root: str, *, peer: str, signer: Signer | None = None, circuit: CircuitBreaker | None = None,
                 connections: int = 1, connect_timeout: float = 3.05, read_timeout: float = 10.0,
                 refusal: Refusal = error_for, correlated: bool = False) -> None:
        self.root = root.rstrip('/') + '/'
        self.peer = peer
        self._signer = signer
        self._circuit = circuit or CircuitBreaker(peer, connections)
        self._connect_timeout = connect_timeout
        self._read_timeout = read_timeout
        self._refusal = refusal
        self._correlated = correlated
        self._adapter = Transport(pool_connections=1, pool_maxsize=connections)
        session = requests.Session()
        # Proxies and the CA bundle of the environment are looked up once here: on each call they cost measurable
        # time.
        found = session.merge_environment_settings(self.root, {}, True, None, None)
        self._transport: dict[str, Any] = {name: found[name] for name in ('proxies', 'verify', 'cert')}
        self._headers: Any = CaseInsensitiveDict({**session.headers, 'User-Agent': f'ecommerce-worker/{__version__}',
                                             'Accept': 'application/json'})
        #: The root as requests writes it; '' until it is first needed.
        self._written_root = ''

    def request(self, method: str, path: str, *, params: Mapping[str, str] | None = None, json: Any = None,
                form: Mapping[str, str] | None = None, read_timeout: float | None = None,
                blank: bool = False) -> Any:
        """The JSON value of a 2xx answer; None for one without a body (202 or 204).

        ``blank`` means that any other 2xx may have an empty body, too.
        ``json`` or ``form`` is sent as the body.  ``read_timeout`` bounds, in seconds, the silence before and
        within the answer; twice that bounds the whole, from connecting to the last byte.
        Raises :class:`~ecommerce_worker.errors.ApiError`.
        """
        prepared = partial(self._prepared, method, path.lstrip('/'), params or {}, json, form)
        response = self._signed(method, prepared, read_timeout or self._read_timeout)
        if not response.content and (blank or response.status_code in (202, 204)):
            return None
        try:
            return response.json()
        except (ValueError, RecursionError):
            raise _of_another(response, self.peer) from None

    def close(self) -> None:
        """Close idle connections; the next request opens new ones."""
        self._adapter.close()

    def _prepared(self, method: str, path: str, params: Mapping[str, str], json: Any, form: Mapping[str, str] | None,
                  credentials: AuthBase | None) -> requests.PreparedRequest:
        """The request as it is sent; raises what requests raises.

        So does a session of requests prepare it, which asks for cookies, hooks and settings each time: that took a
        fifth of a call.
        """
        request = requests.PreparedRequest()
        request.method = method
        if _needs_no_quoting(path) and all(map(_needs_no_quoting, (*params, *params.values()))):
            query = '&'.join([f'{name}={value}' for name, value in params.items()])
            request.url = f'{self._root_as_written()}{path}{"?" if query else ""}{query}'
        else:
            request.prepare_url(self.root + path, params)
        request.headers = self._headers.copy()
        if self._correlated and (id_ := current()):
            request.headers[HEADER] = id_
        request.prepare_body(form, None, json)
        request.prepare_auth(credentials, request.url)
        return request

    def _root_as_written(self) -> str:
        if not self._written_root:
            probe = requests.PreparedRequest()
            probe.prepare_url(f'{self.root}x', None)
            self._written_root = str(probe.url).removesuffix('x')
        return self._written_root

    def _signed(self, method: str, prepared: Prepared, read_timeout: float) -> requests.Response:
        if not self._signer:
            return self._send(method, partial(prepared, None), read_timeout)
        credentials = self._signer.credentials()
        try:
            return self._send(method, partial(prepared, credentials), read_timeout)
        except Unauthorized as error:
            if error.status != 401 or not self._signer.refused(credentials):
                raise
        return self._send(method, partial(prepared, self._signer.credentials()), read_timeout)

    def _send(self, method: str, prepared: Callable[[], requests.PreparedRequest],
              read_timeout: float) -> requests.Response:
        """The 2xx answer; any other raises its error."""
        with self._circuit.call(), KEPT.using(self):
            response = self._answer(method, prepared, read_timeout)
            if not 200 <= response.status_code < 300:
                raise self._refusal(response, self.peer)
            return response

    def _answer(self, method: str, prepared: Callable[[], requests.PreparedRequest],
                read_timeout: float) -> requests.Response:
        status, began = None, time.monotonic()
        try:
            with exchange(2 * read_timeout, LARGEST_HEAD) as bounds:
                # By way of the adapter, not of a session, which would read and parse redirects before we see them.
                response = self._adapter.send(prepared(), stream=True, timeout=(self._connect_timeout, read_timeout),
                                              **self._transport)
                status = response.status_code
                bounds.left = LARGEST_ANSWER + LARGEST_HEAD  # the lengths of chunks come along
                with response:
                    _read(response)
        except TooMuch:
            raise PeerFailure(f'{self.peer} answers with more than {LARGEST_ANSWER} bytes, or in too many pieces',
                              status=status, maybe_done=True) from None
        except requests.RequestException as error:
            raise error_without_answer(error, self.peer) from None
        except HTTPError as error:
            # Not all of urllib3's errors are turned into errors of requests.
            raise error_without_answer(requests.ConnectionError(error), self.peer) from None
        except OSError as error:
            # A file of certificates that is missing, say; what it raises about the peer was caught above.
            raise LocalFailure(f'{self.peer} was not called: {lack_behind(error) or _NO_CERTIFICATES}') from None
        finally:
            self._circuit.answered(method, status, time.monotonic() - began)
        return response


def _read(response: requests.Response) -> None:
    """Read the body, bounded in size."""

    def read1(size: int) -> bytes:
        # What has come, not what was asked for; urllib3 before 2 has no such reading.
        found: bytes = getattr(response.raw, 'read1', response.raw.read)(size, decode_content=True)
        return found

    response._content = whole(read1, LARGEST_ANSWER)  # noqa: SLF001 - where requests itself keeps what it has read
