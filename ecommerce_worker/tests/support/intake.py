"""An intake as an operator runs it, and shops that post to it."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ecommerce_worker.intake.intakes import find
from ecommerce_worker.intake.source import Source
from ecommerce_worker.tests.support.harness import eventually

SECRET = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'
OTHER_SECRET = 'whsec_c2l4dGVlbi1ieXRlcy1vci1tb3JlLW9mLWl0'


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


@dataclass(frozen=True)
class Answered:
    """What a sender gets."""

    status: int
    content: Mapping[str, Any]
    headers: Mapping[str, str]

    @property
    def state(self) -> str:
        """What is said to have become of it."""
        return str(self.content.get('state', ''))


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


class Intake:
    """The process, its log, its port."""

    def __init__(self, port: int, log: Path, environment: Mapping[str, str], *options: str) -> None:
        self.port = port
        self._log = log
        with log.open('ab') as output:
            self.process = subprocess.Popen(
                [sys.executable, '-m', 'ecommerce_worker', 'intake', *options], stdout=output, stderr=output,
                env=dict(environment), cwd=log.parent, start_new_session=True)

    @property
    def log(self) -> str:
        """All it has logged so far."""
        return self._log.read_text()

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

    def stop(self) -> int:
        """Stop it as a deployment does; its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def kill(self) -> None:
        """End it at once."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
