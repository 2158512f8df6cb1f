"""No order is lost, or called for again, when things break: the short form of ``make chaos``."""

import pytest

from ecommerce_worker.tests.chaos.faults import FAULTS
from ecommerce_worker.tests.chaos.harness import run


@pytest.mark.parametrize('fault, pool', [
    ('worker-killed-twice', 'threads'), ('rabbitmq-killed-once', 'threads'), ('connections-closed', 'threads'),
    ('worker-killed-twice', 'prefork'),
])
def test_each_accepted_order_is_fulfilled_once_whatever_breaks(broker, tmp_path, fault, pool):
    counted = run(broker, tmp_path, FAULTS[fault], pool, orders=60 if pool == 'threads' else 30)
    assert counted.holds(FAULTS[fault]), counted
    assert counted.fulfilled == counted.accepted > 0
