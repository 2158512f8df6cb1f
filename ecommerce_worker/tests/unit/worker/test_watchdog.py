"""Runs that do not end, as the watchdog sees to them."""

import subprocess
import time
from types import SimpleNamespace
from typing import Any, cast

from ecommerce_worker.tests.unit.execution.test_task import body, delivery
from ecommerce_worker.worker.watchdog import Watchdog


def test_a_child_that_has_just_ended_is_reported_once_and_others_are_seen_to(caplog):
    gone = subprocess.Popen(['true'])
    gone.wait()
    began = time.monotonic() - 1e9
    requests = [SimpleNamespace(began=began, task=body._get_current_object(), delivery=delivery(),
                                worker_pid=gone.pid, thread=None) for _ in range(2)]
    consumer = SimpleNamespace(lanes=SimpleNamespace(running=lambda: [('', request, 0.0) for request in requests]))
    watchdog = Watchdog(cast('Any', consumer), 8)
    watchdog.look()
    watchdog.look()
    assert sum('a run does not end' in message for message in caplog.messages) == 2
