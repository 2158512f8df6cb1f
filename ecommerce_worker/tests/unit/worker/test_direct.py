"""Which deliveries go straight to a thread, and which ones by Celery."""

from types import SimpleNamespace
from typing import Any

import pytest
from celery import signals
from celery.exceptions import Ignore

from ecommerce_worker.broker.notes import Notes
from ecommerce_worker.broker.wire import Call, Raw
from ecommerce_worker.celery_app import app
from ecommerce_worker.execution.delivery import DELIVERY, Delivery
from ecommerce_worker.execution.outcomes import Handover
from ecommerce_worker.fulfillment.names import FULFILL
from ecommerce_worker.worker.direct import Strategy


class Consumer:
    """What of the worker's consumer is needed; a pool of threads, an event loop, and nobody who listens."""

    hub, event_dispatcher, hostname, connection_errors = True, None, 'worker@here', (OSError,)

    def __init__(self):
        self.offered: list[Any] = []
        self.settled: list[Any] = []
        self.handed: list[Any] = []
        self.pool: Any = SimpleNamespace(put=lambda act: act())
        self.on_task_request = self.offered.append
        self.lanes = SimpleNamespace(left=lambda request: None)
        self.acknowledging = SimpleNamespace(acknowledge=lambda message, id_: self.settled.append((id_, True)))

    def settle(self, message, done):
        self.settled.append((message.headers['id'], done))

    def hand_over(self, request, handover):
        self.handed.append((request.id, handover))


class Task:
    """A task of ours whose run is what the test says."""

    def __init__(self, run):
        self._task = app.tasks[FULFILL]
        self._run = run

    def __getattr__(self, name):
        return getattr(self._task, name)

    def __call__(self, *args, **kwargs):
        return self._run(self._task, *args, **kwargs)


@pytest.fixture
def consumer():
    return Consumer()


def strategy(consumer, run=lambda *_, **__: None):
    made: Any = object.__new__(Strategy)
    made._task, made._app, made._consumer = Task(run), app, consumer
    return made


def delivered(**call):
    raw = Raw(b'', 'application/json', 'utf-8')
    return Delivery(Call(FULFILL, 'id-1', ('EDX-1',), {'site_code': 'edx'}, **call), raw, Notes(queue='q'))


def message():
    return SimpleNamespace(headers={}, delivery_info={'routing_key': 'q'}, properties={}, channel=None)


def run_one(consumer, run):
    """One delivery, taken and run to its end."""
    assert strategy(consumer, run).receive(message(), delivered())
    request, = consumer.offered
    request.consumer = consumer
    request.begin(request.run)


def test_a_run_finds_its_message_where_celery_has_it(consumer):
    found: dict[str, Any] = {}

    def run(task, *args, **kwargs):
        request = task.request
        found.update(id=request.id, args=args, kwargs=kwargs, hostname=request.hostname, task=app.current_task.name,
                     delivery=request.get(DELIVERY), called_directly=request.called_directly)

    run_one(consumer, run)
    assert found == {'id': 'id-1', 'args': ('EDX-1',), 'kwargs': {'site_code': 'edx'}, 'hostname': 'worker@here',
                     'task': FULFILL, 'delivery': delivered(), 'called_directly': False}
    assert app.current_task is None
    assert consumer.settled == [('id-1', True)]


def test_a_run_that_is_ignored_is_acknowledged_and_one_that_is_handed_over_is_not_yet(consumer):
    def ignored(*_, **__):
        raise Ignore

    run_one(consumer, ignored)
    assert consumer.settled == [('id-1', True)]
    other, handover = Consumer(), Handover((), ('message',), None)

    def handed_over(*_, **__):
        raise handover

    run_one(other, handed_over)
    assert (other.settled, other.handed) == ([], [('id-1', handover)])
    assert handover.__traceback__ is None


@pytest.mark.parametrize('error', [RuntimeError, SystemExit, MemoryError, KeyboardInterrupt])
def test_whatever_a_run_ends_with_its_message_is_given_back(consumer, error, caplog):
    def run(*_, **__):
        raise error

    run_one(consumer, run)
    assert consumer.settled == [('id-1', False)]
    assert f'error={error.__name__}' in caplog.text


def test_who_listens_to_celery_hears_of_runs_from_celery(consumer):
    def heard(**_):
        """It need not do anything."""

    taking = strategy(consumer)
    for signal in (signals.task_prerun, signals.task_success, signals.task_received):
        signal.connect(heard)
        try:
            assert not taking.receive(message(), delivered())
        finally:
            signal.disconnect(heard)
    assert taking.receive(message(), delivered())


@pytest.mark.parametrize('given', [
    {'embed': {'callbacks': [{'task': 'another'}]}}, {'embed': {'chain': [{'task': 'another'}]}}])
def test_what_is_to_follow_from_a_call_is_celerys_affair(consumer, given):
    assert not strategy(consumer).receive(message(), delivered(**given))
    assert strategy(consumer).receive(message(), delivered(embed={'callbacks': None, 'chord': None}))


@pytest.mark.parametrize('change', [
    {'pool': SimpleNamespace()}, {'hub': None}, {'event_dispatcher': SimpleNamespace(enabled=True)}])
def test_other_pools_and_events_are_celerys_affair(consumer, change):
    vars(consumer).update(change)
    assert not strategy(consumer).receive(message(), delivered())
    assert consumer.offered == []
