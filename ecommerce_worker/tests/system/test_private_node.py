"""The private RabbitMQ node keeps what a real one keeps, and leaves nothing behind."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kombu import Connection, Queue

from ecommerce_worker.testing.rabbitmq import PrivateNode

REQUIRED = os.environ.get('CI') == 'true' or os.environ.get('REQUIRE_BROKER') == '1'

COUNTABLE = Path('/proc/self/environ').exists()

pytestmark = pytest.mark.skipif(
    PrivateNode.program() is None and not REQUIRED, reason='the program rabbitmq-server is not installed'
)

QUEUES = [
    Queue('classic', durable=True),
    Queue('quorum', durable=True, queue_arguments={'x-queue-type': 'quorum'}),
]


@pytest.fixture
def node():
    with PrivateNode() as node:
        yield node


def publish(node, queue, body):
    with Connection(node.url, transport_options={'confirm_publish': True}) as connection:
        connection.Producer().publish(body, routing_key=queue.name, declare=[queue], delivery_mode=2)


def received(node, queue):
    with Connection(node.url) as connection, connection.SimpleQueue(queue) as messages:
        message = messages.get(timeout=60)
        message.ack()
        return message.payload


def processes_of(node):
    """Process ids of all that was started for this node: its directory is in their environment."""
    found = []
    for process in Path('/proc').glob('[0-9]*'):
        try:
            # Empty for one that has ended and waits for its parent to notice.
            if str(node.directory).encode() in (process / 'environ').read_bytes():
                found.append(int(process.name))
        except OSError:
            continue
    return found


def await_no_process_of(node):
    # The helpers of the Erlang machine end by themselves when it is gone.
    deadline = time.monotonic() + 10
    while processes_of(node):
        assert time.monotonic() < deadline, processes_of(node)
        time.sleep(0.05)


def test_a_durable_message_outlives_a_power_cut_and_a_restart(node):
    for queue in QUEUES:
        publish(node, queue, 'an order')
        publish(node, queue, 'another')
    # RabbitMQ 3.10 confirms a new quorum queue about a second before its name is on disk; a power cut in
    # between leaves a queue that never finds its leader.
    time.sleep(2)
    node.kill()
    node.start()
    assert [received(node, queue) for queue in QUEUES] == ['an order', 'an order']
    node.restart()
    assert [received(node, queue) for queue in QUEUES] == ['another', 'another']
    node.kill()
    await_no_process_of(node)
    node.kill()
    node.stop()


def test_rabbitmqctl_speaks_to_this_node(node):
    publish(node, QUEUES[0], 'an order')
    assert node.ctl('list_queues', 'name', 'messages', '--no-table-headers').split() == ['classic', '1']
    with pytest.raises(RuntimeError, match='no_such_command'):
        node.ctl('no_such_command')


@pytest.mark.skipif(not COUNTABLE, reason='processes are counted in /proc')
def test_nothing_is_left_behind_and_no_other_node_is_touched(shared_node):
    with PrivateNode() as node:
        assert processes_of(node)
    await_no_process_of(node)
    assert not node.directory.exists()
    passing = Queue('passing', auto_delete=True)
    publish(shared_node, passing, 'an order')
    assert received(shared_node, passing) == 'an order'


@pytest.mark.skipif(not COUNTABLE, reason='processes are counted in /proc')
def test_a_node_ends_with_an_owner_that_is_killed(tmp_path):
    program = (
        'import pathlib, sys, time\n'
        'from ecommerce_worker.testing.rabbitmq import PrivateNode\n'
        'PrivateNode(pathlib.Path(sys.argv[1])).start()\n'
        'print(flush=True)\n'
        'time.sleep(600)\n'
    )
    root = Path(__file__).parents[3]
    command = [sys.executable, '-c', program, tmp_path]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline()
        node = PrivateNode(tmp_path)
        assert len(processes_of(node)) > 1
        owner.send_signal(signal.SIGKILL)
    await_no_process_of(node)


def test_everything_listens_on_loopback_only(shared_node):
    listeners = PrivateNode.ctl(shared_node, 'eval', 'io:format("~p", [[inet:sockname(P) || P <- erlang:ports()]]).')
    assert '{{127,0,0,1},' in listeners
    assert '{{0,0,0,0},' not in listeners
    assert '{{0,0,0,0,0,0,0,0},' not in listeners


def test_a_port_that_another_node_has_is_refused(shared_node, tmp_path):
    with pytest.raises(RuntimeError, match='taken'):
        PrivateNode(tmp_path, shared_node.port).start()


@pytest.mark.skipif(not COUNTABLE, reason='processes are counted in /proc')
def test_a_node_that_cannot_start_says_why_and_is_gone(tmp_path):
    node = PrivateNode(tmp_path)
    with socket.create_server(('127.0.0.1', node.port)), pytest.raises(RuntimeError, match='eaddrinuse'):
        node.start()
    await_no_process_of(node)
