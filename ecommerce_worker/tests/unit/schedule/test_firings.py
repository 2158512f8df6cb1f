"""What several beats share, kept in a file or in a ledger: one contract."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

import ecommerce_worker
from ecommerce_worker.broker import publishing
from ecommerce_worker.broker.app import celery_settings
from ecommerce_worker.schedule.claims import CLAIM_SECONDS
from ecommerce_worker.schedule.file_store import FileFirings
from ecommerce_worker.tests.support.ledger import Ledger, Refused, environment_of

NOON = 1_795_262_400.0
BEGUN, DUE = NOON - 60, NOON


class InLedger:
    """The firings of a ledger, asked in a process that has it open."""

    def __init__(self, ledger):
        self._ledger = ledger

    def __getattr__(self, method):
        return lambda *args: self._ledger('firings', method, *args)


@pytest.fixture(scope='module', params=['file', 'sqlite', 'postgresql', 'mysql'])
def machines(request, tmp_path_factory):
    """The same firings as two machines have them."""
    directory = tmp_path_factory.mktemp('firings')
    if request.param == 'file':
        yield [FileFirings(directory / 'a' / 'schedule.sqlite3') for _ in range(2)]
        return
    database = {'NAME': str(directory / 'ledger.sqlite3')}
    if request.param != 'sqlite':
        database = request.getfixturevalue(request.param).database
    ledgers = [Ledger(database), Ledger(database)]
    # One after the other: each brings the schema up to date as it begins.
    for ledger in ledgers:
        ledger('setup.require_schema')
    yield [InLedger(ledger) for ledger in ledgers]
    for ledger in ledgers:
        ledger.close()


@pytest.fixture
def firings(machines):
    return machines[0]


@pytest.fixture
def entry(request):
    """An entry that no other test has."""
    return f'{request.node.name} (60 s)'


def test_an_entry_that_is_new_was_never_fired_and_cannot_be_claimed(firings, entry):
    assert firings.last(entry) is None
    assert firings.claim(entry, DUE, 'one', DUE) is False


def test_an_entry_begins_as_if_it_had_been_fired(machines, entry):
    machines[0].begin(entry, BEGUN)
    assert machines[1].last(entry) == BEGUN
    assert machines[1].claim(entry, BEGUN, 'one', DUE) is False
    assert machines[1].claim(entry, DUE, 'one', DUE) is True


def test_what_is_claimed_is_not_to_be_had_but_by_the_same_beat(machines, entry):
    machines[0].begin(entry, BEGUN)
    assert machines[0].claim(entry, DUE, 'one', DUE) is True
    assert machines[1].claim(entry, DUE, 'two', DUE + CLAIM_SECONDS - 1) is False
    assert machines[0].claim(entry, DUE, 'one', DUE + 1) is True


def test_a_claim_ends(machines, entry):
    machines[0].begin(entry, BEGUN)
    assert machines[0].claim(entry, DUE, 'one', DUE) is True
    assert machines[1].claim(entry, DUE, 'two', DUE + CLAIM_SECONDS + 1) is True
    machines[0].fired(entry, DUE, 'one', 0)
    assert machines[0].last(entry) == BEGUN


def test_what_was_fired_is_not_to_be_had_any_more_and_the_next_one_is(machines, entry):
    machines[0].begin(entry, BEGUN)
    machines[0].claim(entry, DUE, 'one', DUE)
    machines[0].fired(entry, DUE, 'one', 0)
    assert machines[1].last(entry) == DUE
    assert machines[1].claim(entry, DUE, 'two', DUE + 1) is False
    assert machines[1].claim(entry, DUE + 60, 'two', DUE + 60) is True


def test_what_was_left_out_is_not_to_be_had_any_more(machines, entry):
    machines[0].begin(entry, BEGUN)
    machines[0].claim(entry, DUE, 'one', DUE)
    machines[0].expired(entry, DUE, 'one', 3)
    assert machines[1].last(entry) == DUE
    assert machines[1].claim(entry, DUE, 'two', DUE + 1) is False
    assert machines[1].claim(entry, DUE + 60, 'two', DUE + 60) is True


def test_what_was_given_back_is_to_be_had(machines, entry):
    machines[0].begin(entry, BEGUN)
    machines[0].claim(entry, DUE, 'one', DUE)
    machines[1].release(entry, 'two')
    assert machines[1].claim(entry, DUE, 'two', DUE) is False
    machines[0].release(entry, 'one')
    assert machines[1].claim(entry, DUE, 'two', DUE) is True


def test_an_entry_that_begins_anew_forgets_what_was(machines, entry):
    machines[0].begin(entry, DUE + 86_400)
    machines[0].claim(entry, DUE + 2 * 86_400, 'one', DUE)
    machines[0].begin(entry, BEGUN)
    assert machines[1].claim(entry, DUE, 'two', DUE) is True


@pytest.mark.parametrize('one, other', [('mail', 'Mail'), ('a' * 300 + 'b', 'a' * 300 + 'c'), ('é', 'e')])
def test_names_that_differ_are_different_entries(firings, one, other):
    firings.begin(one, BEGUN)
    firings.begin(other, DUE)
    assert (firings.last(one), firings.last(other)) == (BEGUN, DUE)


def test_of_claims_at_the_same_moment_one_is_granted(machines, entry):
    machines[0].begin(entry, BEGUN)
    for round_ in range(20):
        due, barrier = DUE + 60 * round_, threading.Barrier(8)
        granted: list[str] = []

        def claim(number, due=due, granted=granted, barrier=barrier):
            barrier.wait()
            if machines[number % 2].claim(entry, due, str(number), due):
                granted.append(str(number))

        threads = [threading.Thread(target=claim, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(granted) == 1
        machines[0].fired(entry, due, granted[0], 0)


def test_the_last_sign_of_life_of_any_beat_is_told(machines):
    machines[0].tick('one', NOON)
    machines[1].tick('two', NOON + 7)
    machines[0].tick('one', NOON + 5)
    assert machines[0].ticked() == NOON + 7


# --- What the ledger tells of them beside

@pytest.fixture(scope='module')
def ledger(tmp_path_factory):
    ledger = Ledger({'NAME': str(tmp_path_factory.mktemp('told') / 'ledger.sqlite3')})
    yield ledger
    ledger.close()


def told(ledger, entry):
    """When it was due when it was published last; how many were missed when some were last, and until when."""
    [found] = ledger('rows', 'Firing', 'published', 'missed', 'missed_at', entry__startswith=entry)
    return found


def over(ledger, entry, how, due, missed):
    """The firing that was due then was fired, or has expired."""
    firings = InLedger(ledger)
    firings.claim(entry, due, 'one', due)
    getattr(firings, how)(entry, due, 'one', missed)


def test_an_entry_that_has_begun_was_neither_published_nor_missed(ledger, entry):
    InLedger(ledger).begin(entry, BEGUN)
    assert told(ledger, entry) == (None, 0, None)


def test_what_was_missed_last_is_remembered_when_nothing_was_since(ledger, entry):
    InLedger(ledger).begin(entry, BEGUN)
    over(ledger, entry, 'fired', DUE, 0)
    assert told(ledger, entry) == (DUE, 0, None)
    over(ledger, entry, 'fired', DUE + 360, 5)
    over(ledger, entry, 'fired', DUE + 420, 0)
    assert told(ledger, entry) == (DUE + 420, 5, DUE + 360)
    over(ledger, entry, 'fired', DUE + 540, 1)
    assert told(ledger, entry) == (DUE + 540, 1, DUE + 540)


def test_what_has_expired_is_one_more_that_was_missed(ledger, entry):
    InLedger(ledger).begin(entry, BEGUN)
    over(ledger, entry, 'fired', DUE, 0)
    over(ledger, entry, 'expired', DUE + 360, 5)
    assert told(ledger, entry) == (DUE, 6, DUE + 360)


def test_what_another_beat_has_taken_over_is_not_told_by_the_first(ledger, entry):
    InLedger(ledger).begin(entry, BEGUN)
    InLedger(ledger).claim(entry, DUE, 'one', DUE)
    InLedger(ledger).claim(entry, DUE, 'two', DUE + CLAIM_SECONDS + 1)
    InLedger(ledger).fired(entry, DUE, 'one', 5)
    assert told(ledger, entry) == (None, 0, None)


# --- Where they are kept

CHOICE = """
from ecommerce_worker import runtime
from ecommerce_worker.ledger.stores import firings_of
from ecommerce_worker.errors import WorkerError
try:
    print(type(firings_of(runtime.current().settings, print)).__name__)
except WorkerError as error:
    print(type(error).__name__)
"""


def choice(database):
    """What is chosen where the ledger is that database, after the reason if it is not the ledger."""
    done = subprocess.run([sys.executable, '-W', 'error', '-c', CHOICE], capture_output=True, text=True, check=False,
                          env={'PATH': '/usr/bin:/bin', 'PYTHONPATH': str(Path(ecommerce_worker.__file__).parents[1]),
                               **environment_of(database)})
    assert (done.returncode, done.stderr) == (0, '')
    return done.stdout.splitlines()


def test_without_a_ledger_they_are_in_the_file(tmp_path):
    assert choice({'NAME': str(tmp_path / 'none')}) == ['FileFirings']


def test_with_a_ledger_they_are_in_it_once_it_is_of_this_version(tmp_path):
    ledger = Ledger({'NAME': str(tmp_path / 'ledger.sqlite3')})
    try:
        ledger('setup.migrate', target='0001')
        why, chosen = choice(ledger.database)
        assert (chosen, 'without ledger.0002_firings' in why) == ('FileFirings', True)
        ledger('setup.migrate')
        assert choice(ledger.database) == ['LedgerFirings']
    finally:
        ledger.close()


def test_a_ledger_that_is_away_is_not_done_without():
    assert choice({'ENGINE': 'django.db.backends.postgresql', 'HOST': '/no/such/place', 'NAME': 'x'}) == ['LedgerAway']


@pytest.mark.parametrize('server, hang_up', [
    ('postgresql', 'SELECT pg_terminate_backend(pg_backend_pid())'), ('mysql', 'KILL CONNECTION_ID()')])
def test_a_ledger_that_comes_back_is_used_again(request, server, hang_up):
    ledger = Ledger(request.getfixturevalue(server).database)
    try:
        InLedger(ledger).begin('there (60 s)', BEGUN)
        with pytest.raises(Refused):
            ledger('execute', hang_up)
        with pytest.raises(Refused, match='LedgerAway'):
            InLedger(ledger).last('there (60 s)')
        assert InLedger(ledger).last('there (60 s)') == BEGUN
    finally:
        ledger.close()


def test_a_claim_outlasts_the_longest_publishing_in_it(in_force):
    settings = celery_settings(in_force(BROKER_URL='amqp://127.0.0.1//').settings)
    connecting = settings['broker_connection_timeout'] + settings['broker_transport_options']['read_timeout']
    # As often as publishing is tried on another connection.
    assert publishing.CONFIRM_SECONDS + 4 * connecting < CLAIM_SECONDS
