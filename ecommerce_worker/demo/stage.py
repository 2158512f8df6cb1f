"""The processes of the demonstration: broker, shops, mail service, workers; on 127.0.0.1, and removed at the end.

Which broker:

    BROKER_URL given ──► that RabbitMQ: only if it is idle; our own messages are removed again
    else             ──► a private node, if rabbitmq-server is installed
    else             ──► files in a directory

Everything that was started is stopped by process id, in reverse order, however far the demonstration came.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, KeysView, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from os import EX_CONFIG
from pathlib import Path
from types import FrameType
from typing import Any, Self

from celery import Celery
from kombu import Connection, Queue
from kombu.exceptions import KombuError

from ecommerce_worker import extras
from ecommerce_worker.broker import topology
from ecommerce_worker.broker.preflight import BrokerUnusable
from ecommerce_worker.configuration import base
from ecommerce_worker.demo import cover
from ecommerce_worker.demo.files import Mover, settle
from ecommerce_worker.demo.orders import (
    ACADEMY,
    CAMPUS,
    COURSES,
    LETTERS,
    NEWCOMER,
    PAID_MODE,
    PURCHASES,
    REFUSALS,
    VINTAGE,
    Letter,
    Shape,
    Story,
)
from ecommerce_worker.demo.webhooks import INTAKES
from ecommerce_worker.operations.parked import looked_through
from ecommerce_worker.settings import mask
from ecommerce_worker.settings.names import PREFIX
from ecommerce_worker.testing.lms import Course, Lms
from ecommerce_worker.testing.mail import API_KEY, MailService
from ecommerce_worker.testing.rabbitmq import PrivateNode, free_port
from ecommerce_worker.testing.shop import CLIENT_ID, CLIENT_SECRET, JWT_ISSUER, JWT_SECRET, ShopProcess

#: Settings that make the demonstration quick; all others are as shipped.
HURRIED: Mapping[str, float] = {'MAX_FULFILLMENT_RETRIES': REFUSALS, 'RETRY_DELAY_MAX': 2, 'REDELIVERY_DELAY': 2}

#: All queues in which an order can be, in the order in which it moves down through them.
WAITING_ROOM = tuple(map(topology.level, reversed(range(topology.BITS))))
ALL_QUEUES = (*WAITING_ROOM, *base.QUEUES, topology.PARKED)

#: Where Python finds this package, installed or not.
ROOT = Path(__file__).parents[2]

#: What of the caller's environment is meant for other workers; Celery obeys CELERY_BROKER_URL before all else.
FOREIGN = (PREFIX, 'CELERY')

# The guard ends the worker when its input ends, which is when we are gone, by whatever. `exec` makes the worker the
# process that we know by number.
GUARDED = 'exec 3<&0 </dev/null; (cat <&3 >/dev/null; kill -KILL 0) & exec "$@" 3<&-'


class Interrupted(BaseException):
    """Stopped by a signal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.status = 128 + number


class Interruptions:
    """Turns signals such as Ctrl-C into an exception, raised once, and never while something starts or stops."""

    def __init__(self) -> None:
        self.came: int | None = None
        self._holds = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def hold(self) -> None:
        """Raise nothing from now on."""
        self._holds += 1

    @contextmanager
    def held(self) -> Iterator[None]:
        """Defer signals until the end of this context."""
        before = self.came
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1
        if not before:
            self.check()

    def check(self) -> None:
        """Raise if a signal has come; an exception raised within a destructor is lost."""
        if self.came and not self._holds:
            raise Interrupted(self.came)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        first, self.came = self.came is None, self.came or number
        if first and not self._holds:
            raise Interrupted(number)


@dataclass(frozen=True)
class Broker:
    """The broker of the demonstration."""

    url: str
    what: str
    options: Mapping[str, Any] = field(default_factory=dict)
    given: bool = False

    @property
    def keeps(self) -> bool:
        """Whether it keeps the messages of a killed worker."""
        return not self.options

    @property
    def shown(self) -> str:
        """Its URL for display; the password of our own broker is not a secret."""
        return mask('BROKER_URL', self.url) if self.given else self.options.get('data_folder_in', self.url)

    @property
    def settings(self) -> dict[str, str]:
        """The settings of a worker for it."""
        if self.keeps:
            return {'BROKER_URL': self.url}
        return {'BROKER_URL': self.url, 'BROKER_TRANSPORT_OPTIONS': json.dumps(self.options),
                'ALLOW_UNSAFE_BROKER': 'true'}

    @classmethod
    def in_files(cls, directory: Path) -> Broker:
        """Kombu's filesystem transport."""
        folders = {'data_folder_in': 'messages', 'data_folder_out': 'sent', 'processed_folder': 'processed',
                   'control_folder': 'control'}
        options: dict[str, Any] = {name: str(directory / folder) for name, folder in folders.items()}
        for folder in options.values():
            Path(folder).mkdir(parents=True, exist_ok=True)
        options |= {'store_processed': True, 'polling_interval': 0.1}
        return cls('filesystem://', "files in a directory (kombu's filesystem transport)", options)

    def connection(self) -> Connection:
        """A connection to it."""
        if not self.keeps:
            settle(Path(self.options['data_folder_out']))
        timeouts = dict.fromkeys(('connect_timeout', 'read_timeout', 'write_timeout'), 10)
        return Connection(self.url, connect_timeout=5, transport_options=dict(self.options) or timeouts)

    def check(self) -> None:
        """Make sure that it is idle; raises :class:`~ecommerce_worker.broker.preflight.BrokerUnusable`."""
        shown = mask('BROKER_URL', self.url)
        if not self.url.startswith(('amqp://', 'amqps://', 'pyamqp://')):
            raise BrokerUnusable(f'BROKER_URL is {shown}, but the demonstration needs RabbitMQ '
                                 '(amqp://): without BROKER_URL it starts a broker of its own', EX_CONFIG)
        try:
            with self.connection() as connection:
                connection.ensure_connection(max_retries=1, interval_start=0, timeout=10)
                found = [depth for name in ALL_QUEUES if (depth := topology.depth(connection, name))]
        except (OSError, KombuError, *Connection(self.url).connection_errors) as error:
            raise BrokerUnusable(f'the broker at {shown} cannot be used ({error.__cause__ or error})') from None
        consumed = [depth.name for depth in found if depth.consumers and depth.name not in WAITING_ROOM]
        if consumed:
            raise BrokerUnusable(f'a worker consumes {", ".join(consumed)} at {shown}: it and the '
                                 'demonstration would take orders of one another; stop it, or unset BROKER_URL')
        full = [f'{depth.name} ({depth.messages})' for depth in found if depth.messages]
        if full:
            raise BrokerUnusable(f'there are messages in {", ".join(full)} at {shown}, which the '
                                 'demonstration would process; unset BROKER_URL')

    def parked(self) -> list[tuple[str, str]]:
        """The id and reason of each parked message."""
        with self.connection() as connection, looked_through(connection) as messages:
            return [(message.id, message.reason) for message in messages]

    def left(self) -> dict[str, int]:
        """The number of messages in queues that should be empty at the end."""
        with self.connection() as connection:
            found = [topology.depth(connection, name) for name in base.QUEUES]
            counts = {depth.name: depth.messages for depth in found if depth and depth.messages}
            waiting = topology.waiting(connection)
        return {**counts, 'the waiting room': waiting} if waiting else counts

    def sweep(self, ids: KeysView[str]) -> None:
        """Take the messages with these ids, and what followed from them, out of all queues; others stay in place."""
        with self.connection() as connection:
            # What a worker had in hand is back in its queue when RabbitMQ has noticed that the worker is gone.
            for _ in range(50):
                depths = [topology.depth(connection, name) for name in base.QUEUES]
                if not any(depth.consumers for depth in depths if depth):
                    break
                time.sleep(0.1)
            for name in ALL_QUEUES:
                depth = topology.depth(connection, name)
                channel = connection.channel()
                for _ in range(depth.messages if depth else 0):
                    message = Queue(name).bind(channel).get(no_ack=False)
                    # What follows from a message of ours has an id of its own.
                    if message is not None and not ids.isdisjoint(
                            (message.properties.get('correlation_id'), message.headers.get('root_id'))):
                        message.ack()
                channel.close()


class Worker:
    """A worker, or another command that runs until stopped, as a process with its environment and log."""

    def __init__(self, log: Path, environment: Mapping[str, str], command: str = 'worker') -> None:
        self.log = log
        with log.open('wb') as output:
            self._process = subprocess.Popen(
                ['/bin/sh', '-c', GUARDED, 'sh', sys.executable, '-m', 'ecommerce_worker', command],
                stdin=subprocess.PIPE, stdout=output, stderr=output, env=dict(environment), cwd=ROOT,
                # Ctrl-C is for us, who stop the worker when it is time.
                start_new_session=True)
        self.pid = self._process.pid

    @property
    def ended(self) -> bool:
        """Whether it has exited."""
        return self._process.poll() is not None

    @property
    def ready(self) -> bool:
        """Whether it is consuming."""
        return ' ready.' in self.log.read_text(errors='replace')

    def kill(self) -> None:
        """Kill it and its guard, as a power cut would."""
        if self._process.stdin and not self._process.stdin.closed:
            # The guard is a member of the group until its input is closed, so the number cannot be anyone else's.
            os.killpg(self.pid, signal.SIGKILL)
            self._process.stdin.close()
        self._process.wait()


class Stage:
    """Everything that runs; `end` stops it, also if it is only partly started."""

    def __init__(self, interruptions: Interruptions) -> None:
        self.workers: list[Worker] = []
        self.published: dict[str, str] = {}  # number of the order or mail by the id of its message
        self.keep_logs = False
        #: The private node, if there is one: it may be taken away for a moment.
        self.node: PrivateNode | None = None
        self.interruptions = interruptions
        self._ends = ExitStack()

    def set(self, *, rabbitmq: bool) -> None:
        """Start a broker and the shops; with `rabbitmq` False use files even if RabbitMQ is installed."""
        url = os.environ.get(f'{PREFIX}BROKER_URL') or os.environ.get('BROKER_URL')
        given = Broker(url, 'your RabbitMQ', given=True) if url and rabbitmq else None
        if given:
            given.check()
        with self.interruptions.held():
            self.home = Path(tempfile.mkdtemp(prefix='ecommerce-worker-demo-'))
            self._ends.callback(self._tidy)
        self.logs = self.home / 'logs'
        self.broker = given or (self._private_node() if rabbitmq and PrivateNode.program() else self._files())
        if given:
            self._ends.callback(lambda: given.sweep(self.published.keys()))
        self.shop, self.campus = self._shop('shop'), self._shop('campus')
        limits = {letter.to: letter.pause for letter in LETTERS}
        self.mail = self._ends.enter_context(MailService(self.logs / 'mail.jsonl', limits))
        self.lms = self._ends.enter_context(Lms())
        self.lms.courses = {course: Course() for course in COURSES.values()}
        for learner in {it.learner for it in PURCHASES} - {NEWCOMER.learner}:
            self.lms.register(learner, learner.partition('@')[0])

    def end(self) -> None:
        """Stop everything and remove its files, except the logs if they are to be kept."""
        self._ends.close()

    def start_worker(self) -> Worker:
        """Start a worker, without waiting until it is ready."""
        with self.interruptions.held():
            worker = Worker(self.logs / f'worker-{len(self.workers) + 1}.log', self.environment)
            self._ends.callback(worker.kill)
            self.workers.append(worker)
        return worker

    def start(self, command: str) -> Worker:
        """Start a recorder, a console or an intake, without waiting until it is ready."""
        with self.interruptions.held():
            started = Worker(self.logs / f'{command}.log', self.environment, command)
            self._ends.callback(started.kill)
        return started

    def start_intake(self) -> bool:
        """Start an intake if possible: it needs RabbitMQ and waitress."""
        if not self.broker.keeps or not extras.is_installed('waitress'):
            return False
        self.start('intake')
        return True

    def command(self, *words: str) -> tuple[subprocess.Popen[bytes], Path]:
        """Run a command; returns the process and the file with its output."""
        said = self.logs / f'{"-".join(words[:2])}.log'
        with self.interruptions.held(), said.open('wb') as output:
            process = subprocess.Popen([sys.executable, '-m', 'ecommerce_worker', *words], stdin=subprocess.DEVNULL,
                                       stdout=output, stderr=output, env=self.environment, cwd=ROOT,
                                       start_new_session=True)
            self._ends.callback(_end, process)
        return process, said

    def publish(self, story: Story | Letter) -> str:
        """Publish an order or a mail as its shop does; returns the id of the message."""
        app = self._old_shop if story.shape is Shape.OLD else self._new_shop
        # A shop of Celery 3.1 publishes to a direct exchange of the queue's name, later ones to the queue itself.
        where = {'exchange': story.queue, 'routing_key': story.queue} if story.shape is Shape.OLD else {}
        # Held, so that no message is out there whose id we do not know.
        with self.interruptions.held(), self.broker.connection() as connection:
            result = app.send_task(
                story.task, *story.call, queue=story.queue, connection=connection,
                serializer='json' if story.shape is Shape.JSON else 'pickle', ignore_result=True, **where)
            self.published[result.id] = story.number
        return str(result.id)

    @cached_property
    def settings(self) -> dict[str, str]:
        """The worker's settings that differ from the defaults."""
        sites = {
            CAMPUS: {'ECOMMERCE_API_ROOT': self.campus.api_root,
                     'BACKEND_SERVICE_EDX_OAUTH2_PROVIDER_URL': self.campus.oauth2_root},
            VINTAGE: {'AUTHENTICATION': 'jwt', 'JWT_SECRET_KEY': JWT_SECRET, 'JWT_ISSUER': JWT_ISSUER},
            ACADEMY: {'LMS_ROOT_URL': self.lms.url, 'BACKEND_SERVICE_EDX_OAUTH2_PROVIDER_URL': self.lms.oauth2_root,
                      'PRODUCTS': {sku: [{'course': course, 'mode': PAID_MODE}] for sku, course in COURSES.items()},
                      'COVERED_BY': cover.__name__},
        }
        return {
            **self.broker.settings,
            **self._ledger_settings,
            'INTAKES': json.dumps(INTAKES),
            'INTAKE_ADDRESS': self.intake,
            'INTAKE_SPOOL': str(self.home / 'spool'),
            'ECOMMERCE_API_ROOT': self.shop.api_root,
            'BACKEND_SERVICE_EDX_OAUTH2_PROVIDER_URL': self.shop.oauth2_root,
            'BACKEND_SERVICE_EDX_OAUTH2_KEY': CLIENT_ID,
            'BACKEND_SERVICE_EDX_OAUTH2_SECRET': CLIENT_SECRET,
            'SITE_OVERRIDES': json.dumps(sites),
            'EMAIL_VENDOR': 'sendgrid',
            'EMAIL_OPTIONS': json.dumps({'api_key': API_KEY, 'api_url': self.mail.url,
                                         'from_email': 'shop@example.com'}),
            **{name: str(value) for name, value in HURRIED.items()},
        }

    @cached_property
    def intake(self) -> str:
        """Host and port of its intake."""
        return f'127.0.0.1:{free_port()}'

    @property
    def console(self) -> str:
        """The address of its console; '' if there is none."""
        address = self._ledger_settings.get('CONSOLE_ADDRESS')
        return f'http://{address}' if address else ''

    @cached_property
    def _ledger_settings(self) -> dict[str, str]:
        # Also where none is made, lest what is done here be written into the ledger of this machine.
        database = {'ENGINE': 'django.db.backends.sqlite3', 'NAME': str(self.home / 'ledger' / 'ledger.sqlite3')}
        settings = {'DATABASES': json.dumps({'default': database})}
        # On another's RabbitMQ a recorder would take the reports of theirs.
        if not self.broker.given and self.broker.keeps:
            settings['CONSOLE_ADDRESS'] = f'127.0.0.1:{free_port()}'
        return settings

    @cached_property
    def variables(self) -> dict[str, str]:
        """The settings as environment variables."""
        return {'WORKER_CONFIGURATION_MODULE': 'ecommerce_worker.configuration.local',
                **{PREFIX + name: value for name, value in self.settings.items()}}

    @cached_property
    def environment(self) -> dict[str, str]:
        """The environment of workers and commands."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
        here = {'NO_PROXY': '127.0.0.1', 'no_proxy': '127.0.0.1', 'PYTHONUNBUFFERED': '1'}
        return {**kept, **here, **self.variables}

    @cached_property
    def _new_shop(self) -> Celery:
        return Celery('ecommerce', set_as_current=False)

    @cached_property
    def _old_shop(self) -> Celery:
        app = Celery('ecommerce', set_as_current=False)
        app.conf.task_protocol = 1
        return app

    def _private_node(self) -> Broker:
        node = self.node = PrivateNode(self.home / 'broker')
        self._ends.callback(node.kill)  # nothing in it is worth a shutdown in good order
        try:
            node.start(45)
        except RuntimeError as error:
            raise BrokerUnusable(str(error)) from None
        return Broker(node.url, 'a private RabbitMQ')

    def _shop(self, name: str) -> ShopProcess:
        directory = self.logs / name
        directory.mkdir(parents=True)
        shop = ShopProcess(directory, latency=0.05)
        with self.interruptions.held():
            self._ends.callback(shop.stop)
            shop.start()
        return shop

    def _files(self) -> Broker:
        broker = Broker.in_files(self.home / 'broker')
        folders = (Path(broker.options[name]) for name in ('data_folder_out', 'data_folder_in'))
        self._ends.enter_context(Mover(*folders))
        return broker

    def _tidy(self) -> None:
        if self.keep_logs:
            with contextlib.suppress(OSError):
                shutil.copy(self.home / 'broker' / 'node.log', self.logs / 'rabbitmq.log')
        ours = [self.home / name for name in ('broker', 'ledger', 'spool')]
        for directory in ours if self.keep_logs else [self.home]:
            _remove(directory)


def _end(process: subprocess.Popen[bytes]) -> None:
    with process:
        process.kill()


def _remove(directory: Path) -> None:
    """Remove it; processes that were just killed may still write for a moment."""
    for _ in range(20):
        shutil.rmtree(directory, ignore_errors=True)
        if not directory.exists():
            return
        time.sleep(0.1)
