"""What the worker does for itself, by the clock: what stands in its way is told, and never parked."""

import logging
import time

import pytest

from ecommerce_worker.errors import Skip, WrongArguments
from ecommerce_worker.worker.chores import resubmit_orders


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


def test_a_broker_that_cannot_tell_what_is_here_is_told_and_the_run_left_out(run, caplog):
    with pytest.raises(Skip, match='transport loses messages'):
        run()
    [told] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert told.getMessage().startswith('orders cannot be resubmitted: error="')
