"""The pulse of a process: when it is shown, what follows from it, and what goes wrong beside it."""

import json
import os
import subprocess
import sys

import pytest

from ecommerce_worker.process.notify import Supervisor
from ecommerce_worker.process.pulse import OUTSIDE_SECONDS, Pulse
from ecommerce_worker.process.vitals import Vitals, found, trouble
from ecommerce_worker.telemetry import serving
from ecommerce_worker.testing.rabbitmq import free_port
from ecommerce_worker.tests.support.clock import Clock
from ecommerce_worker.tests.support.health import Listening, page, probe


@pytest.fixture
def clock():
    return Clock(1000.0)


@pytest.fixture
def pulse(clock, tmp_path):
    pulse = Pulse(clock)
    pulse.begin('worker', seconds=45, directory=str(tmp_path / 'health'))
    return pulse


@pytest.fixture
def systemd(tmp_path, environment):
    listening = Listening(str(tmp_path / 'notify'))
    environment.setenv('NOTIFY_SOCKET', listening.address)
    environment.setenv('WATCHDOG_USEC', '90000000')
    yield listening
    listening.close()


def written(tmp_path):
    return json.loads((tmp_path / 'health' / f'worker-{os.getpid()}.json').read_text())


def test_it_lives_as_long_as_its_next_turn_is_not_overdue(pulse, clock):
    clock.now += 45
    assert pulse.trouble('live') == ''
    clock.now += 1
    assert pulse.trouble('live') == f'worker {os.getpid()} has stood still for 46 s'
    pulse.beat()
    assert pulse.trouble('live') == ''


def test_while_it_waits_for_somebody_else_it_has_longer(pulse, clock):
    pulse.beat(OUTSIDE_SECONDS)
    clock.now += OUTSIDE_SECONDS
    assert pulse.trouble('live') == ''
    pulse.beat()
    clock.now += 46
    assert pulse.trouble('live')


def test_the_file_says_so_before_it_begins_to_wait(pulse, clock, tmp_path):
    pulse.beat(OUTSIDE_SECONDS)
    assert written(tmp_path)['due'] == clock.now + OUTSIDE_SECONDS
    pulse.beat()
    assert written(tmp_path)['due'] == clock.now + 45


def test_it_has_started_once_it_was_ready_and_is_not_ready_while_it_says_why(pulse, clock):
    assert 'has not been ready yet: it starts' in pulse.trouble('started')
    pulse.look = lambda: ('', 'at work')
    clock.now += 2
    pulse.beat()
    assert (pulse.trouble('ready'), pulse.trouble('started')) == ('', '')
    pulse.look = lambda: ('RabbitMQ is away', '')
    clock.now += 2
    pulse.beat()
    assert (pulse.trouble('ready'), pulse.trouble('started')) == (
        f'worker {os.getpid()} is not ready: RabbitMQ is away', '')


def test_who_is_to_say_how_it_is_and_fails_makes_it_unready_and_harms_nobody(pulse, clock):
    pulse.look = lambda: 1 / 0
    clock.now += 2
    pulse.beat()
    assert pulse.trouble('live') == ''
    assert 'ZeroDivisionError' in pulse.trouble('ready')


def test_told_to_end_it_lives_for_as_long_as_it_has_and_is_not_ready(pulse, clock):
    pulse.look = lambda: ('', 'at work')
    pulse.ends(100)
    pulse.beat()
    clock.now += 100
    assert pulse.trouble('live') == ''
    assert 'it is told to stop' in pulse.trouble('ready')
    clock.now += 6
    assert pulse.trouble('live')


def test_a_directory_that_goes_away_is_one_line_and_comes_back(pulse, clock, tmp_path, caplog):
    directory = tmp_path / 'health'
    (directory / f'worker-{os.getpid()}.json').unlink()
    directory.rmdir()
    for _ in range(3):
        clock.now += 2
        pulse.beat()
    assert [record.levelname for record in caplog.records] == ['WARNING']
    directory.mkdir()
    clock.now += 2
    pulse.beat()
    assert written(tmp_path)['pulse'] == clock.now


def test_a_link_in_place_of_its_file_is_not_followed(pulse, clock, tmp_path, caplog):
    (tmp_path / 'precious').write_text('precious')
    (tmp_path / 'health' / f'worker-{os.getpid()}.json.new').symlink_to(tmp_path / 'precious')
    clock.now += 2
    pulse.beat()
    assert (tmp_path / 'precious').read_text() == 'precious'
    assert 'HEALTH_DIR cannot be written' in caplog.text


def test_systemd_hears_it_and_children_do_not_hear_of_systemd(systemd, clock):
    pulse = Pulse(clock)
    pulse.look = lambda: ('', 'two\nlines')
    pulse.begin('worker', seconds=45)
    assert systemd.until('READY') == '1'
    assert systemd.said[-1] == {'READY': '1', 'WATCHDOG': '1', 'STATUS': 'two lines'}
    assert not {'NOTIFY_SOCKET', 'WATCHDOG_USEC'} & set(os.environ)
    pulse.beat(300)
    assert systemd.until('WATCHDOG_USEC') == '300000000'
    pulse.beat()
    assert systemd.until('WATCHDOG_USEC') == '90000000'
    pulse.ends(100)
    assert systemd.until('EXTEND_TIMEOUT_USEC') == '105000000'


@pytest.mark.parametrize('given, watchdog', [
    ({}, None), ({'WATCHDOG_USEC': '5000000'}, 5.0), ({'WATCHDOG_USEC': 'often'}, None),
    ({'WATCHDOG_USEC': '5000000', 'WATCHDOG_PID': '1'}, None),
    ({'WATCHDOG_USEC': '5000000', 'WATCHDOG_PID': str(os.getpid())}, 5.0)])
def test_a_watchdog_is_meant_for_the_process_that_it_names(given, watchdog):
    assert Supervisor({'NOTIFY_SOCKET': '/nowhere', **given}).watchdog == watchdog


def test_nobody_who_listens_is_no_trouble():
    supervisor = Supervisor({'NOTIFY_SOCKET': '/nowhere', 'WATCHDOG_USEC': '1'})
    supervisor.tell(READY=1)
    Supervisor({}).tell(READY=1)


def test_a_file_of_who_lives_is_read_by_others_and_one_of_who_is_dead_is_not(pulse, tmp_path):
    directory = tmp_path / 'health'
    (directory / 'worker-1.json').write_text('{"role": "worker", "pid": 1}')
    program = ('import sys\nfrom ecommerce_worker.process.vitals import found\n'
               'for it in found(*sys.argv[1:]): print(it["pid"])')
    seen = subprocess.run([sys.executable, '-c', program, str(directory)], capture_output=True, text=True, check=True)
    assert seen.stdout == f'{os.getpid()}\n'
    assert not list(found(str(directory), 'beat'))
    Vitals(str(directory), 'worker')  # begins as another would
    assert not (directory / 'worker-1.json').exists()


@pytest.mark.parametrize('asked, ready, started, due, no', [
    ('live', False, False, 11, ''), ('live', True, True, 9, 'stood still'),
    ('ready', True, True, 11, ''), ('ready', False, True, 11, 'not ready: why'),
    ('ready', True, True, 9, 'stood still'),
    ('started', False, True, 11, ''), ('started', False, False, 11, 'not been ready yet: why')])
def test_what_follows_from_what_it_says(asked, ready, started, due, no):
    said = trouble({'role': 'beat', 'pid': 7, 'pulse': 5, 'due': due, 'ready': ready, 'started': started,
                    'reason': 'why'}, asked, 10)
    assert no in said
    assert bool(no) == bool(said)


@pytest.mark.parametrize('options, status, said', [
    (['--help'], 0, 'Usage: '), (['--alive'], 2, 'there is no option --alive'), (['--role', 'beat'], 1, 'no beat that'),
    (['--dir', '/nowhere/at/all'], 1, 'cannot be read (No such file or directory)'), (['--dir='], 2, '--dir says')])
def test_the_probe_says_in_one_line_what_is_wrong(tmp_path, options, status, said):
    done = probe(tmp_path, *options)
    assert done.returncode == status
    assert said in done.stdout + done.stderr
    assert status == 0 or done.stderr.count('\n') == 1


def test_a_page_is_answered_in_time_and_nothing_else_is(pulse):
    port = free_port()
    serving.serve(f'127.0.0.1:{port}', {'/fine': lambda: (200, 'text/plain', b'fine\n'), **serving.PAGES})
    assert page(port, '/fine?a=b') == (200, 'fine\n')
    assert page(port, '/fine', 'HEAD') == (200, '')
    assert [page(port, path)[0] for path in ('/', '/FINE', '/fine/')] == [404, 404, 404]
    assert page(port, '/fine', 'POST')[0] == 405


@pytest.mark.parametrize('address, host, ports', [
    ('127.0.0.1:9464', '127.0.0.1', [9464]), ('[::1]:9464-9466', '::1', [9464, 9465, 9466]),
    ('my-host:9464-9465', 'my-host', [9464, 9465])])
def test_an_address_may_have_several_ports(address, host, ports):
    found_host, found_ports = serving.ports_of(address)
    assert (found_host, list(found_ports)) == (host, ports)
