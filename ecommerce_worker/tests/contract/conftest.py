"""The contract tier: what outsiders may rely on."""

from ecommerce_worker.tests.support.isolation import environment, loopback_only  # noqa: F401 - for each test
