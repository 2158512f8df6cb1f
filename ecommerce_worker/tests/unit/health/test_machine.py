"""What is found about this machine."""

import shutil
from types import SimpleNamespace

import pytest

from ecommerce_worker.health import machine
from ecommerce_worker.settings import load


def settings(**given):
    return load({'WORKER_CONFIGURATION_MODULE': 'ecommerce_worker.configuration.test',
                 **{f'ECOMMERCE_WORKER_{name}': str(value) for name, value in given.items()}})


@pytest.fixture
def ledger(tmp_path):
    """A ledger's file, and the settings that name it."""
    path = tmp_path / 'ledger.sqlite3'
    path.touch(0o600)
    return path, settings(DATABASES=f'{{"default": {{"NAME": "{path}"}}}}', SCHEDULE_STATE=tmp_path / 'none')


def found(settings):
    return [(it.subject, str(it.severity)) for it in machine.findings(settings)]


def test_where_there_is_room_and_nobody_else_reads_nothing_is_found(ledger):
    assert found(ledger[1]) == []


@pytest.mark.parametrize('free, expected', [
    (machine.LITTLE, []), (machine.LITTLE - 1, [('disk', 'warning')]), (machine.NOTHING - 1, [('disk', 'trouble')])])
def test_a_disk_that_is_about_to_be_full_is_found(ledger, monkeypatch, free, expected):
    monkeypatch.setattr(shutil, 'disk_usage', lambda _: SimpleNamespace(free=free))
    assert found(ledger[1]) == expected


def test_a_ledger_that_everybody_may_read_is_found(ledger):
    ledger[0].chmod(0o644)
    assert found(ledger[1]) == [('files', 'warning')]


def test_a_configuration_that_everybody_may_read_is_found(ledger, monkeypatch, tmp_path):
    path = tmp_path / 'worker.yml'
    path.write_text('{}')
    monkeypatch.setenv('ECOMMERCE_WORKER_CFG', str(path))
    path.chmod(0o640)
    assert found(ledger[1]) == []
    path.chmod(0o644)
    assert found(ledger[1]) == [('files', 'warning')]


def test_what_cannot_be_looked_at_keeps_nothing_else_from_being(tmp_path):
    # As of a directory that this user may not enter, the system does not say whether these are there.
    hidden = tmp_path / ('x' * 300)
    assert found(settings(DATABASES=f'{{"default": {{"NAME": "{hidden}"}}}}', SCHEDULE_STATE=hidden)) == []


@pytest.mark.parametrize('text, seconds', [
    ('1min 30s', 90), ('90s', 90), ('500ms', 0.5), ('1h 2min', 3720), ('1d', 86_400), ('infinity', None), ('', None)])
def test_a_duration_of_systemd_is_read(text, seconds):
    assert machine.seconds_in(text) == seconds


@pytest.mark.parametrize('cgroup, unit', [
    ('0::/system.slice/shop-worker.service', 'shop-worker.service'),
    ('0::/system.slice/shop-worker.service/child', 'shop-worker.service'),
    ('0::/user.slice/user-0.slice/user@0.service/app.slice/vte.scope', ''),
    ('0::/user.slice/user-0.slice/user@0.service/app.slice/mine.service', ''),
    ('0::/system.slice/docker.service/docker-1234.scope', ''),
    ('0::/', '')])
def test_a_unit_is_known_by_its_control_group(cgroup, unit):
    assert machine.unit_in(f'{cgroup}\n') == unit


@pytest.mark.parametrize('seconds, expected', [(None, 0), (90.0, 0), (30.0, 0), (29.9, 1)])
def test_a_supervisor_that_is_impatient_is_found(seconds, expected):
    times = {'shop-worker.service': seconds}
    assert len(list(machine.too_short(settings(SHUTDOWN_SECONDS=25), times))) == expected
