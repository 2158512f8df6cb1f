"""What all tests share: processes of ours that begin at once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ecommerce_worker.tests.support.warm import warm_processes


@pytest.fixture(scope='session', autouse=True)
def warm() -> Iterator[None]:
    """Workers and commands are forked from an interpreter that has imported what they need."""
    with warm_processes():
        yield
