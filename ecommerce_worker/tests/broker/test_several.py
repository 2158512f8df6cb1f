"""A worker of several processes: one command, one view, one end."""

import os
import re
import signal

from ecommerce_worker.process.vitals import found
from ecommerce_worker.tests.support.harness import QUEUE, eventually
from ecommerce_worker.tests.support.health import is_so


def test_two_processes_share_the_orders_and_one_that_is_killed_is_replaced(start_worker, publish, broker, shop,
                                                                            tmp_path):
    directory = tmp_path / 'health'
    worker = start_worker('--processes', '2', HEALTH_DIR=directory)
    eventually(lambda: is_so(directory, 'ready'))
    assert broker.consumers(QUEUE) == 2
    numbers = [f'EDX-{number}' for number in range(40)]
    for number in numbers:
        shop.add_order(number)
        publish(number)
    eventually(lambda: all(shop.orders[number].status == 'Complete' for number in numbers))
    assert [shop.orders[number].puts for number in numbers] == [1] * 40
    victim = next(it['pid'] for it in found(str(directory), 'worker') if it['pid'] != worker.process.pid)
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: re.search(rf'process {victim} was killed by signal 9', worker.log))
    eventually(lambda: is_so(directory, 'ready') and broker.consumers(QUEUE) == 2)
    assert worker.stop() == 0
    eventually(lambda: broker.consumers(QUEUE) == 0)
