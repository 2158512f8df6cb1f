"""dramatiq, as its guide has one begin; it is installed for this, in an environment of its own."""

from __future__ import annotations

import os

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker

from benchmarks.peers.fulfil import fulfil

# Its client has another spelling for the virtual host `/`.
dramatiq.set_broker(RabbitmqBroker(url=os.environ['BENCHMARK_BROKER'].removesuffix('//') + '/%2F'))

dramatiq.actor(queue_name='benchmark.dramatiq', actor_name='fulfil')(fulfil)
