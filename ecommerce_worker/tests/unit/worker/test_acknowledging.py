"""How many acknowledgements are held, as far as the window leaves room for them."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from ecommerce_worker import runtime
from ecommerce_worker.worker.acknowledging import MOST_HELD, Acknowledging


@pytest.mark.parametrize('by_queue, most', [(True, 4), (False, MOST_HELD)])
def test_where_rabbitmq_counts_by_queue_no_more_is_held_than_its_share_has_room_for(monkeypatch, by_queue, most):
    asked: list[int] = []
    safety = SimpleNamespace(holds=lambda id_, act, most: asked.append(most))
    monkeypatch.setattr(runtime, 'current', lambda: SimpleNamespace(safety=safety))
    consumer = cast('Any', SimpleNamespace(hub=True, spare=4, counts_by_queue=by_queue, call_soon=print))
    message = SimpleNamespace(ack_log_error=lambda: None)
    Acknowledging(consumer, 8).see_to(message, 'id-1')
    message.ack_log_error()
    assert asked == [most]
