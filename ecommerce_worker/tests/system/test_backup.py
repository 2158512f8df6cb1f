"""The commands of the page on backups, as they stand there, on real databases."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from ecommerce_worker import settings
from ecommerce_worker.broker.notes import NOTES
from ecommerce_worker.broker.wire import Raw
from ecommerce_worker.fulfillment.names import FULFILL
from ecommerce_worker.ledger.incoming import Parcel
from ecommerce_worker.tests.support.ledger import Ledger, PrivatePostgres, environment_of, private

PAGE = Path(settings.__file__).parents[2] / 'docs' / 'how-to' / 'back-up-the-ledger.rst'
BODY = b'[["EDX-1"], {}, {}]'


def commands(title):
    """The two blocks of a section: how to back up, and how to restore."""
    section = re.search(rf'\n{title}\n=+\n(.*?)\n\n\n', PAGE.read_text(), re.DOTALL)
    assert section
    return [textwrap.dedent(it) for it in re.findall(r'code-block:: sh\n\n((?:    .*\n?)+)', section[1])]


def run(block, **environment):
    """Run it as a shell does that stops at the first failure."""
    path = f'{Path(sys.executable).parent}:{os.environ["PATH"]}'
    done = subprocess.run(['sh', '-eu', '-c', block], env={**os.environ, 'PATH': path, **environment}, check=False,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextlib.contextmanager
def opened(database) -> Iterator[Ledger]:
    ledger = Ledger(database)
    try:
        yield ledger
    finally:
        ledger.close()


def parcel(number):
    notes = {'queue': 'ecommerce.fulfillment', 'attempt': 1, 'id': number, 'task': FULFILL, 'key': number,
             'reason': 'the shop failed (500)', 'parked_at': 1_700_000_000.0}
    return Parcel.of(Raw(BODY, 'application/json', 'utf-8', {'task': FULFILL, NOTES: notes},
                         {'correlation_id': number}))


def backed_up_and_restored(database, back_up, restore):
    """Whether what was parked before a backup comes back with it, and what was parked since does not."""
    with opened(database) as ledger:
        ledger('recording.record', (), [parcel('EDX-1')])
        said = back_up()  # while it is in use
        ledger('recording.record', (), [parcel('EDX-2')])
        ledger('execute', 'UPDATE ledger_parkedmessage SET body = NULL')
    assert restore().splitlines()[-1] == 'the ledger is up to date'
    with opened(database) as ledger:
        assert [(key, bytes(body)) for key, body in ledger('rows', 'ParkedMessage', 'key', 'body')] == [('EDX-1', BODY)]
    return said


@pytest.mark.skipif(not shutil.which('sqlite3'), reason='there is no program sqlite3')
def test_a_sqlite_ledger_comes_back_with_what_was_parked(tmp_path):
    back_up, restore = (it.replace('/var/lib/ecommerce-worker', str(tmp_path)) for it in commands('SQLite'))
    database = {'ENGINE': 'django.db.backends.sqlite3', 'NAME': str(tmp_path / 'ledger.sqlite3')}
    environment = environment_of(database)
    run('! ecommerce-worker migrate --check', **environment)
    said = backed_up_and_restored(database, lambda: run(back_up), lambda: run(restore, **environment))
    assert said == 'ok\n'
    assert {path.stat().st_mode & 0o077 for path in tmp_path.glob('ledger.*')} == {0}


def test_a_postgresql_ledger_comes_back_with_what_was_parked(tmp_path):
    back_up, restore = (it.replace('--dbname ledger', '--dbname postgres').replace('.dump ledger\n', '.dump postgres\n')
                        for it in commands('PostgreSQL'))
    with private(PrivatePostgres) as server:
        environment = {'PGHOST': str(server.directory), 'PGUSER': 'ledger', **environment_of(server.database)}
        backed_up_and_restored(
            server.database, lambda: run(f'cd {tmp_path}\n{back_up}', **environment),
            lambda: run(f'cd {tmp_path}\n{restore}', **environment))
    assert (tmp_path / 'ledger.dump').stat().st_mode & 0o077 == 0
