"""Looking at the configuration."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import click

from ecommerce_worker import runtime, settings
from ecommerce_worker.cli.output import counted, table
from ecommerce_worker.cli.resources import application
from ecommerce_worker.cli.root import main
from ecommerce_worker.errors import Misconfigured


@main.command()
def check() -> None:
    """Print the configuration in force, secrets masked, and everything that is wrong with it."""
    found = settings.examine()
    conf, problems = found.settings, [*found.problems, *(_further_problems(found) if found.complete else ())]
    if problems:
        for problem in dict.fromkeys(problems):
            click.echo(f'problem: {problem}')
        click.echo(counted(len(set(problems)), 'problem') + ' found; a worker would not start')
        sys.exit(1)
    table(('SETTING', 'FROM', 'VALUE'), [(name, source, value) for name, value, source in conf.rows()])
    for remark in conf.remarks:
        click.echo(f'note: {remark}')
    click.echo('no problem found')


def _further_problems(found: settings.Examined) -> Iterator[str]:
    """What is wrong with what is made from these settings, as far as those are what was meant."""
    from ecommerce_worker.schedule import checks as beats

    spoiled = {names[0] for names in found.spoiled}
    with runtime.use(runtime.Runtime(found.settings)) as current:
        steps: tuple[Callable[[], Any], ...] = (
            lambda: current.check(spoiled),
            *([] if 'CELERY_IMPORTS' in spoiled else [application]),
            lambda: beats.check(application(), found.settings,
                                {name for place in found.spoiled for name in place[1:2]}),
        )
        for step in steps:
            try:
                step()
            except Misconfigured as error:
                yield from error.problems
