"""A mail as text, as HTML with links to its files, and as a MIME message (RFC 5322)."""

from __future__ import annotations

import hashlib
import html
import mimetypes
import re
import unicodedata
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email import encoders
from email.charset import QP, Charset
from email.header import Header
from email.mime.base import MIMEBase
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from email.policy import compat32
from email.utils import format_datetime
from html.parser import HTMLParser
from typing import Any, Final

from typing_extensions import override

from ecommerce_worker.email.message import Attachment, Email, is_address, one_line, sender
from ecommerce_worker.settings.kinds import Kind

_POLICY: Final = compat32.clone(linesep='\r\n', mangle_from_=False)

#: What is longer may not fit into a line of a header; encoded, it can be folded anywhere.
_LONGEST = 60

_UTF8: Final = Charset('utf-8')
_UTF8.body_encoding = QP


# --- HTML -----------------------------------------------------------------------------------------------------------


class _Text(HTMLParser):
    """Reads HTML into the lines of a plain text."""

    _HIDDEN: Final = frozenset(('head', 'script', 'style', 'title', 'template'))
    _OWN_LINE: Final = frozenset(
        ('article', 'dd', 'div', 'dl', 'dt', 'footer', 'header', 'li', 'section', 'tbody', 'tr'))
    _OWN_PARAGRAPH: Final = frozenset(
        ('blockquote', 'h1', 'h2', 'h3', 'h4', 'h5', 'h6', 'hr', 'ol', 'p', 'pre', 'table', 'ul'))

    def __init__(self) -> None:
        super().__init__()
        self.text = ''
        self._hidden = 0
        self._link = ''
        self._link_from = 0

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in self._HIDDEN:
            self._hidden += 1
        elif tag == 'br':
            self.text += '\n'
        elif tag in ('td', 'th') and not self.text.endswith('\n'):
            self.text += '  '
        elif tag == 'a':
            self._link, self._link_from = dict(attrs).get('href') or '', len(self.text)
        self._break(tag)
        if tag == 'li':
            self.text += '* '

    @override
    def handle_endtag(self, tag: str) -> None:
        if tag in self._HIDDEN:
            self._hidden = max(0, self._hidden - 1)
        elif tag == 'a':
            url, label = self._link, self.text[self._link_from:].strip()
            if url != label and url.lower().startswith(('http://', 'https://')):
                self.text += f' ({url})' if label else url
            self._link = ''
        self._break(tag)

    @override
    def handle_data(self, data: str) -> None:
        if not self._hidden:
            words = re.sub(r'\s+', ' ', data)
            self.text += words.lstrip() if self.text[-1:] in ('', '\n', ' ') else words

    def _break(self, tag: str) -> None:
        ends = '\n\n' if tag in self._OWN_PARAGRAPH else '\n' if tag in self._OWN_LINE else ''
        while self.text and not self.text.endswith(ends):
            self.text += '\n'


def text_of(body: str) -> str:
    """An HTML body as plain text, for readers that show no HTML; links as ``label (URL)``."""
    reader = _Text()
    reader.feed(body)
    reader.close()
    lines = (line.strip() for line in reader.text.splitlines())
    return re.sub(r'\n{3,}', '\n\n', '\n'.join(lines)).strip() + '\n'


def with_links(body: str, attachments: Iterable[Attachment]) -> str:
    """An HTML body with links to files at its end, for vendors that cannot attach them."""
    links = ''.join(f'<li><a href="{html.escape(file.url)}">{html.escape(file_name(file.name))}</a></li>'
                    for file in attachments)
    if not links:
        return body
    before, tag, after = _parted(body)
    return f'{before}<p>Attachments:</p><ul>{links}</ul>{tag}{after}'


def _parted(body: str) -> tuple[str, str, str]:
    """Split HTML before the end of its body."""
    found = list(re.finditer(r'</body\s*>', body, re.IGNORECASE))
    if not found:
        return body, '', ''
    return body[:found[-1].start()], found[-1][0], body[found[-1].end():]


# --- Names and addresses --------------------------------------------------------------------------------------------


def file_name(name: str) -> str:
    """The name of an attachment: without directories and special characters, and of limited length."""
    plain = re.sub(r'[^\w.()+-]+', ' ', re.split(r'[/\\]', name)[-1]).strip('. ')
    stem, dot, ending = plain.rpartition('.')
    return (f'{stem[:40]}{dot}{ending[:10]}' if stem else ending[:50]).strip() or 'attachment'


def safe_id(text: str) -> str:
    """The id of a mail for file names and Message-IDs: unchanged if possible, else a digest of it."""
    if re.fullmatch(r'[A-Za-z0-9][A-Za-z0-9_-]{0,63}', text):
        return text
    return hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:32] if text else uuid.uuid4().hex


def ascii_domain(address: str) -> str:
    """The address with its domain in ASCII: other labels in Punycode (RFC 5890, A-labels)."""
    local, _, domain = address.rpartition('@')
    labels = (label if label.isascii() else
              'xn--' + unicodedata.normalize('NFC', label.lower()).encode('punycode').decode()
              for label in domain.split('.'))
    return f'{local}@{".".join(labels)}'


def reply_address(email: Email) -> str:
    """The reply address; '' if it is not valid, so that answers go to the sender."""
    address = ascii_domain(email.reply_to.strip())
    return address if is_address(address) and address.isascii() else ''


def _sender_address(given: Any) -> str:
    address = ascii_domain(given.strip().removeprefix('<').removesuffix('>'))
    if not is_address(address) or not address.isascii():
        raise ValueError
    return address


#: Whom mail is from: an option of most vendors.  Angle brackets around it, as Braze's setting has them, do no harm.
ADDRESS: Final = Kind('a mail address such as shop@example.com', _sender_address)


# --- The message ----------------------------------------------------------------------------------------------------


def composed(email: Email, from_email: str, files: Mapping[str, bytes] | None = None) -> bytes:
    """The mail as a message for a mail server; ``files`` has attachments by their URL, others are linked.

    Recipients do not see each other. The Message-ID is derived from the mail's id, so that mail readers
    recognize a duplicate.
    """
    files = files or {}
    body = with_links(email.body, (file for file in email.attachments if file.url not in files))
    body = body.encode('utf-8', 'replace').decode()
    message = MIMEMultipart('mixed') if files else MIMEMultipart('alternative')
    # A Header is a value too, whatever the types say.
    message['From'] = _from(email.sender_alias, from_email)  # type: ignore[assignment]
    message['Subject'] = _words(email.subject, 'Subject')  # type: ignore[assignment]
    if reply_to := reply_address(email):
        message['Reply-To'] = reply_to
    message['Date'] = format_datetime(datetime.now(UTC))
    message['Message-ID'] = f'<{safe_id(email.id)}@{from_email.rpartition("@")[2]}>'
    message['Auto-Submitted'] = 'auto-generated'  # RFC 3834: no answer from a machine, please
    both = MIMEMultipart('alternative') if files else message
    both.attach(MIMEText(text_of(body), 'plain', _UTF8))  # type: ignore[arg-type]
    both.attach(MIMEText(body, 'html', _UTF8))  # type: ignore[arg-type]
    if files:
        message.attach(both)
        for file in email.attachments:
            if file.url in files:
                message.attach(_part(file_name(file.name), files[file.url]))
    # Written apart: email.header cannot write an address that is not ASCII the way that RFC 6532 has it.
    to = ascii_domain(email.to[0]) if len(email.to) == 1 else 'undisclosed-recipients:;'
    return f'To: {to}\r\n'.encode() + message.as_bytes(policy=_POLICY)


def _words(text: str, name: str) -> Header:
    """Any text as a header.

    Encoded by email.header and not by email.headerregistry, which decodes what looks encoded and so lets
    ``=?utf-8?q?=0D=0ABcc:_...?=`` begin a header of its own (seen in Python 3.11).
    """
    text = one_line(text)
    plain = text.isascii() and '=?' not in text and all(len(word) <= _LONGEST for word in text.split())
    return Header(text, 'us-ascii' if plain else 'utf-8', header_name=name)


def _from(alias: str, address: str) -> Header:
    whole = sender(alias, address)
    name = whole.rpartition(' <')[0].removeprefix('"').removesuffix('"')
    if name.isascii() and '=?' not in name and len(name) <= _LONGEST:
        return Header(whole, 'us-ascii', header_name='From')
    encoded = Header(name, 'utf-8', header_name='From')
    encoded.append(f'<{address}>', 'us-ascii')
    return encoded


def _part(name: str, content: bytes) -> MIMEBase:
    kind, packing = mimetypes.guess_type(name)
    if kind is None or packing or kind.startswith(('message/', 'multipart/')):
        kind = 'application/octet-stream'
    part = MIMEBase(*kind.split('/', 1))
    part.set_payload(content)
    encoders.encode_base64(part)
    part.add_header('Content-Disposition', 'attachment', filename=name)
    return part
