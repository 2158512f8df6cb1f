"""Nobody reads what a process says, the broker stands still: orders go on, and SIGTERM ends every process in time."""

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from urllib.parse import urlsplit

import pytest

from ecommerce_worker.broker import topology
from ecommerce_worker.testing.rabbitmq import free_port
from ecommerce_worker.tests.support.harness import QUEUE, eventually
from ecommerce_worker.tests.support.proxy import Proxy

#: Seconds beyond SHUTDOWN_SECONDS within which a process has to be gone, and some for a busy machine.
GRACE = 5 + 15


@pytest.fixture
def full_pipe():
    """The writing end of a pipe that takes nothing more."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b'.' * 4096)
    os.set_blocking(writer, True)
    yield writer
    os.close(reader)
    os.close(writer)


@pytest.fixture
def start(environment, tmp_path):
    """Start a command of ours whose output goes where it is said."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(*arguments, output, **settings):
        given = {'SHUTDOWN_SECONDS': 1, 'SCHEDULE_STATE': str(tmp_path / 'beat'), **settings}
        program = ['-m', 'ecommerce_worker'] if arguments[0] != '-c' else []
        process = subprocess.Popen(
            [sys.executable, *program, *arguments], stdout=output, stderr=output,
            env={**environment, **{f'ECOMMERCE_WORKER_{name}': str(value) for name, value in given.items()}},
            cwd=tmp_path, start_new_session=True)
        started.append(process)
        return process

    yield begin
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def ends(process, seconds=8):
    """Tell it to end, and return how it did."""
    process.send_signal(signal.SIGTERM)
    return process.wait(seconds + GRACE)


@pytest.mark.parametrize('pool', ['threads', 'prefork'])
def test_a_worker_whose_output_nobody_reads_fulfils_orders_and_ends(start, full_pipe, shop, publish, broker, pool):
    numbers = [f'EDX-{number}' for number in range(30)]
    for number in numbers:
        shop.add_order(number)
        publish(number)
    worker = start('worker', '--pool', pool, '--concurrency', '4', output=full_pipe, SHUTDOWN_SECONDS=25)
    eventually(lambda: all(shop.orders[number].status == 'Complete' for number in numbers))
    # In good order, for which a busy machine needs its time: nothing is delivered again.
    assert ends(worker, 25) == 0
    eventually(lambda: broker.depth(QUEUE) == 0)


def answers(port):
    with socket.socket() as asking:
        return asking.connect_ex(('127.0.0.1', port)) == 0


def ticked(path):
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(path)) as database:
        return database.execute('SELECT max(at) FROM beat').fetchone()[0]
    return None


@pytest.mark.parametrize('role', ['recorder', 'console', 'beat', 'up'])
def test_every_process_whose_output_nobody_reads_works_and_ends(start, full_pipe, command, broker, tmp_path, role):
    if role != 'beat':  # which then keeps its firings in a file
        command('migrate')
    port = free_port()
    process = start(role, '--debug', output=full_pipe, CONSOLE_ADDRESS=f'127.0.0.1:{port}',
                    SCHEDULE='{"resubmit": {"enabled": true}}')
    works = {'recorder': lambda: broker.consumers(topology.LEDGER), 'console': lambda: answers(port),
             'beat': lambda: ticked(tmp_path / 'beat'),
             'up': lambda: broker.consumers(topology.LEDGER) and broker.consumers(QUEUE) and answers(port)}

    def does():
        assert process.poll() is None
        return works[role]()

    eventually(does)
    assert ends(process) == 0


#: Looks after the children so often that it always meets something else that is done.
HECTIC = 'from ecommerce_worker.cli import main, up; up.CHECK_SECONDS = 0.001; main(["up"])'


def test_children_are_looked_after_when_nothing_else_is_done(start, broker, tmp_path):
    with (tmp_path / 'log').open('wb') as log:
        process = start('-c', HECTIC, output=log, CONSOLE_ADDRESS=f'127.0.0.1:{free_port()}', SHUTDOWN_SECONDS=8)
        eventually(lambda: broker.consumers(topology.LEDGER) and broker.consumers(QUEUE))
        assert ends(process) == 0
    said = (tmp_path / 'log').read_text()
    assert 'Traceback' not in said
    assert 'ConflictError' not in said


def test_a_worker_whose_broker_stands_still_ends_in_time(start, broker, tmp_path):
    with Proxy(urlsplit(broker.url).port or 0) as proxy, (tmp_path / 'log').open('wb') as log:
        worker = start('worker', output=log, BROKER_URL=f'amqp://guest:guest@127.0.0.1:{proxy.port}//')
        eventually(lambda: broker.consumers(QUEUE))
        proxy.freeze()
        assert ends(worker) == 0


def test_a_worker_that_waits_for_its_broker_ends_when_it_is_told_to(start, tmp_path):
    with (tmp_path / 'log').open('wb') as log:
        worker = start('worker', '--wait', '600', output=log, BROKER_URL='amqp://127.0.0.1:1//')
        eventually(lambda: b'waiting up to 600 s' in (tmp_path / 'log').read_bytes())
        started = time.monotonic()
        assert ends(worker) == 0
    assert time.monotonic() - started < GRACE


CONTENTS = 'what-only-the-recipient-may-read'


@pytest.mark.parametrize('pool', ['threads', 'prefork'])
def test_no_log_at_any_level_shows_what_is_in_a_message(start_worker, publish, shop, pool):
    shop.add_order('EDX-1')
    worker = start_worker('--debug', '--pool', pool, '--concurrency', '2', LOG_LEVEL='DEBUG', EMAIL_VENDOR='outbox',
                          EMAIL_OPTIONS=json.dumps({'directory': '.', 'from_email': 'shop@example.com'})).ready()
    publish(f'{CONTENTS}@example.com', CONTENTS, CONTENTS, None, CONTENTS,
            task='ecommerce_worker.email.v1.tasks.send_code_assignment_nudge_email', queue='ecommerce.email_marketing',
            contents=CONTENTS)
    publish('EDX-1', site_code=None, contents=CONTENTS)
    eventually(lambda: worker.settled('EDX-1') == 'done')
    eventually(lambda: 'task=ecommerce_worker.email' in worker.log)
    assert worker.stop() == 0
    assert CONTENTS not in worker.log
