"""A stand-in for SendGrid on 127.0.0.1: takes mail as its API v3 does, and keeps nothing of what is in it.

https://www.twilio.com/docs/sendgrid/api-reference/mail-send
"""

from __future__ import annotations

import json
import math
import secrets
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

from ecommerce_worker.testing.rabbitmq import free_port
from ecommerce_worker.testing.shop import Call
from ecommerce_worker.testing.shop.book import Journal
from ecommerce_worker.testing.shop.server import Reply, Request, Server

API_KEY: Final = 'demo-api-key'
SEND_PATH: Final = '/v3/mail/send'


class MailService:
    """In this process; may be used from any thread.

    `limits` are the seconds for which it takes no mail to an address, from the first time that it is asked to: by
    address, unlike the real one's, so that each mail has its own fate.  `log` gets a line for each call.
    """

    def __init__(self, log: Path, limits: Mapping[str, float]) -> None:
        self.log = log
        self.calls: list[Call] = []
        self._limits = limits
        self._until: dict[str, float] = {}
        self._lock = threading.Lock()
        self._journal = Journal(log)
        port = free_port()
        self.url = f'http://127.0.0.1:{port}/'
        self._server = Server(port, self.serve, None)

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), name='mail', daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._journal.close()

    def serve(self, request: Request) -> Reply:
        """Answer a request."""
        if (request.method, request.path) != ('POST', SEND_PATH):
            return _refusal(404, 'not found')
        if request.headers.get('authorization') != f'Bearer {API_KEY}':
            return _refusal(401, 'The provided authorization grant is invalid, expired, or revoked')
        mail = json.loads(request.body)
        began = time.time()
        with self._lock:
            reply = self._reply(mail, began)
            call = Call(secrets.token_hex(8), began, request.method, request.path, mail=mail['custom_args']['id'],
                        status=reply.status, duration=round(time.time() - began, 6))
            self.calls.append(call)
            self._journal.write(call.__dict__)
        return reply

    def _reply(self, mail: Mapping[str, Any], now: float) -> Reply:
        for address in (to['email'] for one in mail['personalizations'] for to in one['to']):
            if '..' in address:  # RFC 5321, 4.1.2: no two dots in a row
                return _refusal(400, 'Does not contain a valid address.', 'personalizations.0.to.0.email')
            until = self._until.setdefault(address, now + self._limits.get(address, 0))
            if now < until:
                headers = {'X-RateLimit-Remaining': '0', 'X-RateLimit-Reset': str(math.ceil(until))}
                return _refusal(429, 'too many requests', headers=headers)
        return Reply(202)


def _refusal(status: int, message: str, field: str | None = None, headers: Mapping[str, str] | None = None) -> Reply:
    reply = Reply.of({'errors': [{'message': message, 'field': field, 'help': None}]}, status)
    return Reply(status, reply.body, {**reply.headers, **(headers or {})})
