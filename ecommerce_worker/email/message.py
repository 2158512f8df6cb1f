"""A mail that the shop requests, as a value, and a vendor's receipt."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from typing_extensions import override

from ecommerce_worker.words import printable

#: Who a mail is from where the shop does not say, as it always was.
DEFAULT_SENDER: Final = 'EdX Support Team'

#: Stricter than RFC 5321 in what is hardly used (quoted local parts, addresses of hosts without a name), so that
#: nothing that passes can smuggle a second address or a header.
_ADDRESS = re.compile(r"""
    [^\s@<>()\[\]\\,;:"\x00-\x1f\x7f]{1,64}
    @ (?: [^\W_] (?: [\w-]{0,61} [^\W_] )? \. )+
    [^\W\d_] [\w-]{0,61} [^\W_]
""", re.VERBOSE)

#: Anything that may be an address, to be taken out of what others wrote.
_LIKE_AN_ADDRESS = re.compile(r'[^\s@<>"\'(),;:]+(?:@|%40)[^\s@<>"\'(),;:]+')


class Purpose(StrEnum):
    """The purpose of a mail, by which vendors choose campaign or template."""

    ASSIGNMENT = 'assignment'
    UPDATE = 'update'
    USAGE = 'usage'
    NUDGE = 'nudge'
    REFUND = 'refund'


@dataclass(frozen=True)
class Attachment:
    """An attachment: its file name and URL."""

    name: str
    url: str


@dataclass(frozen=True, repr=False)
class Email:
    """One mail, to one or several recipients who do not see each other.

    ``body`` is HTML.  ``variables`` replaces it for mail whose text is stored by the vendor: a campaign in
    Braze, a template in Sailthru. Only :attr:`to` and one of ``body`` and ``variables`` must not be empty.
    """

    purpose: Purpose
    to: tuple[str, ...]
    subject: str = ''
    body: str = ''
    variables: Mapping[str, Any] = field(default_factory=dict)
    sender_alias: str = ''
    reply_to: str = ''
    attachments: tuple[Attachment, ...] = ()
    site_code: str | None = None
    #: Where an enterprise's learners go; templates of Sailthru's link to it.
    base_enterprise_url: str = ''
    #: The shop's record of the assignment that the mail is about.
    offer_assignment_id: int | str | None = None
    #: A campaign of Braze's other than the configured one.
    campaign_id: str = ''
    #: The LMS's id of those recipients who have one, as Braze knows them.
    lms_user_ids: Mapping[str, int | str] = field(default_factory=dict)
    #: The id of the task: the same whenever the mail is tried again.
    id: str = ''

    @override
    def __repr__(self) -> str:
        """A representation without contents, since it may appear in a traceback."""
        return f'<Email {self.purpose} {self.id} to {len(self.to)}>'


@dataclass(frozen=True)
class Receipt:
    """A vendor's answer to a mail that it has accepted.

    ``id`` is the vendor's id of the mail; ``left`` are the recipients that it did not accept this time, fewer than
    all: they are retried separately, so that one bad address does not affect the others and nobody is mailed twice.
    """

    id: str
    left: tuple[str, ...] = ()


def is_address(text: str) -> bool:
    """Whether this is one mail address and nothing more."""
    return len(text) <= 254 and _ADDRESS.fullmatch(text) is not None


def one_line(text: str) -> str:
    """The text in one line, without characters that could end a header or be invisible in it."""
    return ' '.join(printable(text, ' ').split())


def sender(alias: str, address: str) -> str:
    """A ``From`` header (RFC 5322): ``"O'Reilly, Inc." <address>``.

    ``address`` may be in angle brackets. Characters that a quoted display name cannot contain are removed.
    """
    # "=?" would begin an encoded word (RFC 2047), which may hold anything, such as a line of its own.
    name = one_line(re.sub(r'["\\<>]|=\?', ' ', alias)) or DEFAULT_SENDER
    if not re.fullmatch(r"[\w !#$%&'*+/=?^`{|}~-]+", name):
        name = f'"{name}"'
    return f'{name} <{address.strip().removeprefix("<").removesuffix(">")}>'


def without_addresses(text: str) -> str:
    """Text of others, such as a vendor's reason, safe for a log line: without mail addresses, in one short line."""
    # Cut first: the pattern takes quadratic time.
    return _LIKE_AN_ADDRESS.sub('<address>', one_line(text[:1000]))[:300]
