"""Beat: publishes the jobs of ``SCHEDULE`` when they are due.

::

    due? ──► claimed by this beat, for a while ──► published, confirmed ──► remembered as fired
                    │ by another one                      │ not confirmed
                    ▼                                     ▼
              nothing to do                  given back, tried again in a moment

Several beats may run, on several machines if they share a ledger: each firing is claimed by one.  One that dies in
between is followed by another once its claim is over, with a message of the same id.  What was due while no beat ran is
fired once, late, unless it has expired.
"""

from __future__ import annotations

import difflib
import inspect
import logging
import os
import signal
import socket
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from celery import beat as celery_beat

from ecommerce_worker import runtime, topology
from ecommerce_worker.errors import Misconfigured, NotPublished, WorkerError, WrongArguments
from ecommerce_worker.observe import quoted, word
from ecommerce_worker.schedule import command
from ecommerce_worker.schedule.entries import (
    HOUSEKEEPING,
    RETENTION,
    Entry,
    can_expire,
    entries,
    publish,
    timing_of,
    zone_of,
)
from ecommerce_worker.schedule.firing import CLAIM_SECONDS, Firing, Firings, claimed
from ecommerce_worker.schedule.timing import Timing
from ecommerce_worker.worker import preflight

if TYPE_CHECKING:
    from celery import Celery

    from ecommerce_worker.settings import Settings

logger = logging.getLogger(__name__)

#: The task that runs a management command; beat looks at its arguments before they are due.
COMMAND: Final = 'ecommerce_worker.schedule.v1.tasks.run_management_command'

#: Seconds between two looks at the schedule, at most: how fresh the sign of life is that `status` shows.
LOOK_SECONDS: Final = 30.0

#: Seconds after its last sign of life for which a beat is taken to be alive.
ALIVE_SECONDS: Final = 90.0

#: Seconds until what could not be published is tried again.
AGAIN_SECONDS: Final = 5.0

#: Seconds after which a firing counts as late, and is worth a line in the log; so is one after others were missed.
#: Where none happens, its entry is overdue.
LATE_SECONDS: Final = 60.0


# --- What is wrong with a schedule ----------------------------------------------------------------------------------


def check(app: Celery, settings: Settings) -> None:
    """Make sure that the schedule can be kept; raises ``Misconfigured`` with all that is wrong with it."""
    problems = schedule_problems(settings, app.tasks)
    try:
        zone_of(app)
    except Misconfigured as error:
        problems += error.problems
    if problems:
        raise Misconfigured(problems)


def timings(app: Celery, settings: Settings) -> list[tuple[Entry, Timing]]:
    """The entries that are kept here, and when each is due; raises as :func:`check` does."""
    check(app, settings)
    return [(entry, timing_of(entry, app.timezone)) for entry in kept(settings, app.tasks)]


def overdue(timing: Timing, last: float | None, now: float) -> float | None:
    """Since when an entry is overdue that was fired ``last``: the first time it was due since; None if it is not.

    One that was never heard of is not: a beat begins with it when it starts.
    """
    due = timing.latest(now - LATE_SECONDS)
    return timing.coming(last) if last is not None and due is not None and last < due else None


def schedule_problems(settings: Settings, tasks: Mapping[str, Any]) -> list[str]:
    """All that is wrong with ``SCHEDULE`` and ``WAKE_UP``, each with the name of its entry."""
    found = []
    for entry in entries(settings):
        if is_shipped(settings, entry.name):
            continue
        found += [f'{_place(settings, "SCHEDULE", entry.name)} {problem}'
                  for problem in _problems(entry, settings, tasks)]
    for name, wake in settings.WAKE_UP.items():
        place = _place(settings, 'WAKE_UP', name)
        if name not in settings.SCHEDULE:
            found.append(f'{place} wakes an entry that SCHEDULE does not have{_did_you_mean(name, settings.SCHEDULE)}')
        elif settings.SCHEDULE[name].get('task') in (RETENTION, HOUSEKEEPING):
            found.append(f'{place} wakes an entry that the recorder does by the clock only')
        if not wake.get('channel'):
            found.append(f'{place} names no channel')
        if not settings.WAKE_UP_URL:
            found.append(f'{place} needs WAKE_UP_URL, which is not set')
    return found


def is_shipped(settings: Settings, name: str) -> bool:
    """Whether the entry is as it came with the worker: nobody has asked for it, or said anything of it."""
    return settings.sources.get(f'SCHEDULE[{name}]') == 'default'


def kept(settings: Settings, tasks: Mapping[str, Any]) -> list[Entry]:
    """The entries that are kept: all, but shipped ones whose task or queue is not in use here."""
    return [entry for entry in entries(settings)
            if not (is_shipped(settings, entry.name) and any(_problems(entry, settings, tasks)))]


def _problems(entry: Entry, settings: Settings, tasks: Mapping[str, Any]) -> Iterator[str]:
    if bool(entry.crontab) == (entry.interval is not None):
        yield 'needs one of crontab and interval' + (', and has both' if entry.crontab else '')
    else:
        try:
            timing_of(entry)
        except ValueError as error:
            yield f'has a crontab {entry.crontab!r} that cannot be read: {error}'
    if entry.is_the_recorders:
        if entry.args or entry.kwargs:
            yield 'gives its task arguments, and that takes none'
        return
    if entry.queue not in settings.QUEUES:
        yield f'is published to {entry.queue}, which is not among QUEUES: no worker would run it'
    if not entry.task:
        yield 'names no task'
        return
    if entry.task not in tasks:
        yield f'names the task {entry.task}, which there is not{_did_you_mean(entry.task, tasks)}'
        return
    if entry.expires is not None and not can_expire(tasks[entry.task]):
        yield 'expires, but its task takes no not_after: it would run however late'
    try:
        inspect.signature(tasks[entry.task].run).bind(*entry.args, **entry.kwargs)
    except TypeError as error:
        yield f'gives its task other arguments than that takes: {error}'
        return
    if entry.task == COMMAND:
        try:
            command.arguments(*_command_of(entry), settings.MANAGEMENT_COMMANDS)
        except WrongArguments as error:
            yield f'cannot be run: {error}'
        if not settings.DJANGO_PROJECT_SETTINGS:
            yield 'needs DJANGO_PROJECT_SETTINGS, which is not set'


def _command_of(entry: Entry) -> tuple[Any, tuple[Any, ...], Mapping[str, Any]]:
    """The name, the arguments and the options of the command that the entry runs."""
    options = {name: value for name, value in entry.kwargs.items() if name not in ('name', 'not_after')}
    if entry.args:
        return entry.args[0], entry.args[1:], options
    return entry.kwargs.get('name', ''), (), options


def _place(settings: Settings, setting: str, name: str) -> str:
    label = f'{setting}[{name}]'
    source = next((source for key, source in settings.sources.items()
                   if key.startswith(label) and source != 'default'), '')
    return f'{source}: {label}' if source else label


def _did_you_mean(name: str, names: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(name, names, 1)
    return f'; did you mean {close[0]}?' if close else ''


# --- What was fired -------------------------------------------------------------------------------------------------


def firings_of(settings: Settings, tell: Callable[[str], object] = lambda reason: None) -> Firings:  # noqa: ARG005
    """The firings in the ledger, if there is one; in a file of this machine if there is none that can be used.

    ``tell`` hears why that cannot be.

    Raises :class:`~ecommerce_worker.ledger.opening.LedgerAway` if the database cannot be reached: beats of other
    machines may go on with it, and would fire the same.
    """
    from ecommerce_worker.ledger import opening, rooms

    if rooms.is_kept(settings):
        try:
            opening.open_ledger()
            opening.require_schema()
        except opening.LedgerAway:
            raise
        except opening.LedgerUnusable as error:
            tell(str(error))
        else:
            from ecommerce_worker.ledger.firings import LedgerFirings

            return LedgerFirings(CLAIM_SECONDS)
    return FileFirings(settings.SCHEDULE_STATE)


class StateUnusable(WorkerError):
    """The file of the firings cannot be read or written: have SCHEDULE_STATE name one that can."""


class FileFirings:
    """The firings in a SQLite file, for beats of one machine; whatever is done raises :class:`StateUnusable`."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path).expanduser()

    def last(self, entry: str) -> float | None:
        """See :class:`Firings`."""
        found = self._run('SELECT fired FROM firing WHERE entry = ?', entry)[1]
        return found[0] if found else None

    def begin(self, entry: str, due: float) -> None:
        """See :class:`Firings`."""
        self._run('INSERT INTO firing (entry, fired) VALUES (?, ?) '
                  "ON CONFLICT (entry) DO UPDATE SET fired = excluded.fired, claimed_by = '', claimed_until = 0",
                  entry, due)

    def claim(self, entry: str, due: float, beat: str, now: float) -> bool:
        """See :class:`Firings`."""
        return self._run('UPDATE firing SET claimed_by = ?, claimed_until = ? '
                         'WHERE entry = ? AND fired < ? AND (claimed_until < ? OR claimed_by = ?)',
                         beat, now + CLAIM_SECONDS, entry, due, now, beat)[0] == 1

    def fired(self, entry: str, due: float, beat: str, missed: int) -> None:  # noqa: ARG002
        """See :class:`Firings`; what was missed is in the log only, for no page shows this file."""
        self._run("UPDATE firing SET fired = ?, claimed_by = '', claimed_until = 0 "
                  'WHERE entry = ? AND claimed_by = ? AND fired < ?', due, entry, beat, due)

    expired = fired

    def release(self, entry: str, beat: str) -> None:
        """See :class:`Firings`."""
        self._run("UPDATE firing SET claimed_by = '', claimed_until = 0 WHERE entry = ? AND claimed_by = ?",
                  entry, beat)

    def tick(self, beat: str, now: float) -> None:
        """See :class:`Firings`."""
        self._run('INSERT OR REPLACE INTO beat (name, at) VALUES (?, ?)', beat, now)
        # Names hold a process number, so they are never used again.
        self._run('DELETE FROM beat WHERE at < ?', now - 7 * 86_400)

    def ticked(self) -> float | None:
        """See :class:`Firings`."""
        if not self._path.exists():
            return None
        found: float | None = self._run('SELECT max(at) FROM beat')[1][0]
        return found

    def _run(self, statement: str, *values: Any) -> tuple[int, Any]:
        """The number of rows that changed, and the first row that was found."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self._path, timeout=10, isolation_level=None)) as database:
                database.execute("CREATE TABLE IF NOT EXISTS firing (entry TEXT PRIMARY KEY, fired REAL NOT NULL, "
                                 "claimed_by TEXT NOT NULL DEFAULT '', claimed_until REAL NOT NULL DEFAULT 0)")
                database.execute('CREATE TABLE IF NOT EXISTS beat (name TEXT PRIMARY KEY, at REAL NOT NULL)')
                cursor = database.execute(statement, values)
                return cursor.rowcount, cursor.fetchone()
        except (OSError, sqlite3.Error) as error:
            reason = getattr(error, 'strerror', None) or error
            raise StateUnusable(f'SCHEDULE_STATE {self._path} cannot be used: {reason}') from None


# --- Firing ---------------------------------------------------------------------------------------------------------


def id_of(entry: Entry, due: float) -> str:
    """The id of the message of that firing: the same, whoever fires it."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f'{entry.key} {due:.0f}'))


class Scheduler(celery_beat.Scheduler):
    """Celery's scheduler with our schedule; Celery's own entries are not read."""

    def __init__(self, app: Celery, *args: Any, firings: Firings | None = None,
                 clock: Callable[[], float] = time.time, **kwargs: Any) -> None:
        self.firings = firings or FileFirings(runtime.current().settings.SCHEDULE_STATE)
        self._clock = clock
        self._name = f'{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}'
        self.timings: list[tuple[Entry, Timing]] = []
        self._declared = False
        #: Entries in trouble, and what is wrong; each trouble is told once.
        self._troubles: dict[str, str] = {}
        super().__init__(app, *args, **kwargs)

    def setup_schedule(self) -> None:
        """Read the schedule; raises :class:`~ecommerce_worker.errors.Misconfigured` with all that is wrong with it."""
        self.timings = [(entry, timing) for entry, timing in timings(self.app, runtime.current().settings)
                        if not entry.is_the_recorders]
        if not self.timings:
            logger.warning('there is nothing in SCHEDULE: beat has nothing to do')

    def tick(self, *_: Any, **__: Any) -> float:
        """Fire what is due; the seconds until there is something to do again."""
        for entry, timing in self.timings:
            try:
                self._look_at(entry, timing)
            except NotPublished as error:
                self._declared = False
                self._trouble(entry.name, str(error))
            except Exception as error:  # noqa: BLE001 - whatever it is, the other entries must not feel it
                self._trouble(entry.name, f'{type(error).__name__}: {error}')
            else:
                if self._troubles.pop(entry.name, None):
                    logger.warning('a job is fired again: entry=%s', word(entry.name))
        try:
            self.live()
        except Exception as error:  # noqa: BLE001 - as above
            self._trouble('', f'{type(error).__name__}: {error}')
        else:
            self._troubles.pop('', None)
        if self._troubles:
            return AGAIN_SECONDS
        now = self._clock()
        dues = [due for _, timing in self.timings if (due := timing.coming(now)) is not None]
        # A little late rather than early: a clock in floating point may be just before the time.
        return max(0.0, min([now + LOOK_SECONDS, *dues]) - now) + 0.01

    def live(self) -> None:
        """Give a sign of life; raises whatever is wrong where the firings are kept."""
        self.firings.tick(self._name, self._clock())

    def _look_at(self, entry: Entry, timing: Timing) -> None:
        firing = claimed(self.firings, entry, timing, self._name, self._clock())
        if firing is None:
            return
        try:
            is_fired = self._fire(entry, timing, firing)
        except BaseException:
            self.firings.release(entry.key, self._name)
            raise
        remember = self.firings.fired if is_fired else self.firings.expired
        remember(entry.key, firing.due, self._name, firing.missed)

    def _fire(self, entry: Entry, timing: Timing, firing: Firing) -> bool:
        """Publish it unless it has expired; whether it was published."""
        now, due = self._clock(), firing.due
        following = timing.coming(due)
        not_after = due + entry.expires if entry.expires is not None else following or now + CLAIM_SECONDS
        expired = not_after < now and can_expire(self.app.tasks[entry.task])
        if now - due > LATE_SECONDS or expired or firing.missed:
            logger.warning('late: entry=%s due=%s last=%s missed=%d %s', word(entry.name), _utc(due), _utc(firing.last),
                           firing.missed, 'expired, it is left out' if expired else 'it is fired once')
        if expired:
            return False
        if not self._declared:
            with self.app.connection_for_write() as connection:
                topology.declare(connection, self.app.amqp.queues.consume_from.values())
            self._declared = True
        id_ = id_of(entry, due)
        publish(self.app, entry, id=id_, not_after=not_after, origin=f'beat {self._name}')
        logger.info('fired: entry=%s task=%s due=%s id=%s', word(entry.name), word(entry.task), _utc(due), id_)
        return True

    def _trouble(self, name: str, what: str) -> None:
        if self._troubles.get(name) != what:
            logger.error('a job cannot be fired, beat goes on trying: entry=%s error=%s', word(name), what)
            self._troubles[name] = what


def _ledger_unused(reason: str) -> None:
    logger.warning('firings are kept in a file of this machine, not in the ledger: reason=%s', quoted(reason))


def _utc(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime('%Y-%m-%dT%H:%M:%SZ')


def run(app: Celery, settings: Settings) -> None:
    """Fire jobs until SIGTERM or SIGINT; what has begun is brought to its end.

    Raises :class:`~ecommerce_worker.errors.Misconfigured`,
    :class:`~ecommerce_worker.worker.preflight.BrokerUnusable`, :class:`StateUnusable` or
    :class:`~ecommerce_worker.ledger.opening.LedgerAway` if it cannot begin.
    """
    scheduler = Scheduler(app, firings=firings_of(settings, _ledger_unused))
    preflight.check(app, settings)
    scheduler.live()
    # Held back while something is fired, and looked for in between.
    ends = {signal.SIGTERM, signal.SIGINT}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    try:
        logger.info('beat is ready: entries=%d', len(scheduler.timings))
        while signal.sigtimedwait(ends, scheduler.tick()) is None:
            pass
        logger.info('beat ends')
    finally:
        scheduler.close()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
