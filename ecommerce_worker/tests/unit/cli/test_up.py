"""What the parent of a small site's processes knows of them."""

import asyncio
import signal

from ecommerce_worker.cli.up import Child
from ecommerce_worker.settings import load
from ecommerce_worker.tests.support.harness import eventually


async def ended_before_it_was_looked_after():
    said: list[str] = []
    child = Child('nonsense', load({'WORKER_CONFIGURATION_MODULE': 'ecommerce_worker.configuration.test'}), said.append,
                  debug=False)
    child.initialize(None, {}, None)
    child._status = 'active'
    await child.spawn_processes()
    (pid, process), = child.processes.items()
    process.send_signal(signal.SIGKILL)
    eventually(lambda: process.status != 0)
    await child.manage_processes()
    assert list(child.processes) == [pid]
    child.reap_process(pid)
    return said


def test_of_a_child_that_ends_between_two_looks_it_is_said_how():
    said = asyncio.run(ended_before_it_was_looked_after())
    assert said == ['up       | nonsense was killed by signal 9; restarting in 1 s']
