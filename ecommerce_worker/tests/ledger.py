"""A ledger for tests, in a process of its own, for a process has one Django; and a PostgreSQL to keep it in."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import multiprocessing
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Self

#: Where Debian keeps its programs: /usr/lib/postgresql/15/bin.
PLACES = Path('/usr/lib/postgresql')

# The guard waits for the end of its input, which comes when the owner closes the pipe or dies.
LAUNCH = """
exec 3<&0 </dev/null
( (cat <&3 >/dev/null; kill -INT $$) & )
exec "$0" "$@" 3<&-
"""


class PrivatePostgres:
    """A PostgreSQL that listens on a socket in its own directory only."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix='pg-'))
        # It refuses to run as root.
        self._user = pwd.getpwnam('nobody') if os.geteuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None
        if self._user:
            os.chown(self.directory, self._user.pw_uid, self._user.pw_gid)

    @staticmethod
    def program(name: str) -> str | None:
        """Path of a program of PostgreSQL's, of the newest version that is installed."""
        found = sorted(PLACES.glob(f'*/bin/{name}'), key=lambda path: int(path.parts[-3].partition('.')[0]))
        return str(found[-1]) if found else shutil.which(name)

    @property
    def database(self) -> dict[str, Any]:
        """The database as DATABASES has it."""
        return {'ENGINE': 'django.db.backends.postgresql', 'NAME': 'postgres', 'USER': 'ledger',
                'HOST': str(self.directory)}

    def start(self) -> None:
        """Return when it answers."""
        with (self.directory.parent / f'{self.directory.name}.log').open('ab') as log:
            self._process = subprocess.Popen(
                ['/bin/sh', '-c', LAUNCH, str(self.program('postgres')), '-D', str(self.directory / 'data'), '-c',
                 'listen_addresses=', '-c', f'unix_socket_directories={self.directory}', '-c', 'fsync=off'],
                stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True, **self._as_user())
        deadline = time.monotonic() + 60
        asking = [str(self.program('pg_isready')), '-q', '-h', str(self.directory)]
        while subprocess.run(asking, check=False).returncode:
            assert self._process.poll() is None, 'PostgreSQL does not start'
            assert time.monotonic() < deadline, 'PostgreSQL does not answer'
            time.sleep(0.05)

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        self._end(signal.SIGQUIT)

    def __enter__(self) -> Self:
        subprocess.run([str(self.program('initdb')), '-D', str(self.directory / 'data'), '-U', 'ledger', '-E', 'UTF8',
                        '--locale=C', '-A', 'trust', '--no-sync'], check=True, capture_output=True, cwd='/',
                       **self._as_user())
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end(signal.SIGINT)
        shutil.rmtree(self.directory, ignore_errors=True)
        (self.directory.parent / f'{self.directory.name}.log').unlink()

    def _end(self, number: signal.Signals) -> None:
        if self._process:
            self._process.send_signal(number)
            self._process.wait(30)
            if self._process.stdin:
                self._process.stdin.close()
            self._process = None

    def _as_user(self) -> dict[str, Any]:
        return {'user': self._user.pw_uid, 'group': self._user.pw_gid, 'extra_groups': []} if self._user else {}


def environment_of(database: Mapping[str, Any]) -> dict[str, str]:
    """What names that database to our processes."""
    return {'ECOMMERCE_WORKER_DATABASES': repr({'default': dict(database)})}


class Refused(Exception):
    """What the ledger's process raised."""


class Ledger:
    """A process that has the ledger open: ``ledger('queries.search', 'EDX-1')``; what it answers is plain."""

    def __init__(self, database: Mapping[str, Any], *, migrated: bool = True) -> None:
        self.database = database
        self._pool = ProcessPoolExecutor(1, multiprocessing.get_context('spawn'), _begin,
                                         (environment_of(database), migrated))

    def __call__(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Call a function of the ledger's, or one of this module: ``rows``, ``empty``, ``execute``."""
        return self._pool.submit(_call, name, args, kwargs).result(60)

    def close(self) -> None:
        """End the process."""
        self._pool.shutdown()


def _begin(environment: Mapping[str, str], migrated: bool) -> None:
    os.environ.update(environment)
    from ecommerce_worker.ledger import opening

    (opening.migrate if migrated else opening.open_ledger)()


def _call(name: str, args: Any, kwargs: Any) -> Any:
    module, _, function = name.rpartition('.')
    place = importlib.import_module(f'ecommerce_worker.ledger.{module}' if module else __name__)
    try:
        return _plain(getattr(place, function)(*args, **kwargs))
    except Exception as error:
        # By name: the class is of a module that only this process can import.
        raise Refused(f'{type(error).__name__}: {error}') from None


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return [_plain(each) for each in value] if isinstance(value, list) else value


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


def headers_of(number: int) -> dict[str, Any]:
    """The headers of a parked message."""
    from ecommerce_worker.ledger import decisions, models

    return dict(decisions.raw_of(models.ParkedMessage.objects.get(pk=number)).headers)


def resend(broker_url: str, number: int, **said: str) -> str:
    """Send a parked message again, by that broker."""
    from celery import Celery

    from ecommerce_worker.ledger import decisions

    with Celery('worker', broker=broker_url, set_as_current=False) as app:
        app.conf.broker_transport_options = {'confirm_publish': True, 'connect_timeout': 1}
        return decisions.resend(app, number, **said)


def firings(method: str, *args: Any) -> Any:
    """Ask the firings that the ledger keeps; their claims last 300 seconds."""
    from ecommerce_worker.ledger.firings import LedgerFirings

    return getattr(LedgerFirings(300.0), method)(*args)


def empty() -> None:
    """Take everything out of the ledger."""
    from ecommerce_worker.ledger import models

    for model in (models.Audit, models.ParkedMessage, models.Attempt, models.Order, models.SetAside, models.Firing,
                  models.BeatTick):
        model.objects.all().delete()


def drifted() -> bool:
    """Whether the models are not those that the migrations make."""
    from django.core.management import call_command

    with contextlib.suppress(SystemExit):
        call_command('makemigrations', '--check', '--dry-run', verbosity=0)
        return False
    return True
