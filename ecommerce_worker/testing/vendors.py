"""What every vendor of mail keeps to, as a class of tests for pytest; a vendor needs a stand-in for its service.

``docs/how-to/add-a-vendor.rst`` shows both, in some twenty lines.

A ``conftest.py`` with ``pytest.register_assert_rewrite('ecommerce_worker.testing.vendors')`` has pytest explain what
failed.  pytest must be installed.
"""


from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple

import pytest
from typing_extensions import override

from ecommerce_worker.clients.http import Api
from ecommerce_worker.email.mailer import Mailer, find
from ecommerce_worker.email.message import Attachment, Email, Purpose
from ecommerce_worker.email.rendering import rendered
from ecommerce_worker.errors import Misconfigured, Rejected, Transient
from ecommerce_worker.retry import Regular
from ecommerce_worker.testing.peer import Peer, Reply, Request, reply

#: What is to be the value of every option that is a secret.
SECRET: Final = 'a-secret-of-ours'


class Mailed(NamedTuple):
    """What a stand-in was asked to mail: to whom, and whatever else was said."""

    to: tuple[str, ...]
    subject: str
    sender: str
    everything: str


class StandIn:
    """A vendor's service on loopback; ``directory`` is empty and its own.

    ``refusal`` is what it says to each mail from then on.
    """

    #: Whether it can refuse a mail.
    refuses = True

    def __init__(self, directory: Path) -> None:
        self.directory = directory
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

    def close(self) -> None:
        """End, after the test."""


class HttpStandIn(StandIn):
    """One with an HTTP API; ``answers`` by path, or by its beginning, and what ``read`` makes of a request."""

    answers: ClassVar[Mapping[str, Any]]
    #: What the status of a refusal and its form are.
    refused: tuple[int, Callable[[str], Any]]

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        #: Its server, with the requests so far.
        self.peer = Peer(self._answer)

    def _answer(self, request: Request) -> Reply:
        if self.refusal and request.method == 'POST':
            return reply(self.refused[0], json.dumps(self.refused[1](self.refusal)).encode())
        for path, answer in self.answers.items():
            if request.target.startswith(path):
                return reply(202, b'') if answer is None else reply(200, json.dumps(answer).encode())
        raise AssertionError(f'{type(self).__name__} does not know {request.target}: give it an answer in `answers`')

    @override
    def mailed(self) -> list[Mailed]:
        """All mail so far."""
        return [found for request in list(self.peer.requests) if request.method == 'POST'
                for found in [self.read(request)] if found]

    def read(self, request: Request) -> Mailed | None:
        """What a request was to mail; None if nothing."""
        raise NotImplementedError

    @override
    def stop(self) -> None:
        """Be gone."""
        self.peer.close()

    @override
    def close(self) -> None:
        """End, after the test."""
        self.peer.close()


#: A mail, and what of it must be seen in no log and no error.
MAIL: Final = Email(
    Purpose.UPDATE, ('ann@example.com',), 'Your code ABC-123', '<p>Dear Ann, the word is <b>xyzzy</b>.</p>',
    sender_alias="O'Reilly & Sons", id='7f7b3a52-0c6e-4f0e-9b8e-0b8d6f0d1c11')
PRIVATE: Final = ('ann@', 'ann%40', 'ABC-123', 'xyzzy', SECRET)

HOSTILE: Final = (
    'x\r\nBcc: eve@example.org', 'x\nTo: eve@example.org\n\nbody', '=?utf-8?q?x=0D=0ABcc:_eve=40example.org?=',
    'x" <eve@example.org>, "y', 'x\x00\u2028\u202e', '\\"', ',', 'x' * 2000,
)


class VendorContract:
    """The tests; a class with these as its base, whose name begins with ``Test``, runs them."""

    #: The vendor, as ``EMAIL_VENDOR`` names it, and the stand-in for its service.
    name: ClassVar[str]
    stand_in: ClassVar[type[StandIn]]
    #: Whether the stand-in sees to whom a mail of several recipients went.
    shows_recipients: ClassVar[bool] = True

    @pytest.fixture
    def service(self, tmp_path: Path) -> Iterator[StandIn]:
        """The stand-in, at work."""
        made = self.stand_in(tmp_path)
        yield made
        made.close()

    @pytest.fixture
    def vendor(self, service: StandIn) -> Iterator[Mailer]:
        """The vendor, made with the stand-in's options."""
        with contextlib.ExitStack() as stack:
            def connect(root: str, *, peer: str, signer: Any = None) -> Api:
                made = Api(root, peer=peer, signer=signer, connect_timeout=2, read_timeout=5)
                stack.callback(made.close)
                return made

            made = find(self.name)(service.options(), connect)
            stack.callback(getattr(made, 'close', lambda: None))
            yield made

    def test_a_mail_arrives(self, vendor: Mailer, service: StandIn) -> None:
        """With subject, sender and body, and a name by which the vendor knows it."""
        receipt = vendor.send(MAIL)
        assert receipt.id
        assert isinstance(receipt.id, str)
        assert receipt.left == ()
        mail, = service.mailed()
        assert (mail.to, mail.subject) == (MAIL.to, MAIL.subject)
        assert "O'Reilly & Sons" in mail.everything
        assert 'xyzzy' in mail.everything

    def test_of_several_recipients_each_is_mailed_once(self, vendor: Mailer, service: StandIn) -> None:
        """In one request or in many."""
        email = replace(MAIL, to=('ann@example.com', 'bob@example.com', 'cid@example.com'))
        assert vendor.send(email).left == ()
        if self.shows_recipients:
            assert sorted(address for mail in service.mailed() for address in mail.to) == sorted(email.to)
        else:
            assert [mail.to for mail in service.mailed()] == [('undisclosed-recipients:;',)]

    @pytest.mark.parametrize('purpose', Purpose)
    def test_every_kind_of_mail_is_sent(self, vendor: Mailer, service: StandIn, purpose: Purpose) -> None:
        """A vendor may count them under campaigns of their own."""
        vendor.send(replace(MAIL, purpose=purpose, offer_assignment_id=7))
        assert len(service.mailed()) == 1

    def test_mail_that_comes_without_a_text_is_sent_too(self, vendor: Mailer, service: StandIn) -> None:
        """Its text is made of a template and the variables in the message."""
        email = Email(Purpose.REFUND, MAIL.to, id='id-1', variables={
            'amount': 'US$49.00', 'course_name': 'Café', 'order_number': 'EDX-1',
            'order_url': 'https://shop.example.com/'})
        assert vendor.send(rendered(email)).id
        assert 'US$49.00' in service.mailed()[0].everything

    def test_attachments_arrive_or_are_linked(self, vendor: Mailer, service: StandIn) -> None:
        """Here the file cannot be had, so that its link must be there."""
        vendor.send(replace(MAIL, attachments=(Attachment('list.pdf', 'http://127.0.0.1:1/list?x=1'),)))
        assert 'list.pdf' in service.mailed()[0].everything
        assert 'http://127.0.0.1:1/list?x=1' in service.mailed()[0].everything

    @pytest.mark.parametrize('hostile', HOSTILE)
    def test_nobody_else_is_mailed_whatever_the_texts_are(self, vendor: Mailer, service: StandIn,
                                                          hostile: str) -> None:
        """Texts of a shop's customers reach headers."""
        vendor.send(replace(MAIL, sender_alias=hostile, subject=hostile, reply_to=hostile))
        mail, = service.mailed()
        assert mail.to == MAIL.to
        assert not {'\r', '\n', '\x00'} & set(mail.subject + mail.sender)
        assert '<eve@' not in mail.sender

    def test_an_outage_is_one(self, vendor: Mailer, service: StandIn, caplog: pytest.LogCaptureFixture) -> None:
        """It is retried, and no mail was sent."""
        service.stop()
        with caplog.at_level(logging.INFO), pytest.raises(Transient) as caught:
            vendor.send(MAIL)
        assert not caught.value.maybe_done
        assert_private(caught.value, caplog)

    def test_a_refusal_is_one_and_tells_the_vendors_reason(self, vendor: Mailer, service: StandIn,
                                                           caplog: pytest.LogCaptureFixture) -> None:
        """It is parked, with the reason and without addresses."""
        if not service.refuses:
            pytest.skip('this vendor refuses nothing')
        service.refusal = 'no such thing as ann@example.com'
        with caplog.at_level(logging.INFO), pytest.raises(Rejected, match='no such thing as') as caught:
            vendor.send(MAIL)
        assert_private(caught.value, caplog)

    def test_sending_logs_no_contents(self, vendor: Mailer, caplog: pytest.LogCaptureFixture) -> None:
        """Nor addresses."""
        with caplog.at_level(logging.INFO):
            vendor.send(replace(MAIL, to=('ann@example.com', 'bob@example.com')))
        assert_private(None, caplog)

    def test_whether_an_address_bounced_is_yes_or_no(self, vendor: Mailer) -> None:
        """The stand-in knows of none."""
        assert vendor.bounced('ann@example.com') is False

    def test_options_that_are_missing_are_all_told_before_there_is_mail(self, service: StandIn) -> None:
        """And so are those that there are not."""
        options = {option: value for option, value in service.options().items()
                   if value not in (SECRET, 'shop@example.com')}
        needed = set(service.options()) - set(options)
        if not needed:
            options, needed = {**options, 'speling': 1}, {'speling'}
        with pytest.raises(Misconfigured) as caught:
            find(self.name)(options, Api)
        assert all(any(option in problem for problem in caught.value.problems) for option in needed)

    def test_how_patient_to_be_is_said(self, vendor: Mailer) -> None:
        """None for the patience of the settings."""
        assert vendor.policy is None or isinstance(vendor.policy, Regular)


def assert_private(error: Exception | None, caplog: pytest.LogCaptureFixture) -> None:
    """Fails if what is private is in a log line of ours, or in the error."""
    texts = [record.getMessage() for record in caplog.records if record.name.startswith('ecommerce_worker')]
    texts += [str(error), repr(error)] if error else []
    assert not [word for word in PRIVATE for text in texts if word in text]
