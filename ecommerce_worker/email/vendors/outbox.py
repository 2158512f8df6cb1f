"""Writes mail to files instead of sending it: for development, and until there is a vendor."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ecommerce_worker.email.mailer import Connect
from ecommerce_worker.email.message import Email, Receipt
from ecommerce_worker.email.mime import ADDRESS, composed, safe_id
from ecommerce_worker.errors import Transient
from ecommerce_worker.plugins import read_options
from ecommerce_worker.settings import in_home
from ecommerce_worker.settings.kinds import TEXT

OPTIONS = {'directory': TEXT, 'from_email': ADDRESS}
DEFAULTS = {'directory': '~/.ecommerce-worker/outbox', 'from_email': 'shop@example.com'}


class Vendor:
    """One ``.eml`` file for each mail, as smtp would send it, except that attachments are linked.

    A repeated mail replaces its file.
    """

    policy = None

    def __init__(self, options: Mapping[str, Any], connect: Connect) -> None:  # noqa: ARG002 - there is no service
        found = read_options(options, OPTIONS, DEFAULTS)
        self._directory = in_home(found['directory'], 'EMAIL_OPTIONS[directory]')
        self._from_email = found['from_email']

    def send(self, email: Email) -> Receipt:
        """Write the mail atomically, to a file that only the worker's user can read."""
        name = f'{email.purpose}-{safe_id(email.id)}.eml'
        # Before the file system is touched: errors here are not its fault.
        content = composed(email, self._from_email)
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self._directory, prefix='.', suffix='.part', delete=False) as file:
                path = Path(file.name)
                try:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                    path.replace(self._directory / name)
                except BaseException:
                    path.unlink(missing_ok=True)
                    raise
        except OSError as error:
            raise Transient(f'the outbox cannot be written: {error.strerror}') from None
        return Receipt(name)

    def bounced(self, address: str) -> bool:  # noqa: ARG002
        """Mail in files never bounces."""
        return False
