"""When a service is left alone, who probes it, and how it is opened again."""

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from ecommerce_worker.clients import circuit as module
from ecommerce_worker.clients.circuit import CircuitBreaker
from ecommerce_worker.errors import Held, NotFound, PeerFailure, Throttled, Unauthorized, Unreachable
from ecommerce_worker.tests.support.clock import Clock


@pytest.fixture
def clock():
    return Clock(0.0)


@pytest.fixture
def circuit(clock):
    return CircuitBreaker('shop.test', 8, clock=clock, jitter=lambda: 0.5)


def fails(circuit, error=None, times=1):
    for _ in range(times):
        raised = error or Unreachable('no answer')
        with pytest.raises(type(raised)), circuit.call():
            raise raised


def succeeds(circuit, times=1):
    for _ in range(times):
        with circuit.call():
            pass


def is_held(circuit):
    try:
        with circuit.call():
            return False
    except Held:
        return True


def test_a_host_that_answers_is_never_held(circuit):
    succeeds(circuit, 100)
    fails(circuit, NotFound('no', status=404), 100)
    assert not is_held(circuit)


@pytest.mark.parametrize('error', [
    Unreachable('refused'), PeerFailure('busy', status=503), PeerFailure('bad gateway', status=502),
    Throttled('no', status=503),
], ids=repr)
def test_a_host_that_fails_again_and_again_is_held(circuit, error):
    fails(circuit, error, module.PATIENCE)
    assert is_held(circuit)


@pytest.mark.parametrize('error', [
    PeerFailure('broken', status=500), NotFound('no', status=404), Unauthorized('no', status=401),
    Throttled('slow down', status=429), PeerFailure('not JSON', status=200), KeyError('ours'),
], ids=repr)
def test_what_a_host_answers_that_is_up_holds_nothing(circuit, error):
    fails(circuit, error, 10 * module.PATIENCE)
    assert not is_held(circuit)


def test_an_answer_in_between_shows_that_it_is_up(circuit):
    for _ in range(10):
        fails(circuit, times=module.PATIENCE - 1)
        succeeds(circuit)
    assert not is_held(circuit)


def test_one_call_probes_it_when_the_time_is_over(circuit, clock):
    fails(circuit, times=module.PATIENCE)
    clock.now = module.SHORTEST
    with circuit.call():
        assert is_held(circuit)


def test_a_probe_that_fails_holds_it_longer_up_to_a_bound(circuit, clock):
    fails(circuit, times=module.PATIENCE)
    waits = []
    for _ in range(8):
        with pytest.raises(Held) as caught, circuit.call():
            pass
        waits.append(caught.value.retry_after or 0.0)
        clock.now += module.LONGEST
        fails(circuit)
    assert waits == sorted(waits)
    assert waits[-1] <= module.LONGEST * 1.25 + module.TURN


def test_fewer_than_one_call_in_a_second_reaches_a_host_that_is_down(circuit, clock):
    calls = 0
    for _ in range(100 * 60):
        clock.now += 0.01
        try:
            with circuit.call():
                calls += 1
                raise Unreachable('refused')
        except (Held, Unreachable):
            pass
    assert calls < 60


def let_in(circuit):
    """How many calls are let in at once; all of them succeed."""
    with contextlib.ExitStack() as calls:
        for number in range(100):
            try:
                calls.enter_context(circuit.call())
            except Held:
                return number
        return 100


def test_it_opens_step_by_step(circuit, clock):
    fails(circuit, times=module.PATIENCE)
    clock.now = module.SHORTEST
    assert [let_in(circuit) for _ in range(5)] == [1, 2, 4, 8, 100]


def test_a_failure_while_it_opens_holds_it_again(circuit, clock):
    fails(circuit, times=module.PATIENCE)
    clock.now = module.SHORTEST
    succeeds(circuit, 3)
    fails(circuit)
    assert is_held(circuit)


def test_each_change_of_state_is_said_once_in_order_and_without_a_lock(clock):
    said = []

    def changed(host, state, reason):
        said.append((host, state, reason))
        assert breaker._lock.acquire(timeout=5)  # nobody has it
        breaker._lock.release()

    breaker = CircuitBreaker('shop.test', 2, clock=clock, jitter=lambda: 0.5, changed=changed)
    fails(breaker, times=module.PATIENCE)
    clock.now = module.SHORTEST
    fails(breaker)
    clock.now += 2 * module.SHORTEST
    succeeds(breaker, 9)
    assert said == [('shop.test', state, 'no answer')
                    for state in ('open', 'half-open', 'open', 'half-open', 'closed')]


def test_calls_from_before_say_nothing_about_the_time_after(circuit):
    late = circuit.call()
    late.__enter__()
    fails(circuit, times=module.PATIENCE)
    late.__exit__(None, None, None)
    assert is_held(circuit)


def test_no_more_threads_are_let_in_than_there_is_room_for(clock):
    circuit = CircuitBreaker('shop.test', 64, clock=clock, jitter=lambda: 0.5)
    fails(circuit, times=module.PATIENCE)
    clock.now = module.SHORTEST
    inside, most, lock = 0, 0, threading.Lock()

    def call(_):
        nonlocal inside, most
        try:
            with circuit.call():
                with lock:
                    inside += 1
                    most = max(most, inside)
                with lock:
                    inside -= 1
        except Held:
            return 0
        return 1

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(call, range(500))) > 64
    assert circuit._calls == 0
