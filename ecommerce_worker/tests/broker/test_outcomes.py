"""Each row of the failure table: what the shop does, and where the order ends."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from ecommerce_worker.demo.rabbitmq import free_port
from ecommerce_worker.demo.shop import CLIENT_ID, CLIENT_SECRET, Answer, ShopProcess
from ecommerce_worker.tests.broker.conftest import Broker, Worker, eventually


@dataclass(frozen=True)
class Story:
    """What happens to one order: the shop's script of PUTs, and the end."""

    answers: tuple[Answer, ...] = ()
    status: str = 'Open'
    hidden: int = 0
    site: str | None = None
    end: str = 'fulfilled'  # or: skipped, or the beginning of the reason for which it is parked
    puts: int = 1


def busy(retry_after: str, status: int = 429) -> Answer:
    """An answer that asks for patience."""
    return Answer(status=status, headers={'Retry-After': retry_after})


STORIES = {
    'plain': Story(),
    'slow, but in time': Story((Answer.slow(0.5),)),
    'the answer takes too long, once': Story((Answer.slow(1.6),), puts=1),  # the shop goes on: it ends fulfilled
    'the shop hangs once': Story((Answer.hanging(),), puts=2),
    'the connection is dropped without effect': Story((Answer.dropped(),), puts=2),
    'the connection is dropped after the effect': Story((Answer.lost(),), puts=1),
    'the transfer is cut': Story((Answer.truncated(),), puts=2),
    'a page instead of JSON': Story((Answer.html(),), puts=2),
    'broken JSON': Story((Answer.garbled(),), puts=2),
    '401 once': Story((Answer(status=401),), puts=2),
    '401 always': Story((Answer(status=401).always(),), end='the shop does not accept our credentials (401)', puts=6),
    '403': Story((Answer(status=403).always(),), end='the shop does not permit it (403)', puts=3),
    'not committed yet': Story(hidden=2, puts=1),
    'unknown for ever': Story(hidden=10_000, end='the shop does not know it (404)', puts=0),
    'fulfilled already': Story(status='Complete', end='skipped', puts=1),
    '429 with seconds': Story((busy('1'),), puts=2),
    '500 then fine': Story((Answer(status=500), Answer(status=500)), puts=3),
    '500 for ever': Story((Answer(status=500).always(),), end='the shop failed (500)', puts=3),
    '502 then fine': Story((Answer(status=502),), puts=2),
    '503 with a wait': Story((busy('1', 503),), puts=2),
    '504 then fine': Story((Answer(status=504),), puts=2),
    'a redirect': Story((Answer(status=302, headers={'Location': 'https://login.example.com/'}).always(),),
                        end='the shop redirects to login.example.com', puts=3),
    'connection refused': Story(site='refused', end='the shop refused the connection', puts=0),
    'no such host': Story(site='dns', end='the shop: its host name could not be resolved', puts=0),
    'no TLS': Story(site='tls', end='the shop: no TLS connection', puts=0),
    'token endpoint refuses connections': Story(
        site='token-refused', end='the token endpoint of the LMS refused the connection', puts=0),
    'token endpoint fails': Story(site='token-500', end='the token endpoint of the LMS failed (500)', puts=0),
    'token endpoint refuses the client': Story(
        site='token-401', end='the token endpoint of the LMS does not accept our credentials (401)', puts=0),
    'token endpoint fails, then works': Story(site='token-late', puts=1),
    'self-signed JWT': Story(site='jwt'),
    'no such site': Story(site='unheard-of'),
}


def number_of(name: str) -> str:
    """The order number of a story."""
    return 'EDX-' + ''.join(letter if letter.isalnum() else '-' for letter in name)


@dataclass
class Ended:
    """All stories, told to one worker."""

    shop: ShopProcess
    broker: Broker
    worker: Worker
    second: ShopProcess
    seen: dict[str, str] = field(default_factory=dict)


@pytest.fixture(scope='module')
def told(node: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ended]:
    """Publish all stories at once to one worker; the tests then look how each ended."""
    import os

    from celery import Celery

    from ecommerce_worker.demo.shop import JWT_ISSUER, JWT_SECRET
    from ecommerce_worker.tests.broker.conftest import FULFILL, QUEUE

    first, second = tmp_path_factory.mktemp('shop'), tmp_path_factory.mktemp('tokens')
    broker = Broker(node)
    broker.empty()
    with ShopProcess(first) as shop, ShopProcess(second) as tokens:
        for name, story in STORIES.items():
            shop.add_order(number_of(name), *story.answers, status=story.status, hidden=story.hidden)
        tokens.fault_tokens(Answer(status=503), Answer(status=500))
        impatient = {'FULFILLMENT_GIVE_UP_AFTER': 4}
        nowhere = f'http://127.0.0.1:{free_port()}'
        overrides = {
            'refused': {'ECOMMERCE_API_ROOT': f'{nowhere}/api/v2/', **impatient},
            'dns': {'ECOMMERCE_API_ROOT': 'http://shop.invalid/api/v2/', **impatient},
            'tls': {'ECOMMERCE_API_ROOT': shop.api_root.replace('http:', 'https:'), **impatient},
            'token-refused': {'BACKEND_SERVICE_EDX_OAUTH2_PROVIDER_URL': f'{nowhere}/oauth2', **impatient},
            'token-401': {'BACKEND_SERVICE_EDX_OAUTH2_SECRET': 'not-the-secret'},
            'token-late': {'BACKEND_SERVICE_EDX_OAUTH2_PROVIDER_URL': tokens.oauth2_root,
                           'ECOMMERCE_API_ROOT': tokens.api_root},
            'jwt': {'AUTHENTICATION': 'jwt', 'JWT_SECRET_KEY': JWT_SECRET, 'JWT_ISSUER': JWT_ISSUER},
        }
        tokens.add_order(number_of('token endpoint fails, then works'))
        settings = {
            'BROKER_URL': broker.url, 'ECOMMERCE_API_ROOT': shop.api_root,
            'BACKEND_SERVICE_EDX_OAUTH2_PROVIDER_URL': shop.oauth2_root,
            'BACKEND_SERVICE_EDX_OAUTH2_KEY': CLIENT_ID, 'BACKEND_SERVICE_EDX_OAUTH2_SECRET': CLIENT_SECRET,
            'FULFILLMENT_READ_TIMEOUT': '1', 'RETRY_DELAY_MAX': '2', 'MAX_FULFILLMENT_RETRIES': '2',
            'SITE_OVERRIDES': json.dumps(overrides),
        }
        environment = {**{name: value for name, value in os.environ.items() if not name.startswith('ECOMMERCE_')},
                       **{f'ECOMMERCE_WORKER_{name}': value for name, value in settings.items()}}
        worker = Worker(broker, first / 'worker.log', environment, ())
        try:
            worker.ready()
            with Celery('ecommerce', broker=broker.url, set_as_current=False) as app:
                for name, story in STORIES.items():
                    app.send_task(FULFILL, (number_of(name),), {'site_code': story.site, 'email_opt_in': True},
                                  queue=QUEUE, serializer='pickle')
            yield Ended(shop, broker, worker, tokens)
        finally:
            worker.kill()
            broker.empty()
