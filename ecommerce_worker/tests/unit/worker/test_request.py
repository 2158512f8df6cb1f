"""A request, and who begins the next one."""

from types import SimpleNamespace
from typing import Any

from ecommerce_worker.execution.outcomes import Handover
from ecommerce_worker.worker.request import Request


def test_the_place_of_a_run_that_ended_is_free_before_the_keeper_has_its_message():
    done: list[str] = []
    request: Any = object.__new__(Request)
    request.consumer = SimpleNamespace(lanes=SimpleNamespace(left=lambda _: done.append('left')),
                                       hand_over=lambda *_: done.append('handed over'))
    request.on_failure(SimpleNamespace(exception=Handover((), ('message',), None)))
    assert done[:2] == ['left', 'handed over']
