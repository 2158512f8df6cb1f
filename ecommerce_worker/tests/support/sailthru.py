"""A small Sailthru on loopback: it knows users, content and purchases, and checks signatures in a way of its own."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ecommerce_worker.configuration import base
from ecommerce_worker.testing.peer import Reply, Request, reply

KEY, SECRET = 'our-key', 'our-sécret'


def refusal(code: object, said: str = 'because', status: int = 400) -> Reply:
    return reply(status, json.dumps({'error': code, 'errormsg': said}).encode())


def read(request: Request) -> tuple[str, str, dict[str, Any]]:
    """Method, action and data of a call; the signature is checked apart from the client's own way."""
    target = urlsplit(request.target)
    text = target.query if request.method == 'GET' else request.body.decode()
    assert (request.body == b'') is (request.method == 'GET')
    assert request.method == 'GET' or request.headers['content-type'] == 'application/x-www-form-urlencoded'
    found = {name: value for name, (value,) in parse_qs(text, strict_parsing=True).items()}
    assert sorted(found) == ['api_key', 'format', 'json', 'sig']
    assert (found['api_key'], found['format']) == (KEY, 'json')
    values = ''.join(sorted((found['api_key'], found['format'], found['json'])))
    assert found['sig'] == hashlib.md5((SECRET + values).encode('utf-8')).hexdigest()
    return request.method, target.path.removeprefix('/'), json.loads(found['json'])


@dataclass
class Account:
    """A small Sailthru: knows users, content and purchases; ``refuse`` says what it answers instead."""

    users: dict[str, dict[str, Any]] = field(default_factory=dict)
    content: dict[str, dict[str, Any]] = field(default_factory=dict)
    purchases: dict[str, dict[str, Any]] = field(default_factory=dict)
    refuse: dict[str, Any] = field(default_factory=dict)
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def __call__(self, request: Request) -> Reply:
        method, action, data = read(request)
        self.calls.append((f'{method} {action}', data))
        refused = self.refuse.get(f'{method} {action}')
        answer = refused(data) if callable(refused) else refused
        found: Reply = answer or getattr(self, f'{method.lower()}_{action}')(data)
        return found

    def get_user(self, data):
        user = self.users.get(data['id'])
        if user is None:
            return refusal(99, f'User not found with email: {data["id"]}')
        return reply(body=json.dumps({name: user.get(name) for name in data['fields']}).encode())

    def post_user(self, data):
        self.users[data['id']]['vars'].update(data['vars'])
        return reply(body=b'{"ok": true}')

    def get_content(self, data):
        known = self.content.get(data['id'])
        return reply(body=json.dumps(known).encode()) if known else refusal(99, 'Content not found')

    def get_purchase(self, data):
        known = self.purchases.get(data['purchase_id'])
        return reply(body=json.dumps(known).encode()) if known else refusal(99, 'The purchase does not exist')

    def post_purchase(self, data):
        extid = data.get('purchase_keys', {}).get('extid')
        self.purchases[extid or f'#{len(self.purchases)}'] = data
        return reply(body=b'{"purchase": {"price": 4900}}')

    def post_send(self, data):
        if 'gone@' in data['email']:
            return refusal(11, f'Invalid email: {data["email"]}')
        many = ',' in data['email']
        return reply(body=json.dumps({'sent_count': 2} if many else {'send_id': f'id-of-{data["email"]}'}).encode())


def options(server: Any, **given: Any) -> dict[str, Any]:
    return {**base.SAILTHRU, 'SAILTHRU_ENABLE': True, 'SAILTHRU_API_URL': server.url, 'SAILTHRU_KEY': KEY,
            'SAILTHRU_SECRET': SECRET, **given}


def connecting(api: Any, **given: Any) -> Any:
    """The way to Sailthru, closed at the end of the test."""
    def connect(root, *, peer):
        return api(root, **given)

    return connect
