"""With a stand-in shop: tests what is installed and configured here, isolated from what is running.

::

    a signed order ──► intake of its own ──► queue of its own ──► worker of its own ──► stand-in shop
                       on loopback           in the real RabbitMQ        │ 503, the first time
                                             ▲                           ▼
                                             └────── the real waiting room
"""

from __future__ import annotations

import json
import secrets
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kombu import Exchange, Queue

from ecommerce_worker import extras
from ecommerce_worker.broker import publishing, topology
from ecommerce_worker.broker.notes import Notes
from ecommerce_worker.broker.wire import Call
from ecommerce_worker.demo.stage import Worker
from ecommerce_worker.fulfillment.names import FULFILL
from ecommerce_worker.settings import environment_with
from ecommerce_worker.smoke.steps import NotPassed, Steps, Tell
from ecommerce_worker.testing.rabbitmq import free_port
from ecommerce_worker.testing.shop import CLIENT_ID, CLIENT_SECRET, Answer, Shop

if TYPE_CHECKING:
    from celery import Celery
    from kombu import Connection

    from ecommerce_worker.settings import Settings

#: What begins the names of its queue and its order.
NAME: Final = 'ecommerce.smoke'

#: How the intake of its own is called.
INTAKE: Final = 'smoke'


def run(app: Celery, connection: Connection, settings: Settings, tell: Tell, seconds: float) -> None:
    """Send an order and follow it; leaves nothing behind.  Raises :class:`~ecommerce_worker.smoke.steps.NotPassed`."""
    steps, number = Steps(tell, seconds), f'SMOKE-{secrets.token_hex(6)}'
    queue = f'{NAME}.{secrets.token_hex(6)}'
    with ExitStack() as ends:
        home = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix='ecommerce-worker-smoke-')))
        shop = ends.enter_context(Shop())
        shop.add_order(number, Answer(status=503))
        ends.callback(_remove, connection, queue)
        worker = Worker(home / 'worker.log', environment_with({**_apart(home), **_of(shop), 'QUEUES': f'["{queue}"]'}))
        ends.callback(worker.kill)
        steps.until(lambda: _consumes(connection, queue, worker),
                    lambda: f'the worker did not start to consume{_said(worker)}')
        steps.done('a temporary worker consumes a temporary queue')
        if extras.is_installed('waitress'):
            _post(steps, ends, home, settings, queue, number)
        else:
            publishing.publish(app, publishing.new_call(_call(number), Notes(queue=queue)))
            steps.done('the order is published and confirmed (no intake: waitress is not installed)')
        steps.until(lambda: shop.orders[number].puts, lambda: f'the worker did not call the shop{_said(worker)}')
        steps.done('the worker called the stand-in shop, which answered 503')
        steps.until(lambda: shop.orders[number].fulfilments, lambda: 'the retry did not leave the waiting room: see '
                    f'`ecommerce-worker doctor`; if {number} is parked later, it can be discarded')
        steps.done('the retry left the waiting room, and the order is fulfilled')
        steps.until(lambda: _is_settled(connection, queue), lambda: 'its message was not acknowledged')
    steps.done('the temporary worker, queue and order are removed')


def _apart(home: Path) -> dict[str, object]:
    """What keeps a process of its own apart from those that run."""
    return {'PUBLISH_FACTS': 'false', 'METRICS_ADDRESS': '', 'HEALTH_DIR': '', 'LOG_FORMAT': 'text', 'WAKE_UP_URL': '',
            'WORKER_CONCURRENCY': 1, 'WORKER_POOL': 'threads', 'TURNS': 'machine', 'INTAKE_SPOOL': str(home / 'spool'),
            'RETRY_DELAY_MIN': 1, 'RETRY_DELAY_MAX': 1}


def _of(shop: Shop) -> dict[str, object]:
    return {'ECOMMERCE_API_ROOT': shop.api_root, 'AUTHENTICATION': 'oauth2',
            'BACKEND_SERVICE_EDX_OAUTH2_PROVIDER_URL': shop.oauth2_root,
            'BACKEND_SERVICE_EDX_OAUTH2_KEY': CLIENT_ID, 'BACKEND_SERVICE_EDX_OAUTH2_SECRET': CLIENT_SECRET}


def _call(number: str) -> Call:
    return Call(FULFILL, f'smoke-{secrets.token_hex(8)}', (number,), origin='smoke')


def _consumes(connection: Connection, queue: str, worker: Worker) -> bool:
    if worker.ended:
        raise NotPassed(f'a worker cannot be started on this machine{_said(worker)}')
    found = topology.depth(connection, queue)
    return bool(found and found.consumers)


def _post(steps: Steps, ends: ExitStack, home: Path, settings: Settings, queue: str, number: str) -> None:
    """Submit the order to a temporary intake, as a program does."""
    secret, port = secrets.token_urlsafe(32), free_port()
    intake = Worker(home / 'intake.log', environment_with({
        **_apart(home), 'QUEUES': json.dumps([*settings.QUEUES, queue]), 'INTAKE_ADDRESS': f'127.0.0.1:{port}',
        'INTAKES': json.dumps({INTAKE: {'kind': 'submit', 'secrets': [secret], 'queue': queue}})}), 'intake')
    ends.callback(intake.kill)
    root = f'http://127.0.0.1:{port}'

    def ready() -> bool:
        if intake.ended:
            raise NotPassed(f'an intake cannot be started on this machine{_said(intake)}')
        return _answered(f'{root}/readyz') == 200

    steps.until(ready, lambda: f'the intake cannot reach RabbitMQ{_said(intake)}')
    steps.done('a temporary intake answers and is ready to publish to RabbitMQ')
    status = _answered(f'{root}/in/{INTAKE}', json.dumps({'order_number': number}).encode(), {
        'Content-Type': 'application/json', 'Authorization': f'Bearer {secret}',
        'Idempotency-Key': f'"{secrets.token_hex(8)}"'})
    if status != 202:
        raise NotPassed(f'the intake answered {status or "nothing"}{_said(intake)}')
    steps.done('the intake accepted the order, and RabbitMQ confirmed it')


def _answered(url: str, body: bytes | None = None, headers: Mapping[str, str] = {}) -> int:
    """The status of an answer; 0 without one."""
    request = urllib.request.Request(url, body, dict(headers))  # noqa: S310 - our own, on loopback
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    except OSError:
        return 0


def _is_settled(connection: Connection, queue: str) -> bool:
    """Whether nothing of the queue is ready; deleting it takes back what is in hand."""
    found = topology.depth(connection, queue)
    return found is None or not found.messages


def _remove(connection: Connection, queue: str) -> None:
    """Take the queue away, the way to it from the waiting room with it, and the exchange of its name."""
    attempts: tuple[Callable[[Any], Any], ...] = (
        lambda channel: Queue(queue).bind(channel).delete(), lambda channel: Exchange(queue).bind(channel).delete())
    for remove in attempts:
        with connection.channel() as channel:
            remove(channel)


def _said(process: Worker) -> str:
    """The last line that a process of its own wrote; it knows of no order but its own."""
    lines = process.log.read_text(errors='replace').splitlines()
    return f'; its last log line: {lines[-1][:500]}' if lines else ''
