"""The body of the task, as one writes it with requests: a token once, and a session for each thread."""

from __future__ import annotations

import os
import threading

import requests

SHOP = os.environ.get('BENCHMARK_SHOP', '')

_local = threading.local()


def session() -> requests.Session:
    """The session of this thread, with a token."""
    if not hasattr(_local, 'session'):
        made = requests.Session()
        answer = made.post(f'{SHOP}/oauth2/access_token', timeout=10, data={
            'grant_type': 'client_credentials', 'client_id': 'a-key', 'client_secret': 'a-secret', 'token_type': 'jwt'})
        made.headers['Authorization'] = f'JWT {answer.json()["access_token"]}'
        # What looks for proxies costs a quarter of a call.
        made.trust_env = False
        _local.session = made
    found: requests.Session = _local.session
    return found


def fulfil(number: str) -> None:
    """Have the shop fulfil an order."""
    answer = session().put(f'{SHOP}/api/v2/orders/{number}/fulfill/', params={'email_opt_in': 'True'}, timeout=30)
    answer.raise_for_status()
    if answer.json()['status'] != 'Complete':
        raise RuntimeError(number)
