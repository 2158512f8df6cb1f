"""An application of somebody's own, without a broker."""

import pytest

from ecommerce_worker.errors import Misconfigured, Transient
from ecommerce_worker.extension import application


@pytest.fixture(autouse=True)
def current(app, in_force):
    """Settings in force, and the application that was current before is so afterwards."""
    return in_force()


@pytest.mark.parametrize('queues', ['exports', []])
def test_it_wants_a_list_of_queues(queues):
    with pytest.raises(Misconfigured, match='a list of one or more queue names'):
        application(queues=queues)


def test_its_tasks_go_to_the_first_of_its_queues_and_its_workers_consume_all():
    made = application(queues=['exports', 'reports'])
    assert list(made.amqp.queues.consume_from) == ['exports', 'reports']
    assert (made.conf.task_default_queue, made.amqp.default_queue.name) == ('exports', 'exports')
    assert not made.conf.imports


def test_a_task_that_is_called_is_the_function_that_it_is():
    made = application(queues=['exports'])

    @made.task(name='export_of_a_test', key='number')
    def export(number):
        return number + 1

    assert export(1) == 2
    assert export.apply((1,)).result == 2


def test_what_asks_to_be_tried_again_waits_for_its_policy():
    made = application(queues=['exports'])

    @made.task(name='retry_of_a_test', bind=True, autoretry_for=(LookupError,))
    def again(self):
        raise KeyError('ann@example.com')

    with pytest.raises(Transient, match=r'asked for a retry: KeyError$'):
        again.run()
