"""A request, and who begins the next one."""

import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ecommerce_worker.execution.outcomes import Handover
from ecommerce_worker.worker.consumer import Consumer
from ecommerce_worker.worker.request import Request


def test_the_place_of_a_run_that_ended_is_free_before_the_keeper_has_its_message():
    done: list[str] = []
    request: Any = object.__new__(Request)
    request.consumer = SimpleNamespace(lanes=SimpleNamespace(left=lambda _: done.append('left')),
                                       hand_over=lambda *_: done.append('handed over'))
    request.on_failure(SimpleNamespace(exception=Handover((), ('message',), None)))
    assert done[:2] == ['left', 'handed over']


@pytest.mark.parametrize('any_thread', [True, False])
def test_children_are_given_work_by_the_event_loop_only(any_thread):
    begun: list[str] = []
    soon: list[Any] = []
    consumer: Any = SimpleNamespace(hub=True, call_soon=lambda *call: soon.append(call), _begin=begun.append,
                                    _takes_from_any=any_thread, _loop_thread=threading.get_ident())
    other: Any = 'from another thread'
    thread = threading.Thread(target=Consumer._start, args=(consumer, other))
    thread.start()
    thread.join()
    Consumer._start(consumer, cast('Any', 'from the loop'))
    assert begun == (['from another thread'] if any_thread else []) + ['from the loop']
    assert soon == ([] if any_thread else [(consumer._begin, other)])
