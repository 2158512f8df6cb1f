"""The units of deploy/systemd, as its script installs them: read by systemd's tools, their configuration by ours."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ecommerce_worker import settings
from ecommerce_worker.cli import main
from ecommerce_worker.cli.up import CHILDREN, LAST
from ecommerce_worker.configuration import base
from ecommerce_worker.errors import Misconfigured
from ecommerce_worker.fulfillment.v1.tasks import fulfill_order
from ecommerce_worker.intake import intakes
from ecommerce_worker.process.several import GRACE
from ecommerce_worker.tests.support.isolation import BARE

SOURCE = Path(settings.__file__).parents[2] / 'deploy' / 'systemd'
INSTALLED = '/opt/ecommerce-worker/'
PROGRAM = f'{INSTALLED}.venv/bin/ecommerce-worker'

#: What the units load is one of these, as its source under /etc/ecommerce-worker/credentials.
LOADED = {**{f'{role}-broker-url': f'amqp://{role}:password@rabbitmq.example.com:5672/shop'
             for role in ('recorder', 'beat', 'console', 'intake')},
          'broker-url': 'amqp://worker:password@rabbitmq.example.com:5672/shop',
          'oauth2-secret': 'a-secret-of-the-lms', 'shop-secret': 'a-secret-of-the-shop-of-32-bytes-and-more'}

#: How exposed a unit may be by systemd's own reckoning, which goes from 0 to 10.
EXPOSURE = 2.0

needs_systemd = pytest.mark.skipif(not shutil.which('systemd-analyze'), reason='there is no systemd-analyze here')


@pytest.fixture
def root(tmp_path):
    """A tree into which the script has installed the units."""
    subprocess.run([SOURCE / 'install.sh', tmp_path], check=True)
    return tmp_path


@pytest.fixture
def units(root):
    """The units by name, each with the values of its keys, those of its drop-ins last."""
    place = root / 'etc/systemd/system'
    return {path.stem.rstrip('@'): read(path, place / 'ecommerce-worker-.service.d/10-shared.conf',
                                        *place.glob(f'{path.name}.d/*.conf'))
            for path in place.glob('*.service')}


def read(*files):
    values: dict[str, list[str]] = {}
    for file in files:
        for key, value in re.findall(r'^(\w+)=(.*)$', file.read_text(), re.MULTILINE):
            values.setdefault(key, []).append(value)
    return values


def loaded(unit):
    """The names of what a unit loads, and of their sources."""
    lines = dict(line.split(':') for line in unit.get('LoadCredential', ()))
    assert {Path(source).parent for source in lines.values()} <= {Path('/etc/ecommerce-worker/credentials')}
    return {name: Path(source).name for name, source in lines.items()}


def environment(unit, root):
    """What systemd would put into the environment of this unit, its paths below the root."""
    kept = root / 'run-credentials'
    kept.mkdir()
    for name, source in loaded(unit).items():
        (kept / name).write_text(LOADED[source])
    said = dict(line.split('=', 1) for line in unit['Environment'])
    said = {name: value.replace('%S', '/var/lib').replace('%t', '/run') for name, value in said.items()}
    return {**BARE, **said, 'CREDENTIALS_DIRECTORY': str(kept),
            'ECOMMERCE_WORKER_CFG': str(root) + said['ECOMMERCE_WORKER_CFG']}


def test_each_role_has_a_unit_that_runs_a_command_there_is(units):
    roles = {}
    for name, unit in units.items():
        program, role = unit['ExecStart'][0].split()
        assert program == PROGRAM
        roles[role] = name
    assert roles == {role: f'ecommerce-worker-{role}' for role in (*CHILDREN, 'up', 'migrate')}
    assert set(roles) <= set(main.commands)


def test_the_unit_of_each_role_leads_to_a_page_there_is(units):
    for unit in units.values():
        page, = unit['Documentation']
        assert (SOURCE.parents[1] / page.removeprefix(f'file:{INSTALLED}')).exists()


@pytest.mark.parametrize('role', [*CHILDREN, 'up', 'migrate'])
def test_the_configuration_of_a_unit_has_no_problem_and_it_loads_the_secrets_that_it_uses(root, units, role):
    unit = units[f'ecommerce-worker-{role}']
    environ = environment(unit, root)
    found = settings.load(environ, role)
    if role == 'intake':
        assert list(intakes.read(found, {fulfill_order.name: fulfill_order})) == ['shop']
    else:
        assert found.DATABASES['default']['NAME'].startswith('/var/lib/ecommerce-worker/')
    for name, source in loaded(unit).items():
        if name == 'broker-url':
            assert LOADED[source] == found.BROKER_URL
        Path(environ['CREDENTIALS_DIRECTORY'], name).rename(root / 'away')
        with pytest.raises(Misconfigured, match=f'{name}: No such file'):
            intakes.read(settings.load(environ, role), {fulfill_order.name: fulfill_order})
        (root / 'away').rename(Path(environ['CREDENTIALS_DIRECTORY'], name))


def test_each_unit_has_a_user_of_its_own_in_rabbitmq(units):
    sources = {name.removeprefix('ecommerce-worker-'): loaded(unit).get('broker-url') for name, unit in units.items()}
    assert sources == {role: {'worker': 'broker-url', 'up': 'broker-url', 'migrate': None}.get(
        role, f'{role}-broker-url') for role in sources}


def test_a_unit_is_killed_only_after_its_process_has_ended_by_itself(units):
    for unit in units.values():
        assert int(unit['TimeoutStopSec'][-1]) > base.SHUTDOWN_SECONDS + GRACE + 2 * LAST


def test_a_database_that_is_not_there_at_boot_keeps_nobody_from_starting_for_good(root, units):
    assert units['ecommerce-worker-migrate']['Restart'][-1] == 'on-failure'
    place = root / 'etc/systemd/system'
    for role in ('recorder', 'beat', 'console'):
        found = read(place / f'ecommerce-worker-{role}.service')
        assert 'ecommerce-worker-migrate.service' in found['Wants'][0].split()
        assert 'ecommerce-worker-migrate.service' in found['After'][0].split()
        # systemd starts nothing again whose requirement has failed.
        assert 'Requires' not in found


def test_what_is_begun_again_is_what_is_installed_and_not_what_is_checked_out(units):
    # The first place that Python looks for a module run by -m is the working directory.
    assert {unit['WorkingDirectory'][-1] for unit in units.values()} == {'%S/ecommerce-worker'}
    assert all(not PROGRAM.startswith(unit['WorkingDirectory'][-1]) for unit in units.values())


def test_a_configuration_that_is_there_already_is_left_as_it_is(root):
    kept = root / 'etc/ecommerce-worker/worker.yml'
    kept.write_text('# ours')
    subprocess.run([SOURCE / 'install.sh', root], check=True)
    assert kept.read_text() == '# ours'
    assert (root / 'etc/ecommerce-worker/credentials').stat().st_mode & 0o777 == 0o700


@pytest.fixture
def readable(root):
    """The units, with a program that there is in place of the one of a server: systemd looks whether it can be run."""
    place = root / 'etc/systemd/system'
    for path in place.glob('*.service'):
        path.write_text(path.read_text().replace(PROGRAM, '/bin/true').replace(INSTALLED, f'{SOURCE.parents[1]}/'))
    return place


def analyze(*arguments):
    return subprocess.run(['systemd-analyze', *map(str, arguments)], check=False, capture_output=True, text=True)


@needs_systemd
def test_systemd_has_nothing_to_say_about_any_unit(readable):
    done = analyze('verify', *readable.glob('*.service'), *readable.glob('*.target'))
    # Its status is 0 for a key that it does not know.
    assert (done.returncode, done.stdout + done.stderr) == (0, '')


@needs_systemd
def test_systemd_says_when_a_key_of_a_drop_in_is_unknown(readable):
    (readable / 'ecommerce-worker-.service.d/20-typo.conf').write_text('[Service]\nProtectSytem=strict\n')
    assert "Unknown key 'ProtectSytem'" in analyze('verify', readable / 'ecommerce-worker-beat.service').stderr


@needs_systemd
@pytest.mark.parametrize('role', ['worker@', 'recorder', 'console', 'beat', 'intake', 'up', 'migrate'])
def test_a_unit_is_hardly_exposed(readable, role):
    unit = readable / f'ecommerce-worker-{role}.service'
    done = analyze('security', '--offline=true', f'--threshold={EXPOSURE * 10:.0f}', unit)
    assert done.returncode == 0, done.stdout
    exposure = re.search(r'Overall exposure level for \S+: ([\d.]+)', done.stdout)
    assert exposure
    assert float(exposure[1]) <= EXPOSURE
