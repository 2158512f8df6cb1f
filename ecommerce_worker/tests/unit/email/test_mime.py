"""A mail as plain text, and as the message that travels."""

from email import message_from_bytes
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.policy import compat32, default
from email.utils import getaddresses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecommerce_worker.email.message import Attachment, Email, Purpose, one_line
from ecommerce_worker.email.mime import ascii_domain, composed, file_name, reply_address, safe_id, text_of, with_links

URL = 'https://files.example.com/a?x=1&y=2'

#: Texts that have broken into headers somewhere.
HOSTILE = ['\r\nBcc: eve@example.org\r\n', '=?utf-8?q?=0D=0ABcc:_eve=40example.org?=', '<eve@example.org>', '"', '\\',
           ',', ':;', '(x', ')', '\x00', '\u2028', '\ud800', 'Ünï', '日本語' * 9, 'long' * 300, ' word' * 40, '[']
hostile = st.lists(st.sampled_from(HOSTILE) | st.text(), max_size=5).map(''.join)


def mail(**given_):
    return Email(**{'purpose': Purpose.UPDATE, 'to': ('ann@example.com',), 'subject': 'Hello', 'body': '<p>Hi</p>',
                    'id': 'id-1', **given_})


def read(content: bytes) -> EmailMessage:
    message = message_from_bytes(content, policy=default)
    assert isinstance(message, EmailMessage)
    return message


# --- Text -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('body, text', [
    ('Dear Ann,<br/>thanks.<br><br>Bye', 'Dear Ann,\nthanks.\n\nBye\n'),
    ('<p>One\n   and the\tsame</p><p>Two</p>', 'One and the same\n\nTwo\n'),
    ('<h1>Title</h1>Text', 'Title\n\nText\n'),
    ('<ul><li>a</li><li>b <b>c</b></li></ul>', '* a\n* b c\n'),
    ('<table><tr><th>Used</th><td>80</td></tr><tr><th>Of</th><td>100</td></tr></table>', 'Used  80\nOf  100\n'),
    ('Use <a href="https://x.org/?a=1&amp;b=2">your code</a>.', 'Use your code (https://x.org/?a=1&b=2).\n'),
    ('<a href="https://x.org">https://x.org</a>', 'https://x.org\n'),
    ('<a href="https://x.org"><img src="y"></a>', 'https://x.org\n'),
    ('<a href="javascript:alert(1)">click</a>', 'click\n'),
    ('<html><head><title>T</title><style>p {}</style></head><body>B<script>s()</script></body>', 'B\n'),
    ('a &lt;b&gt; &amp; &euro; &#8364;', 'a <b> & € €\n'),
    ('no markup', 'no markup\n'), ('', '\n'), ('<p>never closed', 'never closed\n'), ('</style>x', 'x\n'),
    ('<div><div><p>deep</p></div></div><div>next</div>', 'deep\n\nnext\n'),
])
def test_html_becomes_text(body, text):
    assert text_of(body) == text


@given(st.text())
def test_any_text_is_read(body):
    assert text_of(body).endswith('\n')


# --- Links ----------------------------------------------------------------------------------------------------------


def test_attachments_become_links_at_the_end_of_the_body():
    links = '<p>Attachments:</p><ul><li><a href="https://files.example.com/a?x=1&amp;y=2">a b.pdf</a></li></ul>'
    assert with_links('<p>Hi', [Attachment('a<b>.pdf', URL)]) == '<p>Hi' + links.replace('a b', 'a b ')
    assert with_links('<body>Hi</BODY ></html>', [Attachment('a b.pdf', URL)]) == f'<body>Hi{links}</BODY ></html>'
    assert with_links('<p>Hi', []) == '<p>Hi'


# --- Names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('name, plain', [
    ('report.pdf', 'report.pdf'), ('../../etc/passwd', 'passwd'), ('C:\\x\\y.doc', 'y.doc'), ('', 'attachment'),
    ('...', 'attachment'), ('.htaccess', 'htaccess'), ('a\r\nb.pdf', 'a b.pdf'),
    ('Übersicht (1).pdf', 'Übersicht (1).pdf'),
    ('x' * 200 + '.pdf', 'x' * 40 + '.pdf'), ('"; filename="b.exe', 'filename b.exe'),
])
def test_the_name_of_a_file_is_only_a_name(name, plain):
    assert file_name(name) == plain


@given(st.text(), st.text())
def test_an_id_is_safe_in_a_path_and_in_a_header_and_its_own(one, other):
    for text in (one, other):
        assert safe_id(text).replace('-', '').replace('_', '').isalnum()
        assert safe_id(text).isascii()
        assert len(safe_id(text)) <= 64
    assert (safe_id(one) == safe_id(other)) == (one == other and bool(one))


@pytest.mark.parametrize('address, there', [
    ('ann@example.com', 'ann@example.com'), ('ann@Bücher.example', 'ann@xn--bcher-kva.example'),
    ('ann@faß.de', 'ann@xn--fa-hia.de'),  # IDNA 2003 would make another domain of it: fass.de
    ('ann@bu\u0308cher.example', 'ann@xn--bcher-kva.example'), ('ärger@пример.рф', 'ärger@xn--e1afmkfd.xn--p1ai'),
])
def test_a_domain_is_written_as_dns_has_it(address, there):
    assert ascii_domain(address) == there


@pytest.mark.parametrize('given_, address', [
    ('help@example.com', 'help@example.com'), (' help@bücher.example ', 'help@xn--bcher-kva.example'), ('', ''),
    ('none', ''), ('help@example.com\r\nBcc: eve@example.org', ''), ('a@example.com, b@example.com', ''),
    ('ä@example.com', ''),
])
def test_an_address_for_answers_that_is_none_is_left_out(given_, address):
    assert reply_address(mail(reply_to=given_)) == address
    assert read(composed(mail(reply_to=given_), 'shop@example.com'))['Reply-To'] == (address or None)


# --- The message ----------------------------------------------------------------------------------------------------


def test_a_mail_is_composed_of_text_and_html():
    message = read(composed(mail(subject='Grüße', body='<p>Für <b>Ann</b></p>', sender_alias="O'Reilly, Inc."),
                            'shop@example.com'))
    assert message['From'] == '"O\'Reilly, Inc." <shop@example.com>'
    assert (message['To'], message['Subject']) == ('ann@example.com', 'Grüße')
    assert message['Message-ID'] == '<id-1@example.com>'
    assert message['Auto-Submitted'] == 'auto-generated'
    assert message['Date'].datetime
    assert message.get_content_type() == 'multipart/alternative'
    assert [(part.get_content_type(), part.get_content().strip()) for part in message.iter_parts()] == [
        ('text/plain', 'Für Ann'), ('text/html', '<p>Für <b>Ann</b></p>')]


def test_it_is_readable_as_it_is_and_seven_bits_wide():
    content = composed(mail(body='<p>.' + 'Fünf ' * 1000), 'shop@example.com')
    assert content.isascii()
    assert b'=C3=BC' in content
    assert max(map(len, content.split(b'\r\n'))) <= 998
    assert b'\n' not in content.replace(b'\r\n', b'')
    assert content.endswith(b'\r\n')


def test_several_recipients_do_not_see_each_other():
    content = composed(mail(to=('ann@example.com', 'bob@example.com')), 'shop@example.com')
    assert b'To: undisclosed-recipients:;\r\n' in content
    assert b'ann@' not in content


def test_an_address_that_is_not_ascii_is_written_as_it_is():
    content = composed(mail(to=('ärger@bücher.example',)), 'shop@example.com')
    assert 'To: ärger@xn--bcher-kva.example\r\n'.encode() in content


def test_files_are_attached_if_they_are_there_and_linked_otherwise():
    files = (Attachment('Übersicht.pdf', URL), Attachment('b.unknown', URL + 'b'), Attachment('c.csv', URL + 'c'),
             Attachment('d.eml', URL + 'd'))
    message = read(composed(mail(attachments=files), 'shop@example.com',
                            {URL: b'%PDF', URL + 'b': b'\x00\xff', URL + 'd': b'From: x'}))
    assert message.get_content_type() == 'multipart/mixed'
    attached = [(part.get_filename(), part.get_content_type(), part.get_payload(decode=True))
                for part in message.iter_attachments()]
    assert attached == [('Übersicht.pdf', 'application/pdf', b'%PDF'),
                        ('b.unknown', 'application/octet-stream', b'\x00\xff'),
                        ('d.eml', 'application/octet-stream', b'From: x')]
    html = message.get_body(('html',))
    assert html
    assert '<a href="https://files.example.com/a?x=1&amp;y=2c">c.csv</a>' in html.get_content()
    text = message.get_body(('plain',))
    assert text
    assert f'* c.csv ({URL}c)' in text.get_content()


@given(hostile, hostile, hostile, hostile)
def test_nothing_gets_into_the_headers_but_what_belongs_there(alias, subject, name, id_):
    email = mail(sender_alias=alias, subject=subject, id=id_, body=alias, attachments=(Attachment(name, URL),))
    content = composed(email, 'shop@example.com', {URL: b'x'})
    assert max(map(len, content.split(b'\r\n'))) <= 998
    message, raw = read(content), message_from_bytes(content, policy=compat32)
    assert raw.keys() == ['To', 'Content-Type', 'MIME-Version', 'From', 'Subject', 'Date', 'Message-ID',
                          'Auto-Submitted']
    assert message.keys() == raw.keys()
    assert [address for _, address in getaddresses([raw['From']])] == ['shop@example.com']
    assert [address.addr_spec for address in message['From'].addresses] == ['shop@example.com']
    assert str(make_header(decode_header(raw['Subject']))).split() == one_line(subject).split()
    assert [part.get_content_type() for part in raw.walk()][:4] == [
        'multipart/mixed', 'multipart/alternative', 'text/plain', 'text/html']
    assert [part.get_filename() for part in message.iter_attachments()] == [file_name(name)]
