"""The arrows between modules: each imports only from rows above its own, and some things are done in one place only."""

import ast
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

import ecommerce_worker

ROOT = Path(ecommerce_worker.__file__).parent

#: From the top: what nothing else is needed for, to what is only ever started by people.
ROWS = [
    'configuration configuration.* errors email.message',
    'hold retry download settings facts schedule.timing turns',
    'http',
    'auth wire observe log schedule.command email.mime email.rendering email.shapes email.vendor sailthru.client',
    'clients.ecommerce clients.lms email.vendors.* sailthru.purchase',
    'site',
    'runtime',
    'topology',
    'task schedule.turn',
    'email.delivery schedule.entries',
    'schedule.firing',
    'fulfillment.v1.tasks email.v1.tasks sailthru.v1.tasks schedule.v1.tasks',
    'email.v1.api',
    'worker.*',
    'celery_app',
    'ledger.*',
    'beat',
    'console.*',
    'demo.*',
    'up',
    'cli',
    '__main__',
]

#: Where modules of one row may import each other: they are one thing in several files.
FAMILIES = ('configuration', 'worker', 'ledger', 'console', 'demo')

#: Packages that only hold others; they import nothing.
HOLDERS = ('', 'clients', 'demo', 'email', 'email.v1', 'email.vendors', 'fulfillment', 'fulfillment.v1', 'ledger',
           'console', 'sailthru', 'sailthru.v1', 'schedule', 'schedule.v1', 'worker')

#: Entry points, and who alone may start them.
ENTRIES = {'cli': '__main__', 'demo.*': 'cli demo.*', 'up': 'cli', '__main__': ''}

#: What is imported in these modules only; demo plays the shop, which has Celery.
ONLY_HERE = {
    'requests': 'http auth',
    'urllib3': 'http download',
    'edx_rest_api_client': 'auth',
    'jwt': 'auth',
    'celery': 'task schedule.entries worker.* celery_app cli beat demo.*',
    'kombu': 'wire topology worker.* celery_app ledger.recorder ledger.headers cli beat demo.*',
    'yaml': 'settings',
    'pickle': 'wire',
    'django': 'ledger.* console.*',
    'pymysql': 'ledger.mysql.base',
    'click': 'cli',
    'circus': 'up',
    'tornado': 'up',
}

#: Who may read the environment; demo starts programs, which inherit one.
ENVIRONMENT = 'settings configuration demo.*'


def within(module: str, names: str) -> bool:
    return any(fnmatch(module, name) for name in names.split())


def row_of(module: str) -> int:
    rows = [number for number, names in enumerate(ROWS, 1) if within(module, names)]
    assert len(rows) == 1, f'{module or "the package"} has {"no" if not rows else "more than one"} row in ROWS'
    return rows[0]


def name_of(path: Path) -> str:
    return '.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('__init__').removesuffix('.')


TREES = {name_of(path): ast.parse(path.read_bytes()) for path in sorted(ROOT.rglob('*.py'))
         if path.relative_to(ROOT).parts[0] != 'tests'}


def nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """What runs: all but what stands under ``if TYPE_CHECKING:``."""
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and getattr(node.test, 'id', '') == 'TYPE_CHECKING'):
            yield node
            yield from nodes(node)


def imported(module: str, tree: ast.AST) -> Iterator[str]:
    """The full names of the modules that a module imports; ours begin with a dot."""
    package = ['ecommerce_worker', *module.split('.')] if module else ['ecommerce_worker']
    if not (ROOT.joinpath(*package[1:]) / '__init__.py').exists():
        package.pop()
    for node in nodes(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parent = '.'.join([*package[:len(package) + 1 - node.level], *filter(None, [node.module])]
                              if node.level else [str(node.module)])
            names = [f'{parent}.{alias.name}' for alias in node.names]
        else:
            continue
        for name in names:
            if not name.startswith('ecommerce_worker'):
                yield name
                continue
            # `from ecommerce_worker.errors import Skip` names a class: the module is what there is a file of.
            ours = name.removeprefix('ecommerce_worker').removeprefix('.')
            while ours not in TREES and ours:
                ours = ours.rpartition('.')[0]
            yield '.' + ours


def ours(module: str) -> set[str]:
    found = {name[1:] for name in imported(module, TREES[module]) if name.startswith('.')}
    return found - {holder for holder in HOLDERS if holder in TREES}


modules = pytest.mark.parametrize('module', [pytest.param(name, id=name or 'ecommerce_worker') for name in TREES])


@modules
def test_a_module_imports_only_from_rows_above_its_own(module):
    if module in HOLDERS:
        assert not list(imported(module, TREES[module]))
        return
    for other in ours(module):
        family = module.partition('.')[0]
        if family == other.partition('.')[0] and family in FAMILIES:
            continue
        assert row_of(other) < row_of(module), f'{module} imports {other}'


@modules
def test_an_entry_point_is_started_from_where_it_is_meant_to_be_only(module):
    for other in ours(module):
        for entry, starters in ENTRIES.items():
            assert not within(other, entry) or within(module, starters), f'{module} imports {other}'


@modules
def test_a_library_is_used_where_it_is_meant_to_be_only(module):
    for name in imported(module, TREES[module]):
        here = ONLY_HERE.get(name.partition('.')[0], module)
        assert within(module, here), f'{module} imports {name}, which is for {here} only'


def reads_environment(node: ast.AST) -> bool:
    names = ('environ', 'environb', 'getenv', 'getenvb', 'putenv', 'unsetenv')
    if isinstance(node, ast.Attribute):
        return node.attr in names and getattr(node.value, 'id', '') == 'os'
    return isinstance(node, ast.ImportFrom) and node.module == 'os' and any(it.name in names for it in node.names)


@modules
def test_the_environment_is_read_by_the_settings_only(module):
    if within(module, ENVIRONMENT):
        return
    assert not [ast.unparse(node) for node in nodes(TREES[module]) if reads_environment(node)]


def test_in_the_configuration_only_the_historic_function_reads_the_environment():
    functions = {node.name: sum(map(reads_environment, ast.walk(node)))
                 for node in ast.walk(TREES['configuration']) if isinstance(node, ast.FunctionDef)}
    assert functions == {'get_overrides_filename': 1}
    assert sum(map(reads_environment, ast.walk(TREES['configuration']))) == 1


def test_what_is_forbidden_would_be_seen():
    tree = ast.parse('import os, celery.app\nif TYPE_CHECKING:\n    import yaml\ndef f():\n'
                     '    from ecommerce_worker.errors import Skip\n    from . import task\n    os.environ["A"]')
    assert sorted(imported('runtime', tree)) == ['.errors', '.task', 'celery.app', 'os']
    assert sorted(imported('clients', tree)) == ['.clients', '.errors', 'celery.app', 'os']
    assert sum(map(reads_environment, ast.walk(tree))) == 1
