"""The socket to RabbitMQ is read through a buffer: no frame is lost, doubled or left behind."""

import socket
import ssl
import struct
import threading
from collections.abc import Callable
from contextlib import suppress

import pytest
from amqp.exceptions import RecoverableConnectionError, UnexpectedFrame
from kombu.transport import pyamqp

from ecommerce_worker.broker import transport
from ecommerce_worker.broker.transport import BrokerConnection, Connection, SSLTransport, TCPTransport, Transport
from ecommerce_worker.celery_app import app
from ecommerce_worker.tests.support.smtp import Certificate


def frame(payload, channel=1, kind=1):
    return struct.pack('>BHI', kind, channel, len(payload)) + payload + b'\xce'


@pytest.fixture
def pair():
    """Our socket, and the other end of it."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        # As py-amqp leaves it.
        ours.settimeout(None)
        theirs.settimeout(60)
        yield ours, theirs


@pytest.fixture
def reader(pair):
    made = TCPTransport('127.0.0.1')
    made.sock, made.connected = pair[0], True
    return made


def test_a_frame_that_comes_in_pieces_is_one(reader, pair):
    _, theirs = pair
    whole = frame(b'x' * 300)
    for piece in (whole[:3], whole[3:7], whole[7:100], whole[100:-1]):
        theirs.sendall(piece)
        reader.receive()
        assert reader.next_frame() is None
    theirs.sendall(whole[-1:])
    assert reader.read_frame() == (1, 1, b'x' * 300)
    assert not reader.reads_ahead


def test_frames_that_come_together_are_many(reader, pair):
    payloads = [b'%d' % number for number in range(1000)]
    pair[1].sendall(b''.join(map(frame, payloads)) + frame(b'last')[:5])
    reader.receive()
    assert [found[2] for found in iter(reader.next_frame, None)] == payloads
    assert reader.reads_ahead


def test_a_frame_larger_than_the_buffer_is_read_at_once_where_it_is_there(reader, pair):
    payload = bytes(3 * transport.READ_BYTES)
    sender = threading.Thread(target=pair[1].sendall, args=(frame(payload) + frame(b'next'),))
    sender.start()
    assert reader.read_frame()[2] == payload
    assert reader.read_frame()[2] == b'next'
    sender.join()


def test_a_wait_that_is_over_loses_nothing(reader, pair):
    whole = frame(b'payload')
    pair[1].sendall(whole[:9])
    with pytest.raises(TimeoutError), reader.having_timeout(0.01):
        reader.read_frame()
    pair[1].sendall(whole[9:])
    assert reader.read_frame() == (1, 1, b'payload')


def test_nothing_to_read_is_no_reason_to_wait(reader):
    with pytest.raises(TimeoutError):
        reader.receive()
    assert reader.sock.gettimeout() is None
    assert reader.connected


def test_a_connection_that_was_closed_is_one_that_is_lost(reader, pair):
    pair[1].sendall(frame(b'last'))
    pair[1].close()
    assert reader.read_frame()[2] == b'last'
    with pytest.raises(OSError, match='unexpectedly closed'):
        reader.read_frame()
    assert not reader.connected
    reader.sock = None
    with pytest.raises(RecoverableConnectionError):
        reader.read_frame()


@pytest.mark.parametrize('bytes_', [
    frame(b'x')[:-1] + b'\0', b'AMQP\0\0\x09\x01', struct.pack('>BHI', 1, 1, 2 ** 31)], ids=repr)
def test_what_is_not_amqp_ends_the_connection(reader, pair, bytes_):
    pair[1].sendall(bytes_)
    with pytest.raises(UnexpectedFrame):
        reader.read_frame()


# -- TLS --------------------------------------------------------------------------------------------------------------

def test_with_tls_all_that_has_come_is_read(tmp_path):
    listener = socket.create_server(('127.0.0.1', 0))
    context = Certificate.made(tmp_path).context
    payloads = [b'%d' % number * 100 for number in range(1000)]
    sent = threading.Event()

    def serve():
        connection, _ = listener.accept()
        with context.wrap_socket(connection, server_side=True) as theirs:
            assert theirs.recv(8) == b'AMQP\0\0\x09\x01'
            theirs.sendall(b''.join(map(frame, payloads)))
            sent.set()
            theirs.recv(1)

    server = threading.Thread(target=serve)
    server.start()
    made = SSLTransport(f'127.0.0.1:{listener.getsockname()[1]}', ssl={'cert_reqs': ssl.CERT_NONE})
    made.connect()
    try:
        assert sent.wait(60)
        found: list[bytes] = []
        while len(found) < len(payloads):
            try:
                made.receive()
            except TimeoutError:
                # What is still on its way, waited for.
                found.append(made.read_frame()[2])
            found += [each[2] for each in iter(made.next_frame, None)]
            assert not made.sock.pending()
        assert found == payloads
    finally:
        made.sock.close()
        server.join()
        listener.close()


# -- The event loop ---------------------------------------------------------------------------------------------------

class Loop:
    """As much of kombu's event loop as is needed."""

    def __init__(self):
        self.reader = None
        self.soon: list[Callable[[], None]] = []

    def add_reader(self, file, callback, *arguments):
        """Called when there is something to read."""
        self.reader = callback

    def call_soon(self, callback, *arguments):
        """Called at the next turn."""
        self.soon.append(callback)

    def turn(self):
        """One turn, without a look at the socket."""
        due, self.soon = self.soon, []
        for callback in due:
            callback()


@pytest.fixture
def connection(reader):
    made = Connection('127.0.0.1')
    made.transport = reader
    made.handled = []
    made.on_inbound_frame = lambda found: made.handled.append(found[2]) or True
    return made


@pytest.fixture
def loop(connection):
    made = Loop()
    Transport(None).register_with_event_loop(connection, made)
    return made


def test_one_turn_of_the_loop_takes_all_frames_that_have_come(connection, loop, pair):
    pair[1].sendall(frame(b'1') + frame(b'2') + frame(b'3') + frame(b'4')[:4])
    loop.reader()
    assert connection.handled == [b'1', b'2', b'3']
    pair[1].sendall(frame(b'4')[4:])
    loop.reader()
    assert connection.handled == [b'1', b'2', b'3', b'4']


def test_what_somebody_who_waited_has_read_ahead_is_taken_at_the_next_turn(connection, loop, pair):
    pair[1].sendall(frame(b'answer') + frame(b'delivery 1') + frame(b'delivery 2'))
    connection.drain_events(timeout=60)
    assert connection.handled == [b'answer']
    loop.turn()
    assert connection.handled == [b'answer', b'delivery 1', b'delivery 2']
    loop.turn()
    assert not loop.soon


def test_what_is_left_by_a_frame_that_could_not_be_borne_is_taken_at_the_next_turn(connection, loop, pair):
    pair[1].sendall(frame(b'1') + frame(b'2'))

    def refuse(found):
        connection.on_inbound_frame = lambda found: connection.handled.append(found[2]) or True
        raise ValueError

    connection.on_inbound_frame = refuse
    with pytest.raises(ValueError):
        connection.drain_events(timeout=60)
    loop.turn()
    assert connection.handled == [b'2']


def test_a_turn_that_was_asked_for_before_the_connection_ended_does_nothing(connection, loop, pair):
    pair[1].sendall(frame(b'answer') + frame(b'delivery'))
    connection.drain_events(timeout=60)
    connection.transport.connected = False
    loop.turn()
    assert connection.handled == [b'answer']


def test_reading_a_connection_that_ended_says_so(connection, loop):
    connection.transport.connected = False
    with pytest.raises(RecoverableConnectionError):
        loop.reader()


# -- kombu ------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('url, kind', [
    ('amqp://127.0.0.1', transport.Transport), ('pyamqp://127.0.0.1', transport.Transport),
    ('amqps://127.0.0.1', transport.TLSTransport), ('amqp://a;amqp://b', transport.Transport),
])
def test_connections_to_rabbitmq_are_read_by_our_own_reader(url, kind):
    found = BrokerConnection(url)
    assert found.get_transport_cls() is kind
    assert found.clone().get_transport_cls() is kind
    assert found.transport.driver_type == 'amqp'
    assert issubclass(kind.Connection, pyamqp.Connection)


def test_connections_to_other_brokers_are_as_ever():
    assert BrokerConnection('memory://').get_transport_cls().__module__ == 'kombu.transport.memory'


def test_the_application_opens_such_connections():
    for found in (app.connection_for_read(), app.connection_for_write(), app.connection()):
        assert type(found) is BrokerConnection


@pytest.fixture
def writes(reader, monkeypatch):
    """The calls of the system by which the transport has written."""
    found: list[bytes] = []
    monkeypatch.setattr(reader, '_write', found.append, raising=False)
    return found


def test_what_is_corked_is_written_at_once_in_order(reader, writes):
    buffer = bytearray(b'a')
    with reader.corked():
        reader.write(memoryview(buffer))
        buffer[:] = b'b'  # as the next frame is made in it
        reader.write(memoryview(buffer))
        assert writes == []
    reader.write(b'c')
    assert writes == [b'ab', b'c']


def test_of_many_that_are_corked_some_are_written_already(reader, writes):
    with reader.corked():
        for _ in range(transport.MOST_CORKED + 1):
            reader.write(b'x')
    assert writes == [b'x' * transport.MOST_CORKED, b'x']


def test_what_was_corked_when_something_failed_is_written_all_the_same(reader, writes):
    with suppress(KeyError), reader.corked():
        reader.write(b'a')
        raise KeyError
    reader.write(b'b')
    assert writes == [b'a', b'b']


def test_channels_of_other_connections_are_not_corked():
    with transport.corked(None), transport.corked(object()):
        pass
