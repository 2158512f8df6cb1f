"""An intake as an operator runs it, and shops that post to it."""

from __future__ import annotations

import http.client
import json
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ecommerce_worker.intake.intakes import find
from ecommerce_worker.intake.source import Source
from ecommerce_worker.testing.intake import SECRET, Answered
from ecommerce_worker.tests.support.harness import Program, eventually


def order(number: str = 'EDX-1', **fields: Any) -> bytes:
    """An order of Shopify, as far as anybody looks at it."""
    return json.dumps({'id': 820982911946154508, 'name': number, 'financial_status': 'paid', 'test': False,
                       'email': 'learner@example.com', **fields}).encode()


def source_of(kind: str, **options: Any) -> Source:
    """The source of that kind, with its defaults."""
    cls = find(kind)
    return cls({**cls.DEFAULTS, **options})


def signed(kind: str, body: bytes, topic: str = 'orders/paid', secret: str = SECRET, *, now: float | None = None,
           **options: Any) -> dict[str, str]:
    """The headers of a delivery as a shop of this kind sends it."""
    source = source_of(kind, **options)
    return source.signed(body, source.key(secret), topic, time.time() if now is None else now)


def posted(port: int, path: str, body: bytes, headers: Mapping[str, str], method: str = 'POST') -> Answered:
    """What this request is answered."""
    connection = http.client.HTTPConnection('127.0.0.1', port, timeout=60)
    try:
        connection.request(method, path, body, dict(headers))
        answer = connection.getresponse()
        said = answer.read()
        return Answered(answer.status, json.loads(said) if said else {},
                        {name.lower(): value for name, value in answer.getheaders()})
    finally:
        connection.close()


class Intake(Program):
    """The process, and its port."""

    def __init__(self, port: int, log: Path, environment: Mapping[str, str], *options: str) -> None:
        super().__init__(log, environment, '-m', 'ecommerce_worker', 'intake', *options)
        self.port = port

    def ready(self) -> Intake:
        """Return when it takes deliveries."""
        def answers() -> bool:
            assert self.process.poll() is None, self.log
            return self.is_ready()

        eventually(answers)
        return self

    def is_ready(self) -> bool:
        """Whether it says that it takes deliveries."""
        try:
            return self.get('/readyz').status == 200
        except OSError:
            return False

    def get(self, path: str) -> Answered:
        """What it answers to a GET."""
        return posted(self.port, path, b'', {}, 'GET')

    def post(self, name: str, body: bytes, headers: Mapping[str, str], method: str = 'POST') -> Answered:
        """What it answers to a delivery."""
        return posted(self.port, f'/in/{name}', body, headers, method)

    def said(self, pattern: str) -> bool:
        """Whether it has logged this."""
        return re.search(pattern, self.log) is not None
