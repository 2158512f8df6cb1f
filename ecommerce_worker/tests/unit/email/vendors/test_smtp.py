"""Mail to a mail server: what it is told, and what its answers mean."""

import contextlib
import smtplib
import socket
import ssl
import threading

import pytest

from ecommerce_worker.clients.http import Api
from ecommerce_worker.email.message import Attachment, Email, Purpose, Receipt
from ecommerce_worker.email.vendors import smtp
from ecommerce_worker.email.vendors.smtp import Answer, Vendor, error_for, error_without_answer
from ecommerce_worker.errors import (
    ApiError,
    Misconfigured,
    PeerFailure,
    Rejected,
    Throttled,
    Transient,
    Unauthorized,
    Unreachable,
    WrongArguments,
)
from ecommerce_worker.testing.peer import reply
from ecommerce_worker.tests.support.smtp import Certificate, MailServer, mail_server


@pytest.fixture(scope='session')
def certificate(tmp_path_factory):
    return Certificate.made(tmp_path_factory.mktemp('tls'))


@pytest.fixture
def server():
    with mail_server() as server:
        yield server


@pytest.fixture
def vendor():
    """Makes vendors: ``vendor(server, timeout=1)``."""
    with contextlib.ExitStack() as stack:
        def make(server, **options):
            given = {'host': server.host, 'port': server.port, 'security': 'none', 'from_email': 'shop@example.com',
                     'timeout': 5, 'local_hostname': 'worker.example.com', 'allow_local_attachments': True, **options}
            made = Vendor(given, Api)
            stack.callback(made.close)
            return made

        yield make


def mail(*to, **given):
    return Email(**{'purpose': Purpose.UPDATE, 'to': to or ('ann@example.com',), 'subject': 'Hello',
                    'body': '<p>Hi</p>', 'id': 'id-1', **given})


# --- The transaction ------------------------------------------------------------------------------------------------


def test_a_mail_is_handed_over(server, vendor):
    assert vendor(server).send(mail()) == Receipt('id-1')
    got, = server.mails
    assert (got.sender, got.to) == ('shop@example.com', ('ann@example.com',))
    assert got.message['Subject'] == 'Hello'
    assert got.message['Message-ID'] == '<id-1@example.com>'


def test_lines_that_begin_with_a_dot_arrive_as_they_are(server, vendor):
    vendor(server).send(mail(body='<p>a</p>\r\n.\r\n..b\n.'))
    html = server.mails[0].message.get_body(('html',))
    assert html
    assert html.get_content().split() == ['<p>a</p>', '.', '..b', '.']


def test_several_recipients_are_one_transaction(server, vendor):
    vendor(server).send(mail('ann@example.com', 'bob@example.com'))
    got, = server.mails
    assert got.to == ('ann@example.com', 'bob@example.com')
    assert got.message['To'] == 'undisclosed-recipients:;'


def test_recipients_that_are_refused_are_left(server, vendor):
    server.answers = {'RCPT bob@example.com': '550 no such user', 'RCPT eve@example.com': '450 busy'}
    receipt = vendor(server).send(mail('ann@example.com', 'bob@example.com', 'eve@example.com'))
    assert receipt.left == ('bob@example.com', 'eve@example.com')
    assert server.mails[0].to == ('ann@example.com',)


def test_all_refused_is_a_refusal_that_tells_the_servers_reason(server, vendor):
    server.answers = {'RCPT': '550 5.1.1 <ann@example.com>: no such user'}
    with pytest.raises(Rejected, match=r'\(550\): 5.1.1 <<address>>: no such user'):
        vendor(server).send(mail('ann@example.com', 'bob@example.com'))
    assert not server.mails


def test_all_refused_but_one_only_for_now_is_an_outage(server, vendor):
    server.answers = {'RCPT': '550 no', 'RCPT bob@example.com': '451 greylisted'}
    with pytest.raises(PeerFailure, match='greylisted'):
        vendor(server).send(mail('ann@example.com', 'bob@example.com'))


@pytest.mark.parametrize('verb', ['MAIL', 'RCPT', 'DATA'])
@pytest.mark.parametrize('answer, kind', [
    ('421 closing', Unreachable), ('451 later', PeerFailure), ('452 full', Throttled), ('552 too large', Rejected),
    ('530 log in first', Unauthorized),
])
def test_a_refusal_anywhere_means_that_nobody_was_mailed(server, vendor, verb, answer, kind):
    server.answers = {verb: answer}
    there = vendor(server)
    with pytest.raises(kind) as caught:
        there.send(mail())
    assert not caught.value.maybe_done
    assert not server.mails
    server.answers = {}
    assert there.send(mail()) == Receipt('id-1')  # the next begins anew


@pytest.mark.parametrize('verb', ['MAIL', 'RCPT'])
def test_a_connection_lost_before_the_mail_is_sent_mailed_nobody(server, vendor, verb):
    server.answers = {verb: ''}
    with pytest.raises(Unreachable, match='closed the connection early') as caught:
        vendor(server).send(mail())
    assert not caught.value.maybe_done


def test_a_connection_lost_after_the_mail_was_sent_may_have_done_it(server, vendor):
    server.answers = {'DATA': ''}
    with pytest.raises(Unreachable, match='closed the connection early') as caught:
        vendor(server).send(mail())
    assert caught.value.maybe_done


def test_a_server_that_says_how_much_it_takes_is_asked_before(server, vendor):
    vendor(server).send(mail())
    assert f'SIZE={len(server.mails[0].content)}' in server.mails[0].options


# --- Addresses that are not ASCII -----------------------------------------------------------------------------------


def test_domains_are_written_as_dns_has_them(vendor):
    with mail_server(smtputf8=False) as server:
        vendor(server, from_email='shop@bücher.example').send(mail('ann@faß.example'))
        assert server.mails[0].sender == 'shop@xn--bcher-kva.example'
        assert server.mails[0].to == ('ann@xn--fa-hia.example',)


def test_a_server_that_can_gets_addresses_as_they_are(server, vendor):
    there = vendor(server)
    there.send(mail('ärger@bücher.example'))
    there.send(mail('ann@example.com'))
    assert server.mails[0].to == ('ärger@xn--bcher-kva.example',)
    assert 'SMTPUTF8' in server.mails[0].options
    assert 'To: ärger@xn--bcher-kva.example\r\n'.encode() in server.mails[0].content
    assert 'SMTPUTF8' not in server.mails[1].options


def test_a_server_that_cannot_leaves_them(vendor):
    with mail_server(smtputf8=False) as server:
        there = vendor(server)
        assert there.send(mail('ann@example.com', 'ärger@example.com')).left == ('ärger@example.com',)
        with pytest.raises(Rejected, match='not ASCII'):
            there.send(mail('ärger@example.com'))


# --- Attachments ----------------------------------------------------------------------------------------------------


def test_files_are_attached(server, vendor, peer):
    there = peer(reply(200, b'%PDF'))
    vendor(server).send(mail(attachments=(Attachment('a.pdf', there.url + 'a'),)))
    attached, = server.mails[0].message.iter_attachments()
    assert (attached.get_filename(), attached.get_payload(decode=True)) == ('a.pdf', b'%PDF')


@pytest.mark.parametrize('options, answer', [
    ({'attachment_limit': 3}, reply(200, b'%PDF')), ({}, reply(404)), ({}, reply(503)),
    ({}, reply(200, b'%PDF', length=9)),
], ids=['large', 'gone', 'failed', 'cut'])
def test_files_that_cannot_be_had_are_linked(server, vendor, peer, options, answer):
    there = peer(answer)
    vendor(server, **options).send(mail(attachments=(Attachment('a.pdf', there.url + 'a'),)))
    assert not list(server.mails[0].message.iter_attachments())
    html = server.mails[0].message.get_body(('html',))
    assert html
    assert f'<a href="{there.url}a">a.pdf</a>' in html.get_content()


def test_files_of_the_local_network_are_refused_before_anything_is_sent(server, vendor, peer):
    there = peer(reply(200, b'secret'))
    with pytest.raises(WrongArguments, match='local network'):
        vendor(server, allow_local_attachments=False).send(mail(attachments=(Attachment('a', there.url),)))
    assert there.connections == server.connections == 0


# --- Connections ----------------------------------------------------------------------------------------------------


def test_a_connection_is_used_again(server, vendor):
    there = vendor(server)
    for _ in range(3):
        there.send(mail())
    assert server.connections == 1


def test_one_that_the_server_hung_up_is_replaced(server, vendor):
    there = vendor(server)
    there.send(mail())
    server.hang_up()
    there.send(mail())
    assert (server.connections, len(server.mails)) == (2, 2)


def test_one_that_the_server_is_tired_of_is_replaced(server, vendor):
    there = vendor(server)
    there.send(mail())
    server.answers = {'NOOP': '421 tired'}
    there.send(mail())
    assert (server.connections, len(server.mails)) == (2, 2)


def test_one_that_was_idle_for_too_long_is_hung_up(server, vendor):
    there = vendor(server)
    there.send(mail())
    there._server._idle = [(since - smtp.KEPT_IDLE - 1, connection) for since, connection in there._server._idle]
    there.send(mail())
    assert server.connections == 2
    assert 'NOOP' not in server.commands
    assert len(there._server._idle) == 1


def test_threads_share_no_connection(server, vendor):
    there, together = vendor(server), threading.Barrier(8)

    def send(number):
        together.wait()
        for turn in range(5):
            there.send(mail(f'{number}-{turn}@example.com', id=f'{number}-{turn}'))

    threads = [threading.Thread(target=send, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.mails) == 40
    assert all(got.message['Message-ID'] == f'<{got.to[0].partition("@")[0]}@example.com>' for got in server.mails)
    assert server.connections <= 8


def test_nothing_is_connected_to_before_there_is_mail(server, vendor):
    assert vendor(server).bounced('ann@example.com') is False
    assert server.connections == 0


# --- TLS and passwords ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize('security', ['starttls', 'tls'])
def test_a_password_is_sent_by_tls(vendor, certificate, security):
    with mail_server(security=security, certificate=certificate, users={'shop': 'secret'}) as server:
        there = vendor(server, security=security, ca_file=str(certificate.file), username='shop', password='secret')
        there.send(mail())
        assert server.mails[0].tls


@pytest.mark.parametrize('security', ['starttls', 'tls'])
def test_a_certificate_that_nobody_vouches_for_is_refused(vendor, certificate, security):
    with mail_server(security=security, certificate=certificate) as server:
        with pytest.raises(Unreachable, match='check its certificate'):
            vendor(server, security=security).send(mail())
        assert not server.mails


def test_a_certificate_for_another_name_is_refused(vendor, tmp_path):
    other = Certificate.made(tmp_path, 'DNS:mail.example.org')
    with mail_server(security='tls', certificate=other) as server:
        with pytest.raises(Unreachable, match='check its certificate'):
            vendor(server, security='tls', ca_file=str(other.file)).send(mail())
        assert not server.mails


def test_a_server_without_starttls_gets_nothing(server, vendor):
    with pytest.raises(Unreachable, match='does not offer STARTTLS'):
        vendor(server, security='starttls').send(mail())
    assert not server.commands


@pytest.mark.parametrize('answer, kind', [
    ('535 5.7.8 wrong', Unauthorized), ('454 4.7.0 later', PeerFailure), ('500 what', Unauthorized),
])
def test_a_password_that_is_refused_is_told(vendor, certificate, answer, kind):
    with mail_server(security='tls', certificate=certificate, users={'shop': 'secret'}) as server:
        server.answers = {'AUTH': answer}
        there = vendor(server, security='tls', ca_file=str(certificate.file), username='shop', password='guess')
        with pytest.raises(kind) as caught:
            there.send(mail())
        assert 'guess' not in str(caught.value)


def test_a_server_that_takes_no_password_is_told(vendor, certificate):
    with mail_server(security='tls', certificate=certificate) as server, \
            pytest.raises(Unauthorized, match='offers no login'):
        vendor(server, security='tls', ca_file=str(certificate.file), username='shop', password='secret').send(mail())


# --- Outages --------------------------------------------------------------------------------------------------------


def test_a_server_that_is_not_there_is_unreachable(server, vendor):
    server.close()
    with pytest.raises(Unreachable, match='refused the connection'):
        vendor(server).send(mail())


@pytest.mark.parametrize('greeting, kind, said', [
    (b'', Unreachable, 'closed the connection early'), (b'554 try later\r\n', Unreachable, 'try later'),
    (b'421 busy\r\n', Unreachable, 'busy'),
    (b'HTTP/1.1 400 Bad Request\r\n\r\n', Transient, 'mail server'),
])
def test_a_server_that_does_not_greet_is_an_outage(vendor, greeting, kind, said):
    with answering(greeting) as server, pytest.raises(kind, match=said):
        vendor(server).send(mail())


@pytest.mark.parametrize('line', [b'2', b'220-more\r\n'], ids=['a byte', 'a line'])
def test_a_server_that_greets_without_end_is_given_up(vendor, line):
    def endless(connection, stop):
        while not stop.wait(0.02):
            connection.sendall(line)

    with answering(endless) as server, pytest.raises(Unreachable, match='in time'):
        vendor(server, timeout=0.1).send(mail())


def test_a_server_that_says_too_much_is_given_up(vendor):
    def flood(connection, stop):
        while not stop.is_set():
            connection.sendall(b'220-more\r\n' * 1000)

    with answering(flood) as server, pytest.raises(Unreachable, match='closed the connection early'):
        vendor(server, timeout=60).send(mail())


def test_a_server_that_stops_reading_within_a_mail_is_given_up(vendor):
    def deaf(connection, stop):
        stream = connection.makefile('rb')
        connection.sendall(b'220 hello\r\n')
        while line := stream.readline():
            connection.sendall(b'354 go on\r\n' if line.startswith(b'DATA') else b'250 ok\r\n')
            if line.startswith(b'DATA'):
                stop.wait(30)
                return

    with answering(deaf) as server, pytest.raises(Unreachable) as caught:
        vendor(server, timeout=0.2).send(mail(body='x' * 8_000_000))  # more than lies between two sockets
    assert not caught.value.maybe_done


def test_a_handshake_that_stands_still_is_given_up(vendor):
    with answering(None) as server, pytest.raises(Unreachable, match='in time'):
        vendor(server, timeout=0.2, security='tls').send(mail())


def test_the_next_mail_has_its_own_time(server, vendor):
    there = vendor(server, timeout=5)
    there.send(mail())
    (_, connection), = there._server._idle
    assert connection.sock.gettimeout() == 5
    there.send(mail())
    assert server.connections == 1


def test_a_server_that_says_nothing_is_unreachable(vendor):
    with answering(None) as server, pytest.raises(Unreachable, match='in time'):
        vendor(server, timeout=0.2).send(mail())


@contextlib.contextmanager
def answering(greeting):
    """A server that says one thing and hangs up, or says nothing, or does as it is given."""
    stop = threading.Event()

    def serve():
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            if greeting is None:
                stop.wait(10)
            elif callable(greeting):
                greeting(connection, stop)
            else:
                connection.sendall(greeting)

    with socket.create_server(('127.0.0.1', 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        server = MailServer.__new__(MailServer)
        server.host, server.port = listener.getsockname()
        try:
            yield server
        finally:
            stop.set()
            thread.join()


@pytest.mark.parametrize('error, kind, said', [
    (socket.gaierror(-2, 'unknown'), Unreachable, 'could not be resolved'),
    (ConnectionRefusedError(), Unreachable, 'refused the connection'),
    (ssl.SSLCertVerificationError(), Unreachable, 'certificate'),
    (TimeoutError(), Unreachable, 'in time'),
    (ConnectionResetError(), Unreachable, 'closed the connection early'),
    (smtplib.SMTPServerDisconnected('ann@example.com'), Unreachable, 'closed the connection early'),
    (smtplib.SMTPConnectError(554, 'no'), Unreachable, 'no'),
    (smtplib.SMTPHeloError(451, b'later'), Unreachable, 'later'),
    (smtplib.SMTPAuthenticationError(534, b'use another'), Unauthorized, 'use another'),
])
def test_no_exception_of_smtplib_gets_out(error, kind, said):
    found = error_without_answer(error)
    assert type(found) is kind
    assert said in str(found)
    assert '@' not in str(found)


@pytest.mark.parametrize('code, text, kind', [
    (550, b'5.4.5 Daily user sending limit exceeded. For more information on Gmail', Throttled),
    (550, b'5.7.1 The user or domain that you are sending to (or from) has a policy that prohibited it', Rejected),
    (554, b'5.7.1 Message rate limit exceeded', Throttled),
    (550, b'5.7.0 Too many emails per hour, try again later', Throttled),
    (554, b'5.7.1 <ann@example.com>: temporarily blocked, see https://example.com', Throttled),
    (550, b'5.7.1 Greylisted', Throttled),
    (552, b'5.3.4 Message size exceeds fixed limit', Rejected),
    (552, b'5.2.3 Message too large for this recipient, limit 20 MB', Rejected),
    (552, b'5.2.2 The quota of this mailbox is used up', Rejected),
    (550, b'5.1.1 no such user', Rejected),
])
def test_a_limit_is_temporary_whatever_the_code_says(code, text, kind):
    assert type(error_for(Answer(code, text))) is kind


@pytest.mark.parametrize('code', [-1, 0, 199, 250, 354, 400, 421, 450, 500, 535, 554, 599, 999])
def test_every_code_is_some_error(code):
    assert isinstance(error_for(Answer(code, b'\xff said')), ApiError)


# --- Options --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('options, complaints', [
    ({}, ['[host] is not set', '[from_email] is not set']),
    ({'host': 'smtp.example.com:587 ', 'from_email': 'shop', 'port': 0, 'security': 'ssl'}, [
        '[host] must be the name of a mail server, without its port', '[from_email] must be a mail address',
        '[port] must be a whole number', '[security] must be one of starttls, tls, none']),
    ({'username': 'shop'}, ['[username] and EMAIL_OPTIONS[password] must be set together']),
    ({'username': 'shop', 'password': 'x', 'security': 'none'}, ['[security] is none, and the password']),
    ({'username': 'shop', 'password': 'gehämnis'}, ['must be ASCII']),
    ({'ca_file': '/does/not/exist'}, ['[ca_file] holds no certificates: No such file']),
    ({'ca_file': __file__}, ['[ca_file] holds no certificates']),
    ({'passwort': 'x'}, ['[passwort] is not a known option; did you mean password?']),
])
def test_all_that_is_wrong_with_the_options_is_told(options, complaints):
    given = options if not options or 'host' in options else {'host': 'h', 'from_email': 'shop@example.com', **options}
    with pytest.raises(Misconfigured) as caught:
        Vendor(given, Api)
    for complaint in complaints:
        assert complaint in str(caught.value)
    assert 'gehämnis' not in str(caught.value)


def test_the_port_is_that_of_the_security():
    assert smtp._PORTS == {'starttls': 587, 'tls': 465, 'none': 25}

