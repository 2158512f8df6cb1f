"""Intakes made of functions: the function maps a delivery to a task, and a scheme verifies its signature."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar
from uuid import uuid4

from typing_extensions import override

from ecommerce_worker.execution.outcomes import Then
from ecommerce_worker.intake import source
from ecommerce_worker.intake.source import Delivery, Event
from ecommerce_worker.intake.sources import hmac, standard, submit

#: Returns the task for a delivery, or the reason for which it is ignored.
Body = Callable[[Delivery], Then | str]


class Function(source.Source):
    """A kind of intake made of a function; :func:`intake` makes one class for each."""

    DECIDES: ClassVar = True

    #: Its name in ``INTAKES``.
    NAME: ClassVar[str]
    #: How its deliveries are signed.
    scheme: ClassVar[source.Source]
    #: The header of the sender's id; '' if there is none.
    id: ClassVar[str]
    body: ClassVar[Body]

    @override
    def key(self, secret: str) -> bytes:
        """As defined by the scheme."""
        return self.scheme.key(secret)

    @override
    def verify(self, delivery: Delivery, keys: Sequence[bytes]) -> None:
        """As defined by the scheme."""
        self.scheme.verify(delivery, keys)

    @override
    def event(self, delivery: Delivery) -> Event:
        """The result of the function."""
        sent = (delivery.header(self.id) if self.id else '') or delivery.digest
        found = type(self).body(delivery)
        if isinstance(found, Then):
            return Event('', sent, found.kwargs, then=found)
        if not isinstance(found, str):
            raise TypeError(f'{self.NAME} must return a Then or a string')
        return Event('', sent, {}, ignored=found or 'nothing to do')

    @override
    def signed(self, body: bytes, key: bytes, topic: str, now: float) -> dict[str, str]:
        """As defined by the scheme, with an id."""
        headers = self.scheme.signed(body, key, topic, now)
        if self.id and self.id.lower() not in map(str.lower, headers):
            headers[self.id] = str(uuid4())
        return headers


def intake(name: str, *, scheme: source.Source, id: str = '',  # noqa: A002 - what it is
           repeats: bool = True) -> Callable[[Body], type[Function]]:
    """Make a function a kind of intake, for ``kind: <name>`` in ``INTAKES``.

    The function is called with a verified delivery and returns the task to run, as a ``Then``, or the reason for
    ignoring the delivery.  It must use neither network nor disk.  ``scheme`` is how deliveries are signed; ``id`` the
    header with the sender's id of a delivery (the body identifies it if not given); ``repeats`` whether the sender
    retries a delivery that was answered 503.
    """
    def made(body: Body) -> type[Function]:
        return type(body.__name__, (Function,), {
            '__doc__': body.__doc__, '__module__': body.__module__, 'NAME': name, 'scheme': scheme, 'id': id,
            'REPEATS': repeats, 'FORMS': scheme.FORMS, 'body': staticmethod(body)})

    return made


class Hmac(hmac.Source):
    """A MAC of the body in a header: ``sha256``, ``sha512`` or ``sha1`` as ``hex`` or ``base64``, after a prefix."""

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
    """The kinds that a module defines."""
    return list({id(it): it for it in vars(holder).values()
                 if isinstance(it, type) and issubclass(it, Function) and it is not Function}.values())
