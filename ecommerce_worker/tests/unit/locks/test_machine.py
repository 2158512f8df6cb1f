"""Turns at an order, among threads and among processes."""

import os
import socket
import subprocess
import sys

import pytest

from ecommerce_worker.errors import Taken
from ecommerce_worker.locks import machine
from ecommerce_worker.locks.machine import Turns
from ecommerce_worker.tests.support.turns import at_work

TAKE = ('import sys; from ecommerce_worker.locks.machine import Turns\n'
        'with Turns().turn(sys.argv[1], lease=60): print("mine", flush=True); sys.stdin.read()')


@pytest.fixture
def name(tmp_path):
    """What no other test takes turns at."""
    return str(tmp_path)


def turn(name, lease=60.0, put_off=0.0, secret=''):
    return Turns(secret).turn(name, lease=lease, put_off=put_off)


def is_taken(name, **given):
    try:
        with turn(name, **given):
            return False
    except Taken:
        return True


@pytest.fixture
def another(name):
    """Another process that is at it."""
    with subprocess.Popen([sys.executable, '-c', TAKE, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout
            assert other.stdout.readline() == b'mine\n'
            yield other
        finally:
            other.kill()


def test_who_finds_another_at_it_is_sent_away_at_once(name):
    with turn(name):
        assert is_taken(name)
    assert not is_taken(name)


def test_of_many_threads_one_is_under_way(name):
    assert at_work(lambda _: turn(name), seconds=0.01, again=0.001) == [1] * 8


def test_a_process_that_is_killed_leaves_its_turn_to_others(name, another):
    assert is_taken(name)
    another.kill()
    another.wait()
    assert not is_taken(name)


def test_who_was_put_off_for_longer_than_one_may_be_at_it_begins_all_the_same(name):
    with turn(name):
        assert is_taken(name, lease=3, put_off=3)
        assert not is_taken(name, lease=3, put_off=3.1)


def test_a_turn_stands_in_nobody_elses_way_and_ends_with_what_was_done(name):
    # What comes of a message need not be UTF-8.
    with turn(name):
        assert not is_taken(f'{name} \udcff')
    with pytest.raises(KeyError), turn(name):
        raise KeyError
    assert not is_taken(name)


def test_where_there_are_no_such_names_nobody_is_sent_away(name, monkeypatch):
    assert Turns().exclude()
    monkeypatch.setattr(machine, 'PREFIX', b'/nowhere/')
    assert not Turns().exclude()
    with turn(name):
        assert not is_taken(name)


# -- names that somebody else takes -----------------------------------------------------------------------------------

def test_a_name_cannot_be_known_without_the_secret(name):
    addresses = {Turns(secret).address(name) for secret in ('amqp://a:b@mq', 'amqp://a:c@mq', ['amqp://a:b@mq'])}
    assert len(addresses) == 3
    assert Turns('amqp://a:b@mq').address(name) in addresses
    assert not any(b'a:b' in address for address in addresses)


def test_one_that_begins_at_this_moment_was_met(name):
    # It has the name, and does not listen yet.
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as beginning:
        beginning.bind(Turns().address(name))
        assert is_taken(name)


def test_one_that_ends_at_this_moment_was_met(name, monkeypatch):
    ending, user_of = turn(name), machine._user_of

    def end_and_ask(address):
        ending.__exit__(None, None, None)
        return user_of(address)

    monkeypatch.setattr(machine, '_user_of', end_and_ask)
    ending.__enter__()
    assert is_taken(name)
    assert not is_taken(name)


def test_who_takes_a_name_and_does_not_answer_for_it_keeps_nobody_out_for_long(name):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as silent:
        silent.bind(Turns().address(name))
        assert is_taken(name, put_off=machine.SILENT_SECONDS)
        assert not is_taken(name, put_off=machine.SILENT_SECONDS + 0.1)


@pytest.mark.skipif(os.geteuid() != 0, reason='only root can be somebody else')
def test_a_process_of_another_user_keeps_nobody_out(name, caplog):
    program = ('import os, socket, sys\n'
               'os.setuid(65534)\n'
               's = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)\n'
               's.bind(bytes.fromhex(sys.argv[1])); s.listen(9)\n'
               'print("mine", flush=True); sys.stdin.read()')
    with subprocess.Popen([sys.executable, '-c', program, Turns().address(name).hex()], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout
            assert other.stdout.readline() == b'mine\n'
            assert not is_taken(name)
        finally:
            other.kill()
    assert 'another user' in caplog.text


def test_however_many_ask_the_one_that_has_it_has_it(name):
    with turn(name):
        assert all(is_taken(name) for _ in range(machine.BACKLOG + 10))
