"""Mail through Acme: https://docs.acme.example/mail"""

from collections.abc import Mapping
from typing import Any

from ecommerce_worker.extension import (
    ADDRESS,
    SECRET,
    URL,
    Bearer,
    Connect,
    Email,
    Receipt,
    Rejected,
    one_line,
    read_options,
    reply_address,
    sender,
    with_links,
    without_addresses,
)

OPTIONS = {'api_key': SECRET, 'from_email': ADDRESS, 'api_url': URL}
DEFAULTS = {'api_url': 'https://api.acme.example/v1/'}  # options without a default are required


class Vendor:
    """Acme, which takes all recipients in one request and mails each separately."""

    policy = None

    def __init__(self, options: Mapping[str, Any], connect: Connect) -> None:
        found = read_options(options, OPTIONS, DEFAULTS)
        self._from_email = found['from_email']
        self._api = connect(found['api_url'], peer='Acme', signer=Bearer(found['api_key']))

    def send(self, email: Email) -> Receipt:
        """Send one mail."""
        try:
            answer = self._api.request('POST', 'messages', json={
                'from': sender(email.sender_alias, self._from_email),
                'reply_to': reply_address(email) or None,
                'to': list(email.to),
                'subject': one_line(email.subject),
                'html': with_links(email.body, email.attachments),
                'idempotency_key': email.id,
            })
        except Rejected as error:
            reason = without_addresses(str(error.answer))
            raise type(error)(f'{error}: {reason}', status=error.status) from None
        return Receipt(str(answer['id']))

    def bounced(self, address: str) -> bool:
        """Whether mail to this address bounced permanently."""
        return bool(self._api.request('GET', 'bounces', params={'email': address}))
