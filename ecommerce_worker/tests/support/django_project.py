"""A small Django project whose commands write down how they were run."""

from __future__ import annotations

import json
import textwrap
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

JOB = """
    import json, os, subprocess, sys, time
    from django.core.management.base import BaseCommand

    class Command(BaseCommand):
        def add_arguments(self, parser):
            parser.add_argument('words', nargs='*')
            parser.add_argument('--seconds', type=float, default=0)
            parser.add_argument('--until', help='a file: it runs until there is one')
            parser.add_argument('--status', type=int, default=0)
            parser.add_argument('--say', default='')
            parser.add_argument('--deaf', action='store_true')
            parser.add_argument('--with-child', action='store_true')

        def note(self, **said):
            with open(os.environ['NOTES'], 'a') as notes:
                notes.write(json.dumps({'pid': os.getpid(), 'command': sys.argv[1], **said}) + '\\n')

        def handle(self, *args, **options):
            child = subprocess.Popen(['sleep', '60']).pid if options['with_child'] else None
            if options['deaf']:
                import signal
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            self.note(event='began', at=time.time(), argv=sys.argv[1:], cwd=os.getcwd(), environ=dict(os.environ),
                      child=child)
            if options['say']:
                self.stdout.write(options['say'])
            time.sleep(options['seconds'])
            while options['until'] and not os.path.exists(options['until']):
                time.sleep(0.05)
            self.note(event='ended', at=time.time())
            sys.exit(options['status'])
"""


@dataclass(frozen=True)
class Project:
    """Where it is, and what its commands have noted."""

    directory: Path

    @classmethod
    def at(cls, directory: Path) -> Project:
        """A new project in that directory, with the commands ``job``, ``send_queued_mail`` and ``rebuild_index``."""
        commands = directory / 'shop' / 'management' / 'commands'
        commands.mkdir(parents=True)
        for package in (commands, commands.parent, commands.parent.parent):
            (package / '__init__.py').touch()
        (directory / 'shop_settings.py').write_text(
            'SECRET_KEY = "secret"\nINSTALLED_APPS = ["shop"]\nUSE_TZ = True\n')
        for name in ('job', 'send_queued_mail', 'rebuild_index'):
            (commands / f'{name}.py').write_text(textwrap.dedent(JOB))
        return cls(directory)

    @property
    def settings(self) -> Mapping[str, Any]:
        """The worker's settings for it."""
        return {
            'DJANGO_PROJECT_SETTINGS': 'shop_settings', 'DJANGO_PROJECT_DIRECTORY': str(self.directory),
            'DJANGO_PROJECT_ENVIRONMENT': {'NOTES': str(self.directory / 'notes')},
            'MANAGEMENT_COMMANDS': 'job,send_queued_mail,rebuild_index'}

    def notes(self, event: str = 'began', command: str = '') -> list[dict[str, Any]]:
        """What the commands noted, in order."""
        path = self.directory / 'notes'
        lines = path.read_text().splitlines() if path.exists() else []
        return [note for note in map(json.loads, lines)
                if note['event'] == event and command in ('', note['command'])]

    def most_at_once(self) -> int:
        """How many commands ran at the same time, at most."""
        steps = [(note['at'], 1) for note in self.notes()] + [(note['at'], -1) for note in self.notes('ended')]
        running = most = 0
        for _, step in sorted(steps):
            running += step
            most = max(most, running)
        return most


def gone(pid: int, *, seconds: float = 10) -> bool:
    """Whether the process ends within so many seconds; one that nobody has waited for yet has ended."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            state = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0]
        except OSError:
            return True
        if state == 'Z':
            return True
        time.sleep(0.05)
    return False
