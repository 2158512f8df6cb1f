"""Posting a signed delivery to a running intake, as a shop does, to test it."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from ecommerce_worker.errors import WorkerError

if TYPE_CHECKING:
    from ecommerce_worker.intake.intakes import Intake

#: Seconds for the intake to answer.
SECONDS: Final = 60.0

_ADVICE: Final[Mapping[int, str]] = {
    401: 'the running intake has different secrets: was INTAKES changed since it was started?',
    404: 'the running intake has no entry of this name, or the entry is closed',
    503: 'the broker did not accept it, or the queue does not exist: is a worker running?'}


class NotAnswered(WorkerError):
    """No intake answers at this address."""


@dataclass(frozen=True)
class Answered:
    """The response of an intake: the HTTP status, and the JSON object or {}."""

    status: int
    content: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The id of the published message; '' if none was published."""
        return str(self.content['id']) if self.content.get('state') in ('accepted', 'repeated') else ''

    @property
    def is_repeated(self) -> bool:
        """Whether the message was already published for an equal delivery."""
        return self.content.get('state') == 'repeated'

    @property
    def text(self) -> str:
        """The status and the outcome, with the reason."""
        reason = f': {self.content["reason"]}' if self.content.get('reason') else ''
        return f'{self.status} {self.content.get("state") or self.content.get("detail") or "refused"}{reason}'

    def advice(self, it: Intake) -> str:
        """What to do about an answer other than success."""
        match self.content.get('state'):
            case 'ignored' if self.content.get('reason') == 'topic':
                return f'the intake ignores it; it acts on {", ".join(sorted(it.events))}'
            case 'ignored':
                return 'the intake ignores such a delivery'
            case 'parked':
                return f'it is parked; see `ecommerce-worker parked show {str(self.content["id"])[:8]}`'
            case _:
                return _ADVICE.get(self.status, 'it was not accepted')


def first_topic(it: Intake) -> str:
    """The first of the topics that an intake acts on; '' if it names none."""
    return next(iter(it.events), '')


def post(it: Intake, body: bytes, url: str, topic: str = '') -> Answered:
    """Sign a delivery with the intake's first secret and post it; raises :class:`NotAnswered`.

    Its topic is the first of those that the intake acts on, if none is given.
    """
    headers = it.source.signed(body, it.secrets.keys[0], topic or first_topic(it), time.time())
    request = urllib.request.Request(url, body, headers)  # noqa: S310 - what a person names
    try:
        # No proxy: it is this machine, or one that was named.
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=SECONDS) as answered:
            return Answered(answered.status, _object(answered.read()))
    except urllib.error.HTTPError as error:
        with error:
            return Answered(error.code, _object(error.read()))
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise NotAnswered(f'no answer from {url} ({getattr(error, "reason", None) or type(error).__name__}): is '
                          '`ecommerce-worker intake` running?') from None


def _object(body: bytes) -> Mapping[str, Any]:
    """The JSON object of an answer; {} for an answer of another program."""
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
