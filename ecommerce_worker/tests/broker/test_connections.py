"""Connections that are lost in odd ways, workers of one name, queues that are gone: the worker goes on."""

import subprocess
from pathlib import Path

import pytest
from celery import Celery

from ecommerce_worker.broker import publishing, topology
from ecommerce_worker.broker.lending import lent
from ecommerce_worker.broker.notes import Notes
from ecommerce_worker.broker.wire import Call
from ecommerce_worker.fulfillment.names import FULFILL
from ecommerce_worker.operations.parked import looked_through
from ecommerce_worker.testing.shop import Answer
from ecommerce_worker.tests.support.harness import QUEUE, QUEUES, eventually, shop_app
from ecommerce_worker.tests.support.proxy import Proxy

DEPLOY = Path(__file__).parents[3] / 'deploy' / 'rabbitmq'


@pytest.fixture
def wire(broker):
    """The network between a worker and RabbitMQ."""
    with Proxy(broker.node.port) as wire:
        yield wire


def url_of(wire):
    return f'amqp://guest:guest@127.0.0.1:{wire.port}//'


# -- one that RabbitMQ takes for alive --------------------------------------------------------------------------------

def test_a_worker_whose_former_connection_rabbitmq_takes_for_alive_consumes_on_another(
        broker, shop, start_worker, publish, wire):
    worker = start_worker(BROKER_URL=url_of(wire), BROKER_HEARTBEAT=4).ready()
    for wanted in (2, 3):
        wire.fail_over()
        # Ghosts are consumers still: there is one more each time.
        worker.ready(consumers=wanted)
    numbers = [f'EDX-{number}' for number in range(10)]
    for number in numbers:
        shop.add_order(number)
        publish(number)
    # Some were handed to the ghosts, and come back when RabbitMQ misses their heartbeats.
    eventually(lambda: all(shop.orders[number].status == 'Complete' for number in numbers), seconds=60)
    assert 'RESOURCE_LOCKED' not in worker.log
    assert not any(call.repeated for call in shop.calls)


def test_remote_control_reaches_a_worker_that_has_reconnected(broker, command, start_worker, wire):
    worker = start_worker('--hostname=here@there', BROKER_URL=url_of(wire), BROKER_HEARTBEAT=4).ready()
    wire.fail_over()
    eventually(lambda: broker.consumers(QUEUE) >= 2)
    eventually(lambda: 'workers   here@there' in command('status', '--timeout=2').stdout)
    assert worker.process.poll() is None


# -- names ------------------------------------------------------------------------------------------------------------

def test_two_workers_of_one_name_both_consume(broker, start_worker):
    first, second = start_worker('--hostname=same@host'), start_worker('--hostname=same@host')
    second.ready(consumers=2)
    assert first.process.poll() is None, first.log


def test_workers_that_have_the_same_process_id_and_host_name_have_names_of_their_own(broker, command, start_worker):
    start_worker('--concurrency=1')
    start_worker('--concurrency=1').ready(consumers=2)

    def names():
        line = next(line for line in command('status', '--timeout=3').stdout.splitlines() if line.startswith('workers'))
        return len(found := line.removeprefix('workers').split(', ')) == 2 and found

    # A process id, and what no other process has.
    assert len({name.partition('@')[0].rpartition('-')[2] for name in eventually(names)}) == 2


# -- queues that are gone ---------------------------------------------------------------------------------------------

def delete(broker, *names):
    with broker.connection() as connection:
        for name in names:
            connection.default_channel.queue_delete(name)


def test_waiting_room_and_parked_queue_that_are_deleted_under_a_worker_are_declared_anew(
        broker, command, shop, start_worker, publish):
    worker = start_worker().ready()
    gone = [*map(topology.level, range(topology.BITS)), topology.PARKED]
    delete(broker, *gone)
    listed = command('status', '--timeout=3')
    assert listed.returncode == 1
    assert f'{topology.PARKED}, {topology.level(27)}' in listed.stdout
    assert 'should exist' in listed.stdout
    shop.add_order('EDX-1', Answer(status=429))
    publish('EDX-1')
    eventually(lambda: worker.settled('EDX-1') == 'done', seconds=60)
    assert 'queues were missing and have been declared again' in worker.log
    publish('not an order number')
    eventually(broker.parked, seconds=60)


@pytest.mark.restarts_rabbitmq
def test_a_broker_that_comes_back_empty_is_furnished_anew(broker, shop, start_worker, publish):
    worker = start_worker(RETRY_DELAY_MAX=1).ready()
    for command in ('stop_app', 'reset', 'start_app'):
        broker.node.ctl(command, timeout=180)
    eventually(lambda: broker.consumers(QUEUE), seconds=60)
    shop.add_order('EDX-1', Answer(status=429))
    publish('EDX-1')
    eventually(lambda: worker.settled('EDX-1') == 'done', seconds=60)
    assert worker.process.poll() is None


def test_a_rabbitmq_whose_dead_lettering_has_ended_is_named_with_its_remedy(own_node, command):
    own_node.ctl('eval', 'supervisor:terminate_child(rabbit_sup, rabbit_fifo_dlx_sup).')
    refused = command('worker', BROKER_URL=own_node.url)
    assert refused.returncode == 69
    assert 'if its log names rabbit_fifo_dlx_sup' in refused.stderr
    assert 'rabbit_fifo_dlx_sup' in (own_node.directory / 'node.log').read_text()


# -- queues of another shape ------------------------------------------------------------------------------------------

@pytest.fixture
def quorum(broker):
    """A RabbitMQ of whom both sides are ours: task queues are quorum queues."""
    delete(broker, *QUEUES, topology.PARKED, topology.LEDGER)
    with broker.connection() as connection:
        for name in QUEUES:
            topology.task_queue(name, 'quorum').bind(connection.default_channel).declare()
    yield {'QUEUE_TYPE': 'quorum'}
    delete(broker, *QUEUES, topology.PARKED, topology.LEDGER)


def parked(broker):
    """How many messages are parked, by a look that gives them back."""
    with broker.connection() as connection, looked_through(connection) as messages:
        return len(list(messages))


def are_of_type(broker, queue_type):
    """Whether what is parked and the facts have queues of this type."""
    with broker.connection() as connection:
        found = {declare(connection, queue_type) for declare in (topology.declare_parked, topology.declare_facts)}
    return found == {topology.Shape.AS_DECLARED}


def test_parked_messages_and_facts_have_the_type_of_the_task_queues(broker, start_worker, publish, quorum):
    start_worker(**quorum).ready()
    with shop_app(broker.url) as app:
        app.amqp.queues.add(topology.task_queue(QUEUE, 'quorum'))
        app.send_task(FULFILL, ('not an order number',), queue=QUEUE)
    eventually(lambda: broker.depth(topology.PARKED))
    eventually(lambda: broker.depth(topology.LEDGER))
    assert are_of_type(broker, 'quorum')


def test_what_is_parked_may_be_looked_at_as_often_as_one_likes(broker, command, start_worker, quorum):
    worker = start_worker(**quorum).ready()
    with shop_app(broker.url) as app:
        app.amqp.queues.add(topology.task_queue(QUEUE, 'quorum'))
        app.send_task(FULFILL, ('not an order number',), queue=QUEUE)
    # Since RabbitMQ 4.0, a quorum queue drops what came back 20 times.
    for _ in range(25):
        assert eventually(lambda: parked(broker)) == 1
    assert worker.stop() == 0
    assert '1 parked message\n' in command('parked', 'list', **quorum).stdout


def test_a_classic_queue_of_an_earlier_day_is_kept_and_moved_by_a_reset(broker, command, start_worker, quorum):
    with broker.connection() as connection:
        topology.declare_parked(connection)
        topology.declare_facts(connection)
        publishing.tell(connection, b'a fact', f'done.{FULFILL}')
    worker = start_worker(**quorum).ready()
    with shop_app(broker.url) as app:
        app.amqp.queues.add(topology.task_queue(QUEUE, 'quorum'))
        app.send_task(FULFILL, ('not an order number',), queue=QUEUE)
    eventually(lambda: broker.depth(topology.PARKED))
    eventually(lambda: broker.depth(topology.LEDGER) == 2)
    assert worker.log.count('ecommerce.parked does not have the type in QUEUE_TYPE (quorum)') == 1
    assert worker.stop() == 0
    assert are_of_type(broker, 'classic')
    done = command('queues', 'reset', '--park', **quorum)
    assert 'ecommerce.parked now has the type quorum; 1 message kept' in done.stdout, done
    assert 'ecommerce.ledger now has the type quorum; 2 messages kept' in done.stdout
    assert are_of_type(broker, 'quorum')
    with broker.connection() as connection:
        assert topology.depth(connection, f'{topology.PARKED}.moving') is None
    assert '1 parked message\n' in command('parked', 'list', **quorum).stdout
    again = command('queues', 'reset', '--park', **quorum)
    assert (again.returncode, 'kept' in again.stdout) == (0, False)


def test_a_rabbitmq_that_knows_no_lazy_queues_gets_one_without_a_mode(broker):
    delete(broker, topology.LEDGER)
    queue = topology.ledger_queue()
    queue.queue_arguments['x-queue-mode'] = 'unheard-of'
    with broker.connection() as connection:
        assert topology.declare_queue(connection, queue) is topology.Shape.AS_DECLARED
        assert topology.declare_facts(connection) is topology.Shape.ANOTHER
    delete(broker, topology.LEDGER)


# -- how often a message may come back --------------------------------------------------------------------------------

def limits_deliveries(broker):
    with broker.connection() as connection:
        return topology.version(connection) >= topology.LIMITS_DELIVERIES


def test_what_waits_may_be_looked_at_as_often_as_one_likes(broker, shop):
    call = Call(FULFILL, 'an-id', ('EDX-1',), {})
    with broker.connection() as connection, Celery('worker', broker=broker.url, set_as_current=False) as app:
        topology.declare(connection, [topology.task_queue(QUEUE)])
        publishing.wait(app, call, Notes(queue=QUEUE), 600)
        place = eventually(lambda: next(filter(broker.depth, topology.waiting_room(connection)), None))
        for _ in range(25):
            eventually(lambda: broker.depth(place))
            with lent(connection, place) as messages:
                assert len(list(messages)) == 1
        assert eventually(lambda: broker.depth(place)) == 1


def test_a_worker_of_quorum_queues_says_which_policies_it_needs(broker, start_worker, quorum):
    worker = start_worker(**quorum).ready()
    eventually(lambda: ' ready' in worker.log)
    asked = 'drops a message of a quorum queue (ecommerce.fulfillment' in worker.log
    assert asked is limits_deliveries(broker)


@pytest.fixture
def policies(broker):
    """Sets the policies as ``deploy/rabbitmq`` has them: by its script, or by its definitions."""
    if not limits_deliveries(broker):
        pytest.skip('this RabbitMQ drops nothing that came back often')

    def policies_set(by):
        if by == 'definitions':
            broker.node.ctl('import_definitions', str(DEPLOY / 'definitions.json'))
        else:
            program = Path(broker.node.program()).with_name('rabbitmqctl')
            subprocess.run([DEPLOY / 'policies.sh'], check=True,
                           env={**broker.node.environment, 'RABBITMQCTL': str(program)})
        return broker.node.ctl('list_policies')

    yield policies_set
    for name in ('ecommerce-tasks', 'ecommerce-looks'):
        broker.node.ctl('clear_policy', name)


@pytest.mark.parametrize('by', ['definitions', 'script'])
def test_with_the_policies_an_order_that_comes_back_for_ever_is_parked(broker, quorum, policies, by):
    assert 'ecommerce-tasks' in policies(by)
    with broker.connection() as connection:
        topology.declare(connection, [topology.task_queue(QUEUE, 'quorum')], 'quorum')
        channel = connection.channel()
        message = channel.prepare_message(b'x', content_type='text/plain', content_encoding='binary',
                                          properties={'delivery_mode': 2})
        channel.basic_publish(message, '', QUEUE)

        def came_back():
            message = channel.basic_get(QUEUE)
            if message:
                channel.basic_reject(message.delivery_tag, requeue=True)
            return broker.depth(topology.PARKED)

        assert eventually(came_back) == 1
