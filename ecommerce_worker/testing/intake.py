"""What every source of an intake keeps to, as a class of tests for pytest; and an intake in memory.

A ``conftest.py`` with ``pytest.register_assert_rewrite('ecommerce_worker.testing.intake')`` has pytest explain what
failed.  pytest must be installed.
"""

from __future__ import annotations

import inspect
import io
import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import pytest

from ecommerce_worker.broker.publishing import Publication
from ecommerce_worker.errors import NotPublished
from ecommerce_worker.intake.application import Application
from ecommerce_worker.intake.counts import Counts
from ecommerce_worker.intake.intakes import Action, Intake, Secrets, find
from ecommerce_worker.intake.source import Source
from ecommerce_worker.telemetry.run import RunReport

#: Secrets of all kinds: any text is one for most, and these are for Standard Webhooks too.
SECRET: Final = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'
OTHER_SECRET: Final = 'whsec_c2l4dGVlbi1ieXRlcy1vci1tb3JlLW9mLWl0'

#: What stands in place of each value of a body, one after the other.
STRANGE: Final[tuple[Any, ...]] = (None, True, 0, -1, 1.5, '', 'x', '\x00', '\ud800', [], {}, ['x'], {'x': 1}, 10 ** 30)


def fulfill(order_number: str, site_code: str | None = None, **others: Any) -> None:
    """What the task is called with; nothing runs it."""


@dataclass(frozen=True)
class Answered:
    """The response to a sender."""

    status: int
    content: Mapping[str, Any]
    headers: Mapping[str, str]

    @property
    def state(self) -> str:
        """What is said to have become of it."""
        return str(self.content.get('state', ''))


class InMemory:
    """An intake; what it publishes is kept in ``published``, unless there is ``trouble``."""

    def __init__(self, intake: Intake) -> None:
        self.intake = intake
        self.source: Source = intake.source
        self.published: list[Publication] = []
        self.trouble = ''
        self._application = Application({intake.name: intake}, {intake.name: self}, Counts(),
                                        lambda: not self.trouble)

    def publish(self, publication: Publication, fact: RunReport | None = None) -> None:
        """As a broker would."""
        del fact
        if self.trouble:
            raise NotPublished(self.trouble)
        self.published.append(publication)

    def calls(self) -> list[dict[str, Any]]:
        """The arguments of all calls so far."""
        return [json.loads(each.raw.body)[1] for each in self.published if each.raw.headers.get('task')]

    def post(self, body: bytes, headers: Mapping[str, str]) -> Answered:
        """What it answers."""
        return posted(self._application, self.intake.name, body, headers)


class MemoryIntake(InMemory):
    """An intake of this kind, whose topic is mapped to a task that is never run."""

    def __init__(self, kind: str, topic: str, /, *, secrets: Sequence[str] = (SECRET,),
                 arguments: Mapping[str, str] | None = None, **options: Any) -> None:
        cls = find(kind)
        source: Source = cls({**cls.DEFAULTS, **options})
        action = Action('acme.fulfill', 'order_number', inspect.signature(fulfill))
        super().__init__(Intake('shop', source, Secrets(secrets, source.key), {topic: action},
                                arguments=arguments or {}))


def posted(application: Application, name: str, body: bytes, headers: Mapping[str, str]) -> Answered:
    """What the intake of this name answers to a delivery."""
    environ: dict[str, Any] = {'REQUEST_METHOD': 'POST', 'PATH_INFO': f'/in/{name}', 'wsgi.input': io.BytesIO(body),
                               'CONTENT_LENGTH': str(len(body))}
    for header, value in headers.items():
        plain = header.upper().replace('-', '_')
        environ[plain if plain == 'CONTENT_TYPE' else f'HTTP_{plain}'] = value
    said: list[tuple[str, list[tuple[str, str]]]] = []
    content = b''.join(application(environ, lambda status, given: said.append((status, given))))
    status, given = said[0]
    return Answered(int(status[:3]), json.loads(content) if content else {}, dict(given))


class SourceContract:
    """The tests; a class with these as its base, whose name begins with ``Test``, runs them."""

    #: The kind, as ``INTAKES`` names it, and its options.
    kind: ClassVar[str]
    options: ClassVar[Mapping[str, Any]] = {}
    #: Where the arguments stand, unless the kind knows.
    arguments: ClassVar[Mapping[str, str]] = {}
    #: A delivery that is acted on, of order EDX-1, which holds ``ann@example.com`` somewhere; and some that are not.
    topic: ClassVar[str]
    good: ClassVar[Mapping[str, Any]]
    ignored: ClassVar[Sequence[Mapping[str, Any]]] = ()
    #: The arguments that the task is called with then; None where any will do.
    called: ClassVar[Mapping[str, Any] | None] = {'order_number': 'EDX-1'}
    #: What is in it that no log and no answer shows.
    private: ClassVar[Sequence[str]] = ('ann@example.com',)
    #: Whether the body is signed, and whether the time is.
    signs: ClassVar[bool] = True
    signs_time: ClassVar[bool] = False

    @pytest.fixture
    def intake(self) -> InMemory:
        """An intake of this kind."""
        return self.made()

    def made(self, **changed: Any) -> InMemory:
        """An intake of this kind, with other options."""
        return MemoryIntake(self.kind, self.topic, **{'arguments': self.arguments, **self.options, **changed})

    def headers(self, body: bytes, secret: str = SECRET, late: float = 0.0) -> dict[str, str]:
        """The headers of a delivery that was signed so many seconds ago."""
        source = self.made().source
        return source.signed(body, source.key(secret), self.topic, time.time() - late)

    @property
    def body(self) -> bytes:
        """The good delivery, as bytes."""
        return json.dumps(self.good).encode()

    def test_a_genuine_delivery_is_a_call_with_nothing_but_the_arguments(self, intake: InMemory) -> None:
        """It is published, and then answered."""
        answer = intake.post(self.body, self.headers(self.body))
        assert (answer.status, answer.content['state']) == (202 if intake.source.ANSWERS else 200, 'accepted')
        call, = intake.calls()
        assert self.called in (None, call)

    def test_without_a_signature_it_is_401(self, intake: InMemory) -> None:
        """Whatever else there is."""
        kept = {name: value for name, value in self.headers(self.body).items() if name == 'Content-Type'}
        assert (answer := intake.post(self.body, kept)).status == 401
        assert not answer.content

    def test_with_another_secret_it_is_401(self, intake: InMemory) -> None:
        """And nothing tells why."""
        assert (answer := intake.post(self.body, self.headers(self.body, OTHER_SECRET))).status == 401
        assert not answer.content

    def test_each_of_several_secrets_will_do(self) -> None:
        """So that they can be changed without a gap."""
        intake = self.made(secrets=(OTHER_SECRET, SECRET))
        for number, secret in enumerate((SECRET, OTHER_SECRET)):
            body = json.dumps({**self.good, 'x': number}).encode()
            assert intake.post(body, self.headers(body, secret)).status in (200, 202)

    def test_with_any_byte_changed_it_is_401(self, intake: InMemory) -> None:
        """Each byte of the body."""
        if not self.signs:
            pytest.skip('the body is not signed')
        headers = self.headers(self.body)
        for place in range(len(self.body)):
            changed = bytearray(self.body)
            changed[place] ^= 1
            assert intake.post(bytes(changed), headers).status == 401
        assert not intake.published

    def test_five_minutes_old_it_is_401_and_so_it_is_from_the_future(self, intake: InMemory) -> None:
        """Where the time is signed."""
        if not self.signs_time:
            pytest.skip('the time is not signed')
        assert intake.post(self.body, self.headers(self.body, late=310)).status == 401
        assert intake.post(self.body, self.headers(self.body, late=-310)).status == 401
        assert intake.post(self.body, self.headers(self.body, late=290)).status == 200

    def test_delivered_twice_it_is_published_once(self, intake: InMemory) -> None:
        """And in another process under the same id."""
        headers = self.headers(self.body)
        first, second = (intake.post(self.body, headers) for _ in range(2))
        assert first.content['id'] == second.content['id']
        assert len(intake.published) == 1
        assert self.made().post(self.body, headers).content['id'] == first.content['id']

    def test_what_is_of_no_interest_is_200_with_the_reason(self, intake: InMemory) -> None:
        """Each of those in ``ignored``."""
        for content in self.ignored:
            body = json.dumps(content).encode()
            answer = intake.post(body, self.headers(body))
            assert (answer.status, answer.content['state']) == (200, 'ignored'), content
            assert answer.content['reason']
        assert not intake.published

    def test_what_is_no_json_is_parked_as_it_came(self, intake: InMemory) -> None:
        """Or, where answers are read, refused."""
        body = b'{"half": '
        answer = intake.post(body, self.headers(body))
        if intake.source.ANSWERS:
            assert answer.status == 400
        else:
            assert (answer.status, answer.content['state']) == (200, 'parked')
            assert [each.raw.body for each in intake.published] == [body]

    def test_with_strange_values_in_any_place_it_is_answered(self, caplog: pytest.LogCaptureFixture) -> None:
        """And never by a programming error."""
        for content in _strange(dict(self.good)):
            intake, body = self.made(), json.dumps(content).encode()
            answer = intake.post(body, self.headers(body))
            assert answer.status in ((202, 400, 422) if intake.source.ANSWERS else (200,)), content
        assert not [record for record in caplog.records if 'programming error' in record.getMessage()]

    def test_larger_than_it_may_be_it_is_413(self, intake: InMemory) -> None:
        """A byte more is enough."""
        body = b'x' * (intake.intake.max_bytes + 1)
        assert intake.post(body, self.headers(body)).status == 413

    def test_while_the_broker_does_not_confirm_it_is_503(self, intake: InMemory) -> None:
        """And delivered again, it is taken."""
        headers = self.headers(self.body)
        intake.trouble = 'the broker cannot be reached'
        assert (answer := intake.post(self.body, headers)).status == 503
        assert int(answer.headers['Retry-After']) > 0
        intake.trouble = ''
        assert intake.post(self.body, headers).content['state'] == 'accepted'
        assert len(intake.published) == 1

    def test_no_log_and_no_answer_shows_what_is_in_it(self, intake: InMemory,
                                                      caplog: pytest.LogCaptureFixture) -> None:
        """Whatever becomes of it."""
        caplog.set_level(logging.DEBUG)
        half = self.body[:-1]
        answers = [intake.post(self.body, self.headers(self.body)), intake.post(half, self.headers(half)),
                   intake.post(self.body, self.headers(self.body, OTHER_SECRET))]
        shown = caplog.text + ''.join(str(answer) for answer in answers)
        for private in (*self.private, SECRET, OTHER_SECRET):
            assert private not in shown


def _strange(content: Any) -> Iterator[Any]:
    """The content with each of its values replaced by each strange one, and without it."""
    if isinstance(content, dict):
        for name, value in content.items():
            yield {other: each for other, each in content.items() if other != name}
            for strange in (*STRANGE, *_strange(value)):
                yield {**content, name: strange}
    elif isinstance(content, list):
        for place, value in enumerate(content):
            for strange in (*STRANGE, *_strange(value)):
                yield [*content[:place], strange, *content[place + 1:]]
