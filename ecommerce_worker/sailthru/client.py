"""Sailthru's API (Marigold Engage today): how a call is signed, and what its answers mean.

What is known of it: https://getstarted.meetmarigold.com/engagebysailthru/Content/developers/api-basics/
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from ecommerce_worker.clients.http import Api
from ecommerce_worker.email.message import without_addresses
from ecommerce_worker.errors import (
    ApiError,
    Misconfigured,
    NotFound,
    PeerFailure,
    Rejected,
    Throttled,
    Transient,
    Unauthorized,
)

ROOT: Final = 'https://api.sailthru.com'

_PEER: Final = 'Sailthru'

#: "Other error": among others, how it says that it does not know what was asked for.
OTHER_ERROR: Final = 99

#: What it means by some of its numbers, whatever the HTTP status: key, IP address, signature; inner error; too often.
_MEANINGS: Final[Mapping[int, tuple[type[ApiError], str]]] = {
    3: (Unauthorized, 'does not accept our key'),
    4: (Unauthorized, 'does not accept our IP address'),
    5: (Unauthorized, 'does not accept our signature'),
    9: (PeerFailure, 'failed'),
    43: (Throttled, 'asks us to slow down'),
}


def signature(secret: str, values: Iterable[str]) -> str:
    """What proves that a call is ours: the MD5, in hexadecimal, of the secret and the sorted values of the call."""
    text = secret + ''.join(sorted(values))
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()  # the algorithm is Sailthru's choice


def signed(key: str, secret: str, data: Mapping[str, Any]) -> dict[str, str]:
    """The parameters of one call."""
    parameters = {'api_key': key, 'format': 'json', 'json': json.dumps(data, allow_nan=False)}
    return {**parameters, 'sig': signature(secret, parameters.values())}


def code_of(error: ApiError) -> int | None:
    """The number that Sailthru gave an error; None if the error is not one of its own."""
    return _code(error.answer.get('error')) if isinstance(error.answer, dict) else None


def is_unknown(error: ApiError) -> bool:
    """Whether an error says that Sailthru does not know the user, course or purchase that it was asked for."""
    return isinstance(error, NotFound) or (isinstance(error, Rejected) and code_of(error) == OTHER_ERROR)


def error_in(answer: Any, failed: ApiError | None = None) -> ApiError | None:
    """The error that an answer stands for; None if there is none in it.

    ``failed`` is the error of an answer other than 2xx.
    """
    if not isinstance(answer, dict) or not answer:
        return failed or PeerFailure(f'{_PEER} answered with unexpected JSON', status=200, maybe_done=True)
    if 'error' not in answer or not answer.keys() <= {'error', 'errormsg'}:
        return failed
    code = _code(answer['error'])
    kind, meaning = _MEANINGS.get(code or 0) or (Rejected, 'refuses it')
    if kind is Rejected and failed and (isinstance(failed, Transient | NotFound) or failed.status == 401):
        kind, meaning = type(failed), str(failed).removeprefix(f'{_PEER} ')
    said = without_addresses(str(answer.get('errormsg') or 'no reason given'))
    return kind(f'{_PEER} {meaning}: {said} (error {"?" if code is None else code})',
                status=failed.status if failed else 200, retry_after=failed.retry_after if failed else None,
                answer=answer)


def _code(given: Any) -> int | None:
    try:
        return int(given)
    except (TypeError, ValueError, OverflowError):
        return None


class Sailthru:
    """One account at Sailthru; ``connect(root, peer=...)`` makes the way there."""

    def __init__(self, key: str, secret: str, connect: Callable[..., Api], *, root: str = ROOT) -> None:
        self._key = key
        self._secret = secret
        self._api = connect(root, peer=_PEER)

    @classmethod
    def of(cls, options: Mapping[str, Any], connect: Callable[..., Api]) -> Sailthru:
        """The account that the setting ``SAILTHRU`` names; raises Misconfigured if it does not."""
        missing = [name for name in ('SAILTHRU_KEY', 'SAILTHRU_SECRET') if not options.get(name)]
        if missing:
            raise Misconfigured(f'SAILTHRU[{name}] is not set' for name in missing)
        return cls(options['SAILTHRU_KEY'], options['SAILTHRU_SECRET'], connect,
                   root=options.get('SAILTHRU_API_URL') or ROOT)

    def get(self, action: str, data: Mapping[str, Any]) -> dict[str, Any]:
        """Ask for something; raises :class:`~ecommerce_worker.errors.ApiError`."""
        return self._call('GET', action, data)

    def post(self, action: str, data: Mapping[str, Any]) -> dict[str, Any]:
        """Have something done; raises :class:`~ecommerce_worker.errors.ApiError`."""
        return self._call('POST', action, data)

    def _call(self, method: str, action: str, data: Mapping[str, Any]) -> dict[str, Any]:
        parameters, answer = signed(self._key, self._secret, data), None
        try:
            answer = self._api.request(method, action, params=parameters if method == 'GET' else None,
                                       form=parameters if method == 'POST' else None)
            error = error_in(answer)
        except ApiError as failed:
            error = error_in(failed.answer, failed)
        if error:
            raise error from None
        found: dict[str, Any] = answer or {}
        return found
