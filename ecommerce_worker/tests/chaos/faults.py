"""What breaks, one function each: it breaks something, for some seconds or several times, and leaves it whole."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from os import EX_TEMPFAIL
from typing import Any, TypeVar

from ecommerce_worker.broker.topology import PARKED
from ecommerce_worker.fulfillment.names import FULFILL
from ecommerce_worker.testing.shop import Answer
from ecommerce_worker.tests.chaos import machine, neighbours, poison
from ecommerce_worker.tests.chaos.harness import Fault, Scene, each, send
from ecommerce_worker.tests.support.harness import Worker, eventually, shop_app
from ecommerce_worker.tests.support.proxy import Proxy

#: Seconds of an outage: more than it takes a worker to see that something is wrong.
OUTAGE = 8.0

#: On RabbitMQ 3.10 quorum queues need a moment after they were declared before their node may be killed.
SETTLED = 3.0

FAULTS: dict[str, Fault] = {}

Act = TypeVar('Act', bound=Callable[..., None])


def fault(name: str, **given: Any) -> Callable[[Act], Act]:
    """Enter a fault in :data:`FAULTS`."""
    def enter(act: Act) -> Act:
        FAULTS[name] = Fault(name, act, **given)
        return act

    return enter


# -- Workers ----------------------------------------------------------------------------------------------------------

@fault('worker-killed')
def kill_the_worker(scene: Scene, times: int = 4) -> None:
    """SIGKILL to all of its processes, and another one started."""
    for _ in each(1.0, times):
        scene.workers[-1].kill()
        scene.start_worker()
        scene.await_consumer()


@fault('worker-killed-twice')
def kill_the_worker_twice(scene: Scene) -> None:
    """The same, shorter."""
    kill_the_worker(scene, 2)


@fault('child-killed', pools=('prefork',))
def kill_a_child(scene: Scene) -> None:
    """SIGKILL to one process of the pool, as the kernel does when there is no memory left."""
    for _ in each(1.0, 6):
        children = eventually(lambda: scene.workers[-1].children)
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(children[-1]), signal.SIGKILL)


def _deploy(scene: Scene, by: signal.Signals) -> None:
    for old in [worker for worker in scene.workers if worker.process.poll() is None]:
        _await_ready(scene.start_worker())
        old.process.send_signal(by)
        old.process.wait(60)


def _await_ready(worker: Worker) -> None:
    eventually(lambda: ' ready' in worker.log, seconds=60)


@fault('deploy-sigterm', workers=2)
def deploy(scene: Scene) -> None:
    """Each of two workers replaced by a new one, the old one told to stop; twice."""
    for _ in each(0.5, 2):
        _deploy(scene, signal.SIGTERM)


@fault('deploy-sigquit', workers=2)
def deploy_in_a_hurry(scene: Scene) -> None:
    """The same, told to stop at once."""
    for _ in each(0.5, 2):
        _deploy(scene, signal.SIGQUIT)


@fault('worker-frozen', workers=2)
def freeze_a_worker(scene: Scene) -> None:
    """One of two workers is stopped in the middle of what it does, for longer than heartbeats may be missed."""
    frozen = scene.workers[0].process.pid
    os.killpg(frozen, signal.SIGSTOP)
    time.sleep(2 * OUTAGE)
    os.killpg(frozen, signal.SIGCONT)


POISONED = 2


@fault('poison', strangers=POISONED, settings={
    'CELERY_IMPORTS': f'ecommerce_worker.fulfillment.v1.tasks,{poison.__name__}', 'REDELIVERY_LIMIT': 4})
def poison_the_queue(scene: Scene) -> None:
    """Messages that kill the process that runs them, each time; whoever died is started again."""
    scene.keep_alive()
    with shop_app(scene.broker.url) as app:
        for number in range(POISONED):
            send(app, f'POISON-{number}', task=f'{poison.__name__}.die')
    if scene.kind.promises:
        eventually(lambda: sum(key.startswith('POISON') for key in scene.parked()) == POISONED, seconds=240)


#: Body, content type, headers: none of them a call of a task of ours.
GARBAGE: Sequence[tuple[bytes, str | None, dict[str, Any]]] = (
    (b'', None, {}),
    (b'hello', 'text/plain', {}),
    (b'{"half": ', 'application/json', {'task': FULFILL, 'id': 'garbage'}),
    (b'\xff\xfe\x00', 'application/json', {'task': FULFILL, 'id': 'garbage'}),
    (b'[["EDX-0"], {}]', 'application/json', {'task': FULFILL, 'id': 'garbage'}),
    (b'[["EDX-0"], {}, {}]', 'application/x-yaml', {'task': FULFILL, 'id': 'garbage'}),
    (b'[["EDX-0"], {}, {}]', 'application/json', {'task': 'no.such.task', 'id': 'garbage'}),
    (b'[["EDX-0"], {}, {}]', 'application/json', {'task': 12, 'id': 'garbage'}),
    (b'[["EDX-0"], {}, {}]', 'application/json', {'task': FULFILL, 'id': 'garbage', 'eta': 'tomorrow'}),
    (b'[[], {}, {}]', 'application/json', {'task': FULFILL, 'id': 'garbage'}),
    (b'[["../etc"], {}, {}]', 'application/json', {'task': FULFILL, 'id': 'garbage'}),
    (b'[{"a": 1}, [], null]', 'application/json', {'task': FULFILL, 'id': 'garbage'}),
    (b'cos\nsystem\n(S"true"\ntR.', 'application/x-python-serialize', {'task': FULFILL, 'id': 'garbage'}),
    (b'\x80\x02]' * 2000, 'application/x-python-serialize', {'task': FULFILL, 'id': 'garbage'}),
    (b'[' * 100_000, 'application/json', {'task': FULFILL, 'id': 'garbage'}),
)

ROUNDS = 10


@fault('garbage', strangers=ROUNDS * len(GARBAGE))
def publish_garbage(scene: Scene) -> None:
    """A stream of what is no call of a task."""
    for _ in each(0.2, ROUNDS):
        for body, content_type, headers in GARBAGE:
            scene.broker.publish_raw(body, content_type=content_type, content_encoding='utf-8', headers=headers)


UNREADABLE = 40


@fault('parked-full', strangers=UNREADABLE)
def fill_the_parked_queue(scene: Scene) -> None:
    """The parked queue takes nothing for a while, and there is more to be parked than a worker has threads."""
    scene.broker.node.ctl('set_policy', 'full', f'^{PARKED}$', '{"max-length":0,"overflow":"reject-publish"}')
    for number in range(UNREADABLE):
        scene.broker.publish_raw(b'hello', content_type='text/plain', content_encoding='utf-8',
                                 headers={'id': f'unreadable-{number}'})
    time.sleep(OUTAGE)
    scene.broker.node.ctl('clear_policy', 'full')
    eventually(lambda: scene.broker.depth(PARKED) >= UNREADABLE, seconds=120)


# -- RabbitMQ ---------------------------------------------------------------------------------------------------------

def _refusing(position: int) -> list[Answer]:
    """Each order needs a second try, so that there is something to publish."""
    # Not 503: five of these in a row mean that the shop is down, and then it is left alone.
    return [Answer(status=429)]


@fault('rabbitmq-killed', publishing=30)
def kill_rabbitmq(scene: Scene, times: int = 2) -> None:
    """SIGKILL to the node, and started again with its data; the shop goes on publishing."""
    for _ in each(SETTLED, times):
        scene.broker.node.kill()
        time.sleep(1)
        scene.broker.node.start(180)
        scene.await_consumer()


@fault('rabbitmq-killed-once', publishing=14)
def kill_rabbitmq_once(scene: Scene) -> None:
    """The same, shorter."""
    kill_rabbitmq(scene, 1)


@fault('rabbitmq-killed-retrying', script=_refusing, publishing=30)
def kill_rabbitmq_while_orders_are_retried(scene: Scene) -> None:
    """The same while each order's next try has to be published."""
    kill_rabbitmq(scene)


@fault('rabbitmq-stopped', script=_refusing, publishing=20)
def stop_rabbitmq(scene: Scene) -> None:
    """stop_app, OUTAGE seconds of nothing, start_app."""
    scene.broker.node.ctl('stop_app')
    time.sleep(OUTAGE)
    scene.broker.node.ctl('start_app', timeout=180)
    scene.await_consumer()


@fault('connections-closed', script=_refusing)
def close_all_connections(scene: Scene, times: int = 4) -> None:
    """All connections closed by the broker."""
    for _ in each(1.5, times):
        scene.broker.node.ctl('close_all_connections', 'chaos')
    scene.await_consumer()


@fault('connections-closed-pair', script=_refusing, workers=2, publishing=20)
def close_all_connections_of_two(scene: Scene) -> None:
    """The same with two workers: what one had in hand is delivered to the other."""
    close_all_connections(scene, 8)


@fault('disk-alarm', script=_refusing)
def fill_the_disk(scene: Scene) -> None:
    """RabbitMQ has no disk left: it takes no message, but gives some."""
    scene.broker.node.ctl('set_disk_free_limit', '1000000GB')
    time.sleep(OUTAGE)
    scene.broker.node.ctl('set_disk_free_limit', '50MB')


# -- The network between worker and RabbitMQ --------------------------------------------------------------------------

@fault('network-frozen', script=_refusing)
def freeze_the_network(scene: Scene) -> None:
    """Nothing passes for longer than heartbeats may be missed; then all of it does, from both sides."""
    scene.wire.freeze()
    time.sleep(3 * OUTAGE)
    scene.wire.thaw()


@fault('network-hiccups', script=_refusing)
def freeze_the_network_for_a_moment(scene: Scene) -> None:
    """Nothing passes, for less than heartbeats may be missed."""
    for _ in each(2.0, 3):
        scene.wire.freeze()
        time.sleep(2)
        scene.wire.thaw()


@fault('network-cut', script=_refusing)
def cut_the_network(scene: Scene) -> None:
    """Connections end in the middle of whatever passes; then nobody can connect for a while."""
    for _ in each(1.5, 3):
        scene.wire.cut()
    scene.wire.refuse()
    time.sleep(OUTAGE)
    scene.wire.accept()


@fault('network-failed-over', script=_refusing, publishing=20)
def fail_over(scene: Scene) -> None:
    """Connections end on the worker's side only: RabbitMQ takes them for alive until it misses their heartbeats."""
    for _ in each(4.0, 3):
        scene.wire.fail_over()
        scene.await_consumer()


# -- The shop ---------------------------------------------------------------------------------------------------------

def _twice_500(position: int) -> list[Answer]:
    return [Answer(status=500)] * 2


@fault('shop-500', script=_twice_500)
def answer_500(scene: Scene) -> None:
    """The shop answers the first two PUTs of each order with 500."""


def _mixed(position: int) -> list[Answer]:
    answers = [Answer(status=502), Answer(status=429, headers={'Retry-After': '2'}), Answer.dropped(), Answer.lost(),
               Answer.truncated(), Answer.html(), Answer.garbled(), Answer(status=404), Answer(status=500, effect=True)]
    # Every other order: five failures in a row mean that the shop is down, and then it is left alone.
    return [] if position % 2 else [answers[position // 2 % len(answers)]]


@fault('shop-odd', script=_mixed)
def answer_oddly(scene: Scene) -> None:
    """The first PUT of every other order has a bad answer; of some it has its effect, and the answer is lost."""


def _slow(position: int) -> list[Answer]:
    return [Answer.slow(1.5)]


@fault('shop-slow', script=_slow)
def answer_slowly(scene: Scene) -> None:
    """The shop needs 1.7 s for each order, and the worker is killed meanwhile."""
    kill_the_worker(scene, 2)


@fault('shop-down')
def stop_the_shop(scene: Scene) -> None:
    """The shop is killed and refuses connections until it is started again, with what it knew."""
    scene.shop.kill()
    time.sleep(OUTAGE)
    scene.shop.start()


#: Why an order may be called for again where the shop stood still.
GIVEN_UP = (
    'a shop that stood still takes the PUTs that wait at its door when it goes on, though the worker has given them up '
    'meanwhile and may be asking again')


@fault('shop-hanging', unavoidable=GIVEN_UP)
def freeze_the_shop(scene: Scene) -> None:
    """The shop takes connections and does nothing, for longer than the worker's patience; then it goes on."""
    scene.freeze_shop()
    time.sleep(2 * scene.kind.read_timeout)
    scene.thaw_shop()


@fault('tokens-refused')
def refuse_tokens(scene: Scene) -> None:
    """The token endpoint answers 503, and the tokens that there are count no more."""
    scene.shop.fault_tokens(Answer(status=503).always())
    scene.shop.revoke_tokens()
    time.sleep(OUTAGE)
    scene.shop.repair_tokens()


# -- What is slow beside what is not ----------------------------------------------------------------------------------

def _beside(scene: Scene, *answers: Answer, slow: Callable[[neighbours.Neighbour], None] = lambda _: None) -> None:
    """Have orders of another site come for as long as the fault lasts, whose shop is slow; then it is mended."""
    neighbour = scene.neighbour
    assert neighbour
    slow(neighbour)
    neighbour.publish(scene.lasting, *answers)
    neighbour.mend()


def _with_a_neighbour(scene: Scene) -> None:
    scene.neighbour = neighbours.Neighbour(scene)


#: Seconds within which 99 of 100 orders of a site are called for, whatever becomes of those of another one.
IN_TIME = 2.0


@fault('site-slow', prepare=_with_a_neighbour, lasts=True, punctual=IN_TIME)
def answer_slowly_at_another_site(scene: Scene) -> None:
    """The shop of another site takes 25 s for each order, below any time-out."""
    _beside(scene, Answer.slow(neighbours.SLOW_SECONDS))


@fault('site-dripping', prepare=_with_a_neighbour, lasts=True, punctual=IN_TIME)
def drip_at_another_site(scene: Scene) -> None:
    """The shop of another site answers by a byte in a second."""
    _beside(scene, slow=lambda neighbour: neighbour.wire.drip())


@fault('site-hanging', prepare=_with_a_neighbour, lasts=True, punctual=IN_TIME)
def hang_at_another_site(scene: Scene) -> None:
    """The shop of another site takes connections and answers nothing."""
    _beside(scene, slow=lambda neighbour: neighbour.wire.freeze())


def _with_mail(scene: Scene) -> None:
    scene.mail = neighbours.Mail(scene)


@fault('mail-hanging', prepare=_with_mail, lasts=True, punctual=IN_TIME)
def hang_where_mail_is_sent(scene: Scene) -> None:
    """Who sends the mail takes connections and answers nothing."""
    assert scene.mail
    scene.mail.wire.freeze()
    scene.mail.publish(scene.lasting)
    scene.mail.wire.thaw()


#: As many as a worker may lose of its threads: a quarter of the twice 8 that it has.
HUNG = 4


@fault('threads-lost', pools=('threads',), strangers=HUNG, settings={
    'CELERY_IMPORTS': f'ecommerce_worker.fulfillment.v1.tasks,{poison.__name__}', 'REDELIVERY_LIMIT': 2,
    'LONGEST_RUN': 5})
def lose_threads(scene: Scene) -> None:
    """Messages whose runs hang in C; a worker that ended because of them is started again."""
    scene.keep_alive()
    # The last one may have lost threads too when it is stopped.
    scene.good_statuses |= {EX_TEMPFAIL}
    with shop_app(scene.broker.url) as app:
        for number in range(HUNG):
            send(app, f'HUNG-{number}', task=f'{poison.__name__}.hang')
    eventually(lambda: sum(key.startswith('HUNG') for key in scene.parked()) == HUNG, seconds=240)
    statuses = {worker.process.poll() for worker in scene.workers[:-1]}
    assert statuses == {EX_TEMPFAIL}, f'workers that lost their threads ended with {statuses}'


# -- Two machines -----------------------------------------------------------------------------------------------------

def _on_two_machines(scene: Scene) -> None:
    """Each worker has a network namespace, whose loopback leads to RabbitMQ and to the shop."""
    wires = scene.directory / 'wires'
    wires.mkdir()
    for port in (scene.wire.port, scene.shop.port):
        scene.stack.enter_context(Proxy(port, wires / str(port)))
    scene.command = partial(machine.command, wires)


@fault('pairs', pools=('threads',), prepare=_on_two_machines, workers=2, copies=2)
def publish_pairs(scene: Scene) -> None:
    """Each order is published twice at once, with a worker on each of two machines."""


@fault('pairs-cut', pools=('threads',), prepare=_on_two_machines, workers=2, copies=2)
def publish_pairs_and_close_connections(scene: Scene) -> None:
    """The same, while connections are closed in mid-run."""
    close_all_connections(scene, 3)


# -- All at once ------------------------------------------------------------------------------------------------------

@fault('everything', script=_mixed, workers=2, publishing=60, settings={'REDELIVERY_LIMIT': 20})
def break_everything(scene: Scene) -> None:
    """One after the other while orders go through."""
    scene.keep_alive()
    scene.workers[0].kill()
    close_all_connections(scene, 1)
    scene.workers[-1].kill()
    cut_the_network(scene)
    stop_the_shop(scene)
    refuse_tokens(scene)
    kill_rabbitmq(scene, 1)
    scene.workers[-1].kill()


#: The part of its time for which a worker lives that is killed again and again, in seconds.
LIFE = 20.0


def _with_everybody(scene: Scene) -> None:
    """Another site, mail, and a worker whose output nobody reads."""
    _with_a_neighbour(scene)
    _with_mail(scene)
    unread, output = os.pipe()
    scene.stack.callback(os.close, unread)
    scene.start_worker(output)
    os.close(output)


@fault('crowded', prepare=_with_everybody, lasts=True, punctual=5.0, settings={'REDELIVERY_LIMIT': 20})
def crowd(scene: Scene) -> None:
    """Beside the orders: a site whose shop drips, mail that hangs, garbage, a worker whose output nobody reads, another
    one that is killed again and again, and connections that are closed.
    """
    scene.keep_alive()
    assert scene.mail
    scene.mail.wire.freeze()
    others = [threading.Thread(target=act) for act in (
        partial(_beside, scene, slow=lambda neighbour: neighbour.wire.drip()),
        partial(scene.mail.publish, scene.lasting))]
    for other in others:
        other.start()
    for life in each(LIFE, max(2, int(scene.lasting / LIFE))):
        for body, content_type, headers in GARBAGE:
            scene.broker.publish_raw(body, content_type=content_type, content_encoding='utf-8', headers=headers)
        scene.strangers += len(GARBAGE)
        if life % 2:
            scene.workers[-1].kill()
            scene.kills += 1
        else:
            scene.broker.node.ctl('close_all_connections', 'chaos')
    for other in others:
        other.join()
    scene.mail.wire.thaw()
