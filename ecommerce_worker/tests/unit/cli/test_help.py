"""What `--help` says, in a terminal of the usual width."""

import click
import pytest
from click.testing import CliRunner

from ecommerce_worker.cli import main

GROUPS = ['', *(name for name, command in main.commands.items() if isinstance(command, click.Group))]


@pytest.mark.parametrize('group', GROUPS)
def test_each_command_is_summed_up_in_a_line_that_is_not_cut(group):
    found = CliRunner().invoke(main, [*group.split(), '--help'], terminal_width=80)
    assert found.exit_code == 0
    listed = found.output.partition('Commands:\n')[2].splitlines()
    assert len(listed) > 1
    assert not [line for line in listed if line.endswith('...')]
