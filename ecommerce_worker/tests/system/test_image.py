"""The image, really built from deploy/container/Dockerfile, on a Debian made here in place of the public one."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest
import yaml

from ecommerce_worker import __version__, settings
from ecommerce_worker.testing.shop import CLIENT_ID, CLIENT_SECRET
from ecommerce_worker.tests.support.harness import eventually

ROOT = Path(settings.__file__).parents[2]
PROGRAM = ROOT / '.ci' / 'image.sh'


@dataclass(frozen=True)
class Container:
    """A container of the image."""

    name: str

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """How a command in it ended."""
        return subprocess.run(self._words(command), check=False, capture_output=True, text=True)

    @contextlib.contextmanager
    def running(self, configuration: Path, log: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
        """A command that runs in it, with this configuration."""
        mounted = '--volume', f'{configuration}:/etc/ecommerce-worker/worker.yml:ro'
        with log.open('wb') as output:
            process = subprocess.Popen(self._words(command, mounted), stdout=output, stderr=output)
        try:
            yield process
        finally:
            if process.poll() is None:
                for each in [*psutil.Process(process.pid).children(recursive=True), process]:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        each.kill()
            process.wait()

    def _words(self, command: Sequence[str], options: Sequence[str] = ()) -> list[str | Path]:
        return [PROGRAM, 'buildah', 'run', '--isolation', 'chroot', *options, self.name, '--', *command]


@pytest.fixture
def container() -> Iterator[Container]:
    """A container of the image, which is built."""
    path = f'{os.environ["PATH"]}:/usr/sbin'
    lacking = [name for name in ('buildah', 'debootstrap') if not shutil.which(name, path=path)]
    if lacking or os.getuid():
        pytest.skip(f'no image is built here: it needs root, and {lacking or "nothing else"} (deploy/install.sh '
                    'buildah debootstrap)')
    built = subprocess.run([PROGRAM], check=False, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr[-4000:]
    name = buildah('from', '--pull-never', built.stdout.strip()).stdout.strip()
    yield Container(name)
    buildah('rm', name)


def buildah(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PROGRAM, 'buildah', *arguments], check=True, capture_output=True, text=True)


# One test: each process of the tests would build the image anew.
@pytest.mark.timeout(900)
def test_the_image_that_is_built_runs_each_command_as_nobody_and_fulfils_an_order(container, broker, shop, publish,
                                                                                  tmp_path):
    run = container.run
    said = run('ecommerce-worker', '--version')
    assert (said.returncode, __version__ in said.stdout) == (0, True), said.stderr
    assert run('id', '-u').stdout.strip() == '10001'
    for command in ('worker', 'recorder', 'beat', 'console', 'intake', 'up', 'migrate'):
        said = run('tini', '--', 'ecommerce-worker', command, '--help')
        assert said.returncode == 0, said.stderr

    asked = run('python', '-m', 'ecommerce_worker.health', '--live')
    assert asked.returncode == 1
    assert 'no running process' in asked.stdout + asked.stderr

    unconfigured = run('tini', '--', 'ecommerce-worker', 'worker')
    assert unconfigured.returncode == 1
    assert '/etc/ecommerce-worker/worker.yml' in unconfigured.stderr
    assert 'Traceback' not in unconfigured.stderr

    for forbidden in ('python -m pip --version', 'gcc --version', 'touch /opt/venv/x', 'touch /etc/ecommerce-worker/x'):
        assert run('sh', '-c', forbidden).returncode != 0

    shop.add_order('EDX-1')
    publish('EDX-1')
    configuration, log = tmp_path / 'worker.yml', tmp_path / 'worker.log'
    configuration.write_text(yaml.safe_dump({
        'BROKER_URL': broker.url, 'ECOMMERCE_API_ROOT': shop.api_root, 'EMAIL_WITHOUT_VENDOR': 'park',
        'BACKEND_SERVICE_EDX_OAUTH2_PROVIDER_URL': shop.oauth2_root, 'BACKEND_SERVICE_EDX_OAUTH2_KEY': CLIENT_ID,
        'BACKEND_SERVICE_EDX_OAUTH2_SECRET': CLIENT_SECRET}))
    configuration.chmod(0o644)
    with container.running(configuration, log, 'tini', '--', 'ecommerce-worker', 'worker') as process:
        def is_done():
            assert process.poll() is None, log.read_text()
            return 'done: ' in log.read_text() and 'key=EDX-1' in log.read_text()

        eventually(is_done)
        health = run('python', '-m', 'ecommerce_worker.health', '--ready')
        assert health.returncode == 0, health.stderr
        tini = next(it for it in psutil.Process(process.pid).children(recursive=True) if it.name() == 'tini')
        tini.terminate()
        assert process.wait(60) == 0, log.read_text()
    assert [call.method for call in shop.calls if call.order == 'EDX-1'] == ['PUT']
