"""Processes that are forked from the warm interpreter, as far as tests rely on them."""

import os
import signal
import subprocess
import sys

from ecommerce_worker.testing.rabbitmq import free_port


def test_a_process_leads_its_group_as_soon_as_it_is_known():
    for _ in range(20):
        with subprocess.Popen([sys.executable, '-m', 'ecommerce_worker.testing.shop', '--until-eof', '--port',
                               str(free_port())], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL, start_new_session=True) as process:
            os.killpg(process.pid, signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
