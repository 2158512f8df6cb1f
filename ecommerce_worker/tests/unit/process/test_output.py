"""Lines are written by a thread of their own."""

import threading

from ecommerce_worker.process.output import Outlet


def test_a_thread_that_could_not_be_started_is_started_with_the_next_line(monkeypatch):
    outlet, done = Outlet(), list[int]()
    with monkeypatch.context() as full:
        def refuse(thread):
            raise RuntimeError("can't start new thread")

        full.setattr(threading.Thread, 'start', refuse)
        outlet.put(done.append, 1)
    outlet.put(done.append, 2)
    assert outlet.flush(30)
    assert done == [1, 2]
