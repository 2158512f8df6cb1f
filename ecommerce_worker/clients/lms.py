"""The REST API of the LMS, as far as enrolments need it.

Facts: ``openedx/core/djangoapps/enrollments/views.py`` of openedx/edx-platform, which has answered so since 2016;
``enrollment_allowed`` is there since Quince, ``bulk_enroll`` before that.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from typing_extensions import override

from ecommerce_worker.clients.http import Api
from ecommerce_worker.durations import moment
from ecommerce_worker.errors import NotFound, PeerFailure, Rejected, Transient, Unauthorized, WrongArguments
from ecommerce_worker.settings.kinds import COURSE_ID, MODE

_ENROLMENT: Final = 'api/enrollment/v1/enrollment'
_ALLOWED: Final = 'api/enrollment/v1/enrollment_allowed/'
_BULK: Final = 'api/bulk_enroll/v1/bulk_enroll'
_STAFF: Final = 'to act for others, the user of BACKEND_SERVICE_EDX_OAUTH2_KEY must be global staff'
#: What a proxy in front of the LMS answers that has asked it, and has no answer.
_LOST: Final = (502, 504)
_USERNAME = re.compile(r'[\w.@+-]{1,150}')


class NotRegistered(Transient):
    """No account has that address; retry when the learner has registered."""


@dataclass(frozen=True)
class Account:
    """An account.  Until its address is confirmed it is not ``active``, and the LMS admits it to no course.

    ``joined`` is when it was made, in epoch seconds; None if the LMS does not say.
    """

    username: str
    active: bool
    joined: float | None = None


@dataclass(frozen=True)
class Enrolment:
    """The enrolment of a learner in a course."""

    mode: str
    active: bool

    @override
    def __str__(self) -> str:
        """For display."""
        return self.mode if self.active else f'{self.mode}, not active'


class Lms:
    """The enrolments of one LMS.

    Raises :class:`~ecommerce_worker.errors.Rejected` for what only people can help, with a sentence for them;
    ``Transient`` for all that passes, credentials that are not accepted at present too; ``maybe_done`` is one after
    which a change that was sent may have been made.  No text of an error names a learner.
    """

    def __init__(self, api: Api) -> None:
        self._api = api
        self._peer = api.peer

    def username(self, email: str) -> str:
        """The name of the account with that address; raises :class:`NotRegistered` if there is none."""
        return self.account(email).username

    def account(self, email: str) -> Account:
        """The account with that address; raises :class:`NotRegistered` if there is none."""
        try:
            found = self._ask('GET', 'api/user/v1/accounts', params={'email': email})
        except NotFound:
            raise self._not_registered(404) from None
        if isinstance(found, list):
            if not found:
                raise self._not_registered(200)
            found = found[0] if len(found) == 1 else None
        name = found.get('username') if isinstance(found, dict) else None
        if not isinstance(name, str) or not _USERNAME.fullmatch(name):
            raise PeerFailure(f'{self._peer} answered with JSON that is not an account', status=200)
        return Account(name, active=found.get('is_active') is not False, joined=moment(found.get('date_joined')))

    def enrolment(self, username: str, course_id: str) -> Enrolment | None:
        """The learner's enrolment in the course; None if they were never in it."""
        # Slashes of older ids stay: servers in front of the LMS refuse them encoded.
        try:
            found = self._ask('GET', f'{_ENROLMENT}/{quote(username, safe="@+")},{quote(course_id, safe=":+/")}',
                              blank=True)
        except NotFound:
            raise Rejected(f'{self._peer} does not show the enrolments of the learner in {course_id} (404): {_STAFF}',
                           status=404) from None
        return None if found is None else self._read(found, username, course_id, maybe_done=False)

    def put(self, username: str, course_id: str, wanted: Enrolment, *, order_number: str = '',
            force: bool = False) -> None:
        """Set the learner's enrolment in the course; the answer of the LMS must match.

        The number of the order stays with the enrolment, for who refunds it from the LMS.
        """
        body: dict[str, Any] = {'user': username, 'course_details': {'course_id': course_id}, 'mode': wanted.mode,
                                'is_active': wanted.active}
        if order_number:
            body['enrollment_attributes'] = [{'namespace': 'order', 'name': 'order_number', 'value': order_number}]
        if force:
            body['force_enrollment'] = True
        try:
            found = self._read(self._ask('POST', _ENROLMENT, json=body), username, course_id, maybe_done=True)
        except Rejected as error:
            if error.status == 406:
                raise self._not_registered(406) from None
            raise Rejected(self._refusal(error, course_id, wanted), status=error.status) from None
        if found != wanted:
            raise Rejected(f'{self._peer} has the learner as {found} in {course_id}, and not as {wanted}', status=200)

    def allow(self, email: str, course_id: str) -> None:
        """Enrol whoever registers with that address at once, in the default mode of the course."""
        body = {'email': email, 'course_id': course_id, 'auto_enroll': True}
        try:
            self._ask('POST', _ALLOWED, json=body, blank=True)
        except (NotFound, PeerFailure) as error:
            if error.status != 404:
                raise
            self._bulk('enroll', email, course_id)
        except Rejected as error:
            if error.status != 409:  # it is allowed already
                asked = _STAFF if error.status == 403 else 'does the course exist?'
                raise Rejected(f'{self._peer} does not enrol learners without an account in {course_id} '
                               f'({error.status}): {asked}', status=error.status) from None

    def disallow(self, email: str, course_id: str) -> bool:
        """Undo :meth:`allow`; returns whether there was anything to undo, according to the LMS."""
        try:
            self._ask('DELETE', _ALLOWED, json={'email': email, 'course_id': course_id}, blank=True)
        except NotFound:
            return False
        except PeerFailure as error:
            # An HTML page means that the path does not exist: the LMS is older.
            if error.status != 404:
                raise
            return self._bulk('unenroll', email, course_id)
        return True

    def _bulk(self, action: str, email: str, course_id: str) -> bool:
        """The older way, which answers 200 whatever became of the learner; whether they were let in before."""
        found = self._ask('POST', _BULK, json={
            'identifiers': email, 'courses': course_id, 'action': action, 'auto_enroll': True, 'email_students': False})
        try:
            results = found['courses'][course_id]['results']
            failed = [it for it in results if it.get('invalidIdentifier') or it.get('error')]
            after = [it['after'] for it in results if it not in failed]
            were_allowed = any(it.get('before', {}).get('allowed', True) for it in results)
            reached = len(results) == 1 and (
                action == 'unenroll' or all(it.get('enrollment') or it.get('allowed') for it in after))
        except (LookupError, TypeError, AttributeError):
            raise PeerFailure(f'{self._peer} answered with JSON without a learner', status=200,
                              maybe_done=True) from None
        if failed or not reached:
            raise Rejected(f'{self._peer} could not {action} the learner in {course_id} '
                           '(200): is the mail address valid?', status=200)
        return were_allowed

    def _ask(self, method: str, path: str, **request: Any) -> Any:
        try:
            return self._api.request(method, path, **request)
        except Unauthorized as error:
            if error.status == 403:
                raise
            # A new token was asked for already.  Whoever mends the credentials is not to send all orders again.
            raise PeerFailure(str(error), status=error.status, retry_after=error.retry_after) from None
        except Transient as error:
            error.maybe_done = method != 'GET' and (error.maybe_done or error.status in _LOST)
            raise

    def _read(self, found: Any, username: str, course_id: str, *, maybe_done: bool) -> Enrolment:
        try:
            read = Enrolment(found['mode'], found['is_active'])
            if not (found['course_details']['course_id'] == course_id and found.get('user', username) == username
                    and MODE.fullmatch(read.mode) and isinstance(read.active, bool)):
                raise ValueError
        except (LookupError, TypeError, AttributeError, ValueError):
            raise PeerFailure(f'{self._peer} answered with JSON that is not this enrolment', status=200,
                              maybe_done=maybe_done) from None
        return read

    def _refusal(self, error: Rejected, course_id: str, wanted: Enrolment) -> str:
        """The meaning of a refusal, for people; the LMS's own message names the learner."""
        said = f'{self._peer} refuses the enrolment in {course_id}, {wanted} ({error.status})'
        if error.status == 403:
            return (f'{said}: enrolment is closed, or the user of BACKEND_SERVICE_EDX_OAUTH2_KEY may '
                    'not set this mode and must be global staff')
        if error.status == 404:
            return f'{said}: {_STAFF}'
        if error.status != 400:
            return said
        if not self._has(course_id):
            return f'{said}: the course does not exist; correct PRODUCTS, or create the course'
        return (f'{said}: the course does not offer this mode, or its enrolment period is over; check the modes of the '
                'course')

    def _has(self, course_id: str) -> bool:
        try:
            self._ask('GET', f'api/courses/v1/courses/{quote(course_id, safe=":+/")}/')
        except NotFound:
            return False
        except Rejected:
            return True
        return True

    def _not_registered(self, status: int) -> NotRegistered:
        return NotRegistered('the learner has no account yet', status=status)


def checked(course_id: str, mode: str) -> None:
    """Raise :class:`~ecommerce_worker.errors.WrongArguments` for what cannot be a course and a mode."""
    if not (isinstance(course_id, str) and COURSE_ID.fullmatch(course_id)):
        raise WrongArguments('course_id is not the id of a course')
    if not (isinstance(mode, str) and MODE.fullmatch(mode)):
        raise WrongArguments('mode is not an enrolment mode')
