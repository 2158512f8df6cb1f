"""A mail server on loopback that keeps what it gets, for the unit tests, the contract and the broker tier."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session


@dataclass(frozen=True)
class Mail:
    """What was handed over in one transaction; ``connection`` numbers the connections from 1."""

    sender: str
    to: tuple[str, ...]
    content: bytes
    connection: int
    tls: bool
    options: tuple[str, ...] = ()

    @property
    def message(self) -> EmailMessage:
        """The content, read."""
        message = message_from_bytes(self.content, policy=default)
        assert isinstance(message, EmailMessage)
        return message


@dataclass(frozen=True)
class Certificate:
    """A certificate for 127.0.0.1 and localhost that nobody vouches for; its file is the CA file to trust it."""

    file: Path
    key: Path

    @classmethod
    def made(cls, directory: Path, names: str = 'DNS:localhost,IP:127.0.0.1') -> Certificate:
        """A new one, by way of the openssl command."""
        found = cls(directory / 'certificate.pem', directory / 'key.pem')
        subprocess.run(['openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1',
                        '-nodes', '-days', '2', '-subj', '/CN=stand-in', '-addext', f'subjectAltName={names}',
                        '-keyout', found.key, '-out', found.file], check=True, capture_output=True, timeout=60)
        return found

    @property
    def context(self) -> ssl.SSLContext:
        """What a server needs."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.file, self.key)
        return context


@dataclass
class MailServer:
    """The server; tests change ``answers`` while it runs: ``{'DATA': '451 later', 'RCPT bad@example.com': '550 no'}``.

    ``{'DATA': ''}`` and the like hang up instead of answering.
    """

    security: str = 'none'
    certificate: Certificate | None = None
    users: Mapping[str, str] = field(default_factory=dict)
    smtputf8: bool = True
    answers: dict[str, str] = field(default_factory=dict)
    mails: list[Mail] = field(default_factory=list)
    connections: int = 0
    #: The verbs and what followed, over all connections; texts of AUTH left out.
    commands: list[str] = field(default_factory=list)
    port: int = 0  # 0: one that is free

    def __post_init__(self) -> None:
        self.host = '127.0.0.1'
        self._open: set[asyncio.BaseTransport] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        context = self.certificate.context if self.certificate else None
        self._server = self._run(self._loop.create_server(
            lambda: _Session(self, context if self.security == 'starttls' else None, self._loop), self.host, self.port,
            ssl=context if self.security == 'tls' else None))
        self.port = self._server.sockets[0].getsockname()[1]

    def _run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    def hang_up(self) -> None:
        """Cut all connections, as a server does with idle ones."""
        self._run(self._cut())

    async def _cut(self) -> None:
        for transport in list(self._open):
            assert isinstance(transport, asyncio.Transport)
            transport.abort()
        for _ in range(3):  # what closing has put off
            await asyncio.sleep(0)

    def close(self) -> None:
        """Cut all and wait for the thread; harmless to repeat."""
        if self._loop.is_closed():
            return
        self._run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _stop(self) -> None:
        self._server.close()
        await self._cut()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def answer(self, *names: str) -> str | None:
        """The answer for the first of these names that has one."""
        return next((self.answers[name] for name in names if name in self.answers), None)


class _Session(SMTP):
    """One connection."""

    def __init__(self, owner: MailServer, context: ssl.SSLContext | None, loop: asyncio.AbstractEventLoop) -> None:
        self.owner = owner
        self.number = 0
        super().__init__(_Handler(owner, self), hostname='mail.example.com', ident='stand-in', loop=loop,
                         tls_context=context, require_starttls=context is not None, enable_SMTPUTF8=owner.smtputf8,
                         authenticator=self._checked, auth_required=bool(owner.users),
                         auth_exclude_mechanism=() if owner.users else ('LOGIN', 'PLAIN'))
        # It knows of TLS by STARTTLS only.
        self._auth_require_tls = owner.security == 'starttls'

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not self.number:  # made anew after STARTTLS
            self.owner.connections += 1
            self.number = self.owner.connections
        self.owner._open.add(transport)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        if self.transport:
            self.owner._open.discard(self.transport)
        super().connection_lost(error)

    def _checked(self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, given: Any) -> AuthResult:
        assert isinstance(given, LoginPassword)
        password = self.owner.users.get(given.login.decode())
        if answer := self.owner.answer('AUTH'):
            return AuthResult(success=False, handled=False, message=answer)
        return AuthResult(success=password is not None and password.encode() == given.password, handled=False)


class _Handler:
    # ruff: noqa: N802 - aiosmtpd finds these by their names
    def __init__(self, owner: MailServer, connection: _Session) -> None:
        self.owner = owner
        self.connection = connection

    def _answered(self, *names: str) -> str | None:
        answer = self.owner.answer(*names)
        if answer == '':
            assert isinstance(self.connection.transport, asyncio.Transport)
            self.connection.transport.abort()
            return '421 gone'
        return answer

    async def handle_NOOP(self, server: SMTP, session: Session, envelope: Envelope, arg: str) -> str:
        self.owner.commands.append('NOOP')
        return self._answered('NOOP') or '250 fine'

    async def handle_MAIL(self, server: SMTP, session: Session, envelope: Envelope, address: str,
                          options: list[str]) -> str:
        self.owner.commands.append(f'MAIL {address} {" ".join(options)}'.strip())
        if answer := self._answered('MAIL'):
            return answer
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return '250 fine'

    async def handle_RCPT(self, server: SMTP, session: Session, envelope: Envelope, address: str,
                          options: list[str]) -> str:
        self.owner.commands.append(f'RCPT {address}')
        if answer := self._answered(f'RCPT {address}', 'RCPT'):
            return answer
        envelope.rcpt_tos.append(address)
        return '250 fine'

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        self.owner.commands.append('DATA')
        if answer := self._answered('DATA'):
            return answer
        assert isinstance(envelope.content, bytes)
        assert self.connection.transport
        tls = self.connection.transport.get_extra_info('sslcontext') is not None
        self.owner.mails.append(Mail(envelope.mail_from or '', tuple(envelope.rcpt_tos), envelope.content,
                                     self.connection.number, tls, tuple(envelope.mail_options)))
        return '250 queued'


@contextlib.contextmanager
def mail_server(**given: Any) -> Iterator[MailServer]:
    """A mail server, closed at the end."""
    server = MailServer(**given)
    try:
        yield server
    finally:
        server.close()
