"""A kind of intake that is a function: it says what is to be done about a delivery, and a scheme how that is signed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar
from uuid import uuid4

from typing_extensions import override

from ecommerce_worker.execution.outcomes import Then
from ecommerce_worker.intake import source
from ecommerce_worker.intake.source import Delivery, Event
from ecommerce_worker.intake.sources import hmac, standard, submit

#: What is to be done about a delivery, or why there is nothing to do.
Body = Callable[[Delivery], Then | str]


class Function(source.Source):
    """A kind that a function makes; each is a class of its own, made by :func:`intake`."""

    DECIDES: ClassVar = True

    #: What ``INTAKES`` names it by.
    NAME: ClassVar[str]
    #: How its deliveries are signed.
    scheme: ClassVar[source.Source]
    #: The header of the sender's id; '' if there is none.
    id: ClassVar[str]
    body: ClassVar[Body]

    @override
    def key(self, secret: str) -> bytes:
        """As the scheme has it."""
        return self.scheme.key(secret)

    @override
    def verify(self, delivery: Delivery, keys: Sequence[bytes]) -> None:
        """As the scheme has it."""
        self.scheme.verify(delivery, keys)

    @override
    def event(self, delivery: Delivery) -> Event:
        """What the function says."""
        sent = (delivery.header(self.id) if self.id else '') or delivery.digest
        found = type(self).body(delivery)
        if isinstance(found, Then):
            return Event('', sent, found.kwargs, then=found)
        if not isinstance(found, str):
            raise TypeError(f'{self.NAME} returns neither Then nor a reason')
        return Event('', sent, {}, ignored=found or 'nothing to do')

    @override
    def signed(self, body: bytes, key: bytes, topic: str, now: float) -> dict[str, str]:
        """As the scheme has it, with an id."""
        headers = self.scheme.signed(body, key, topic, now)
        if self.id and self.id.lower() not in map(str.lower, headers):
            headers[self.id] = str(uuid4())
        return headers


def intake(name: str, *, scheme: source.Source, id: str = '',  # noqa: A002 - what it is
           repeats: bool = True) -> Callable[[Body], type[Function]]:
    """Make a kind of intake of a function, for ``kind: <name>`` in ``INTAKES``.

    The function gets what is shown to be genuine, and returns the task that is to run, as a ``Then``; or the reason for
    which there is nothing to do.  It touches neither network nor disk.  ``scheme`` is how deliveries are signed,
    ``id`` the header by which the sender tells them apart (by their bodies if not given), and ``repeats`` whether it
    delivers again what was answered 503.
    """
    def made(body: Body) -> type[Function]:
        return type(body.__name__, (Function,), {
            '__doc__': body.__doc__, '__module__': body.__module__, 'NAME': name, 'scheme': scheme, 'id': id,
            'REPEATS': repeats, 'FORMS': scheme.FORMS, 'body': staticmethod(body)})

    return made


class Hmac(hmac.Source):
    """A code over the body in a header: ``sha256``, ``sha512`` or ``sha1`` as ``hex`` or ``base64``, after a prefix."""

    def __init__(self, header: str, *, prefix: str = '', encoding: str = 'hex', digest: str = 'sha256') -> None:
        super().__init__({**self.DEFAULTS, 'header': header, 'prefix': prefix, 'encoding': encoding, 'digest': digest})


class Standard(standard.Source):
    """Standard Webhooks; the header ``Webhook-Id`` is signed too, and is what to give as ``id``."""

    def __init__(self) -> None:
        super().__init__(self.DEFAULTS)


class Token(submit.Source):
    """The secret itself, as ``Authorization: Bearer``; nothing is signed."""

    def __init__(self) -> None:
        super().__init__(self.DEFAULTS)


def of(holder: Any) -> list[type[Function]]:
    """The kinds that a module holds."""
    return list({id(it): it for it in vars(holder).values()
                 if isinstance(it, type) and issubclass(it, Function) and it is not Function}.values())
