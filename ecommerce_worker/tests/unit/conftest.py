"""What the unit tests share: an empty environment, no network but loopback, a peer that answers as it is told to."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis
import pytest
from celery import Celery
from celery.contrib.testing.app import setup_default_app
from kombu.transport import memory

from ecommerce_worker import runtime, settings
from ecommerce_worker.clients.http import Api
from ecommerce_worker.locks.machine import Turns
from ecommerce_worker.testing.peer import Peer, Reply
from ecommerce_worker.tests.support.isolation import environment, loopback_only  # noqa: F401 - for each test
from ecommerce_worker.tests.support.ledger import PrivateMariadb, PrivatePostgres, PrivateServer, private

# More is tried where nobody waits.
hypothesis.settings.register_profile('unit', deadline=None, database=None, print_blob=True,
                                     max_examples=100 if os.environ.get('CI') else 30)
hypothesis.settings.load_profile('unit')


@pytest.fixture
def peer() -> Iterator[Callable[..., Peer]]:
    """Starts peers: ``peer(reply(503), reply())`` or ``peer(function of the request)``."""
    with contextlib.ExitStack() as stack:
        def start(*replies: Any) -> Peer:
            started = Peer(list(replies) if isinstance(replies[0], Reply) else replies[0])
            stack.callback(started.close)
            return started

        yield start


@pytest.fixture
def api() -> Iterator[Callable[..., Api]]:
    """Makes clients: ``api(root, read_timeout=0.1)``."""
    with contextlib.ExitStack() as stack:
        def client(root: str, **options: Any) -> Api:
            made = Api(root, peer='the shop', **{'connect_timeout': 0.5, 'read_timeout': 2.0, **options})
            stack.callback(made.close)
            return made

        yield client


@pytest.fixture
def app() -> Iterator[Celery]:
    """A Celery application in force, on kombu's broker within the process."""
    with Celery('worker', broker='memory://', set_as_current=False) as app, setup_default_app(app):
        app.set_current()
        yield app
    memory.Channel.queues.clear()
    memory.Transport.global_state.clear()


@pytest.fixture
def channel(app: Celery) -> Iterator[Any]:
    """A channel to that broker."""
    with app.connection_for_read() as connection, connection.channel() as channel:
        yield channel


@pytest.fixture(scope='session')
def postgresql() -> Iterator[PrivateServer]:
    """A PostgreSQL for this session."""
    with private(PrivatePostgres) as server:
        yield server


@pytest.fixture(scope='session')
def mysql() -> Iterator[PrivateServer]:
    """A MariaDB for this session."""
    with private(PrivateMariadb) as server:
        yield server


@pytest.fixture
def in_force() -> Iterator[Callable[..., runtime.Runtime]]:
    """Puts settings in force: ``in_force(ECOMMERCE_API_ROOT=url)``; the worker signs its own tokens."""
    with contextlib.ExitStack() as stack:
        def use(**given: object) -> runtime.Runtime:
            environ = {f'ECOMMERCE_WORKER_{name}': str(value) for name, value in given.items()}
            made = runtime.Runtime(settings.load({
                'WORKER_CONFIGURATION_MODULE': 'ecommerce_worker.configuration.test',
                'ECOMMERCE_WORKER_JWT_SECRET_KEY': 'a secret of more than thirty-two bytes', **environ}))
            # Locks are those of the machine, on which another process may run the same test.
            made.turn = Turns((made.settings.BROKER_URL, os.getpid())).turn
            stack.callback(_close, made)
            return stack.enter_context(runtime.use(made))

        yield use


def _close(made: runtime.Runtime) -> None:
    for site in made._sites.values():
        for name in ('ecommerce', 'lms', 'tokens'):
            if name in vars(site):
                getattr(site, name)._api.close()
