"""Mail through Sailthru (now Marigold Engage), whose templates define the layout.

What is known of ``send``: https://getstarted.meetmarigold.com/engagebysailthru/Content/developers/api/send.html
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from html import escape
from typing import Any, Final

from ecommerce_worker.email.mailer import Connect
from ecommerce_worker.email.message import DEFAULT_SENDER, Email, Purpose, Receipt, one_line
from ecommerce_worker.errors import ApiError, Misconfigured, Rejected
from ecommerce_worker.retry import Regular
from ecommerce_worker.sailthru.client import Sailthru, code_of, is_unknown

#: Which of the templates in the setting ``SAILTHRU`` a mail takes.
TEMPLATES: Final[Mapping[Purpose, str]] = {
    Purpose.ASSIGNMENT: 'enterprise_portal_email',
    Purpose.UPDATE: 'enterprise_portal_email',
    Purpose.NUDGE: 'enterprise_portal_email',
    Purpose.USAGE: 'assignment_email',
    Purpose.REFUND: 'course_refund',
}

#: Refusals of an address, not of the mail: no address; opted out (of all, of this template, for good); bounced
#: before; takes basic mail only.
OF_AN_ADDRESS: Final = frozenset({11, 32, 33, 34, 35, 37})


def variables(email: Email) -> dict[str, Any]:
    """The variables of the template."""
    if email.purpose is Purpose.REFUND:
        return dict(email.variables)
    return {
        'subject': one_line(email.subject),
        'email_body': email.body + links(email),
        'sender_alias': one_line(email.sender_alias) or DEFAULT_SENDER,
        'base_enterprise_url': email.base_enterprise_url,
    }


def links(email: Email) -> str:
    """The attachments as HTML: a template has no other place for them."""
    return ''.join(f'<p><a href="{escape(it.url)}">{escape(one_line(it.name) or it.url)}</a></p>'
                   for it in email.attachments)


class Vendor:
    """Sailthru, with the options of the setting ``SAILTHRU``."""

    policy: Regular | None

    def __init__(self, options: Mapping[str, Any], connect: Connect) -> None:
        self._sailthru = Sailthru.of(options, connect)
        self._templates: Mapping[str, Any] = options.get('templates') or {}
        self.policy = Regular(options['SAILTHRU_RETRY_SECONDS'], options['SAILTHRU_RETRY_ATTEMPTS'])

    def send(self, email: Email) -> Receipt:
        """Send one mail to all its recipients at once; one by one if Sailthru rejects an address."""
        data = self._data(email)
        try:
            return self._send(email, data, email.to)
        except Rejected as refusal:
            if len(email.to) == 1 or code_of(refusal) not in OF_AN_ADDRESS:
                raise
        return self._send_one_by_one(email, data)

    def bounced(self, address: str) -> bool:
        """Whether Sailthru lists the address as a hard bounce."""
        try:
            user = self._sailthru.get('user', {'id': address, 'key': 'email', 'fields': {'engagement': 1}})
        except Rejected as refusal:
            if is_unknown(refusal):
                return False
            raise
        return str(user.get('engagement')).lower().replace(' ', '') == 'hardbounce'

    def _data(self, email: Email) -> dict[str, Any]:
        name = TEMPLATES[email.purpose]
        template = self._templates.get(name)
        if not template:
            raise Misconfigured([f'SAILTHRU[templates][{name}] is not set: there is no template for this mail'])
        reply_to = one_line(email.reply_to)
        return {'template': template, 'vars': variables(email), 'options': {'replyto': reply_to} if reply_to else {}}

    def _send(self, email: Email, data: Mapping[str, Any], to: tuple[str, ...]) -> Receipt:
        answer = self._sailthru.post('send', {**data, 'email': ','.join(to)})
        send_id = answer.get('send_id')
        # A mail to several may not have one id; it was accepted all the same.
        return Receipt(send_id if isinstance(send_id, str) and send_id else email.id)

    def _send_one_by_one(self, email: Email, data: Mapping[str, Any]) -> Receipt:
        """Mail the recipients one by one; accepted ones must not be mailed again."""
        receipt: Receipt | None = None
        left: list[str] = []
        problem: ApiError | None = None
        for number, address in enumerate(email.to):
            try:
                accepted = self._send(email, data, (address,))
            except ApiError as error:
                problem = error
                if code_of(error) not in OF_AN_ADDRESS:
                    left += email.to[number:]
                    break
                left.append(address)
            else:
                receipt = receipt or accepted
        if receipt:
            return replace(receipt, left=tuple(left))
        raise problem or Rejected('Sailthru got no recipients')
