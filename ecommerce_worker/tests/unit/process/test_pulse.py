"""The pulse of a process: when it is shown, what follows from it, and what goes wrong beside it."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time

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


def file_in(directory):
    path, = directory.glob(f'worker-{os.getpid()}.*.json')
    return path


def written(tmp_path):
    return json.loads(file_in(tmp_path / 'health').read_text())


def test_it_lives_as_long_as_its_next_turn_is_not_overdue(pulse, clock):
    clock.now += 45
    assert pulse.trouble('live') == ''
    clock.now += 1
    assert pulse.trouble('live') == f'worker {os.getpid()} has not responded for 46 s'
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
    assert 'has not been ready yet: it is starting' in pulse.trouble('started')
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
    assert 'it is stopping' in pulse.trouble('ready')
    clock.now += 6
    assert pulse.trouble('live')


def test_a_directory_that_cannot_be_made_again_is_one_line_and_comes_back(pulse, clock, tmp_path, caplog):
    directory = tmp_path / 'health'
    shutil.rmtree(directory)
    directory.write_text('of somebody else')
    for _ in range(3):
        clock.now += 2
        pulse.beat()
    assert [record.levelname for record in caplog.records] == ['WARNING']
    directory.unlink()
    clock.now += 2
    pulse.beat()
    assert written(tmp_path)['pulse'] == clock.now


def test_a_link_in_place_of_its_file_is_not_followed(pulse, clock, tmp_path):
    (tmp_path / 'precious').write_text('precious')
    file_in(tmp_path / 'health').with_suffix('.json.new').symlink_to(tmp_path / 'precious')
    clock.now += 2
    pulse.beat()
    assert (tmp_path / 'precious').read_text() == 'precious'
    assert written(tmp_path)['pulse'] == clock.now


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


def test_systemd_that_did_not_hear_it_hears_it_the_next_time(tmp_path, environment, clock):
    address = str(tmp_path / 'notify')
    environment.setenv('NOTIFY_SOCKET', address)
    pulse = Pulse(clock)
    pulse.look = lambda: ('', '\udcff')
    pulse.begin('worker', seconds=45)
    listening = Listening(address)
    clock.now += 2
    pulse.beat()
    assert listening.until('READY') == '1'
    pulse.ends(100)
    assert listening.until('STATUS') == 'it is stopping'
    assert 'READY' not in listening.said[-1]
    listening.close()


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


def test_who_looks_at_others_keeps_the_lock_of_its_own_file(pulse, tmp_path):
    directory = str(tmp_path / 'health')
    assert not list(found(directory))
    Vitals(directory, 'worker')
    program = ('import sys\nfrom ecommerce_worker.process.vitals import found\n'
               'print(*(it["pid"] for it in found(sys.argv[1])))')
    seen = subprocess.run([sys.executable, '-c', program, directory], capture_output=True, text=True, check=True)
    assert seen.stdout == f'{os.getpid()}\n'


def test_a_file_that_was_replaced_while_it_was_looked_at_is_not_one_of_a_dead_process(tmp_path, monkeypatch):
    path = tmp_path / 'worker-1.json'
    path.write_text('{"pid": 1}')

    def replaced(*_):
        (tmp_path / 'new').write_text('{"pid": 1}')
        (tmp_path / 'new').replace(path)

    monkeypatch.setattr('ecommerce_worker.process.vitals.fcntl.lockf', replaced)
    assert [it['pid'] for it in found(str(tmp_path))] == [1]


def test_of_two_processes_of_one_number_as_containers_have_them_each_is_seen(tmp_path):
    program = ('import sys\nfrom ecommerce_worker.process import vitals\nvitals.os.getpid = lambda: 7\n'
               'vitals.Vitals(sys.argv[1], "worker").write({"role": "worker", "pid": 7})\n'
               'print("written", flush=True)\nsys.stdin.read()')
    directory = tmp_path / 'health'
    with contextlib.ExitStack() as ends:
        for _ in range(2):
            process = ends.enter_context(subprocess.Popen(
                [sys.executable, '-c', program, str(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE))
            assert process.stdout
            assert process.stdout.readline() == b'written\n'
        assert len(list(found(str(directory), 'worker'))) == 2


def test_a_directory_that_somebody_has_cleared_is_made_again(pulse, clock, tmp_path):
    shutil.rmtree(tmp_path / 'health')
    clock.now += 10
    pulse.beat()
    assert written(tmp_path)['pulse'] == clock.now


def test_where_there_is_no_room_for_a_new_file_the_pulse_is_seen_in_the_old_one(pulse, clock, tmp_path, caplog):
    pulse.look = lambda: ('', 'many words')
    pulse.beat(OUTSIDE_SECONDS)
    file_in(tmp_path / 'health').with_suffix('.json.new').mkdir()
    for detail in ('fewer', 'more words than there were before'):
        pulse.look = lambda detail=detail: ('', detail)
        clock.now += 10
        pulse.beat()
        assert (written(tmp_path)['pulse'], written(tmp_path)['detail']) == (clock.now, detail)
    assert not caplog.records


@pytest.mark.parametrize('asked, ready, started, due, no', [
    ('live', False, False, 11, ''), ('live', True, True, 9, 'not responded'),
    ('ready', True, True, 11, ''), ('ready', False, True, 11, 'not ready: why'),
    ('ready', True, True, 9, 'not responded'),
    ('started', False, True, 11, ''), ('started', False, False, 11, 'not been ready yet: why')])
def test_what_follows_from_what_it_says(asked, ready, started, due, no):
    said = trouble({'role': 'beat', 'pid': 7, 'pulse': 5, 'due': due, 'ready': ready, 'started': started,
                    'reason': 'why'}, asked, 10)
    assert no in said
    assert bool(no) == bool(said)


@pytest.mark.parametrize('options, status, said', [
    (['--help'], 0, 'Usage: '), (['--alive'], 2, 'no such option: --alive'),
    (['--role', 'beat'], 1, 'no running beat writes'), (['--dir='], 2, 'specify the directory'),
    (['--role', ''], 2, '--role needs a value'),
    (['--dir', '/nowhere/at/all'], 1, 'cannot be read (No such file or directory)')])
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


@pytest.mark.parametrize('said', [
    b'', b'\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03', b'GET\r\n\r\n', b'\xff' * 20_000, b'GET /fine HTTP/1.1\r\n',
    b'POST /fine HTTP/1.1\r\nContent-Length: 999\r\n\r\nx', b'GET http://[ HTTP/1.1\r\n\r\n'], ids=str)
def test_whatever_is_said_to_a_port_of_pages_it_answers_the_next_one(pulse, said, caplog):
    port = free_port()
    serving.serve(f'127.0.0.1:{port}', {'/fine': lambda: (200, 'text/plain', b'fine\n')})
    with socket.create_connection(('127.0.0.1', port), timeout=30) as stranger:
        stranger.sendall(said)
        stranger.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            assert stranger.recv(100).partition(b'\r\n')[0].split()[1:2] in ([], [b'400'], [b'404'], [b'405'])
    assert page(port, '/fine') == (200, 'fine\n')
    assert not caplog.records[1:]


def test_one_that_sends_byte_by_byte_is_not_waited_for(pulse, monkeypatch):
    monkeypatch.setattr(serving, 'SECONDS', 0.2)
    port, sent = free_port(), 0
    serving.serve(f'127.0.0.1:{port}', {})
    with socket.create_connection(('127.0.0.1', port), timeout=30) as slow, contextlib.suppress(OSError):
        while sent < serving.LARGEST:
            sent += slow.send(b'x')
            time.sleep(0.001)
    assert 0 < sent < serving.LARGEST // 8


#: Serves pages, has no file left for a connection, and says how much CPU the next second takes.
EXHAUSTED = """
import os, resource, sys, time
from ecommerce_worker.telemetry import serving
serving.serve(f'127.0.0.1:{sys.argv[1]}', {'/fine': lambda: (200, 'text/plain', b'fine')})
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
held = []
try:
    while True:
        held.append(os.open(os.devnull, os.O_RDONLY))
except OSError:
    print('no file is left', flush=True)
sys.stdin.readline()
began = time.process_time()
time.sleep(1)
print(time.process_time() - began, flush=True)
for each in held:
    os.close(each)
sys.stdin.readline()
"""


def test_a_process_that_has_no_file_left_is_not_kept_busy_by_who_asks_for_a_page_and_answers_in_the_end():
    port = free_port()
    with subprocess.Popen([sys.executable, '-c', EXHAUSTED, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          text=True) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == 'no file is left\n'
        with socket.create_connection(('127.0.0.1', port), timeout=30) as asking:
            asking.sendall(b'GET /fine HTTP/1.1\r\n\r\n')
            process.stdin.write('\n')
            process.stdin.flush()
            assert float(process.stdout.readline()) < 0.3
            assert asking.recv(100).startswith(b'HTTP/1.1 200')
        process.kill()


@pytest.mark.parametrize('address, host, ports', [
    ('127.0.0.1:9464', '127.0.0.1', [9464]), ('[::1]:9464-9466', '::1', [9464, 9465, 9466]),
    ('my-host:9464-9465', 'my-host', [9464, 9465])])
def test_an_address_may_have_several_ports(address, host, ports):
    found_host, found_ports = serving.ports_of(address)
    assert (found_host, list(found_ports)) == (host, ports)
