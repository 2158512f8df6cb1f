"""The files of deploy/, read by the tools that they are for, or by the schemas of these."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ecommerce_worker import settings

ROOT = Path(settings.__file__).parents[2]
TOOLS = ROOT / '.cache' / 'deploy-tools' / 'bin'

pytestmark = pytest.mark.skipif(not (TOOLS.parent / '.installed').exists(),
                                reason='deploy/ is not checked here: make deploy-tools')


def said(*command):
    """The exit status of a tool, and what it says."""
    done = subprocess.run([TOOLS / command[0], *command[1:]], check=False, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_hadolint_has_nothing_to_say():
    assert said('hadolint', ROOT / 'deploy/container/Dockerfile') == (0, '')


def test_compose_is_as_its_specification_has_it():
    status, words = said('check-jsonschema', '--builtin-schema', 'vendor.compose-spec',
                         ROOT / 'deploy/container/compose.yaml')
    assert status == 0, words
