"""What the broker tier works with: the broker as tests see it, workers as operators run them, waiting for facts."""

from __future__ import annotations

import base64
import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import psutil  # type: ignore[import-untyped]
from celery import Celery
from kombu import Connection, Exchange, Producer, Queue

from ecommerce_worker.broker import topology
from ecommerce_worker.broker.notes import NOTES
from ecommerce_worker.fulfillment.names import FULFILL
from ecommerce_worker.testing.shop import CLIENT_ID, CLIENT_SECRET, Shop, ShopProcess
from ecommerce_worker.tests.support.rabbitmq import Node

T = TypeVar('T')

QUEUE = 'ecommerce.fulfillment'
QUEUES = (QUEUE, 'ecommerce.email_marketing', 'ecommerce.default', 'fulfillment', 'email_marketing')


def eventually(ask: Callable[[], Any], *, seconds: float = 120) -> Any:
    """What `ask` answers once that is true; fails after so many seconds."""
    deadline = time.monotonic() + seconds
    while not (answer := ask()):
        assert time.monotonic() < deadline, f'not so within {seconds} s'
        time.sleep(0.05)
    return answer


def worker_environment(broker_url: str, shop: Shop | ShopProcess, **settings: object) -> dict[str, str]:
    """The environment of a worker of this shop; its patience is short so that tests are."""
    given = {
        'BROKER_URL': broker_url,
        'ECOMMERCE_API_ROOT': shop.api_root,
        'BACKEND_SERVICE_EDX_OAUTH2_PROVIDER_URL': shop.oauth2_root,
        'BACKEND_SERVICE_EDX_OAUTH2_KEY': CLIENT_ID,
        'BACKEND_SERVICE_EDX_OAUTH2_SECRET': CLIENT_SECRET,
        'FULFILLMENT_READ_TIMEOUT': 2, 'RETRY_DELAY_MAX': 2, 'MAX_FULFILLMENT_RETRIES': 2, 'REDELIVERY_DELAY': 1,
        **settings,
    }
    kept = {name: value for name, value in os.environ.items() if not name.startswith('ECOMMERCE_WORKER')}
    return {**kept, 'WORKER_CONFIGURATION_MODULE': 'ecommerce_worker.configuration.local', 'PYTHONUNBUFFERED': '1',
            **{f'ECOMMERCE_WORKER_{name}': str(value) for name, value in given.items()}}


#: The levels of the waiting room, and those in which tests have messages wait: up to a minute.
ROOMS = tuple(topology.level(number) for number in range(topology.BITS))
SHORT_ROOMS = ROOMS[:6]

#: Of the queues of the waiting room and of the task queues those that are as they were declared, hold no message, ready
#: or in any hands, and are consumed by nobody; a tuple of bits, for ``eval``.
_UNTOUCHED = """
    Room = fun(Name, Wait) ->
        {ok, {_, Found}, _} = ra:local_query({Name, node()}, fun rabbit_fifo:overview/1),
        #{num_messages := 0, config := #{dead_lettering_enabled := true, msg_ttl := Wait}} = Found, 1
    end,
    Task = fun(Name) ->
        {ok, Queue} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, Name)),
        [{_, []}, {_, true}, {_, 0}, {_, 0}] = rabbit_amqqueue:info(Queue, [arguments, durable, messages, consumers]),
        rabbit_classic_queue = amqqueue:get_type(Queue), 1
    end,
    list_to_tuple([try Look() catch _:_ -> 0 end || Look <- [%s]]).
""" % ', '.join([  # noqa: UP031 - braces are Erlang's
    *(f"fun() -> Room('%2F_{name}', {2 ** number * 1000}) end" for number, name in enumerate(ROOMS)),
    *(f'fun() -> Task(<<"{name}">>) end' for name in QUEUES)])


def standstill(queue: str, what: str) -> str:
    """What has the process of a queue in RabbitMQ stand still (``suspend``), or go on (``resume``); for ``eval``."""
    return (f'{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"{queue}">>)), '
            f'sys:{what}(amqqueue:get_pid(Q)).')


def shop_app(url: str) -> Celery:
    """A producer as the shop is one: it knows names and routes, and no task."""
    app = Celery('ecommerce', broker=url, set_as_current=False)
    app.conf.task_routes = {FULFILL: {'queue': QUEUE}}
    return app


@cache
def kept_connection(url: str) -> Connection:
    """The one by which tests look at queues."""
    return Connection(url, connect_timeout=5)


@dataclass
class Broker:
    """The node as the tests see it."""

    node: Node

    @property
    def url(self) -> str:
        """Where it is."""
        return self.node.url

    def connection(self) -> Connection:
        """A connection to it."""
        return Connection(self.url, connect_timeout=5)

    def depth(self, name: str) -> int:
        """How many messages are ready in a queue; 0 if there is no such queue."""
        found = self._look(lambda connection: topology.depth(connection, name))
        return found.messages if found else 0

    def consumers(self, name: str) -> int:
        """How many consume a queue."""
        found = self._look(lambda connection: topology.depth(connection, name))
        return found.consumers or 0 if found else 0

    def waiting(self) -> int:
        """How many messages wait for their next try."""
        return self._look(topology.waiting)

    def _look(self, ask: Callable[[Connection], T]) -> T:
        """What the node answers on a connection that is kept: tests ask 20 times a second."""
        connection = kept_connection(self.url)
        if connection.connected:
            with contextlib.suppress(OSError, *connection.recoverable_connection_errors):
                return ask(connection)
        # It was closed since, or the node began anew.
        connection.collect()
        return ask(connection)

    def parked(self) -> list[Any]:
        """The parked messages, left where they are."""
        if not self.depth(topology.PARKED):
            return []
        with self.connection() as connection:
            channel = connection.channel()
            queue = Queue(topology.PARKED).bind(channel)
            queue.declare()
            return list(iter(queue.get, None))

    def parked_order(self, number: str) -> Any:
        """The notes on the parked message of an order, or None."""
        return next((message.headers[NOTES] for message in self.parked()
                     if message.headers[NOTES].get('key') == number), None)

    @contextlib.contextmanager
    def unavailable(self, name: str) -> Iterator[None]:
        """Have a queue that exists be one that is not to be had, as on a node that is down."""
        self._mark(name, 'crashed')
        try:
            yield
        finally:
            self._mark(name, 'live')

    def _mark(self, name: str, state: str) -> None:
        self.node.ctl('eval', f"""
            Name = rabbit_misc:r(<<"/">>, queue, <<"{name}">>),
            Mark = fun(Queue) -> amqqueue:set_state(Queue, {state}) end,
            case code:ensure_loaded(rabbit_db_queue) of
                {{module, _}} -> rabbit_db_queue:update(Name, Mark);
                _ -> rabbit_misc:execute_mnesia_transaction(fun() -> rabbit_amqqueue:update(Name, Mark) end)
            end.""")

    def empty(self) -> None:
        """Make all queues anew that are not as new; a producer with a kept connection would not declare a deleted one
        again.
        """
        with self.connection() as connection:
            channel = connection.channel()
            if touched := {*ROOMS, *QUEUES} - self._untouched():
                for found in topology.depths(connection, touched & {*ROOMS}):
                    if found.messages:
                        channel.queue_purge(found.name)
                # What has waited and then found no queue is still in the hands of RabbitMQ, before all that comes after
                # it, where a purge does not reach it. To make a queue of this kind is expensive.
                touched -= self._untouched() | {*ROOMS} - {*SHORT_ROOMS}
            for name in {*touched, topology.PARKED}:
                channel.queue_delete(name)
            for name in QUEUES:
                topology.task_queue(name).bind(channel).declare()

    def _untouched(self) -> set[str]:
        """The queues that nothing has happened to; none where the node cannot be asked at once."""
        bits = re.findall(r'[01]', self.node.evaluated(_UNTOUCHED) or '')
        return {name for name, bit in zip((*ROOMS, *QUEUES), bits, strict=False) if bit == '1'}

    def publish_raw(self, body: bytes, *, exchange: str = '', routing_key: str = QUEUE, **properties: Any) -> None:
        """Publish as a stranger would; to an exchange named after the queue for Celery 3.1."""
        with self.connection() as connection:
            queue = Queue(routing_key, Exchange(exchange) if exchange else None, routing_key=routing_key)
            channel = connection.channel()
            queue.bind(channel).declare()
            Producer(channel).publish(body, exchange=exchange, routing_key=routing_key, delivery_mode=2, **properties)

    def publish_message(self, message: Mapping[str, Any]) -> None:
        """Publish a genuine message of a genuine producer, byte by byte."""
        self.publish_raw(
            base64.b64decode(message['body_base64']), exchange=message['exchange'],
            routing_key=message['routing_key'], headers=message['headers'], content_type=message['content_type'],
            content_encoding=message['content_encoding'], correlation_id=message['correlation_id'],
            reply_to=message['reply_to'])


class Program:
    """A program as an operator runs it: a process, an environment, a log."""

    def __init__(self, log: Path, environment: Mapping[str, str], *words: str, output: int | None = None) -> None:
        """Start Python with these words; what it says goes to the log, or to ``output``."""
        self._log = log
        with log.open('ab') as file:
            there = file if output is None else output
            self.process = subprocess.Popen([sys.executable, *words], stdout=there, stderr=there, env=dict(environment),
                                            cwd=log.parent, start_new_session=True)

    @property
    def log(self) -> str:
        """All whole lines that it has logged so far."""
        lines, end, _ = self._log.read_text().rpartition('\n')
        return lines + end

    def stop(self) -> int:
        """Stop it as a deployment does; its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def kill(self) -> None:
        """End it and all its descendants at once, also those with sessions of their own."""
        if self.process.poll() is None:
            descendants = psutil.Process(self.process.pid).children(recursive=True)
            self.process.kill()
            for each in descendants:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()
        self.process.wait()


class Worker(Program):
    """A worker."""

    def __init__(self, broker: Broker, log: Path, environment: Mapping[str, str], options: tuple[str, ...]) -> None:
        super().__init__(log, environment, '-m', 'ecommerce_worker', 'worker', *options)
        self._broker = broker

    @property
    def children(self) -> list[str]:
        """The processes that it started and that still run."""
        found = subprocess.run(['ps', '-o', 'pid=', '--ppid', str(self.process.pid)], capture_output=True, text=True,
                               check=False)
        return found.stdout.split()

    def outcomes(self, number: str) -> list[str]:
        """How its runs of an order ended, by its log, the last one last."""
        found = (line.rpartition(' - ')[2].partition(':')[0]
                 for line in self.log.splitlines() if f' key={number} ' in line)
        return [outcome for outcome in found if outcome != 'accepted']

    def settled(self, number: str) -> str | None:
        """The last of them, if any."""
        return next(reversed(self.outcomes(number)), None)

    def ready(self, consumers: int = 1) -> Worker:
        """Return when it consumes."""
        def consumes() -> bool:
            assert self.process.poll() is None, self.log
            return self._broker.consumers(QUEUE) >= consumers

        eventually(consumes)
        return self
