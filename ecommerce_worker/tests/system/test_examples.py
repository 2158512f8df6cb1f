"""The example packages, installed and tested as a stranger would."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[3] / 'docs' / 'examples'


@pytest.mark.parametrize('name', sorted(path.name for path in EXAMPLES.iterdir()))
def test_an_example_passes_its_own_tests(tmp_path, name):
    where, tests = tmp_path / 'installed', tmp_path / 'tests'
    subprocess.run([sys.executable, '-m', 'pip', 'install', '--quiet', '--no-deps', '--target', where, EXAMPLES / name],
                   check=True)
    tests.mkdir()
    for path in (EXAMPLES / name).glob('test_*.py'):
        (tests / path.name).write_text(path.read_text())
    ended = subprocess.run([sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', '-c', os.devnull, tests],
                           cwd=tests, env={**os.environ, 'PYTHONPATH': str(where)}, capture_output=True, text=True,
                           check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
