"""``python -m ecommerce_worker.health``: a cheap health check of the processes on this machine."""

from __future__ import annotations

import os
import sys
import time

from ecommerce_worker.process.vitals import ASKED, found, trouble

USAGE = """Usage: python -m ecommerce_worker.health [--live | --ready | --started] [--role ROLE] [--dir DIRECTORY]

Check that the processes are alive (--live, the default), that they are ready to do their work (--ready), or that they
have been ready at least once (--started).  Checks all processes that write to the directory, or only those of one
ROLE: worker, recorder, beat, console, intake, up.

DIRECTORY is the value of HEALTH_DIR [default: $ECOMMERCE_WORKER_HEALTH_DIR].  Exit status: 0 if so, 1 with a line that
says why not, 2 for an invalid option.
"""


class _Misused(Exception):
    pass


def _read(words: list[str]) -> tuple[str, str, str]:
    asked, said = 'live', {'--role': '', '--dir': os.environ.get('ECOMMERCE_WORKER_HEALTH_DIR', '')}
    rest = iter(words)
    for word in rest:
        name, is_given, value = word.partition('=')
        if word.removeprefix('--') in ASKED and word.startswith('--'):
            asked = word[2:]
        elif name in said:
            said[name] = value if is_given else next(rest, '')
            if name == '--role' and not said[name]:
                raise _Misused('--role needs a value')
        else:
            raise _Misused(f'no such option: {word}')
    if not said['--dir']:
        raise _Misused('specify the directory with --dir or ECOMMERCE_WORKER_HEALTH_DIR')
    return asked, said['--role'], said['--dir']


def answer(words: list[str]) -> tuple[int, str]:
    """The exit status, and a line that says why."""
    if set(words) & {'-h', '--help'}:
        return 0, USAGE.rstrip()
    try:
        asked, role, directory = _read(words)
    except _Misused as error:
        return 2, f'{error} (see --help)'
    try:
        vitals = list(found(directory, role))
        troubles = [said for each in vitals if (said := trouble(each, asked, time.monotonic()))]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return 1, f'{directory} cannot be read ({getattr(error, "strerror", None) or type(error).__name__})'
    if not vitals:
        return 1, f'no running {role or "process"} writes to {directory}'
    if troubles:
        return 1, '; '.join(troubles)
    return 0, f'{asked}: ' + '; '.join(f'{each["role"]} {each["pid"]}'
                                       + (f' ({each["detail"]})' if each['detail'] else '') for each in vitals)


if __name__ == '__main__':
    status, line = answer(sys.argv[1:])
    print(line, file=sys.stderr if status else sys.stdout)
    sys.exit(status)
