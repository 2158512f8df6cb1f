"""Several processes under one parent: begun again, told together to stop, and never without it."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from ecommerce_worker.process.several import LONGEST, next_pause
from ecommerce_worker.process.vitals import found
from ecommerce_worker.tests.support.harness import eventually

#: A parent whose children run what the test says; ``place`` counts those that were begun.
PARENT = """
import sys
from pathlib import Path
from ecommerce_worker.process.several import Several

script, count, here = sys.argv[1], int(sys.argv[2]), sys.argv[3]
several = Several([sys.executable, '-c', script, here], count, 'worker',
                  environment={'OURS': 'yes'}, tell=lambda line: print(line, flush=True))
sys.exit(several.run(directory=sys.argv[4], health_seconds=45, shutdown_seconds=float(sys.argv[5])))
"""

#: A child that says how it is, and ends when it is told to.
CHILD = """
import os, signal, sys
from pathlib import Path
from ecommerce_worker.process import ending, pulse

signal.signal(signal.SIGTERM, lambda *_: sys.exit(STATUS))
ending.with_parent()
pulse.own.begin('worker', seconds=45, directory=os.environ['ECOMMERCE_WORKER_HEALTH_DIR'], look=lambda: ('', 'fine'))
(Path(sys.argv[1]) / str(os.getpid())).touch()
while True:
    signal.pause()
"""


@pytest.fixture
def parent(tmp_path):
    """Begin a parent of such children; what it has begun is in `begun`, its own state in `health`."""
    started: list[subprocess.Popen[str]] = []
    (tmp_path / 'begun').mkdir()

    def start(script, count=2, seconds=20):
        made = subprocess.Popen(
            [sys.executable, '-c', textwrap.dedent(PARENT), script, str(count), str(tmp_path / 'begun'),
             str(tmp_path / 'health'), str(seconds)], stdout=subprocess.PIPE, text=True, start_new_session=True)
        started.append(made)
        return made

    yield start
    for each in started:
        each.kill()
        each.communicate()
    for pid in pids(tmp_path):
        if alive(pid):
            os.kill(pid, signal.SIGKILL)


def pids(path: Path) -> set[int]:
    return {int(it.name) for it in (path / 'begun').iterdir()}


def alive(pid):
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except OSError:
        return False


def standing(path, parent):
    health = path / 'health'
    said = (it for it in (found(str(health), 'worker') if health.exists() else ()) if it['pid'] == parent.pid)
    return next(said, {'ready': False, 'detail': ''})


def child(status=0):
    return CHILD.replace('STATUS', str(status))


def test_the_parent_is_ready_when_all_are_and_ends_with_them(parent, tmp_path):
    it = parent(child())
    eventually(lambda: standing(tmp_path, it)['ready'])
    both = pids(tmp_path)
    assert len(both) == 2
    assert standing(tmp_path, it)['detail'].startswith('2 of 2 processes are ready')
    it.terminate()
    assert it.wait(60) == 0
    assert not any(map(alive, both))


def test_one_that_ends_is_begun_again_and_said_so(parent, tmp_path):
    it = parent(child())
    eventually(lambda: standing(tmp_path, it)['ready'])
    victim = min(pids(tmp_path))
    os.kill(victim, signal.SIGKILL)
    assert it.stdout.readline() == f'process {victim} was killed by signal 9; restarting in 1 s\n'
    eventually(lambda: len(pids(tmp_path)) == 3 and standing(tmp_path, it)['ready'])
    it.terminate()
    assert it.wait(60) == 0


def test_the_status_is_the_first_one_that_is_not_0(parent, tmp_path):
    other = parent(child(75))
    eventually(lambda: standing(tmp_path, other)['ready'])
    other.terminate()
    assert other.wait(60) == 75


@pytest.mark.parametrize('status', [1, 69, 77, 78])
def test_what_keeps_the_first_from_beginning_ends_all(parent, status):
    assert parent(f'raise SystemExit({status})').wait(60) == status


def test_one_that_does_not_end_is_killed_when_its_time_is_over(parent, tmp_path):
    it = parent(child().replace('sys.exit(STATUS)', 'None').replace('sys.exit(0)', 'None'), seconds=0.2)
    eventually(lambda: standing(tmp_path, it)['ready'])
    it.terminate()
    assert it.wait(60) == 0
    assert not any(map(alive, pids(tmp_path)))


def test_all_end_with_a_parent_that_is_killed(parent, tmp_path):
    it = parent(child())
    eventually(lambda: standing(tmp_path, it)['ready'])
    it.kill()
    eventually(lambda: not any(map(alive, pids(tmp_path))))


def test_one_that_stands_still_is_killed(parent, tmp_path):
    still = child().replace('seconds=45', 'seconds=1')
    it = parent(still, count=1)
    said = it.stdout.readline()
    assert 'has not responded for' in said
    assert said.endswith('; killing it\n')
    assert 'was killed by signal 9' in it.stdout.readline()


def test_pauses_grow_and_begin_anew_after_a_long_life():
    pauses = [0.0]
    for _ in range(8):
        pauses.append(next_pause(pauses[-1], lived=0.1))
    assert pauses[1:] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert next_pause(60, lived=LONGEST) == 1
