"""The threads of the pool: how many there are, who runs what, and how they end."""

import threading
from concurrent.futures import CancelledError

import pytest

from ecommerce_worker.worker.pool import Threads


@pytest.fixture
def threads():
    made = Threads(4)
    yield made
    made.shutdown(cancel_futures=True)


def test_there_are_as_many_threads_as_run_something_at_once_and_no_more_than_there_is_room(threads):
    barrier, release = threading.Barrier(4 + 1), threading.Event()

    def run():
        barrier.wait(30)
        release.wait(30)

    for _ in range(4):
        threads.put(run)
    barrier.wait(30)
    later = [threads.submit(int, '7') for _ in range(3)]
    assert not any(it.running() or it.done() for it in later)
    release.set()
    assert [it.result(30) for it in later] == [7, 7, 7]
    assert len(threads._threads) == 4


def test_a_thread_that_is_free_is_used_again(threads):
    names = {threads.submit(threading.get_ident).result(30) for _ in range(20)}
    # One may still be on its way back when the next one is wanted.
    assert len(names) < 4


def test_what_a_run_makes_room_for_is_run_by_the_same_thread_next(threads):
    ran: list[int] = []
    over = threading.Event()

    def second():
        ran.append(threading.get_ident())
        over.set()

    def first():
        ran.append(threading.get_ident())
        threads.put(second)

    threads.put(first)
    assert over.wait(30)
    assert ran[0] == ran[1]


def test_of_two_that_a_run_makes_room_for_another_thread_takes_one(threads):
    meeting = threading.Barrier(2 + 1)

    def both():
        for _ in range(2):
            threads.put(lambda: meeting.wait(30))

    threads.put(both)
    meeting.wait(30)


def test_an_error_costs_no_thread(threads, caplog):
    def fail():
        raise SystemExit

    for _ in range(10):
        threads.put(fail)
    assert threads.submit(int, '7').result(30) == 7
    assert 'unexpected error in a thread of the pool: error=SystemExit' in caplog.text
    with pytest.raises(ValueError, match='x'):
        threads.submit(int, 'x').result(30)


def test_what_runs_ends_and_what_does_not_yet_is_dropped_when_it_is_closed():
    threads, began, release, ended = Threads(1), threading.Event(), threading.Event(), threading.Event()

    def run():
        began.set()
        release.wait(30)
        ended.set()

    threads.put(run)
    assert began.wait(30)
    dropped = threads.submit(int, '7')
    closing = threading.Thread(target=threads.shutdown, kwargs={'cancel_futures': True})
    closing.start()
    release.set()
    closing.join(30)
    assert ended.is_set()
    with pytest.raises((TimeoutError, CancelledError)):
        dropped.result(0)
    with pytest.raises(RuntimeError, match='the pool is closed'):
        threads.put(run)
