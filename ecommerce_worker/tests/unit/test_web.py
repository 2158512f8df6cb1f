"""The server: clients that are slow, many or silent keep nobody else waiting."""

import contextlib
import http.client
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from ecommerce_worker import web
from ecommerce_worker.testing.rabbitmq import free_port
from ecommerce_worker.tests.support.console import served
from ecommerce_worker.tests.support.ledger import environment_of

SERVE = """
import logging, os, sys, time
from ecommerce_worker import web
CHANGES
def application(environ, start_response):
    path = environ['PATH_INFO']
    body = environ['wsgi.input'].read()
    if path == '/slow':
        os.write(1, b'slow\\n')  # a line in one piece, whichever thread writes another
        time.sleep(1)
    said = ' '.join((environ['REMOTE_ADDR'], environ['wsgi.url_scheme'], str(len(body)))).encode()
    start_response('200 OK', [('Content-Type', 'text/plain')])
    return [b'x' * 20_000_000 if path == '/large' else said]
listener = web.listener_at('127.0.0.1:0', 'it', 'IT')
web.serve(application, listener, threads=2, OPTIONS,
          begun=lambda: print(listener.getsockname()[1], flush=True))
"""


@pytest.fixture
def server():
    """Starts servers: ``server(MOST=20)``; the process, and the port."""
    with contextlib.ExitStack() as stack:
        def start(changes='', options='https=False'):
            process = stack.enter_context(subprocess.Popen(
                [sys.executable, '-c', SERVE.replace('CHANGES', changes).replace('OPTIONS', options)],
                stdout=subprocess.PIPE, text=True))
            stack.callback(process.kill)
            assert process.stdout
            return process, int(process.stdout.readline())

        yield start


def got(port, path='/', source='127.0.0.1', **headers):
    """What a client is answered who is as quick as they are."""
    connection = http.client.HTTPConnection('127.0.0.1', port, timeout=60, source_address=(source, 0))
    with contextlib.closing(connection):
        connection.request('GET', path, headers={name.replace('_', '-'): value for name, value in headers.items()})
        return connection.getresponse().read().decode()


@contextlib.contextmanager
def clients(port, number, *, sending=b''):
    """So many connections, each of which has sent this."""
    with contextlib.ExitStack() as stack:
        made = []
        for _ in range(number):
            made.append(stack.enter_context(socket.create_connection(('127.0.0.1', port), timeout=60)))
            made[-1].sendall(sending)
        yield made


def is_closed(client):
    """Whether the server hangs up on it, sooner or later."""
    try:
        while client.recv(65536):
            pass
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False
    return True


@pytest.mark.parametrize('sending', [
    b'', b'G', b'GET / HTTP/1.1\r\nHost: x\r\n', b'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nx',
    b'POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nf\r\nx',
], ids=['nothing', 'a letter', 'half a head', 'half a body', 'half a chunk'])
def test_clients_that_send_half_a_request_keep_nobody_waiting(server, sending):
    _, port = server()
    with clients(port, 300, sending=sending):
        assert [got(port) for _ in range(20)] == ['127.0.0.1 http 0'] * 20


@pytest.mark.parametrize('sending', [b'', b'GET / HTTP/1.1\r\n'], ids=['idle', 'half a head'])
def test_when_there_are_too_many_those_go_that_have_waited_longest(server, sending):
    _, port = server('web.CONNECTIONS = 50')
    with clients(port, 200, sending=sending) as made:
        assert [got(port) for _ in range(20)] == ['127.0.0.1 http 0'] * 20
        assert is_closed(made[0])
        made[-1].sendall((sending and b'Host: x\r\n\r\n') or b'GET / HTTP/1.1\r\nHost: x\r\n\r\n')
        assert b'200 OK' in made[-1].recv(4096)


def test_a_request_that_is_not_whole_in_time_is_told_so(server):
    _, port = server('web.SECONDS["reading"] = 0.5')
    with clients(port, 1, sending=b'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nx') as (client,):
        assert client.recv(4096).startswith(b'HTTP/1.1 408 ')
        assert is_closed(client)


def test_a_client_that_drips_is_closed_after_a_while(server):
    _, port = server('web.SECONDS["reading"] = 0.5')
    with clients(port, 1, sending=b'GET / HTTP/1.1\r\n') as (client,), contextlib.suppress(OSError):
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            client.sendall(b'X: y\r\n')
            time.sleep(0.05)
        pytest.fail('it is read for ever')


@pytest.mark.parametrize('doing, sending', [('idle', b''), ('writing', b'GET /large HTTP/1.1\r\nHost: x\r\n\r\n')])
def test_a_client_that_does_nothing_is_closed_after_a_while(server, doing, sending):
    _, port = server(f'web.SECONDS["{doing}"] = 0.5')
    with clients(port, 1, sending=sending) as (client,):
        time.sleep(3)
        assert is_closed(client)


def test_clients_that_do_not_take_their_answers_hold_no_thread(server):
    _, port = server()
    with clients(port, 20, sending=b'GET /large HTTP/1.1\r\nHost: x\r\n\r\n' * 10):
        assert [got(port) for _ in range(20)] == ['127.0.0.1 http 0'] * 20


def test_a_client_that_is_busy_is_not_taken_for_a_slow_one(server):
    _, port = server('for name in web.SECONDS: web.SECONDS[name] = 1.5')
    connection = http.client.HTTPConnection('127.0.0.1', port, timeout=60)
    with contextlib.closing(connection):
        until = time.monotonic() + 4
        while time.monotonic() < until:
            connection.request('POST', '/', body=b'x' * 10_000)
            assert connection.getresponse().read() == b'127.0.0.1 http 10000'
            time.sleep(0.02)
        assert connection.sock


def test_what_follows_a_request_before_its_answer_is_not_read(server):
    _, port = server()
    with clients(port, 1, sending=b'GET / HTTP/1.1\r\nHost: x\r\n\r\n' * 5) as (client,):
        found = b''
        with contextlib.suppress(ConnectionResetError):
            while part := client.recv(65536):
                found += part
    assert found.count(b'200 OK') == 1
    assert b'Connection: close' in found


@pytest.mark.parametrize('sending, status', [
    (b'GET / HTTP/1.1\r\nX: ' + b'x' * 40_000, b'431'),
    (b'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n', b'413'),
    (b'nonsense\r\n\r\n', b'400'),
], ids=['head', 'body', 'nonsense'])
def test_what_is_too_large_or_no_request_is_refused(server, sending, status):
    _, port = server()
    with clients(port, 1, sending=sending) as (client,):
        assert client.recv(4096).split()[1] == status


def test_what_is_under_way_is_finished_at_the_end(server):
    process, port = server()
    with clients(port, 1, sending=b'GET /slow HTTP/1.1\r\nHost: x\r\n\r\n') as (client,):
        assert process.stdout.readline() == 'slow\n'
        process.terminate()
        assert b'200 OK' in client.recv(4096)
    assert process.wait(60) == 0


#: Says when a request was read whole and waits for a thread.
SAYS_WHEN_READ = """
from waitress.task import ThreadedTaskDispatcher as Dispatcher
add = Dispatcher.add_task
Dispatcher.add_task = lambda self, it: (add(self, it), os.write(1, b'read\\n'))
"""


def test_requests_that_wait_for_a_thread_are_answered_at_the_end(server):
    process, port = server(SAYS_WHEN_READ)
    with clients(port, 4, sending=b'GET /slow HTTP/1.1\r\nHost: x\r\n\r\n') as waiting:
        for _ in waiting:
            while process.stdout.readline() != 'read\n':
                pass
        process.terminate()  # there are two threads
        assert [b'200 OK' in client.recv(4096) for client in waiting] == [True] * 4
    assert process.wait(60) == 0


@pytest.mark.parametrize('options, said', [
    ('https=False', '127.0.0.1 http 0'), ('https=True', '127.0.0.1 https 0'),
    ("https=True, proxy='127.0.0.1'", '192.0.2.7 https 0'), ("https=True, proxy='127.0.0.9'", '127.0.0.1 https 0'),
])
def test_only_a_proxy_that_is_named_says_where_a_client_comes_from(server, options, said):
    _, port = server(options=options)
    assert got(port, X_Forwarded_For='198.51.100.1, 192.0.2.7', X_Forwarded_Proto='gopher') == said


def test_an_address_that_is_taken_is_said_to_be():
    with socket.create_server(('127.0.0.1', 0)) as taken, pytest.raises(web.AddressUnusable, match='already in use'):
        web.listener_at(f'127.0.0.1:{taken.getsockname()[1]}', 'the console', 'CONSOLE_ADDRESS')


# -- the console ------------------------------------------------------------------------------------------------------


@pytest.fixture
def console(tmp_path):
    """Starts a console."""
    with contextlib.ExitStack() as stack:
        def start(**settings):
            environment = {**environment_of({'NAME': str(tmp_path / 'ledger.sqlite3')}),
                           'ECOMMERCE_WORKER_CONSOLE_ADDRESS': f'127.0.0.1:{free_port()}',
                           'ECOMMERCE_WORKER_BROKER_URL': 'amqp://127.0.0.1:1//',
                           **{f'ECOMMERCE_WORKER_{name}': value for name, value in settings.items()}}
            return stack.enter_context(served(tmp_path, environment))

        yield start


def test_the_console_bears_clients_that_send_half_a_request(console):
    found = console()
    port = int(found.url.rpartition(':')[2])
    with clients(port, 300, sending=b'GET /login/ HTTP/1.1\r\n'), \
            urllib.request.urlopen(f'{found.url}/login/', timeout=60) as answer:
        assert answer.status == 200


def logged_in(port, name, password, source='127.0.0.1', **headers):
    """The status that somebody at this address gets who tries to log in."""
    connection = http.client.HTTPConnection('127.0.0.1', port, timeout=60, source_address=(source, 0))
    with contextlib.closing(connection):
        connection.request('GET', '/login/')
        answer = connection.getresponse()
        token = re.findall(r'csrfmiddlewaretoken" value="(\w+)"', answer.read().decode())[0]
        cookie = str(answer.headers['Set-Cookie']).partition(';')[0]
        connection.request('POST', '/login/', f'csrfmiddlewaretoken={token}&username={name}&password={password}', {
            'Content-Type': 'application/x-www-form-urlencoded', 'Cookie': cookie,
            **{key.replace('_', '-'): value for key, value in headers.items()}})
        answer = connection.getresponse()
        answer.read()
        return answer.status


def test_wrong_passwords_lock_a_name_where_they_came_from_only(console):
    port = int(console().url.rpartition(':')[2])
    assert [logged_in(port, 'ada', 'wrong', '127.0.0.2') for _ in range(6)][-1] == 429
    assert logged_in(port, 'ada', 'wrong') == 200
    assert logged_in(port, 'bob', 'wrong', '127.0.0.2') == 200


@pytest.mark.parametrize('proxy, status', [('', 429), ('127.0.0.1', 200)])
def test_who_comes_by_a_proxy_is_told_from_others_only_if_that_is_named(console, proxy, status):
    port = int(console(CONSOLE_PROXY=proxy).url.rpartition(':')[2])
    assert [logged_in(port, 'ada', 'wrong', X_Forwarded_For='192.0.2.1') for _ in range(6)][-1] == 429
    assert logged_in(port, 'ada', 'wrong', X_Forwarded_For='192.0.2.2') == status


@pytest.mark.skipif(os.environ.get('SLOW_CONNECTIONS') is None, reason='SLOW_CONNECTIONS says how many there are')
def test_thousands_of_slow_connections_cost_no_genuine_request(server):
    _, port = server()
    many, seconds = int(os.environ['SLOW_CONNECTIONS']), []
    with contextlib.ExitStack() as stack:
        for number in range(many):
            stack.enter_context(clients(port, 1, sending=b'GET / HTTP/1.1\r\n'))
            if number % 100 == 0:
                started = time.monotonic()
                assert got(port) == '127.0.0.1 http 0'
                seconds.append(time.monotonic() - started)
    sys.stderr.write(f'the slowest of {len(seconds)} genuine requests took {max(seconds):.3f} s\n')
