"""``ecommerce-worker up`` as an operator runs it: all of a site under one parent, on a real RabbitMQ."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from importlib.util import find_spec

import psutil  # type: ignore[import-untyped]
import pytest

from ecommerce_worker.cli.up import Lines
from ecommerce_worker.process.several import LONGEST, next_pause
from ecommerce_worker.testing.intake import SECRET
from ecommerce_worker.testing.rabbitmq import free_port
from ecommerce_worker.testing.shop import Answer
from ecommerce_worker.tests.support.harness import Program, eventually
from ecommerce_worker.tests.support.intake import posted, signed


def rows_of_ps():
    """Number, parent and command line of each process."""
    found = subprocess.run(['ps', '-eo', 'pid=,ppid=,args='], capture_output=True, text=True, check=True)
    return [(int(pid), int(parent), command) for pid, parent, command in (
        row.split(None, 2) for row in found.stdout.splitlines() if len(row.split(None, 2)) == 3)]


def is_there(pid):
    """Whether such a process runs; one that has ended may wait for an init that never asks."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def answers(port):
    """Whether somebody listens there."""
    with socket.socket() as asking:
        return asking.connect_ex(('127.0.0.1', port)) == 0


class Up(Program):
    """The parent: a process, a log, and its children by name."""

    def __init__(self, environment, port, log):
        super().__init__(log, environment, '-m', 'ecommerce_worker', 'up')
        self.port = port
        self._environment = environment

    @property
    def children(self):
        """The number of each child's process, by its command."""
        return {command.split()[-1]: pid for pid, parent, command in rows_of_ps()
                if parent == self.process.pid and '-m ecommerce_worker ' in command}

    def order(self, number):
        """What the ledger knows of this order."""
        return subprocess.run([sys.executable, '-m', 'ecommerce_worker', 'orders', 'show', number], check=False,
                              env=self._environment, capture_output=True, text=True).stdout

    def child(self, name):
        """The number of this child's process, once there is one."""
        def found():
            assert self.process.poll() is None, self.log
            return self.children.get(name)

        return eventually(found)

    def says(self, *words, times=1):
        """Return when a line with all these words has been said so often."""
        def said():
            assert self.process.poll() is None, self.log
            return sum(all(word in line for word in words) for line in self.log.splitlines()) >= times

        eventually(said)


@pytest.fixture
def start(environment, tmp_path):
    """Start one, of a site with a ledger, a console and a schedule."""
    started: list[Up] = []

    def begin(**settings):
        port = free_port()
        given = {
            'DATABASES': f'{{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": "{tmp_path}/ledger"}}}}',
            'CONSOLE_ADDRESS': f'127.0.0.1:{port}', 'SCHEDULE': '{"resubmit": {"enabled": false}}',
            'SCHEDULE_STATE': str(tmp_path / 'beat'),
            'FULFILLMENT_READ_TIMEOUT': 20, **settings}
        up = Up({**environment, **{f'ECOMMERCE_WORKER_{name}': str(value) for name, value in given.items()}},
                port, tmp_path / f'up-{len(started)}.log')
        started.append(up)
        return up

    yield begin
    for up in started:
        up.kill()


def test_all_of_a_site_runs_under_one_parent_and_ends_with_it(start, publish, shop):
    up = start()
    up.says('worker   |', ' ready.')
    up.says('recorder |', 'recording')
    up.says('console  |', 'console at')
    up.says('beat     |', 'beat is ready')

    shop.add_order('EDX-1')
    publish('EDX-1')
    eventually(lambda: 'fulfilled' in up.order('EDX-1'))
    eventually(lambda: answers(up.port))

    first = up.child('recorder')
    os.kill(first, signal.SIGKILL)
    up.says('up       | recorder was killed by signal 9')
    up.says('recorder |', 'recording', times=2)
    assert up.child('recorder') != first

    shop.add_order('EDX-2')
    publish('EDX-2')
    eventually(lambda: 'fulfilled' in up.order('EDX-2'))

    children = up.children
    assert set(children) == {'recorder', 'worker', 'console', 'beat'}
    up.process.terminate()
    assert up.process.wait(40) == 0, up.log
    assert not [pid for pid in children.values() if is_there(pid)]
    ends = [line.split()[2] for line in up.log.splitlines() if line.startswith('up       |')]
    assert ends == ['recorder', 'beat', 'console', 'worker', 'recorder'], up.log
    assert 'Traceback' not in up.log


def test_where_there_are_intakes_one_runs_beside_the_worker(start, shop):
    intakes, port = {'mine': {'kind': 'submit', 'secrets': [SECRET]}}, free_port()
    up = start(INTAKES=json.dumps(intakes), INTAKE_ADDRESS=f'127.0.0.1:{port}')
    up.says('worker   |', ' ready.')
    up.says('intake   |', 'accepting deliveries at')
    shop.add_order('EDX-1')
    body = b'{"order_number": "EDX-1"}'
    eventually(lambda: posted(port, '/in/mine', body, signed('submit', body)).status == 202)
    eventually(lambda: 'fulfilled' in up.order('EDX-1'))
    assert 'accepted' in up.order('EDX-1')
    up.process.terminate()
    assert up.process.wait(40) == 0, up.log
    ends = [line.split()[2] for line in up.log.splitlines() if line.startswith('up       |')]
    assert ends == ['intake', 'beat', 'console', 'worker', 'recorder'], up.log


def test_the_worker_finishes_what_runs_however_often_it_is_told_to_end(start, publish, shop):
    up = start()
    up.says('worker   |', ' ready.')
    shop.add_order('EDX-1', Answer.slow(3))
    publish('EDX-1')
    eventually(lambda: shop.orders['EDX-1'].puts == 1)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.killpg(up.process.pid, number)
        time.sleep(0.1)
    assert up.process.wait(40) == 0, up.log
    assert ' done: ' in up.log
    assert shop.orders['EDX-1'].fulfilments == 1


@pytest.mark.skipif(find_spec('flower') is not None, reason='Flower is installed')
def test_its_children_end_even_if_it_is_killed(start):
    up = start()
    children = [up.child(name) for name in ('recorder', 'worker', 'console', 'beat')]
    up.process.kill()
    up.process.wait()
    eventually(lambda: not any(map(is_there, children)))


def test_without_flower_it_is_said_how_to_install_it(environment):
    done = subprocess.run([sys.executable, '-m', 'ecommerce_worker', 'flower'], env=environment, capture_output=True,
                          text=True, check=False)
    assert (done.returncode, done.stdout) == (1, '')
    assert done.stderr == ("ecommerce-worker: this command needs flower, not installed here: "
                           "pip install 'edx-ecommerce-worker[flower]'\n")


def test_what_cannot_run_is_tried_less_and_less_often():
    pauses = [0.0]
    for _ in range(8):
        pauses.append(next_pause(pauses[-1], lived=0.1))
    assert pauses[1:] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert next_pause(60, lived=LONGEST) == 1


def test_what_a_child_says_comes_line_by_line_with_its_name():
    said: list[str] = []
    lines = Lines('beat', said.append)
    for name, data in (('stdout', b'on'), ('stderr', b'two\n'), ('stdout', b'e\n\xff'), ('stdout', b'\nlast')):
        lines({'pid': 1, 'name': name, 'data': data})
    lines.close()
    assert said == ['beat     | two', 'beat     | one', 'beat     | \ufffd', 'beat     | last']
