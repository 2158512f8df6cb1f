"""A stand-in for an LMS: accounts, courses with their modes, and enrolments, behind the API that the worker asks.

It answers as Open edX does: 200 to an enrolment that is there already, 400 to a mode that is over, 406 to whoever is
not registered; ``enrollment_allowed`` since Quince, and before it a bulk enrolment that answers 200 whatever became of
it.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Self
from urllib.parse import parse_qs, unquote

from ecommerce_worker.testing.rabbitmq import free_port
from ecommerce_worker.testing.shop.server import Reply, Request, Server

CLIENT_ID: Final = 'demo-worker'
CLIENT_SECRET: Final = 'demo-client-secret'

_ENROLMENT: Final = '/api/enrollment/v1/enrollment'
_ALLOWED: Final = '/api/enrollment/v1/enrollment_allowed/'
_BULK: Final = '/api/bulk_enroll/v1/bulk_enroll'
_COURSES: Final = '/api/courses/v1/courses/'


@dataclass(frozen=True)
class Step:
    """What is to differ in one answer: another reply, or none; and whether what was asked for is done before that."""

    reply: Reply | None = None
    done: bool = False

    @classmethod
    def status(cls, status: int, headers: Mapping[str, str] | None = None) -> Self:
        """Answer so, and do nothing."""
        return cls(Reply(status, b'{}', {'Content-Type': 'application/json', **(headers or {})}))


#: Do it, and hang up before the answer.
LOST: Final = Step(done=True)


@dataclass
class Course:
    """A course: the modes that it is offered in, of which it begins with the first, and those whose time is over."""

    modes: tuple[str, ...] = ('audit', 'verified')
    expired: frozenset[str] = frozenset()
    closed: bool = False


@dataclass
class Student:
    """An account, and how it stands in courses: mode and whether that is active, by the id of the course."""

    username: str
    enrolments: dict[str, tuple[str, bool]] = field(default_factory=dict)
    #: The numbers of orders, by the id of the course.
    orders: dict[str, list[str]] = field(default_factory=dict)
    #: Whether the address is confirmed.
    active: bool = True
    #: When the account was made, as the LMS writes it.
    joined: str = field(default_factory=lambda: f'{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}')


class Lms:
    """The stand-in, in this process; may be used from any thread.

    ``quince`` is whether it has ``enrollment_allowed``.
    """

    def __init__(self, *, port: int = 0, quince: bool = True) -> None:
        self.port = port or free_port()
        self.url = f'http://127.0.0.1:{self.port}/'
        self.oauth2_root = self.url + 'oauth2/'
        self.quince = quince
        self.courses: dict[str, Course] = {}
        self.students: dict[str, Student] = {}
        #: Who is let in when they register: addresses and ids of courses.
        self.allowed: set[tuple[str, str]] = set()
        #: Modes that were set, in this order: username, course, mode, whether active.
        self.changes: list[tuple[str, str, str, bool]] = []
        #: What was asked: method and path.
        self.asked: list[tuple[str, str]] = []
        #: What the next answers are to be, by method and the end of the path: ``'POST enrollment'``.
        self.script: dict[str, list[Step]] = {}
        self._tokens: set[str] = set()
        self._lock = threading.RLock()
        self._server: Server | None = None

    def start(self) -> None:
        """Listen; after `stop` again on the same port, with all that it knows."""
        self._server = Server(self.port, self.serve, None)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), name='lms', daemon=True).start()

    def stop(self) -> None:
        """Refuse new connections and cut the open ones."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def register(self, email: str, username: str, *, active: bool = True) -> Student:
        """Make an account, whose address is confirmed at once or, if not ``active``, by :meth:`confirm`."""
        with self._lock:
            student = self.students[email.casefold()] = Student(username, active=False)
            if active:
                self.confirm(email)
            return student

    def confirm(self, email: str) -> None:
        """Confirm the address of an account; whoever was let in is in the course then, in its first mode."""
        with self._lock:
            student = self.students[email.casefold()]
            student.active = True
            for _, course in sorted(it for it in self.allowed if it[0] == email.casefold()):
                if not student.enrolments.get(course, ('', False))[1]:
                    student.enrolments[course] = (self.courses[course].modes[0], True)

    def standing(self, email: str, course_id: str) -> tuple[str, bool] | None:
        """The mode of a learner in a course, and whether it is active; None if they never were in it."""
        with self._lock:
            student = self.students.get(email.casefold())
            return student.enrolments.get(course_id) if student else None

    def revoke_tokens(self) -> None:
        """Know none of the tokens given out so far."""
        with self._lock:
            self._tokens.clear()

    def serve(self, request: Request) -> Reply | None:
        """Answer a request; None hangs up."""
        with self._lock:
            path = unquote(request.path)
            self.asked.append((request.method, path))
            if path.rstrip('/') == '/oauth2/access_token':
                return self._token(request)
            if request.headers.get('authorization', '').removeprefix('JWT ') not in self._tokens:
                return Reply.of({'detail': 'Error decoding token.'}, 401)
            step = self._step(request.method, path)
            if step is None:
                return self._answer(request, path)
            if step.done:
                self._answer(request, path)
            return step.reply

    def _step(self, method: str, path: str) -> Step | None:
        for what, steps in self.script.items():
            verb, _, end = what.partition(' ')
            if steps and verb == method and path.rstrip('/').endswith(end):
                return steps.pop(0)
        return None

    def _token(self, request: Request) -> Reply:
        form = {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
        if (form.get('client_id'), form.get('client_secret')) != (CLIENT_ID, CLIENT_SECRET):
            return Reply.of({'error': 'invalid_client'}, 401)
        self._tokens.add(token := secrets.token_hex(8))
        return Reply.of({'access_token': token, 'token_type': 'JWT', 'expires_in': 3600})

    def _answer(self, request: Request, path: str) -> Reply:
        body = json.loads(request.body) if request.body else {}
        match request.method:
            case 'GET' if path == '/api/user/v1/accounts':
                return self._account(parse_qs(request.query).get('email', [''])[0])
            case 'GET' if path.startswith(_ENROLMENT + '/'):
                username, _, course_id = path.removeprefix(_ENROLMENT + '/').partition(',')
                return self._shown(username, course_id)
            case 'GET' if path.startswith(_COURSES):
                course_id = path.removeprefix(_COURSES).rstrip('/')
                return Reply.of({'id': course_id}) if course_id in self.courses else _not_found()
            case 'POST' if path == _ENROLMENT:
                return self._enrol(body)
            case 'POST' | 'DELETE' if path == _ALLOWED and self.quince:
                return self._allow(request.method, body['email'].casefold(), body['course_id'])
            case 'POST' if path == _BULK:
                return self._bulk(body)
        return Reply(404, b'<html><h1>Page not found</h1></html>', {'Content-Type': 'text/html'})

    def _account(self, email: str) -> Reply:
        student = self.students.get(email.casefold())
        return Reply.of([{'username': student.username, 'email': email,
                          'is_active': student.active, 'date_joined': student.joined}]) if student else _not_found()

    def _by_username(self, username: str) -> Student | None:
        return next((it for it in self.students.values() if it.username == username), None)

    def _shown(self, username: str, course_id: str) -> Reply:
        student = self._by_username(username)
        if student is None or course_id not in student.enrolments:
            return Reply(200, b'', {'Content-Type': 'application/json'})
        mode, active = student.enrolments[course_id]
        return Reply.of({'created': '2026-01-01T00:00:00Z', 'mode': mode, 'is_active': active, 'user': username,
                         'course_details': {'course_id': course_id}})

    def _enrol(self, body: Mapping[str, Any]) -> Reply:
        course_id, mode = body['course_details']['course_id'], body['mode']
        course, student = self.courses.get(course_id), self._by_username(body['user'])
        if student is None:
            return Reply.of({'message': f'The user {body["user"]} does not exist.'}, 406)
        if course is None:
            return Reply.of({'message': f"No course '{course_id}' found for enrollment"}, 400)
        before, active = student.enrolments.get(course_id), body['is_active']
        force = body.get('force_enrollment', False)
        if course.closed and not force and not before:
            return Reply.of({'message': 'Enrollment is closed'}, 403)
        if not active and before and before[0] != mode:
            return Reply.of({'message': 'The mode is not that of the enrollment'}, 400)
        late = mode in course.expired and not (force and not before)
        if active and (mode not in course.modes or (late and before != (mode, True))):
            return Reply.of({'message': f'The [{mode}] course mode is expired or otherwise unavailable',
                             'course_details': {}}, 400)
        student.enrolments[course_id] = (mode, active)
        student.orders.setdefault(course_id, []).extend(
            it['value'] for it in body.get('enrollment_attributes', ()))
        if before != (mode, active):
            self.changes.append((student.username, course_id, mode, active))
        return self._shown(student.username, course_id)

    def _allow(self, method: str, email: str, course_id: str) -> Reply:
        if method == 'DELETE':
            if (email, course_id) not in self.allowed:
                return Reply.of({'message': 'not allowed'}, 404)
            self.allowed.discard((email, course_id))
            return Reply(204)
        if course_id not in self.courses:
            return Reply.of({'message': 'Invalid course'}, 400)
        if (email, course_id) in self.allowed:
            return Reply.of({'message': 'is already allowed'}, 409)
        self.allowed.add((email, course_id))
        return Reply.of({'email': email, 'course_id': course_id, 'auto_enroll': True}, 201)

    def _bulk(self, body: Mapping[str, Any]) -> Reply:
        email, course_id = body['identifiers'], body['courses']
        if course_id not in self.courses:
            return _not_found()
        before = {'enrollment': False, 'allowed': (email.casefold(), course_id) in self.allowed}
        if body['action'] == 'unenroll':
            self.allowed.discard((email.casefold(), course_id))
        else:
            self.allowed.add((email.casefold(), course_id))
        after = {'enrollment': False, 'allowed': (email.casefold(), course_id) in self.allowed}
        return Reply.of({'action': body['action'], 'courses': {course_id: {
            'action': body['action'], 'results': [{'identifier': email, 'before': before, 'after': after}]}}})


def _not_found() -> Reply:
    return Reply.of({'detail': 'Not found.'}, 404)
