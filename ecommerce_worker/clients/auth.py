"""The two ways in which the shop has let this worker in: a token from the LMS, and one that we sign ourselves."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import jwt
import requests
from requests.auth import AuthBase

from ecommerce_worker.clients.circuit import Hold
from ecommerce_worker.clients.http import error_for, error_without_answer
from ecommerce_worker.errors import ApiError, PeerFailure, Throttled, Unauthorized, Unreachable

#: A self-signed token is valid for this many seconds, as it always was.
SELF_SIGNED_SECONDS = 30


_PEER = 'the token endpoint of the LMS'
_UNUSABLE = f'{_PEER} did not answer with a token'


class Token(NamedTuple):
    """What signs requests, and until when (on the clock of its signer, in seconds)."""

    auth: AuthBase
    renew_at: float


class ClientCredentials:
    """OAuth2 client credentials: a JWT from the LMS, kept until shortly before it expires.

    However many threads ask at the same moment, one fetches it and all share what comes of it, a failure too.
    """

    def __init__(self, provider_url: str, client_id: str, client_secret: str, *, hold: Hold | None = None,
                 clock: Callable[[], float] = time.monotonic) -> None:
        root = provider_url.rstrip('/')
        self._url = (root if root.endswith('/access_token') else root + '/access_token') + '/'
        self._client_id = client_id
        self._client_secret = client_secret
        self._hold = hold or Hold(_PEER)
        self._clock = clock
        self._lock = threading.Lock()
        self._token: Future[Token] | None = None
        # Its datetime.utcnow().
        warnings.filterwarnings('ignore', category=DeprecationWarning, module='edx_rest_api_client')

    def credentials(self) -> AuthBase:
        """The token in force, fetched if need be; raises an :class:`~ecommerce_worker.errors.ApiError`."""
        with self._lock:
            token, mine = self._token, None
            if token is None or (token.done() and self._is_stale(token)):
                token = mine = self._token = Future()
        if mine:
            try:
                with self._hold.call():
                    mine.set_result(self._fetch())
            except BaseException as error:  # noqa: BLE001 - whoever waits must hear of it, whatever it is
                mine.set_exception(error)
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
        # The import takes a quarter of a second (it brings Django modules along), so not before it is needed.
        from edx_rest_api_client.auth import SuppliedJwtAuth
        from edx_rest_api_client.client import get_oauth_access_token

        asked_at = self._clock()
        try:
            token, expires_at = get_oauth_access_token(self._url, self._client_id, self._client_secret)
        except requests.RequestException as error:
            raise token_error(error) from None
        except (TypeError, ValueError, OverflowError, RecursionError):
            raise PeerFailure(_UNUSABLE) from None
        if not (isinstance(token, str) and token and token.isascii() and token.isprintable()):
            raise PeerFailure(_UNUSABLE)
        lifetime = (expires_at.replace(tzinfo=UTC) - datetime.now(UTC)).total_seconds()
        return Token(SuppliedJwtAuth(token), asked_at + lifetime - min(60.0, lifetime / 5))


def token_error(error: requests.RequestException) -> ApiError:
    """What a token that did not come stands for.

    A failing endpoint, a 500 too, is an outage of the LMS and no answer about any order.  403 is how its rate
    limit refuses.
    """
    response = error.response
    if response is None:
        return error_without_answer(error, _PEER)
    if response.status_code < 300:
        return PeerFailure(f'{_PEER} did not answer with a token', status=response.status_code)
    answer = error_for(response, _PEER)
    if response.status_code == 403:
        return Throttled(f'{_PEER} asks us to slow down (403)', status=403, retry_after=answer.retry_after)
    if response.status_code >= 500:
        return Unreachable(str(answer), status=None, retry_after=answer.retry_after)
    if response.status_code == 400:
        return Unauthorized(f'{_PEER} does not accept our credentials (400)', status=400)
    return answer


class SelfSigned:
    """The older way: a short-lived HS256 JWT signed with a secret that the shop shares."""

    def __init__(self, secret: str, issuer: str, username: str) -> None:
        self._secret = secret
        self._claims = {'username': username, 'full_name': None, 'email': None, 'iss': issuer}
        # PyJWT warns of secrets under 32 bytes on every call; `ecommerce-worker check` says it once.
        warnings.filterwarnings('ignore', message='The HMAC key is')

    def credentials(self) -> AuthBase:
        """A fresh token: it is cheaper to sign one than to keep track of it."""
        from edx_rest_api_client.auth import SuppliedJwtAuth

        now = datetime.now(UTC)
        claims = {**self._claims, 'iat': now, 'exp': now + timedelta(seconds=SELF_SIGNED_SECONDS)}
        auth: AuthBase = SuppliedJwtAuth(jwt.encode(claims, self._secret, algorithm='HS256'))
        return auth

    def refused(self, credentials: AuthBase) -> bool:  # noqa: ARG002 - signing the same again changes nothing
        """A secret that is refused once is refused always."""
        return False


class Bearer(AuthBase):
    """A key of ours that does not change, as mail vendors give it; the signer and what it signs with at once."""

    def __init__(self, key: str) -> None:
        self._header = f'Bearer {key}'

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Sign one request."""
        request.headers['Authorization'] = self._header
        return request

    def credentials(self) -> AuthBase:
        """Always the same."""
        return self

    def refused(self, credentials: AuthBase) -> bool:  # noqa: ARG002 - there is no other key to try
        """A key that is refused once is refused until somebody changes it."""
        return False
