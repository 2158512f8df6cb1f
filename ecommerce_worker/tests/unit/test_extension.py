"""What code in other repositories may import is all there, documented, and all that the examples use."""

import ast
import inspect
from pathlib import Path

import pytest

from ecommerce_worker import extension

EXAMPLES = Path(__file__).parents[3] / 'docs' / 'examples'


def test_all_is_listed():
    assert set(extension.__all__) == {name for name in vars(extension) if not name.startswith('_')}


@pytest.mark.parametrize('name', extension.__all__)
def test_what_can_be_called_says_what_it_is(name):
    found = getattr(extension, name)
    assert not callable(found) or inspect.getdoc(found) or name == 'Connect'


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield from (f'{node.module}.{alias.name}' for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_the_examples_import_nothing_else_of_ours():
    ours = {name for path in EXAMPLES.rglob('*.py') for name in imported(path) if name.startswith('ecommerce_worker')}
    assert ours
    assert {name for name in ours if not name.startswith(('ecommerce_worker.extension.', 'ecommerce_worker.testing.'))
            } == set()
