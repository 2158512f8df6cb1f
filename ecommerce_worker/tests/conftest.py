"""What all tests share: processes of ours that begin at once, and no home but their own."""

from __future__ import annotations

import gc
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ecommerce_worker.tests.support.warm import warm_processes

#: The variables that name certificates, in the order in which pip looks at them.
CERTIFICATES = ('REQUESTS_CA_BUNDLE', 'CURL_CA_BUNDLE', 'SSL_CERT_FILE', 'SSL_CERT_DIR')


def pytest_collection() -> None:
    """Collect no garbage while tests are collected: thousands of them come, and none goes."""
    gc.disable()


def pytest_collection_finish() -> None:
    """From here on as ever; what has been collected stays to the end, and need not be looked through again."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope='session', autouse=True)
def homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Iterator[Path]]:
    """A new home each time; none of them is there yet.

    What is in the home of whoever runs the tests, such as a ledger, is of no account, and stays as it is.  So are the
    certificates that the environment names, which each process of ours would read as it starts, for 50 ms each.  Only
    pip keeps what it has downloaded, and trusts whom it trusted.
    """
    place = tmp_path_factory.mktemp('homes')
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv('PIP_CACHE_DIR', os.environ.get('PIP_CACHE_DIR') or str(Path('~/.cache/pip').expanduser()))
        trusted = [os.environ.get(name) for name in ('PIP_CERT', *CERTIFICATES)]
        for name in CERTIFICATES:
            environment.delenv(name, raising=False)
        if found := next(filter(None, trusted), None):
            environment.setenv('PIP_CERT', found)
        environment.setenv('HOME', str(place / 'shared'))
        yield (place / str(number) for number in itertools.count())


@pytest.fixture(autouse=True)
def home(homes: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The test's home."""
    path = next(homes)
    monkeypatch.setenv('HOME', str(path))
    return path


@pytest.fixture(scope='session', autouse=True)
def warm(homes: Iterator[Path]) -> Iterator[None]:
    """Workers and commands are forked from an interpreter that has imported what they need."""
    with warm_processes():
        yield
