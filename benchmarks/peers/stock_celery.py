"""Stock Celery: acknowledged late, and no more than that."""

from __future__ import annotations

import os

from celery import Celery

from benchmarks.peers.fulfil import fulfil

app = Celery('stock', broker=os.environ.get('BENCHMARK_BROKER', ''))
app.conf.update(task_acks_late=True, task_default_queue='benchmark.celery', worker_prefetch_multiplier=1,
                worker_detect_quorum_queues=False, broker_connection_retry_on_startup=True, task_ignore_result=True)

#: The task that orders are published for.
TASK = 'fulfil'

app.task(name=TASK)(fulfil)
