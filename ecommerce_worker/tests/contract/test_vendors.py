"""What every vendor of mail keeps to: the same tests over all of them, each against a stand-in for its service.

A new vendor needs a stand-in in ``STAND_INS``, of about ten lines: what it answers when all is well, and how to read
from its requests who was mailed and how.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from typing import Any, ClassVar, NamedTuple
from urllib.parse import parse_qs

import pytest

from ecommerce_worker.clients.http import Api
from ecommerce_worker.configuration import base
from ecommerce_worker.email.mailer import find, names
from ecommerce_worker.email.message import Attachment, Email, Purpose
from ecommerce_worker.email.rendering import rendered
from ecommerce_worker.errors import Misconfigured, Rejected, Transient
from ecommerce_worker.retry import Regular
from ecommerce_worker.tests.support.peer import Peer, Reply, Request, reply
from ecommerce_worker.tests.support.smtp import MailServer


class Mailed(NamedTuple):
    """What a stand-in was asked to mail: to whom, and whatever else was said."""

    to: tuple[str, ...]
    subject: str
    sender: str
    everything: str


# --- The stand-ins --------------------------------------------------------------------------------------------------


class StandIn:
    """A vendor's service on loopback; ``refusal`` is what it says to each mail from then on."""

    #: Whether it can refuse a mail.
    refuses = True

    def __init__(self, directory: Path, stack: contextlib.ExitStack) -> None:
        self.refusal = ''

    def options(self) -> Mapping[str, Any]:
        """What the vendor is made with; all of ``SECRET`` in them must never be shown."""
        raise NotImplementedError

    def mailed(self) -> list[Mailed]:
        """All mail so far."""
        raise NotImplementedError

    def stop(self) -> None:
        """Be gone: connections are refused."""
        raise NotImplementedError


class HttpStandIn(StandIn):
    """One with an HTTP API; ``answers`` by path, or by its beginning, and what ``read`` makes of a request."""

    answers: ClassVar[Mapping[str, Any]]
    #: What the status of a refusal and its form are.
    refused: tuple[int, Callable[[str], Any]]

    def __init__(self, directory: Path, stack: contextlib.ExitStack) -> None:
        super().__init__(directory, stack)
        self.peer = Peer(self._answer)
        stack.callback(self.peer.close)

    def _answer(self, request: Request) -> Reply:
        if self.refusal and request.method == 'POST':
            return reply(self.refused[0], json.dumps(self.refused[1](self.refusal)).encode())
        for path, answer in self.answers.items():
            if request.target.startswith(path):
                return reply(202, b'') if answer is None else reply(200, json.dumps(answer).encode())
        raise AssertionError(f'{type(self).__name__} does not know {request.target}: give it an answer in `answers`')

    def mailed(self) -> list[Mailed]:
        return [found for request in list(self.peer.requests) if request.method == 'POST'
                for found in [self.read(request)] if found]

    def read(self, request: Request) -> Mailed | None:
        raise NotImplementedError

    def stop(self) -> None:
        self.peer.close()


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
    def __init__(self, directory: Path, stack: contextlib.ExitStack) -> None:
        self.server = MailServer()
        stack.callback(self.server.close)

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


class Outbox(StandIn):
    refuses = False

    def __init__(self, directory: Path, stack: contextlib.ExitStack) -> None:
        super().__init__(directory, stack)
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


STAND_INS: dict[str, type[StandIn]] = {
    'braze': Braze, 'outbox': Outbox, 'sailthru': Sailthru, 'sendgrid': SendGrid, 'smtp': Smtp,
}

#: Vendors of whose several recipients nothing can be seen.
HIDDEN = ('outbox',)

SECRET = 'a-secret-of-ours'


# --- The tests ------------------------------------------------------------------------------------------------------


MAIL = Email(Purpose.UPDATE, ('ann@example.com',), 'Your code ABC-123', '<p>Dear Ann, the word is <b>xyzzy</b>.</p>',
             sender_alias="O'Reilly & Sons", id='7f7b3a52-0c6e-4f0e-9b8e-0b8d6f0d1c11')

#: What must not be seen in logs and errors.
PRIVATE = ('ann@', 'ann%40', 'ABC-123', 'xyzzy', SECRET)


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture(params=names())
def name(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def service(name: str, tmp_path: Path, stack: contextlib.ExitStack) -> StandIn:
    if name not in STAND_INS:
        pytest.fail(f'the vendor {name} has no stand-in: add one to STAND_INS in {Path(__file__).name}, '
                    'see docs/how-to/add-a-vendor.rst', pytrace=False)
    return STAND_INS[name](tmp_path, stack)


@pytest.fixture
def vendor(name: str, service: StandIn, stack: contextlib.ExitStack) -> Any:
    def connect(root: str, *, peer: str, signer: Any = None) -> Api:
        made = Api(root, peer=peer, signer=signer, connect_timeout=2, read_timeout=5)
        stack.callback(made.close)
        return made

    made = find(name)(service.options(), connect)
    stack.callback(getattr(made, 'close', lambda: None))
    return made


def test_a_mail_arrives(vendor, service):
    receipt = vendor.send(MAIL)
    assert receipt.id
    assert isinstance(receipt.id, str)
    assert receipt.left == ()
    mail, = service.mailed()
    assert (mail.to, mail.subject) == (MAIL.to, MAIL.subject)
    assert "O'Reilly & Sons" in mail.everything
    assert 'xyzzy' in mail.everything


def test_of_several_recipients_each_is_mailed_once(vendor, service, name):
    email = replace(MAIL, to=('ann@example.com', 'bob@example.com', 'cid@example.com'))
    assert vendor.send(email).left == ()
    if name in HIDDEN:
        assert [mail.to for mail in service.mailed()] == [('undisclosed-recipients:;',)]
    else:
        assert sorted(address for mail in service.mailed() for address in mail.to) == sorted(email.to)


@pytest.mark.parametrize('purpose', Purpose)
def test_every_kind_of_mail_is_sent(vendor, service, purpose):
    vendor.send(replace(MAIL, purpose=purpose, offer_assignment_id=7))
    assert len(service.mailed()) == 1


def test_mail_that_comes_without_a_text_is_sent_too(vendor, service):
    email = Email(Purpose.REFUND, MAIL.to, id='id-1', variables={
        'amount': 'US$49.00', 'course_name': 'Café', 'order_number': 'EDX-1', 'order_url': 'https://shop.example.com/'})
    assert vendor.send(rendered(email)).id
    assert 'US$49.00' in service.mailed()[0].everything


def test_attachments_arrive_or_are_linked(vendor, service):
    vendor.send(replace(MAIL, attachments=(Attachment('list.pdf', 'http://127.0.0.1:1/list?x=1'),)))
    assert 'list.pdf' in service.mailed()[0].everything
    assert 'http://127.0.0.1:1/list?x=1' in service.mailed()[0].everything


@pytest.mark.parametrize('hostile', [
    'x\r\nBcc: eve@example.org', 'x\nTo: eve@example.org\n\nbody', '=?utf-8?q?x=0D=0ABcc:_eve=40example.org?=',
    'x" <eve@example.org>, "y', 'x\x00\u2028\u202e', '\\"', ',', 'x' * 2000,
])
def test_nobody_else_is_mailed_whatever_the_texts_are(vendor, service, hostile):
    vendor.send(replace(MAIL, sender_alias=hostile, subject=hostile, reply_to=hostile))
    mail, = service.mailed()
    assert mail.to == MAIL.to
    assert not {'\r', '\n', '\x00'} & set(mail.subject + mail.sender)
    assert '<eve@' not in mail.sender


def test_an_outage_is_one(vendor, service, caplog):
    service.stop()
    with caplog.at_level(logging.INFO), pytest.raises(Transient) as caught:
        vendor.send(MAIL)
    assert not caught.value.maybe_done
    assert_private(caught.value, caplog)


@pytest.mark.parametrize(
    'name', [name for name in names() if name not in STAND_INS or STAND_INS[name].refuses], indirect=True)
def test_a_refusal_is_one_and_tells_the_vendors_reason(vendor, service, caplog):
    service.refusal = 'no such thing as ann@example.com'
    with caplog.at_level(logging.INFO), pytest.raises(Rejected, match='no such thing as') as caught:
        vendor.send(MAIL)
    assert_private(caught.value, caplog)


def test_sending_logs_no_contents(vendor, caplog):
    with caplog.at_level(logging.INFO):
        vendor.send(replace(MAIL, to=('ann@example.com', 'bob@example.com')))
    assert_private(None, caplog)


def test_whether_an_address_bounced_is_yes_or_no(vendor):
    assert vendor.bounced('ann@example.com') is False


def test_options_that_are_missing_are_all_told_before_there_is_mail(name, service):
    options = {option: value for option, value in service.options().items()
               if value not in (SECRET, 'shop@example.com')}
    needed = set(service.options()) - set(options)
    if not needed:
        options, needed = {**options, 'speling': 1}, {'speling'}
    with pytest.raises(Misconfigured) as caught:
        find(name)(options, Api)
    assert all(any(option in problem for problem in caught.value.problems) for option in needed)


def test_how_patient_to_be_is_said(vendor):
    assert vendor.policy is None or isinstance(vendor.policy, Regular)


def assert_private(error: Exception | None, caplog: pytest.LogCaptureFixture) -> None:
    texts = [record.getMessage() for record in caplog.records if record.name.startswith('ecommerce_worker')]
    texts += [str(error), repr(error)] if error else []
    assert not [word for word in PRIVATE for text in texts if word in text]
