"""Interruptions of the demonstration."""

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from ecommerce_worker.demo.stage import Broker, Interrupted, Interruptions, Stage


def interrupt():
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def interruptions():
    with Interruptions() as interruptions:
        yield interruptions


def test_a_signal_is_raised_where_it_strikes(interruptions):
    with pytest.raises(Interrupted) as caught:
        interrupt()
    assert caught.value.status == 143


def test_it_waits_for_the_end_of_what_is_half_done(interruptions):
    done = []

    def work():
        with interruptions.held():
            with interruptions.held():
                interrupt()
            done.append('all of it')

    with pytest.raises(Interrupted):
        work()
    assert done == ['all of it']


def test_it_is_raised_again_where_it_was_lost_in_a_destructor(interruptions, monkeypatch):
    class Gone:
        def __del__(self):
            interrupt()

    lost = []
    monkeypatch.setattr(sys, 'unraisablehook', lambda it: lost.append(it.exc_type))
    Gone()
    assert lost == [Interrupted]
    with pytest.raises(Interrupted):
        interruptions.check()


def test_it_is_raised_no_more_once_all_is_to_end(interruptions):
    interruptions.check()
    interruptions.hold()
    interrupt()
    interruptions.check()
    assert interruptions.came == signal.SIGTERM


@pytest.mark.parametrize('given', [True, False])
def test_nothing_is_written_into_the_ledger_of_this_machine(interruptions, tmp_path, given):
    stage = Stage(interruptions)
    stage.home, stage.broker = tmp_path, Broker('amqp://127.0.0.1:1//', 'a RabbitMQ', given=given)
    database = json.loads(stage._ledger_settings['DATABASES'])['default']
    assert Path(database['NAME']).is_relative_to(tmp_path)
    assert bool(stage.console) is not given
