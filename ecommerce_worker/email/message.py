"""A mail that the shop asks for, as one value, and what a vendor says of it."""

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

#: Stricter than RFC 5321 in what hardly anybody has (quoted local parts, addresses of hosts without a name), so that
#: nothing that passes can smuggle a second address or a header.
_ADDRESS = re.compile(r"""
    [^\s@<>()\[\]\\,;:"\x00-\x1f\x7f]{1,64}
    @ (?: [^\W_] (?: [\w-]{0,61} [^\W_] )? \. )+
    [^\W\d_] [\w-]{0,61} [^\W_]
""", re.VERBOSE)

#: Anything that may be an address, to be taken out of what others wrote.
_LIKE_AN_ADDRESS = re.compile(r'[^\s@<>"\'(),;:]+(?:@|%40)[^\s@<>"\'(),;:]+')


class Purpose(StrEnum):
    """What a mail is for: vendors choose campaign or template by it."""

    ASSIGNMENT = 'assignment'
    UPDATE = 'update'
    USAGE = 'usage'
    NUDGE = 'nudge'
    REFUND = 'refund'


@dataclass(frozen=True)
class Attachment:
    """A file that goes with a mail: its name, and where it is to be had."""

    name: str
    url: str


@dataclass(frozen=True, repr=False)
class Email:
    """One mail, to one or several who do not learn of each other.

    ``body`` is HTML.  ``variables`` is given instead for mail whose text the vendor keeps: a campaign of Braze's, a
    template of Sailthru's.  Texts may be empty; only :attr:`to` and one of ``body`` and ``variables`` must not be.
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
    #: The shop's record of the assignment that the mail tells of.
    offer_assignment_id: int | str | None = None
    #: A campaign of Braze's other than the configured one.
    campaign_id: str = ''
    #: The LMS's id of those recipients who have one, as Braze knows them.
    lms_user_ids: Mapping[str, int | str] = field(default_factory=dict)
    #: The id of the task: the same whenever the mail is tried again.
    id: str = ''

    @override
    def __repr__(self) -> str:
        """Without contents: it may get into a traceback."""
        return f'<Email {self.purpose} {self.id} to {len(self.to)}>'


@dataclass(frozen=True)
class Receipt:
    """What a vendor says of a mail that it has accepted.

    ``id`` is its name for the mail; ``left`` are the recipients that it did not accept this time, fewer than all:
    they are tried apart from the others, so that one bad address does not sink the rest and nobody is mailed twice.
    """

    id: str
    left: tuple[str, ...] = ()


def is_address(text: str) -> bool:
    """Whether this is one mail address and nothing more."""
    return len(text) <= 254 and _ADDRESS.fullmatch(text) is not None


def one_line(text: str) -> str:
    """The text without anything that could end a header's line or hide in it, in one line."""
    return ' '.join(printable(text, ' ').split())


def sender(alias: str, address: str) -> str:
    """``From`` as RFC 5322 has it: ``"O'Reilly, Inc." <address>``.

    ``address`` may come in angle brackets.  What cannot be in a quoted display name is left out.
    """
    # "=?" would begin an encoded word (RFC 2047), which may hold anything, such as a line of its own.
    name = one_line(re.sub(r'["\\<>]|=\?', ' ', alias)) or DEFAULT_SENDER
    if not re.fullmatch(r"[\w !#$%&'*+/=?^`{|}~-]+", name):
        name = f'"{name}"'
    return f'{name} <{address.strip().removeprefix("<").removesuffix(">")}>'


def without_addresses(text: str) -> str:
    """What somebody else wrote, such as a vendor's reason, fit for a log line: no mail addresses, one line, short."""
    # Cut first: the pattern takes quadratic time.
    return _LIKE_AN_ADDRESS.sub('<address>', one_line(text[:1000]))[:300]
