"""Asking workers about themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from ecommerce_worker.broker.mailbox import answers

if TYPE_CHECKING:
    from celery import Celery

    from ecommerce_worker.broker.topology import Depth

#: The question, and what its answer has: the queues that a worker consumes, and how many messages it can neither park
#: nor send on at present.
STANDING: Final = 'ecommerce_standing'
QUEUES: Final = 'queues'
PARKED: Final = 'parked'
SENT_ON: Final = 'sent on'


def ask(app: Celery, queues: Iterable[Depth], seconds: float) -> dict[str, Mapping[str, Any]]:
    """The answers of our workers within so many seconds, by name.

    Returns early with as many answers as the ``queues`` have consumers.
    """
    consumers = {queue.name: queue.consumers for queue in queues if queue.consumers}
    most = max(consumers.values(), default=0)
    found = _ask(app, seconds, limit=most) if most else {}
    heard = {name: sum(name in answer[QUEUES] for answer in found.values()) for name in consumers}
    # Workers may consume different queues, and then there are more of them than any queue has consumers.
    return found if found and heard == consumers else {**found, **_ask(app, seconds)}


def _ask(app: Celery, seconds: float, **options: Any) -> dict[str, Mapping[str, Any]]:
    return {name: answer for name, answer in answers(app, STANDING, timeout=seconds, **options).items()
            if isinstance(answer, Mapping) and isinstance(answer.get(QUEUES), list)}


def held(found: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """How many messages they cannot park (``parked``) or publish (``sent on``)."""
    counts = [(name, answer.get(name)) for answer in found for name in (PARKED, SENT_ON)]
    return {name: total for name in (PARKED, SENT_ON)
            if (total := sum(number for what, number in counts if what == name and isinstance(number, int)))}
