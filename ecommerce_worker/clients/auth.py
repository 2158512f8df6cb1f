"""Authentication at the shop: by a token from the LMS, or by one that we sign ourselves."""

from __future__ import annotations

import threading
import time
import warnings
from base64 import b64encode
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

import requests
from requests.auth import AuthBase
from typing_extensions import override

from ecommerce_worker.clients.circuit import CircuitBreaker
from ecommerce_worker.clients.http import Api, error_for
from ecommerce_worker.errors import ApiError, PeerFailure, Throttled, Unauthorized, Unreachable, WorkerError

#: A self-signed token is valid for this many seconds, as it always was.
SELF_SIGNED_SECONDS = 30

#: How long a token is taken to be valid whose answer does not say it (RFC 6749, 5.1, lets it), in seconds.
SHORT_LIFE = 60.0

#: The longest that is believed, in seconds; keys are changed now and then.
LONG_LIFE = 86_400.0

_PEER = 'the token endpoint of the LMS'


class Jwt(AuthBase):
    """A token in the header that the shop expects."""

    def __init__(self, token: str) -> None:
        self.token = token

    @override
    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Sign one request."""
        request.headers['Authorization'] = f'JWT {self.token}'
        return request


class Token(NamedTuple):
    """A token and its expiry (on the clock of its signer, in seconds)."""

    auth: AuthBase
    renew_at: float


class ClientCredentials:
    """OAuth2 client credentials: a JWT from the LMS, kept until shortly before it expires.

    If many threads need one at once, one fetches it and all share the result, a failure too.  ``peer`` and
    ``path`` are those of another endpoint than the LMS's, and ``auth`` makes of a token what signs requests with it.
    """

    def __init__(self, provider_url: str, client_id: str, client_secret: str, *, circuit: CircuitBreaker | None = None,
                 connect_timeout: float = 3.05, read_timeout: float = 5.0, peer: str = _PEER,
                 path: str = 'access_token/', auth: Callable[[str], AuthBase] = Jwt,
                 clock: Callable[[], float] = time.monotonic) -> None:
        self._circuit = circuit or CircuitBreaker(peer)
        self._api = Api(provider_url.rstrip('/').removesuffix('/access_token'), peer=peer, circuit=self._circuit,
                        connect_timeout=connect_timeout, read_timeout=read_timeout, refusal=token_error,
                        correlated=True)
        self._path = path
        self._unusable = f'{peer} answered without a token'
        self._auth = auth
        self._client_id = client_id
        self._client_secret = client_secret
        self._clock = clock
        self._lock = threading.Lock()
        self._token: Future[Token] | None = None

    def credentials(self) -> AuthBase:
        """The current token, fetched if needed; raises an :class:`~ecommerce_worker.errors.ApiError`."""
        with self._lock:
            token, mine = self._token, None
            if token is None or (token.done() and self._is_stale(token)):
                token = mine = self._token = Future()
        if mine:
            cause = ''
            try:
                mine.set_result(self._fetch())
            except BaseException as error:  # noqa: BLE001 - raised in all waiting threads
                cause = error.cause if isinstance(error, WorkerError) else WorkerError.cause
                mine.set_exception(error)
            self._circuit.fetched(cause)
        return token.result().auth

    def refused(self, credentials: AuthBase) -> bool:
        """Forget the token that was refused (keys were changed, say), unless another thread did so already."""
        with self._lock:
            token = self._token
            if token and token.done() and not token.exception() and token.result().auth is credentials:
                self._token = None
        return True

    def _is_stale(self, token: Future[Token]) -> bool:
        return token.exception() is not None or self._clock() >= token.result().renew_at

    def _fetch(self) -> Token:
        asked_at = self._clock()
        try:
            answer = self._api.request('POST', self._path, form={
                'grant_type': 'client_credentials', 'client_id': self._client_id,
                'client_secret': self._client_secret, 'token_type': 'jwt'})
        except ApiError as error:
            error.maybe_done = False  # what the token is for was not asked for
            if error.status is not None and error.status < 300:
                raise PeerFailure(self._unusable) from None
            raise
        token = answer.get('access_token') if isinstance(answer, dict) else None
        if not (isinstance(token, str) and token and token.isascii() and token.isprintable()):
            raise PeerFailure(self._unusable)
        lifetime = lifetime_of(answer.get('expires_in'))
        return Token(self._auth(token), asked_at + lifetime - min(60.0, lifetime / 5))

    def close(self) -> None:
        """Close the idle connection; the next fetch opens another."""
        self._api.close()


def lifetime_of(given: Any) -> float:
    """The seconds of ``expires_in``, which may be a string; a short time if it is missing."""
    try:
        seconds = SHORT_LIFE if isinstance(given, bool) else float(given)
    except (TypeError, ValueError, OverflowError):
        return SHORT_LIFE
    return min(seconds, LONG_LIFE) if seconds >= 0 else SHORT_LIFE


def token_error(response: requests.Response, peer: str = _PEER) -> ApiError:
    """The error for a token that could not be fetched.

    A failing endpoint, a 500 too, is an outage of the LMS and no answer about any order.  403 is how its rate
    limit refuses.
    """
    answer = error_for(response, peer)
    if response.status_code == 403:
        return Throttled(f'{peer} asks us to slow down (403)', status=403, retry_after=answer.retry_after)
    if response.status_code >= 500:
        return Unreachable(str(answer), status=None, retry_after=answer.retry_after)
    if response.status_code == 400:
        return Unauthorized(f'{peer} does not accept our credentials (400)', status=400)
    return answer


class SelfSigned:
    """The older way: a short-lived HS256 JWT signed with a secret that the shop shares."""

    def __init__(self, secret: str, issuer: str, username: str) -> None:
        # It brings cryptography, which takes longer to import than Celery; a shop with OAuth2 needs neither.
        import jwt

        self._encode = partial(jwt.encode, key=secret, algorithm='HS256')
        self._claims = {'username': username, 'full_name': None, 'email': None, 'iss': issuer}
        # PyJWT warns of secrets under 32 bytes on every call; `ecommerce-worker check` says it once.
        warnings.filterwarnings('ignore', message='The HMAC key is')

    def credentials(self) -> AuthBase:
        """A fresh token: it is cheaper to sign one than to keep track of it."""
        now = datetime.now(UTC)
        claims = {**self._claims, 'iat': now, 'exp': now + timedelta(seconds=SELF_SIGNED_SECONDS)}
        return Jwt(self._encode(claims))

    def refused(self, credentials: AuthBase) -> bool:  # noqa: ARG002 - signing the same again changes nothing
        """A refused secret stays refused."""
        return False


class Fixed(AuthBase):
    """Constant headers; both the signer and its credentials."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = dict(headers)

    @override
    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Sign one request."""
        request.headers.update(self._headers)
        return request

    def credentials(self) -> AuthBase:
        """Always the same."""
        return self

    def refused(self, credentials: AuthBase) -> bool:  # noqa: ARG002 - there is no other key to try
        """A refused key stays refused until it is changed."""
        return False


class Basic(Fixed):
    """A name and a password."""

    def __init__(self, name: str, password: str) -> None:
        super().__init__({'Authorization': 'Basic ' + b64encode(f'{name}:{password}'.encode()).decode()})


class Bearer(Fixed):
    """An API key; ``headers`` are sent with it."""

    def __init__(self, key: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__({**(headers or {}), 'Authorization': f'Bearer {key}'})
