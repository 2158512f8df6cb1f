"""The system tier: whole installations, and what takes long by its nature."""

from ecommerce_worker.tests.support.fixtures import (  # noqa: F401 - for the tests of this directory
    broker,
    command,
    environment,
    facts,
    node,
    own_node,
    publish,
    shared_node,
    shop,
    start_worker,
)
