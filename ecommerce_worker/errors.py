"""What can go wrong, as one tree; the class says what to do next.

::

    WorkerError
    ├── Misconfigured        a person must change a setting; nothing is tried
    ├── Undecodable          the message cannot be read; it is parked as it is
    │   └── UnknownTask          it can, but the task is not registered
    ├── WrongArguments       the message can be read, but the task cannot take it; it is parked
    ├── NotPublished         the broker did not confirm; the message it follows from is kept
    ├── Taken                another run is working on the order; come back in a moment and ask first
    └── ApiError             another service did not do what was asked
        ├── Transient        asking again may help
        │   ├── Unreachable      no answer: refused, DNS, TLS, time-out, cut transfer
        │   ├── Held             not asked: the circuit breaker of the service is open
        │   ├── Throttled        429, or a busy token endpoint
        │   ├── PeerFailure      5xx, or an answer that is not the service's own
        │   └── LocalFailure     not asked, or not to the end: this process lacked something (files, certificates, time)
        └── Rejected         the answer stays the same until someone changes something
            ├── Unauthorized     401, 403
            └── NotFound         404
    Skip                     not an error: nothing is left to do
"""

from __future__ import annotations

import errno
import os
import ssl
import traceback
from collections.abc import Iterable
from typing import Any, ClassVar, Final

#: Why a message was not done, in one word: those of the classes, and those without an error of ours.  ``turn``: others
#: had their turn; ``early``: it was not due yet; ``interrupted``: its run did not end; ``local``: this machine lacked
#: something; ``defect``: a programming error in the worker.
CAUSES: Final = ('unreachable', 'throttled', 'peer_failure', 'held', 'not_found', 'unauthorized', 'rejected', 'local',
                 'wrong_arguments', 'unreadable', 'unknown_task', 'misconfigured', 'not_published', 'interrupted',
                 'turn', 'early', 'defect')


class WorkerError(Exception):
    """Base of every error that this package raises on purpose; its text holds no secret and no personal data."""

    #: The exit status of a command that ends with it.
    exit_status = 1

    #: What a message that meets it is counted by: one of :data:`CAUSES`.
    cause: ClassVar[str] = 'defect'


class Misconfigured(WorkerError):
    """The configuration cannot work: correct every problem listed, then start again."""

    cause = 'misconfigured'

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__('\n'.join(self.problems))


class Undecodable(WorkerError):
    """A message that cannot be read: look at it where it is parked, repair its producer, resend or discard it."""

    cause = 'unreadable'


class UnknownTask(Undecodable):
    """A message for a task that this version of the worker does not have: start one that has, then resend."""

    cause = 'unknown_task'


class WrongArguments(WorkerError):
    """A message whose arguments the task cannot take: correct the producer; the parked message shows what came."""

    cause = 'wrong_arguments'


class NotPublished(WorkerError):
    """The broker did not confirm a message: whatever it was to replace must be kept."""

    cause = 'not_published'


class Taken(WorkerError):
    """Another run is working on it: come back in a moment, and ask for its status before acting.

    This does not count as a try.
    """

    cause = 'turn'


class ApiError(WorkerError):
    """Another service did not do what it was asked.

    ``status`` is the HTTP status (None without an answer), ``retry_after`` the seconds that the peer asks to
    wait (None if it does not say), ``maybe_done`` means that the request may have taken effect anyway,
    ``answer`` is what it said in JSON (it may hold personal data: never log it).
    """

    def __init__(self, message: str, *, status: int | None = None, retry_after: float | None = None,
                 maybe_done: bool = False, answer: Any = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after
        self.maybe_done = maybe_done
        self.answer = answer


class Transient(ApiError):
    """An outage, not a decision: ask again later."""

    cause = 'peer_failure'


class Unreachable(Transient):
    """No complete answer came: ask again when the peer or the network is back."""

    cause = 'unreachable'


class Held(Transient):
    """Not asked, since the circuit breaker is open: ask in ``retry_after`` seconds; does not count as a try."""

    cause = 'held'


class Throttled(Transient):
    """The peer is busy or limits us: ask again no sooner than ``retry_after``."""

    cause = 'throttled'


class PeerFailure(Transient):
    """The peer failed, or something else answered in its place: retry, and see their logs if it persists."""

    cause = 'peer_failure'


class LocalFailure(Transient):
    """Our own process or machine lacked something, which says nothing about the peer, nor about the message.

    Fix the machine; the message is retried.
    """

    cause = 'local'


#: What a system call fails with that lacks something here, whoever it was about, and what that is.
_LACKING: Final = {
    errno.EMFILE: 'this process has too many open files (ulimit -n)',
    errno.ENFILE: 'this machine has too many open files',
    errno.ENOSPC: 'the disk is full',
    errno.EDQUOT: 'the disk quota is exceeded',
    errno.EROFS: 'the disk is read-only',
    errno.EIO: 'the disk has errors',
    errno.ENOMEM: 'there is not enough memory',
    errno.ENOBUFS: 'there is not enough memory for sockets',
    errno.EADDRNOTAVAIL: 'this machine has no ports left for connections',
}


def lack_behind(error: BaseException) -> str:
    """What this machine lacks, if that caused the error directly or indirectly; '' for any other cause."""
    looked_at: set[int] = set()
    errors: list[object] = [error]
    while errors:
        found = errors.pop()
        if not isinstance(found, BaseException) or id(found) in looked_at:
            continue
        looked_at.add(id(found))
        # The numbers of ssl's errors are OpenSSL's.
        if isinstance(found, OSError) and not isinstance(found, ssl.SSLError) and found.errno in _LACKING:
            return f'{_LACKING[found.errno]} ({errno.errorcode[found.errno]})'
        errors += [getattr(found, 'reason', None), found.__cause__, found.__context__, *found.args]
    return ''


def local_failure(error: BaseException) -> LocalFailure:
    """The error that something of this machine's stands for; its text names no path."""
    number = error.errno if isinstance(error, OSError) else None
    reason = lack_behind(error) or (os.strerror(number) if number else type(error).__name__)
    return LocalFailure(f'the worker failed on its own machine: {reason}', maybe_done=True)


class Rejected(ApiError):
    """The peer understood and refused: asking the same again gives the same answer."""

    cause = 'rejected'


class Unauthorized(Rejected):
    """The peer does not accept our credentials or permissions (401, 403): correct them, then resend."""

    cause = 'unauthorized'


class NotFound(Rejected):
    """The peer does not know what was asked for (404): not committed yet, another site's, or mistyped."""

    cause = 'not_found'


class Skip(Exception):
    """Nothing is left to do, and ``reason`` says why; the message is settled as done."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def where(error: BaseException) -> str:
    """The file and line that raised, without the text of the error, which may quote its input."""
    frames = traceback.extract_tb(error.__traceback__)
    return f'{frames[-1].filename.rpartition("/")[2]}:{frames[-1].lineno}' if frames else 'an unknown place'
