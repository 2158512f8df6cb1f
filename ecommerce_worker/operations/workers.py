"""What workers answer about the messages that they have."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from celery import Celery

#: What cannot be done with a message that is kept, and the question to workers about it.
PARKED: Final = 'parked'
SENT_ON: Final = 'sent on'
KEPT: Final = 'ecommerce_messages_kept'


def kept(app: Celery, timeout: float) -> Counter[str]:
    """How many messages the workers can neither park (``parked``) nor send on (``sent on``) at present."""
    found: Counter[str] = Counter()
    for answer in app.control.broadcast(KEPT, reply=True, timeout=timeout):
        for told in answer.values():
            if isinstance(told, dict):
                found.update({name: number for name, number in told.items()
                              if name in (PARKED, SENT_ON) and isinstance(number, int)})
    return found
