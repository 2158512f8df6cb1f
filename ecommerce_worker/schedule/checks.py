"""Checks of ``SCHEDULE``: problems, valid entries, and overdue ones."""

from __future__ import annotations

import inspect
from collections.abc import Container, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from ecommerce_worker.errors import Misconfigured, WrongArguments
from ecommerce_worker.schedule import commands
from ecommerce_worker.schedule.entries import HOUSEKEEPING, RETENTION, Entry, can_expire, entries, timing_of, zone_of
from ecommerce_worker.schedule.timing import Timing
from ecommerce_worker.words import did_you_mean

if TYPE_CHECKING:
    from celery import Celery

    from ecommerce_worker.settings import Settings

#: The task that runs a management command; beat checks its arguments in advance.
COMMAND: Final = 'ecommerce_worker.schedule.v1.tasks.run_management_command'

#: Seconds after its last sign of life for which a beat is taken to be alive.
ALIVE_SECONDS: Final = 90.0

#: Seconds after which a firing counts as late, and is worth a line in the log; so is one after others were missed.
#: Where none happens, its entry is overdue.
LATE_SECONDS: Final = 60.0


def check(app: Celery, settings: Settings, spoiled: Container[str] = ()) -> None:
    """Check the schedule; raises ``Misconfigured`` with all problems.

    Entries that are ``spoiled`` are skipped: their problems were already reported.
    """
    problems = schedule_problems(settings, app.tasks, spoiled)
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

    One that is unknown is not: beat starts it when it starts itself.
    """
    due = timing.latest(now - LATE_SECONDS)
    return timing.coming(last) if last is not None and due is not None and last < due else None


def schedule_problems(settings: Settings, tasks: Mapping[str, Any], spoiled: Container[str] = ()) -> list[str]:
    """All problems of ``SCHEDULE`` and ``WAKE_UP``, each with the name of its entry."""
    found = []
    for entry in entries(settings):
        if is_shipped(settings, entry.name) or entry.name in spoiled:
            continue
        found += [f'{_place(settings, "SCHEDULE", entry.name)} {problem}'
                  for problem in _problems(entry, settings, tasks)]
    for name, wake in settings.WAKE_UP.items():
        if name in spoiled:
            continue
        place = _place(settings, 'WAKE_UP', name)
        if name not in settings.SCHEDULE:
            found.append(f'{place} wakes an entry that is not in SCHEDULE{did_you_mean(name, settings.SCHEDULE)}')
        elif settings.SCHEDULE[name].get('task') in (RETENTION, HOUSEKEEPING):
            found.append(f'{place} wakes an entry that only the recorder runs')
        if not wake.get('channel'):
            found.append(f'{place} names no channel')
        if not settings.WAKE_UP_URL:
            found.append(f'{place} needs WAKE_UP_URL, which is not set')
    return found


def is_shipped(settings: Settings, name: str) -> bool:
    """Whether the entry is an unchanged default."""
    return settings.sources.get(f'SCHEDULE[{name}]') == 'default'


def is_wanted(settings: Settings, *, began: bool) -> bool:
    """Whether a beat should run: the default entries alone do not require one before one ``began``."""
    wanted = [entry for entry in entries(settings) if not entry.is_the_recorders]
    return bool(wanted) and (began or not all(is_shipped(settings, entry.name) for entry in wanted))


def kept(settings: Settings, tasks: Mapping[str, Any]) -> list[Entry]:
    """The entries in use: all except default ones whose task or queue is not in use here."""
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
            yield 'has arguments, but its task takes none'
        return
    if entry.queue not in settings.QUEUES:
        yield f'is published to {entry.queue}, which is not among QUEUES: no worker would run it'
    if not entry.task:
        yield 'names no task'
        return
    if entry.task not in tasks:
        yield f'names the task {entry.task}, which is not registered{did_you_mean(entry.task, tasks)}'
        return
    if entry.expires is not None and not can_expire(tasks[entry.task]):
        yield 'expires, but its task has no argument not_after: it would run however late'
    try:
        inspect.signature(tasks[entry.task].run).bind(*entry.args, **entry.kwargs)
    except TypeError as error:
        yield f'has arguments that its task does not take: {error}'
        return
    if entry.task == COMMAND:
        try:
            commands.arguments(*_command_of(entry), settings.MANAGEMENT_COMMANDS)
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
