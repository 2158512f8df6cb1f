"""What a process says and how it ends, whatever hangs: real processes, real pipes, real signals."""

import contextlib
import logging
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from ecommerce_worker.process.ending import Stop
from ecommerce_worker.process.output import Outlet, Queued

BEGIN = """
import logging, os, signal, sys, threading, time
from ecommerce_worker.process import ending, output, status
output.open_standard()
logging.basicConfig(stream=sys.stdout, level=logging.INFO, format='%(levelname)s %(message)s')
output.open_log()
ending.at_once()
log = logging.getLogger('test')
"""


def full_pipe():
    """Both ends of a pipe that takes nothing more."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b'.' * 4096)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b'.')
    os.set_blocking(writer, True)
    return reader, writer


@contextlib.contextmanager
def program(text, stdout=None, stderr=None):
    """A process that runs this after the beginning of all; it has said "go" on standard input's other end."""
    ready_reader, ready_writer = os.pipe()
    process = subprocess.Popen(
        [sys.executable, '-c', BEGIN + f'READY = {ready_writer}\n' + textwrap.dedent(text)], pass_fds=[ready_writer],
        stdout=subprocess.PIPE if stdout is None else stdout, stderr=stderr, text=True)
    os.close(ready_writer)
    try:
        with os.fdopen(ready_reader) as ready:
            ready.read(1)
        yield process
    finally:
        process.kill()
        process.communicate()


# -- output -----------------------------------------------------------------------------------------------------------


def test_log_lines_and_prints_come_out_in_order():
    with program("""
        for number in range(1000):
            log.info('line %d', number)
            print('print', number)
        try:
            1 / 0
        except ZeroDivisionError:
            log.exception('oh')
    """) as process:
        out, _ = process.communicate(timeout=30)
    lines = out.splitlines()
    assert lines[:2000] == [line for number in range(1000) for line in (f'INFO line {number}', f'print {number}')]
    assert lines[2000] == 'ERROR oh'
    assert lines[-1] == '  ZeroDivisionError: division by zero'
    assert process.returncode == 0


def test_a_traceback_that_ends_the_process_is_written():
    with program("raise ValueError('the last word')", stderr=subprocess.STDOUT) as process:
        out, _ = process.communicate(timeout=30)
    assert out.endswith('ValueError: the last word\n')
    assert process.returncode == 1


@pytest.mark.parametrize('status', [0, 3])
def test_nobody_waits_for_a_pipe_that_nobody_reads_nor_does_the_end(status):
    reader, writer = full_pipe()
    with program(f"""
        for number in range(30_000):
            log.info('line %d', number)
            print('print', number, flush=True)
        print('to standard error', file=sys.stderr)
        os.write(READY, b'.')
        status.ends_with({status})
        sys.exit({status})
    """, writer, writer) as process:
        os.close(writer)
        assert process.wait(30) == status
    os.close(reader)


def test_what_was_dropped_is_counted_and_reported_when_the_pipe_flows_again():
    reader, writer = full_pipe()
    with program("""
        for number in range(output.BOUND + 123):
            log.info('line %d', number)
        os.write(READY, b'.')
        signal.pause()
    """, writer) as process, os.fdopen(reader, encoding='latin-1') as lines:
        os.close(writer)
        # One line at least is in the thread's hands.
        found = next(match for line in lines if (match := re.search(r'lines were dropped: dropped=(\d+)', line)))
        assert 100 <= int(found[1]) <= 123
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_where_more_comes_than_is_written_something_is_written_all_the_same():
    outlet, enough = Outlet(bound=4), threading.Event()
    done: list[None] = []

    def act():
        done.append(None)
        if len(done) == 100:
            enough.set()
        for _ in range(0 if enough.is_set() else 10):
            outlet.put(act)

    outlet.put(act)
    assert enough.wait(10)


def test_a_process_that_is_forked_says_what_it_has_to_say():
    with program("""
        log.info('parent')
        if not os.fork():
            log.info('child')
            output.outlet.flush()
            os._exit(0)
        os.wait()
        log.info('parent again')
    """) as process:
        out, _ = process.communicate(timeout=30)
    assert out.splitlines() == ['INFO parent', 'INFO child', 'INFO parent again']


def test_a_forked_process_is_not_kept_by_what_its_parent_waits_for():
    reader, writer = full_pipe()
    with program("""
        for number in range(1000):
            log.info('line %d', number)
        time.sleep(0.1)
        child = os.fork()
        if not child:
            for number in range(1000):
                log.info('line %d', number)
            os._exit(7)
        os.write(READY, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]).to_bytes(1, 'big'))
        sys.exit(0)
    """, writer, writer) as process:
        os.close(writer)
        assert process.wait(30) == 0
    os.close(reader)


def test_a_reader_that_has_gone_is_no_trouble():
    reader, writer = os.pipe()
    os.close(reader)
    with program("""
        for number in range(1000):
            log.info('line %d', number)
            print(number)
    """, writer) as process:
        os.close(writer)
        assert process.wait(30) == 0


class Stuck(logging.Handler):
    """A disk that stands still."""

    def __init__(self):
        super().__init__()
        self.goes_on = threading.Event()
        self.lines = []

    def emit(self, record):
        self.goes_on.wait(30)
        self.lines.append(record.getMessage())


def test_a_handler_that_hangs_keeps_nobody_waiting(monkeypatch):
    outlet, stuck, logger = Outlet(bound=10), Stuck(), logging.getLogger('of this test')
    monkeypatch.setattr('ecommerce_worker.process.output.outlet', outlet)
    logger.handlers, logger.propagate = [Queued([stuck])], False
    for number in range(100):
        logger.warning('line %d', number)
    assert not outlet.flush(0.01)
    stuck.goes_on.set()
    assert outlet.flush(30)
    assert 10 <= len(stuck.lines) <= 12
    assert stuck.lines[:3] == ['line 0', 'line 1', 'line 2']


def test_what_is_there_to_be_written_is_written_at_once_in_order(monkeypatch):
    written: list[Any] = []
    monkeypatch.setattr('ecommerce_worker.process.output._written', lambda *what: written.append(what))
    outlet, hold = Outlet(), threading.Event()
    outlet.put(hold.wait, 30)
    for fd, data in ((1, b'a'), (1, b'b'), (2, b'c'), (1, b'd'), (1, b'e')):
        outlet.put(outlet.write, fd, data)
    hold.set()
    assert outlet.flush(30)
    assert written == [(1, b'ab'), (2, b'c'), (1, b'de')]
    outlet.write(1, b'by another thread')
    assert written[-1] == (1, b'by another thread')


def test_what_a_line_says_is_fixed_when_it_is_logged():
    seen, logger = Stuck(), logging.getLogger('of this test')
    logger.handlers, logger.propagate = [Queued([seen])], False
    thing = ['before']
    logger.warning('%s', thing)
    thing[0] = 'after'
    seen.goes_on.set()
    deadline = time.monotonic() + 30
    while not seen.lines:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert seen.lines == ["['before']"]


# -- ending -----------------------------------------------------------------------------------------------------------


def test_sigterm_is_caught_from_the_beginning():
    # The first process of a container gets no signal that it does not catch.
    with program('os.write(READY, b"."); time.sleep(60)') as process:
        with Path(f'/proc/{process.pid}/status').open(encoding='ascii') as status:
            caught = int(next(line.split()[1] for line in status if line.startswith('SigCgt')), 16)
        assert caught >> (signal.SIGTERM - 1) & 1
        process.terminate()
        assert process.wait(30) == 0


# Each has a handler before it says that it is ready: that of the beginning would end it on its way to the hang.
HANGS = {
    'a lock': 'lock = threading.Lock(); lock.acquire(); signal.signal(signal.SIGTERM, lambda *_: lock.acquire()); '
              'os.write(READY, b"."); lock.acquire()',
    'C': 'import ctypes; c = ctypes.CDLL(None); mutex = ctypes.create_string_buffer(64); c.pthread_mutex_lock(mutex); '
         'signal.signal(signal.SIGTERM, lambda *_: None); os.write(READY, b"."); c.pthread_mutex_lock(mutex)',
    'another thread': 'threading.Thread(target=threading.Event().wait).start(); '
                      'signal.signal(signal.SIGTERM, lambda *_: sys.exit()); os.write(READY, b"."); time.sleep(60)',
    'what it does at the end': 'import atexit; atexit.register(time.sleep, 600); '
                               'signal.signal(signal.SIGTERM, lambda *_: sys.exit()); os.write(READY, b"."); '
                               'time.sleep(600)',
    'a handler': 'signal.signal(signal.SIGTERM, lambda *_: time.sleep(600)); os.write(READY, b"."); time.sleep(600)',
}


@pytest.mark.parametrize('hang', HANGS.values(), ids=HANGS)
def test_a_process_ends_in_time_whatever_hangs(hang):
    with program('ending.within(0.3); ' + hang) as process:
        process.terminate()
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert 'stopped while something was still running: when="after 0.3 s"' in out


def test_a_process_that_is_cut_short_ends_with_the_status_that_was_given_up_with():
    hang = "status.ends_with(75); status.ends_with(0); os.write(READY, b'.'); threading.Event().wait()"
    with program('ending.within(0.1); signal.signal(signal.SIGTERM, lambda *_: None); ' + hang) as process:
        process.terminate()
        assert process.wait(30) == 75


def test_a_process_that_begins_ends_at_once_though_the_signal_strikes_in_a_destructor():
    with program("""
        class Last:
            def __del__(self):
                log.info('last words')
                os.write(READY, b'.')
                time.sleep(600)
        Last()
        time.sleep(600)
    """) as process:
        process.terminate()
        out, _ = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, 'INFO last words\n')


def test_a_process_ends_in_time_though_nobody_reads_what_it_says():
    reader, writer = full_pipe()
    with program("""
        ending.within(0.3)
        log.info('a line')
        lock = threading.Lock()
        lock.acquire()
        signal.signal(signal.SIGTERM, lambda *_: lock.acquire())
        os.write(READY, b'.')
        lock.acquire()
    """, writer, writer) as process:
        os.close(writer)
        process.terminate()
        assert process.wait(30) == 0
    os.close(reader)


def test_the_end_of_a_child_is_not_that_of_its_parent():
    with program("""
        ending.within(0.2)
        child = os.fork()
        if not child:
            signal.signal(signal.SIGTERM, lambda *_: None)
            os.write(READY, b'.')
            time.sleep(1)
            os._exit(0)
        os.write(1, b'%d\\n' % child)
        os.waitpid(child, 0)
        time.sleep(0.5)
        print('still here')
    """) as process:
        assert process.stdout
        os.kill(int(process.stdout.readline()), signal.SIGTERM)
        out, _ = process.communicate(timeout=30)
    assert out == 'still here\n'


def test_a_stop_is_waited_for_and_stays():
    stop = Stop()
    assert not stop.wait(0)
    threading.Timer(0.05, stop.set).start()
    assert stop.wait(30)
    assert stop.wait(30)
    assert stop.is_set()


def test_a_stop_is_set_by_a_signal_whatever_is_being_done():
    with program("""
        stop = ending.Stop.on(signal.SIGTERM)
        os.write(READY, b'.')
        while not stop.wait(0.001):
            stop.is_set()
        print('stopped')
    """) as process:
        process.terminate()
        out, _ = process.communicate(timeout=30)
    assert (out, process.returncode) == ('stopped\n', 0)
