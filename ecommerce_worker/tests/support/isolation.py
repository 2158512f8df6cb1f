"""Tests that see nothing of the machine that they run on: an empty environment, no network but loopback."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import sys
import threading
from typing import Any

import pytest

from ecommerce_worker.tests.support.warm import at_start

#: The environment of a process that is told nothing.
BARE = {**at_start(os.environ), 'PATH': '/usr/bin:/bin', 'HOME': '/nowhere'}

#: What of the environment of whoever runs the tests could change what they see.
FOREIGN = re.compile(r'ECOMMERCE_WORKER_.*|WORKER_CONFIGURATION_MODULE|IGNORE_YAML_OVERRIDES|DJANGO_SETTINGS_MODULE'
                     r'|(HTTP|HTTPS|ALL|NO)_PROXY|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|NETRC|EDX_REST_API_CLIENT_NAME',
                     re.IGNORECASE)


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Nothing in the environment that the worker, or a library of its, listens to."""
    for name in os.environ:
        if FOREIGN.fullmatch(name):
            monkeypatch.delenv(name)
    return monkeypatch


_loopback_only = threading.Event()


def _refuse_network(event: str, arguments: tuple[Any, ...]) -> None:
    if event == 'socket.connect' and _loopback_only.is_set() and isinstance(arguments[1], tuple):
        with contextlib.suppress(ValueError):
            if ipaddress.ip_address(arguments[1][0]).is_loopback:
                return
        raise AssertionError(f'a test wants to connect to {arguments[1][0]}')


# Such a hook cannot be taken away again; it sleeps outside of the tests that ask for it.
sys.addaudithook(_refuse_network)


@pytest.fixture(autouse=True)
def loopback_only():
    """Whoever connects to another machine fails."""
    _loopback_only.set()
    yield
    _loopback_only.clear()
