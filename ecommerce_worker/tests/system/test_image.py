"""The image, really built from deploy/container/Dockerfile, on a Debian made here in place of the public one."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ecommerce_worker import __version__, settings

ROOT = Path(settings.__file__).parents[2]
PROGRAM = ROOT / '.ci' / 'image.sh'

Run = Callable[..., 'subprocess.CompletedProcess[str]']


@pytest.fixture
def run() -> Iterator[Run]:
    """Run a command in the image."""
    path = f'{os.environ["PATH"]}:/usr/sbin'
    lacking = [name for name in ('buildah', 'debootstrap') if not shutil.which(name, path=path)]
    if lacking or os.getuid():
        pytest.skip(f'no image is built here: it needs root, and {lacking or "nothing else"} (deploy/install.sh '
                    'buildah debootstrap)')
    built = subprocess.run([PROGRAM], check=False, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr[-4000:]
    container = buildah('from', '--pull-never', built.stdout.strip()).stdout.strip()

    def run_in(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        given = [word for name, value in environment.items() for word in ('--env', f'{name}={value}')]
        return buildah('run', '--isolation', 'chroot', *given, container, '--', *command, check=False)

    yield run_in
    buildah('rm', container)


def buildah(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PROGRAM, 'buildah', *arguments], check=check, capture_output=True, text=True)


# One test: each process of the tests would build the image anew.
@pytest.mark.timeout(900)
def test_the_image_that_is_built_runs_each_command_as_nobody_and_holds_nothing_to_build_with(run):
    said = run('ecommerce-worker', '--version')
    assert (said.returncode, __version__ in said.stdout) == (0, True), said.stderr
    assert run('id', '-u').stdout.strip() == '10001'
    for command in ('worker', 'recorder', 'beat', 'console', 'intake', 'up', 'migrate'):
        said = run('tini', '--', 'ecommerce-worker', command, '--help')
        assert said.returncode == 0, said.stderr

    asked = run('python', '-m', 'ecommerce_worker.health', '--live')
    assert asked.returncode == 1
    assert 'no process' in asked.stdout + asked.stderr

    unconfigured = run('tini', '--', 'ecommerce-worker', 'worker')
    assert unconfigured.returncode == 1
    assert '/etc/ecommerce-worker/worker.yml' in unconfigured.stderr
    assert 'Traceback' not in unconfigured.stderr

    for forbidden in ('python -m pip --version', 'gcc --version', 'touch /opt/venv/x', 'touch /etc/ecommerce-worker/x'):
        assert run('sh', '-c', forbidden).returncode != 0
