"""A message as delivered to this worker."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from ecommerce_worker.broker.notes import NOTES, Notes
from ecommerce_worker.broker.wire import Call, Raw

#: The header under which the worker's consumer hands a :class:`Delivery` to the task.
DELIVERY: Final = 'ecommerce_delivery'

#: What identifies a message.
Message = tuple[str, ...]


@dataclass(frozen=True)
class Delivery:
    """A message as delivered to this worker: what was read, and the raw form to fall back on."""

    call: Call
    raw: Raw
    notes: Notes
    redelivered: bool = False

    @property
    def queue(self) -> str:
        """The queue that it returns to."""
        return self.notes.queue

    @property
    def message(self) -> Message:
        """What identifies this message among all others, its own next try included; unchanged on redelivery.

        Its id alone does not: a publisher may give the same id to several.
        """
        content = hashlib.blake2b(self.raw.body, digest_size=16).hexdigest()
        return self.call.id, self.call.task, str(self.call.retries), repr(self.raw.headers.get(NOTES)), content

    @property
    def inherited(self) -> int:
        """The retries that a worker before 4.0 had counted; a resend by a person resets them."""
        return 0 if self.notes.resent else self.call.retries

    @property
    def earlier(self) -> int:
        """How many runs were started before this one, as far as is known."""
        return self.notes.attempt + self.notes.redelivered + self.inherited

    @property
    def unsure(self) -> bool:
        """Whether an earlier run may have taken effect without our knowing."""
        return self.redelivered or self.notes.unsure or self.notes.redelivered > 0

    @property
    def repeated(self) -> bool:
        """Whether another run may already have taken effect, in whole or in part."""
        return bool(self.redelivered or self.earlier or self.notes.resent or self.notes.ask)
