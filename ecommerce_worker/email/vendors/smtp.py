"""Mail through any SMTP server."""

from __future__ import annotations

import contextlib
import re
import smtplib
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ecommerce_worker.clients.exchange import connected, exchange, resolved, securing
from ecommerce_worker.clients.links import Address, fetch_all, is_global
from ecommerce_worker.email.mailer import Connect
from ecommerce_worker.email.message import Email, Receipt, without_addresses
from ecommerce_worker.email.mime import ADDRESS, ascii_domain, composed, safe_id
from ecommerce_worker.errors import (
    ApiError,
    Misconfigured,
    PeerFailure,
    Rejected,
    Throttled,
    Unauthorized,
    Unreachable,
)
from ecommerce_worker.plugins import read_options
from ecommerce_worker.settings.kinds import FLAG, PATIENCE, SECRET, TEXT, Kind, one_of, whole


def _host(given: Any) -> str:
    if not isinstance(given, str) or not re.fullmatch(r'[\w.:-]+', given):
        raise ValueError
    return given


OPTIONS = {
    'host': Kind('the name of a mail server, without its port', _host),
    'port': whole(1, 65_535),
    'security': one_of('starttls', 'tls', 'none'),
    'username': TEXT,
    'password': SECRET,
    'from_email': ADDRESS,
    'timeout': PATIENCE,
    'attachment_limit': whole(0, 100 * 1024 * 1024),
    'attachment_timeout': PATIENCE,
    'allow_local_attachments': FLAG,
    'ca_file': TEXT,
    'local_hostname': TEXT,
}

DEFAULTS: Mapping[str, Any] = {
    'port': None,  # that of the security chosen
    'security': 'starttls',
    'username': '',
    'password': None,
    'timeout': 30.0,
    'attachment_limit': 10 * 1024 * 1024,  # bytes, all files of a mail together; encoded they are a third more
    'attachment_timeout': 20.0,
    'allow_local_attachments': False,
    'ca_file': '',
    'local_hostname': '',
}

_PORTS = {'starttls': 587, 'tls': 465, 'none': 25}

#: Idle connections are kept for so many seconds; servers hang up after 300 and more (RFC 5321, 4.5.3.2.7).
KEPT_IDLE = 60.0

#: A whole mail, from connecting to the last answer, may take so many times ``EMAIL_OPTIONS[timeout]``.
TIMES = 4

#: The most that a server may say in the course of one mail, in bytes.
TALKATIVE = 256 * 1024

#: How servers refuse for good, by 5xx, what is only too much for today (RFC 3463; Gmail's 5.4.5 is its daily limit).
_LIMIT = re.compile(r'\b5\.4\.5\b|try (it )?(again )?later|\brate\b.{0,20}\blimit|too (many|fast)|throttl|greylist'
                    r'|(daily|hourly|sending|message|user|relay)\b.{0,20}\b(limit|quota)\b|temporar', re.IGNORECASE)

#: What is too large for a mailbox or a server stays too large.
_SIZE = re.compile(r'\b5\.(2\.[23]|3\.4)\b|\bsize\b|too (large|big)', re.IGNORECASE)


class Vendor:
    """Any SMTP server; it delivers mail that it accepts, or returns it to ``from_email``.

    Recipients that it refuses while it accepts others are left.
    """

    policy = None

    def __init__(self, options: Mapping[str, Any], connect: Connect) -> None:  # noqa: ARG002 - smtplib connects
        found = read_options(options, OPTIONS, DEFAULTS)
        if problems := list(_problems(found)):
            raise Misconfigured(problems)
        self._options = found
        self._server = _Server(found, _context(found))

    def send(self, email: Email) -> Receipt:
        """Send the mail in one transaction, so that nobody gets it twice."""
        options, from_email = self._options, self._options['from_email']
        files = fetch_all((file.url for file in email.attachments), limit=options['attachment_limit'],
                          timeout=options['attachment_timeout'],
                          allowed=_anywhere if options['allow_local_attachments'] else is_global)
        message = composed(email, from_email, files)
        with exchange(TIMES * options['timeout'], TALKATIVE), self._server.connection() as connection:
            answers = _transaction(connection, from_email, email.to, message)
        left = tuple(address for address, answer in answers.items() if answer.code // 100 != 2)
        return Receipt(safe_id(email.id), left)

    def bounced(self, address: str) -> bool:  # noqa: ARG002
        """Always False: a mail server returns bounces to ``from_email``."""
        return False

    def close(self) -> None:
        """Close idle connections; the next mail opens a new one."""
        self._server.close()


def _anywhere(_: Address) -> bool:
    return True


def _problems(found: Mapping[str, Any]) -> Iterator[str]:
    if bool(found['username']) != bool(found['password']):
        yield 'EMAIL_OPTIONS[username] and EMAIL_OPTIONS[password] must be set together'
    if not (found['username'] + (found['password'] or '')).isascii():
        yield 'EMAIL_OPTIONS[username] and EMAIL_OPTIONS[password] must be ASCII'
    if found['username'] and found['security'] == 'none':
        yield 'EMAIL_OPTIONS[security] is none, and the password would be sent unencrypted; set starttls or tls'


def _context(found: Mapping[str, Any]) -> ssl.SSLContext | None:
    """How certificates are verified; None without TLS."""
    if found['security'] == 'none':
        return None
    try:
        return securing(ssl.create_default_context(cafile=found['ca_file'] or None))
    except OSError as error:
        raise Misconfigured([f'EMAIL_OPTIONS[ca_file] holds no certificates: {error.strerror}']) from None


# --- The transaction ------------------------------------------------------------------------------------------------


class Answer(NamedTuple):
    """A reply of a mail server: a code of three digits and a text (RFC 5321, 4.2)."""

    code: int
    text: bytes


def _transaction(connection: smtplib.SMTP, sender: str, to: tuple[str, ...], message: bytes) -> dict[str, Answer]:
    """Send a message to the recipients that the server accepts, at least one; returns its reply to each."""
    envelope = {address: ascii_domain(address) for address in to}
    international = connection.has_extn('smtputf8') and not ''.join((sender, *envelope.values())).isascii()
    options = [f'SIZE={len(message)}'] * connection.has_extn('size')
    if international:  # RFC 6531, 3.4
        options += ['SMTPUTF8'] + ['BODY=8BITMIME'] * connection.has_extn('8bitmime')
    _insist(Answer(*connection.mail(sender, options)))
    answers = {}
    for address, there in envelope.items():
        if there.isascii() or international:
            answers[address] = Answer(*connection.rcpt(there))
        else:
            answers[address] = Answer(553, b'addresses that are not ASCII are not supported')
        if answers[address].code == 421:
            raise error_for(answers[address])
    if not any(answer.code // 100 == 2 for answer in answers.values()):
        # One that may be accepted later speaks for all.
        raise error_for(min(answers.values(), key=lambda answer: answer.code))
    _insist(Answer(*connection.docmd('DATA')), 354)
    connection.send(re.sub(rb'(?m)^\.', b'..', message) + b'.\r\n')
    try:
        answer = Answer(*connection.getreply())
    except (OSError, smtplib.SMTPException) as error:
        # All was sent: the server may deliver it, though it did not get round to saying so.
        raise error_without_answer(error, maybe_done=True) from None
    _insist(answer)
    return answers


def _insist(answer: Answer, code: int | None = None) -> None:
    if answer.code != code if code else answer.code // 100 != 2:
        raise error_for(answer)


def error_for(answer: Answer) -> ApiError:
    """The error for a refusal; codes 4xx are temporary and 5xx permanent, unless the text says otherwise."""
    text = without_addresses(answer.text.decode('utf-8', 'replace'))
    said = f'({answer.code}): {text}'
    match answer.code:
        case 421:
            return Unreachable(f'the mail server is closing {said}')
        case 452:
            return Throttled(f'the mail server asks us to slow down {said}')
        case 530 | 534 | 535 | 538:
            return Unauthorized(f'the mail server does not accept our credentials {said}')
        case code if 500 <= code < 600 and _LIMIT.search(text) and not _SIZE.search(text):
            return Throttled(f'the mail server asks us to slow down {said}')
        case code if 500 <= code < 600:
            return Rejected(f'the mail server refuses it {said}')
        case _:
            return PeerFailure(f'the mail server failed {said}')


def error_without_answer(error: BaseException, *, maybe_done: bool = False) -> ApiError:
    """The error for an exception of smtplib or a socket."""
    if isinstance(error, smtplib.SMTPResponseException):
        text = error.smtp_error if isinstance(error.smtp_error, bytes) else str(error.smtp_error).encode()
        if isinstance(error, smtplib.SMTPConnectError | smtplib.SMTPHeloError):
            # It refuses the connection, whatever it would say of a mail.
            said = f'({error.smtp_code}): {without_addresses(text.decode("utf-8", "replace"))}'
            return Unreachable(f'the mail server refuses our connection {said}')
        if isinstance(error, smtplib.SMTPAuthenticationError) and error.smtp_code >= 500:
            return error_for(Answer(535, text))
        return error_for(Answer(error.smtp_code, text))
    if isinstance(error, smtplib.SMTPNotSupportedError):
        return Unreachable('the mail server does not offer STARTTLS; check EMAIL_OPTIONS[security] and [port]')
    if isinstance(error, socket.gaierror):
        return Unreachable('the mail server: its host name could not be resolved')
    if isinstance(error, ConnectionRefusedError):
        return Unreachable('the mail server refused the connection')
    if isinstance(error, ssl.SSLError):
        return Unreachable('the mail server: TLS connection failed, check its certificate')
    # smtplib turns a time-out into its own exception, of which that is the context.
    if isinstance(error, TimeoutError) or isinstance(error.__context__, TimeoutError):
        return Unreachable('the mail server did not answer in time', maybe_done=maybe_done)
    return Unreachable('the mail server closed the connection early', maybe_done=maybe_done)


# --- Connections ----------------------------------------------------------------------------------------------------


class _Connecting(smtplib.SMTP):
    """A connection that respects the deadline of its exchange."""

    def _get_socket(self, host: str, port: int, timeout: float | None) -> socket.socket:
        return connected(resolved(host, port), timeout)


class _ConnectingByTls(smtplib.SMTP_SSL, _Connecting):
    """The same, with TLS from the first byte."""


class _Server:
    """The mail server, and a stack of idle connections to it."""

    def __init__(self, options: Mapping[str, Any], context: ssl.SSLContext | None) -> None:
        self._options = options
        self._context = context
        self._idle: list[tuple[float, smtplib.SMTP]] = []
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def connection(self) -> Iterator[smtplib.SMTP]:
        """An exclusive connection; kept for reuse unless something went wrong."""
        try:
            connection = self._kept() or self._opened()
        except (OSError, smtplib.SMTPException) as error:
            raise error_without_answer(error) from None
        try:
            yield connection
        except (OSError, smtplib.SMTPException) as error:
            _hang_up(connection)
            raise error_without_answer(error) from None
        except BaseException:
            _hang_up(connection)
            raise
        with self._lock:
            self._idle.append((time.monotonic(), connection))

    def close(self) -> None:
        """Close all idle connections."""
        with self._lock:
            idle, self._idle = self._idle, []
        for _, connection in idle:
            _hang_up(connection)

    def _kept(self) -> smtplib.SMTP | None:
        """A usable idle connection; closes those that were idle for too long."""
        oldest = time.monotonic() - KEPT_IDLE
        with self._lock:
            late = [connection for since, connection in self._idle if since < oldest]
            self._idle = [(since, connection) for since, connection in self._idle if since >= oldest]
        for connection in late:
            _hang_up(connection)
        while True:
            with self._lock:
                if not self._idle:
                    return None
                _, connection = self._idle.pop()
            # Asked while nothing is under way: then it is safe to take another instead.
            with contextlib.suppress(OSError, smtplib.SMTPException):
                if connection.noop()[0] == 250:
                    return connection
            _hang_up(connection)

    def _opened(self) -> smtplib.SMTP:
        options, name = self._options, self._options['local_hostname'] or None
        where = (options['host'], options['port'] or _PORTS[options['security']])
        if options['security'] == 'tls':
            connection: smtplib.SMTP = _ConnectingByTls(*where, name, timeout=options['timeout'],
                                                        context=self._context)
        else:
            connection = _Connecting(*where, name, timeout=options['timeout'])
        try:
            if options['security'] == 'starttls':
                connection.starttls(context=self._context)
            connection.ehlo_or_helo_if_needed()
            if options['username']:
                _log_in(connection, options['username'], options['password'])
        except BaseException:
            _hang_up(connection)
            raise
        return connection


def _log_in(connection: smtplib.SMTP, username: str, password: str) -> None:
    try:
        connection.login(username, password)
    except (smtplib.SMTPResponseException, smtplib.SMTPServerDisconnected):
        raise
    except smtplib.SMTPException:
        raise Unauthorized('the mail server offers no login; check EMAIL_OPTIONS[port]') from None


def _hang_up(connection: smtplib.SMTP) -> None:
    """Close the connection without waiting for an answer."""
    with contextlib.suppress(OSError, smtplib.SMTPException):
        connection.putcmd('quit')
    connection.close()
