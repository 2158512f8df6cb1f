"""What every vendor of mail keeps to, each against a stand-in for its service.

A new vendor needs a stand-in, of about ten lines: what it answers when all is well, and how to read from its requests
who was mailed and how.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs

from ecommerce_worker.configuration import base
from ecommerce_worker.email.mailer import names
from ecommerce_worker.testing.peer import Request
from ecommerce_worker.testing.vendors import SECRET, HttpStandIn, Mailed, StandIn, VendorContract
from ecommerce_worker.tests.support.smtp import MailServer


class Braze(HttpStandIn):
    answers: ClassVar = {
        '/users/alias/new': {'message': 'success'}, '/users/track': {'message': 'success'},
        '/users/export/ids': {'message': 'success', 'users': []},
        '/messages/send': {'message': 'success', 'dispatch_id': 'dispatch-1'},
        '/email/hard_bounces': {'message': 'success', 'emails': []},
    }
    refused = 400, lambda said: {'message': said}

    def options(self) -> Mapping[str, Any]:
        return {**base.BRAZE, 'REST_API_URL': self.peer.url, 'BRAZE_REST_API_KEY': SECRET,
                'BRAZE_WEBAPP_API_KEY': SECRET}

    def read(self, request: Request) -> Mailed | None:
        if request.target != '/messages/send':
            return None
        said = json.loads(request.body)
        email = said['messages']['email']
        to = (alias[key] for alias in said.get('user_aliases', []) for key in alias if '@' in alias[key])
        return Mailed(tuple(to), email['subject'], email['from'], json.dumps(said, ensure_ascii=False))


class Sailthru(HttpStandIn):
    answers: ClassVar = {'/send': {'send_id': 'send-1'}, '/user': {'engagement': None}}
    refused = 400, lambda said: {'error': 14, 'errormsg': said}

    def options(self) -> Mapping[str, Any]:
        return {**base.SAILTHRU, 'SAILTHRU_API_URL': self.peer.url, 'SAILTHRU_KEY': SECRET, 'SAILTHRU_SECRET': SECRET}

    def read(self, request: Request) -> Mailed | None:
        said = json.loads(parse_qs(request.body.decode())['json'][0])
        # Its templates decide of the headers; what we say are texts for them.
        return Mailed(tuple(said['email'].split(',')), said['vars'].get('subject', ''), '',
                      json.dumps(said, ensure_ascii=False))


class SendGrid(HttpStandIn):
    answers: ClassVar = {'/v3/mail/send': None, '/v3/suppression/bounces/': []}
    refused = 400, lambda said: {'errors': [{'message': said, 'field': 'personalizations'}]}

    def options(self) -> Mapping[str, Any]:
        return {'api_key': SECRET, 'from_email': 'shop@example.com', 'api_url': self.peer.url}

    def read(self, request: Request) -> Mailed | None:
        said = json.loads(request.body)
        return Mailed(tuple(one['to'][0]['email'] for one in said['personalizations']), said['subject'],
                      said['from']['name'], json.dumps(said, ensure_ascii=False))


class Smtp(StandIn):
    def __init__(self, directory: Path) -> None:
        self.server = MailServer()

    @property
    def refusal(self) -> str:
        return self.server.answers.get('RCPT', '')

    @refusal.setter
    def refusal(self, said: str) -> None:
        self.server.answers['RCPT'] = f'550 {said}'

    def options(self) -> Mapping[str, Any]:
        return {'host': self.server.host, 'port': self.server.port, 'security': 'none',
                'from_email': 'shop@example.com', 'local_hostname': 'worker.example.com', 'attachment_limit': 0,
                'allow_local_attachments': True}

    def mailed(self) -> list[Mailed]:
        return [Mailed(mail.to, str(mail.message['Subject']), str(mail.message['From']), whole(mail.content))
                for mail in self.server.mails]

    def stop(self) -> None:
        self.server.close()

    close = stop


class Outbox(StandIn):
    refuses = False

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.directory = directory / 'outbox'

    def options(self) -> Mapping[str, Any]:
        return {'directory': str(self.directory)}

    def mailed(self) -> list[Mailed]:
        return [Mailed((str(mail['To']),), str(mail['Subject']), str(mail['From']), whole(path.read_bytes()))
                for path in self.directory.glob('*.eml') for mail in [read(path.read_bytes())]]

    def stop(self) -> None:
        self.directory.write_text('in the way')


def read(content: bytes) -> Any:
    return message_from_bytes(content, policy=default)


def whole(content: bytes) -> str:
    """Headers and HTML of a message."""
    message = read(content)
    return f'{message.items()} {message.get_body(("html",)).get_content()}'


class TestBraze(VendorContract):
    name, stand_in = 'braze', Braze


class TestOutbox(VendorContract):
    name, stand_in, shows_recipients = 'outbox', Outbox, False


class TestSailthru(VendorContract):
    name, stand_in = 'sailthru', Sailthru


class TestSendGrid(VendorContract):
    name, stand_in = 'sendgrid', SendGrid


class TestSmtp(VendorContract):
    name, stand_in = 'smtp', Smtp


def test_every_vendor_that_comes_with_the_worker_keeps_the_contract():
    tested = {contract.name for contract in VendorContract.__subclasses__()}
    assert tested >= set(names()), 'write a stand-in for it, see docs/how-to/add-a-vendor.rst'
