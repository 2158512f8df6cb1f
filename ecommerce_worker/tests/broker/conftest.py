"""The broker tier: real workers at a real RabbitMQ."""

from ecommerce_worker.tests.support.fixtures import (  # noqa: F401 - for the tests of this directory
    broker,
    command,
    environment,
    facts,
    link,
    node,
    own_node,
    publish,
    recorder,
    shared_node,
    shop,
    start_worker,
)
