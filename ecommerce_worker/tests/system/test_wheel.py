"""The wheel alone, without extras: each command runs, or says in one line what to install."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
import zipfile
from importlib.metadata import distribution, requires
from pathlib import Path

import pytest

from ecommerce_worker.cli import main
from ecommerce_worker.testing.rabbitmq import free_port

ROOT = Path(__file__).parents[3]

#: What brings the commands that need more than a wheel.
EXTRAS = {'console': 'console', 'console-user ada': 'console', 'migrate': 'ledger', 'recorder': 'ledger', 'up': 'up',
          'flower': 'flower', 'intake': 'intake', 'intake list': 'intake',
          'orders list': 'ledger', 'orders show EDX-1': 'ledger', 'reconcile': 'intake'}

#: The others, and how they end where there is no broker, nor a configuration but that of development.
ENDS = {'check': 0, 'worker': 69, 'status': 69, 'parked list': 69, 'parked show 1': 69, 'parked resend 1': 69,
        'parked discard 1': 69, 'queues purge': 69, 'queues reset': 69, 'resubmit': 69, 'erase ann@example.com': 69,
        'smoke': 69, 'doctor': 2, '--help': 0, '--version': 0}


@pytest.fixture(scope='module')
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree."""
    directory = tmp_path_factory.mktemp('wheel')
    # From a copy: setuptools leaves what it makes beside what it reads.
    subprocess.run(['git', 'clone', '-q', '--no-local', '--depth', '1', f'file://{ROOT}', str(directory / 'tree')],
                   check=True, capture_output=True)
    done = subprocess.run([sys.executable, '-m', 'pip', 'wheel', '--no-deps', '-q', '-w', str(directory),
                           str(directory / 'tree')], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [found] = directory.glob('*.whl')
    return found


@pytest.fixture(scope='module')
def program(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command, installed from it beside what it requires and nothing else; nothing is downloaded."""
    place = tmp_path_factory.mktemp('alone')
    venv.create(place, with_pip=False, symlinks=True)
    [packages] = place.glob('lib/python*/site-packages')
    for name in required('edx-ecommerce-worker'):
        for top in {Path(str(file)).parts[0] for file in distribution(name).files or ()} - {'..', '__pycache__'}:
            source = Path(str(distribution(name).locate_file(top)))
            if source.exists() and not (packages / top).exists():
                (packages / top).symlink_to(source)
    subprocess.run([sys.executable, '-m', 'pip', '--python', str(place / 'bin' / 'python'), 'install', '-q',
                    '--no-index', '--no-deps', str(wheel)], check=True, capture_output=True)
    return place / 'bin' / 'ecommerce-worker'


def required(name: str) -> set[str]:
    """The distributions that one requires without any extra, and those that they require."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        for line in requires(waiting.pop()) or ():
            requirement, _, marker = line.partition(';')
            words = re.match(r'([\w.-]+)(?:\[([\w,-]+)\])?', requirement.strip())
            assert words
            if 'extra ==' in marker or words[1] in found:
                continue
            try:
                distribution(words[1])
            except ModuleNotFoundError:
                continue  # for another Python or system
            found.add(words[1])
            waiting.append(words[1])
    return found


def run(program: Path, words: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {'PATH': os.environ['PATH'], 'HOME': str(home), 'ECOMMERCE_WORKER_EMAIL_WITHOUT_VENDOR': 'park',
                   'ECOMMERCE_WORKER_BROKER_URL': f'amqp://127.0.0.1:{free_port()}//'}
    return subprocess.run([str(program), *words.split()], cwd=home, env=environment, capture_output=True, text=True,
                          check=False, timeout=60)


def test_the_wheel_brings_all_that_is_not_python_and_no_tests(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    ours = [path.relative_to(ROOT).as_posix() for path in (ROOT / 'ecommerce_worker').rglob('*')
            if path.suffix in ('.html', '.css', '.svg') and 'tests' not in path.parts]
    assert set(ours) | {'ecommerce_worker/py.typed'} <= set(names)
    assert not [name for name in names if '/tests/' in name]


# In one test each: whoever runs one of them installs the wheel first.
def test_a_command_that_needs_more_says_which_extra_brings_it(program, tmp_path, subtests):
    for words, extra in EXTRAS.items():
        with subtests.test(words):
            ended = run(program, words, tmp_path)
            assert (ended.returncode, ended.stdout) == (1, '')
            assert re.fullmatch(r'ecommerce-worker: this command needs [\w, ]+, not installed here: pip install '
                                rf"'edx-ecommerce-worker\[{extra}\]'\n", ended.stderr)


def test_every_other_command_runs(program, tmp_path, subtests):
    for words, status in ENDS.items():
        with subtests.test(words):
            ended = run(program, words, tmp_path)
            assert ended.returncode == status, ended.stderr
            assert 'Traceback' not in ended.stdout + ended.stderr
            if status == 69:
                assert ended.stderr.count('\n') == 1, ended.stderr


@pytest.mark.parametrize('words, status', [('parked list', 1), ('resubmit', 75), ('beat', 1)])
def test_a_ledger_that_cannot_be_looked_into_is_no_traceback(program, tmp_path, words, status):
    path = tmp_path / '.local' / 'state' / 'ecommerce-worker' / 'ledger.sqlite3'
    path.parent.mkdir(parents=True)
    path.touch()
    ended = run(program, words, tmp_path)
    assert (ended.returncode, ended.stdout) == (status, '')
    assert ended.stderr == ('ecommerce-worker: reading the ledger needs Django, which is not installed here: '
                            "pip install 'edx-ecommerce-worker[ledger]'\n")


def test_no_command_is_forgotten():
    said = {words.split()[0] for words in (*EXTRAS, *ENDS)}
    assert set(main.commands) - said == {'beat', 'demo'}
