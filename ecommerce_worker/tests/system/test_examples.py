"""The example packages, installed and tested as a stranger would."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[3] / 'docs' / 'examples'


@pytest.mark.parametrize('name', sorted(path.name for path in EXAMPLES.iterdir()))
def test_an_example_passes_its_own_tests_where_it_is(tmp_path, name):
    subprocess.run([sys.executable, '-m', 'pip', 'install', '--quiet', '--no-deps', '--target', tmp_path,
                    EXAMPLES / name], check=True)
    # As the pages have it, where pytest is installed and none of the plugins of our own tests.
    environment = {**os.environ, 'PYTHONPATH': str(tmp_path), 'PYTEST_DISABLE_PLUGIN_AUTOLOAD': '1'}
    ended = subprocess.run([sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', f'docs/examples/{name}'],
                           cwd=EXAMPLES.parents[1], env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
