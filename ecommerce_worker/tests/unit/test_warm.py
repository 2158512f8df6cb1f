"""Processes that are forked from the warm interpreter, as far as tests rely on them."""

import os
import signal
import subprocess
import sys

import pytest

from ecommerce_worker.testing.rabbitmq import free_port


def test_a_process_leads_its_group_as_soon_as_it_is_known():
    for _ in range(20):
        with subprocess.Popen([sys.executable, '-m', 'ecommerce_worker.testing.shop', '--until-eof', '--port',
                               str(free_port())], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL, start_new_session=True) as process:
            os.killpg(process.pid, signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL


@pytest.mark.parametrize('place, found', [('here', True), ('elsewhere', False)])
def test_modules_are_found_where_a_new_python_would_look_for_them(tmp_path, place, found):
    (tmp_path / 'here').mkdir()
    (tmp_path / 'here' / 'brought_along.py').write_text('')
    done = subprocess.run([sys.executable, '-m', 'ecommerce_worker', 'check'], text=True, capture_output=True,
                          check=False, env={
        **os.environ, 'PYTHONPATH': f'{tmp_path / place}{os.pathsep}{os.environ.get("PYTHONPATH", "")}',
        'ECOMMERCE_WORKER_CELERY_IMPORTS': 'brought_along'})
    assert ('CELERY_IMPORTS names brought_along, which cannot be imported' not in done.stdout) is found
