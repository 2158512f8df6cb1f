"""Telling of ends, and what waits for them, without a broker."""

import threading
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ecommerce_worker.broker import facts as module
from ecommerce_worker.broker.facts import Teller
from ecommerce_worker.telemetry.run import Told

TOLD = Told('done', 'a.b', 'id-1', 'EDX-1', 'edx', 1, 0.1)


@pytest.fixture
def teller(monkeypatch):
    """A teller whose facts are confirmed as soon as ``confirmed`` is set."""
    confirmed = threading.Event()
    monkeypatch.setattr(module, 'Publisher', lambda *_: SimpleNamespace(
        publish=lambda _: confirmed.wait(), close=lambda: None))
    teller = cast('Any', Teller(cast('Any', None), repeatable=['a.b']))
    teller.confirmed = confirmed
    yield teller
    confirmed.set()
    teller.end()


def test_an_end_that_is_safe_is_flushed_only_once_who_waited_for_it_was_told(teller):
    begun, let, acknowledged = threading.Event(), threading.Event(), threading.Event()

    def acknowledge():
        begun.set()
        let.wait()
        acknowledged.set()

    teller(TOLD)
    assert teller.holds('id-1', acknowledge, 9)
    teller.confirmed.set()
    assert begun.wait(30)
    began = time.monotonic()
    teller.flush(0.2)
    assert time.monotonic() - began >= 0.2
    let.set()
    teller.flush(30)
    assert acknowledged.is_set()
