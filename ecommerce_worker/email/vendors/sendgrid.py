"""Mail through SendGrid: its API v3, https://www.twilio.com/docs/sendgrid/api-reference/mail-send."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from ecommerce_worker.clients.auth import Bearer
from ecommerce_worker.email.mailer import Connect
from ecommerce_worker.email.message import Email, Receipt, one_line, sender, without_addresses
from ecommerce_worker.email.mime import ADDRESS, reply_address, text_of, with_links
from ecommerce_worker.errors import Rejected
from ecommerce_worker.plugins import read_options
from ecommerce_worker.settings.kinds import SECRET, URL

OPTIONS: Final = {'api_key': SECRET, 'from_email': ADDRESS, 'api_url': URL}
DEFAULTS: Final = {'api_url': 'https://api.sendgrid.com/'}  # in the EU: https://api.eu.sendgrid.com/

#: How many recipients a request may have.
BATCH: Final = 1000


class Vendor:
    """SendGrid. It cannot fetch files by URL, so attachments are linked."""

    policy = None

    def __init__(self, options: Mapping[str, Any], connect: Connect) -> None:
        found = read_options(options, OPTIONS, DEFAULTS)
        self._from_email = found['from_email']
        self._api = connect(found['api_url'], peer='SendGrid', signer=Bearer(found['api_key']))

    def send(self, email: Email) -> Receipt:
        """Send the mail in one request, which SendGrid accepts for all recipients or for none."""
        try:
            # The answer is empty; SendGrid's own id would be in a header.  Its events tell ours, as ``id``.
            self._api.request('POST', 'v3/mail/send', json=message(email, self._from_email))
        except Rejected as error:
            raise type(error)(f'{error}{reason(error.answer)}', status=error.status) from None
        return Receipt(email.id or 'accepted', email.to[BATCH:])

    def bounced(self, address: str) -> bool:
        """Whether SendGrid lists the address as bounced."""
        return bool(self._api.request('GET', f'v3/suppression/bounces/{quote(address, safe="@")}'))


def message(email: Email, from_email: str) -> dict[str, Any]:
    """The body of a request that mails each recipient separately."""
    body = with_links(email.body, email.attachments)
    reply_to = reply_address(email)
    name, _, _ = sender(email.sender_alias, from_email).rpartition(' ')
    return {
        'personalizations': [{'to': [{'email': address}]} for address in email.to[:BATCH]],
        'from': {'email': from_email, 'name': name.strip('"')},
        **({'reply_to': {'email': reply_to}} if reply_to else {}),
        'subject': one_line(email.subject),
        'content': [{'type': 'text/plain', 'value': text_of(body)}, {'type': 'text/html', 'value': body}],
        'categories': [str(email.purpose)],
        'custom_args': {'id': email.id},
    }


def reason(answer: Any) -> str:
    """SendGrid's reason for a refusal, ``{"errors": [{"message": ...}]}``, as the end of a sentence."""
    errors = answer.get('errors') if isinstance(answer, Mapping) else None
    texts = [str(error['message']) for error in errors if isinstance(error, Mapping) and error.get('message')
             ] if isinstance(errors, list) else []
    return f': {without_addresses("; ".join(texts))}' if texts else ''
