"""What the worker does for itself, by the clock: what stands in its way is told, and never parked."""

import logging
import time

import pytest

from ecommerce_worker.errors import Skip, WrongArguments
from ecommerce_worker.resubmit.tasks import resubmit_orders


@pytest.fixture
def run(app, in_force):
    """The body of the task: its errors are not made outcomes of."""
    in_force()
    return resubmit_orders.run


def test_a_run_that_is_late_is_left_out(run):
    with pytest.raises(Skip, match='too late'):
        run(not_after=time.time() - 1)


@pytest.mark.parametrize('not_after', ['soon', True, [1]])
def test_a_time_that_is_none_is_refused(run, not_after):
    with pytest.raises(WrongArguments, match='not_after'):
        run(not_after=not_after)


def told(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]


def test_a_run_that_cannot_be_done_now_is_left_out_with_the_reason_that_the_command_gives(run, environment, tmp_path,
                                                                                          caplog):
    (tmp_path / 'ledger').write_text('no database at all, but a text of some length')
    environment.setenv('ECOMMERCE_WORKER_DATABASES', repr({'default': {'NAME': str(tmp_path / 'ledger')}}))
    with pytest.raises(Skip, match=r'^it is unknown which orders are parked .* not a database$'):
        run()
    assert not told(caplog)


def test_a_run_that_fails_is_told_with_its_output_and_left_out(run, environment, tmp_path, caplog):
    environment.setenv('ECOMMERCE_WORKER_DATABASES', repr({'default': {'NAME': str(tmp_path / 'none')}}))
    environment.setenv('ECOMMERCE_WORKER_BROKER_URL', 'memory://')
    with pytest.raises(Skip, match='resubmit failed: exit status 78; it will run again as scheduled'):
        run()
    [line] = told(caplog)
    assert line.startswith('not all orders could be resubmitted: how="exit status 78" output="')
    assert 'transport loses messages' in line


def test_a_run_that_does_not_end_is_ended(app, in_force, caplog):
    in_force(MANAGEMENT_COMMAND_TIMEOUT=0.1)
    with pytest.raises(Skip, match='it took longer than 0 s and was killed'):
        resubmit_orders.run()
    assert len(told(caplog)) == 1
