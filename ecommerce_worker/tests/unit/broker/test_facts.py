"""Telling of ends, and what waits for them, without a broker."""

import threading
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ecommerce_worker.broker import facts as module
from ecommerce_worker.broker.facts import Reporter
from ecommerce_worker.telemetry.run import RunReport

REPORT = RunReport('done', task='a.b', id='id-1', key='EDX-1', site='edx', attempt=1, seconds=0.1)


@pytest.fixture
def reporter(monkeypatch):
    """A reporter whose facts are confirmed as soon as ``confirmed`` is set."""
    confirmed = threading.Event()
    monkeypatch.setattr(module, 'Publisher', lambda *_: SimpleNamespace(
        publish=lambda _: confirmed.wait(), close=lambda: None))
    reporter = cast('Any', Reporter(cast('Any', None), repeatable=['a.b']))
    reporter.confirmed = confirmed
    yield reporter
    confirmed.set()
    reporter.end()


def test_an_end_that_is_safe_is_flushed_only_once_who_waited_for_it_was_told(reporter):
    begun, let, acknowledged = threading.Event(), threading.Event(), threading.Event()

    def acknowledge():
        begun.set()
        let.wait()
        acknowledged.set()

    reporter.reported(REPORT)
    assert reporter.holds('id-1', acknowledge, 9)
    reporter.confirmed.set()
    assert begun.wait(30)
    began = time.monotonic()
    reporter.flush(0.2)
    assert time.monotonic() - began >= 0.2
    let.set()
    reporter.flush(30)
    assert acknowledged.is_set()
