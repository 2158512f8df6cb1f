"""The shop's REST API, as far as fulfilment needs it."""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import quote

from ecommerce_worker.errors import PeerFailure, Rejected, Skip, WrongArguments
from ecommerce_worker.http import Api

#: The status of an order to which nothing remains to be done.
COMPLETE: Final = 'Complete'

#: What the shop's URL patterns admit as an order number; its database column holds 128 characters.
ORDER_NUMBER = re.compile(r'[-\w]{1,128}')


class Ecommerce:
    """The orders of one shop."""

    def __init__(self, api: Api, *, fulfillment_read_timeout: float = 30.0) -> None:
        self._api = api
        self._fulfillment_read_timeout = fulfillment_read_timeout

    def status(self, number: str) -> str:
        """The order's status, such as ``Open`` or ``Complete``."""
        return self._status_in(self._api.request('GET', f'orders/{_in_path(number)}/'))

    def fulfill(self, number: str, *, email_opt_in: bool) -> None:
        """Have the order fulfilled; raises :class:`~ecommerce_worker.errors.Skip` if there is nothing to fulfil.

        The shop calls the LMS up to 7 seconds for each line of the order before it answers, so this call waits
        longer than others.
        """
        try:
            answer = self._api.request(
                'PUT', f'orders/{_in_path(number)}/fulfill/',
                params={'email_opt_in': str(bool(email_opt_in))},  # the shop compares with the exact text 'True'
                read_timeout=self._fulfillment_read_timeout)
        except Rejected as error:
            if error.status == 406:
                raise Skip('the shop has nothing left to fulfil in it (406)') from None
            raise
        self._status_in(answer)

    def _status_in(self, answer: Any) -> str:
        if not isinstance(answer, dict):
            raise PeerFailure(f'{self._api.peer} answered with JSON that is no order', status=200, maybe_done=True)
        return str(answer.get('status'))


def _in_path(number: str) -> str:
    if not isinstance(number, str) or not ORDER_NUMBER.fullmatch(number):
        raise WrongArguments('the order number is none that a shop gives out: letters, digits, "-" and "_" only')
    return quote(number, safe='')
