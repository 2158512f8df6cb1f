"""The arrows between folders: each imports only from rows above its own, and some things are done in one place only."""

import ast
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import ecommerce_worker
from ecommerce_worker.email.mailer import names

ROOT = Path(ecommerce_worker.__file__).parent

#: Folders, and modules of the top level.  From the top: what nothing else is needed for, to what is only ever started
#: by people.
ROWS = [
    'correlation logs',
    'configuration errors process words',
    'durations',
    'bounds extras retry settings web',
    'plugins telemetry',
    'clients broker',
    'email enrolment sailthru locks',
    'site',
    'runtime',
    'execution',
    'intake',
    'fulfillment',
    'braze',
    'schedule',
    'ledger',
    'operations',
    'health',
    'resubmit',
    'doctor',
    'worker',
    'celery_app',
    'standalone',
    'console extension testing',
    'demo',
    'smoke',
    'cli',
    '__main__',
]

#: Tasks whose paths shops know, so that they can never move, and what they share.  Their folders hold the vendors of
#: mail, which sites are made of; they themselves need sites, and stand in the row of the other tasks.
FIXED = {'email.delivery': 'fulfillment', 'email.v1': 'fulfillment', 'sailthru.v1': 'fulfillment',
         'enrolment.origin': 'fulfillment', 'enrolment.tasks': 'fulfillment',
         # It asks by a command of ours.
         'enrolment.coverage.ledger': 'ledger'}

#: Folders of one row that import each other: Sailthru is a vendor of mail, and speaks of mail.
TOGETHER = {'email', 'sailthru'}

#: Packages that export what their modules define; the others only hold modules, and import nothing.
EXPORTING = 'configuration settings cli testing.shop'

#: Entry points, and who alone may start them.
ENTRIES = {'cli': '__main__ cli', 'demo': 'cli demo smoke', 'cli.up': 'cli', '__main__': '', 'health.__main__': '',
           'testing.shop.__main__': ''}

#: What is imported in these places only; demo plays the shop, which has Celery.
ONLY_HERE = {
    'requests': 'clients.http clients.auth clients.transport clients.looking',
    'urllib3': 'clients.http clients.transport',
    'jwt': 'clients.auth',
    'celery': 'broker.app broker.consuming broker.mailbox execution schedule.beat schedule.entries worker celery_app '
              'standalone cli demo testing.worker',
    'kombu': 'broker locks operations resubmit worker celery_app ledger.recorder ledger.headers cli demo smoke',
    'yaml': 'settings',
    'pickle': '',
    'django': 'ledger console resubmit.known',
    'pymysql': 'ledger.mysql.base',
    'click': 'cli worker.command_line',
    'waitress': 'web',
    'prometheus_client': 'telemetry.metrics',
    'circus': 'cli.up',
    'tornado': 'cli.up',
}

#: Who may name a vendor of mail.  Purchases are reported to Sailthru and to nobody else, and shops publish tasks that
#: have its name.
KNOW_VENDORS = 'configuration settings email.vendors email.calls sailthru braze site runtime testing demo'

#: Who may read the environment; demo and the stand-ins start programs, which inherit one, and what systemd, probes and
#: `up` say there is no setting.
ENVIRONMENT = 'settings configuration demo testing process.pulse process.ending process.several health.__main__'


def within(module: str, names: str) -> bool:
    """Whether a module is one of these, or in one of these folders."""
    return any(fnmatch(module, name) or fnmatch(module, f'{name}.*') for name in names.split())


def row_of(module: str) -> int:
    place = next((row for fixed, row in FIXED.items() if within(module, fixed)), module)
    rows = [number for number, names in enumerate(ROWS, 1) if within(place, names)]
    assert len(rows) == 1, f'{module or "the package"} has {"no" if not rows else "more than one"} row in ROWS'
    return rows[0]


def name_of(path: Path) -> str:
    return '.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('__init__').removesuffix('.')


@cache
def trees() -> dict[str, ast.Module]:
    """The modules by their names; read when the first test asks."""
    return {name_of(path): ast.parse(path.read_bytes()) for path in sorted(ROOT.rglob('*.py'))
             if path.relative_to(ROOT).parts[0] != 'tests'}

PACKAGES = {name_of(path) for path in ROOT.rglob('__init__.py') if path.relative_to(ROOT).parts[0] != 'tests'}

HOLDERS = {package for package in PACKAGES if package not in EXPORTING.split()}


def nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """What runs: all but what stands under ``if TYPE_CHECKING:``."""
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and getattr(node.test, 'id', '') == 'TYPE_CHECKING'):
            yield node
            yield from nodes(node)


def imported(module: str, tree: ast.AST) -> Iterator[str]:
    """The full names of the modules that a module imports; ours begin with a dot."""
    package = ['ecommerce_worker', *module.split('.')] if module else ['ecommerce_worker']
    if module not in PACKAGES:
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
            while ours not in trees() and ours:
                ours = ours.rpartition('.')[0]
            yield '.' + ours


def ours(module: str) -> set[str]:
    found = {name[1:] for name in imported(module, trees()[module]) if name.startswith('.')}
    return found - HOLDERS - {module}


def points_back(module: str, other: str) -> bool:
    folder, others = module.partition('.')[0], other.partition('.')[0]
    mine, yours = row_of(module), row_of(other)
    return mine < yours or (mine == yours and folder != others and not {folder, others} <= TOGETHER)


@cache
def arrows() -> list[tuple[str, str]]:
    """Who imports whom."""
    return sorted((module, other) for module in trees() if module not in HOLDERS for other in ours(module))


def test_a_module_imports_only_from_its_own_folder_and_rows_above_it():
    assert not [f'{module} imports {other}' for module, other in arrows() if points_back(module, other)]


def test_no_module_imports_itself_by_way_of_others():
    try:
        TopologicalSorter({module: ours(module) for module in trees()}).prepare()
    except CycleError as error:
        pytest.fail(' imports '.join(error.args[1]))


def test_a_package_that_only_holds_others_imports_nothing():
    assert not [f'{holder} imports {name}' for holder in sorted(HOLDERS) for name in imported(holder, trees()[holder])
                # `celery -A ecommerce_worker` finds the application in the package, which makes it when asked for it.
                if (holder, name) != ('', '.celery_app')]


def test_core_knows_no_vendor_by_name():
    named = re.compile(rf'(?i)(?<![a-z])({"|".join(names())})(?![a-z])')
    assert {'braze', 'smtp'} <= set(names())
    assert not [f'{module}: {text}' for module, tree in trees().items() if not within(module, KNOW_VENDORS)
                for text in said(tree) if named.search(text.replace('ecommerce_worker.sailthru.', ''))]


def said(tree: ast.AST) -> Iterator[str]:
    """The names and texts of a module, without what explains it."""
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.value
        elif isinstance(node, ast.Attribute | ast.Name):
            yield node.attr if isinstance(node, ast.Attribute) else node.id


def test_every_row_names_what_there_is():
    named = [name for names in (*ROWS, *FIXED, *FIXED.values(), EXPORTING, ENVIRONMENT, *ENTRIES, *ENTRIES.values(),
                                *ONLY_HERE.values(), KNOW_VENDORS) for name in names.split()]
    assert not [name for name in named if not any(within(module, name) for module in trees())]


def test_nothing_but_the_worker_and_what_starts_it_imports_the_worker():
    assert not [f'{module} imports {other}' for module, other in arrows()
                if within(other, 'worker') and not within(module, 'worker celery_app cli.processes')]


def test_an_entry_point_is_started_from_where_it_is_meant_to_be_only():
    assert not [f'{module} imports {other}' for module, other in arrows() for entry, starters in ENTRIES.items()
                if within(other, entry) and not within(module, starters)]


def test_a_library_is_used_where_it_is_meant_to_be_only():
    assert not [f'{module} imports {name}, which is for {here} only'
                for module, tree in trees().items() for name in imported(module, tree)
                if not within(module, here := ONLY_HERE.get(name.partition('.')[0], '*'))]


def reads_environment(node: ast.AST) -> bool:
    names = ('environ', 'environb', 'getenv', 'getenvb', 'putenv', 'unsetenv')
    if isinstance(node, ast.Attribute):
        return node.attr in names and getattr(node.value, 'id', '') == 'os'
    return isinstance(node, ast.ImportFrom) and node.module == 'os' and any(it.name in names for it in node.names)


def test_the_environment_is_read_by_the_settings_only():
    assert not [f'{module} reads {ast.unparse(node)}' for module, tree in trees().items()
                if not within(module, ENVIRONMENT) for node in nodes(tree) if reads_environment(node)]


def test_in_the_configuration_only_the_historic_function_reads_the_environment():
    functions = {node.name: sum(map(reads_environment, ast.walk(node)))
                 for node in ast.walk(trees()['configuration']) if isinstance(node, ast.FunctionDef)}
    assert functions == {'get_overrides_filename': 1}
    assert sum(map(reads_environment, ast.walk(trees()['configuration']))) == 1


def test_what_is_forbidden_would_be_seen():
    tree = ast.parse('import os, celery.app\nif TYPE_CHECKING:\n    import yaml\ndef f():\n'
                     '    from ecommerce_worker.errors import Skip\n    from . import site\n    os.environ["A"]')
    assert sorted(imported('runtime', tree)) == ['.errors', '.site', 'celery.app', 'os']
    assert sorted(imported('clients', tree)) == ['.clients', '.errors', 'celery.app', 'os']
    assert sum(map(reads_environment, ast.walk(tree))) == 1
    assert points_back('site', 'runtime')
    assert points_back('clients.http', 'broker.wire')
    assert not points_back('email.v1.tasks', 'runtime')
    assert not points_back('sailthru.client', 'email.message')
