"""A ledger for tests, in a process of its own, for a process has one Django; and servers to keep it in."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import multiprocessing
import os
import pwd
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from datetime import UTC
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NoReturn, Self
from unittest import mock

import pytest

from ecommerce_worker.broker.notes import ParkingNote
from ecommerce_worker.tests.support.clock import Clock

# The guard waits for the end of its input, which comes when the owner closes the pipe or dies; $0 is a signal.
LAUNCH = """
exec 3<&0 </dev/null
( (cat <&3 >/dev/null; kill -"$0" $$) & )
exec "$@" 3<&-
"""


class PrivateServer:
    """A database server that listens on a socket in its own directory only, and asks for no password."""

    #: What it is called, and the package that brings it.
    title: ClassVar[str]
    package: ClassVar[str]
    #: Where programs are found beside PATH.
    places: ClassVar[str]
    #: What makes an empty one, what runs, and what tells whether that answers; {0} is the directory.
    making: ClassVar[str]
    running: ClassVar[str]
    asking: ClassVar[str]
    #: The signals that end it at once, as a power cut would, and in good order whoever is connected.
    cut: ClassVar[signal.Signals]
    end: ClassVar[signal.Signals]

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix='db-'))
        # It refuses to run as root.
        self._user = pwd.getpwnam('nobody') if os.geteuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None
        if self._user:
            os.chown(self.directory, self._user.pw_uid, self._user.pw_gid)

    @classmethod
    def is_installed(cls) -> bool:
        """Whether there is such a server."""
        return cls._program(cls.running.split()[0]) is not None

    @property
    def database(self) -> dict[str, Any]:
        """The database as DATABASES has it."""
        raise NotImplementedError

    def start(self) -> None:
        """Return when it answers."""
        with self._log.open('ab') as log:
            self._process = subprocess.Popen(
                ['/bin/sh', '-c', LAUNCH, str(self.end.value), *self._words(self.running)], stdin=subprocess.PIPE,
                stdout=log, stderr=log, start_new_session=True, **self._as_user())
        deadline = time.monotonic() + 60
        while subprocess.run(self._words(self.asking), check=False, capture_output=True).returncode:
            assert self._process.poll() is None, f'{self.title} does not start'
            assert time.monotonic() < deadline, f'{self.title} does not answer'
            time.sleep(0.05)

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        self._end(self.cut)

    def __enter__(self) -> Self:
        made = subprocess.run(self._words(self.making), check=False, capture_output=True, text=True, cwd='/',
                              **self._as_user())
        assert not made.returncode, f'{self.title} cannot be made: {made.stdout}{made.stderr}'
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end(self.end)
        shutil.rmtree(self.directory, ignore_errors=True)
        self._log.unlink()

    def _end(self, number: signal.Signals) -> None:
        if self._process:
            self._process.send_signal(number)
            self._process.wait(30)
            if self._process.stdin:
                self._process.stdin.close()
            self._process = None

    @property
    def _log(self) -> Path:
        return self.directory.parent / f'{self.directory.name}.log'

    def _words(self, command: str) -> list[str]:
        program, *options = shlex.split(command)
        return [str(self._program(program)), *(option.format(self.directory) for option in options)]

    @classmethod
    def _program(cls, name: str) -> str | None:
        # Of several versions the newest: /usr/lib/postgresql/15/bin.
        found = sorted(Path('/').glob(f'{cls.places}/{name}'), key=lambda path: [
            int(number) for number in re.findall(r'\d+', str(path.parent))])
        return str(found[-1]) if found else shutil.which(name)

    def _as_user(self) -> dict[str, Any]:
        # Servers clear their temporary directory as they start: of one that they share, each other's tables too.
        own = {'env': {**os.environ, 'TMPDIR': str(self.directory)}}
        user = self._user
        return {**own, 'user': user.pw_uid, 'group': user.pw_gid, 'extra_groups': []} if user else own


class PrivatePostgres(PrivateServer):
    """A PostgreSQL."""

    title, package, places = 'PostgreSQL', 'postgresql', 'usr/lib/postgresql/*/bin'
    making = 'initdb -D {0}/data -U ledger -E UTF8 --locale=C -A trust --no-sync'
    running = 'postgres -D {0}/data -c listen_addresses= -c unix_socket_directories={0} -c fsync=off'
    asking = 'pg_isready -q -h {0}'
    cut, end = signal.SIGQUIT, signal.SIGINT

    @property
    def database(self) -> dict[str, Any]:
        """The one that there is from the beginning."""
        return {'ENGINE': 'django.db.backends.postgresql', 'NAME': 'postgres', 'USER': 'ledger',
                'HOST': str(self.directory)}


class PrivateMariadb(PrivateServer):
    """A MariaDB."""

    title, package, places = 'MariaDB', 'mariadb-server', 'usr/sbin'
    making = ('mariadb-install-db --no-defaults --datadir={0}/data --skip-test-db '
              '--auth-root-authentication-method=normal')
    # What is committed outlives the process, if not the machine.
    running = ('mariadbd --no-defaults --datadir={0}/data --socket={0}/socket --skip-networking '
               '--innodb-flush-log-at-trx-commit=2')
    asking = ('mariadb --no-defaults --socket={0}/socket --user=root '
              '--execute="CREATE DATABASE IF NOT EXISTS ledger COLLATE utf8mb4_bin"')
    cut, end = signal.SIGKILL, signal.SIGTERM

    @property
    def database(self) -> dict[str, Any]:
        """The one that is made by asking for it."""
        return {'ENGINE': 'django.db.backends.mysql', 'NAME': 'ledger', 'USER': 'root',
                'HOST': str(self.directory / 'socket')}


@contextmanager
def private(kind: type[PrivateServer]) -> Iterator[PrivateServer]:
    """One of these servers; where it is not installed the test is skipped, or fails where it must not be."""
    if not kind.is_installed():
        why = f'there is no {kind.title}: deploy/install.sh {kind.package} installs it'
        if os.environ.get('CI') or os.environ.get('REQUIRE_BROKER'):
            pytest.fail(why)
        pytest.skip(why)
    with kind() as server:
        yield server


def environment_of(database: Mapping[str, Any]) -> dict[str, str]:
    """What names that database to our processes."""
    return {'ECOMMERCE_WORKER_DATABASES': repr({'default': dict(database)})}


#: Processes that have imported Django, and not yet said which of them they want: imports take longer than most tests.
WITH_DJANGO = multiprocessing.get_context('forkserver')
WITH_DJANGO.set_forkserver_preload([
    'django.contrib.sessions.serializers', 'django.core.management.commands.migrate', 'pymysql',
    'django.db.backends.postgresql.base', 'django.db.backends.sqlite3.base', 'django.db.models', 'django.test',
    'django.views.generic', 'celery', 'ecommerce_worker.settings', 'kombu', 'requests', __name__])


class Refused(Exception):
    """What the ledger's process raised."""


class Ledger:
    """A process that has the ledger open: ``ledger('queries.search', 'EDX-1')``; what it answers is plain."""

    def __init__(self, database: Mapping[str, Any], *, migrated: bool = True) -> None:
        self.database = database
        self._pool = ProcessPoolExecutor(1, WITH_DJANGO, _begin, (environment_of(database), migrated))

    def __call__(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Call a function of the ledger's, or one of this module: ``rows``, ``empty``, ``execute``."""
        return self._pool.submit(_call, name, args, kwargs).result(60)

    def close(self) -> None:
        """End the process."""
        self._pool.shutdown()


def _begin(environment: Mapping[str, str], migrated: bool) -> None:
    os.environ.update(environment)
    from ecommerce_worker.ledger import setup

    (setup.migrate if migrated else setup.open_ledger)()


def _call(name: str, args: Any, kwargs: Any) -> Any:
    module, _, function = name.rpartition('.')
    # Of the ledger's package, unless the name says of which.
    full = f'ecommerce_worker.{module}' if '.' in module else f'ecommerce_worker.ledger.{module}'
    place = importlib.import_module(full if module else __name__)
    try:
        return _plain(getattr(place, function)(*args, **kwargs))
    except Exception as error:
        # By name: the class is of a module that only this process can import.
        raise Refused(f'{type(error).__name__}: {error}') from None


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        more = {'history': value.history, 'queue': value.queue, 'tries': value.tries, 'parked_at': value.parked_at
                } if isinstance(value, ParkingNote) else {}
        return {**dataclasses.asdict(value), **more}
    return [_plain(each) for each in value] if isinstance(value, list | Iterator) else value


def rows(model: str, *names: str, **where: Any) -> list[Any]:
    """The values of these columns, in the order in which they were written; of one column, its values."""
    from ecommerce_worker.ledger import models

    found = getattr(models, model).objects.filter(**where).order_by('pk')
    return list(found.values_list(*names, flat=len(names) == 1))


def execute(*statements: str) -> None:
    """Run SQL."""
    from django.db import connection

    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def plan(name: str, *args: Any) -> list[str]:
    """How a SQLite answers the queries of a function of the ledger's, line by line."""
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    with CaptureQueriesContext(connection) as captured:
        _call(name, args, {})
    with connection.cursor() as cursor:
        return [row[-1] for query in captured if query['sql'].startswith('SELECT')
                for row in cursor.execute(f'EXPLAIN QUERY PLAN {query["sql"]}').fetchall()]


def hang_up() -> None:
    """Close the connections of all others to a PostgreSQL or a MariaDB once they are idle.

    Returns when they are closed.
    """
    from django.db import connection

    others, close, busy = {
        'postgresql': (
            "SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'",
            'SELECT pg_terminate_backend({})',
            " AND NOT (state = 'idle' AND state_change < clock_timestamp() - interval '0.5 s')"),
        'mysql': (
            "SELECT id FROM information_schema.processlist WHERE user = 'root' AND id <> CONNECTION_ID()",
            'KILL {}',
            " AND NOT (command = 'Sleep' AND time_ms > 500)"),
    }[connection.vendor]
    with connection.cursor() as cursor:
        def found(question: str) -> set[Any]:
            cursor.execute(question)
            return set(cursor.fetchall())

        # One that is in use may be cut in the middle of something, and who uses it may rightly complain.
        while found(others + busy):
            time.sleep(0.01)
        closed = found(others)
        for [number] in closed:
            cursor.execute(close.format(number))
        # Until then a database answers, when asked whether it is there, on a connection that it is about to close.
        while closed:
            closed &= found(others)
            time.sleep(0.01)


def headers_of(number: int) -> dict[str, Any]:
    """The headers of a parked message."""
    from ecommerce_worker.ledger import decisions, models

    return dict(decisions.raw_of(models.ParkedMessage.objects.get(pk=number)).headers)


def events(number: int) -> list[Any]:
    """What happened to the order of that number in the ledger."""
    from ecommerce_worker.ledger import queries

    story = queries.story(number)
    return list(story.events) if story else []


def intake_summaries() -> list[tuple[str, Mapping[str, int], int, str]]:
    """What was counted of each intake within a day: its name, how many of each state, by how many, and the p99."""
    from datetime import datetime

    from ecommerce_worker.ledger import intakes

    return [(it.intake, dict(it.totals), it.processes, it.p99) for it in intakes.summaries(datetime.now(UTC))]


def resend(broker_url: str, number: int, **said: str) -> str:
    """Send a parked message again, by that broker."""
    from celery import Celery

    from ecommerce_worker.intake import again
    from ecommerce_worker.ledger import decisions
    from ecommerce_worker.ledger.models import ParkedMessage
    from ecommerce_worker.ledger.queries import InLedger

    with Celery('worker', broker=broker_url, set_as_current=False) as app:
        app.conf.broker_transport_options = {'confirm_publish': True, 'connect_timeout': 1}
        parked = InLedger.of(ParkedMessage.objects.get(pk=number))
        [outcome] = decisions.resend([parked], partial(again.send, app), **said)
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def firings(method: str, *args: Any) -> Any:
    """Ask the firings that the ledger keeps."""
    from ecommerce_worker.ledger.schedule_store import LedgerFirings
    from ecommerce_worker.schedule.claims import CLAIM_SECONDS

    return getattr(LedgerFirings(CLAIM_SECONDS), method)(*args)


def empty() -> None:
    """Take everything out of the ledger."""
    from ecommerce_worker.ledger import models

    for model in (models.Audit, models.ParkedMessage, models.Attempt, models.Order, models.SetAside, models.Teller,
                  models.IntakeHour, models.Webhook, models.Firing, models.BeatTick):
        model.objects.all().delete()


def drifted() -> bool:
    """Whether the models are not those that the migrations make."""
    from django.core.management import call_command

    with contextlib.suppress(SystemExit):
        call_command('makemigrations', '--check', '--dry-run', verbosity=0)
        return False
    return True


def failures(task: str, begin: float, seconds: int) -> int:
    """How often a recorder begins within so many seconds with a job that fails."""
    from django.db import OperationalError

    from ecommerce_worker import runtime
    from ecommerce_worker.ledger import maintenance

    failing = mock.Mock(side_effect=OperationalError('database or disk is full'))
    clock = Clock(begin)
    with mock.patch.object(maintenance, 'WORK', {**maintenance.WORK, task: failing}):
        recorder = maintenance.Chores(runtime.current().settings, UTC, clock=clock)
        for _ in range(seconds):
            clock.now += 1
            recorder.step()
    return failing.call_count


def chores_at(*moments: float, broken: str = '') -> dict[str, float | None]:
    """When each job of the recorder's was done last, after a recorder has worked at these times; one job may fail."""
    from django.db import OperationalError

    from ecommerce_worker import runtime
    from ecommerce_worker.ledger import maintenance
    from ecommerce_worker.ledger.schedule_store import LedgerFirings
    from ecommerce_worker.schedule.entries import entries

    def fail(settings: Any) -> NoReturn:
        raise OperationalError('database or disk is full')

    settings, clock = runtime.current().settings, Clock()
    work = {**maintenance.WORK, broken: fail}
    with mock.patch.object(maintenance, 'WORK', work):
        recorder = maintenance.Chores(settings, UTC, clock=clock)
        for clock.now in moments:
            for _ in range(100):
                recorder.step()
    firings = LedgerFirings(0)
    return {entry.name: firings.last(entry.key) for entry in entries(settings) if entry.is_the_recorders}
