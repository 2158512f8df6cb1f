"""A worker of nothing but Celery, with the original's settings and rules: what the chaos suite compares ours with.

It is a stand-in, written from what is known of the original (3.3.4) and run by today's Celery: messages acknowledged
before they are run, retries that wait in the worker's memory, a token for each try, nothing asked and nothing parked.
Reads the broker's and the shop's addresses from the same variables of the environment as our worker does.
"""

from __future__ import annotations

import os
import signal

import requests
from celery import Celery, Task
from celery.exceptions import Ignore

#: As shipped, but for the addresses.
SETTINGS = {
    'broker_pool_limit': 0,
    'broker_connection_timeout': 1,
    'broker_heartbeat': 10.0,
    'broker_heartbeat_checkrate': 2,
    'result_backend': None,
    'task_default_queue': 'ecommerce.default',
    'task_default_exchange': 'ecommerce',
    'task_default_routing_key': 'ecommerce',
    'worker_hijack_root_logger': False,
    'task_serializer': 'pickle',
    'result_serializer': 'pickle',
    'event_serializer': 'json',
    'accept_content': ['json', 'pickle', 'yaml'],
}
MAX_FULFILLMENT_RETRIES = 11
READ_TIMEOUT = 10
TOKEN_TIMEOUT = (3.05, 5)

app = Celery('ecommerce_worker', broker=os.environ['ECOMMERCE_WORKER_BROKER_URL'], set_as_current=False)
app.conf.update(SETTINGS)


def token() -> str:
    """A new token of the LMS; raises HTTPError, which is a RequestException like all else that may happen."""
    answer = requests.post(
        os.environ['ECOMMERCE_WORKER_BACKEND_SERVICE_EDX_OAUTH2_PROVIDER_URL'] + '/access_token/',
        {'grant_type': 'client_credentials', 'token_type': 'jwt',
         'client_id': os.environ['ECOMMERCE_WORKER_BACKEND_SERVICE_EDX_OAUTH2_KEY'],
         'client_secret': os.environ['ECOMMERCE_WORKER_BACKEND_SERVICE_EDX_OAUTH2_SECRET']},
        headers={'User-Agent': 'ecommerce-worker'}, timeout=TOKEN_TIMEOUT)
    answer.raise_for_status()
    return str(answer.json()['access_token'])


def put(order_number: str, signature: str, email_opt_in: bool) -> requests.Response:
    """The shop's answer to the one call that matters, whatever its status."""
    return requests.put(
        f'{os.environ["ECOMMERCE_WORKER_ECOMMERCE_API_ROOT"]}orders/{order_number}/fulfill/',
        params={'email_opt_in': str(email_opt_in)}, headers={'Authorization': f'JWT {signature}'},
        timeout=READ_TIMEOUT)


@app.task(name='ecommerce_worker.fulfillment.v1.tasks.fulfill_order', bind=True, ignore_result=True)
def fulfill_order(self: Task, order_number: str, site_code: str | None = None, email_opt_in: bool = False) -> None:
    """Have an order fulfilled: bad answers and timeouts are retried, a refused or a lost connection is the end of it.

    A token that is refused is the end of it too.
    """
    again = {'countdown': 2 ** self.request.retries, 'max_retries': MAX_FULFILLMENT_RETRIES}
    try:
        answer = put(order_number, token(), email_opt_in)
    except requests.Timeout as error:
        raise self.retry(exc=error, **again) from error
    if answer.status_code == 406:
        raise Ignore
    if not answer.ok:
        raise self.retry(exc=requests.HTTPError(response=answer), **again)


@app.task(name='ecommerce_worker.tests.chaos.poison.die', ignore_result=True)
def die(order_number: str) -> None:
    """End the process, as the task of this name that our workers know."""
    os.kill(os.getpid(), signal.SIGKILL)
