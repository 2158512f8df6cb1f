"""Each row of the failure table: what the shop and the LMS do, and where the order ends."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any

import pytest

from ecommerce_worker.fulfillment.names import FULFILL
from ecommerce_worker.testing.rabbitmq import free_port
from ecommerce_worker.testing.shop import JWT_ISSUER, JWT_SECRET, Answer, ShopProcess
from ecommerce_worker.tests.support.harness import Broker, Worker, eventually, shop_app, worker_environment


@dataclass(frozen=True)
class Story:
    """What happens to one order.

    `end` is `fulfilled`, `left alone`, or the beginning of the reason for which it is parked; `puts` how often the
    shop is told to fulfil it.
    """

    answers: tuple[Answer, ...] = ()
    end: str = 'fulfilled'
    puts: int = 1
    status: str = 'Open'
    hidden: int = 0
    site: str | None = None


def busy(retry_after: str, status: int = 429) -> Answer:
    """An answer that asks for patience."""
    return Answer(status=status, headers={'Retry-After': retry_after})


def always(status: int, **headers: str) -> tuple[Answer, ...]:
    """The same answer to every call."""
    return (Answer(status=status, headers=headers).always(),)


STORIES = {
    'plain': Story(),
    'slow but in time': Story((Answer.slow(0.5),)),
    'answer too late': Story((Answer.slow(3.4),)),  # it is fulfilled all the same, so it is not asked for again
    'hangs once': Story((Answer.hanging(),), puts=2),
    'dropped without effect': Story((Answer.dropped(),), puts=2),
    'dropped after the effect': Story((Answer.lost(),)),
    'transfer cut': Story((Answer.truncated(),), puts=2),
    'page instead of JSON': Story((Answer.html(),), puts=2),
    'broken JSON': Story((Answer.garbled(),), puts=2),
    '401 once': Story((Answer(status=401),), puts=2),
    '401 always': Story(always(401), 'the shop does not accept our credentials (401)', puts=2 * 3),
    '403': Story(always(403), 'the shop does not permit it (403)', puts=3),
    'not committed yet': Story(hidden=2),
    'unknown for ever': Story(hidden=10_000, end='the shop does not know it (404)'),
    'fulfilled already': Story(status='Complete', end='left alone'),
    '429 with seconds': Story((busy('1'),), puts=2),
    '429 with a date': Story((busy(formatdate(time.time() + 3, usegmt=True)),), puts=2),
    '500 then fine': Story((Answer(status=500), Answer(status=500)), puts=3),
    '500 for ever': Story(always(500), 'the shop failed (500)', puts=3),
    '502 then fine': Story((Answer(status=502),), puts=2),
    '503 with a wait': Story((busy('1', 503),), puts=2),
    '504 then fine': Story((Answer(status=504),), puts=2),
    'sent to a maintenance page': Story((Answer(status=302, headers={'Location': '/maintenance.html'}),), puts=2),
    'redirected': Story(always(301, Location='https://login.example.com/'), 'the shop redirects to https://login.example.com',
                        puts=3),
    'refused': Story(end='the shop refused the connection', puts=0, site='refused'),
    'no such host': Story(end='the shop: its host name could not be resolved', puts=0, site='dns'),
    'no TLS': Story(end='the shop: TLS connection failed', puts=0, site='tls'),
    'token refused': Story(end='the token endpoint of the LMS refused the connection', puts=0, site='token-refused'),
    'token 500': Story(end='the token endpoint of the LMS failed (500)', puts=0, site='token-500'),
    'token 401': Story(end='the token endpoint of the LMS does not accept our credentials (401)', puts=0,
                       site='token-401'),
    'token late': Story(site='token-late'),
    'self-signed JWT': Story(site='jwt'),
    'unheard-of site': Story(site='unheard-of'),
}


def number_of(name: str) -> str:
    """The order number of a story."""
    return 'EDX-' + name.replace(' ', '-')


@dataclass
class Told:
    """All stories, told to one worker."""

    broker: Broker
    shops: tuple[ShopProcess, ...]
    worker: Worker

    def order(self, name: str) -> Any:
        """The order, in the shop in which anything happened to it."""
        found = [shop.orders[number_of(name)] for shop in self.shops]
        return max(found, key=lambda order: order.puts)


@pytest.fixture(scope='module')
def told(shared_node: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    """Publish all stories at once; each test then looks how one of them ends."""
    broker = Broker(shared_node)
    broker.empty()
    with ExitStack() as stack:
        shops = tuple(stack.enter_context(ShopProcess(tmp_path_factory.mktemp('shop'))) for _ in range(3))
        shop, late, failing = shops
        for name, story in STORIES.items():
            for each in shops:
                each.add_order(number_of(name), *story.answers, status=story.status, hidden=story.hidden)
        late.fault_tokens(Answer(status=503), Answer(status=500))
        failing.fault_tokens(Answer(status=500).always())
        # A port for each: with both stories at one, there would be failures enough for it to be left alone.
        nowhere, no_lms = f'http://127.0.0.1:{free_port()}', f'http://127.0.0.1:{free_port()}'
        impatient = {'FULFILLMENT_GIVE_UP_AFTER': 4}
        overrides = {
            'refused': {'ECOMMERCE_API_ROOT': f'{nowhere}/api/v2/', **impatient},
            'dns': {'ECOMMERCE_API_ROOT': 'http://shop.invalid/api/v2/', **impatient},
            # What answers there speaks AMQP, not TLS.
            'tls': {'ECOMMERCE_API_ROOT': f'https://127.0.0.1:{shared_node.port}/api/v2/', **impatient},
            'token-refused': {'BACKEND_SERVICE_EDX_OAUTH2_PROVIDER_URL': f'{no_lms}/oauth2', **impatient},
            'token-500': {'BACKEND_SERVICE_EDX_OAUTH2_PROVIDER_URL': failing.oauth2_root, **impatient},
            'token-401': {'BACKEND_SERVICE_EDX_OAUTH2_SECRET': 'not-the-secret'},
            'token-late': {'BACKEND_SERVICE_EDX_OAUTH2_PROVIDER_URL': late.oauth2_root,
                           'ECOMMERCE_API_ROOT': late.api_root},
            'jwt': {'AUTHENTICATION': 'jwt', 'JWT_SECRET_KEY': JWT_SECRET, 'JWT_ISSUER': JWT_ISSUER},
        }
        environment = worker_environment(broker.url, shop, SITE_OVERRIDES=json.dumps(overrides))
        worker = Worker(broker, tmp_path_factory.mktemp('worker') / 'log', environment, ())
        stack.callback(broker.empty)
        stack.callback(worker.kill)
        worker.ready()
        with shop_app(broker.url) as app:
            for name, story in STORIES.items():
                app.send_task(FULFILL, (number_of(name),), {'site_code': story.site, 'email_opt_in': True},
                              serializer='pickle')
        yield Told(broker, shops, worker)


@pytest.mark.parametrize('name', STORIES)
def test_an_order_ends_where_it_should(told: Told, name: str) -> None:
    story = STORIES[name]
    if story.end == 'fulfilled':
        order = eventually(lambda: (found := told.order(name)).status == 'Complete' and found)
        assert order.fulfilments == 1
        assert order.email_opt_in is True
        eventually(lambda: told.worker.settled(number_of(name)) in ('done', 'skipped'))
    elif story.end == 'left alone':
        eventually(lambda: told.worker.settled(number_of(name)) == 'skipped')
        assert told.order(name).fulfilments == 0
    else:
        notes = eventually(lambda: told.broker.parked_order(number_of(name)))
        assert notes['reason'].startswith(story.end)
        assert len(notes['history']) > 1
    assert told.order(name).puts == (0 if story.hidden > 100 else story.puts)


def test_a_token_serves_all_orders_of_a_site(told: Told) -> None:
    eventually(lambda: told.order('plain').status == 'Complete')
    # One to begin with, one more for each refusal of it (401), none for each of the other orders.
    assert told.shops[0].tokens_issued < len(STORIES) / 2


def test_no_secret_is_logged(told: Told) -> None:
    eventually(lambda: told.order('plain').status == 'Complete')
    for secret in ('demo-client-secret', 'not-the-secret', JWT_SECRET, 'JWT ey'):
        assert secret not in told.worker.log
