"""Turns at an order, among threads and among processes."""

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from ecommerce_worker.locks import machine
from ecommerce_worker.locks.machine import turn

TAKE = ('import sys; from ecommerce_worker.locks.machine import turn\n'
        'with turn(sys.argv[1], 60) as waited: print(waited, flush=True); sys.stdin.read()')


@pytest.fixture
def name(tmp_path):
    """What no other test takes turns at."""
    return str(tmp_path)


@pytest.fixture
def waiting(monkeypatch):
    """Set as soon as somebody waits; time passes quickly then."""
    waiting, ahead = threading.Event(), []

    def sleep(seconds):
        waiting.set()
        ahead.append(seconds)
        time.sleep(0.001)

    monkeypatch.setattr(machine, 'time', SimpleNamespace(sleep=sleep, monotonic=lambda: sum(ahead)))
    return waiting


def take(name, patience=10_000.0):
    with turn(name, patience) as waited:
        return waited


def test_a_thread_waits_for_another_and_learns_of_it(name, waiting):
    with ThreadPoolExecutor(1) as pool:
        with turn(name, 0) as first:
            second = pool.submit(take, name)
            assert waiting.wait(30)
            assert (first, second.done()) == (False, False)
        assert second.result(30) is True


def test_of_many_threads_one_is_under_way(name):
    under_way, seen = [], []

    def run(_):
        with turn(name, 60):
            under_way.append(1)
            time.sleep(0.01)
            seen.append(len(under_way))
            under_way.pop()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(run, range(8)))
    assert seen == [1] * 8


def test_a_process_waits_for_another_and_has_its_turn_when_that_is_killed(name, waiting):
    with (subprocess.Popen([sys.executable, '-c', TAKE, name], stdin=subprocess.PIPE,
                           stdout=subprocess.PIPE) as other, ThreadPoolExecutor(1) as pool):
        try:
            assert other.stdout
            assert other.stdout.readline() == b'False\n'
            mine = pool.submit(take, name)
            assert waiting.wait(30)
        finally:
            other.kill()
        assert mine.result(30) is True


def test_one_that_never_ends_is_waited_for_so_long(name, waiting):
    with turn(name, 0):
        assert take(name, patience=3) is True
    assert waiting.is_set()


def test_a_turn_stands_in_nobody_elses_way_and_ends_with_what_was_done(name):
    # What comes of a message need not be UTF-8.
    with turn(name, 0) as first, turn(f'{name} \udcff', 0) as second:
        assert (first, second) == (False, False)
    with pytest.raises(KeyError), turn(name, 0):
        raise KeyError
    assert take(name) is False


def test_where_there_are_no_such_names_nobody_waits(name, monkeypatch):
    monkeypatch.setattr(machine, 'PREFIX', b'/nowhere/')
    with turn(name, 60) as first, turn(name, 60) as second:
        assert (first, second) == (False, False)
