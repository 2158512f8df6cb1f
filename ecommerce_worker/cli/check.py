"""The command ``check``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import click

from ecommerce_worker import runtime, settings
from ecommerce_worker.cli.options import JSON
from ecommerce_worker.cli.output import fail, print_json, say, table
from ecommerce_worker.cli.resources import application
from ecommerce_worker.cli.root import main
from ecommerce_worker.errors import Misconfigured
from ecommerce_worker.words import counted, hint


@main.command()
@click.option('--for', 'command', metavar='COMMAND', default='',
              help='Check only what this command uses, such as recorder.')
@JSON
def check(command: str, as_json: bool) -> None:
    """Print the configuration, or everything wrong with it.

    Secrets are masked.
    """
    if command and command not in main.commands:
        fail(f'there is no command {command}{hint(command, main.commands)}', 2)
    found = settings.examine(command=command)
    conf, problems = found.settings, [*found.problems, *(_further_problems(found) if found.complete else ())]
    problems = list(dict.fromkeys(problems))
    notes = [] if problems else [*conf.remarks, *_remarks_on_intakes(conf)]
    if as_json:
        print_json({'problems': problems, 'notes': notes,
                    'extensions': [] if problems else _brought(conf),
                    'settings': [] if problems else [{'name': name, 'from': source, 'value': value}
                                                     for name, value, source in conf.rows()]})
        sys.exit(1 if problems else 0)
    if problems:
        for problem in problems:
            say(f'problem: {problem}')
        who = f'`{command}`' if command else 'a worker'
        say(f'{counted(len(problems), "problem")} found; {who} would refuse to start')
        sys.exit(1)
    table(('SETTING', 'FROM', 'VALUE'), [(name, source, value) for name, value, source in conf.rows()])
    for it in _brought(conf):
        parts = [f'{what} {", ".join(it[part])}' for part, what in (
            ('settings', 'settings'), ('intakes', 'intake kinds'), ('tasks', 'tasks')) if it[part]]
        say(f'extension {it["name"]} ({it["package"]}): {"; ".join(parts) or "nothing"}; queue {it["name"]}')
    for note in notes:
        say(f'note: {note}')
    say('no problems found')


def _brought(conf: settings.Settings) -> list[dict[str, Any]]:
    """What each extension provides."""
    from ecommerce_worker.intake import intakes

    if not conf.extensions:
        return []
    with runtime.use(runtime.Runtime(conf)):
        tasks = sorted(application().tasks)
    return [{'name': it.name, 'package': it.package, 'settings': [group.name for group in it.groups],
             'intakes': [*intakes.brought(it)],
             'tasks': [name for name in tasks if name.startswith(f'{it.module.__name__}.')]}
            for it in conf.extensions.values()]


def _remarks_on_intakes(conf: settings.Settings) -> Iterator[str]:
    """Remarks on intakes that are not mistakes."""
    from ecommerce_worker.intake import intakes

    if conf.INTAKES:
        with runtime.use(runtime.Runtime(conf)):
            yield from intakes.remarks(intakes.read(conf, application().tasks), conf)


def _further_problems(found: settings.Examined) -> Iterator[str]:
    """Problems that show only when these settings are used; invalid ones are left out."""
    from ecommerce_worker.intake import intakes
    from ecommerce_worker.schedule import checks as beats

    spoiled = {names[0] for names in found.spoiled}
    with runtime.use(runtime.Runtime(found.settings)) as current:
        steps: tuple[Callable[[], Any], ...] = (
            lambda: current.check(spoiled),
            *([] if 'CELERY_IMPORTS' in spoiled else [application]),
            lambda: beats.check(application(), found.settings,
                                {name for place in found.spoiled for name in place[1:2]}),
            # If an extension cannot be loaded, its kinds of intake are unknown; that is not their mistake.
            *([] if spoiled & {'INTAKES', 'EXTENSIONS'} else [
                lambda: intakes.read(found.settings, application().tasks)]),
        )
        for step in steps:
            try:
                step()
            except Misconfigured as error:
                yield from error.problems
